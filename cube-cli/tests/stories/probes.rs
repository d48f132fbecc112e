//! Probes against real servers in real containers, at the pods' own addresses: no port is published here.

use serde_json::{Value, json};

use crate::cluster::{BUSYBOX, Cluster, PATIENCE, docker, wait_for};

/// A pod of one container `main` that runs this script and has these probes, tried each second.
fn probed(name: &str, script: &str, probes: Value) -> Value {
    let mut container = json!({ "name": "main", "image": BUSYBOX, "command": ["sh", "-c", script],
        "ports": [{ "name": "web", "containerPort": 8080 }] });
    for (field, probe) in probes.as_object().expect("a map of probes") {
        container[field] = probe.clone();
        container[field]["periodSeconds"] = json!(1);
        // A start of a command takes a tenth of a second; on a busy machine a second is soon over.
        container[field]["timeoutSeconds"] = json!(10);
    }
    json!([{ "type": "pod", "metadata": { "name": name },
        "spec": { "terminationGracePeriodSeconds": 1, "containers": [container] } }])
}

/// A server of the files in /www, which is made with a page.
const SERVER: &str = "mkdir -p /www; echo fine > /www/health; exec httpd -f -p 8080 -h /www";

fn main_of(cluster: &Cluster, pod: &str) -> Result<Value, String> {
    cluster.pod(pod).map(|pod| pod["status"]["containers"][0].clone())
}

fn wait_for_main(cluster: &Cluster, pod: &str, what: &str, is_so: impl Fn(&Value) -> bool) {
    wait_for(what, PATIENCE, || {
        let main = main_of(cluster, pod)?;
        if is_so(&main) { Ok(()) } else { Err(main.to_string()) }
    });
}

fn sh(cluster: &Cluster, pod: &str, command: &str) {
    cluster.cube(&["exec", &format!("pod/{pod}"), "--", "sh", "-c", command]).ok();
}

/// The READY column.
fn ready_column(cluster: &Cluster, pod: &str) -> String {
    let list = cluster.cube(&["list", "pod"]).ok();
    let row = list.lines().find(|line| line.split_whitespace().next() == Some(pod)).unwrap_or_else(|| panic!("{pod} is not in:\n{list}"));
    row.split_whitespace().nth(1).expect("the second column").to_owned()
}

#[test]
fn an_unhealthy_server_is_restarted_with_an_event_that_says_what_it_answered() {
    let cluster = Cluster::start(0);
    let probe = json!({ "httpGet": { "path": "/health", "port": "web" }, "failureThreshold": 2 });
    let file = cluster.manifest(probed("web", SERVER, json!({ "livenessProbe": probe })));
    cluster.cube(&["apply", &file, "--wait"]).ok();
    let before = cluster.containers("web");
    let address = cluster.pod("web").expect("it runs")["status"]["podIP"].as_str().expect("an address").to_owned();
    sh(&cluster, "web", "rm /www/health");
    wait_for_main(&cluster, "web", "a restart", |main| main["restartCount"] == 1 && main["ready"] == true);
    assert_ne!(cluster.containers("web"), before);
    assert_eq!(main_of(&cluster, "web").expect("it runs")["lastTermination"]["reason"], "Unhealthy");
    let page = cluster.cube(&["get", "pod/web"]).ok();
    let expected = format!("liveness probe failed 2 times: HTTP 404 from http://{address}:8080/health");
    assert!(page.contains(&expected), "{expected} is missing in:\n{page}");
}

#[test]
fn an_unhealthy_container_that_is_not_to_be_restarted_ends_failed() {
    let cluster = Cluster::start(0);
    let probe = json!({ "exec": { "command": ["false"] } });
    // It heeds SIGTERM and calls that a success.
    let script = "trap 'exit 0' TERM; while true; do sleep 0.1; done";
    let mut manifest = probed("once", script, json!({ "livenessProbe": probe }));
    manifest[0]["spec"]["restartPolicy"] = json!("Never");
    manifest[0]["spec"]["terminationGracePeriodSeconds"] = json!(20);
    cluster.apply(manifest);
    cluster.wait_for_status("once", "Unhealthy");
    let main = main_of(&cluster, "once").expect("it is there");
    assert_eq!((&main["state"]["terminated"]["exitCode"], &main["restartCount"]), (&json!(0), &json!(0)), "{main}");
    assert_eq!(cluster.pod("once").expect("it is there")["status"]["phase"], "Failed");
}

#[test]
fn readiness_goes_up_and_down_and_the_container_stays() {
    let cluster = Cluster::start(0);
    let probe = json!({ "httpGet": { "path": "/ready", "port": 8080 }, "failureThreshold": 1 });
    let file = cluster.manifest(probed("web", SERVER, json!({ "readinessProbe": probe })));
    cluster.cube(&["apply", &file]).ok();
    cluster.wait_for_status("web", "Running");
    wait_for_main(&cluster, "web", "what it answers", |main| main["probeFailure"].as_str().is_some_and(|got| got.contains("HTTP 404")));
    assert_eq!(ready_column(&cluster, "web"), "0/1");
    let late = cluster.cube(&["wait", "pod/web", "--for=ready", "--timeout=1s"]).fails_with(124);
    assert!(late.contains("readiness probe failed: HTTP 404"), "{late}");
    let late = cluster.cube(&["apply", &file, "--wait", "--timeout=1s"]).fails_with(124);
    assert!(late.contains("not ready: readiness probe failed: HTTP 404"), "{late}");
    let before = cluster.containers("web");

    sh(&cluster, "web", "touch /www/ready");
    assert_eq!(cluster.cube(&["wait", "pod/web", "--for=ready"]).ok(), "pod/web is ready\n");
    assert_eq!(ready_column(&cluster, "web"), "1/1");
    let since = cluster.pod("web").expect("it runs")["status"]["readySince"].clone();
    assert!(since.is_string(), "{since}");

    sh(&cluster, "web", "rm /www/ready");
    wait_for_main(&cluster, "web", "it to be unready", |main| main["ready"] == false);
    assert_eq!(ready_column(&cluster, "web"), "0/1");
    sh(&cluster, "web", "touch /www/ready");
    wait_for_main(&cluster, "web", "it to be ready again", |main| main["ready"] == true);
    assert_eq!((cluster.containers("web"), &main_of(&cluster, "web").expect("it runs")["restartCount"]), (before, &json!(0)));
    let page = cluster.cube(&["get", "pod/web"]).ok();
    assert!(page.contains("Unhealthy") && page.contains("container 'main' is ready"), "{page}");
}

