//! Nodes that take no new pods, that are drained, and that people label.

use cube_api::ErrorCode;
use cube_api::meta::{LabelChanges, Labels, Revision};
use cube_api::node::{Cordon, Drain, DrainStep, LeftPod, Node, NodeCondition};
use cube_api::pod::DRAINED;
use cube_api::routes::{CordonQuery, DeleteQuery, DrainQuery};
use cube_api::session::Want;

use super::lost::stops;
use super::*;
use crate::leader::store::DrainPass;

impl Leader {
    fn node(&self, node: &str) -> Node {
        self.store.read(|state| Node::clone(&state.nodes[&name(node)]))
    }

    fn cordon(&self, node: &str) -> Option<Cordon> {
        self.node(node).cordon
    }

    fn drain(&self, node: &str) -> Drain {
        self.cordon(node).and_then(|cordon| cordon.drain).expect("a drain")
    }

    async fn cordoned(&self, node: &str, reason: Option<&str>) -> Node {
        let query = CordonQuery { reason: reason.map(str::to_owned) };
        self.store.cordon_node(name(node), query).await.expect("a cordon")
    }

    async fn drained(&self, node: &str, query: DrainQuery) -> Node {
        self.store.drain_node(name(node), query).await.expect("a drain")
    }

    /// A pass of the drain loop over these pods.
    async fn go_on(&self, node: &str, drain: Drain, left: &[(Uid, DrainStep)]) {
        let left = left.iter().map(|(uid, step)| {
            let name = self.row(*uid).map_or_else(|| name("gone"), |row| row.pod.metadata.name.clone());
            LeftPod { name, uid: *uid, step: step.clone() }
        });
        let pass = DrainPass { node: name(node), left: left.collect(), drain };
        self.store.go_on_with_drain(pass).await.expect("a write");
    }

    fn revision(&self) -> Revision {
        self.store.read(|state| state.revision)
    }

    async fn label(&self, node: &str, changes: &[(&str, Option<&str>)]) -> Result<Node, StoreError> {
        let changes: LabelChanges = changes.iter().map(|(key, value)| ((*key).to_owned(), value.map(str::to_owned))).collect();
        self.store.label_node(name(node), changes).await
    }
}

const PLAIN: DrainQuery = DrainQuery { reason: None, grace_seconds: None, force: false };

fn stopping(grace_seconds: u32) -> DrainStep {
    DrainStep::Stopping { grace_seconds }
}

