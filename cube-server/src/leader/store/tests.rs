//! The store on real SQLite files.

mod avoid;
mod backup;
mod cordon;
mod lost;
mod model;
mod objects;
mod report;
mod space;
mod watch;
mod write;

use std::time::Duration;

use cube_api::manifest::Resource;
use cube_api::meta::{ClusterId, Name, NodeId, Uid};
use cube_api::pod::{OnNodeLoss, Phase, PodStatus, RestartPolicy};
use cube_api::routes::{ApplyAction, EventQuery};
use cube_api::session::{Announcement, PodReport, Report};
use cube_api::{Event, Pod};
use serde_json::json;
use tempfile::TempDir;
use uuid::Uuid;

use super::{Placing, Store, StoreError};
use crate::ambient::Ambient;
use crate::tasks::Tasks;

/// A store with its folder. The folder outlives restarts.
pub(super) struct Leader {
    folder: TempDir,
    tasks: Tasks,
    pub(super) store: Store,
}

impl Leader {
    pub(super) async fn start() -> Self {
        Self::start_at(Ambient::system()).await
    }

    pub(super) async fn start_at(ambient: Ambient) -> Self {
        Self::start_in(tempfile::tempdir().expect("a temporary folder"), ambient).await
    }

    async fn start_in(folder: TempDir, ambient: Ambient) -> Self {
        let tasks = Tasks::default();
        let store = Store::open(&folder.path().join("leader.db"), ambient, &tasks).await.expect("a store that opens");
        Self { folder, tasks, store }
    }

    pub(super) async fn restart(self) -> Self {
        let Self { folder, tasks, store } = self;
        drop(store);
        assert!(tasks.shut_down(Duration::from_secs(10)).await, "the writer ends when it is told to");
        Self::start_in(folder, Ambient::system()).await
    }

    /// Applies one pod; what was done, and the pod.
    pub(super) async fn apply(&self, pod: Resource) -> (ApplyAction, Pod) {
        let item = self.store.apply(vec![pod], false).await.expect("an apply that isn't refused").items.remove(0);
        (item.action, item.into_pod().expect("a pod"))
    }

    /// Applies a pod and binds it to a node.
    pub(super) async fn run_on(&self, node: &str, pod: Resource) -> Uid {
        let uid = self.apply(pod).await.1.metadata.uid;
        let bind = Placing::Bind { uid, node: name(node), reason: "it fits".to_owned() };
        self.store.place(vec![bind]).await.expect("a placing");
        uid
    }

    pub(super) async fn join(&self, node: &str, node_id: u128) {
        self.store.join(announcement(node, node_id, "machine-1"), false).await.expect("a node that may join");
    }

    /// A report of a node with nothing in it.
    pub(super) fn report(&self, node_id: u128) -> Report {
        let facts = announcement("any", node_id, "m").facts;
        Report {
            node_id: NodeId(Uuid::from_u128(node_id)),
            instance: None,
            cluster_id: self.store.cluster_id(),
            facts,
            usage: None,
            pods: Vec::new(),
            events: Vec::new(),
        }
    }

    pub(super) async fn reasons(&self, object: &str) -> Vec<String> {
        self.events(object).await.into_iter().map(|event| event.reason).collect()
    }

    pub(super) async fn events(&self, object: &str) -> Vec<Event> {
        let query = EventQuery { object: Some(object.to_owned()), ..EventQuery::default() };
        self.store.events(query).await.expect("events")
    }
}

pub(super) fn name(text: &str) -> Name {
    Name::new(text).expect("a label")
}

/// A manifest of one pod.
pub(super) fn pod(name: &str, image: &str, app: &str) -> Resource {
    let spec = json!({"containers": [{"name": "c", "image": image, "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}},
        "ports": [{"containerPort": 80, "hostPort": 8080}]}]});
    let manifest = json!({"metadata": {"name": name, "labels": {"app": app}}, "spec": spec});
    Resource::Pod(serde_json::from_value(manifest).expect("a manifest"))
}

/// The pod with `onNodeLoss: wait`.
pub(super) fn waiting(pod: Resource) -> Resource {
    let Resource::Pod(mut manifest) = pod else { panic!("a pod") };
    manifest.spec.on_node_loss = OnNodeLoss::Wait;
    Resource::Pod(manifest)
}

/// The pod with `restartPolicy: Never`.
pub(super) fn never(pod: Resource) -> Resource {
    let Resource::Pod(mut manifest) = pod else { panic!("a pod") };
    manifest.spec.restart_policy = RestartPolicy::Never;
    Resource::Pod(manifest)
}

/// The pod without its host port, so that one node may have several.
pub(super) fn portless(pod: Resource) -> Resource {
    let Resource::Pod(mut manifest) = pod else { panic!("a pod") };
    manifest.spec.containers.iter_mut().for_each(|container| container.ports.clear());
    Resource::Pod(manifest)
}

pub(super) fn announcement(node: &str, node_id: u128, machine: &str) -> Announcement {
    let capacity = json!({"cpu": "4", "memory": "4Gi", "pods": 100});
    let facts = json!({"version": "0.1.0", "engine": "20.10", "capacity": capacity});
    let text = json!({"node": node, "nodeId": Uuid::from_u128(node_id), "machineId": machine, "role": "Follower", "facts": facts});
    serde_json::from_value(text).expect("an announcement")
}

pub(super) fn pod_report(uid: Uid, sequence: u64, phase: Phase, stopped: bool) -> PodReport {
    PodReport { uid, sequence, restarts: None, status: PodStatus { phase, ..PodStatus::default() }, stopped }
}

/// The message and hint of a refusal.
pub(super) fn refusal<T: std::fmt::Debug>(result: Result<T, StoreError>) -> cube_api::ApiError {
    match result {
        Err(StoreError::Refused(error)) => error,
        other => panic!("not a refusal: {other:?}"),
    }
}

pub(super) fn other_cluster() -> ClusterId {
    ClusterId(Uuid::from_u128(99))
}
