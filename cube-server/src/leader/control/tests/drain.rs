//! Nodes that are drained, under paused time.

use cube_api::node::{Drain, DrainStep};
use cube_api::routes::{CordonQuery, DrainQuery};

use super::*;

impl Leader {
    /// Drains `n1`.
    async fn drain(&self, query: DrainQuery) {
        self.store.drain_node(name("n1"), query).await.expect("a drain");
    }

    /// `n1` and others, and pods of so much cpu each on it.
    async fn with_pods(others: &[&str], pods: &[(&str, &str, &str)]) -> (Self, Vec<Uid>) {
        let leader = Self::start().await;
        leader.connect("n1", None).await;
        let mut uids = Vec::new();
        for (pod, cpu, on_node_loss) in pods {
            let uid = leader.apply_with(pod, "nginx", cpu, on_node_loss).await;
            leader.wait_for("the pod's node", |state| is_bound(state, uid)).await;
            uids.push(uid);
        }
        for other in others {
            leader.connect(other, None).await;
        }
        (leader, uids)
    }

    async fn stops(&self, uid: Uid) -> Duration {
        self.wait_for("a pod that is told to stop", |state| state.pods[&uid].retired.is_some()).await
    }

    async fn drained(&self) -> Duration {
        self.wait_for("the drain's end", |state| drain_of(state).is_some_and(|drain| drain.finished_at.is_some())).await
    }
}

fn drain_of(state: &State) -> Option<&Drain> {
    state.nodes.get(&name("n1"))?.cordon.as_ref()?.drain.as_ref()
}

fn step(state: &State, uid: Uid) -> Option<DrainStep> {
    Some(drain_of(state)?.left.iter().find(|pod| pod.uid == uid)?.step.clone())
}

