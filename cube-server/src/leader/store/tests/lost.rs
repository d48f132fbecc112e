//! Nodes that are lost, come back or are declared dead, and what becomes of their pods.

use std::sync::Arc;

use cube_api::ErrorCode;
use cube_api::meta::Revision;
use cube_api::node::NodeCondition;
use cube_api::pod::NODE_LOST;
use cube_api::routes::DeleteQuery;
use cube_api::session::{HeldPod, Want};

use super::*;
use crate::leader::store::PodRow;

const FORCE: DeleteQuery = DeleteQuery { grace_seconds: None, force: true };

impl Leader {
    /// Two nodes with a session, `n1` and `n2`.
    pub(super) async fn with_nodes() -> Self {
        let leader = Self::start().await;
        leader.join("n1", 1).await;
        leader.join("n2", 2).await;
        leader
    }

    pub(super) async fn lose(&self, node: &str) {
        let revision = self.store.read(|state| state.nodes[&name(node)].revision);
        self.store.lose_node(name(node), revision, "no session".to_owned()).await.expect("a write");
    }

    /// The node says of a pod what it is now.
    pub(super) async fn says(&self, node_id: u128, uid: Uid, sequence: u64, phase: Phase, stopped: bool) {
        let mut report = self.report(node_id);
        report.pods.push(pod_report(uid, sequence, phase, stopped));
        self.store.report(name(&format!("n{node_id}")), report, ()).await.expect("a report");
    }

    pub(super) fn shown(&self, pod: &str) -> Arc<PodRow> {
        self.store.pod(&name(pod)).expect("a pod")
    }

    pub(super) fn row(&self, uid: Uid) -> Option<Arc<PodRow>> {
        self.store.read(|state| state.pods.get(&uid).cloned())
    }

    /// What a node is told to do with a pod; none: it is not its pod.
    pub(super) fn want(&self, node: &str, uid: Uid) -> Option<Want> {
        let assignment = self.store.assignment(&name(node));
        assignment.pods.into_iter().find(|pod| pod.uid == uid).map(|pod| pod.want)
    }
}

pub(super) fn stops(want: Option<Want>) -> bool {
    match want {
        Some(Want::Stop { .. }) => true,
        Some(Want::Run { .. }) | None => false,
    }
}

#[tokio::test]
async fn a_lost_nodes_pod_is_replaced_and_the_old_one_stopped_when_its_node_is_back() {
    let leader = Leader::with_nodes().await;
    let old = leader.run_on("n2", pod("web", "nginx", "a")).await;
    leader.says(2, old, 1, Phase::Running, false).await;
    leader.lose("n2").await;
    let new = leader.shown("web").pod.clone();
    assert_ne!(new.metadata.uid, old);
    assert_eq!((new.metadata.generation, new.placement.node, new.status.phase), (2, None, Phase::Pending));
    assert_eq!(new.spec, leader.row(old).expect("its node may have it").pod.spec);
    let uid = new.metadata.uid;
    let bind = |node: &str| Placing::Bind { uid, node: name(node), reason: "it fits".to_owned() };
    leader.store.place(vec![bind("n2"), bind("n1")]).await.expect("a placing");
    assert_eq!(leader.shown("web").pod.placement.node, Some(name("n1")), "not where it is lost");

    let leader = leader.restart().await;
    leader.join("n2", 2).await;
    assert!(stops(leader.want("n2", old)));
    leader.says(2, old, 2, Phase::Running, false).await;
    assert_eq!(leader.shown("web").pod.status.phase, Phase::Pending, "the old one speaks for itself only");
    leader.says(2, old, 3, Phase::Failed, true).await;
    assert_eq!(leader.store.read(|state| state.pods.keys().copied().collect::<Vec<_>>()), [uid]);
    assert_eq!(leader.reasons("pod/web").await, ["Created", "Scheduled", "NodeLost", "Created", "Scheduled", "Stopped"]);
    assert_eq!(leader.reasons("node/n2").await, ["NodeJoined", "NodeLost", "NodeReady"]);
}

