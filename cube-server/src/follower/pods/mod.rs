//! One task per pod: decide, write, act, look; the newest assignment wins, and one pod never holds up another.
//!
//! It decides nothing itself (`plan` does) and knows no engine (`runtime` does). It may be dropped at any await: that is a kill, and the record is written before
//! each action.

mod perform;
mod volumes;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use cube_api::meta::Name;
use cube_api::pod::{Permission, PodStatus, PublishedPort};
use cube_api::session::{AssignedPod, NodeFacts};
use futures::StreamExt;
use futures::future::{AbortHandle, Abortable, BoxFuture};
use futures::stream::FuturesUnordered;
use jiff::Timestamp;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Instant;

use crate::ambient::{Ambient, WatchedClock};
use crate::backoff::Jitter;
use crate::follower::assignments::Request;
use crate::follower::host_paths::HostPaths;
use crate::follower::images::Images;
use crate::follower::kept::Drops;
use crate::follower::ledger::Ledger;
use crate::follower::plan::{self, Action, Came, Input, Key, Note, Outcome, View};
use crate::follower::ports::{self, Ports};
use crate::follower::probes::{PodProbes, Prober};
use crate::follower::record::PodRecord;
use crate::follower::reporter::Reporter;
use crate::follower::runtime::{CALL_TIMEOUT, ContainerId, Observed, PullProgress, Runtime, RuntimeError, Scope};
use crate::follower::spares::Spares;
use crate::follower::status;
use crate::latest;
use crate::tasks::Tasks;

/// Pods in the middle of starting at once: 30 pods came up at 7.5 a second at 8 and at 16, at 2.6 one after the other.
pub const STARTS_AT_ONCE: usize = 8;

/// How long a pod waits when its record can't be written (a full disk).
const LEDGER_RETRY: Duration = Duration::from_secs(1);

/// A start that was not answered may be carried out for so long, from this life's first list or from when it was given up.
const UNANSWERED: Duration = CALL_TIMEOUT;

/// A decision that changed the record is followed by another; a plan that never comes to rest is a bug that must not spin.
const DECISIONS_IN_A_ROW: usize = 8;

/// What the tasks of all pods share.
pub struct Context {
    /// The engine.
    pub runtime: Arc<dyn Runtime>,
    /// Where records and events go.
    pub ledger: Ledger,
    /// The clock and the dice.
    pub ambient: Ambient,
    /// Pulls.
    pub images: Images,
    /// What pods may ask for that makes them as mighty as the machine's root, or nearly.
    pub allow: BTreeSet<Permission>,
    /// Where statuses go.
    pub reporter: Reporter,
    /// What probes are tried with.
    pub probes: Prober,
    /// Sandboxes that were made before anybody needed them.
    pub spares: Spares,
    /// The host ports of all pods.
    pub ports: Ports,
    /// What the node is.
    pub facts: latest::Receiver<NodeFacts>,
    /// Bounds the pods that are starting.
    pub admission: Arc<Semaphore>,
    /// Which files of this machine pods may have.
    pub host_paths: HostPaths,
    /// Named volumes that are to go.
    pub drops: Drops,
    /// Told when a pod is stopped.
    pub assignments: mpsc::Sender<Request>,
}

/// The rest of the agent's hold on a pod's task. Dropping it ends the task.
pub struct PodHandle {
    /// What is wanted; the newest wins.
    pub desired: latest::Sender<AssignedPod>,
    /// Look again.
    pub poke: Arc<Notify>,
    /// What the task knows.
    pub snapshot: latest::Receiver<Arc<Snapshot>>,
}

/// What a pod's task knows, for logs, exec and the relist.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// What is wanted.
    pub pod: AssignedPod,
    /// What was done.
    pub record: PodRecord,
    /// What Docker showed.
    pub containers: Vec<Observed>,
    /// What is reported.
    pub status: PodStatus,
}

/// None: it was given up.
type Performed = Option<(Action, Result<Outcome, RuntimeError>)>;

/// A pull that the pod waits for.
struct Pulling {
    progress: latest::Receiver<PullProgress>,
    give_up: AbortHandle,
}

