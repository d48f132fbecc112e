//! Tries the probes of the pods: one task for each pod that has any, in it one loop for each probe that is to run now.
//!
//! What is to run is the plan's word, and so is what follows from what is found: a loop only counts its tries, with the plan's tally, and tells the
//! pod's task where that makes a difference. A healthy pod's task is never woken, and there is no thread per probe: a probe that waits is a timer.
//! Tries go on while the engine is down or the leader is away. `hooks.rs` runs the containers' hooks with the same requests and commands.

mod hooks;
mod tries;

use std::sync::Arc;
use std::time::Duration;

use cube_api::pod::{Container, Probe, ProbeKind};
use cube_api::session::AssignedPod;
use futures::StreamExt;
use futures::future::{AbortHandle, Abortable, BoxFuture};
use futures::stream::FuturesUnordered;
use jiff::Timestamp;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;

use crate::ambient::Ambient;
use crate::follower::plan::{News, Tally, Wanted};
use crate::follower::runtime::Runtime;
use crate::latest;
use crate::net::Network;
use crate::tasks::Tasks;
use tries::Try;

/// Commands that are run in containers at the same time: each costs Docker about 100 ms of work, so more only makes all of them late. A probe's
/// timeout begins when it is its turn.
const EXECS_AT_ONCE: usize = 8;

/// News of a pod's probes that wait for its task.
const NEWS: usize = 8;

/// A container that is not ready yet is asked again after so long, for its first period.
const EAGER: Duration = Duration::from_secs(1);

/// Tries begin on ticks that all probes of a node share: a node with many wakes once for a handful of them, and not once for each, which is a
/// quarter of what they cost.
const TICK: Duration = Duration::from_millis(50);

/// First tries are spread over this (or the period, if that is shorter)...
const SPREAD: Duration = Duration::from_secs(1);

/// ...and over a quarter of it where the container has just been started: starts are spread by themselves. One that runs for so long already was
/// found by a node that has started, together with all the others.
const JUST_STARTED: Duration = Duration::from_secs(5);

/// What probes are tried with. Clones share it.
#[derive(Clone)]
pub struct Prober {
    shared: Arc<Shared>,
}

struct Shared {
    runtime: Arc<dyn Runtime>,
    /// None for a node whose pods are only pretended: every try passes.
    network: Option<Network>,
    ambient: Ambient,
    tasks: Tasks,
    execs: Semaphore,
    /// From where the ticks are counted.
    began: Instant,
}

/// A pod's hold on the task that tries its probes. Dropping it ends the task.
pub struct PodProbes {
    wanted: latest::Sender<Vec<Wanted>>,
    news: mpsc::Receiver<News>,
}

impl Prober {
    /// Tries over this network, and with commands through this engine.
    pub fn new(runtime: Arc<dyn Runtime>, network: Option<Network>, ambient: Ambient, tasks: Tasks) -> Self {
        Self { shared: Arc::new(Shared { runtime, network, ambient, tasks, execs: Semaphore::new(EXECS_AT_ONCE), began: Instant::now() }) }
    }

    /// Starts a pod's task. Nothing is tried before something is wanted.
    pub fn start(&self, pod: &AssignedPod) -> PodProbes {
        let (wanted, wanted_seen) = latest::channel(Vec::new());
        let (said, news) = mpsc::channel(NEWS);
        let containers = pod.spec.all_containers().filter(|spec| ProbeKind::ALL.iter().any(|kind| spec.probe(*kind).is_some()));
        let task = Task {
            shared: self.shared.clone(),
            containers: containers.cloned().map(Arc::new).collect(),
            wanted: wanted_seen,
            said,
            running: Vec::new(),
            loops: FuturesUnordered::new(),
        };
        self.shared.tasks.spawn_droppable(format!("probes of {}", pod.name), task.run());
        PodProbes { wanted, news }
    }
}

impl PodProbes {
    /// From now on these are tried: a probe that was wanted before goes on as it is.
    pub fn want(&self, wanted: Vec<Wanted>) {
        self.wanted.send_if_modified(|current| {
            let differs = *current != wanted;
            if differs {
                *current = wanted;
            }
            differs
        });
    }

