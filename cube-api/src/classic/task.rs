//! A pod as a task.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::words::{Empty, PortKey, RestartWord, State};
use super::{TASK_ID, TASK_NAME};
use crate::meta::Labels;
use crate::pod::{ContainerState, Pod, Port};

/// A task as it is answered. Of a pod with several containers the amounts and counts are those of all together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Task {
    /// The UUID that it was asked for with, else one that the leader made; the uid of a pod that was not asked for as a task. It stays when another
    /// pod takes the pod's place.
    #[serde(rename = "ID")]
    pub id: String,
    /// Docker's id of the (first) container; empty until there is one.
    #[serde(rename = "ContainerID")]
    pub container_id: String,
    /// As it was asked for.
    pub name: String,
    /// What it does.
    pub state: State,
    /// Of several containers all, with a comma between.
    pub image: String,
    /// The cores that are kept free for it.
    #[serde(rename = "CPU")]
    pub cpu: f64,
    /// The bytes of memory that are kept free for it.
    pub memory: u64,
    /// The bytes of disk that are kept free for it.
    pub disk: u64,
    /// What its containers listen on.
    pub exposed_ports: BTreeMap<PortKey, Empty>,
    /// The ports of the node that were asked for.
    pub port_bindings: BTreeMap<PortKey, String>,
    /// When it is started again: `no`, `always`, `on-failure`.
    pub restart_policy: String,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// The newest time that is known of it.
    pub updated_at: Timestamp,
    /// When all of it had been started for the first time.
    pub starts_at: Option<Timestamp>,
    /// When it completed or failed.
    pub finished_at: Option<Timestamp>,
    /// The path that is asked, periodically; empty: none.
    pub health_check: String,
    /// Starts beyond the first, those for a failed health check too.
    pub restart_count: u64,
    /// The ports of the node that it has.
    pub host_ports: BTreeMap<PortKey, Vec<HostBinding>>,
}

/// A port of a node that leads to a task, as Docker's API writes it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct HostBinding {
    /// The node's address that it is on; `0.0.0.0` for all.
    pub host_ip: String,
    /// A number as a text.
    pub host_port: String,
}

impl Task {
    /// The pod as a task.
    pub fn of(pod: &Pod) -> Self {
        let (spec, status) = (&pod.spec, &pod.status);
        let ports = || spec.containers.iter().flat_map(|container| &container.ports);
        let images: Vec<&str> = spec.containers.iter().map(|container| container.image.as_str()).collect();
        let resources = || spec.containers.iter().map(|container| &container.resources);
        Self {
            id: Self::id_of(pod),
            container_id: status.containers.first().and_then(|container| container.container_id.clone()).unwrap_or_default(),
            name: Self::name_of(pod),
            state: State::of(pod),
            image: images.join(","),
            cpu: resources().map(|resources| resources.reserved_cpu().0).sum::<u64>() as f64 / 1_000.0,
            memory: resources().map(|resources| resources.reserved_memory().0).sum(),
            disk: resources().map(|resources| resources.reserved_disk().0).sum(),
            exposed_ports: ports().map(|port| (PortKey::of(port), Empty {})).collect(),
            port_bindings: ports().filter_map(|port| Some((PortKey::of(port), asked_for(port)?.to_string()))).collect(),
            restart_policy: RestartWord(spec.restart_policy).as_str().to_owned(),
            created_at: pod.metadata.created_at,
            updated_at: newest_time(pod),
            starts_at: status.started_at,
            finished_at: status.finished_at,
            health_check: health_check(pod),
            restart_count: status.containers.iter().map(|container| u64::from(container.restart_count)).sum(),
            host_ports: host_ports(pod),
        }
    }

    /// The ID of the pod as a task.
    pub fn id_of(pod: &Pod) -> String {
        Self::label(&pod.metadata.labels, TASK_ID).map_or_else(|| pod.metadata.uid.to_string(), str::to_owned)
    }

    /// The name of the pod as a task.
    pub fn name_of(pod: &Pod) -> String {
        Self::label(&pod.metadata.labels, TASK_NAME).unwrap_or_else(|| pod.metadata.name.as_str()).to_owned()
    }

    fn label<'a>(labels: &'a Labels, key: &str) -> Option<&'a str> {
        labels.get(key).map(String::as_str)
    }
}

/// The node's port that a manifest names; none where any will do.
fn asked_for(port: &Port) -> Option<u16> {
    port.host_port.filter(|number| *number != 0)
}

fn newest_time(pod: &Pod) -> Timestamp {
    let containers = pod.status.containers.iter().filter_map(|container| match &container.state {
        ContainerState::Waiting(_) => None,
        ContainerState::Running(running) => Some(running.started_at),
        ContainerState::Terminated(end) => end.finished_at,
    });
    let last_ends = pod.status.containers.iter().filter_map(|container| container.last_termination.as_ref()?.finished_at);
    let own = [pod.placement.bound_at, pod.status.started_at, pod.status.finished_at, pod.metadata.deletion_requested_at];
    containers.chain(last_ends).chain(own.into_iter().flatten()).max().unwrap_or_default().max(pod.metadata.created_at)
}

/// For each ID the shortest beginning, of at least 8 characters, that no other one has.
pub fn short_ids(ids: &[String]) -> Vec<String> {
    let mut sorted: Vec<&str> = ids.iter().map(String::as_str).collect();
    sorted.sort_unstable();
    let common = |a: &str, b: &str| a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count();
    let shortest = |id: &str| {
        let place = sorted.partition_point(|other| *other < id);
        let before = place.checked_sub(1).map_or(0, |before| common(sorted[before], id));
        let after = sorted.get(place + 1).map_or(0, |after| common(after, id));
        (before.max(after) + 1).max(8)
    };
    ids.iter().map(|id| id.get(..shortest(id)).unwrap_or(id).to_owned()).collect()
}

