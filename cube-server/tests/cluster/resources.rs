//! What the leader shows of a node's machine.

use cube_api::node::{Capacity, LoadAverage, Usage};
use cube_api::quantity::{Bytes, MilliCpu};
use cube_api::routes::ListQuery;
use cube_server::tasks::Tasks;

use crate::rig::{Follower, Leader, name, wait_for};

const GI: u64 = 1 << 30;

/// Waits until the leader shows this use.
async fn shows(leader: &Leader, usage: Option<Usage>) {
    wait_for(&format!("{usage:?}"), async || match leader.client.node(&name("n1")).await {
        Ok(node) if node.usage == usage => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
}

#[tokio::test]
async fn a_nodes_use_is_shown_while_it_is_connected_and_is_no_change_of_the_node() {
    let tasks = Tasks::default();
    let leader = Leader::start().await;
    let gate = leader.gate(&tasks).await;
    let follower = Follower::start_measured("n1", &gate).await;
    leader.ready("n1").await;
    let before = leader.client.nodes(&ListQuery::default()).await.expect("a list");
    let used =
        Usage { cpu: MilliCpu(1_000), memory: Bytes(2 * GI), disk: Bytes(70), load: Some(LoadAverage { hundredths: [120, 80, 40] }) };
    shows(&leader, Some(used)).await;
    let list = leader.client.nodes(&ListQuery::default()).await.expect("a list");
    assert_eq!(list.items[0].usage, Some(used));
    assert_eq!(list.revision, before.revision, "nothing was stored for it, and nobody who waits for changes was woken");
    gate.cut(false);
    shows(&leader, None).await;
    gate.cut(true);
    shows(&leader, Some(used)).await;
    let leader = leader.restart(&gate).await;
    shows(&leader, Some(used)).await;
    follower.stop().await;
    leader.stop().await;
}

#[tokio::test]
async fn what_a_node_keeps_back_is_not_given_to_pods() {
    let tasks = Tasks::default();
    let leader = Leader::start().await;
    let gate = leader.gate(&tasks).await;
    let follower = Follower::start_measured("n1", &gate).await;
    leader.ready("n1").await;
    let node = leader.client.node(&name("n1")).await.expect("the node");
    let capacity = Capacity { cpu: MilliCpu(4_000), memory: Bytes(8 * GI), disk: Bytes(100 * GI), pods: 100 };
    let allocatable = Capacity { cpu: MilliCpu(3_900), memory: Bytes(8 * GI - (256 << 20)), disk: Bytes(90 * GI), pods: 100 };
    assert_eq!((node.capacity, node.allocatable), (capacity, allocatable));
    for (pod, requests, why) in [
        ("cpu", r#"{"cpu": "3901m"}"#, "lacks cpu (need 3901m)"),
        ("memory", r#"{"memory": "7937Mi"}"#, "lacks memory (need 7937Mi)"),
        ("disk", r#"{"disk": "92161Mi"}"#, "lacks disk (need 92161Mi)"),
    ] {
        leader.apply_text(&manifest(pod, requests)).await;
        wait_for(&format!("why {pod} waits"), async || {
            let waits = leader.client.pod(&name(pod)).await.expect("the pod").placement.waiting_for;
            if waits.as_deref().is_some_and(|waits| waits.contains(why)) { Ok(()) } else { Err(waits) }
        })
        .await;
    }
    leader.apply_text(&manifest("all", r#"{"cpu": "3900m", "memory": "7936Mi", "disk": "90Gi"}"#)).await;
    leader.phase("all", cube_api::pod::Phase::Running).await;
    let node = leader.client.node(&name("n1")).await.expect("the node");
    assert_eq!((node.reserved_cpu, node.reserved_memory, node.reserved_disk), (allocatable.cpu, allocatable.memory, allocatable.disk));
    follower.stop().await;
    leader.stop().await;
}

fn manifest(pod: &str, requests: &str) -> String {
    format!(
        r#"[{{"type": "pod", "metadata": {{"name": "{pod}"}},
            "spec": {{"containers": [{{"name": "c", "image": "app", "resources": {{"requests": {requests}}}}}]}}}}]"#
    )
}
