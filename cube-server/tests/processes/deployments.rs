//! A leader that is killed in the middle of a rolling update.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use cube_api::client::Client;
use cube_api::deployment::{Deployment, RolloutState};
use cube_api::meta::Uid;
use cube_api::pod::{Phase, Pod};
use cube_api::routes::{ListQuery, WatchEvent};
use serde_json::{Value, json};

use crate::rig::{BUSYBOX, Engine, Ground, Server, name, resources, wait_for};

const REPLICAS: usize = 4;
/// maxSurge and maxUnavailable.
const SLACK: usize = 1;

/// What a watch saw of the pods, change by change, over all lives of the leader.
#[derive(Debug)]
struct Seen {
    pods: BTreeMap<Uid, Pod>,
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
    fn look(&mut self) {
        let has_ended = |pod: &Pod| matches!(pod.status.phase, Phase::Succeeded | Phase::Failed);
        let live = self.pods.values().filter(|pod| pod.metadata.deletion_requested_at.is_none() && !has_ended(pod)).count();
        self.fewest_ready = self.fewest_ready.min(self.pods.values().filter(|pod| pod.is_ready()).count());
        self.most_live = self.most_live.max(live);
        self.met.extend(self.pods.keys());
    }

    fn begin(&mut self, pods: Vec<Pod>) {
        self.pods = pods.into_iter().map(|pod| (pod.metadata.uid, pod)).collect();
        self.look();
    }

    fn take(&mut self, event: WatchEvent<Pod>) {
        match event {
            WatchEvent::Added(pod) | WatchEvent::Modified(pod) => drop(self.pods.insert(pod.metadata.uid, pod)),
            WatchEvent::Deleted(pod) => drop(self.pods.remove(&pod.metadata.uid)),
            WatchEvent::Bookmark(_) => {}
        }
        self.look();
    }
}

/// Follows every change, for ever: the watch comes back after each kill by itself, and is begun anew where the leader has forgotten too much.
async fn watch(client: &Client, seen: &RefCell<Seen>) {
    loop {
        let list = wait_for("a list of pods", async || client.pods(&ListQuery::default()).await).await;
        seen.borrow_mut().begin(list.items);
        let Ok(mut watch) = client.watch_pods(None, list.revision).await else { continue };
        while let Ok(event) = watch.next().await {
            seen.borrow_mut().take(event);
        }
    }
}

/// Two updates, with a kill after the first, the second and the last new pod of each; how many of the kills came before the update's end.
async fn updates(client: &Client, leader: &mut Server, seen: &RefCell<Seen>) -> u32 {
    let mut in_the_middle = 0;
    for (revision, release) in [(2, "two"), (3, "three")] {
        client.apply(&resources(vec![web(release)]), false).await.expect("an apply");
        for after in [1, 2, 4] {
            let before = wait_for(&format!("{after} pods of revision {revision}"), async || match deployment(client).await {
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
        rolled_out(client, revision).await;
    }
    wait_for("a watch that saw the end", async || {
        let seen = seen.borrow();
        let is_at_the_end = seen.pods.len() == REPLICAS && seen.met.len() >= 3 * REPLICAS;
        if is_at_the_end { Ok(()) } else { Err(format!("{} pods, {} in all", seen.pods.len(), seen.met.len())) }
    })
    .await;
    in_the_middle
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_killed_in_the_middle_of_an_update_keeps_its_bounds_ends_it_and_forgets_no_revision() {
    let ground = Ground::new();
    let engine = Engine::new();
    let (mut leader, _follower, client) = ground.cluster(&engine).await;
    client.apply(&resources(vec![web("one")]), false).await.expect("an apply");
    rolled_out(&client, 1).await;
    let seen = RefCell::new(Seen { pods: BTreeMap::new(), fewest_ready: REPLICAS, most_live: 0, met: BTreeSet::new() });
    let in_the_middle = tokio::select! {
        () = watch(&client, &seen) => unreachable!("it watches for ever"),
        kills = updates(&client, &mut leader, &seen) => kills,
    };
    assert!(in_the_middle >= 3, "only {in_the_middle} of the kills came before the end");
    let seen = seen.into_inner();
    assert!(seen.fewest_ready >= REPLICAS - SLACK && seen.most_live <= REPLICAS + SLACK, "{seen:?}");
    // Two updates made as many anew each, and no kill made one twice.
    assert_eq!(seen.met.len(), 3 * REPLICAS, "{seen:?}");
    let ended = rolled_out(&client, 3).await;
    let revisions: Vec<_> = ended.history.iter().map(|revision| (revision.number, revision.verdict.is_good())).collect();
    assert_eq!(revisions, [(1, true), (2, true), (3, true)]);
    let containers = engine.containers().await;
    let running = containers.iter().filter(|container| container.container == "c" && container.running).count();
    assert_eq!(running, REPLICAS, "each pod runs once: {containers:#?}");
}