/// The path of the first liveness probe that is a GET.
fn health_check(pod: &Pod) -> String {
    let path = pod.spec.containers.iter().find_map(|container| Some(container.liveness_probe.as_ref()?.http_get.as_ref()?.path.clone()));
    path.unwrap_or_default()
}

/// Those that its node publishes, as it says: the ones that were asked for by number, and the free ones that it chose.
fn host_ports(pod: &Pod) -> BTreeMap<PortKey, Vec<HostBinding>> {
    let mut published = BTreeMap::<PortKey, Vec<HostBinding>>::new();
    for port in &pod.status.host_ports {
        let key = PortKey { number: port.container_port, protocol: port.protocol };
        let host_ip = port.host_ip.map_or_else(|| "0.0.0.0".to_owned(), |ip| ip.to_string());
        published.entry(key).or_default().push(HostBinding { host_ip, host_port: port.host_port.to_string() });
    }
    published
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn pod(status: serde_json::Value) -> Pod {
        let container = |name: &str, image: &str| {
            json!({"name": name, "image": image, "ports": [{"containerPort": 80, "hostPort": 8080}, {"containerPort": 53, "protocol": "UDP"}],
                "resources": {"limits": {"cpu": "250m", "memory": "64Mi"}, "requests": {"disk": "1Gi"}}})
        };
        let mut containers = [container("a", "one:1"), container("b", "two:1")];
        containers[1]["ports"] = json!([{"containerPort": 443, "hostPort": 8443, "hostIP": "127.0.0.1"}]);
        containers[1]["livenessProbe"] = json!({"httpGet": {"path": "/health", "port": 443}});
        serde_json::from_value(json!({
            "metadata": {"name": "web", "uid": "00000000-0000-4000-8000-000000000001", "generation": 1, "revision": 1, "createdAt": "2026-01-01T00:00:00Z"},
            "spec": {"containers": containers}, "placement": {"node": "n1", "boundAt": "2026-01-01T00:00:01Z"}, "status": status,
        }))
        .expect("a pod")
    }

    #[test]
    fn a_pod_of_several_containers_is_one_task_with_all_of_them() {
        let state = |restarts: u32, at: &str| json!({"name": "a", "image": "one:1", "containerID": "c0ffee", "restartCount": restarts, "state": {"running": {"startedAt": at}}});
        let containers = [state(1, "2026-01-01T00:00:05Z"), state(2, "2026-01-01T00:00:07Z")];
        let task = Task::of(&pod(json!({"phase": "Running", "startedAt": "2026-01-01T00:00:05Z", "containers": containers, "hostPorts": [
            {"container": "a", "containerPort": 80, "hostPort": 30001},
            {"container": "b", "containerPort": 443, "hostIP": "127.0.0.1", "hostPort": 8443},
        ]})));
        assert_eq!(
            (task.id.as_str(), task.name.as_str(), task.image.as_str()),
            ("00000000-0000-4000-8000-000000000001", "web", "one:1,two:1")
        );
        assert_eq!((task.cpu, task.memory, task.disk, task.restart_count), (0.5, 128 << 20, 2 << 30, 3));
        assert_eq!((task.container_id.as_str(), task.health_check.as_str(), task.restart_policy.as_str()), ("c0ffee", "/health", "always"));
        assert_eq!(task.updated_at.to_string(), "2026-01-01T00:00:07Z");
        let ports = |ports: &BTreeMap<PortKey, Vec<HostBinding>>| serde_json::to_value(ports).expect("plain data");
        assert_eq!(
            ports(&task.host_ports),
            json!({"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "30001"}], "443/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8443"}]})
        );
        assert_eq!(serde_json::to_value(&task.exposed_ports).expect("plain data"), json!({"80/tcp": {}, "53/udp": {}, "443/tcp": {}}));
        assert_eq!(serde_json::to_value(&task.port_bindings).expect("plain data"), json!({"80/tcp": "8080", "443/tcp": "8443"}));
    }

    #[test]
    fn a_task_is_in_one_of_the_five_states() {
        let state = |phase: &str| State::of(&pod(json!({"phase": phase})));
        assert_eq!(
            ["Pending", "Running", "Succeeded", "Failed"].map(state),
            [State::Scheduled, State::Running, State::Completed, State::Failed]
        );
        let mut unplaced = pod(json!({}));
        unplaced.placement.node = None;
        assert_eq!(State::of(&unplaced), State::Pending);
        assert!(Task::of(&unplaced).host_ports.is_empty());
    }

    #[test]
    fn short_ids_have_eight_digits_or_as_many_as_tell_them_apart() {
        let ids = ["bb1d59ef-9fc1", "bb1d59ef-9fd0", "aa1d59ef-9fc1", "x"].map(str::to_owned);
        assert_eq!(short_ids(&ids), ["bb1d59ef-9fc", "bb1d59ef-9fd", "aa1d59ef", "x"]);
    }

    proptest! {
        #[test]
        fn a_short_id_is_the_beginning_of_its_own_id_only(ids in proptest::collection::btree_set("[ab]{9,14}", 0..12)) {
            let ids: Vec<String> = ids.into_iter().map(|id| format!("{id}!")).collect();
            for (id, short) in ids.iter().zip(short_ids(&ids)) {
                prop_assert!(id.starts_with(&short));
                prop_assert_eq!(ids.iter().filter(|other| other.starts_with(&short)).count(), 1);
            }
        }
    }
}
