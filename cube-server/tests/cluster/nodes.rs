//! Nodes that come, come again and shouldn't come.

use cube_api::ErrorCode;
use cube_api::pod::Phase;
use cube_api::routes::{EventQuery, LogQuery};
use cube_server::tasks::Tasks;

use crate::rig::{Cluster, Follower, Leader, name, wait_for};

#[tokio::test]
async fn a_session_that_is_cut_is_replaced_and_the_newest_one_carries_the_assignments() {
    let cluster = Cluster::start().await;
    for round in 0..3 {
        cluster.gate.cut(true);
        let pod = format!("web-{round}");
        cluster.leader.apply(&[(&pod, "app")]).await;
        cluster.leader.phase(&pod, Phase::Running).await;
    }
    cluster.stop().await;
}

#[tokio::test]
async fn a_follower_of_one_cluster_does_not_obey_the_leader_of_another_one() {
    let Cluster { leader, follower, gate, .. } = Cluster::start().await;
    leader.apply(&[("web", "app")]).await;
    let uid = leader.phase("web", Phase::Running).await.metadata.uid;
    let other = Leader::start().await;
    // The same token, the same address, an empty database.
    other.take(&gate);
    wait_for("the end of the session", async || if leader.nodes.is_live(&name("n1")) { Err(()) } else { Ok(()) }).await;
    let refused = wait_for_dial(&other, &follower).await;
    assert!(!refused, "the other leader has taken the node");
    assert_eq!(follower.fake.starts(uid, Some(&name("c"))), 1);
    leader.take(&gate);
    leader.ready("n1").await;
    wait_for("the session", async || if leader.nodes.is_live(&name("n1")) { Ok(()) } else { Err(()) }).await;
    assert!(follower.fake.everything().iter().all(|container| container.identity.uid == uid));
    assert_eq!(follower.fake.starts(uid, Some(&name("c"))), 1);
    follower.stop().await;
    leader.stop().await;
    other.stop().await;
}

/// Lets the follower dial for a while; whether the other leader has it then.
async fn wait_for_dial(other: &Leader, _: &Follower) -> bool {
    let until = tokio::time::Instant::now() + std::time::Duration::from_secs(2);
    while tokio::time::Instant::now() < until {
        if other.nodes.is_live(&name("n1")) {
            return true;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    false
}

#[tokio::test]
async fn a_second_machine_does_not_get_the_name_of_one_that_is_connected() {
    let cluster = Cluster::start().await;
    let first = cluster.leader.client.node(&name("n1")).await.expect("the node");
    let tasks = Tasks::default();
    let gate = cluster.leader.gate(&tasks).await;
    let second = Follower::start("n1", "machine-2", &gate).await;
    cluster.leader.apply(&[("web", "app")]).await;
    let uid = cluster.leader.phase("web", Phase::Running).await.metadata.uid;
    assert_eq!(cluster.leader.client.node(&name("n1")).await.expect("the node").node_id, first.node_id);
    assert_eq!((cluster.follower.fake.starts(uid, Some(&name("c"))), second.fake.starts(uid, Some(&name("c")))), (1, 0));
    second.stop().await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_node_that_is_away_is_not_ready_and_its_logs_are_not_to_be_had() {
    let cluster = Cluster::start().await;
    let client = &cluster.leader.client;
    cluster.leader.apply(&[("web", "app")]).await;
    cluster.leader.phase("web", Phase::Running).await;
    cluster.gate.cut(false);
    let error = wait_for("a refusal", async || match client.logs(&name("web"), &LogQuery::default()).await {
        Err(error) => Ok(error),
        Ok(_) => Err("logs"),
    })
    .await;
    assert_eq!(error.code(), Some(ErrorCode::NodeUnavailable), "{error}");
    assert!(error.to_string().contains("n1") && error.hint().is_some(), "{error}");
    wait_for("the node, not ready", async || match client.node(&name("n1")).await {
        Ok(node) if !node.condition.is_ready() => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    let events = client.events(&EventQuery { object: Some("node/n1".to_owned()), ..EventQuery::default() }).await.expect("events");
    assert!(events.items.iter().any(|event| event.reason == "NodeNotReady"), "{events:?}");
    cluster.stop().await;
}
