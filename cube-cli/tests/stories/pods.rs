//! What nodes do with pods: run, restart, give up, share a network.

use std::time::Duration;

use serde_json::{Value, json};

use crate::cluster::{BUSYBOX, Cluster, PATIENCE, docker, run, shell_pod, wait_for};

fn restarts(pod: &Value) -> u64 {
    pod["status"]["containers"][0]["restartCount"].as_u64().unwrap_or_default()
}

#[test]
fn a_container_that_is_killed_is_started_again() {
    let cluster = Cluster::start(1);
    let file = cluster.manifest(shell_pod("box", "sleep 1000"));
    cluster.cube(&["apply", &file, "--wait"]).ok();
    let before = cluster.containers("box");
    docker(["kill", &before[0]]);
    wait_for("a new container", PATIENCE, || {
        let now = cluster.containers("box");
        let pod = cluster.pod("box")?;
        if now.len() == 1 && now != before && restarts(&pod) == 1 { Ok(()) } else { Err(format!("{now:?} {pod}")) }
    });
    let page = cluster.cube(&["get", "pod/box"]).ok();
    assert!(page.contains("Crashed") && page.contains("137"), "the page tells the crash and its exit code:\n{page}");
}

#[test]
fn a_crash_loop_ends_in_crash_limit_says_so_and_is_cleared_by_restart() {
    let cluster = Cluster::start(0);
    let mut manifest = shell_pod("crasher", "echo about to fail; exit 3");
    manifest[0]["spec"]["restart"] = json!({ "limit": 3 });
    cluster.apply(manifest);
    cluster.wait_for_status("crasher", "CrashLimit");
    let pod = cluster.pod("crasher").expect("it is there");
    assert_eq!((pod["status"]["phase"].as_str(), restarts(&pod)), (Some("Failed"), 2), "{pod}");
    let page = cluster.cube(&["get", "pod/crasher"]).ok();
    for part in ["CrashLimit", "exit", "3", "about to fail", "cube restart pod/crasher"] {
        assert!(page.contains(part), "{part} is missing in:\n{page}");
    }
    assert_eq!(cluster.containers("crasher"), Vec::<String>::new(), "it is left stopped");

    cluster.cube(&["restart", "pod/crasher"]).ok();
    wait_for("it to be tried again, to the same end", PATIENCE, || {
        let pod = cluster.pod("crasher")?;
        if restarts(&pod) >= 5 && cluster.status("crasher")? == "CrashLimit" { Ok(()) } else { Err(pod.to_string()) }
    });
}

#[test]
fn an_image_that_does_not_exist_ends_in_image_limit() {
    let cluster = Cluster::start(0);
    let file = cluster.manifest(json!([{ "type": "pod", "metadata": { "name": "ghost" }, "spec": { "restart": { "limit": 2 },
        "containers": [{ "name": "main", "image": "127.0.0.1:1/no-such-image:1" }] } }]));
    let refused = cluster.cube(&["apply", &file, "--wait"]).fails_with(1);
    assert!(refused.contains("ImageLimit"), "whoever waits is told: {refused}");
    let page = cluster.cube(&["get", "pod/ghost"]).ok();
    for part in ["127.0.0.1:1/no-such-image:1", "ErrImagePull", "cube restart pod/ghost"] {
        assert!(page.contains(part), "{part} is missing in:\n{page}");
    }
}

#[test]
fn a_pod_that_runs_to_its_end_is_completed_and_not_started_again() {
    let cluster = Cluster::start(0);
    let mut manifest = shell_pod("once", "echo done");
    manifest[0]["spec"]["restartPolicy"] = json!("Never");
    let mut failing = shell_pod("fails", "exit 9");
    failing[0]["spec"]["restartPolicy"] = json!("Never");
    cluster.apply(json!([manifest[0], failing[0]]));
    cluster.wait_for_status("once", "Completed");
    cluster.wait_for_status("fails", "Error");
    assert_eq!(cluster.cube(&["logs", "pod/once", "--container", "main"]).ok(), "done\n");
    assert_eq!(restarts(&cluster.pod("fails").expect("it is there")), 0);
    assert_eq!(cluster.pod("fails").expect("it is there")["status"]["containers"][0]["state"]["terminated"]["exitCode"], 9);
}

