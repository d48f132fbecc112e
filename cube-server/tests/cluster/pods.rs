//! Pods from the apply to the engine and back.

use cube_api::ErrorCode;
use cube_api::meta::Revision;
use cube_api::pod::Phase;
use cube_api::routes::{DeleteQuery, ListQuery, WatchEvent};
use cube_server::tasks::Tasks;

use crate::rig::{Cluster, Follower, Leader, name, pods, soon, wait_for};

#[tokio::test]
async fn a_watcher_sees_an_applied_pod_run_and_a_deleted_one_go() {
    let cluster = Cluster::start().await;
    let client = &cluster.leader.client;
    let from: Revision = client.pods(&ListQuery::default()).await.expect("a list").revision;
    let mut watch = client.watch_pods(None, from).await.expect("a watch");
    cluster.leader.apply(&[("web", "app")]).await;
    let mut phases = Vec::new();
    while phases.last() != Some(&Phase::Running) {
        match soon("a running pod", watch.next()).await.expect("a watch that goes on") {
            WatchEvent::Added(pod) | WatchEvent::Modified(pod) => phases.push(pod.status.phase),
            WatchEvent::Deleted(pod) => panic!("deleted: {pod:?}"),
            WatchEvent::Bookmark(_) => {}
        }
    }
    assert!(phases.iter().all(|phase| matches!(phase, Phase::Pending | Phase::Running)), "{phases:?}");
    client.delete_pod(&name("web"), &DeleteQuery::default()).await.expect("a deletion");
    loop {
        match soon("the end of the pod", watch.next()).await.expect("a watch that goes on") {
            WatchEvent::Deleted(pod) => break assert_eq!(pod.metadata.name, name("web")),
            WatchEvent::Added(pod) => panic!("added: {pod:?}"),
            WatchEvent::Modified(_) | WatchEvent::Bookmark(_) => {}
        }
    }
    assert_eq!(client.pod(&name("web")).await.expect_err("it is gone").code(), Some(ErrorCode::NotFound));
    wait_for("an engine without containers", async || match cluster.follower.fake.everything() {
        left if left.is_empty() => Ok(()),
        left => Err(left),
    })
    .await;
    cluster.stop().await;
}

#[tokio::test]
async fn two_followers_share_the_pods_and_each_runs_its_own_only() {
    let tasks = Tasks::default();
    let leader = Leader::start().await;
    let gate = leader.gate(&tasks).await;
    let followers = [Follower::start("n1", "machine-1", &gate).await, Follower::start("n2", "machine-2", &gate).await];
    leader.ready("n1").await;
    leader.ready("n2").await;
    let names = ["a", "b", "c", "d"];
    leader.apply(&names.map(|name| (name, "app"))).await;
    let mut placed = Vec::new();
    for pod in names {
        let pod = leader.phase(pod, Phase::Running).await;
        placed.push(pod.placement.node.clone().expect("a running pod has a node"));
        let runs = |follower: &Follower| follower.fake.starts(pod.metadata.uid, Some(&name("c")));
        let here = usize::from(pod.placement.node == Some(name("n2")));
        assert_eq!((runs(&followers[here]), runs(&followers[1 - here])), (1, 0));
    }
    placed.sort();
    assert_eq!(placed, ["n1", "n1", "n2", "n2"].map(name), "spread");
    for follower in &followers {
        follower.stop().await;
    }
    leader.stop().await;
    assert!(tasks.shut_down(std::time::Duration::from_secs(10)).await);
}

#[tokio::test]
async fn a_leader_that_restarts_has_its_follower_back_and_nothing_is_restarted() {
    let Cluster { leader, follower, gate, .. } = Cluster::start().await;
    leader.apply(&[("web", "app")]).await;
    let uid = leader.phase("web", Phase::Running).await.metadata.uid;
    let leader = leader.restart(&gate).await;
    wait_for("the follower's session", async || if leader.nodes.live().contains_key(&name("n1")) { Ok(()) } else { Err(()) }).await;
    // The whole way works again, and what ran runs on.
    leader.apply(&[("later", "app")]).await;
    leader.phase("later", Phase::Running).await;
    let pod = leader.phase("web", Phase::Running).await;
    assert_eq!((pod.metadata.uid, follower.fake.starts(uid, Some(&name("c"))), follower.fake.starts(uid, None)), (uid, 1, 1));
    follower.stop().await;
    leader.stop().await;
}

#[tokio::test]
async fn a_manifest_that_is_too_large_is_refused_with_words_and_not_by_a_reset() {
    let leader = Leader::start().await;
    let names: Vec<String> = (0..15_000).map(|i| format!("web-{i}")).collect();
    let part = pods(&names.iter().map(|name| (name.as_str(), "app")).collect::<Vec<_>>());
    let large: Vec<_> = std::iter::repeat_n(part, 4).flatten().collect();
    let error = leader.client.apply(&large, false).await.expect_err("it is over 4 MiB");
    assert_eq!(error.code(), Some(ErrorCode::TooLarge), "{error}");
    leader.stop().await;
}