fn labels(of: &[(&str, &str)]) -> Labels {
    of.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

#[tokio::test]
async fn a_cordoned_node_takes_no_pod_and_keeps_those_that_it_has() {
    let leader = Leader::with_nodes().await;
    let old = leader.run_on("n1", portless(pod("old", "nginx", "a"))).await;
    let answer = leader.cordoned("n1", Some(" disk swap ")).await;
    assert_eq!(answer.cordon.as_ref().and_then(|cordon| cordon.reason.as_deref()), Some("disk swap"));
    assert_eq!((cube_api::status::of_node(&answer).as_str(), answer.pods), ("Ready,Cordoned", 1));
    // Decided by a scheduler that had not seen it.
    let new = leader.run_on("n1", portless(pod("new", "nginx", "a"))).await;
    assert_eq!(leader.row(new).expect("it waits").pod.placement.node, None);
    assert!(!stops(leader.want("n1", old)));
    leader.store.uncordon_node(name("n1")).await.expect("an uncordon");
    let bind = Placing::Bind { uid: new, node: name("n1"), reason: "it fits".to_owned() };
    leader.store.place(vec![bind]).await.expect("a placing");
    assert_eq!(leader.row(new).expect("it is there").pod.placement.node, Some(name("n1")));
    assert_eq!(leader.reasons("node/n1").await, ["NodeJoined", "Cordoned", "Uncordoned"]);
    assert_eq!(leader.events("node/n1").await[1].message, "takes no new pods: disk swap");
}

#[tokio::test]
async fn to_say_it_again_is_no_change_and_no_event() {
    let leader = Leader::with_nodes().await;
    let first = leader.cordoned("n1", Some("disk")).await;
    let at = leader.revision();
    assert_eq!(leader.cordoned("n1", None).await, first, "nothing new is said");
    assert_eq!(leader.cordoned("n1", Some("disk")).await, first);
    let drained = leader.drained("n1", PLAIN).await;
    assert!(leader.revision() > at);
    let at = leader.revision();
    assert_eq!(leader.drained("n1", PLAIN).await, drained);
    assert_eq!(leader.cordoned("n1", None).await, drained, "a cordon ends no drain");
    assert_eq!(leader.revision(), at);
    leader.store.uncordon_node(name("n1")).await.expect("an uncordon");
    let at = leader.revision();
    leader.store.uncordon_node(name("n1")).await.expect("an uncordon");
    assert_eq!(leader.revision(), at);
    assert_eq!(leader.reasons("node/n1").await, ["NodeJoined", "Cordoned", "Draining", "Uncordoned"]);
}

#[tokio::test]
async fn an_unknown_node_and_a_reason_that_is_no_line_are_refused() {
    let leader = Leader::with_nodes().await;
    for refused in [
        refusal(leader.store.cordon_node(name("n9"), CordonQuery::default()).await),
        refusal(leader.store.uncordon_node(name("n9")).await),
        refusal(leader.store.drain_node(name("n9"), PLAIN).await),
        refusal(leader.label("n9", &[("a", Some("b"))]).await),
    ] {
        assert_eq!((refused.code, refused.message.as_str()), (ErrorCode::NotFound, "node/n9 not found"));
        assert!(refused.hint.is_some_and(|hint| hint.contains("cube nodes")));
    }
    for reason in ["x".repeat(257), "two\nlines".to_owned()] {
        let query = CordonQuery { reason: Some(reason) };
        assert_eq!(refusal(leader.store.cordon_node(name("n1"), query).await).code, ErrorCode::BadRequest);
    }
    assert_eq!(leader.cordon("n1"), None);
}

#[tokio::test]
async fn a_cordon_a_drain_and_labels_outlive_restarts_and_joins_also_of_another_data_folder() {
    let leader = Leader::with_nodes().await;
    leader.run_on("n1", pod("web", "nginx", "a")).await;
    leader.drained("n1", DrainQuery { reason: Some("disk".to_owned()), grace_seconds: Some(3), force: true }).await;
    leader.label("n1", &[("disk", Some("ssd"))]).await.expect("a label");
    let (cordon, labels) = (leader.cordon("n1"), leader.node("n1").labels);
    leader.lose("n1").await;
    let leader = leader.restart().await;
    for node_id in [1, 7] {
        leader.join("n1", node_id).await;
        assert_eq!((leader.cordon("n1"), leader.node("n1").labels), (cordon.clone(), labels.clone()));
    }
    assert!(cordon.is_some_and(|cordon| cordon.draining().is_some()));
}

#[tokio::test]
async fn a_drained_pod_is_stopped_and_the_one_in_its_place_begins_when_it_is_gone() {
    let leader = Leader::with_nodes().await;
    let old = leader.run_on("n1", waiting(pod("db", "postgres", "a"))).await;
    leader.says(1, old, 1, Phase::Running, false).await;
    leader.drained("n1", PLAIN).await;
    leader.go_on("n1", leader.drain("n1"), &[(old, stopping(5))]).await;
    let reason = "its node n1 is drained".to_owned();
    assert_eq!(leader.want("n1", old), Some(Want::Stop { grace_seconds: 5, reason }));
    let new = leader.shown("db").pod.clone();
    assert_eq!((new.placement.node, new.metadata.generation, new.status.phase), (None, 2, Phase::Pending));
    assert!(new.metadata.uid != old && new.spec == leader.row(old).expect("it stops").pod.spec);
    assert_eq!(leader.drain("n1").finished_at, None);
    // The pass before its end, and the one after.
    leader.go_on("n1", leader.drain("n1"), &[]).await;
    assert_eq!(leader.drain("n1").finished_at, None, "it isn't gone");
    leader.says(1, old, 2, Phase::Failed, true).await;
    leader.go_on("n1", leader.drain("n1"), &[]).await;
    assert!(leader.drain("n1").finished_at.is_some());
    assert!(leader.cordon("n1").is_some(), "it stays cordoned");
    assert_eq!(leader.reasons("pod/db").await, ["Created", "Scheduled", "Draining", "Created", "Stopped"]);
    assert_eq!(leader.reasons("node/n1").await, ["NodeJoined", "Draining", "Drained"]);
}

#[tokio::test]
async fn what_is_never_restarted_is_failed_by_force_and_says_how_to_run_it_again() {
    let leader = Leader::with_nodes().await;
    let old = leader.run_on("n1", never(pod("job", "busybox", "a"))).await;
    leader.drained("n1", DrainQuery { force: true, ..PLAIN }).await;
    leader.go_on("n1", leader.drain("n1"), &[(old, stopping(30))]).await;
    let given_up = leader.shown("job").pod.clone();
    assert_eq!((given_up.status.phase, given_up.status.reason.as_deref()), (Phase::Failed, Some(DRAINED)));
    assert!(given_up.status.message.is_some_and(|message| message.contains("cube restart pod/job")));
    assert_eq!((leader.store.read(|state| state.unbound().count()), stops(leader.want("n1", old))), (0, true));
    leader.store.restart_pod(name("job")).await.expect("a person says so");
    assert!(leader.shown("job").is_unplaced());
}

#[tokio::test]
async fn a_pod_that_stays_says_why_once_for_each_reason() {
    let leader = Leader::with_nodes().await;
    let uid = leader.run_on("n1", pod("web", "nginx", "a")).await;
    leader.drained("n1", PLAIN).await;
    let stays = |reason: &str| DrainStep::Stays { reason: reason.to_owned() };
    for reason in ["full", "full", "fuller"] {
        leader.go_on("n1", leader.drain("n1"), &[(uid, stays(reason))]).await;
    }
    let at = leader.revision();
    leader.go_on("n1", leader.drain("n1"), &[(uid, stays("fuller"))]).await;
    assert_eq!(leader.revision(), at, "what was said is not written again");
    assert_eq!(leader.drain("n1").left.iter().map(|pod| pod.step.clone()).collect::<Vec<_>>(), [stays("fuller")]);
    let told: Vec<_> =
        leader.events("pod/web").await.into_iter().filter(|event| event.reason == "NotDrained").map(|event| event.message).collect();
    assert_eq!(told, ["its node is drained, and it stays: full", "its node is drained, and it stays: fuller"]);
}

#[tokio::test]
async fn a_pass_that_a_person_overtook_stops_nothing() {
    let leader = Leader::with_nodes().await;
    let uid = leader.run_on("n1", pod("web", "nginx", "a")).await;
    leader.drained("n1", DrainQuery { force: true, ..PLAIN }).await;
    let forced = leader.drain("n1");
    leader.drained("n1", PLAIN).await;
    leader.go_on("n1", forced.clone(), &[(uid, stopping(30))]).await;
    assert!(!stops(leader.want("n1", uid)), "force was taken back");
    leader.store.uncordon_node(name("n1")).await.expect("an uncordon");
    leader.go_on("n1", forced, &[(uid, stopping(30))]).await;
    assert!(!stops(leader.want("n1", uid)), "the drain was called off");
    assert_eq!(leader.cordon("n1"), None);
}

#[tokio::test]
async fn an_end_that_is_under_way_gets_the_drains_shorter_grace_and_no_longer_one() {
    let leader = Leader::with_nodes().await;
    let uid = leader.run_on("n1", pod("web", "nginx", "a")).await;
    leader.store.delete_pod(name("web"), DeleteQuery { grace_seconds: Some(9), force: false }).await.expect("a delete");
    leader.drained("n1", PLAIN).await;
    for (grace, holds) in [(20, 9), (4, 4)] {
        leader.go_on("n1", leader.drain("n1"), &[(uid, stopping(grace))]).await;
        let reason = "deleted by the user".to_owned();
        assert_eq!(leader.want("n1", uid), Some(Want::Stop { grace_seconds: holds, reason }));
    }
    leader.says(1, uid, 1, Phase::Failed, true).await;
    assert!(leader.store.pod(&name("web")).is_none(), "nothing takes the place of what was deleted");
}

#[tokio::test]
async fn what_has_finished_stays_on_a_drained_node_and_does_not_begin_again_there() {
    let leader = Leader::with_nodes().await;
    let uid = leader.run_on("n1", never(pod("done", "busybox", "a"))).await;
    leader.says(1, uid, 1, Phase::Succeeded, false).await;
    leader.drained("n1", PLAIN).await;
    leader.go_on("n1", leader.drain("n1"), &[]).await;
    assert!(leader.drain("n1").finished_at.is_some());
    let last = leader.events("node/n1").await.pop().expect("an event").message;
    assert_eq!(last, "no unfinished pod is left; 1 finished pod stays there; it takes pods again after: cube uncordon n1");
    assert_eq!(leader.shown("done").pod.metadata.uid, uid);
    let refused = refusal(leader.store.restart_pod(name("done")).await);
    assert_eq!(refused.message, "pod/done can't start again: its node n1 is cordoned, and nothing begins there");
    assert!(refused.hint.is_some_and(|hint| hint.contains("cube uncordon n1")));
    let away = NodeCondition::NotReady { reason: "away".to_owned() };
    leader.store.set_condition(name("n1"), away).await.expect("a condition");
    leader.store.delete_node(name("n1"), false).await.expect("it runs nothing");
    assert_eq!((leader.shown("done").pod.status.phase, leader.shown("done").pod.placement.node.clone()), (Phase::Succeeded, None));
}

#[tokio::test]
async fn a_node_that_runs_pods_is_not_deleted_and_the_refusal_names_the_way() {
    let leader = Leader::with_nodes().await;
    leader.run_on("n1", pod("web", "nginx", "a")).await;
    let away = NodeCondition::NotReady { reason: "away".to_owned() };
    leader.store.set_condition(name("n1"), away).await.expect("a condition");
    let refused = refusal(leader.store.delete_node(name("n1"), false).await);
    assert_eq!((refused.code, refused.message.as_str()), (ErrorCode::Conflict, "1 pod is bound to node/n1"));
    assert!(refused.hint.is_some_and(|hint| hint.contains("`cube drain n1`") && hint.contains("--force")));
}

#[tokio::test]
async fn what_people_say_of_a_label_counts_whatever_the_node_announces() {
    let leader = Leader::start().await;
    let join = async |of: &[(&str, &str)]| {
        let announced = Announcement { labels: labels(of), ..announcement("n1", 1, "machine-1") };
        leader.store.join(announced, false).await.expect("a node that may join");
    };
    join(&[("disk", "hdd"), ("zone", "a")]).await;
    let node = leader.label("n1", &[("disk", Some("ssd")), ("zone", None), ("rack", Some("7")), ("nothing", None)]).await.expect("labels");
    assert_eq!(node.labels, labels(&[("disk", "ssd"), ("rack", "7")]));
    let leader_revision = leader.revision();
    leader.label("n1", &[("disk", Some("ssd")), ("zone", None)]).await.expect("labels");
    assert_eq!(leader.revision(), leader_revision, "it is so already");
    join(&[("disk", "hdd"), ("zone", "b"), ("nothing", "x"), ("new", "y")]).await;
    assert_eq!(leader.node("n1").labels, labels(&[("disk", "ssd"), ("new", "y"), ("nothing", "x"), ("rack", "7")]));
    assert_eq!(leader.reasons("node/n1").await, ["NodeJoined", "Relabelled"]);
    assert_eq!(leader.events("node/n1").await[1].message, "its labels are now disk=ssd,rack=7");
}

#[tokio::test]
async fn labels_that_are_none_and_too_many_of_them_are_refused() {
    let leader = Leader::with_nodes().await;
    let refused = refusal(leader.label("n1", &[("a b", Some("c")), ("d", Some("e f"))]).await);
    assert_eq!(refused.code, ErrorCode::Invalid);
    assert!(
        refused.message.contains("`a b` is no label key") && refused.message.contains("`e f` is no label value"),
        "{}",
        refused.message
    );
    let many: LabelChanges = (0..65).map(|number| (format!("k{number}"), Some(String::new()))).collect();
    assert_eq!(refusal(leader.store.label_node(name("n1"), many).await).code, ErrorCode::Invalid);
    assert_eq!(leader.node("n1").labels, Labels::new());
}

#[test]
fn a_node_of_an_older_leader_is_neither_cordoned_nor_relabelled() {
    let row = json!({
        "name": "n1", "nodeId": Uuid::from_u128(1), "role": "Follower", "capacity": {"cpu": "1", "memory": "1Gi", "pods": 10}, "version": "0.1.0",
        "createdAt": "2026-01-01T00:00:00Z", "seenAt": "2026-01-01T00:00:00Z", "condition": {"status": "Ready"}, "revision": 1,
    });
    let mut node: Node = serde_json::from_value(row).expect("a row of before");
    assert_eq!((node.cordon.clone(), node.label_changes.clone()), (None, LabelChanges::new()));
    node.cordon = Some(serde_json::from_value(json!({"since": "2026-01-01T00:00:00Z"})).expect("a cordon of before"));
    assert!(node.cordon.is_some_and(|cordon| cordon.draining().is_none()));
}
