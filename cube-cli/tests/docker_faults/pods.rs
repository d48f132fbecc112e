//! What a test looks for in a pod, and in its containers on the engine.

use serde_json::{Value, json};

use crate::cluster::{BUSYBOX, Cluster, PATIENCE, wait_for};

/// A pod of busybox containers by name, each with a shell script; they stop within a second.
pub fn pod(name: &str, containers: &[(&str, &str)]) -> Value {
    let containers: Vec<_> =
        containers.iter().map(|(name, script)| json!({ "name": name, "image": BUSYBOX, "command": ["sh", "-c", script] })).collect();
    json!({ "type": "pod", "metadata": { "name": name }, "spec": { "terminationGracePeriodSeconds": 1, "containers": containers } })
}

/// A script that says that it started and runs until it is told to stop.
pub const RUNS: &str = "echo started; trap 'exit 143' TERM; sleep 1000 & wait";

/// How often a pod's container was restarted; 0 where nothing is reported of it yet.
pub fn restarts(pod: &Value, container: &str) -> u64 {
    status(pod, container)["restartCount"].as_u64().unwrap_or(0)
}

/// A container's part of the status; null where nothing is reported of it yet.
pub fn status<'a>(pod: &'a Value, container: &str) -> &'a Value {
    let mut all = pod["status"]["containers"].as_array().into_iter().flatten();
    all.find(|status| status["name"] == container).unwrap_or(&Value::Null)
}

/// A container as the engine shows it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Found {
    /// Empty for the sandbox.
    pub container: String,
    pub attempt: u32,
    pub state: String,
    pub id: String,
}

/// Every container of a pod, ended ones and the sandbox too, in order.
pub fn found(cluster: &Cluster, pod: &str) -> Vec<Found> {
    let filter = format!("label=io.cube.pod.name={pod}");
    let format = "{{.Label \"io.cube.container\"}}|{{.Label \"io.cube.attempt\"}}|{{.State}}|{{.ID}}";
    let listed = cluster.docker(["ps", "-a", "--no-trunc", "--filter", &filter, "--format", format]);
    let ours = cluster.all_containers();
    let mut all: Vec<_> = listed
        .lines()
        .filter_map(|line| match line.split('|').collect::<Vec<_>>()[..] {
            // Of other tests, which run meanwhile: a pod of theirs may have the same name, and a container that lacks what ours have.
            [_, _, _, id] if !ours.iter().any(|own| own == id) => None,
            [container, attempt, state, id] => {
                let attempt = attempt.parse().unwrap_or_else(|_| panic!("no attempt: {line}"));
                Some(Found { container: container.to_owned(), attempt, state: state.to_owned(), id: id.to_owned() })
            }
            _ => panic!("not ours: {line}"),
        })
        .collect();
    all.sort();
    all
}

/// The ids of a pod's running containers: the sandbox's, then the others'.
pub fn running(cluster: &Cluster, pod: &str) -> Vec<String> {
    found(cluster, pod).into_iter().filter(|found| found.state == "running").map(|found| found.id).collect()
}

/// The pod's sandbox that runs.
#[track_caller]
pub fn sandbox(cluster: &Cluster, pod: &str) -> String {
    let mut all = found(cluster, pod).into_iter().filter(|found| found.container.is_empty() && found.state == "running");
    all.next().unwrap_or_else(|| panic!("{pod} has no sandbox that runs")).id
}

/// The newest running container of that name.
#[track_caller]
pub fn container(cluster: &Cluster, pod: &str, name: &str) -> String {
    let mut all = found(cluster, pod).into_iter().filter(|found| found.container == name && found.state == "running");
    all.next_back().unwrap_or_else(|| panic!("{pod} has no {name} that runs")).id
}

/// Applies pods and waits until all are Running.
#[track_caller]
pub fn run_pods(cluster: &Cluster, pods: &[Value]) {
    let file = cluster.manifest(json!(pods));
    cluster.cube(&["apply", &file, "--wait"]).ok();
}

/// Waits until a pod is Running and its container was restarted so often; never more.
#[track_caller]
pub fn wait_for_restarts(cluster: &Cluster, name: &str, container: &str, wanted: u64) -> Value {
    wait_for(&format!("{wanted} restarts of {name}/{container}"), PATIENCE, || {
        let pod = cluster.pod(name)?;
        let seen = restarts(&pod, container);
        assert!(seen <= wanted, "restarted more often than it ended: {pod}");
        if seen == wanted && status(&pod, container)["state"]["running"].is_object() { Ok(pod) } else { Err(pod.to_string()) }
    })
}

/// Fails unless a pod runs as it was made: one sandbox, one container, its first, started once.
#[track_caller]
pub fn assert_made_once(cluster: &Cluster, name: &str) {
    let pod = cluster.pod(name).expect("it is there");
    assert_eq!(status(&pod, "main")["restartCount"], 0, "{pod}");
    let found = found(cluster, name);
    let seen: Vec<_> = found.iter().map(|found| (found.container.as_str(), found.attempt, found.state.as_str())).collect();
    assert_eq!(seen, [("", 0, "running"), ("main", 0, "running")], "{pod}");
    assert_eq!(cluster.docker(["logs", &found[1].id]), "started", "its process began once");
}
