//! Deployments: made, scaled, updated, undone, held, drained; rolled back with a reason; stopped first where a port allows no other way; and kept
//! over a kill of the leader in the middle.

use serde_json::{Value, json};

use crate::cluster::{BUSYBOX, Cluster, PATIENCE, wait_for};

/// A deployment of busybox pods that run a script.
fn web(replicas: u32, script: &str, more: &Value) -> Value {
    let container = json!({ "name": "main", "image": BUSYBOX, "command": ["sh", "-c", script] });
    let template = json!({ "metadata": { "labels": { "app": "web" } },
        "spec": { "terminationGracePeriodSeconds": 1, "containers": [container] } });
    let mut web = json!({ "type": "deployment", "metadata": { "name": "web" }, "spec": { "replicas": replicas, "template": template } });
    for (key, value) in more.as_object().into_iter().flatten() {
        web["spec"][key] = value.clone();
    }
    web
}

const RUNS: &str = "trap exit TERM; while :; do sleep 0.1; done";

impl Cluster {
    fn deployment(&self) -> Value {
        serde_json::from_str(&self.cube(&["get", "deployment/web", "-o", "json"]).ok()).expect("JSON")
    }

    /// Its pods that aren't on their way out: name and revision.
    fn pods_of_web(&self) -> Vec<(String, String)> {
        let listed = self.cube(&["list", "pod", "-l", "cube.io/deployment=web", "-o", "json"]).ok();
        let listed: Value = serde_json::from_str(&listed).expect("JSON");
        let live = listed["items"].as_array().expect("a list").iter().filter(|pod| pod["metadata"]["deletionRequestedAt"].is_null());
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        live.map(|pod| (text(&pod["metadata"]["name"]), text(&pod["metadata"]["labels"]["cube.io/revision"]))).collect()
    }

    #[track_caller]
    fn rolled_out(&self, revision: u64) {
        let told = self.cube(&["rollout", "status", "deployment/web", "--timeout", "60s"]).ok();
        assert!(told.contains(&format!("revision {revision} is rolled out")), "{told}");
    }
}

#[test]
fn a_deployment_is_made_scaled_updated_undone_and_deleted() {
    let cluster = Cluster::start(0);
    cluster.apply(json!([web(2, RUNS, &json!({}))]));
    cluster.rolled_out(1);
    let table = cluster.cube(&["list", "deployment"]).ok();
    assert_eq!(
        table.lines().next().map(|line| line.split_whitespace().collect()),
        Some(vec!["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE"])
    );
    assert!(table.lines().nth(1).is_some_and(|row| row.starts_with("web    2/2     2            2")), "{table}");
    cluster.cube(&["scale", "deployment/web", "--replicas", "3"]).ok();
    cluster.rolled_out(1);
    assert_eq!(cluster.pods_of_web().len(), 3);

    cluster.apply(json!([web(3, "echo two; trap exit TERM; while :; do sleep 0.1; done", &json!({}))]));
    cluster.rolled_out(2);
    assert!(cluster.pods_of_web().iter().all(|(name, revision)| name.starts_with("web-2-") && revision == "2"));
    let history = cluster.cube(&["rollout", "history", "deployment/web"]).ok();
    assert_eq!(history.lines().count(), 3, "{history}");
    cluster.cube(&["rollout", "undo", "deployment/web"]).ok();
    cluster.rolled_out(1);
    assert!(cluster.pods_of_web().iter().all(|(_, revision)| revision == "1"));

    cluster.cube(&["rollout", "pause", "deployment/web"]).ok();
    cluster.apply(json!([web(3, "echo three; sleep 1000", &json!({ "paused": true }))]));
    let held = cluster.cube(&["rollout", "status", "deployment/web", "--timeout", "1s"]).fails_with(124);
    assert!(held.contains("paused"), "{held}");
    assert!(cluster.pods_of_web().iter().all(|(_, revision)| revision == "1"), "nothing is rolled out");
    cluster.cube(&["rollout", "resume", "deployment/web"]).ok();
    cluster.rolled_out(3);
    cluster.cube(&["restart", "deployment/web"]).ok();
    cluster.rolled_out(4);

    let page = cluster.cube(&["get", "deployment/web"]).ok();
    for part in ["3 wanted", "Available: True", "web-4-", "RolledOut", "Scaled", "Undone"] {
        assert!(page.contains(part), "{part} is missing in:\n{page}");
    }
    let yaml = cluster.cube(&["get", "deployment/web", "-o", "yaml"]).ok();
    let file = cluster.manifest(&yaml);
    assert_eq!(cluster.cube(&["apply", &file]).ok(), "deployment/web unchanged\n", "what is printed can be applied");
    cluster.cube(&["delete", "deployment/web"]).ok();
    assert_eq!((cluster.pods_of_web(), cluster.all_containers()), (Vec::new(), Vec::new()));
}

