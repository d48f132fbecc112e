//! Nodes that are drained: what runs where then, on real sessions.

use cube_api::meta::{Name, Uid};
use cube_api::node::Node;
use cube_api::pod::{Phase, Pod};
use cube_api::routes::{CordonQuery, DrainQuery};
use cube_api::{manifest, status};
use cube_server::follower::runtime::fake::Script;
use cube_server::tasks::Tasks;
use serde_json::{Value, json};

use crate::rig::{Follower, Gate, Leader, name, wait_for};

/// A leader with the followers `n0` and `n1`, which share a gate: nothing is cut here but all of it, with the leader.
struct Two {
    leader: Leader,
    followers: [Follower; 2],
    gate: Gate,
    tasks: Tasks,
}

impl Two {
    async fn start() -> Self {
        let (leader, tasks) = (Leader::start().await, Tasks::default());
        let gate = leader.gate(&tasks).await;
        let followers = [Follower::start("n0", "machine-0", &gate).await, Follower::start("n1", "machine-1", &gate).await];
        for follower in &followers {
            // Takes the whole of its grace.
            follower.fake.script("stubborn", Script { ignores_stop: true, ..Script::default() });
        }
        let two = Self { leader, followers, gate, tasks };
        for node in ["n0", "n1"] {
            two.leader.ready(node).await;
        }
        two
    }

    async fn apply(&self, pod: &str, image: &str, policies: Value) {
        let mut manifest = json!({"type": "pod", "metadata": {"name": pod}, "spec": policies});
        manifest["spec"]["containers"] = json!([{"name": "c", "image": image}]);
        let resources = manifest::from_json(manifest.to_string().as_bytes()).expect("a manifest without errors");
        self.leader.client.apply(&resources, false).await.expect("an apply that isn't refused");
    }

    /// Lets only one node take pods.
    async fn only(&self, node: &str) {
        let other = if node == "n0" { "n1" } else { "n0" };
        self.leader.client.cordon(&name(other), &CordonQuery::default()).await.expect("a cordon");
        self.leader.client.uncordon(&name(node)).await.expect("an uncordon");
    }

    async fn drain(&self, node: &str, query: DrainQuery) {
        self.leader.client.drain(&name(node), &query).await.expect("a drain");
    }

    async fn node(&self, node: &str, what: &str, is_so: impl Fn(&Node) -> bool) -> Node {
        wait_for(what, async || match self.leader.client.node(&name(node)).await {
            Ok(node) if is_so(&node) => Ok(node),
            other => Err(format!("{other:?}")),
        })
        .await
    }

    async fn drained(&self, node: &str) {
        self.node(node, "a node that is drained", is_drained).await;
    }

    async fn pod(&self, pod: &str, what: &str, is_so: impl Fn(&Pod) -> bool) -> Pod {
        wait_for(what, async || match self.leader.client.pod(&name(pod)).await {
            Ok(pod) if is_so(&pod) => Ok(pod),
            other => Err(format!("{other:?}")),
        })
        .await
    }

    fn starts(&self, place: usize, uid: Uid) -> u32 {
        self.followers[place].fake.starts(uid, Some(&name("c")))
    }

    async fn stop(self) {
        for follower in &self.followers {
            follower.stop().await;
        }
        self.leader.stop().await;
        assert!(self.tasks.shut_down(std::time::Duration::from_secs(30)).await, "the gate doesn't end");
    }
}

fn is_drained(node: &Node) -> bool {
    node.cordon.as_ref().and_then(|cordon| cordon.drain.as_ref()).is_some_and(|drain| drain.finished_at.is_some())
}

fn left(node: &Node) -> Vec<(Name, Option<String>)> {
    let drain = node.cordon.as_ref().and_then(|cordon| cordon.drain.as_ref());
    let left = drain.into_iter().flat_map(|drain| &drain.left);
    left.map(|pod| (pod.name.clone(), pod.step.reason().map(str::to_owned))).collect()
}

