//! The loops on a real store, under paused time: what happens without time passing was caused by the commit, not by a timer.

mod drain;
mod jobs;
mod strategy;

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use cube_api::manifest::Resource;
use cube_api::meta::{NodeId, Uid};
use cube_api::node::NodeCondition;
use cube_api::pod::{Phase, PodStatus};
use cube_api::session::{Announcement, PodReport, Report};
use jiff::SignedDuration;
use serde_json::json;
use tempfile::TempDir;
use tokio::time::Instant;
use uuid::Uuid;

use super::*;
use crate::ambient::{Ambient, Source};
use crate::leader::store::{State, backup, restore};

/// The time of day that goes with tokio's paused clock, and so many seconds more.
struct Paused(Instant, Arc<AtomicI64>);

impl Source for Paused {
    fn now(&self) -> Timestamp {
        let jumped = SignedDuration::from_secs(self.1.load(Ordering::Relaxed));
        Timestamp::UNIX_EPOCH + SignedDuration::try_from(self.0.elapsed()).expect("a short test") + jumped
    }

    fn random(&self) -> u64 {
        rand::random()
    }
}

/// Sessions that a test opens and closes.
#[derive(Default)]
struct Sessions(Mutex<BTreeMap<Name, Timestamp>>);

impl SessionView for Sessions {
    fn live(&self) -> BTreeMap<Name, Timestamp> {
        self.0.lock().expect("no test panics while it holds the sessions").clone()
    }
}

struct Leader {
    store: Store,
    sessions: Arc<Sessions>,
    began: Instant,
    /// By how many seconds the time of day was set forward.
    jumped: Arc<AtomicI64>,
    tasks: Tasks,
    folder: TempDir,
}

impl Leader {
    async fn start() -> Self {
        Self::start_in(tempfile::tempdir().expect("a temporary folder"), Options::default()).await
    }

    async fn start_in(folder: TempDir, options: Options) -> Self {
        let (tasks, began) = (Tasks::default(), Instant::now());
        let jumped = Arc::new(AtomicI64::new(0));
        let ambient = Ambient::new(Paused(began, jumped.clone()));
        let store = Store::open(&folder.path().join("leader.db"), ambient.clone(), &tasks).await.expect("a store");
        let sessions = Arc::new(Sessions::default());
        start(&store, sessions.clone(), &ambient, &tasks, options);
        Self { store, sessions, began, jumped, tasks, folder }
    }

    async fn connect(&self, node: &str, trouble: Option<&str>) {
        let announcement = announcement(node, trouble);
        self.sessions.0.lock().expect("the sessions").insert(name(node), Timestamp::UNIX_EPOCH);
        self.store.join(announcement, false).await.expect("a node that may join");
    }

    fn disconnect(&self, node: &str) {
        self.sessions.0.lock().expect("the sessions").remove(&name(node));
    }

    async fn apply(&self, pod: &str, image: &str, cpu: &str) -> Uid {
        self.apply_with(pod, image, cpu, "replace").await
    }

    async fn apply_with(&self, pod: &str, image: &str, cpu: &str, on_node_loss: &str) -> Uid {
        let containers = json!([{"name": "c", "image": image, "resources": {"requests": {"cpu": cpu}}}]);
        let spec = json!({"containers": containers, "onNodeLoss": on_node_loss});
        let manifest = serde_json::from_value(json!({"metadata": {"name": pod}, "spec": spec}));
        let applied = self.store.apply(vec![Resource::Pod(manifest.expect("a manifest"))], false).await.expect("an apply");
        applied.items[0].metadata().uid
    }

    async fn report(&self, uid: Uid, phase: Phase, stopped: bool, trouble: Option<&str>) {
        let mut facts: serde_json::Value =
            json!({"version": "0.1.0", "engine": "20.10", "capacity": {"cpu": "1", "memory": "1Gi", "pods": 10}});
        facts["trouble"] = json!(trouble);
        // Each newer than the one before.
        let sequence = self.store.read(|state| state.revision.0);
        let pods = vec![PodReport { uid, sequence, restarts: None, status: PodStatus { phase, ..PodStatus::default() }, stopped }];
        let facts = serde_json::from_value(facts).expect("facts");
        let report = Report {
            node_id: NodeId(Uuid::from_u128(1)),
            instance: None,
            cluster_id: self.store.cluster_id(),
            facts,
            usage: None,
            pods,
            events: Vec::new(),
            dropped: Vec::new(),
        };
        self.store.report(name("n1"), report, ()).await.expect("a report");
    }