#[test]
fn the_containers_of_a_pod_reach_each_other_on_localhost_and_nobody_else_does() {
    let cluster = Cluster::start(0);
    let server = "mkdir /www; echo hello from the neighbour > /www/index.html; exec httpd -f -p 127.0.0.1:8080 -h /www";
    cluster.apply(json!([
        { "type": "pod", "metadata": { "name": "pair" }, "spec": { "terminationGracePeriodSeconds": 1, "containers": [
            { "name": "server", "image": BUSYBOX, "command": ["sh", "-c", server] },
            { "name": "client", "image": BUSYBOX, "command": ["sleep", "1000"] }] } },
        shell_pod("stranger", "sleep 1000")[0],
    ]));
    cluster.wait_for_status("pair", "Running");
    cluster.wait_for_status("stranger", "Running");
    let fetch = ["--", "wget", "-q", "-O", "-", "http://127.0.0.1:8080/"];
    wait_for("the neighbour's answer", PATIENCE, || {
        let done = cluster.cube(&[&["exec", "pod/pair", "--container", "client"], &fetch[..]].concat());
        if done.stdout == "hello from the neighbour\n" { Ok(()) } else { Err(format!("{done:?}")) }
    });
    assert_ne!(cluster.cube(&[&["exec", "pod/stranger"], &fetch[..]].concat()).code, Some(0));
    let ambiguous = cluster.cube(&["exec", "pod/pair", "--", "true"]).fails_with(1);
    assert!(ambiguous.contains("server") && ambiguous.contains("client"), "it names the containers: {ambiguous}");
}

#[test]
fn a_killed_sandbox_restarts_the_whole_pod_on_one_new_network() {
    let cluster = Cluster::start(0);
    let file = cluster.manifest(shell_pod("box", "sleep 1000"));
    cluster.cube(&["apply", &file, "--wait"]).ok();
    let before = cluster.containers("box");
    let mode = docker(["inspect", "-f", "{{.HostConfig.NetworkMode}}", &before[0]]);
    let sandbox = mode.strip_prefix("container:").expect("it joined the sandbox").to_owned();
    docker(["kill", &sandbox]);
    wait_for("a new container on a new sandbox", PATIENCE, || {
        let now = cluster.containers("box");
        let mode = now.first().map(|id| docker(["inspect", "-f", "{{.HostConfig.NetworkMode}}", id]));
        if now.len() == 1 && now != before && mode.as_ref() != Some(&format!("container:{sandbox}")) {
            Ok(())
        } else {
            Err(format!("{now:?}"))
        }
    });
    cluster.wait_for_status("box", "Running");
}

#[test]
fn a_changed_spec_replaces_the_pod_and_changed_labels_leave_it_running() {
    let cluster = Cluster::start(1);
    let mut manifest = shell_pod("box", "sleep 1000");
    let first = cluster.manifest(&manifest);
    cluster.cube(&["apply", &first, "--wait"]).ok();
    let before = (cluster.pod("box").expect("it is there"), cluster.containers("box"));

    manifest[0]["metadata"]["labels"] = json!({ "tier": "web" });
    let labelled = cluster.manifest(&manifest);
    assert_eq!(cluster.cube(&["apply", &labelled, "--wait"]).ok().trim(), "pod/box configured");
    assert_eq!(cluster.containers("box"), before.1);
    assert_eq!(cluster.cube(&["list", "pod", "-l", "tier=web", "-o", "name"]).ok().trim(), "pod/box");
    assert_eq!(cluster.cube(&["list", "pod", "-l", "tier!=web", "-o", "name"]).ok().trim(), "");

    manifest[0]["spec"]["containers"][0]["env"] = json!({ "NEW": "1" });
    let changed = cluster.manifest(&manifest);
    assert_eq!(cluster.cube(&["apply", &changed, "--wait"]).ok().trim(), "pod/box replaced");
    let after = cluster.pod("box").expect("it is there");
    assert_ne!(after["metadata"]["uid"], before.0["metadata"]["uid"]);
    assert_eq!(after["metadata"]["generation"], 2);
    wait_for("the old container to be gone", PATIENCE, || {
        let now = cluster.all_containers();
        if now.len() == 2 && !now.contains(&before.1[0]) { Ok(()) } else { Err(format!("{now:?}")) }
    });

    let mut stale = manifest.clone();
    stale[0]["metadata"]["revision"] = before.0["metadata"]["revision"].clone();
    let stale = cluster.manifest(&stale);
    let refused = cluster.cube(&["apply", &stale]).fails_with(1);
    assert!(refused.contains("revision"), "{refused}");
}

