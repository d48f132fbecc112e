//! The loops on a real store, under paused time: what happens without time passing was caused by the commit, not by a timer.

use std::sync::Mutex;
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
use crate::ambient::Source;
use crate::leader::store::State;

/// The time of day that goes with tokio's paused clock.
struct Paused(Instant);

impl Source for Paused {
    fn now(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::try_from(self.0.elapsed()).expect("a short test")
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
    tasks: Tasks,
    _folder: TempDir,
}

impl Leader {
    async fn start() -> Self {
        let (folder, tasks, began) = (tempfile::tempdir().expect("a temporary folder"), Tasks::default(), Instant::now());
        let ambient = Ambient::new(Paused(began));
        let store = Store::open(&folder.path().join("leader.db"), ambient.clone(), &tasks).await.expect("a store");
        let sessions = Arc::new(Sessions::default());
        start(&store, sessions.clone(), &ambient, &tasks, Options::default());
        Self { store, sessions, began, tasks, _folder: folder }
    }

    async fn connect(&self, node: &str, trouble: Option<&str>) {
        let capacity = json!({"cpu": "1", "memory": "1Gi", "pods": 10});
        let facts = json!({"version": "0.1.0", "engine": "20.10", "capacity": capacity, "trouble": trouble});
        let text = json!({"node": node, "nodeId": Uuid::from_u128(1), "machineId": "m", "role": "Follower", "facts": facts});
        let announcement: Announcement = serde_json::from_value(text).expect("an announcement");
        self.sessions.0.lock().expect("the sessions").insert(name(node), Timestamp::UNIX_EPOCH);
        self.store.join(announcement, false).await.expect("a node that may join");
    }

    fn disconnect(&self, node: &str) {
        self.sessions.0.lock().expect("the sessions").remove(&name(node));
    }

    async fn apply(&self, pod: &str, image: &str, cpu: &str) -> Uid {
        let containers = json!([{"name": "c", "image": image, "resources": {"requests": {"cpu": cpu}}}]);
        let manifest = serde_json::from_value(json!({"metadata": {"name": pod}, "spec": {"containers": containers}}));
        let applied = self.store.apply(vec![Resource::Pod(manifest.expect("a manifest"))], false).await.expect("an apply");
        applied.items[0].pod.metadata.uid
    }

    async fn report(&self, uid: Uid, phase: Phase, stopped: bool, trouble: Option<&str>) {
        let mut facts: serde_json::Value =
            json!({"version": "0.1.0", "engine": "20.10", "capacity": {"cpu": "1", "memory": "1Gi", "pods": 10}});
        facts["trouble"] = json!(trouble);
        let pods = vec![PodReport { uid, sequence: 1, status: PodStatus { phase, ..PodStatus::default() }, stopped }];
        let facts = serde_json::from_value(facts).expect("facts");
        let report = Report { node_id: NodeId(Uuid::from_u128(1)), cluster_id: self.store.cluster_id(), facts, pods, events: Vec::new() };
        self.store.report(name("n1"), report).await.expect("a report");
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

    async fn stop(self) {
        assert!(self.tasks.shut_down(Duration::from_secs(10)).await, "the loops end when they are told to");
        assert!(!self.tasks.has_panicked());
    }
}

fn name(text: &str) -> Name {
    Name::new(text).expect("a label")
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
        Some(NodeCondition::NotReady { reason }) => reason.clone(),
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
