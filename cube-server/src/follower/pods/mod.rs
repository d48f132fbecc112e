//! One task per pod: decide, write, act, look; the newest assignment wins, and one pod never holds up another.
//!
//! It decides nothing itself (`plan` does) and knows no engine (`runtime` does). It may be dropped at any await: that is a kill, and the record is written before
//! each action.

mod perform;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cube_api::meta::Name;
use cube_api::pod::PodStatus;
use cube_api::session::AssignedPod;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use jiff::Timestamp;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, watch};

use crate::ambient::Ambient;
use crate::backoff::Jitter;
use crate::follower::assignments::Request;
use crate::follower::images::Images;
use crate::follower::ledger::Ledger;
use crate::follower::plan::{self, Action, Came, Input, Note, Outcome, View};
use crate::follower::record::PodRecord;
use crate::follower::reporter::Reporter;
use crate::follower::runtime::{Observed, PullProgress, Runtime, RuntimeError, Scope};
use crate::follower::status;
use crate::tasks::Tasks;

/// Pods in the middle of starting at once: 30 pods came up at 7.5 a second at 8 and at 16, at 2.6 one after the other.
pub const STARTS_AT_ONCE: usize = 8;

/// How long a pod waits when its record can't be written (a full disk).
const LEDGER_RETRY: Duration = Duration::from_secs(1);

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
    /// Where statuses go.
    pub reporter: Reporter,
    /// Bounds the pods that are starting.
    pub admission: Arc<Semaphore>,
    /// Told when a pod is stopped.
    pub assignments: mpsc::Sender<Request>,
}