#[test]
fn a_published_port_is_served_and_a_taken_one_waits_with_the_reason() {
    let cluster = Cluster::start(0);
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port();
    let pod = |name: &str| {
        let mut manifest = shell_pod(name, "mkdir /www; echo published > /www/index.html; exec httpd -f -p 80 -h /www");
        manifest[0]["spec"]["containers"][0]["ports"] = json!([{ "containerPort": 80, "hostPort": port }]);
        manifest[0].clone()
    };
    cluster.apply(json!([pod("first")]));
    cluster.wait_for_status("first", "Running");
    wait_for("the page", PATIENCE, || {
        let done = run(std::process::Command::new("curl").args(["-s", "--max-time", "2", &format!("http://127.0.0.1:{port}/")]));
        if done.stdout == "published\n" { Ok(()) } else { Err(format!("{done:?}")) }
    });
    cluster.apply(json!([pod("second")]));
    cluster.wait_for_status("second", "Unschedulable");
    let page = cluster.cube(&["get", "pod/second"]).ok();
    assert!(page.contains("0/1 nodes fit") && page.contains(&port.to_string()), "{page}");
    cluster.cube(&["delete", "pod/first"]).ok();
    cluster.wait_for_status("second", "Running");
}

#[test]
fn a_process_that_ignores_the_stop_signal_is_killed_after_its_grace() {
    let cluster = Cluster::start(0);
    let file = cluster.manifest(shell_pod("stubborn", "trap '' TERM; while true; do sleep 1; done"));
    cluster.cube(&["apply", &file, "--wait"]).ok();
    let start = std::time::Instant::now();
    cluster.cube(&["delete", "pod/stubborn"]).ok();
    assert!(start.elapsed() > Duration::from_secs(1), "it had its grace");
    assert_eq!(cluster.all_containers(), Vec::<String>::new());
}

#[test]
fn limits_are_enforced_and_told() {
    let cluster = Cluster::start(0);
    let mut manifest = shell_pod("hog", "tail /dev/zero");
    manifest[0]["spec"]["restartPolicy"] = json!("Never");
    manifest[0]["spec"]["containers"][0]["resources"] = json!({ "limits": { "memory": "16Mi", "cpu": "500m" } });
    let mut huge = shell_pod("huge", "sleep 1000");
    huge[0]["spec"]["containers"][0]["resources"] = json!({ "requests": { "memory": "1000Ti" } });
    cluster.apply(json!([manifest[0], huge[0]]));
    let container = wait_for("OOMKilled", PATIENCE, || {
        let pod = cluster.pod("hog")?;
        let status = &pod["status"]["containers"][0];
        let is_told = status["state"]["terminated"]["reason"] == "OOMKilled";
        status["containerID"].as_str().filter(|_| is_told).map(str::to_owned).ok_or_else(|| pod.to_string())
    });
    cluster.wait_for_status("hog", "OOMKilled");
    let limits = "{{.HostConfig.Memory}} {{.HostConfig.MemorySwap}} {{.HostConfig.NanoCpus}}";
    assert_eq!(docker(["inspect", "--format", limits, &container]), "16777216 16777216 500000000", "memory with swap is the memory alone");
    cluster.wait_for_status("huge", "Unschedulable");
    let again = cluster.manifest(json!([huge[0]]));
    let late = cluster.cube(&["apply", &again, "--wait", "--timeout", "1s"]).fails_with(124);
    assert!(late.contains("0/1 nodes fit") && late.contains("memory"), "whoever waits in vain is told why: {late}");
    let page = cluster.cube(&["get", "pod/huge"]).ok();
    assert!(page.contains("memory") && page.contains("1000Ti"), "{page}");
}