fn runs_on(pod: &Pod, node: &str) -> bool {
    pod.placement.node == Some(name(node)) && pod.status.phase == Phase::Running
}

#[tokio::test]
async fn a_drained_nodes_pods_run_elsewhere_and_nothing_of_them_is_left_there() {
    let two = Two::start().await;
    two.only("n0").await;
    let pods = [("web", json!({})), ("db", json!({"onNodeLoss": "wait"})), ("batch", json!({"restartPolicy": "OnFailure"}))];
    let mut old = Vec::new();
    for (pod, policies) in &pods {
        two.apply(pod, "app", policies.clone()).await;
        old.push(two.leader.phase(pod, Phase::Running).await.metadata.uid);
    }
    two.leader.client.uncordon(&name("n1")).await.expect("an uncordon");
    two.drain("n0", DrainQuery::default()).await;
    two.drained("n0").await;
    assert_eq!(two.followers[0].fake.everything().len(), 0, "no container, and no sandbox");
    for ((pod, _), old) in pods.iter().zip(old) {
        let new = two.pod(pod, "the new pod, running", |pod| runs_on(pod, "n1")).await;
        assert_ne!(new.metadata.uid, old);
        assert_eq!((two.starts(0, old), two.starts(1, new.metadata.uid), two.starts(1, old)), (1, 1, 0));
    }
    assert_eq!(status::of_node(&two.node("n0", "the node", |_| true).await), "Ready,Cordoned");
    two.stop().await;
}

#[tokio::test]
async fn a_leader_that_is_restarted_in_the_middle_of_a_drain_goes_on_with_it() {
    let mut two = Two::start().await;
    two.only("n0").await;
    two.apply("slow", "stubborn", json!({"terminationGracePeriodSeconds": 600})).await;
    two.apply("job", "app", json!({"restartPolicy": "Never"})).await;
    let slow = two.leader.phase("slow", Phase::Running).await.metadata.uid;
    let job = two.leader.phase("job", Phase::Running).await.metadata.uid;
    two.leader.client.uncordon(&name("n1")).await.expect("an uncordon");
    two.drain("n0", DrainQuery::default()).await;
    let is_said = |node: &Node| left(node).len() == 2 && two.starts(1, slow) == 0;
    let node = two.node("n0", "a drain in the middle", is_said).await;
    let reason = "restartPolicy Never: it would not be run again, so its end is waited for".to_owned();
    assert_eq!(left(&node), [(name("slow"), None), (name("job"), Some(reason))]);
    two.leader = two.leader.restart(&two.gate).await;
    two.leader.ready("n0").await;
    two.leader.ready("n1").await;
    assert_eq!(two.node("n0", "the node", |_| true).await.cordon.map(|cordon| cordon.since), node.cordon.map(|cordon| cordon.since));
    assert_eq!(two.leader.client.pod(&name("slow")).await.expect("the new one").placement.node, None, "the old one hasn't stopped");
    // A shorter grace, and by force.
    two.drain("n0", DrainQuery { grace_seconds: Some(0), force: true, ..DrainQuery::default() }).await;
    two.drained("n0").await;
    let given_up = two.leader.client.pod(&name("job")).await.expect("a pod");
    assert_eq!((given_up.status.phase, given_up.status.reason.as_deref()), (Phase::Failed, Some("Drained")));
    two.pod("slow", "the new pod, running", |pod| runs_on(pod, "n1")).await;
    assert_eq!((two.starts(0, slow), two.starts(0, job)), (1, 1));
    assert_eq!(two.followers[0].fake.everything().len(), 0);
    let again = two.leader.client.restart_pod(&name("job")).await.expect("a restart");
    two.pod("job", "the job, running", |pod| runs_on(pod, "n1") && pod.metadata.uid == again.metadata.uid).await;
    two.stop().await;
}