    /// Waits until the state is so; how much time passed since the start.
    async fn wait_for(&self, what: &str, probe: impl Fn(&State) -> bool) -> Duration {
        let mut seen = Revision(0);
        let waits = async {
            while !self.store.read(|state| {
                seen = state.revision;
                probe(state)
            }) {
                self.store.moved_beyond(seen).await;
            }
        };
        let limit = tokio::time::timeout(Duration::from_secs(60), waits).await;
        assert!(limit.is_ok(), "{what}: not within 60 s; the pods are {:?}", self.store.read(|state| state.pods.clone()));
        self.began.elapsed()
    }

    /// A cluster of so many nodes, `n1` and on, that has run for longer than the grace. A pod was placed on `n1` before the others joined.
    async fn with_a_pod_on_n1(nodes: usize, on_node_loss: &str) -> (Self, Uid) {
        let leader = Self::start().await;
        leader.connect("n1", None).await;
        let uid = leader.apply_with("web", "nginx", "100m", on_node_loss).await;
        leader.wait_for("the pod's node", |state| is_bound(state, uid)).await;
        for index in 2..=nodes {
            leader.connect(&format!("n{index}"), None).await;
        }
        tokio::time::sleep(Duration::from_secs(100)).await;
        (leader, uid)
    }

    /// The node of the pod that has the name.
    fn node_of(&self, pod: &str) -> Option<Name> {
        self.store.pod(&name(pod)).and_then(|row| row.pod.placement.node.clone())
    }

    async fn stop(self) -> TempDir {
        assert!(self.tasks.shut_down(Duration::from_secs(10)).await, "the loops end when they are told to");
        assert!(!self.tasks.has_panicked());
        self.folder
    }

    /// Stops it, and starts one on a backup of its database.
    async fn restored(self) -> Self {
        let folder = self.stop().await;
        let (database, backup) = (folder.path().join("leader.db"), folder.path().join("backup.db"));
        let contents = backup::take(&database, &backup, false).expect("a backup");
        restore::restore(&backup, contents, &database, Timestamp::UNIX_EPOCH).expect("a restore");
        Self::start_in(folder, Options::default()).await
    }
}

fn name(text: &str) -> Name {
    Name::new(text).expect("a label")
}

fn announcement(node: &str, trouble: Option<&str>) -> Announcement {
    let capacity = json!({"cpu": "1", "memory": "1Gi", "pods": 10});
    let facts = json!({"version": "0.1.0", "engine": "20.10", "capacity": capacity, "trouble": trouble});
    let number = node.trim_start_matches('n').parse().expect("n1, n2 and so on");
    let text = json!({"node": node, "nodeId": Uuid::from_u128(number), "machineId": "m", "role": "Follower", "facts": facts});
    serde_json::from_value(text).expect("an announcement")
}

fn is_bound(state: &State, uid: Uid) -> bool {
    state.pods.get(&uid).is_some_and(|row| row.pod.placement.node.is_some())
}

fn waiting_for(state: &State, uid: Uid) -> String {
    state.pods.get(&uid).and_then(|row| row.pod.placement.waiting_for.clone()).unwrap_or_default()
}

