//! Deployments on real sessions: what runs while they are rolled out, rolled back, drained and deleted, and over a leader's restart.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cube_api::client::Client;
use cube_api::deployment::{Deployment, RolloutState};
use cube_api::event::EventKind;
use cube_api::manifest;
use cube_api::meta::{ResourceKind, ResourceRef, Uid};
use cube_api::pod::{Phase, Pod};
use cube_api::routes::{CordonQuery, DeleteQuery, DrainQuery, EventQuery, ListQuery, RolloutAction, RolloutQuery, ScaleQuery, WatchEvent};
use cube_server::follower::runtime::fake::Script;
use cube_server::tasks::Tasks;
use serde_json::{Value, json};

use crate::rig::{Follower, Gate, Leader, name, wait_for};

/// A leader with the followers `n0` and `n1`, whose engines know the images `app`, `newer` and `broken`.
struct Two {
    leader: Leader,
    followers: [Follower; 2],
    gate: Gate,
    tasks: Tasks,
}

fn web(replicas: u32, image: &str, more: &Value) -> Value {
    let template = json!({"metadata": {"labels": {"app": "web"}},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [{"name": "c", "image": image}]}});
    let mut web = json!({"type": "deployment", "metadata": {"name": "web"}, "spec": {"replicas": replicas, "template": template}});
    for (key, value) in more.as_object().into_iter().flatten() {
        web["spec"][key] = value.clone();
    }
    web
}

impl Two {
    async fn start() -> Self {
        let (leader, tasks) = (Leader::start().await, Tasks::default());
        let gate = leader.gate(&tasks).await;
        let followers = [Follower::start("n0", "machine-0", &gate).await, Follower::start("n1", "machine-1", &gate).await];
        for follower in &followers {
            follower.fake.script("newer", Script::default());
            follower.fake.script("broken", Script { run_for: Some(Duration::ZERO), exit_code: 3, ..Script::default() });
        }
        let two = Self { leader, followers, gate, tasks };
        for node in ["n0", "n1"] {
            two.leader.ready(node).await;
        }
        two
    }

    async fn apply(&self, manifest: &Value) {
        let resources = manifest::from_json(manifest.to_string().as_bytes()).expect("a manifest without errors");
        self.leader.client.apply(&resources, false).await.expect("an apply that isn't refused");
    }

    async fn deployment(&self, what: &str, is_so: impl Fn(&Deployment) -> bool) -> Deployment {
        wait_for(what, async || match self.leader.client.object::<Deployment>(&name("web")).await {
            Ok(deployment) if is_so(&deployment) => Ok(deployment),
            other => Err(format!("{other:?}")),
        })
        .await
    }

    /// Waits until all is of a revision, and available.
    async fn complete(&self, revision: u64) -> Deployment {
        self.deployment(&format!("revision {revision}, rolled out"), |deployment| is_complete(deployment, revision)).await
    }

    async fn pods(&self) -> Vec<Pod> {
        pods(&self.leader.client).await
    }

    async fn events(&self) -> Vec<(EventKind, String, String)> {
        let query = EventQuery { object: Some("deployment/web".to_owned()), ..EventQuery::default() };
        let events = self.leader.client.events(&query).await.expect("its events").items;
        events.into_iter().map(|event| (event.kind, event.reason, event.message)).collect()
    }

    async fn rollout(&self, action: RolloutAction) {
        self.leader.client.rollout(&name("web"), action, &RolloutQuery::default()).await.expect("it isn't refused");
    }

    async fn stop(self) {
        for follower in &self.followers {
            follower.stop().await;
        }
        self.leader.stop().await;
        assert!(self.tasks.shut_down(Duration::from_secs(30)).await, "the gate doesn't end");
    }
}

fn is_complete(deployment: &Deployment, revision: u64) -> bool {
    let (status, wanted) = (&deployment.status, deployment.spec.replicas());
    let rollout = status.rollout.as_ref().filter(|_| status.observed_generation == deployment.metadata.generation);
    let is_through = rollout.is_some_and(|rollout| rollout.revision == revision && matches!(rollout.state, RolloutState::Complete { .. }));
    is_through && (status.replicas, status.updated_replicas, status.available_replicas) == (wanted, wanted, wanted)
}

async fn pods(client: &Client) -> Vec<Pod> {
    let query = ListQuery { selector: Some("cube.io/deployment=web".to_owned()), ..ListQuery::default() };
    client.pods(&query).await.expect("a list").items
}

fn uids(pods: &[Pod]) -> Vec<Uid> {
    let mut uids: Vec<_> = pods.iter().map(|pod| pod.metadata.uid).collect();
    uids.sort();
    uids
}

/// What a watcher saw of a deployment's pods, change by change.
#[derive(Debug, Default)]
struct Seen {
    fewest_ready: usize,
    most_live: usize,
    /// Pods that ended before they had been shown as Terminating.
    surprised: Vec<String>,
}