/// The rest of the agent's hold on a pod's task. Dropping it ends the task.
pub struct PodHandle {
    /// What is wanted; the newest wins.
    pub desired: watch::Sender<AssignedPod>,
    /// Look again.
    pub poke: Arc<Notify>,
    /// What the task knows.
    pub snapshot: watch::Receiver<Arc<Snapshot>>,
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

type Performed = (Action, Result<Outcome, RuntimeError>);

/// A pod's task.
struct Driver {
    context: Arc<Context>,
    scope: Scope,
    desired: watch::Receiver<AssignedPod>,
    poke: Arc<Notify>,
    snapshot: watch::Sender<Arc<Snapshot>>,
    pod: AssignedPod,
    record: PodRecord,
    /// The record as it is in the ledger.
    saved: PodRecord,
    view: View,
    /// Events that are not in the ledger yet.
    notes: Vec<Note>,
    acting: FuturesUnordered<BoxFuture<'static, Performed>>,
    pulls: BTreeMap<Name, watch::Receiver<PullProgress>>,
    /// Whether something was changed since the list that is being made was asked for.
    list_is_stale: bool,
    permit: Option<OwnedSemaphorePermit>,
    admission: Option<BoxFuture<'static, OwnedSemaphorePermit>>,
    told_stopped: bool,
}

/// Starts a pod's task from its record and its containers as they were listed.
pub fn spawn(context: Arc<Context>, tasks: &Tasks, scope: Scope, pod: AssignedPod, record: PodRecord, listed: Vec<Observed>) -> PodHandle {
    let (desired, desired_seen) = watch::channel(pod.clone());
    let view = View::of(listed);
    let status = status::of_pod(&pod, &record, &view, context.ambient.now());
    let first = Snapshot { pod: pod.clone(), record: record.clone(), containers: Vec::new(), status };
    let (snapshot, snapshot_seen) = watch::channel(Arc::new(first));
    let poke = Arc::new(Notify::new());
    let name = format!("pod {}", pod.name);
    let driver = Driver {
        context,
        scope,
        desired: desired_seen,
        poke: poke.clone(),
        snapshot,
        pod,
        saved: record.clone(),
        record,
        view,
        notes: Vec::new(),
        acting: FuturesUnordered::new(),
        pulls: BTreeMap::new(),
        list_is_stale: false,
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
            let wake = self.step().await;
            let sleep = sleep_until(&self.context.ambient, wake);
            let admitted = async {
                match &mut self.admission {
                    Some(waiting) => waiting.await,
                    None => std::future::pending().await,
                }
            };
            // Every arm only waits, so all are cancel-safe; `admission` keeps its place in the queue, being polled by reference.
            tokio::select! {
                changed = self.desired.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.pod = self.desired.borrow_and_update().clone();
                }
                () = self.poke.notified() => self.view.look = true,
                Some((action, result)) = self.acting.next() => self.take_in(action, result),
                permit = admitted => {
                    self.permit = Some(permit);
                    self.admission = None;
                }
                () = sleep => {}
            }
        }
    }

    /// Decides, writes and acts until nothing is to be done now; when to look again.
    async fn step(&mut self) -> Option<Timestamp> {
        let mut wake = None;
        for _ in 0..DECISIONS_IN_A_ROW {
            for (name, progress) in &self.pulls {
                self.view.pulls.insert(name.clone(), progress.borrow().clone());
            }
            let now = self.context.ambient.now();
            let jitter = Jitter::from_random(self.context.ambient.random());
            let decision = plan::decide(Input { pod: &self.pod, record: &self.record, view: &self.view, now, jitter });
            let resting = decision.record == self.record;
            let quiet = decision.actions.is_empty();
            if !self.save(&decision.record, decision.notes, quiet, now).await {
                return Some(now + LEDGER_RETRY);
            }
            self.record = decision.record;
            self.act(decision.actions);
            wake = decision.wake;
            if resting {
                break;
            }
        }
        self.publish().await;
        wake
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
                tracing::error!(pod = %self.pod.name, error = cube_api::error::chain(&error), "the pod waits: its record can't be written");
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
            self.permit = None;
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
            Action::FindImage(_) | Action::Pull(_) => {}
            Action::CreateSandbox { .. }
            | Action::StartSandbox(_)
            | Action::CreateApp { .. }
            | Action::StartApp { .. }
            | Action::Inspect(_)
            | Action::Signal(..)
            | Action::Remove(_)
            | Action::ReadLines(_) => self.list_is_stale = true,
        }
        self.view.busy.insert(action.key());
        let mut work = perform::Work { context: self.context.clone(), scope: self.scope.clone(), pod: self.pod.clone(), pull: None };
        if let Some((name, pull)) = work.join_pull(&action) {
            self.pulls.insert(name.clone(), pull.progress);
            self.view.pulls.insert(name, PullProgress::default());
        }
        self.acting.push(Box::pin(async move {
            let result = work.perform(&action).await;
            (action, result)
        }));
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
        let now = self.context.ambient.now();
        let jitter = Jitter::from_random(self.context.ambient.random());
        let notes = plan::take_in(&self.pod, &mut self.record, &mut self.view, Came { action, result, now, jitter });
        self.notes.extend(notes);
    }

    async fn publish(&mut self) {
        // Nothing changes any more, and the reporter may have been told to forget the pod: it would take it for a new one.
        if self.told_stopped {
            return;
        }
        let status = status::of_pod(&self.pod, &self.record, &self.view, self.context.ambient.now());
        let stopped = self.record.is_stopped();
        self.context.reporter.publish(self.pod.uid, status.clone(), stopped);
        let containers = self.view.containers.values().cloned().collect();
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

async fn sleep_until(ambient: &Ambient, wake: Option<Timestamp>) {
    let Some(at) = wake else { return std::future::pending().await };
    let wait = at.duration_since(ambient.now());
    // At least a millisecond: a clock that stands still must not make it spin.
    let wait = Duration::try_from(wait).unwrap_or_default().max(Duration::from_millis(1));
    tokio::time::sleep(wait).await;
}

#[cfg(test)]
mod tests {
    use cube_api::pod::RestartPolicy;
    use cube_api::session::NodeFacts;

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
        let context = Context {
            runtime: runtime.clone(),
            ledger: ledger.clone(),
            ambient: ambient.clone(),
            images: Images::new(runtime, tasks.clone()),
            reporter: reporter.clone(),
            admission: Arc::new(Semaphore::new(1)),
            assignments,
        };
        let (_membership, membership) = watch::channel(Membership { cluster: Some(CLUSTER), ..opened.membership });
        let (_facts, facts) =
            watch::channel(NodeFacts { version: String::new(), engine: String::new(), trouble: None, capacity: Default::default() });
        let sources = Sources { node_id: opened.node_id, membership, facts, ledger, link: leader.clone(), ambient };
        tasks.spawn_droppable("reporter", reporter.clone().run(sources));

        let web = stop(&pod(1, RestartPolicy::Always));
        let scope = Scope { cluster: CLUSTER, node: name("node-1") };
        let handle = spawn(Arc::new(context), &tasks, scope, web.clone(), PodRecord::new(&web), Vec::new());
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
