//! A cluster whose leader is restored from a backup that knows less than its nodes.

use cube_api::pod::Phase;
use cube_server::leader::store::{backup, restore};
use cube_server::tasks::Tasks;
use jiff::Timestamp;

use crate::rig::{Follower, Leader, name, wait_for};

#[tokio::test]
async fn a_pod_that_was_placed_after_the_backup_runs_on_where_it_is_and_nowhere_else() {
    let (tasks, folder) = (Tasks::default(), tempfile::tempdir().expect("a temporary folder"));
    let leader = Leader::start().await;
    let (gate, other_gate) = (leader.gate(&tasks).await, leader.gate(&tasks).await);
    leader.apply(&[("web", "app")]).await;
    let file = folder.path().join("backup.db");
    let contents = backup::take(&leader.database(), &file, false).expect("a backup");
    assert_eq!((contents.pods, contents.nodes), (1, 0), "it knows the pod, and no node");
    let follower = Follower::start("n1", "machine-1", &gate).await;
    let uid = leader.phase("web", Phase::Running).await.metadata.uid;
    leader.apply(&[("later", "app")]).await;
    let later = leader.phase("later", Phase::Running).await.metadata.uid;
    let other = Follower::start("n2", "machine-2", &other_gate).await;
    leader.ready("n2").await;

    // The node that runs it is the last to come back.
    gate.cut(false);
    let bring_back = |database: &std::path::Path| {
        restore::restore(&file, contents, database, Timestamp::now()).expect("a restore");
    };
    let leader = leader.restart_after(&other_gate, bring_back).await;
    leader.ready("n2").await;
    let client = &leader.client;
    wait_for("the reason", async || match client.pod(&name("web")).await {
        Ok(pod) if pod.placement.waiting_for.as_ref().is_some_and(|reason| reason.contains("restored from a backup")) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    leader.take(&gate);
    let web = leader.phase("web", Phase::Running).await;
    assert_eq!((web.metadata.uid, web.placement.node), (uid, Some(name("n1"))));
    wait_for("the end of the pod that the backup doesn't know", async || {
        let left = follower.fake.everything();
        if left.iter().any(|container| container.identity.uid == later) { Err(left) } else { Ok(()) }
    })
    .await;
    let starts = (follower.fake.starts(uid, Some(&name("c"))), other.fake.starts(uid, Some(&name("c"))));
    assert_eq!(starts, (1, 0), "the container was not touched");
    follower.stop().await;
    other.stop().await;
    leader.stop().await;
    assert!(tasks.shut_down(std::time::Duration::from_secs(10)).await, "the gates don't end");
}