fn stays(state: &State, uid: Uid, why: &str) -> bool {
    step(state, uid).is_some_and(|step| step.reason().is_some_and(|reason| reason.contains(why)))
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_waits_is_placed_by_the_uncordon_and_no_timer() {
    let leader = Leader::start().await;
    leader.connect("n1", None).await;
    leader.store.cordon_node(name("n1"), CordonQuery::default()).await.expect("a cordon");
    let uid = leader.apply("web", "nginx", "100m").await;
    leader.wait_for("the reason", |state| waiting_for(state, uid) == "0/1 nodes fit: 1 is cordoned").await;
    leader.store.uncordon_node(name("n1")).await.expect("an uncordon");
    let passed = leader.wait_for("the pod's node", |state| is_bound(state, uid)).await;
    assert!(passed < Duration::from_millis(100), "{passed:?}");
    leader.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_waits_is_placed_by_the_label_that_it_selects_and_no_timer() {
    let leader = Leader::start().await;
    leader.connect("n1", None).await;
    let spec = json!({"containers": [{"name": "c", "image": "nginx"}], "nodeSelector": {"disk": "ssd"}});
    let manifest = serde_json::from_value(json!({"metadata": {"name": "web"}, "spec": spec})).expect("a manifest");
    let applied = leader.store.apply(vec![Resource::Pod(manifest)], false).await.expect("an apply");
    let uid = applied.items[0].metadata().uid;
    leader.wait_for("the reason", |state| waiting_for(state, uid) == "0/1 nodes fit: 1 lacks the labels disk=ssd").await;
    let changes = [("disk".to_owned(), Some("ssd".to_owned()))].into_iter().collect();
    leader.store.label_node(name("n1"), changes).await.expect("a label");
    let passed = leader.wait_for("the pod's node", |state| is_bound(state, uid)).await;
    assert!(passed < Duration::from_millis(100), "{passed:?}");
    leader.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_drained_nodes_pods_begin_elsewhere_once_they_have_stopped_and_the_drain_ends_by_itself() {
    let (leader, uids) = Leader::with_pods(&["n2"], &[("web", "100m", "replace"), ("db", "100m", "wait")]).await;
    leader.drain(DrainQuery::default()).await;
    for uid in &uids {
        let asked = leader.stops(*uid).await;
        assert!(asked < Duration::from_millis(100), "no timer stands before it: {asked:?}");
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!((leader.node_of("web"), leader.node_of("db")), (None, None), "the old ones may still run");
    leader.report(uids[0], Phase::Failed, true, None).await;
    let elsewhere = |state: &State| state.standing(&name("web")).is_some_and(|row| row.pod.placement.node == Some(name("n2")));
    let began = leader.began.elapsed();
    let placed = leader.wait_for("the new pod's node", elsewhere).await;
    assert!(placed - began < Duration::from_millis(100), "{placed:?} after {began:?}");
    assert_eq!(leader.store.read(|state| step(state, uids[1])), Some(DrainStep::Stopping { grace_seconds: 30 }));
    leader.report(uids[1], Phase::Failed, true, None).await;
    leader.drained().await;
    assert!(leader.store.read(|state| state.nodes[&name("n1")].cordon.is_some()));
    leader.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_no_other_node_takes_runs_on_until_there_is_room() {
    let (leader, uids) = Leader::with_pods(&["n2"], &[("web", "900m", "replace")]).await;
    let other = leader.apply("other", "nginx", "200m").await;
    leader.wait_for("the other pod's node", |state| is_bound(state, other)).await;
    assert_eq!(leader.node_of("other"), Some(name("n2")));
    leader.drain(DrainQuery::default()).await;
    let full = "no other node takes it: 0/2 nodes fit: 1 is cordoned, 1 lacks cpu (need 900m)";
    leader.wait_for("the reason", |state| stays(state, uids[0], full)).await;
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    assert!(leader.store.read(|state| state.pods[&uids[0]].retired.is_none()));
    let began = leader.began.elapsed();
    leader.connect("n3", None).await;
    let passed = leader.stops(uids[0]).await - began;
    assert!(passed < Duration::from_millis(200), "{passed:?}");
    leader.stop().await;
}

#[tokio::test(start_paused = true)]
async fn room_that_a_pod_on_its_way_will_take_is_not_promised_again() {
    let (leader, uids) = Leader::with_pods(&["n2"], &[("a", "400m", "replace"), ("b", "400m", "replace")]).await;
    let other = leader.apply("other", "nginx", "200m").await;
    leader.wait_for("the other pod's node", |state| is_bound(state, other)).await;
    leader.drain(DrainQuery::default()).await;
    leader.stops(uids[0]).await;
    leader.stops(uids[1]).await;
    leader.stop().await;

    let (leader, uids) = Leader::with_pods(&["n2"], &[("a", "450m", "replace"), ("b", "450m", "replace")]).await;
    let other = leader.apply("other", "nginx", "200m").await;
    leader.wait_for("the other pod's node", |state| is_bound(state, other)).await;
    leader.drain(DrainQuery::default()).await;
    leader.stops(uids[0]).await;
    leader.wait_for("the reason", |state| stays(state, uids[1], "1 lacks cpu (need 450m)")).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(leader.store.read(|state| state.pods[&uids[1]].retired.is_none()), "while the first stops its room is spoken for");
    leader.drain(DrainQuery { force: true, ..DrainQuery::default() }).await;
    leader.stops(uids[1]).await;
    leader.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_drain_goes_on_after_the_leader_was_restarted_in_the_middle() {
    let (leader, uids) = Leader::with_pods(&["n2"], &[("web", "100m", "replace"), ("big", "900m", "replace")]).await;
    let other = leader.apply("other", "nginx", "200m").await;
    leader.wait_for("the other pod's node", |state| is_bound(state, other)).await;
    leader.drain(DrainQuery::default()).await;
    leader.stops(uids[0]).await;
    leader.wait_for("the reason", |state| stays(state, uids[1], "no other node takes it")).await;
    let leader = Leader::start_in(leader.stop().await, Options::default()).await;
    for node in ["n1", "n2", "n3"] {
        leader.connect(node, None).await;
    }
    leader.stops(uids[1]).await;
    for uid in uids {
        leader.report(uid, Phase::Failed, true, None).await;
    }
    leader.drained().await;
    leader.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_uncordon_calls_the_drain_off() {
    let (leader, uids) = Leader::with_pods(&[], &[("web", "100m", "replace")]).await;
    leader.drain(DrainQuery::default()).await;
    leader.wait_for("the reason", |state| stays(state, uids[0], "0/1 nodes fit: 1 is cordoned")).await;
    leader.store.uncordon_node(name("n1")).await.expect("an uncordon");
    leader.connect("n2", None).await;
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    assert!(leader.store.read(|state| state.pods[&uids[0]].retired.is_none()));
    leader.stop().await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_stopped_on_a_node_that_has_no_session_until_it_has_one() {
    let (leader, uids) = Leader::with_pods(&["n2"], &[("web", "100m", "wait")]).await;
    tokio::time::sleep(Duration::from_secs(100)).await;
    leader.disconnect("n1");
    leader.drain(DrainQuery { force: true, ..DrainQuery::default() }).await;
    leader.wait_for("the reason", |state| stays(state, uids[0], "node n1 isn't connected")).await;
    leader.wait_for("the loss", |state| state.nodes[&name("n1")].condition.is_lost()).await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(leader.store.read(|state| state.pods[&uids[0]].retired.is_none()));
    leader.connect("n1", None).await;
    leader.stops(uids[0]).await;
    leader.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_must_not_run_twice_does_not_though_its_node_is_lost_while_it_stops() {
    let (leader, uids) = Leader::with_pods(&["n2"], &[("db", "100m", "wait"), ("web", "100m", "replace")]).await;
    tokio::time::sleep(Duration::from_secs(100)).await;
    leader.drain(DrainQuery::default()).await;
    leader.stops(uids[0]).await;
    leader.stops(uids[1]).await;
    leader.disconnect("n1");
    let elsewhere = |state: &State| state.standing(&name("web")).is_some_and(|row| row.pod.placement.node == Some(name("n2")));
    leader.wait_for("the other pod's node", elsewhere).await;
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    assert_eq!(leader.node_of("db"), None);
    leader.connect("n1", None).await;
    leader.report(uids[0], Phase::Failed, true, None).await;
    leader.wait_for("a node for it", |state| state.standing(&name("db")).is_some_and(|row| row.pod.placement.node.is_some())).await;
    leader.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_restored_leader_knows_the_drain_and_stops_nothing_before_it_places_pods() {
    let (leader, uids) = Leader::with_pods(&["n2"], &[("web", "900m", "replace")]).await;
    let other = leader.apply("other", "nginx", "200m").await;
    leader.wait_for("the other pod's node", |state| is_bound(state, other)).await;
    leader.drain(DrainQuery::default()).await;
    leader.wait_for("the reason", |state| stays(state, uids[0], "no other node takes it")).await;
    let leader = leader.restored().await;
    for node in ["n1", "n2", "n3"] {
        leader.connect(node, None).await;
    }
    leader.wait_for("the reason", |state| stays(state, uids[0], "restored from a backup and places nothing yet")).await;
    let passed = leader.stops(uids[0]).await;
    assert!((15..=17).contains(&passed.as_secs()), "{passed:?}");
    leader.stop().await;
}