/// A pod's task.
struct Driver {
    context: Arc<Context>,
    clock: WatchedClock,
    scope: Scope,
    desired: latest::Receiver<AssignedPod>,
    poke: Arc<Notify>,
    snapshot: latest::Sender<Arc<Snapshot>>,
    pod: AssignedPod,
    record: PodRecord,
    /// The record as it is in the ledger.
    saved: PodRecord,
    view: View,
    /// The ports that are held for it.
    held_ports: Vec<PublishedPort>,
    /// The spare that the ledger promises to it.
    promised: Option<ContainerId>,
    /// Events that are not in the ledger yet.
    notes: Vec<Note>,
    acting: FuturesUnordered<BoxFuture<'static, Performed>>,
    pulls: BTreeMap<Name, Pulling>,
    /// From the first probe that is wanted on.
    probes: Option<PodProbes>,
    /// Whether something was changed since the list that is being made was asked for.
    list_is_stale: bool,
    /// When no start that was not answered can be under way any more. By tokio's clock: the time of day may jump.
    unanswered_until: Option<Instant>,
    permit: Option<OwnedSemaphorePermit>,
    admission: Option<BoxFuture<'static, OwnedSemaphorePermit>>,
    told_stopped: bool,
}

/// Starts a pod's task from its record and its containers as they were listed; none where the list doesn't tell all of them.
pub fn spawn(
    context: Arc<Context>,
    tasks: &Tasks,
    scope: Scope,
    pod: AssignedPod,
    record: PodRecord,
    listed: Option<Vec<Observed>>,
) -> PodHandle {
    let (desired, desired_seen) = latest::channel(pod.clone());
    let mut view = listed.map_or_else(View::unlisted, View::of);
    view.unanswered = view.asked_for_before(&record);
    let unanswered_until = (!view.unanswered.is_empty()).then(|| Instant::now() + UNANSWERED);
    let status = status::of_pod(&pod, &record, &view, context.ambient.now());
    let first = Snapshot { pod: pod.clone(), record: record.clone(), containers: Vec::new(), status };
    let (snapshot, snapshot_seen) = latest::channel(Arc::new(first));
    let poke = Arc::new(Notify::new());
    let name = format!("pod {}", pod.name);
    let held_ports = ports::of(&pod.spec, record.chosen_ports());
    let driver = Driver {
        clock: WatchedClock::new(context.ambient.clone()),
        context,
        scope,
        desired: desired_seen,
        poke: poke.clone(),
        snapshot,
        pod,
        saved: record.clone(),
        held_ports,
        promised: record.sandbox.spare.clone(),
        record,
        view,
        notes: Vec::new(),
        acting: FuturesUnordered::new(),
        pulls: BTreeMap::new(),
        probes: None,
        list_is_stale: false,
        unanswered_until,
        permit: None,
        admission: None,
        told_stopped: false,
    };
    tasks.spawn_droppable(name, driver.run());
    PodHandle { desired, poke, snapshot: snapshot_seen }
}

