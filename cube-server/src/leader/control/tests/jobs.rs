//! Jobs and cronjobs under paused time; and that a job's counts are exact in whatever order things happen, on the real store.

use std::collections::BTreeSet;

use cube_api::job::{Job, JobStatus};
use cube_api::meta::{ResourceKind, ResourceRef};
use cube_api::routes::DeleteQuery;
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_oneof, proptest};
use serde_json::Value;

use super::*;
use crate::leader::plan::job::{OwnedPod, decide};
use crate::leader::store::{OwnerPass, Placing, PodRow};

fn job(spec: Value) -> Resource {
    let template = json!({"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "busybox"}]}});
    let mut manifest = json!({"metadata": {"name": "sum"}, "spec": {"template": template}});
    for (key, value) in spec.as_object().expect("a map") {
        manifest["spec"][key] = value.clone();
    }
    Resource::Job(serde_json::from_value(manifest).expect("a manifest"))
}

fn job_in(state: &State) -> Option<&Job> {
    state.object(ResourceKind::Job, &name("sum"))?.job()
}

/// Its pods that run or are to.
fn active(state: &State) -> Vec<Uid> {
    let Some(job) = job_in(state) else { return Vec::new() };
    let pods = state.owned_by(&job.metadata.uid).filter(|row| row.retired.is_none() && !row.is_finished());
    pods.map(|row| row.pod.metadata.uid).collect()
}

impl Leader {
    async fn with_job(spec: Value) -> Self {
        let leader = Self::start().await;
        leader.connect("n1", None).await;
        leader.store.apply(vec![job(spec)], false).await.expect("an apply");
        leader
    }

    /// Waits until so many pods have a node; which, and when that was.
    async fn running(&self, count: usize) -> (Vec<Uid>, Duration) {
        let all_bound = |state: &State| {
            let active = active(state);
            active.len() == count && active.iter().all(|uid| is_bound(state, *uid))
        };
        let when = self.wait_for(&format!("{count} pods with a node"), all_bound).await;
        (self.store.read(active), when)
    }

    async fn ended(&self, reason: &str) -> Duration {
        let is_it = |state: &State| job_in(state).and_then(|job| job.status.end()).is_some_and(|end| end.reason == reason);
        self.wait_for(&format!("the job's end, {reason}"), is_it).await
    }

    fn job_status(&self) -> JobStatus {
        self.store.read(|state| job_in(state).expect("it is there").status.clone())
    }
}

#[tokio::test(start_paused = true)]
async fn the_next_pod_begins_with_the_end_of_the_one_before_and_no_timer() {
    let leader = Leader::with_job(json!({"completions": 3})).await;
    for _ in 0..3 {
        let (pods, _) = leader.running(1).await;
        leader.report(pods[0], Phase::Succeeded, false, None).await;
    }
    let passed = leader.ended("CompletionsReached").await;
    assert!(passed < Duration::from_millis(500), "{passed:?}");
    assert_eq!((leader.job_status().succeeded, leader.job_status().active), (3, 0));
    leader.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_failed_pod_is_replaced_after_its_wait_until_the_limit_ends_the_job() {
    let leader = Leader::with_job(json!({"backoffLimit": 2})).await;
    let mut waits = Vec::new();
    for _ in 0..3 {
        let before = leader.began.elapsed();
        let (pods, when) = leader.running(1).await;
        waits.push((when - before).as_secs());
        leader.report(pods[0], Phase::Failed, false, None).await;
    }
    leader.ended("BackoffLimitExceeded").await;
    assert_eq!(waits, [0, 10, 20]);
    assert_eq!(leader.job_status().failed, 3);
    leader.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_deadline_stops_the_pods_and_the_time_to_live_takes_the_job_when_they_are_gone() {
    let leader = Leader::with_job(json!({"activeDeadlineSeconds": 30, "ttlSecondsAfterFinished": 5})).await;
    let (pods, began) = leader.running(1).await;
    let ended = leader.ended("DeadlineExceeded").await;
    assert_eq!((ended - began).as_secs(), 30);
    let deleted = |state: &State| job_in(state).is_some_and(|job| job.metadata.deletion_requested_at.is_some());
    let expired = leader.wait_for("its expiry", deleted).await;
    assert_eq!((expired - ended).as_secs(), 5);
    assert!(leader.store.read(|state| state.pods[&pods[0]].retired.is_some()));
    leader.report(pods[0], Phase::Failed, true, None).await;
    leader.wait_for("the job to be gone", |state| job_in(state).is_none() && state.pods.is_empty()).await;
    leader.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_job_that_is_deleted_shows_that_its_pods_were_stopped() {
    let leader = Leader::with_job(json!({"completions": 3, "parallelism": 2})).await;
    let (pods, _) = leader.running(2).await;
    let job =
        ResourceRef { kind: ResourceKind::Job, name: leader.store.read(|state| job_in(state).expect("it is there").metadata.name.clone()) };
    let answer = leader.store.delete_object(job, DeleteQuery::default()).await.expect("a delete");
    let counts = |status: &JobStatus| (status.active, status.failed);
    assert_eq!(answer.job().map(|job| counts(&job.status)), Some((0, 2)));
    assert_eq!(counts(&leader.job_status()), (0, 2));
    for pod in pods {
        leader.report(pod, Phase::Failed, true, None).await;
    }
    leader.wait_for("the job to be gone", |state| job_in(state).is_none() && state.pods.is_empty()).await;
    leader.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_nodes_pod_has_failed_once_and_another_takes_its_place() {
    let leader = Leader::with_job(json!({"completions": 2})).await;
    let (pods, _) = leader.running(1).await;
    leader.connect("n2", None).await;
    tokio::time::sleep(Duration::from_secs(70)).await;
    leader.disconnect("n1");
    leader.wait_for("the loss", |state| state.pods[&pods[0]].retired.is_some()).await;
    let status = leader.job_status();
    assert_eq!((status.failed, status.active), (1, 0));
    let (others, _) = leader.running(1).await;
    assert_ne!(others, pods);
    let names = leader.store.read(|state| state.pods.values().map(|row| row.pod.metadata.name.clone()).collect::<BTreeSet<_>>());
    assert_eq!(names.len(), 2, "it has a name of its own");
    leader.connect("n1", None).await;
    leader.report(pods[0], Phase::Succeeded, true, None).await;
    assert_eq!((leader.job_status().failed, leader.job_status().succeeded), (1, 0), "what it says when it is back counts nothing");
    leader.stop().await;
}

fn cronjob(policy: &str) -> Resource {
    let template = json!({"spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "busybox"}]}}}});
    let spec = json!({"schedule": "* * * * *", "concurrencyPolicy": policy, "jobTemplate": template});
    Resource::CronJob(serde_json::from_value(json!({"metadata": {"name": "tick"}, "spec": spec})).expect("a manifest"))
}

/// Nothing is waited for as long as a schedule needs.
async fn almost_a_minute() {
    tokio::time::sleep(Duration::from_secs(50)).await;
}

fn jobs(state: &State) -> Vec<String> {
    state.objects(ResourceKind::Job, std::ops::Bound::Unbounded).map(|(name, _)| name.to_string()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_cronjob_makes_its_jobs_at_their_minutes_and_none_twice_over_a_restart() {
    let leader = Leader::start().await;
    leader.connect("n1", None).await;
    leader.store.apply(vec![cronjob("Allow")], false).await.expect("an apply");
    almost_a_minute().await;
    let first = leader.wait_for("the first job", |state| jobs(state) == ["tick-1"]).await;
    assert_eq!(first.as_secs(), 60);
    almost_a_minute().await;
    let second = leader.wait_for("the second job", |state| jobs(state) == ["tick-1", "tick-2"]).await;
    assert_eq!(second.as_secs(), 120);
    let Leader { store, folder, tasks, .. } = leader;
    drop(store);
    assert!(tasks.shut_down(Duration::from_secs(10)).await);

    // Its clock begins anew, four minutes later.
    let leader = Leader::start_in(folder, Options::default()).await;
    leader.jumped.store(365, Ordering::Relaxed);
    leader.wait_for("the last of what was missed", |state| jobs(state) == ["tick-1", "tick-2", "tick-6"]).await;
    let deleted = ResourceRef { kind: ResourceKind::CronJob, name: name("tick") };
    leader.store.delete_object(deleted, DeleteQuery::default()).await.expect("a delete");
    leader.connect("n1", None).await;
    leader.wait_for("all pods to stop", |state| state.pods.values().all(|row| row.retired.is_some())).await;
    for uid in leader.store.read(|state| state.pods.keys().copied().collect::<Vec<_>>()) {
        leader.report(uid, Phase::Failed, true, None).await;
    }
    leader.wait_for("its jobs and their pods to be gone", |state| jobs(state).is_empty() && state.pods.is_empty()).await;
    leader.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_job_that_runs_yet_holds_up_the_next_one_or_is_replaced_by_it() {
    for policy in ["Forbid", "Replace"] {
        let leader = Leader::start().await;
        leader.connect("n1", None).await;
        leader.store.apply(vec![cronjob(policy)], false).await.expect("an apply");
        almost_a_minute().await;
        leader.wait_for("the first job's pod", |state| state.pods.values().any(|row| row.pod.placement.node.is_some())).await;
        almost_a_minute().await;
        let waits = |state: &State| {
            let cronjob = state.object(ResourceKind::CronJob, &name("tick")).and_then(|object| object.cronjob());
            cronjob.is_some_and(|cronjob| cronjob.status.waiting.is_some())
        };
        leader.wait_for("the second to wait", waits).await;
        assert_eq!(leader.store.read(jobs), ["tick-1"], "{policy}");
        let uid = leader.store.read(|state| *state.pods.keys().next().expect("a pod"));
        let is_told = leader.store.read(|state| state.pods[&uid].retired.is_some());
        assert_eq!(is_told, policy == "Replace");
        leader.report(uid, Phase::Succeeded, is_told, None).await;
        leader.wait_for("the second job", |state| jobs(state).contains(&"tick-2".to_owned())).await;
        leader.stop().await;
    }
}

/// What may happen to a job, at any time and in any order.
#[derive(Debug, Clone)]
enum Happens {
    /// The loop looks and writes.
    Pass,
    /// It looks, and writes only after what comes next.
    SlowPass,
    /// The scheduler gives every pod that waits a node.
    Place {
        node: usize,
    },
    /// A node says that a pod has ended.
    End {
        which: usize,
        phase: Phase,
    },
    /// A node says that a pod that was to stop has stopped.
    Stop {
        which: usize,
    },
    /// A person deletes a pod, perhaps by force.
    Delete {
        which: usize,
        force: bool,
    },
    /// A node is lost, or heard again.
    Lose {
        node: usize,
    },
    Join {
        node: usize,
    },
    /// The leader is killed and starts again.
    Kill,
}

fn happens() -> impl Strategy<Value = Happens> {
    let which = 0..8usize;
    prop_oneof![
        6 => Just(Happens::Pass),
        3 => Just(Happens::SlowPass),
        5 => (0..2usize).prop_map(|node| Happens::Place { node }),
        6 => (which.clone(), prop_oneof![3 => Just(Phase::Succeeded), 2 => Just(Phase::Failed)]).prop_map(|(which, phase)| Happens::End { which, phase }),
        3 => which.clone().prop_map(|which| Happens::Stop { which }),
        2 => (which, any::<bool>()).prop_map(|(which, force)| Happens::Delete { which, force }),
        1 => (0..2usize).prop_map(|node| Happens::Lose { node }),
        2 => (0..2usize).prop_map(|node| Happens::Join { node }),
        1 => Just(Happens::Kill),
    ]
}

const PARALLELISM: usize = 3;
const COMPLETIONS: u32 = 6;

/// A leader without its loops: what they do is done by hand, one thing after another.
struct ByHand {
    store: Store,
    tasks: Tasks,
    folder: TempDir,
    late: Option<OwnerPass>,
    succeeded: u32,
    failed: u32,
}

impl ByHand {
    async fn open(folder: TempDir) -> Self {
        let tasks = Tasks::default();
        let store = Store::open(&folder.path().join("leader.db"), Ambient::system(), &tasks).await.expect("a store");
        Self { store, tasks, folder, late: None, succeeded: 0, failed: 0 }
    }

    fn rows(&self, wanted: impl Fn(&PodRow) -> bool) -> Vec<Arc<PodRow>> {
        self.store.read(|state| state.pods.values().filter(|row| wanted(row)).cloned().collect())
    }

    fn is_active(row: &PodRow) -> bool {
        row.retired.is_none() && !row.is_finished()
    }

    fn decided(&self) -> Option<OwnerPass> {
        let (job, pods) = self.store.read(|state| {
            let job = job_in(state).expect("it is there").clone();
            let pods = state.owned_by(&job.metadata.uid);
            let owned = |row: &Arc<PodRow>| OwnedPod { row: row.clone(), is_on_lost_node: state.is_on_lost_node(row) };
            let pods: Vec<_> = pods.map(owned).collect();
            (job, pods)
        });
        // Every wait after a failure is over.
        decide(&job, &pods, Timestamp::now() + SignedDuration::from_hours(1)).pass
    }

    async fn report(&self, row: &PodRow, phase: Phase, stopped: bool) {
        let node = row.pod.placement.node.clone().expect("it has one");
        let facts = announcement(node.as_str(), None).facts;
        let sequence = self.store.read(|state| state.revision.0);
        let pod =
            PodReport { uid: row.pod.metadata.uid, sequence, restarts: None, status: PodStatus { phase, ..PodStatus::default() }, stopped };
        let node_id = announcement(node.as_str(), None).node_id;
        let cluster_id = self.store.cluster_id();
        let report =
            Report { node_id, instance: None, cluster_id, facts, usage: None, pods: vec![pod], events: Vec::new(), dropped: Vec::new() };
        // One that is lost is refused, and joins before it says it again.
        drop(self.store.report(node, report, ()).await);
    }

    fn is_heard(&self, row: &PodRow) -> bool {
        row.pod.placement.node.is_some() && !self.store.read(|state| state.is_on_lost_node(row))
    }

    async fn happen(mut self, what: Happens) -> Self {
        let nth = |rows: Vec<Arc<PodRow>>, which: usize| rows.get(which).cloned();
        match what {
            Happens::Pass => {
                if let Some(pass) = self.decided() {
                    self.store.settle(pass).await.expect("a pass");
                }
            }
            Happens::SlowPass => self.late = self.decided(),
            Happens::Place { node } => {
                let waiting = self.rows(PodRow::is_unplaced);
                let bind = |row: &Arc<PodRow>| Placing::Bind {
                    uid: row.pod.metadata.uid,
                    node: name(["n1", "n2"][node]),
                    reason: "it fits".to_owned(),
                };
                self.store.place(waiting.iter().map(bind).collect()).await.expect("a placing");
            }
            Happens::End { which, phase } => {
                if let Some(row) = nth(self.rows(|row| Self::is_active(row) && self.is_heard(row)), which) {
                    self.report(&row, phase, false).await;
                    if phase == Phase::Succeeded { self.succeeded += 1 } else { self.failed += 1 }
                }
            }
            Happens::Stop { which } => {
                if let Some(row) = nth(self.rows(|row| row.retired.is_some() && self.is_heard(row)), which) {
                    // However it ended: it is counted already.
                    self.report(&row, Phase::Succeeded, true).await;
                }
            }
            Happens::Delete { which, force } => {
                if let Some(row) = nth(self.rows(|row| row.retired.is_none()), which) {
                    let query = DeleteQuery { force, ..DeleteQuery::default() };
                    self.store.delete_pod(row.pod.metadata.name.clone(), query).await.expect("a delete");
                    self.failed += u32::from(!row.is_finished());
                }
            }
            Happens::Lose { node } => {
                let node = name(["n1", "n2"][node]);
                let known = self.store.read(|state| state.nodes.get(&node).cloned()).filter(|known| !known.condition.is_lost());
                if let Some(known) = known {
                    let on_it = self.rows(|row| Self::is_active(row) && row.pod.placement.node.as_ref() == Some(&node));
                    self.failed += u32::try_from(on_it.len()).expect("few");
                    self.store.lose_node(node, known.revision, "silent".to_owned()).await.expect("a loss");
                }
            }
            Happens::Join { node } => self.store.join(announcement(["n1", "n2"][node], None), false).await.expect("a join"),
            Happens::Kill => {
                let Self { store, tasks, folder, late: _, succeeded, failed } = self;
                drop(store);
                assert!(tasks.shut_down(Duration::from_secs(10)).await);
                self = Self { succeeded, failed, ..Self::open(folder).await };
            }
        }
        self
    }

    fn check(&self) {
        let status = self.store.read(|state| job_in(state).expect("it is there").status.clone());
        let active = self.rows(Self::is_active);
        assert_eq!((status.succeeded, status.failed), (self.succeeded, self.failed), "each end is counted once: {status:?}");
        assert_eq!(status.active as usize, active.len(), "{status:?}");
        // What runs on where its node was lost is what the loss means; its node stops it when it is heard again.
        let leaves = |row: &PodRow| row.retired.as_ref().is_some_and(|retired| !retired.replaced);
        let busy = self.rows(|row| !row.is_finished() && (row.retired.is_none() || leaves(row)));
        assert!(busy.len() <= PARALLELISM, "{} pods at a time", busy.len());
        assert!(status.succeeded + status.active <= COMPLETIONS, "{status:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn counts_are_exact_and_no_more_run_than_may_whatever_happens(all in proptest::collection::vec(happens(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let mut by_hand = ByHand::open(tempfile::tempdir().expect("a temporary folder")).await;
            for node in ["n1", "n2"] {
                by_hand.store.join(announcement(node, None), false).await.expect("a join");
            }
            let spec = json!({"completions": COMPLETIONS, "parallelism": PARALLELISM, "backoffLimit": 1_000});
            by_hand.store.apply(vec![job(spec)], false).await.expect("an apply");
            for what in all {
                let late = by_hand.late.take();
                by_hand = by_hand.happen(what).await;
                by_hand.check();
                if let Some(pass) = late {
                    by_hand.store.settle(pass).await.expect("a pass, late");
                    by_hand.check();
                }
            }
        });
    }
}
