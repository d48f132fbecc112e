//! A leader with many nodes and pods: how fast it takes and places them, what it costs, how it comes back. Nodes are hollow: all but the containers
//! is real, and nothing of it needs an engine.

mod load;
pub mod process;
mod rig;
mod view;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tokio::time::sleep;

use self::load::{MOST_SINGLES, Probed, Probes, Times};
use self::rig::{Rig, Room};
use self::view::{View, lives};
use crate::idle::Memory;
use crate::report::Report;

/// Pods that are applied to an empty cluster and to a full one, to compare.
const FURTHER: usize = 1_000;
/// How often each.
const FURTHER_ROUNDS: usize = 3;
/// After the last pod runs, before an idle cluster is measured.
const SETTLE: Duration = Duration::from_secs(10);
/// How long it is measured.
const IDLE: Duration = Duration::from_secs(20);
/// For pods to be as they were after the leader came back.
const AS_BEFORE: Duration = Duration::from_secs(120);

/// What to measure.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// How many nodes.
    #[arg(long, default_value_t = 1_000)]
    nodes: usize,
    /// How many pods.
    #[arg(long, default_value_t = 30_000)]
    pods: usize,
    /// A folder on a disk, for the leader's database.
    #[arg(long, default_value = env!("CARGO_TARGET_TMPDIR"))]
    folder: PathBuf,
    /// The most seconds that a part of it may take.
    #[arg(long, default_value_t = 600)]
    limit: u64,
}

/// What a leader did in a stretch of time.
struct Stretch {
    began: Instant,
    cpu: f64,
}

impl Stretch {
    fn begin(pid: u32) -> Result<Self> {
        Ok(Self { began: Instant::now(), cpu: process::cpu_seconds(pid)? })
    }

    fn cpu(&self, pid: u32) -> Result<f64> {
        Ok(process::cpu_seconds(pid)? - self.cpu)
    }
}

/// A load that was borne.
struct Borne {
    bound_s: f64,
    running_s: f64,
    leader_cpu_s: f64,
    hollow_cpu_s: f64,
    batches: Times,
    probed: Probed,
}

/// A run.
struct Run<'a> {
    options: &'a Options,
    limit: Duration,
    rig: Rig,
    view: View,
    hollow: u32,
    report: Report,
    /// Pods that were applied.
    applied: usize,
}

/// Measures everything, one part after the other on one cluster.
pub async fn measure(options: &Options) -> Result<Report> {
    ensure!(options.nodes > 0 && options.pods > 0, "a cluster has at least one node and one pod");
    let (limit, mut report) = (Duration::from_secs(options.limit), Report::plain());
    let mut rig = Rig::start(&options.folder).await?;
    let leader = rig.leader()?;
    let empty = Memory::of(leader)?;
    let all = options.pods + 2 * FURTHER * FURTHER_ROUNDS + MOST_SINGLES;
    let room = Room { pods: all.div_ceil(options.nodes) };
    let began = Instant::now();
    let hollow = rig.join("hollow", options.nodes, room, options.nodes, limit).await?;
    report.number("join_s", &format!("{} nodes: start to all sessions", options.nodes), "s", began.elapsed().as_secs_f64());
    let kib_per_node = (Memory::of(leader)?.now_mib - empty.now_mib) * 1024.0 / options.nodes as f64;
    report.number("leader_kib_per_node", "leader: memory for a node", "KiB", kib_per_node);
    let view = View::open(rig.target());
    let mut run = Run { options, limit, rig, view, hollow, report, applied: 0 };
    let measured = run.all_parts().await;
    let Run { rig, view, report, .. } = run;
    drop(view);
    let logs = rig.logs();
    rig.stop().await?;
    measured.inspect_err(|_| eprintln!("{logs}"))?;
    Ok(report)
}

