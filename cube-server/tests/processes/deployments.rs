//! A leader that is killed in the middle of a rolling update.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cube_api::client::{Client, ClientError};
use cube_api::deployment::{Deployment, RolloutState};
use cube_api::meta::Uid;
use cube_api::pod::{Phase, Pod};
use cube_api::routes::{ListQuery, WatchEvent};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::rig::{BUSYBOX, Engine, Ground, name, node_ready, resources, wait_for};

const REPLICAS: usize = 4;
/// maxSurge and maxUnavailable.
const SLACK: usize = 1;

/// What a watch saw of the pods, change by change, over all lives of the leader.
#[derive(Debug)]
struct Seen {
    fewest_ready: usize,
    most_live: usize,
    /// Every pod that there was.
    met: BTreeSet<Uid>,
}

fn web(release: &str) -> Value {
    let container = json!({"name": "c", "image": BUSYBOX, "command": ["sleep", "100000"], "env": {"RELEASE": release}});
    let template = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"terminationGracePeriodSeconds": 0, "containers": [container]}});
    let strategy = json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": SLACK, "maxUnavailable": SLACK}});
    json!({"type": "deployment", "metadata": {"name": "web"}, "spec": {"replicas": REPLICAS, "strategy": strategy, "template": template}})
}

async fn deployment(client: &Client) -> Result<Deployment, String> {
    client.object::<Deployment>(&name("web")).await.map_err(|error| error.to_string())
}

fn is_rolled_out(deployment: &Deployment, revision: u64) -> bool {
    let status = &deployment.status;
    let rollout = status.rollout.as_ref().filter(|_| status.observed_generation == deployment.metadata.generation);
    let is_through = rollout.is_some_and(|rollout| rollout.revision == revision && matches!(rollout.state, RolloutState::Complete { .. }));
    is_through && [status.replicas, status.updated_replicas, status.available_replicas].map(|count| count as usize) == [REPLICAS; 3]
}

async fn rolled_out(client: &Client, revision: u64) -> Deployment {
    wait_for(&format!("revision {revision}, rolled out"), async || match deployment(client).await {
        Ok(deployment) if is_rolled_out(&deployment, revision) => Ok(deployment),
        other => Err(other),
    })
    .await
}

impl Seen {
    fn look(&mut self, pods: &BTreeMap<Uid, Pod>) {
        let has_ended = |pod: &Pod| matches!(pod.status.phase, Phase::Succeeded | Phase::Failed);
        let live = pods.values().filter(|pod| pod.metadata.deletion_requested_at.is_none() && !has_ended(pod)).count();
        self.fewest_ready = self.fewest_ready.min(pods.values().filter(|pod| pod.is_ready()).count());
        self.most_live = self.most_live.max(live);
        self.met.extend(pods.keys());
    }

    /// Follows every change until the leader is gone or it is told to stop.
    async fn follow(&mut self, client: &Client, stop: &AtomicBool) -> Result<(), ClientError> {
        let list = client.pods(&ListQuery::default()).await?;
        let mut pods: BTreeMap<Uid, Pod> = list.items.into_iter().map(|pod| (pod.metadata.uid, pod)).collect();
        self.look(&pods);
        let mut watch = client.watch_pods(None, list.revision).await?;
        while !stop.load(Ordering::Relaxed) {
            let Ok(event) = timeout(Duration::from_millis(100), watch.next()).await else { continue };
            match event? {
                WatchEvent::Added(pod) | WatchEvent::Modified(pod) => drop(pods.insert(pod.metadata.uid, pod)),
                WatchEvent::Deleted(pod) => drop(pods.remove(&pod.metadata.uid)),
                WatchEvent::Bookmark(_) => {}
            }
            self.look(&pods);
        }
        Ok(())
    }
}

async fn watch(client: Client, stop: Arc<AtomicBool>) -> Seen {
    let mut seen = Seen { fewest_ready: REPLICAS, most_live: 0, met: BTreeSet::new() };
    while !stop.load(Ordering::Relaxed) {
        if seen.follow(&client, &stop).await.is_err() {
            sleep(Duration::from_millis(2)).await;
        }
    }
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_killed_in_the_middle_of_an_update_keeps_its_bounds_ends_it_and_forgets_no_revision() {
    let ground = Ground::new();
    let engine = Engine::new();
    let mut leader = ground.leader("leader");
    leader.start_ready().await;
    let mut follower = ground.follower(engine.node(), leader.address);
    follower.start();
    let client = ground.client(leader.address);
    node_ready(&client, engine.node()).await;
    client.apply(&resources(vec![web("one")]), false).await.expect("an apply");
    rolled_out(&client, 1).await;
    let stop = Arc::new(AtomicBool::new(false));
    let watching = tokio::spawn(watch(client.clone(), stop.clone()));
    let mut in_the_middle = 0;
    for (revision, release) in [(2, "two"), (3, "three")] {
        client.apply(&resources(vec![web(release)]), false).await.expect("an apply");
        for after in [1, 2, 4] {
            let before = wait_for(&format!("{after} pods of revision {revision}"), async || match deployment(&client).await {
                Ok(deployment) if is_rolled_out(&deployment, revision) => Ok(deployment),
                Ok(deployment) => match &deployment.status.rollout {
                    Some(rollout) if rollout.revision == revision && deployment.status.updated_replicas >= after => Ok(deployment),
                    Some(_) | None => Err(Ok(deployment)),
                },
                other => Err(other),
            })
            .await;
            in_the_middle += u32::from(!is_rolled_out(&before, revision));
            leader.kill();
            leader.start_ready().await;
        }
        rolled_out(&client, revision).await;
    }
    assert!(in_the_middle >= 3, "only {in_the_middle} of the kills came before the end");
    let ended = rolled_out(&client, 3).await;
    wait_for("the pods before, gone", async || match client.pods(&ListQuery::default()).await {
        Ok(list) if list.items.len() == REPLICAS => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    stop.store(true, Ordering::Relaxed);
    let seen = watching.await.expect("it doesn't panic");
    assert!(seen.fewest_ready >= REPLICAS - SLACK && seen.most_live <= REPLICAS + SLACK, "{seen:?}");
    // Two updates made as many anew each, most of them after a kill: the bounds were watched all along.
    assert!(seen.met.len() >= 3 * REPLICAS, "{seen:?}");
    let revisions: Vec<_> = ended.history.iter().map(|revision| (revision.number, revision.verdict.is_good())).collect();
    assert_eq!(revisions, [(1, true), (2, true), (3, true)]);
    let containers = engine.containers().await;
    let running = containers.iter().filter(|container| container.container == "c" && container.running).count();
    assert_eq!(running, REPLICAS, "each pod runs once: {containers:#?}");
}
