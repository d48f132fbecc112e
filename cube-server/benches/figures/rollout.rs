//! What a rolling update costs the clients of a deployment: requests that fail while each of its pods is replaced.
//!
//! The client does what a load balancer does: it follows the watch of the pods, and sends only to host ports of those that are ready. Each request has a
//! connection of its own, and they are sent at a steady rate, whether or not the ones before were answered.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use cube_api::deployment::{Deployment, REVISION_LABEL, RolloutState};
use cube_api::meta::Uid;
use cube_api::pod::Pod;
use cube_api::routes::WatchEvent;
use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::cluster::Cluster;
use crate::engine::{Engine, IMAGE};
use crate::http::{Address, Connection, Lines};
use crate::report::{Figure, Report};

/// The deployment.
const NAME: &str = "web";

/// Where its pods listen.
const PORT: u16 = 8080;

/// Serves a page that has the update's number. A first process gets no default action of a signal, so that `httpd` as one would serve on until it is
/// killed; under this shell it ends at once, with whatever it is at, which is the worst that a pod can do to its clients.
const SERVE: &str = "mkdir /www && echo \"$UPDATE\" >/www/index.html && { httpd -f -p 8080 -h /www & trap 'kill -9 $!; exit' TERM; wait; }";

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long the load goes on before the first update and after each.
const STEADY: Duration = Duration::from_secs(3);

/// What to measure.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// How many pods the deployment has.
    #[arg(long, default_value_t = 10)]
    replicas: usize,
    /// How often all of them are replaced.
    #[arg(long, default_value_t = 3)]
    updates: u64,
    /// How many requests are sent in a second.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rate: u32,
    /// How long an update may take, in seconds.
    #[arg(long, default_value_t = 300)]
    limit: u64,
}

/// Measures the requests that fail, and how long an update takes.
pub async fn measure(engine: &Engine, options: &Options) -> Result<Report> {
    let cluster = Cluster::start(engine).await?;
    let seen = Seen::default();
    let pods = cluster.watch("/v1/pods").await?;
    let (is_over, over) = watch::channel(false);
    let (took, sent) = tokio::select! {
        ended = follow(pods, &seen) => return Err(ended),
        done = async { tokio::try_join!(update(&cluster, &seen, options, is_over), send(&seen, options.rate, over)) } => done?,
    };
    cluster.delete_object(&format!("/v1/deployments/{NAME}")).await?;
    cluster.stop().await?;
    Ok(report(options, &took, sent))
}

fn report(options: &Options, took: &[f64], mut sent: Sent) -> Report {
    let mut report = Report::default();
    let Options { replicas, updates, .. } = options;
    let count = |number: usize| f64::from(u32::try_from(number).unwrap_or(u32::MAX));
    let failed = sent.failures.values().sum();
    report.measured("rollout_s", &format!("a rolling update of {replicas} pods"), "s", Figure::of(took));
    report.number("rollout_sent", &format!("requests while {updates} of them went on: sent"), "", count(sent.millis.len() + failed));
    report.number("rollout_failed", "failed (0 is the aim)", "", count(failed));
    for (failure, times) in &sent.failures {
        report.number(&format!("rollout_failed_{failure}"), &format!("failed: {failure}"), "", count(*times));
    }
    report.number("rollout_rate", "sent in a second", "requests/s", count(sent.millis.len() + failed) / sent.lasted.as_secs_f64());
    if !sent.millis.is_empty() {
        sent.millis.sort_by(f64::total_cmp);
        report.measured("rollout_latency_ms", "answered after, half of them", "ms", Figure::of(&sent.millis));
        report.number("rollout_latency_p99_ms", "answered after, 99 of 100", "ms", sent.millis[(sent.millis.len() * 99).div_ceil(100) - 1]);
    }
    report
}

/// The deployment's pods, as the watch has shown them.
#[derive(Default)]
struct Seen(Mutex<BTreeMap<Uid, Shown>>);

/// What a client has to know of a pod.
struct Shown {
    name: String,
    update: Option<String>,
    /// Where requests may be sent, if they may.
    ready: Option<SocketAddr>,
    /// Since when that is so.
    since: Instant,
}

