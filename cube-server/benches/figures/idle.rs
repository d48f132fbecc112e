//! What cube costs while nothing happens: memory of the servers, time until ready, sizes of the binaries.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::sleep;

use crate::cluster::{Cluster, SERVER};
use crate::engine::Engine;
use crate::report::{Figure, Report};

/// How often a leader is started for the time until it is ready.
const STARTS: usize = 5;

/// After the pods run, before memory is read: what starting them needed is given back by then.
const SETTLE: Duration = Duration::from_secs(10);

/// A process's resident memory.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    /// Now.
    pub now_mib: f64,
    /// At its highest since it was started.
    pub peak_mib: f64,
}

impl Memory {
    /// As the kernel counts it in `/proc`.
    pub fn of(pid: u32) -> Result<Self> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).with_context(|| format!("process {pid} has no status"))?;
        let field = |name: &str| -> Result<f64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("process {pid} has no {name}"))?;
            Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
        };
        Ok(Self { now_mib: field("VmRSS:")?, peak_mib: field("VmHWM:")? })
    }
}

/// Measures a leader without pods and a follower with so many.
pub async fn measure(engine: &Engine, pods: usize) -> Result<Report> {
    let mut ready = Vec::new();
    for _ in 0..STARTS {
        let cluster = Cluster::start(engine).await?;
        ready.push(cluster.ready_after.as_secs_f64() * 1000.0);
        cluster.stop().await?;
    }
    let cluster = Cluster::start_with_follower(engine).await?;
    cluster.run_pods(pods).await?;
    sleep(SETTLE).await;
    let leader = Memory::of(cluster.pid().context("the leader has ended")?)?;
    let follower = Memory::of(cluster.follower_pid().context("the follower has ended")?)?;
    cluster.stop().await?;
    let mut report = Report::default();
    report.measured("leader_ready_ms", "leader: start to ready (200 or less is the aim)", "ms", Figure::of(&ready));
    report.number("leader_rss_mib", &format!("leader, {pods} idle pods: memory (30 or less is the aim)"), "MiB", leader.now_mib);
    report.number("follower_rss_mib", &format!("follower, {pods} idle pods: memory (20 or less is the aim)"), "MiB", follower.now_mib);
    for name in ["cube-server", "cube"] {
        let path = Path::new(SERVER).with_file_name(name);
        let size = std::fs::metadata(&path).with_context(|| format!("{} is missing: scripts/bench builds it", path.display()))?.len();
        let what = format!("{name}: size (25 or less is the aim)");
        report.number(&format!("{}_size_mib", name.replace('-', "_")), &what, "MiB", mebibytes(size));
    }
    Ok(report)
}

fn mebibytes(bytes: u64) -> f64 {
    Duration::from_micros(bytes).as_secs_f64() / 1.048_576
}