impl Run<'_> {
    async fn all_parts(&mut self) -> Result<()> {
        let first = self.further("base").await?;
        self.load().await?;
        let last = self.further("further").await?;
        self.report.number("further_ratio", "1,000 more pods until they run: on a full cluster to on an empty one", "", last / first);
        self.idle().await?;
        self.recover().await
    }

    /// Seconds from the apply of 1,000 pods until all of them run; the middle of some rounds.
    async fn further(&mut self, prefix: &str) -> Result<f64> {
        let mut times = Vec::new();
        for round in 0..FURTHER_ROUNDS {
            let began = Instant::now();
            load::apply(&self.rig.target(), &format!("{prefix}{round}"), FURTHER).await?;
            self.applied += FURTHER;
            let all = self.applied;
            let bound = self.view.until("1,000 pods bound", self.limit, |counts| counts.bound >= all).await?;
            let running = self.view.until("1,000 pods running", self.limit, |counts| counts.running >= all).await?;
            eprintln!("== {prefix} {round}: bound after {:?}, running after {:?}", bound - began, running - began);
            times.push((running - began).as_secs_f64());
        }
        times.sort_by(f64::total_cmp);
        Ok(times[times.len() / 2])
    }

    async fn load(&mut self) -> Result<()> {
        let pods = self.options.pods;
        let leader = self.rig.leader()?;
        let before = Memory::of(leader)?;
        let borne = self.bear(leader).await?;
        let memory = Memory::of(leader)?;
        let report = &mut self.report;
        let rate = |seconds: f64| pods as f64 / seconds;
        report.number("bound_per_s", &format!("{pods} pods: accepted, bound and durable (10,000)"), "pods/s", rate(borne.bound_s));
        report.number("running_per_s", &format!("{pods} pods: Running, as a watch shows (3,000)"), "pods/s", rate(borne.running_s));
        for (key, what, times) in [
            ("apply", "meanwhile, an apply of one pod", &borne.probed.apply),
            ("batch", "an apply of 500 pods", &borne.batches),
            ("get", "meanwhile, a get of one pod", &borne.probed.get),
            ("list", "meanwhile, a list of 500 pods", &borne.probed.list),
        ] {
            report.number(&format!("{key}_ms_p50"), &format!("{what}: half of them"), "ms", times.quantile(0.5));
            report.number(&format!("{key}_ms_p99"), &format!("{what}: 99 of 100 (of {})", times.count()), "ms", times.quantile(0.99));
        }
        let thousands = pods as f64 / 1000.0;
        report.number("leader_cpu_s", "leader: CPU time for all of them", "s", borne.leader_cpu_s);
        report.number("leader_cpu_ms_per_1000_pods", "leader: CPU time for 1,000 pods", "ms", borne.leader_cpu_s * 1000.0 / thousands);
        report.number("leader_rss_mib", "leader: memory at its peak (512)", "MiB", memory.peak_mib);
        report.number("leader_mib_per_1000_pods", "leader: memory for 1,000 pods", "MiB", (memory.now_mib - before.now_mib) / thousands);
        report.number("hollow_cpu_s", "hollow nodes: CPU time for all of them", "s", borne.hollow_cpu_s);
        report.number("hollow_rss_mib", "hollow nodes: memory at its peak", "MiB", Memory::of(self.hollow)?.peak_mib);
        report.number("watch_restarts", "how often the watch fell behind", "", self.view.counts().restarts as f64);
        Ok(())
    }

    async fn bear(&mut self, leader: u32) -> Result<Borne> {
        let (pods, target, first) = (self.options.pods, self.rig.target(), self.applied);
        let probes = Probes::start(&target, "base0", FURTHER);
        let (leader_used, hollow_used) = (Stretch::begin(leader)?, Stretch::begin(self.hollow)?);
        let began = leader_used.began;
        let applied = tokio::spawn(async move { load::apply(&target, "load", pods).await });
        // Of those that the probes apply, as many as came: they are placed among the others.
        let bound = self.view.until("the pods are bound", self.limit, |counts| counts.bound >= first + pods).await?;
        eprintln!("== {pods} pods are bound after {:?}", bound - began);
        let running = self.view.until("the pods run", self.limit, |counts| counts.running >= first + pods).await?;
        eprintln!("== {pods} pods run after {:?}", running - began);
        let (leader_cpu_s, hollow_cpu_s) = (leader_used.cpu(leader)?, hollow_used.cpu(self.hollow)?);
        let (batches, probed) = (applied.await??, probes.stop().await?);
        self.applied += pods + probed.apply.count();
        let all = self.applied;
        self.view.until("the single pods run too", self.limit, |counts| counts.running >= all).await?;
        let seconds = |at: Instant| (at - began).as_secs_f64();
        Ok(Borne { bound_s: seconds(bound), running_s: seconds(running), leader_cpu_s, hollow_cpu_s, batches, probed })
    }

    async fn idle(&mut self) -> Result<()> {
        let leader = self.rig.leader()?;
        sleep(SETTLE).await;
        let (used, hollow_used) = (Stretch::begin(leader)?, Stretch::begin(self.hollow)?);
        let (sent, written) = (process::loopback_bytes()?, process::disk_bytes(leader)?);
        sleep(IDLE).await;
        let seconds = used.began.elapsed().as_secs_f64();
        let (sent, written) = (process::loopback_bytes()? - sent, process::disk_bytes(leader)? - written);
        let report = &mut self.report;
        report.number("idle_cpu_percent", "nothing happens: leader's CPU", "%", used.cpu(leader)? * 100.0 / seconds);
        report.number(
            "idle_hollow_cpu_percent",
            "nothing happens: CPU of all hollow nodes",
            "%",
            hollow_used.cpu(self.hollow)? * 100.0 / seconds,
        );
        report.number("idle_bytes_per_s", "nothing happens: on the loopback device, both ways", "B/s", sent / seconds);
        report.number("idle_disk_bytes_per_s", "nothing happens: leader's writes to disk", "B/s", written / seconds);
        Ok(())
    }

    async fn recover(&mut self) -> Result<()> {
        let before = lives(&mut self.rig.connect().await?).await?;
        ensure!(before.len() == self.applied, "{} of {} pods are listed", before.len(), self.applied);
        let began = Instant::now();
        let serving = self.rig.crash_leader().await?;
        eprintln!("== the leader serves again after {serving:?}");
        self.rig.until_sessions(self.options.nodes, self.limit).await?;
        let back = began.elapsed();
        eprintln!("== all sessions are back after {back:?}");
        let touched = loop {
            let after = lives(&mut self.rig.connect().await?).await?;
            let touched = before.iter().filter(|(name, life)| after.get(*name) != Some(life)).count();
            if touched == 0 || began.elapsed() > back + AS_BEFORE {
                break touched;
            }
            sleep(Duration::from_secs(1)).await;
        };
        let report = &mut self.report;
        report.number("recover_serve_ms", "leader, kill -9 to serving (2,000)", "ms", serving.as_secs_f64() * 1000.0);
        report.number("recover_sessions_s", "leader, kill -9 to all sessions (30)", "s", back.as_secs_f64());
        report.number("recover_pods_touched", "pods that aren't as before: uid, node, phase, containers, restarts (0)", "", touched as f64);
        Ok(())
    }
}