impl Seen {
    fn note(&self, event: WatchEvent<Pod>) {
        let mut pods = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            WatchEvent::Added(pod) | WatchEvent::Modified(pod) => {
                let ready = if pod.is_ready() {
                    pod.status.host_ports.first().map(|port| (Ipv4Addr::LOCALHOST, port.host_port).into())
                } else {
                    None
                };
                let before = pods.get(&pod.metadata.uid).filter(|shown| shown.ready == ready).map(|shown| shown.since);
                let update = pod.metadata.labels.get(REVISION_LABEL).map(ToString::to_string);
                let shown = Shown { name: pod.metadata.name.to_string(), update, ready, since: before.unwrap_or_else(Instant::now) };
                pods.insert(pod.metadata.uid, shown);
            }
            WatchEvent::Deleted(pod) => drop(pods.remove(&pod.metadata.uid)),
            WatchEvent::Bookmark(_) => {}
        }
    }

    /// Where the request of that number goes.
    fn target(&self, number: usize) -> Option<SocketAddr> {
        let pods = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let ready: Vec<_> = pods.values().filter_map(|pod| pod.ready).collect();
        ready.get(number.checked_rem(ready.len())?).copied()
    }

    /// Whether the pods are so many of that revision, all ready, and no others are left.
    fn are_all(&self, revision: u64, count: usize) -> bool {
        let pods = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pods.len() == count && pods.values().all(|pod| pod.ready.is_some() && pod.update.as_deref() == Some(&revision.to_string()))
    }

    /// What is known of the pods, for the one who asks why a request failed.
    fn told(&self) -> String {
        let pods = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let told = pods.values().map(|pod| match pod.ready {
            Some(at) => format!("{} ready at {} for {:?}", pod.name, at.port(), pod.since.elapsed()),
            None => format!("{} not ready for {:?}", pod.name, pod.since.elapsed()),
        });
        told.collect::<Vec<_>>().join(", ")
    }
}

/// Keeps what is seen as the watch tells it, until that fails.
async fn follow(mut pods: Lines, seen: &Seen) -> anyhow::Error {
    loop {
        let event = async { anyhow::Ok(serde_json::from_slice(&pods.next_line().await?)?) };
        match event.await {
            Ok(event) => seen.note(event),
            Err(error) => return error.context("the watch of the pods ended"),
        }
    }
}

/// Makes the deployment and updates it; tells before the first update and after the last that the load is to begin and to end. The seconds of each.
async fn update(cluster: &Cluster, seen: &Seen, options: &Options, is_over: watch::Sender<bool>) -> Result<Vec<f64>> {
    let limit = Duration::from_secs(options.limit);
    let mut deployments = cluster.watch("/v1/deployments").await?;
    let mut took = Vec::new();
    for revision in 1..=options.updates + 1 {
        let began = Instant::now();
        cluster.apply(vec![deployment(options.replicas, revision)]).await?;
        let complete = async {
            while !is_rolled_out(&mut deployments, revision).await? {}
            anyhow::Ok(began.elapsed().as_secs_f64())
        };
        let Ok(seconds) = timeout(limit, complete).await else {
            bail!("revision {revision} isn't rolled out after {limit:?}: {}\n{}", seen.told(), cluster.log());
        };
        let gone = async {
            while !seen.are_all(revision, options.replicas) {
                sleep(Duration::from_millis(20)).await;
            }
        };
        let seconds = seconds?;
        timeout(limit, gone).await.with_context(|| format!("old pods of revision {revision} stay: {}", seen.told()))?;
        // The first one only makes the pods.
        if revision == 1 {
            is_over.send_replace(false);
        } else {
            took.push(seconds);
        }
        sleep(STEADY).await;
    }
    is_over.send_replace(true);
    Ok(took)
}

/// Whether the next event of the deployment says so.
async fn is_rolled_out(deployments: &mut Lines, revision: u64) -> Result<bool> {
    let (WatchEvent::Added(deployment) | WatchEvent::Modified(deployment)) = serde_json::from_slice(&deployments.next_line().await?)?
    else {
        return Ok(false);
    };
    let deployment: Deployment = deployment;
    match deployment.status.rollout {
        Some(rollout) if rollout.revision == revision => match rollout.state {
            RolloutState::Complete { .. } => Ok(true),
            RolloutState::Progressing { .. } | RolloutState::Paused { .. } => Ok(false),
            RolloutState::Stalled { reason, .. } => bail!("the rollout of revision {revision} has stalled: {reason}"),
        },
        Some(_) | None => Ok(false),
    }
}