/// Follows every change of the pods until it is told to stop.
async fn watch(client: Client, stop: Arc<AtomicBool>) -> Seen {
    let list = client.pods(&ListQuery::default()).await.expect("a list");
    let mut live: BTreeMap<Uid, Pod> = list.items.into_iter().map(|pod| (pod.metadata.uid, pod)).collect();
    let mut watch = client.watch_pods(None, list.revision).await.expect("a watch");
    let ready = |live: &BTreeMap<Uid, Pod>| live.values().filter(|pod| pod.is_ready()).count();
    let mut seen = Seen { fewest_ready: ready(&live), most_live: live.len(), surprised: Vec::new() };
    while !stop.load(Ordering::Relaxed) {
        let Ok(event) = tokio::time::timeout(Duration::from_millis(200), watch.next()).await else { continue };
        match event.expect("a watch that goes on") {
            WatchEvent::Added(pod) | WatchEvent::Modified(pod) => {
                if let Some(before) = live.insert(pod.metadata.uid, pod.clone())
                    && before.is_ready()
                    && !pod.is_ready()
                    && pod.metadata.deletion_requested_at.is_none()
                {
                    seen.surprised.push(pod.metadata.name.to_string());
                }
            }
            WatchEvent::Deleted(pod) => drop(live.remove(&pod.metadata.uid)),
            WatchEvent::Bookmark(_) => {}
        }
        seen.fewest_ready = seen.fewest_ready.min(ready(&live));
        seen.most_live = seen.most_live.max(live.values().filter(|pod| pod.metadata.deletion_requested_at.is_none()).count());
    }
    seen
}

#[tokio::test]
async fn an_update_keeps_enough_ready_never_has_too_many_and_shows_each_pod_terminating_before_it_stops() {
    let two = Two::start().await;
    two.apply(&web(4, "app", &json!({}))).await;
    two.complete(1).await;
    let old = two.pods().await;
    assert!(old.iter().all(|pod| pod.metadata.name.as_str().starts_with("web-1-")), "{old:?}");
    let stop = Arc::new(AtomicBool::new(false));
    let watching = tokio::spawn(watch(two.leader.client.clone(), stop.clone()));
    two.apply(&web(4, "newer", &json!({}))).await;
    two.complete(2).await;
    wait_for("the old ones, gone", async || match two.pods().await {
        pods if pods.len() == 4 => Ok(()),
        pods => Err(pods.len()),
    })
    .await;
    stop.store(true, Ordering::Relaxed);
    let seen = watching.await.expect("it doesn't panic");
    assert!(seen.fewest_ready >= 3 && seen.most_live <= 5 && seen.surprised.is_empty(), "{seen:?}");
    let now = two.pods().await;
    assert!(now.iter().all(|pod| pod.metadata.labels["cube.io/revision"] == "2" && pod.spec.containers[0].image == "newer"));

    two.rollout(RolloutAction::Restart).await;
    two.complete(3).await;
    two.rollout(RolloutAction::Undo).await;
    two.complete(2).await;
    two.stop().await;
}

#[tokio::test]
async fn an_image_that_fails_is_rolled_back_with_its_reason_and_the_old_pods_are_the_same_as_before() {
    let two = Two::start().await;
    two.apply(&web(3, "app", &json!({}))).await;
    two.complete(1).await;
    let before = uids(&two.pods().await);
    two.apply(&web(3, "broken", &json!({"progressDeadlineSeconds": 3}))).await;
    let rolled_back = two.complete(1).await;
    wait_for("the failed ones, gone", async || match uids(&two.pods().await) {
        now if now == before => Ok(()),
        now => Err(now.len()),
    })
    .await;
    let events = two.events().await;
    let (_, _, message) = events.iter().find(|(_, reason, _)| reason == "RolledBack").unwrap_or_else(|| panic!("{events:?}"));
    assert!(message.starts_with("rolled back to revision 1: revision 2 made no progress in 3s: 1 pod "), "{message}");
    assert!(message.contains("exit 3"), "{message}");
    assert_eq!(rolled_back.wanted().and_then(|wanted| wanted.verdict.failure()).map(|why| why.starts_with("made no progress")), Some(true));

    two.apply(&web(3, "broken", &json!({"progressDeadlineSeconds": 3}))).await;
    let same = two.deployment("the same", |_| true).await;
    assert_eq!(same.metadata.generation, rolled_back.metadata.generation, "nothing is tried again by an apply of the same");
    two.stop().await;
}

#[tokio::test]
async fn a_leader_that_is_restarted_in_the_middle_of_a_rollout_goes_on_with_it() {
    let mut two = Two::start().await;
    two.apply(&web(6, "app", &json!({}))).await;
    two.complete(1).await;
    two.apply(&web(6, "newer", &json!({}))).await;
    two.deployment("a rollout in the middle", |deployment| (1..6).contains(&deployment.status.updated_replicas)).await;
    two.leader = two.leader.restart(&two.gate).await;
    two.complete(2).await;
    wait_for("six pods, each once", async || match two.pods().await {
        pods if pods.len() == 6 && pods.iter().all(|pod| pod.metadata.labels["cube.io/revision"] == "2") => Ok(()),
        pods => Err(pods.len()),
    })
    .await;
    two.stop().await;
}