#[test]
fn a_failing_update_keeps_the_old_pods_rolls_back_and_says_why() {
    let cluster = Cluster::start(0);
    cluster.apply(json!([web(2, RUNS, &json!({}))]));
    cluster.rolled_out(1);
    let before = cluster.pods_of_web();
    cluster.apply(json!([web(2, "echo no such table; exit 7", &json!({ "progressDeadlineSeconds": 6 }))]));
    let failed = cluster.cube(&["rollout", "status", "deployment/web", "--timeout", "60s"]).fails_with(1);
    for part in ["rolled back to revision 1: revision 2 made no progress in 6s", "exit 7", "no such table", "cube rollout retry"] {
        assert!(failed.contains(part), "{part} is missing in:\n{failed}");
    }
    wait_for("the old pods alone", PATIENCE, || match cluster.pods_of_web() {
        now if now == before => Ok(()),
        now => Err(format!("{now:?}")),
    });
    let page = cluster.cube(&["get", "deployment/web"]).ok();
    assert!(page.contains("RolledBack") && page.contains("Available: True"), "{page}");
    let history = cluster.cube(&["rollout", "history", "deployment/web"]).ok();
    assert!(history.lines().any(|line| line.starts_with('2') && line.contains("failed")), "{history}");
}

#[test]
fn a_fixed_host_port_stops_first_and_a_kill_of_the_leader_in_the_middle_changes_nothing() {
    let mut cluster = Cluster::start(0);
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port();
    let with_port = |script: &str| {
        let mut web = web(1, script, &json!({}));
        web["spec"]["template"]["spec"]["containers"][0]["ports"] =
            json!([{ "containerPort": 80, "hostPort": port, "hostIP": "127.0.0.1" }]);
        json!([web])
    };
    cluster.apply(with_port(RUNS));
    cluster.rolled_out(1);
    cluster.apply(with_port("echo two; trap exit TERM; while :; do sleep 0.1; done"));
    cluster.leader.kill();
    cluster.leader.start();
    cluster.wait_until_ready();
    cluster.rolled_out(2);
    assert_eq!(cluster.pods_of_web().len(), 1);
    let page = cluster.cube(&["get", "deployment/web"]).ok();
    assert!(page.contains("StopFirst") && page.contains(&port.to_string()), "{page}");
}

#[test]
fn a_drained_nodes_replicas_run_elsewhere() {
    let cluster = Cluster::start(1);
    cluster.apply(json!([web(3, RUNS, &json!({}))]));
    cluster.rolled_out(1);
    let node = cluster.followers[0].name.clone();
    cluster.cube(&["drain", &node, "--timeout", "60s"]).ok();
    cluster.rolled_out(1);
    let wide = cluster.cube(&["list", "pod", "-l", "cube.io/deployment=web", "-o", "wide"]).ok();
    assert!(cluster.pods_of_web().len() == 3 && !wide.lines().any(|line| line.contains(&node) && line.contains("Running")), "{wide}");
    assert_eq!(cluster.deployment()["status"]["availableReplicas"], json!(3));
}

#[test]
fn what_makes_no_sense_is_refused_with_its_path() {
    let cluster = Cluster::start(0);
    let mut wrong = web(
        2,
        RUNS,
        &json!({ "selector": { "matchLabels": { "app": "other" } },
        "strategy": { "rollingUpdate": { "maxSurge": 0, "maxUnavailable": "0%" } } }),
    );
    wrong["spec"]["template"]["spec"]["restartPolicy"] = json!("Never");
    let file = cluster.manifest(json!([wrong]));
    let refused = cluster.cube(&["apply", &file]).fails_with(1);
    for part in ["spec.selector.matchLabels.app", "both 0", "spec.template.spec.restartPolicy"] {
        assert!(refused.contains(part), "{part} is missing in:\n{refused}");
    }
    for (path, value) in [("replicas", json!(-1)), ("strategy", json!({ "rollingUpdate": { "maxSurge": "101%" } }))] {
        let file = cluster.manifest(json!([web(2, RUNS, &json!({ path: value }))]));
        let refused = cluster.cube(&["apply", &file]).fails_with(1);
        assert!(refused.contains(&format!("spec.{path}")), "{refused}");
    }
    cluster.apply(json!([web(0, RUNS, &json!({ "selector": { "matchLabels": { "app": "web" } } }))]));
    let file = cluster.manifest(json!([web(0, RUNS, &json!({}))]));
    assert!(cluster.cube(&["apply", &file]).fails_with(1).contains("selector"), "it doesn't change");
}