    /// The next news; none once the server stops. May be dropped and called again.
    pub async fn news(&mut self) -> Option<News> {
        self.news.recv().await
    }
}

struct Task {
    shared: Arc<Shared>,
    containers: Vec<Arc<Container>>,
    wanted: latest::Receiver<Vec<Wanted>>,
    said: mpsc::Sender<News>,
    running: Vec<(Wanted, AbortHandle)>,
    loops: FuturesUnordered<Abortable<BoxFuture<'static, ()>>>,
}

impl Task {
    /// Runs until the pod's hold is dropped.
    async fn run(mut self) {
        loop {
            // Both only wait, so both are cancel-safe; a loop that ended was not wanted any more.
            tokio::select! {
                biased;
                changed = self.wanted.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.heed();
                }
                Some(_) = self.loops.next() => {}
            }
        }
    }

    fn heed(&mut self) {
        let wanted = self.wanted.borrow_and_update().clone();
        self.running.retain(|(probe, give_up)| {
            let stays = wanted.contains(probe);
            if !stays {
                give_up.abort();
            }
            stays
        });
        for probe in wanted {
            let container = self.containers.iter().find(|container| container.name == probe.container);
            if let Some(container) = container.filter(|_| self.running.iter().all(|(running, _)| *running != probe)) {
                let (give_up, until_given_up) = AbortHandle::new_pair();
                let trying: BoxFuture<'static, ()> =
                    Box::pin(keep_trying(self.shared.clone(), container.clone(), probe.clone(), self.said.clone()));
                self.loops.push(Abortable::new(trying, until_given_up));
                self.running.push((probe, give_up));
            }
        }
    }
}

/// Tries a probe of one run of a container until it is given up.
async fn keep_trying(shared: Arc<Shared>, container: Arc<Container>, of: Wanted, said: mpsc::Sender<News>) {
    let Some(probe) = container.probe(of.kind) else { return };
    let period = seconds(probe.period_seconds);
    let age = age_at(shared.ambient.now(), of.run.since);
    let mut due = tick(shared.began, Instant::now() + first_wait(of.kind, probe, age, shared.ambient.random()));
    let mut tally = Tally::new(of.kind, probe);
    let eager_until = due + period;
    loop {
        tokio::time::sleep_until(due).await;
        let attempt =
            Try { runtime: &*shared.runtime, network: shared.network.as_ref(), execs: &shared.execs, container: &container, of: &of };
        if let Some(verdict) = tally.take(attempt.make(probe).await)
            && said.send(News { of: of.clone(), verdict }).await.is_err()
        {
            return;
        }
        let eager = tally.is_eager() && due < eager_until;
        // From beginning to beginning; what took longer than a period is followed at once.
        due = tick(shared.began, Instant::now().max(due + if eager { EAGER.min(period) } else { period }));
    }
}

/// The first tick that isn't before this.
fn tick(began: Instant, at: Instant) -> Instant {
    let tick = TICK.as_nanos();
    let past = at.duration_since(began).as_nanos() % tick;
    at + Duration::from_nanos_u128((tick - past) % tick)
}

/// How long a container runs. One that began after now began on a clock that was set back: it has just begun.
fn age_at(now: Timestamp, since: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(since)).unwrap_or_default()
}

/// From now to the first try. `random` is any number, uniformly.
fn first_wait(kind: ProbeKind, probe: &Probe, age: Duration, random: u64) -> Duration {
    let (delay, period) = (seconds(probe.initial_delay_seconds), seconds(probe.period_seconds));
    let spread = match (age < JUST_STARTED, kind) {
        (true, _) => SPREAD.min(period) / 4,
        // What was ready should be known to be so again soon.
        (false, ProbeKind::Startup | ProbeKind::Readiness) => SPREAD.min(period),
        (false, ProbeKind::Liveness) => period,
    };
    delay.saturating_sub(age) + spread.mul_f64(random as f64 / u64::MAX as f64)
}

fn seconds(seconds: u32) -> Duration {
    Duration::from_secs(seconds.into())
}