fn condition(state: &State, node: &str) -> String {
    match state.nodes.get(&name(node)).map(|node| &node.condition) {
        None => "unknown".to_owned(),
        Some(NodeCondition::Ready) => "Ready".to_owned(),
        Some(NodeCondition::NotReady { reason } | NodeCondition::Lost { reason }) => reason.clone(),
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_is_placed_by_the_commit_that_made_it_and_no_timer() {
    let leader = Leader::start().await;
    let early = leader.apply("early", "nginx", "100m").await;
    leader.wait_for("the reason", |state| waiting_for(state, early) == "no node has joined yet").await;
    leader.connect("n1", None).await;
    leader.wait_for("the early pod's node", |state| is_bound(state, early)).await;
    let late = leader.apply("late", "nginx", "100m").await;
    let passed = leader.wait_for("the late pod's node", |state| is_bound(state, late)).await;
    assert!(passed < Duration::from_millis(100), "{passed:?}");
    leader.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_finishes_makes_room_for_one_that_waits() {
    let leader = Leader::start().await;
    leader.connect("n1", None).await;
    let first = leader.apply("first", "nginx", "800m").await;
    let second = leader.apply("second", "nginx", "800m").await;
    leader.wait_for("the reason", |state| waiting_for(state, second) == "0/1 nodes fit: 1 lacks cpu (need 800m)").await;
    leader.report(first, Phase::Succeeded, false, None).await;
    let passed = leader.wait_for("the second pod's node", |state| is_bound(state, second)).await;
    assert!(passed < Duration::from_millis(100), "{passed:?}");
    leader.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_replacement_is_placed_when_its_predecessor_has_stopped_and_not_before() {
    let leader = Leader::start().await;
    leader.connect("n1", None).await;
    let old = leader.apply("web", "nginx:1", "100m").await;
    leader.wait_for("the old pod's node", |state| is_bound(state, old)).await;
    let new = leader.apply("web", "nginx:2", "100m").await;
    let held = format!("waiting for the previous pod/web ({old}) on node n1 to stop");
    leader.wait_for("the reason", |state| waiting_for(state, new) == held).await;
    leader.report(old, Phase::Succeeded, true, None).await;
    let passed = leader.wait_for("the new pod's node", |state| is_bound(state, new)).await;
    assert!(passed < Duration::from_millis(100), "{passed:?}");
    leader.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_node_without_a_session_is_not_ready_after_10_s_and_ready_again_with_one() {
    let leader = Leader::start().await;
    leader.connect("n1", None).await;
    assert_eq!(leader.store.read(|state| condition(state, "n1")), "Ready", "who joins is here");
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(leader.store.read(|state| condition(state, "n1")), "Ready");
    leader.disconnect("n1");
    let passed = leader.wait_for("the silence", |state| condition(state, "n1") == "no session for more than 10s").await;
    assert!((39..=41).contains(&passed.as_secs()), "{passed:?}");
    leader.connect("n1", None).await;
    leader.wait_for("the node", |state| condition(state, "n1") == "Ready").await;
    leader.stop().await;
}

#[tokio::test(start_paused = true)]
async fn trouble_on_a_node_is_noted_at_once_and_leaves_its_pods_alone() {
    let leader = Leader::start().await;
    leader.connect("n1", None).await;
    let uid = leader.apply("web", "nginx", "100m").await;
    leader.wait_for("the pod's node", |state| is_bound(state, uid)).await;
    leader.report(uid, Phase::Running, false, Some("docker doesn't answer")).await;
    leader.wait_for("the trouble", |state| condition(state, "n1") == "docker doesn't answer").await;
    leader.report(uid, Phase::Running, false, None).await;
    let passed = leader.wait_for("its end", |state| condition(state, "n1") == "Ready").await;
    assert!(passed < Duration::from_millis(100), "{passed:?}");
    assert!(leader.store.read(|state| state.pods[&uid].retired.is_none()));
    leader.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_restored_leader_places_nothing_before_its_nodes_are_back_and_others_had_their_time() {
    let leader = Leader::start().await;
    leader.connect("n1", None).await;
    let uid = leader.apply("web", "nginx", "2").await;
    leader.wait_for("the reason", |state| waiting_for(state, uid).contains("lacks cpu")).await;
    let leader = leader.restored().await;
    let late = leader.apply("late", "nginx", "100m").await;
    for pod in [uid, late] {
        leader.wait_for("the reason", |state| waiting_for(state, pod).contains("until node n1 has joined, or for 1m")).await;
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    leader.connect("n1", None).await;
    leader.wait_for("the reason", |state| waiting_for(state, late).contains("until other nodes had 15s to join")).await;
    let passed = leader.wait_for("the late pod's node", |state| is_bound(state, late)).await;
    assert!((15..=17).contains(&passed.as_secs()), "{passed:?}");
    assert_eq!(leader.store.read(|state| state.fence.clone()), None);
    leader.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_restored_leader_waits_no_longer_than_its_grace_for_a_node_that_does_not_return() {
    let leader = Leader::start().await;
    leader.connect("n1", None).await;
    let leader = leader.restored().await;
    let uid = leader.apply("web", "nginx", "100m").await;
    let once = leader.apply_with("once", "nginx", "100m", "wait").await;
    leader.sessions.0.lock().expect("the sessions").insert(name("n2"), Timestamp::UNIX_EPOCH);
    leader.store.join(announcement("n2", None), false).await.expect("a node that may join");
    tokio::time::sleep(Duration::from_secs(50)).await;
    assert!(!leader.store.read(|state| is_bound(state, uid)));
    let passed = leader.wait_for("the pod's node", |state| is_bound(state, uid)).await;
    assert!((60..=62).contains(&passed.as_secs()), "{passed:?}");
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(leader.store.read(|state| waiting_for(state, once).contains("`cube delete node/n1 --force`")), "it must not run twice");
    leader.store.delete_node(name("n1"), true).await.expect("a forced delete");
    leader.wait_for("its node, once the other is declared dead", |state| is_bound(state, once)).await;
    leader.stop().await;
}

fn backups(folder: &Path) -> Vec<String> {
    let files = std::fs::read_dir(folder).map(|files| files.map(|file| file.expect("a file").file_name().into_string().expect("text")));
    let mut names: Vec<_> = files.into_iter().flatten().collect();
    names.sort();
    names
}

#[tokio::test(start_paused = true)]
async fn backups_are_taken_on_schedule_and_a_restart_does_not_shift_it() {
    const MINUTE: Duration = Duration::from_secs(60);
    let kept = tempfile::tempdir().expect("a temporary folder");
    let options = Options { backups: Some(Backups { folder: kept.path().to_owned(), every: 10 * MINUTE, keep: 2 }), ..Options::default() };
    let leader = Leader::start_in(tempfile::tempdir().expect("a temporary folder"), options.clone()).await;
    tokio::time::sleep(MINUTE).await;
    assert_eq!(backups(kept.path()).len(), 1, "there is none yet, so one is due");
    tokio::time::sleep(8 * MINUTE).await;
    assert_eq!(backups(kept.path()).len(), 1);
    tokio::time::sleep(12 * MINUTE).await;
    let two = backups(kept.path());
    assert!(two.len() == 2 && two[0].contains("-19700101T0010") && two[1].contains("-19700101T0020"), "{two:?}");
    let folder = leader.stop().await;
    // Its clock begins again at 0, so the newest backup is from the future; it counts as one of now.
    let leader = Leader::start_in(folder, options).await;
    tokio::time::sleep(9 * MINUTE).await;
    assert_eq!(backups(kept.path()), two);
    leader.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_backup_that_fails_is_tried_again_until_there_is_one() {
    let place = tempfile::tempdir().expect("a temporary folder");
    let folder = place.path().join("backups");
    std::fs::write(&folder, "a file where the folder should be").expect("a file");
    let options =
        Options { backups: Some(Backups { folder: folder.clone(), every: Duration::from_secs(86_400), keep: 2 }), ..Options::default() };
    let leader = Leader::start_in(tempfile::tempdir().expect("a temporary folder"), options).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    std::fs::remove_file(&folder).expect("removed");
    tokio::time::sleep(Duration::from_secs(800)).await;
    assert_eq!(backups(&folder).len(), 1);
    leader.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_silent_for_30_s_is_lost_and_its_pod_runs_elsewhere_without_another_timer() {
    let (leader, old) = Leader::with_a_pod_on_n1(2, "replace").await;
    leader.disconnect("n1");
    let lost = leader.wait_for("the loss", |state| state.nodes[&name("n1")].condition.is_lost()).await;
    assert!((129..=131).contains(&lost.as_secs()), "{lost:?}");
    let elsewhere = |state: &State| state.standing(&name("web")).is_some_and(|row| row.pod.placement.node == Some(name("n2")));
    let placed = leader.wait_for("the new pod's node", elsewhere).await;
    assert!(placed - lost < Duration::from_millis(100), "{placed:?} after {lost:?}");
    assert!(leader.store.read(|state| state.pods[&old].retired.is_some()), "its node is to stop it when it is back");
    leader.connect("n1", None).await;
    leader.report(old, Phase::Failed, true, None).await;
    assert_eq!((leader.node_of("web"), leader.store.read(|state| state.pods.len())), (Some(name("n2")), 1));
    leader.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_waits_for_its_node_is_not_placed_elsewhere_whatever_becomes_of_its_manifest() {
    let (leader, old) = Leader::with_a_pod_on_n1(2, "wait").await;
    leader.disconnect("n1");
    leader.wait_for("the loss", |state| state.nodes[&name("n1")].condition.is_lost()).await;
    for (image, on_node_loss) in [("nginx:2", "wait"), ("nginx:3", "replace")] {
        let new = leader.apply_with("web", image, "100m", on_node_loss).await;
        let held = |state: &State| waiting_for(state, new).contains("n1 to stop: that node is lost");
        leader.wait_for("the reason", held).await;
        tokio::time::sleep(Duration::from_secs(600)).await;
        assert!(leader.store.read(|state| !is_bound(state, new) && state.pods.contains_key(&old)));
    }
    leader.store.delete_pod(name("web"), Default::default()).await.expect("a delete");
    let again = leader.apply("web", "nginx:4", "100m").await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(leader.store.read(|state| !is_bound(state, again)), "a delete doesn't free it either");
    leader.store.delete_node(name("n1"), true).await.expect("a forced delete");
    leader.wait_for("a node, once the old one is declared dead", |state| is_bound(state, again)).await;
    leader.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_must_wait_from_now_on_waits_for_one_of_its_name_that_needn_t_have() {
    let (leader, old) = Leader::with_a_pod_on_n1(2, "replace").await;
    leader.disconnect("n1");
    leader.wait_for("the loss", |state| state.nodes[&name("n1")].condition.is_lost()).await;
    leader
        .wait_for("the new pod's node", |state| state.standing(&name("web")).is_some_and(|row| is_bound(state, row.pod.metadata.uid)))
        .await;
    let last = leader.apply_with("web", "nginx", "100m", "wait").await;
    leader.wait_for("the reason", |state| waiting_for(state, last).contains(&format!("({old}) on node n1 to stop"))).await;
    leader.stop().await;
}

#[tokio::test(start_paused = true)]
async fn two_of_three_nodes_that_fall_silent_at_once_are_not_lost_until_one_of_them_is_back() {
    let (leader, uid) = Leader::with_a_pod_on_n1(3, "replace").await;
    leader.disconnect("n1");
    leader.disconnect("n2");
    leader.wait_for("the brake", |state| condition(state, "n1").contains("2 of 3 nodes fell silent at once")).await;
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    assert!(leader.store.read(|state| state.pods[&uid].retired.is_none()), "the pod is where it was");
    leader.connect("n2", None).await;
    leader.wait_for("the loss", |state| state.nodes[&name("n1")].condition.is_lost()).await;
    leader
        .wait_for("the new pod's node", |state| state.standing(&name("web")).is_some_and(|row| is_bound(state, row.pod.metadata.uid)))
        .await;
    leader.stop().await;
}

#[tokio::test(start_paused = true)]
async fn after_the_leaders_start_nobody_is_lost_for_a_minute() {
    let leader = Leader::start().await;
    for node in ["n1", "n2"] {
        leader.connect(node, None).await;
    }
    leader.disconnect("n1");
    tokio::time::sleep(Duration::from_secs(59)).await;
    assert_eq!(leader.store.read(|state| condition(state, "n1")), "no session for more than 10s");
    let lost = leader.wait_for("the loss", |state| state.nodes[&name("n1")].condition.is_lost()).await;
    assert!((60..=61).contains(&lost.as_secs()), "{lost:?}");
    leader.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_jumps_loses_no_node() {
    let (leader, uid) = Leader::with_a_pod_on_n1(2, "replace").await;
    leader.disconnect("n1");
    for seconds in [86_400, -86_400] {
        leader.jumped.store(seconds, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_secs(4)).await;
        assert_eq!(leader.store.read(|state| condition(state, "n1")), "Ready", "it has been silent for some seconds");
    }
    leader.connect("n1", None).await;
    leader.jumped.store(1_000_000, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert!(leader.store.read(|state| state.pods[&uid].retired.is_none()));
    leader.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_was_stopped_for_a_minute_does_not_blame_the_nodes() {
    let (leader, _) = Leader::with_a_pod_on_n1(2, "replace").await;
    leader.disconnect("n1");
    // As after SIGCONT: the clock is on, and no loop has run in between.
    tokio::time::advance(Duration::from_secs(60)).await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(leader.store.read(|state| condition(state, "n1")), "Ready");
    let lost = leader.wait_for("the loss", |state| state.nodes[&name("n1")].condition.is_lost()).await;
    assert!((180..=187).contains(&lost.as_secs()), "{lost:?}");
    leader.stop().await;
}

fn manifest(pod: &str, cpu: &str) -> Resource {
    let containers = json!([{"name": "c", "image": "nginx", "resources": {"requests": {"cpu": cpu}}}]);
    Resource::Pod(serde_json::from_value(json!({"metadata": {"name": pod}, "spec": {"containers": containers}})).expect("a manifest"))
}

/// A node with room for so many pods, and 64 cores.
async fn large_node(leader: &Leader, pods: u32) {
    let mut announcement = announcement("n1", None);
    announcement.facts.capacity.pods = pods;
    announcement.facts.capacity.cpu = cube_api::quantity::MilliCpu(64_000);
    leader.sessions.0.lock().expect("the sessions").insert(name("n1"), Timestamp::UNIX_EPOCH);
    leader.store.join(announcement, false).await.expect("a node that may join");
}

/// A pass takes 2,048 of those that nobody has looked at.
#[tokio::test(start_paused = true)]
async fn a_pod_behind_a_burst_is_placed_before_the_burst_is() {
    let leader = Leader::start().await;
    large_node(&leader, 10_000).await;
    let mut burst: Vec<_> = (0..6_000).map(|number| manifest(&format!("burst-{number}"), "1m")).collect();
    burst.push(manifest("single", "1m"));
    leader.store.apply(burst, false).await.expect("an apply");
    let bound = |state: &State| state.load(&name("n1")).map_or(0, |load| load.bound.len());
    let after = leader.wait_for("the burst's node", |state| bound(state) == 6_001).await;
    assert_eq!(after, Duration::ZERO, "each pass is followed by the next");
    // Nothing but their placing changed them since.
    let earlier = leader.store.read(|state| {
        let single = state.standing(&name("single")).expect("the pod").pod.metadata.revision;
        state.pods.values().filter(|row| row.pod.metadata.revision < single).count()
    });
    assert!(earlier < 2_048, "{earlier} of the burst were placed before it");
}

/// A pass takes 1,024 of those that were told why they wait.
#[tokio::test(start_paused = true)]
async fn pods_that_fit_nowhere_do_not_hold_up_others_and_are_all_looked_at_when_there_is_room() {
    let leader = Leader::start().await;
    large_node(&leader, 10_000).await;
    let misfits = (0..2_500).map(|number| manifest(&format!("misfit-{number:04}"), if number == 2_499 { "65" } else { "100" }));
    leader.store.apply(misfits.collect(), false).await.expect("an apply");
    leader.wait_for("the reasons", |state| state.fresh().len() == 0).await;
    let small = leader.apply("small", "nginx", "100m").await;
    let placed_after = leader.wait_for("the small pod's node", |state| is_bound(state, small)).await;
    let mut larger = announcement("n1", None);
    larger.facts.capacity.pods = 10_000;
    larger.facts.capacity.cpu = cube_api::quantity::MilliCpu(66_000);
    leader.store.join(larger, false).await.expect("a node that may join");
    let last = |state: &State| state.standing(&name("misfit-2499")).is_some_and(|row| row.pod.placement.node.is_some());
    let all_after = leader.wait_for("room for the last", last).await;
    assert_eq!((placed_after, all_after), (Duration::ZERO, Duration::ZERO), "no timer stands between");
}
