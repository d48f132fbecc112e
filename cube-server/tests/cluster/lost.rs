//! Nodes that are cut off for longer than the leader's patience, and what runs where then and afterwards.

use std::time::Duration;

use cube_api::ErrorCode;
use cube_api::manifest;
use cube_api::meta::Uid;
use cube_api::pod::{Phase, Pod};
use cube_api::routes::{DeleteNodeQuery, DeleteQuery, EventQuery, ListQuery};
use cube_api::status;
use cube_server::leader::control;
use cube_server::tasks::Tasks;
use serde_json::json;

use crate::rig::{Follower, Gate, Leader, name, wait_for};

/// A leader that is not patient, with followers that each have a way of their own to it.
struct Partitioned {
    leader: Leader,
    followers: Vec<(Follower, Gate)>,
    tasks: Tasks,
}

impl Partitioned {
    /// So many followers, `n0` and on.
    async fn start(followers: usize) -> Self {
        let impatient = control::Options {
            not_ready_after: Duration::from_millis(200),
            lost_after: Some(Duration::from_millis(600)),
            check_nodes_every: Duration::from_millis(50),
            ..control::Options::default()
        };
        let (leader, tasks) = (Leader::start_with(impatient).await, Tasks::default());
        let mut cluster = Self { leader, followers: Vec::new(), tasks };
        for index in 0..followers {
            let gate = cluster.leader.gate(&cluster.tasks).await;
            let follower = Follower::start(&format!("n{index}"), &format!("machine-{index}"), &gate).await;
            cluster.followers.push((follower, gate));
            cluster.leader.ready(&format!("n{index}")).await;
        }
        cluster
    }

    /// Applies a pod `web` with one container `c`; the pod and the place of its node, once it runs.
    async fn run(&self, policies: serde_json::Value) -> (Pod, usize) {
        self.apply("app", policies).await;
        let pod = self.leader.phase("web", Phase::Running).await;
        let place = self.place(&pod);
        (pod, place)
    }

    async fn apply(&self, image: &str, policies: serde_json::Value) {
        let mut pod = json!({"type": "pod", "metadata": {"name": "web"}, "spec": policies});
        pod["spec"]["containers"] = json!([{"name": "c", "image": image}]);
        let resources = manifest::from_json(pod.to_string().as_bytes()).expect("a manifest without errors");
        self.leader.client.apply(&resources, false).await.expect("an apply that isn't refused");
    }

    /// The place of a pod's node.
    fn place(&self, pod: &Pod) -> usize {
        let node = pod.placement.node.as_ref().expect("it has a node").to_string();
        node.trim_start_matches('n').parse().expect("a number")
    }

    fn gate(&self, place: usize) -> &Gate {
        &self.followers[place].1
    }

    /// How often the container of a pod was started on a node.
    fn starts(&self, place: usize, uid: Uid) -> u32 {
        self.followers[place].0.fake.starts(uid, Some(&name("c")))
    }

    /// The pod of the name, once it is as it should be.
    async fn pod(&self, what: &str, is_so: impl Fn(&Pod) -> bool) -> Pod {
        wait_for(what, async || match self.leader.client.pod(&name("web")).await {
            Ok(pod) if is_so(&pod) => Ok(pod),
            other => Err(format!("{other:?}")),
        })
        .await
    }