#[tokio::test]
async fn a_node_that_joined_in_the_meantime_is_not_lost() {
    let leader = Leader::with_nodes().await;
    let uid = leader.run_on("n2", pod("web", "nginx", "a")).await;
    let seen: Revision = leader.store.read(|state| state.nodes[&name("n2")].revision);
    leader.join("n2", 2).await;
    leader.store.lose_node(name("n2"), seen, "no session".to_owned()).await.expect("a write");
    assert_eq!(leader.store.read(|state| state.nodes[&name("n2")].condition.clone()), NodeCondition::Ready);
    assert_eq!(leader.shown("web").pod.metadata.uid, uid);
}

#[tokio::test]
async fn a_pod_that_is_never_restarted_is_failed_and_not_run_again_unless_a_person_says_so() {
    let leader = Leader::with_nodes().await;
    let manifest = never(pod("job", "busybox", "a"));
    // Bound, and nothing heard of it: it may have been started.
    let old = leader.run_on("n2", manifest.clone()).await;
    leader.lose("n2").await;
    let given_up = leader.shown("job").pod.clone();
    assert_eq!((given_up.status.phase, given_up.status.reason.as_deref()), (Phase::Failed, Some(NODE_LOST)));
    assert!(given_up.status.message.is_some_and(|message| message.contains("cube restart pod/job")));
    let uid = given_up.metadata.uid;
    let bind = Placing::Bind { uid, node: name("n1"), reason: "it fits".to_owned() };
    leader.store.place(vec![bind.clone()]).await.expect("a placing");
    assert_eq!(leader.store.read(|state| state.unbound().count()), 0);
    assert_eq!(leader.shown("job").pod.placement.node, None);
    assert_eq!(leader.apply(manifest).await.0, ApplyAction::Unchanged, "an apply of what is there doesn't run it again");

    leader.join("n2", 2).await;
    assert!(stops(leader.want("n2", old)), "where it may run, it is stopped");
    leader.says(2, old, 1, Phase::Running, false).await;
    leader.says(2, old, 2, Phase::Succeeded, true).await;
    assert_eq!(leader.shown("job").pod.status.phase, Phase::Failed, "phases move one way");

    let leader = leader.restart().await;
    assert_eq!(leader.store.read(|state| state.unbound().count()), 0);
    leader.store.restart_pod(name("job")).await.expect("a restart");
    assert_eq!((leader.shown("job").pod.status.phase, leader.store.read(|state| state.unbound().count())), (Phase::Pending, 1));
    leader.store.place(vec![bind]).await.expect("a placing");
    assert_eq!(leader.shown("job").pod.placement.node, Some(name("n1")));
}

#[tokio::test]
async fn a_pod_that_waits_for_its_node_stays_its_own_and_goes_on_when_it_is_back() {
    let leader = Leader::with_nodes().await;
    let uid = leader.run_on("n2", waiting(pod("db", "postgres", "a"))).await;
    leader.says(2, uid, 1, Phase::Running, false).await;
    leader.lose("n2").await;
    let shown = leader.shown("db").pod.clone();
    assert_eq!((shown.metadata.uid, shown.placement.node.clone()), (uid, Some(name("n2"))));
    assert_eq!(cube_api::status::of_pod(&shown), "NodeLost");
    let why = shown.placement.waiting_for.expect("the reason");
    assert!(why.contains("onNodeLoss: wait") && why.contains("cube delete node/n2 --force"), "{why}");
    assert_eq!(leader.events("pod/db").await.pop().expect("an event").message, why);
    assert_eq!(leader.want("n2", uid), Some(Want::Run { restarts: 0 }));
    leader.join("n2", 2).await;
    assert_eq!(cube_api::status::of_pod(&leader.shown("db").pod), "Scheduled");
    assert_eq!(leader.shown("db").pod.placement.waiting_for, None);
}

#[tokio::test]
async fn a_pod_that_waits_for_a_lost_node_is_not_forgotten_by_force_until_the_node_is_declared_dead() {
    let leader = Leader::with_nodes().await;
    let uid = leader.run_on("n2", waiting(pod("db", "postgres:1", "a"))).await;
    leader.lose("n2").await;
    leader.apply(waiting(pod("db", "postgres:2", "a"))).await;
    let before = leader.store.read(Clone::clone);
    let refused = refusal(leader.store.delete_pod(name("db"), FORCE).await);
    assert_eq!(refused.code, ErrorCode::Conflict);
    assert!(refused.hint.is_some_and(|hint| hint.contains("cube delete node/n2 --force")));
    assert_eq!(leader.store.read(Clone::clone), before);
    leader.store.delete_node(name("n2"), true).await.expect("a forced delete");
    assert!(leader.row(uid).is_none());
    leader.store.delete_pod(name("db"), FORCE).await.expect("now nothing may run");
    assert!(leader.store.read(|state| state.pods.is_empty()));
}