#[tokio::test]
async fn a_drained_nodes_pods_are_replaced_elsewhere_before_they_go() {
    let two = Two::start().await;
    two.apply(&web(4, "app", &json!({}))).await;
    two.complete(1).await;
    let stop = Arc::new(AtomicBool::new(false));
    let watching = tokio::spawn(watch(two.leader.client.clone(), stop.clone()));
    two.leader.client.drain(&name("n0"), &DrainQuery::default()).await.expect("a drain");
    wait_for("a node that is drained", async || {
        let node = two.leader.client.node(&name("n0")).await.expect("a node");
        let drain = node.cordon.and_then(|cordon| cordon.drain).expect("it is drained");
        if drain.finished_at.is_some() { Ok(()) } else { Err(drain) }
    })
    .await;
    two.complete(1).await;
    stop.store(true, Ordering::Relaxed);
    let seen = watching.await.expect("it doesn't panic");
    assert!(seen.fewest_ready >= 3 && seen.most_live <= 5, "{seen:?}");
    assert!(two.pods().await.iter().all(|pod| pod.placement.node == Some(name("n1"))));
    two.stop().await;
}

#[tokio::test]
async fn a_drain_says_what_the_deployment_waits_for_while_no_other_node_takes_its_pods() {
    let two = Two::start().await;
    two.apply(&web(2, "app", &json!({}))).await;
    two.complete(1).await;
    two.leader.client.cordon(&name("n1"), &CordonQuery::default()).await.expect("a cordon");
    two.leader.client.drain(&name("n0"), &DrainQuery::default()).await.expect("a drain");
    let drain = async || {
        let node = two.leader.client.node(&name("n0")).await.expect("a node");
        node.cordon.and_then(|cordon| cordon.drain).expect("it is drained")
    };
    let reason = wait_for("the reason", async || {
        let drain = drain().await;
        let reason = drain.left.first().and_then(|pod| pod.step.reason()).filter(|reason| reason.contains("Unschedulable"));
        reason.map(str::to_owned).ok_or(drain)
    })
    .await;
    let begin = "deployment/web takes it away once another is available in its place: 1 pod Unschedulable (0/2 nodes";
    assert!(reason.starts_with(begin), "{reason}");
    two.leader.client.uncordon(&name("n1")).await.expect("an uncordon");
    wait_for("the drain's end", async || {
        let drain = drain().await;
        if drain.finished_at.is_some() { Ok(()) } else { Err(drain) }
    })
    .await;
    two.stop().await;
}

#[tokio::test]
async fn it_keeps_its_number_through_scales_and_deletes_and_leaves_what_is_not_its_own() {
    let two = Two::start().await;
    two.leader.apply_text(r#"{"type": "pod", "metadata": {"name": "stray", "labels": {"app": "web", "cube.io/deployment": "web", "cube.io/revision": "1"}},
        "spec": {"containers": [{"name": "c", "image": "app"}]}}"#).await;
    two.apply(&web(2, "app", &json!({}))).await;
    two.complete(1).await;
    let own = |pods: Vec<Pod>| pods.into_iter().filter(|pod| pod.metadata.owner.is_some()).collect::<Vec<_>>();
    let gone = own(two.pods().await)[0].clone();
    two.leader.client.delete_pod(&gone.metadata.name, &DeleteQuery::default()).await.expect("a delete");
    wait_for("another in its place", async || {
        let now = own(two.pods().await);
        let is_so = now.len() == 2 && now.iter().all(|pod| pod.metadata.uid != gone.metadata.uid && pod.status.phase == Phase::Running);
        if is_so { Ok(()) } else { Err(now.len()) }
    })
    .await;
    two.leader.client.scale(&name("web"), &ScaleQuery { replicas: 5 }).await.expect("a scale");
    two.complete(1).await;
    let mut without = web(5, "app", &json!({}));
    without["spec"].as_object_mut().expect("a map").remove("replicas");
    two.apply(&without).await;
    two.complete(1).await;
    assert_eq!(own(two.pods().await).len(), 5, "an apply that says no number leaves it");
    two.leader.client.scale(&name("web"), &ScaleQuery { replicas: 0 }).await.expect("a scale");
    wait_for("none", async || if own(two.pods().await).is_empty() { Ok(()) } else { Err(()) }).await;

    two.leader.client.scale(&name("web"), &ScaleQuery { replicas: 2 }).await.expect("a scale");
    two.complete(1).await;
    let reference = ResourceRef { kind: ResourceKind::Deployment, name: name("web") };
    two.leader.client.delete_object(&reference, &DeleteQuery::default()).await.expect("a delete");
    wait_for("its end", async || {
        let there = two.leader.client.object::<Deployment>(&name("web")).await.is_ok();
        let own = own(two.pods().await);
        assert!(there || own.is_empty(), "the row goes last");
        if there { Err(own.len()) } else { Ok(()) }
    })
    .await;
    assert_eq!(two.pods().await.len(), 1, "the stray one isn't its own");
    two.stop().await;
}