    async fn reason(&self, place: usize, part: &str) {
        wait_for(part, async || match self.leader.client.node(&name(&format!("n{place}"))).await {
            Ok(node) if node.condition.reason().is_some_and(|reason| reason.contains(part)) => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
    }

    /// Waits until nothing of a pod is left on a node.
    async fn gone_from(&self, place: usize, uid: Uid) {
        let fake = &self.followers[place].0.fake;
        wait_for("a node without the pod", async || match fake.everything() {
            all if all.iter().any(|container| container.identity.uid == uid) => Err(all),
            _ => Ok(()),
        })
        .await;
    }

    async fn stop(self) {
        for (follower, _) in &self.followers {
            follower.stop().await;
        }
        self.leader.stop().await;
        assert!(self.tasks.shut_down(Duration::from_secs(30)).await, "the gates don't end");
    }
}

#[tokio::test]
async fn a_pod_of_a_node_that_is_cut_off_runs_elsewhere_and_only_there_when_the_node_is_back() {
    let cluster = Partitioned::start(2).await;
    let (old, place) = cluster.run(json!({})).await;
    let (old, elsewhere) = (old.metadata.uid, 1 - place);
    cluster.gate(place).cut(false);
    let new = cluster.pod("the new pod, running", |pod| pod.metadata.uid != old && pod.status.phase == Phase::Running).await;
    assert_eq!((cluster.place(&new), new.metadata.generation), (elsewhere, 2));
    cluster.gate(place).cut(true);
    cluster.gone_from(place, old).await;
    wait_for("the old one's end", async || {
        let events = cluster.leader.client.events(&EventQuery { object: Some("pod/web".to_owned()), ..EventQuery::default() }).await;
        let events = events.expect("events").items;
        if events.iter().any(|event| event.uid == Some(old) && event.reason == "Stopped") { Ok(()) } else { Err(events) }
    })
    .await;
    let listed = cluster.leader.client.pods(&ListQuery::default()).await.expect("a list").items;
    assert_eq!(listed.iter().map(|pod| pod.metadata.uid).collect::<Vec<_>>(), [new.metadata.uid]);
    assert_eq!((cluster.starts(place, old), cluster.starts(elsewhere, new.metadata.uid)), (1, 1));
    cluster.stop().await;
}

#[tokio::test]
async fn a_pod_that_waits_for_its_node_runs_nowhere_else_and_the_node_goes_on_with_it() {
    let cluster = Partitioned::start(2).await;
    let (pod, place) = cluster.run(json!({"onNodeLoss": "wait"})).await;
    let uid = pod.metadata.uid;
    cluster.gate(place).cut(false);
    let lost = cluster.pod("a pod whose node is lost", |pod| status::of_pod(pod) == "NodeLost").await;
    assert_eq!(lost.metadata.uid, uid);
    let forced = DeleteQuery { grace_seconds: None, force: true };
    let refused = cluster.leader.client.delete_pod(&name("web"), &forced).await.expect_err("it may run");
    assert_eq!(refused.code(), Some(ErrorCode::Conflict));
    assert!(cluster.followers[1 - place].0.fake.everything().is_empty());
    cluster.gate(place).cut(true);
    cluster.pod("the same pod, running", |pod| pod.metadata.uid == uid && status::of_pod(pod) == "Running").await;
    assert_eq!((cluster.starts(place, uid), cluster.starts(1 - place, uid)), (1, 0), "its container never stopped");
    cluster.stop().await;
}

#[tokio::test]
async fn a_changed_pod_that_waits_for_its_node_starts_after_the_old_one_has_stopped_there() {
    let cluster = Partitioned::start(2).await;
    let (old, place) = cluster.run(json!({"onNodeLoss": "wait"})).await;
    cluster.gate(place).cut(false);
    cluster.pod("a pod whose node is lost", |pod| status::of_pod(pod) == "NodeLost").await;
    cluster.apply("app", json!({"onNodeLoss": "wait", "terminationGracePeriodSeconds": 1})).await;
    let held = cluster.pod("the reason", |pod| pod.placement.waiting_for.is_some()).await;
    assert!(held.placement.waiting_for.is_some_and(|reason| reason.contains("cube delete node/")), "it says how it is freed");
    cluster.gate(place).cut(true);
    cluster.pod("the new pod, running", |pod| pod.metadata.uid == held.metadata.uid && pod.status.phase == Phase::Running).await;
    cluster.gone_from(place, old.metadata.uid).await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_pod_that_is_never_restarted_is_not_run_again_after_its_node_was_lost() {
    let cluster = Partitioned::start(2).await;
    let (old, place) = cluster.run(json!({"restartPolicy": "Never"})).await;
    let old = old.metadata.uid;
    cluster.gate(place).cut(false);
    let failed = cluster.pod("a failed pod", |pod| pod.status.phase == Phase::Failed).await;
    assert_eq!(status::of_pod(&failed), "NodeLost");
    cluster.gate(place).cut(true);
    cluster.gone_from(place, old).await;
    assert_eq!(cluster.pod("it", |_| true).await.status.phase, Phase::Failed);
    assert_eq!((cluster.starts(place, old), cluster.starts(1 - place, failed.metadata.uid)), (1, 0));
    cluster.leader.client.restart_pod(&name("web")).await.expect("a restart");
    cluster.leader.phase("web", Phase::Running).await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_leader_that_loses_most_of_its_nodes_at_once_moves_nothing() {
    let cluster = Partitioned::start(3).await;
    let (pod, place) = cluster.run(json!({})).await;
    let uid = pod.metadata.uid;
    let other = (place + 1) % 3;
    cluster.gate(place).cut(false);
    cluster.gate(other).cut(false);
    cluster.reason(place, "2 of 3 nodes fell silent at once").await;
    cluster.reason(other, "2 of 3 nodes fell silent at once").await;
    for place in [place, other] {
        cluster.gate(place).cut(true);
        cluster.leader.ready(&format!("n{place}")).await;
    }
    cluster.pod("the same pod", |pod| pod.metadata.uid == uid && pod.status.phase == Phase::Running).await;
    assert_eq!((0..3).map(|place| cluster.starts(place, uid)).sum::<u32>(), 1);
    cluster.stop().await;
}

#[tokio::test]
async fn a_node_that_was_declared_dead_and_is_not_stops_what_others_have_now() {
    let cluster = Partitioned::start(2).await;
    let (old, place) = cluster.run(json!({"onNodeLoss": "wait"})).await;
    let old = old.metadata.uid;
    cluster.gate(place).cut(false);
    cluster.pod("a pod whose node is lost", |pod| status::of_pod(pod) == "NodeLost").await;
    let node = name(&format!("n{place}"));
    cluster.leader.client.delete_node(&node, &DeleteNodeQuery { force: true }).await.expect("a forced delete");
    let new = cluster.pod("the new pod, running", |pod| pod.metadata.uid != old && pod.status.phase == Phase::Running).await;
    assert_eq!(cluster.place(&new), 1 - place);
    cluster.gate(place).cut(true);
    cluster.leader.ready(&format!("n{place}")).await;
    cluster.gone_from(place, old).await;
    assert_eq!(cluster.starts(1 - place, new.metadata.uid), 1);
    cluster.stop().await;
}