#[tokio::test]
async fn a_pod_that_waits_for_its_node_is_not_forgotten_by_force_while_that_is_connected_either() {
    let leader = Leader::with_nodes().await;
    leader.run_on("n2", waiting(pod("db", "postgres", "a"))).await;
    refusal(leader.store.delete_pod(name("db"), FORCE).await);
    leader.store.delete_pod(name("db"), DeleteQuery::default()).await.expect("an ordinary delete");
    leader.run_on("n2", waiting(pod("done", "postgres", "a"))).await;
    let done = leader.shown("done").pod.metadata.uid;
    leader.says(2, done, 1, Phase::Succeeded, false).await;
    leader.store.delete_pod(name("done"), FORCE).await.expect("its containers have ended");
}

#[tokio::test]
async fn a_delete_on_a_lost_node_is_over_for_all_but_what_waits_for_it() {
    let leader = Leader::with_nodes().await;
    let early = leader.run_on("n2", portless(pod("early", "nginx", "a"))).await;
    leader.run_on("n2", portless(waiting(pod("db", "postgres", "a")))).await;
    let done = leader.run_on("n2", portless(pod("done", "nginx", "a"))).await;
    leader.says(2, done, 1, Phase::Succeeded, false).await;
    leader.store.delete_pod(name("early"), DeleteQuery::default()).await.expect("a delete");
    assert!(leader.store.pod(&name("early")).is_some(), "its node is to confirm it");
    leader.lose("n2").await;
    assert!(leader.store.pod(&name("early")).is_none(), "its node may never confirm it");
    assert!(stops(leader.want("n2", early)), "but stops it when it is back");
    let last = leader.events("pod/early").await.pop().expect("an event");
    assert_eq!(last.message, "its node is lost: its containers may remain there until that node is heard again");
    for pod in ["db", "done"] {
        leader.store.delete_pod(name(pod), DeleteQuery::default()).await.expect("a delete");
    }
    assert!(leader.store.pod(&name("done")).is_none());
    assert_eq!(
        refusal(leader.store.restart_pod(name("done")).await).code,
        ErrorCode::NotFound,
        "who can't see it isn't told to wait for it"
    );
    assert_eq!(cube_api::status::of_pod(&leader.shown("db").pod), "Terminating");
    let (action, again) = leader.apply(portless(pod("early", "nginx", "a"))).await;
    assert_eq!((action, again.metadata.generation), (ApplyAction::Created, 2));
}

#[tokio::test]
async fn what_has_finished_on_a_lost_node_stays_as_it_is_and_is_not_restarted_there() {
    let leader = Leader::with_nodes().await;
    let uid = leader.run_on("n2", pod("web", "nginx", "a")).await;
    leader.says(2, uid, 1, Phase::Failed, false).await;
    leader.lose("n2").await;
    let before = leader.store.read(Clone::clone);
    assert_eq!((leader.shown("web").pod.metadata.uid, leader.shown("web").pod.status.phase), (uid, Phase::Failed));
    let refused = refusal(leader.store.restart_pod(name("web")).await);
    assert_eq!(refused.message, "pod/web can't start again: its node n2 is lost");
    assert_eq!(leader.store.read(Clone::clone), before);
}

#[tokio::test]
async fn a_lost_nodes_late_word_changes_nothing_until_it_joins_again() {
    let leader = Leader::with_nodes().await;
    let uid = leader.run_on("n2", pod("web", "nginx", "a")).await;
    leader.says(2, uid, 1, Phase::Failed, false).await;
    leader.lose("n2").await;
    let before = leader.store.read(Clone::clone);
    // Sent before it was cut off: would the pod be running there, it ought to have been replaced.
    let mut late = leader.report(2);
    late.pods.push(pod_report(uid, 2, Phase::Running, false));
    let refused = refusal(leader.store.report(name("n2"), late, ()).await);
    assert_eq!(refused.message, "node 'n2' was silent for so long that it is lost: its pods may have been replaced");
    assert_eq!(leader.store.read(Clone::clone), before);
    leader.join("n2", 2).await;
    leader.says(2, uid, 2, Phase::Running, false).await;
    assert_eq!(leader.shown("web").pod.status.phase, Phase::Running);
}

