//! Which of the nodes that fit a pod gets, by what the leader and the pod were told, and by what happened before.

use cube_api::pod::Strategy;
use cube_api::routes::EventQuery;

use super::*;

impl Leader {
    /// Applies a pod that asks for little; the node that it gets.
    async fn place(&self, pod: &str, strategy: Option<&str>) -> String {
        let container = json!({"name": "c", "image": "nginx", "resources": {"requests": {"cpu": "10m"}}});
        let manifest = json!({"metadata": {"name": pod}, "spec": {"containers": [container], "strategy": strategy}});
        let manifest = serde_json::from_value(manifest).expect("a manifest");
        let applied = self.store.apply(vec![Resource::Pod(manifest)], false).await.expect("an apply");
        let uid = applied.items[0].metadata().uid;
        self.wait_for("the pod's node", |state| is_bound(state, uid)).await;
        self.node_of(pod).expect("it is bound").to_string()
    }

    /// What the newest event of a pod with this reason says.
    async fn told(&self, pod: &str, reason: &str) -> String {
        let query = EventQuery { object: Some(format!("pod/{pod}")), ..EventQuery::default() };
        let events = self.store.events(query).await.expect("events");
        events.into_iter().rfind(|event| event.reason == reason).map(|event| event.message).unwrap_or_default()
    }
}

#[tokio::test(start_paused = true)]
async fn pods_are_placed_by_the_leaders_strategy_and_their_own_and_turns_go_on_over_passes() {
    let options = Options { strategy: Strategy::RoundRobin, ..Options::default() };
    let leader = Leader::start_in(tempfile::tempdir().expect("a temporary folder"), options).await;
    for node in ["n1", "n2", "n3"] {
        leader.connect(node, None).await;
    }
    for (pod, node) in [("a", "n1"), ("b", "n2"), ("c", "n3"), ("d", "n1")] {
        assert_eq!(leader.place(pod, None).await, node);
    }
    assert_eq!(leader.told("d", "Scheduled").await, "on node n1: next of 3 that fit (round-robin)");
    assert_eq!(leader.place("packed", Some("binpack")).await, "n1");
    assert_eq!(leader.told("packed", "Scheduled").await, "on node n1: fullest of 3 that fit (binpack)");
    assert_eq!(leader.place("e", None).await, "n2", "another's placing is no turn");
    leader.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_crash_looping_pod_that_is_replaced_goes_to_another_node_and_its_event_says_why() {
    let (leader, old) = Leader::with_a_pod_on_n1(2, "replace").await;
    leader.report(old, Phase::Failed, false, None).await;
    let new = leader.apply("web", "nginx:2", "100m").await;
    leader.report(old, Phase::Failed, true, None).await;
    leader.wait_for("the new pod's node", |state| is_bound(state, new)).await;
    assert_eq!(leader.node_of("web"), Some(name("n2")), "n1 has as few pods, and the first name");
    let reason = "on node n2: the only other one that fits; n1 was avoided: it failed there";
    assert_eq!(leader.told("web", "Scheduled").await, reason);
    leader.stop().await;
}