impl Driver {
    /// Runs until the handle is dropped.
    async fn run(mut self) {
        loop {
            let wait = self.step().await;
            let sleep = sleep(wait);
            let admitted = async {
                match &mut self.admission {
                    Some(waiting) => waiting.await,
                    None => std::future::pending().await,
                }
            };
            let probed = async {
                match &mut self.probes {
                    Some(probes) => probes.news().await,
                    None => std::future::pending().await,
                }
            };
            let unanswered = self.unanswered_until;
            let given_up = async {
                match unanswered {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            // Every arm only waits, so all are cancel-safe; `admission` keeps its place in the queue, being polled by reference.
            // What was done comes before pokes, which may come without end; the time that is waited for is looked at by every step anyway.
            tokio::select! {
                biased;
                changed = self.desired.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.pod = self.desired.borrow_and_update().clone();
                }
                Some(performed) = self.acting.next() => {
                    if let Some((action, result)) = performed {
                        self.take_in(action, result);
                    }
                }
                Some(news) = probed => {
                    let now = self.now();
                    let notes = plan::heed(&self.pod, &mut self.record, &mut self.view, news, now);
                    self.notes.extend(notes);
                }
                permit = admitted => {
                    self.permit = Some(permit);
                    self.admission = None;
                }
                () = given_up => {
                    self.unanswered_until = None;
                    self.view.give_up_answers();
                }
                () = self.poke.notified() => self.view.look = true,
                () = sleep => {}
            }
        }
    }

    /// The time of day. When it was set, what waits or lasts is moved with it: a grace or a wait is neither cut nor prolonged.
    fn now(&mut self) -> Timestamp {
        let (now, set) = self.clock.read();
        if let Some(by) = set {
            self.record.clock_was_set(by);
            self.view.clock_was_set(by);
        }
        now
    }

    /// Decides, writes and acts until nothing is to be done now; how long to wait before the next look.
    async fn step(&mut self) -> Option<Duration> {
        let mut wait = None;
        for _ in 0..DECISIONS_IN_A_ROW {
            for (name, pulling) in &self.pulls {
                self.view.pulls.insert(name.clone(), pulling.progress.borrow().clone());
            }
            let now = self.now();
            let jitter = Jitter::from_random(self.context.ambient.random());
            let decide = |view: &View| plan::decide(Input { pod: &self.pod, record: &self.record, view, now, jitter });
            let mut decision = decide(&self.view);
            if decision.could_take_a_spare(&self.pod, &self.view)
                && let Some(spare) = self.context.spares.take()
            {
                self.view.spare = Some(spare);
                decision = decide(&self.view);
            }
            let resting = decision.record == self.record;
            let quiet = decision.actions.is_empty();
            if !self.save(&decision.record, decision.notes, quiet, now).await {
                return Some(LEDGER_RETRY);
            }
            self.record = decision.record;
            self.settle_spare();
            self.settle_ports();
            if self.record.is_over() {
                self.give_up_pulls();
            }
            self.probe();
            self.act(decision.actions);
            wait = decision.wake.map(|at| Duration::try_from(at.duration_since(now)).unwrap_or_default());
            if resting {
                break;
            }
        }
        self.publish().await;
        wait
    }

    /// Before anything is done to them: a container that is being stopped isn't probed any more.
    fn probe(&mut self) {
        let wanted = plan::wanted(&self.pod, &self.record, &self.view);
        match &self.probes {
            Some(probes) => probes.want(wanted),
            None if wanted.is_empty() => {}
            None => {
                let probes = self.context.probes.start(&self.pod);
                probes.want(wanted);
                self.probes = Some(probes);
            }
        }
    }

    /// What was held for the pod is promised to it now, or isn't needed any more; what was promised is its sandbox now, or gone.
    fn settle_spare(&mut self) {
        if self.promised != self.record.sandbox.spare {
            let settled = std::mem::replace(&mut self.promised, self.record.sandbox.spare.clone());
            settled.into_iter().for_each(|spare| self.context.spares.settled(spare));
        }
        let promised = self.record.sandbox.spare == self.view.spare;
        if let Some(spare) = self.view.spare.take_if(|_| promised || self.record.is_over())
            && !promised
        {
            self.context.spares.discard(spare);
        }
    }

    /// A pod that is over holds its ports until its sandbox is gone; one that begins again wants them again.
    fn settle_ports(&mut self) {
        let holds = !self.record.is_over() || self.view.may_publish();
        let held = if holds { ports::of(&self.pod.spec, self.record.chosen_ports()) } else { Vec::new() };
        if held != self.held_ports {
            self.context.ports.hold(self.pod.uid, held.iter().map(PublishedPort::taken));
            self.held_ports = held;
        }
    }

    /// Writes the record if it changed, and the events with it; events alone only when nothing is to be done first. Whether that worked.
    async fn save(&mut self, record: &PodRecord, notes: Vec<Note>, quiet: bool, now: Timestamp) -> bool {
        let changed = *record != self.saved;
        let pending = self.notes.len();
        self.notes.extend(notes);
        if !changed && (self.notes.is_empty() || !quiet) {
            return true;
        }
        let (uid, name) = (self.pod.uid, self.pod.name.clone());
        let written = self.context.ledger.save(uid, name, changed.then(|| record.clone()), self.notes.clone(), now).await;
        match written {
            Ok(()) => {
                self.saved = record.clone();
                if !self.notes.is_empty() {
                    self.notes.clear();
                    self.context.reporter.events_are_waiting();
                }
                true
            }
            Err(error) => {
                // The same decision is made again: its events come again with it.
                self.notes.truncate(pending);
                let (pod, error) = (&self.pod.name, cube_api::error::chain(&error));
                // Of a full disk the log says so once, not each second for each pod.
                match self.context.ledger.room().is_short() {
                    true => tracing::debug!(%pod, error, "the pod waits: its record can't be written"),
                    false => tracing::error!(%pod, error, "the pod waits: its record can't be written"),
                }
                false
            }
        }
    }

    fn act(&mut self, actions: Vec<Action>) {
        let heavy = actions.iter().any(Action::is_heavy);
        if heavy && self.permit.is_none() && self.admission.is_none() {
            let admission = self.context.admission.clone();
            match admission.clone().try_acquire_owned() {
                Ok(permit) => self.permit = Some(permit),
                Err(_) => self.admission = Some(Box::pin(async move { admission.acquire_owned().await.expect("it is never closed") })),
            }
        }
        for action in actions {
            if !action.is_heavy() || self.permit.is_some() {
                self.begin(action);
            }
        }
        if !heavy && !self.view.is_making() {
            if self.permit.take().is_some() {
                self.context.spares.poke();
            }
            self.admission = None;
        }
    }

    fn begin(&mut self, action: Action) {
        self.notes.extend(plan::begun(&self.pod, &self.record, &self.view, &action));
        match &action {
            Action::List => {
                self.view.look = false;
                self.list_is_stale = false;
            }
            Action::FindImage(_)
            | Action::Pull(_)
            | Action::ChoosePorts { .. }
            | Action::PrepareVolumes { .. }
            | Action::DropVolumes
            | Action::PostStart { .. }
            | Action::PreStop(_) => {}
            Action::CreateSandbox { .. }
            | Action::ClaimSandbox { .. }
            | Action::StartSandbox(_)
            | Action::CreateApp { .. }
            | Action::StartApp { .. }
            | Action::Inspect(_)
            | Action::Signal(..)
            | Action::Remove(_)
            | Action::DropSpare(_)
            | Action::ReadLines(_)
            | Action::ReadMessage { .. } => self.list_is_stale = true,
        }
        self.view.busy.insert(action.key());
        let pod_ip = self.view.sandbox(self.record.sandbox.attempt).and_then(|sandbox| sandbox.ip);
        let mut work = perform::Work {
            context: self.context.clone(),
            scope: self.scope.clone(),
            pod: self.pod.clone(),
            chosen_ports: self.record.chosen_ports().to_vec(),
            pod_ip,
            pull: None,
        };
        let (give_up, until_given_up) = AbortHandle::new_pair();
        if let Some((name, pull)) = work.join_pull(&action) {
            self.pulls.insert(name.clone(), Pulling { progress: pull.progress(), give_up });
            self.view.pulls.insert(name, PullProgress::default());
        }
        self.acting.push(Box::pin(async move {
            let result = Abortable::new(work.perform(&action), until_given_up).await.ok()?;
            Some((action, result))
        }));
    }

    /// Nothing will be started any more: what is pulled for it only keeps others waiting.
    fn give_up_pulls(&mut self) {
        for (name, pulling) in std::mem::take(&mut self.pulls) {
            pulling.give_up.abort();
            self.view.pulls.remove(&name);
            self.view.busy.remove(&Key::Image(name));
        }
    }

    fn take_in(&mut self, action: Action, result: Result<Outcome, RuntimeError>) {
        if let Action::Pull(name) = &action {
            self.pulls.remove(name);
        }
        if action == Action::List && self.list_is_stale && result.is_ok() {
            self.view.busy.remove(&action.key());
            self.view.look = true;
            return;
        }
        if let (Action::StartApp { .. }, Err(RuntimeError::Unavailable { .. })) = (&action, &result) {
            self.unanswered_until = Some(Instant::now() + UNANSWERED);
        }
        let was_unlisted = self.view.unlisted;
        let now = self.now();
        let jitter = Jitter::from_random(self.context.ambient.random());
        let notes = plan::take_in(&self.pod, &mut self.record, &mut self.view, Came { action, result, now, jitter });
        self.notes.extend(notes);
        if was_unlisted && !self.view.unlisted {
            // As at the start of a task that is handed its containers: this is the first that this life sees of them.
            self.view.unanswered = self.view.asked_for_before(&self.record);
            self.unanswered_until = (!self.view.unanswered.is_empty()).then(|| Instant::now() + UNANSWERED);
        }
    }

    async fn publish(&mut self) {
        // Nothing changes any more, and the reporter may have been told to forget the pod: it would take it for a new one.
        if self.told_stopped {
            return;
        }
        let status = status::of_pod(&self.pod, &self.record, &self.view, self.context.ambient.now());
        let stopped = self.record.is_stopped();
        self.context.reporter.publish(self.pod.uid, self.record.restarts_seen, status.clone(), stopped);
        let containers = self.view.all().cloned().collect();
        let snapshot = Snapshot { pod: self.pod.clone(), record: self.record.clone(), containers, status };
        self.snapshot.send_if_modified(|current| {
            let changed = **current != snapshot;
            if changed {
                *current = Arc::new(snapshot);
            }
            changed
        });
        if stopped {
            // A closed queue means that the server is stopping; the next start finds the pod stopped.
            self.told_stopped = self.context.assignments.send(Request::Stopped(self.pod.uid)).await.is_ok();
        }
    }
}

async fn sleep(wait: Option<Duration>) {
    let Some(wait) = wait else { return std::future::pending().await };
    // At least a millisecond: a clock that stands still must not make it spin.
    tokio::time::sleep(wait.max(Duration::from_millis(1))).await;
}

#[cfg(test)]
mod tests {
    use cube_api::pod::RestartPolicy;