#[tokio::test]
async fn a_node_that_is_declared_dead_takes_no_pod_of_the_user_with_it() {
    let leader = Leader::with_nodes().await;
    for manifest in
        [pod("web", "nginx", "a"), waiting(pod("db", "postgres", "a")), never(pod("job", "busybox", "a")), pod("old", "nginx", "a")]
    {
        leader.run_on("n2", portless(manifest)).await;
    }
    let done = leader.run_on("n2", portless(never(pod("done", "busybox", "a")))).await;
    leader.says(2, done, 1, Phase::Succeeded, false).await;
    leader.store.delete_pod(name("old"), DeleteQuery::default()).await.expect("a delete");
    leader.store.delete_node(name("n2"), true).await.expect("a forced delete");
    let leader = leader.restart().await;
    let phase = |pod| leader.store.pod(&name(pod)).map(|row| (row.pod.status.phase, row.pod.placement.node.clone()));
    assert_eq!([phase("web"), phase("db")], [Some((Phase::Pending, None)), Some((Phase::Pending, None))]);
    assert_eq!([phase("job"), phase("done")], [Some((Phase::Failed, None)), Some((Phase::Succeeded, None))]);
    assert_eq!(phase("old"), None, "this one was on its way out");
    assert_eq!(leader.store.read(|state| state.unbound().count()), 2);
    assert_eq!(leader.reasons("pod/db").await, ["Created", "Scheduled", "NodeLost", "Created"]);
    leader.join("n2", 7).await;
    assert_eq!(leader.store.assignment(&name("n2")).pods, [], "it is a new one, and stops what it isn't assigned");
}

/// What a node announces whose ledger has been in this cluster.
fn holding(leader: &Leader, pods: &[(Uid, &str)]) -> Announcement {
    let pods = pods.iter().map(|(uid, pod)| HeldPod { uid: *uid, name: name(pod) }).collect();
    Announcement { cluster_id: Some(leader.store.cluster_id()), pods, ..announcement("n1", 1, "machine-1") }
}

#[tokio::test]
async fn what_must_not_run_twice_is_given_up_when_its_node_is_back_without_it() {
    let leader = Leader::with_nodes().await;
    let bound = leader.run_on("n1", portless(never(pod("bound", "busybox", "a")))).await;
    let started = leader.run_on("n1", portless(never(pod("started", "busybox", "a")))).await;
    let service = leader.run_on("n1", pod("service", "nginx", "a")).await;
    let mut report = leader.report(1);
    report.pods = [started, service].map(|uid| pod_report(uid, 1, Phase::Running, false)).to_vec();
    let running = json!({"name": "c", "image": "busybox", "state": {"running": {"startedAt": "2026-11-21T00:00:00Z"}}, "restartCount": 0});
    report.pods[0].status.containers = vec![serde_json::from_value(running).expect("a container's status")];
    leader.store.report(name("n1"), report, ()).await.expect("a report");

    leader.store.join(holding(&leader, &[(bound, "bound"), (started, "started")]), false).await.expect("a node that may join");
    assert_eq!(leader.shown("started").pod.metadata.uid, started, "its node has it");
    let without_ledger = announcement("n1", 1, "machine-1");
    leader.store.join(without_ledger, false).await.expect("a node that may join");
    assert_eq!(leader.shown("started").pod.metadata.uid, started, "a ledger that is new knows nothing: its node looks what Docker has");

    leader.store.join(holding(&leader, &[]), false).await.expect("a node that may join");
    assert!(stops(leader.want("n1", started)), "it would be started a second time");
    let given_up = leader.shown("started").pod.clone();
    assert_eq!((given_up.status.phase, given_up.status.reason.as_deref()), (Phase::Failed, Some("NodeForgot")));
    assert!(given_up.status.message.is_some_and(|message| message.contains("cube restart pod/started")));
    assert!(!stops(leader.want("n1", bound)), "nothing says that it was started");
    assert!(!stops(leader.want("n1", service)), "it may run again");
    leader.store.restart_pod(name("started")).await.expect("a person says so");
    assert!(leader.shown("started").is_unplaced());
}