fn deployment(replicas: usize, update: u64) -> Value {
    let probe = json!({ "httpGet": { "path": "/", "port": PORT }, "periodSeconds": 1 });
    let container = json!({ "name": "httpd", "image": IMAGE, "command": ["sh", "-c", SERVE],
        "env": [{ "name": "UPDATE", "value": update.to_string() }],
        "ports": [{ "containerPort": PORT, "hostPort": 0, "hostIP": "127.0.0.1" }], "readinessProbe": probe });
    let template = json!({ "metadata": { "labels": { "app": NAME } }, "spec": { "containers": [container] } });
    json!({ "type": "deployment", "metadata": { "name": NAME }, "spec": { "replicas": replicas, "template": template } })
}

/// What became of the requests.
#[derive(Default)]
struct Sent {
    /// How long each that was answered took.
    millis: Vec<f64>,
    failures: BTreeMap<Failure, usize>,
    /// From the first to the last.
    lasted: Duration,
}

/// Why a request failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Failure {
    /// No pod was ready.
    Nowhere,
    Refused,
    /// Or closed before the answer was complete.
    Reset,
    Timeout,
    /// Another than 200.
    Status,
    Other,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nowhere => "nowhere",
            Self::Refused => "refused",
            Self::Reset => "reset",
            Self::Timeout => "timeout",
            Self::Status => "status",
            Self::Other => "other",
        })
    }
}

/// Sends so many requests a second from when all pods are there until it is over.
async fn send(seen: &Seen, rate: u32, mut over: watch::Receiver<bool>) -> Result<Sent> {
    over.changed().await?;
    let mut sent = Sent::default();
    let mut requests = JoinSet::new();
    let mut due = interval(Duration::from_secs(1) / rate);
    // What is late isn't made up for by a burst.
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let began = Instant::now();
    for number in 0.. {
        due.tick().await;
        if *over.borrow() {
            break;
        }
        match seen.target(number) {
            Some(target) => drop(requests.spawn(request(target))),
            None => *sent.failures.entry(Failure::Nowhere).or_default() += 1,
        }
        while let Some(answer) = requests.try_join_next() {
            sent.note(answer?, seen);
        }
    }
    sent.lasted = began.elapsed();
    while let Some(answer) = requests.join_next().await {
        sent.note(answer?, seen);
    }
    Ok(sent)
}

impl Sent {
    fn note(&mut self, answer: std::result::Result<f64, (Failure, String)>, seen: &Seen) {
        match answer {
            Ok(millis) => self.millis.push(millis),
            Err((failure, why)) => {
                eprintln!("== {failure}: {why}; {}", seen.told());
                *self.failures.entry(failure).or_default() += 1;
            }
        }
    }
}

/// One request over a connection of its own: the milliseconds until its answer was complete.
async fn request(target: SocketAddr) -> std::result::Result<f64, (Failure, String)> {
    let began = Instant::now();
    let answered = async {
        // The pods ask for no credential.
        let mut connection = Connection::open(&Address::Tcp(target, String::new())).await?;
        connection.try_call(Method::GET, "/", None).await
    };
    let told = |why: &dyn fmt::Display| format!("{target} after {:?}: {why}", began.elapsed());
    match timeout(PATIENCE, answered).await {
        Ok(Ok((StatusCode::OK, _))) => Ok(began.elapsed().as_secs_f64() * 1000.0),
        Ok(Ok((status, _))) => Err((Failure::Status, told(&status))),
        Ok(Err(error)) => Err((failure_of(&error), told(&format!("{error:#}")))),
        Err(_) => Err((Failure::Timeout, told(&"no answer"))),
    }
}

fn failure_of(error: &anyhow::Error) -> Failure {
    let kind = error.chain().find_map(|cause| cause.downcast_ref::<io::Error>()).map(io::Error::kind);
    let is_cut = error.chain().filter_map(|cause| cause.downcast_ref::<hyper::Error>()).any(hyper::Error::is_incomplete_message);
    match kind {
        Some(io::ErrorKind::ConnectionRefused) => Failure::Refused,
        Some(io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof) => Failure::Reset,
        Some(_) | None if is_cut => Failure::Reset,
        Some(_) | None => Failure::Other,
    }
}