/// What to measure of a lost node.
#[derive(Debug, clap::Args)]
pub struct LostOptions {
    /// How many pods the cluster has; a quarter of them is on the node that is lost.
    #[arg(long, default_value_t = 100)]
    pods: usize,
    /// A folder on a disk, for the leader's database.
    #[arg(long, default_value = env!("CARGO_TARGET_TMPDIR"))]
    folder: PathBuf,
}

/// For each part of it; after a leader's start nobody is lost for a minute.
const LOST_LIMIT: Duration = Duration::from_secs(120);
/// Nobody is lost in the first minute of a leader: twice `--node-lost-after`.
const GRACE: Duration = Duration::from_secs(62);

/// Measures the time from kill -9 of a node until its pods run elsewhere, with the leader's own limits.
pub async fn measure_lost(options: &LostOptions) -> Result<Report> {
    let pods = options.pods;
    let mut rig = Rig::start(&options.folder).await?;
    let began = Instant::now();
    let room = Room { pods };
    let doomed = rig.join("doomed", 1, room, 1, LOST_LIMIT).await?;
    rig.join("other", 3, room, 4, LOST_LIMIT).await?;
    let view = View::open(rig.target());
    load::apply(&rig.target(), "pod", pods).await?;
    view.until("the pods run", LOST_LIMIT, |counts| counts.running >= pods).await?;
    let there = view.running_on("doomed");
    ensure!(there > 0, "no pod is on the node that is to be lost");
    sleep(GRACE.saturating_sub(began.elapsed())).await;
    rig.kill(doomed).await?;
    let killed = Instant::now();
    let elsewhere = view.until("the pods run elsewhere", LOST_LIMIT, |_| view.running_on("other") >= pods).await? - killed;
    drop(view);
    rig.stop().await?;
    let mut report = Report::plain();
    report.number("lost_pods", "pods of the node that was killed", "", there as f64);
    report.number("lost_s", "kill -9 of a node to its pods Running elsewhere (35)", "s", elsewhere.as_secs_f64());
    Ok(report)
}
