//! What clients do: applies of many pods, a few of them under way at a time, and single requests whose answers are timed meanwhile.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use bytes::Bytes;
use hyper::{Method, StatusCode};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::rig::Room;
use crate::http::{Address, Connection};

/// Pods in one apply.
const BATCH: usize = 500;
/// Applies under way at a time.
const IN_FLIGHT: usize = 4;
/// Between two single requests of a kind, unless the answer takes longer.
const PROBE_EVERY: Duration = Duration::from_millis(20);
/// Between two lists.
const LIST_EVERY: Duration = Duration::from_millis(200);
/// The most single pods that are applied: there is room for so many.
pub const MOST_SINGLES: usize = 1_000;

/// How long requests took, in milliseconds.
#[derive(Debug, Default, Clone)]
pub struct Times(Vec<f64>);

impl Times {
    fn add(&mut self, took: Duration) {
        self.0.push(took.as_secs_f64() * 1000.0);
    }

    /// The value that such a part of them doesn't exceed; 0 of none.
    pub fn quantile(&self, part: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        // The nearest rank.
        let rank = (part * sorted.len() as f64).ceil() as usize;
        sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied().unwrap_or(0.0)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

/// A manifest of pods with these numbers.
pub fn manifest(prefix: &str, numbers: Range<usize>) -> Bytes {
    let (cpu, memory) = (Room::CPU, Room::MEMORY);
    let pod = |number| {
        format!(
            r#"{{"type":"pod","metadata":{{"name":"{prefix}-{number}","labels":{{"app":"{prefix}"}}}},"spec":{{"containers":[{{"name":"app","image":"registry.local/team/app:1.2.3","env":{{"LEVEL":"info"}},"resources":{{"requests":{{"cpu":"{cpu}m","memory":"{memory}Mi"}}}}}}]}}}}"#
        )
    };
    let pods: Vec<String> = numbers.map(pod).collect();
    format!("[{}]", pods.join(",")).into()
}

/// Applies so many pods in batches; how long each batch took.
pub async fn apply(target: &Address, prefix: &str, count: usize) -> Result<Times> {
    let next = Arc::new(AtomicUsize::new(0));
    let mut clients = JoinSet::new();
    for _ in 0..IN_FLIGHT {
        let (target, prefix, next) = (target.clone(), prefix.to_owned(), next.clone());
        clients.spawn(async move {
            let (mut connection, mut times) = (Connection::open(&target).await?, Times::default());
            loop {
                let first = next.fetch_add(BATCH, Ordering::Relaxed);
                if first >= count {
                    return anyhow::Ok(times);
                }
                let body = manifest(&prefix, first..(first + BATCH).min(count));
                let began = Instant::now();
                post(&mut connection, &body).await?;
                times.add(began.elapsed());
            }
        });
    }
    let mut all = Times::default();
    while let Some(times) = clients.join_next().await {
        all.0.extend(times??.0);
    }
    Ok(all)
}

/// One that is refused as too much at a time comes again, as a client would.
async fn post(connection: &mut Connection, body: &Bytes) -> Result<()> {
    loop {
        match connection.post("/v1/apply", body.clone()).await? {
            (status, _) if status.is_success() => return Ok(()),
            (StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE, _) => sleep(Duration::from_millis(10)).await,
            (status, answer) => bail!("an apply was answered {status}: {}", String::from_utf8_lossy(&answer)),
        }
    }
}

/// Single requests beside a load.
pub struct Probes {
    stop: Arc<AtomicBool>,
    tasks: JoinSet<Result<(Kind, Times)>>,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Apply,
    Get,
    List,
}

/// How long they took.
#[derive(Debug, Default)]
pub struct Probed {
    /// Applies of one pod each.
    pub apply: Times,
    /// Of one pod.
    pub get: Times,
    /// Of 500 pods.
    pub list: Times,
}

impl Probes {
    /// Begins. `known` is a prefix with so many pods to ask for.
    pub fn start(target: &Address, known: &str, count: usize) -> Self {
        let (stop, mut tasks) = (Arc::new(AtomicBool::new(false)), JoinSet::new());
        for kind in [Kind::Apply, Kind::Get, Kind::List] {
            tasks.spawn(probe(kind, target.clone(), known.to_owned(), count, stop.clone()));
        }
        Self { stop, tasks }
    }

    /// Ends them.
    pub async fn stop(mut self) -> Result<Probed> {
        self.stop.store(true, Ordering::Relaxed);
        let mut probed = Probed::default();
        while let Some(done) = self.tasks.join_next().await {
            let (kind, times) = done??;
            match kind {
                Kind::Apply => probed.apply = times,
                Kind::Get => probed.get = times,
                Kind::List => probed.list = times,
            }
        }
        Ok(probed)
    }
}

async fn probe(kind: Kind, target: Address, known: String, count: usize, stop: Arc<AtomicBool>) -> Result<(Kind, Times)> {
    let (mut connection, mut times) = (Connection::open(&target).await?, Times::default());
    let mut every = interval(match kind {
        Kind::Apply | Kind::Get => PROBE_EVERY,
        Kind::List => LIST_EVERY,
    });
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !stop.load(Ordering::Relaxed) {
        every.tick().await;
        let number = times.count();
        let began = Instant::now();
        match kind {
            Kind::Apply if number >= MOST_SINGLES => continue,
            Kind::Apply => post(&mut connection, &manifest("single", number..number + 1)).await?,
            Kind::Get => drop(connection.text(Method::GET, &format!("/v1/pods/{known}-{}", number * 7919 % count)).await?),
            Kind::List => drop(connection.text(Method::GET, "/v1/pods?limit=500").await?),
        }
        times.add(began.elapsed());
    }
    Ok((kind, times))
}