    use super::*;
    use crate::follower::ledger::Membership;
    use crate::follower::reporter::Sources;
    use crate::follower::runtime::fake::Fake;
    use crate::follower::testing::{CLUSTER, Leader, name, pod, stop};

    /// Hints of the last removals come at about the time at which the leader lets go of the pod.
    #[tokio::test(start_paused = true)]
    async fn a_poke_after_the_end_does_not_bring_a_forgotten_pod_back_into_reports() {
        let folder = tempfile::tempdir().unwrap();
        let (ambient, tasks, leader) = (Ambient::system(), Tasks::default(), Arc::new(Leader::default()));
        let (ledger, opened) = Ledger::open(&folder.path().join("follower.db"), &ambient, &tasks).await.unwrap();
        let runtime: Arc<dyn Runtime> = Arc::new(Fake::new(ambient.clone(), &tasks));
        let reporter = Reporter::new(1);
        let (assignments, mut told) = mpsc::channel(1);
        let (_facts, facts) = latest::channel(NodeFacts::default());
        let context = Context {
            runtime: runtime.clone(),
            ledger: ledger.clone(),
            ambient: ambient.clone(),
            images: Images::new(runtime.clone(), ledger.clone(), None, ambient.clone(), tasks.clone()),
            allow: BTreeSet::new(),
            reporter: reporter.clone(),
            probes: Prober::new(runtime, None, ambient.clone(), tasks.clone()),
            spares: Spares::new(BTreeSet::new()),
            ports: Ports::new(Default::default(), std::iter::empty()),
            facts: facts.clone(),
            admission: Arc::new(Semaphore::new(1)),
            host_paths: HostPaths::default(),
            drops: Drops::default(),
            assignments,
        };
        let (_membership, membership) = latest::channel(Membership { cluster: Some(CLUSTER), ..opened.membership });
        let instance = cube_api::meta::Instance(ambient.uuid());
        let sources = Sources { node_id: opened.node_id, instance, membership, facts, ledger, link: leader.clone(), ambient };
        tasks.spawn_droppable("reporter", reporter.clone().run(sources));

        let web = stop(&pod(1, RestartPolicy::Always));
        let scope = Scope { cluster: CLUSTER, node: name("node-1") };
        let handle = spawn(Arc::new(context), &tasks, scope, web.clone(), PodRecord::new(&web), Some(Vec::new()));
        assert!(matches!(told.recv().await, Some(Request::Stopped(uid)) if uid == web.uid));
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(std::mem::take(&mut *leader.pods.lock().unwrap())[&web.uid].stopped);
        reporter.forget(web.uid);
        handle.poke.notify_one();
        tokio::time::sleep(Duration::from_secs(1)).await;
        reporter.resync();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(leader.pods.lock().unwrap().is_empty());
    }
}