#[test]
fn the_startup_probe_gates_the_others() {
    let cluster = Cluster::start(0);
    // Alone, the liveness probe would end the container with its first try.
    let probes = json!({
        "startupProbe": { "exec": { "command": ["test", "-f", "/up"] }, "failureThreshold": 1000 },
        "livenessProbe": { "exec": { "command": ["test", "-f", "/alive"] }, "failureThreshold": 1 },
    });
    cluster.apply(probed("slow", "exec sleep 1000", probes));
    wait_for_main(&cluster, "slow", "a failed try", |main| main["probeFailure"] == "startup probe failed: its command exited with 1");
    assert_eq!(ready_column(&cluster, "slow"), "0/1");
    sh(&cluster, "slow", "touch /alive; touch /up");
    cluster.cube(&["wait", "pod/slow", "--for=ready", "--timeout=1m"]).ok();
    assert_eq!(main_of(&cluster, "slow").expect("it runs")["restartCount"], 0, "nothing was asked of its liveness before");
    sh(&cluster, "slow", "rm /alive");
    wait_for_main(&cluster, "slow", "a restart", |main| main["restartCount"] == 1);
}

#[test]
fn a_tcp_probe_sees_when_somebody_listens() {
    let cluster = Cluster::start(0);
    let script = "until test -f /go; do sleep 0.1; done; exec httpd -f -p 8080 -h /tmp";
    cluster.apply(probed("late", script, json!({ "readinessProbe": { "tcpSocket": { "port": "web" } } })));
    let refused = |main: &Value| main["probeFailure"].as_str().is_some_and(|got| got.contains("no connection to") && got.contains(":8080"));
    wait_for_main(&cluster, "late", "a refused connection", refused);
    sh(&cluster, "late", "touch /go");
    cluster.cube(&["wait", "pod/late", "--for=ready", "--timeout=1m"]).ok();
}

#[test]
fn responses_of_200_to_399_are_healthy_and_others_are_not() {
    let cluster = Cluster::start(0);
    let cgi = |status: &str| format!("printf '#!/bin/sh\\necho Status: {status}\\necho\\n' > /www/cgi-bin/{}; ", &status[..3]);
    let script = format!(
        "mkdir -p /www/cgi-bin /www/moved; {}{}chmod +x /www/cgi-bin/*; exec httpd -f -p 8080 -h /www",
        cgi("204 Nothing"),
        cgi("500 Broken")
    );
    let mut manifest = probed("codes", &script, json!({}));
    // They share its network, so each asks it for another page. The server sends `/moved` on to `/moved/`.
    let paths = [("no-content", "/cgi-bin/204"), ("moved", "/moved"), ("missing", "/nothing"), ("broken", "/cgi-bin/500")];
    for (name, path) in paths {
        let probe = json!({ "httpGet": { "path": path, "port": 8080 }, "periodSeconds": 1, "timeoutSeconds": 10 });
        let asker = json!({ "name": name, "image": BUSYBOX, "command": ["sleep", "1000"], "readinessProbe": probe });
        manifest[0]["spec"]["containers"].as_array_mut().expect("a list").push(asker);
    }
    cluster.apply(manifest);
    wait_for("the four verdicts", PATIENCE, || {
        let pod = cluster.pod("codes")?;
        let of = |name: &str| {
            let containers = pod["status"]["containers"].as_array().cloned().unwrap_or_default();
            let container = containers.into_iter().find(|container| container["name"] == name).unwrap_or_default();
            (container["ready"] == true, container["probeFailure"].as_str().unwrap_or_default().to_owned())
        };
        let says = |name: &str, code: &str| !of(name).0 && of(name).1.contains(code);
        let right = of("no-content").0 && of("moved").0 && says("missing", "HTTP 404") && says("broken", "HTTP 500");
        if right { Ok(()) } else { Err(pod["status"].to_string()) }
    });
    assert_eq!(ready_column(&cluster, "codes"), "3/5");
}

#[test]
fn a_killed_node_restarts_nothing_and_asks_the_probes_anew() {
    let mut cluster = Cluster::start(0);
    let probe = json!({ "httpGet": { "path": "/health", "port": 8080 } });
    let file = cluster.manifest(probed("web", SERVER, json!({ "livenessProbe": probe, "readinessProbe": probe })));
    cluster.cube(&["apply", &file, "--wait"]).ok();
    let before = cluster.containers("web");
    cluster.leader.kill();
    cluster.leader.start();
    wait_for_main(&cluster, "web", "it to be ready", |main| main["ready"] == true);
    assert_eq!((cluster.containers("web"), &main_of(&cluster, "web").expect("it runs")["restartCount"]), (before.clone(), &json!(0)));
    assert_eq!(docker(["inspect", "-f", "{{.State.Running}}", &before[0]]), "true");
}
