//! A pod's life: init containers, sidecars, hooks, the deadline, last words.

use serde_json::{Value, json};

use crate::cluster::{BUSYBOX, Cluster, PATIENCE, wait_for};

/// A container that runs a shell script.
fn shell(name: &str, script: &str) -> Value {
    json!({ "name": name, "image": BUSYBOX, "command": ["sh", "-c", script] })
}

/// As [`shell`], and stops when it is told to.
fn server(name: &str) -> Value {
    shell(name, "trap 'exit 0' TERM; echo up; sleep 1000 & wait")
}

fn with(mut container: Value, more: Value) -> Value {
    let more = more.as_object().expect("a map").clone();
    container.as_object_mut().expect("a map").extend(more);
    container
}

fn pod(name: &str, spec: Value) -> Value {
    let spec = with(json!({ "terminationGracePeriodSeconds": 5 }), spec);
    json!([{ "type": "pod", "metadata": { "name": name }, "spec": spec }])
}

/// The reasons of a pod's events and their messages.
fn events(cluster: &Cluster, name: &str) -> String {
    cluster.cube(&["get", &format!("pod/{name}")]).stdout
}

#[test]
fn init_containers_run_in_order_and_their_logs_ends_and_waiting_are_shown() {
    let cluster = Cluster::start(0);
    cluster.apply(pod(
        "web",
        json!({
            "initContainers": [
                shell("first", "echo one; while [ ! -e /go ]; do sleep 0.1; done"),
                shell("second", "echo two"),
            ],
            "containers": [server("app")],
        }),
    ));
    cluster.wait_for_status("web", "Init:0/2");
    let page = events(&cluster, "web");
    assert!(page.contains("\nInit containers:\n  first:\n") && page.contains("PodInitializing"), "{page}");
    // Exec works in one that is being run.
    wait_for("the first to run", PATIENCE, || {
        let done = cluster.cube(&["exec", "pod/web", "--container", "first", "--", "touch", "/go"]);
        if done.code == Some(0) { Ok(()) } else { Err(done.stderr) }
    });
    cluster.wait_for_status("web", "Running");
    let logs = cluster.cube(&["logs", "pod/web"]).ok();
    let lines: Vec<&str> = logs.lines().map(|line| line.split_whitespace().last().unwrap_or_default()).collect();
    assert_eq!(lines, ["one", "two", "up"], "{logs}");
    assert_eq!(cluster.cube(&["logs", "pod/web", "--container", "second"]).ok(), "two\n");
    let status = cluster.pod("web").expect("it is there")["status"].clone();
    let end = |index: usize| status["initContainers"][index]["state"]["terminated"].clone();
    assert_eq!((&end(0)["exitCode"], &end(1)["reason"]), (&json!(0), &json!("Completed")));
    assert!(end(0)["finishedAt"].as_str() <= end(1)["startedAt"].as_str(), "{status}");
    assert!(end(1)["finishedAt"].as_str() <= status["containers"][0]["state"]["running"]["startedAt"].as_str(), "{status}");
}

#[test]
fn an_init_container_that_fails_is_tried_again_to_the_limit_and_with_never_not_at_all() {
    let cluster = Cluster::start(0);
    let fails = |policy: &str| {
        json!({ "restartPolicy": policy, "restart": { "limit": 3 }, "initContainers": [shell("setup", "echo no luck; exit 3")],
            "containers": [server("app")] })
    };
    cluster.apply(pod("again", fails("Always")));
    cluster.apply(pod("once", fails("Never")));
    cluster.wait_for_status("once", "Init:Error");
    cluster.wait_for_status("again", "CrashLimit");
    for (name, starts) in [("once", 1), ("again", 3)] {
        let status = cluster.pod(name).expect("it is there")["status"].clone();
        assert_eq!(status["initContainers"][0]["restartCount"], json!(starts - 1), "{status}");
        assert!(status["message"].as_str().is_some_and(|message| message.contains("init container 'setup'")), "{status}");
        let end = &status["initContainers"][0]["state"]["terminated"];
        assert_eq!((&end["exitCode"], &end["message"]), (&json!(3), &json!("no luck")));
    }
}

#[test]
fn a_sidecar_serves_the_others_and_stops_when_they_are_done() {
    let cluster = Cluster::start(0);
    let proxy = with(
        shell("proxy", "trap 'echo bye; exit 0' TERM; nc -ll -p 9000 -e echo hello & while :; do sleep 0.1; done"),
        json!({ "restartPolicy": "Always" }),
    );
    let setup = shell("setup", "until nc -w 1 127.0.0.1 9000 </dev/null | grep hello; do sleep 0.2; done");
    let main = shell("main", "nc -w 1 127.0.0.1 9000 </dev/null");
    cluster.apply(pod("task", json!({ "restartPolicy": "Never", "initContainers": [proxy, setup], "containers": [main] })));
    cluster.wait_for_status("task", "Completed");
    assert_eq!(cluster.cube(&["logs", "pod/task", "--container", "main"]).ok(), "hello\n");
    wait_for("the sidecar's end", PATIENCE, || {
        let logs = cluster.cube(&["logs", "pod/task", "--container", "proxy"]).stdout;
        if logs.contains("bye") { Ok(()) } else { Err(logs) }
    });
    let status = cluster.pod("task").expect("it is there")["status"].clone();
    assert_eq!((&status["phase"], &status["initContainers"][0]["restartCount"]), (&json!("Succeeded"), &json!(0)), "{status}");
}

#[test]
fn hooks_run_after_the_start_and_before_the_stop_signal() {
    let cluster = Cluster::start(0);
    let script = "trap 'echo term; cat /order; exit 0' TERM; while [ ! -e /started ]; do sleep 0.1; done; echo started; sleep 1000 & wait";
    let hooks = json!({
        "postStart": { "exec": { "command": ["touch", "/started"] } },
        "preStop": { "exec": { "command": ["sh", "-c", "sleep 1; echo before > /order"] } },
    });
    cluster.apply(pod("web", json!({ "containers": [with(shell("app", script), json!({ "lifecycle": hooks }))] })));
    cluster.wait_for_status("web", "Running");
    wait_for("the hook after the start", PATIENCE, || {
        let logs = cluster.cube(&["logs", "pod/web", "--container", "app"]).stdout;
        if logs == "started\n" { Ok(()) } else { Err(logs) }
    });
    cluster.cube(&["restart", "pod/web"]).ok();
    wait_for("the run before", PATIENCE, || {
        let logs = cluster.cube(&["logs", "pod/web", "--container", "app", "--previous"]).stdout;
        if logs == "started\nterm\nbefore\n" { Ok(()) } else { Err(logs) }
    });
}

#[test]
fn a_hook_that_fails_after_the_start_is_a_crash_and_one_before_the_stop_only_a_warning() {
    let cluster = Cluster::start(0);
    let fails = |hook: &str| json!({ "lifecycle": { hook: { "exec": { "command": ["sh", "-c", "echo it is broken; exit 9"] } } } });
    let limit = json!({ "limit": 2 });
    cluster.apply(pod("crashes", json!({ "restart": limit, "containers": [with(server("app"), fails("postStart"))] })));
    cluster.apply(pod("stops", json!({ "containers": [with(server("app"), fails("preStop"))] })));
    cluster.wait_for_status("crashes", "CrashLimit");
    let page = events(&cluster, "crashes");
    assert!(
        page.contains("FailedPostStartHook") && page.contains("postStart hook failed: its command exited with 9: it is broken"),
        "{page}"
    );
    cluster.wait_for_status("stops", "Running");
    cluster.cube(&["restart", "pod/stops"]).ok();
    wait_for("the warning", PATIENCE, || {
        let page = events(&cluster, "stops");
        if page.contains("FailedPreStopHook") { Ok(()) } else { Err(page) }
    });
    cluster.wait_for_status("stops", "Running");
}

#[test]
fn requests_are_hooks_too() {
    let cluster = Cluster::start(0);
    let script = "mkdir /www; echo hi > /www/up; exec httpd -f -v -p 8080 -h /www";
    let hook = json!({ "lifecycle": { "postStart": { "httpGet": { "path": "/up", "port": "web" } } }, "ports": [{ "name": "web", "containerPort": 8080 }] });
    // The server may not listen yet when the hook is run: then it is a crash, and the next start has another try.
    cluster.apply(pod("web", json!({ "restart": { "limit": 0 }, "containers": [with(shell("app", script), hook)] })));
    wait_for("the request", PATIENCE * 2, || {
        let logs = cluster.cube(&["logs", "pod/web"]).stdout;
        if logs.contains("response:200") { Ok(()) } else { Err(format!("{logs}{}", events(&cluster, "web"))) }
    });
}

#[test]
fn a_pod_that_is_active_for_too_long_is_stopped_and_failed() {
    let cluster = Cluster::start(0);
    cluster.apply(pod("slow", json!({ "activeDeadlineSeconds": 3, "containers": [server("app")] })));
    cluster.wait_for_status("slow", "DeadlineExceeded");
    wait_for("its containers' end", PATIENCE, || {
        let left = cluster.containers("slow");
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
    let status = cluster.pod("slow").expect("it is there")["status"].clone();
    assert_eq!((&status["phase"], &status["reason"]), (&json!("Failed"), &json!("DeadlineExceeded")), "{status}");
}

#[test]
fn what_a_container_leaves_in_its_file_is_in_its_status() {
    let cluster = Cluster::start(0);
    let leaves =
        |name: &str, script: &str, more: Value| with(shell(name, script), with(json!({ "terminationMessagePath": "/tmp/end" }), more));
    cluster.apply(pod(
        "ends",
        json!({ "restartPolicy": "Never", "containers": [
            leaves("well", "echo 42 > /tmp/end", json!({})),
            leaves("badly", "echo a line; echo the disk is full > /tmp/end; exit 1", json!({})),
            leaves("silent", "echo a line; exit 1", json!({})),
            leaves("secret", "echo a secret; exit 1", json!({ "terminationMessagePolicy": "File" })),
        ] }),
    ));
    // The word is said once one of them has failed.
    let status = wait_for("the end of all", PATIENCE, || {
        let status = cluster.pod("ends").map(|pod| pod["status"].clone()).unwrap_or_default();
        if status["phase"] == "Failed" { Ok(status) } else { Err(status.to_string()) }
    });
    let messages: Vec<_> = (0..4).map(|index| status["containers"][index]["state"]["terminated"]["message"].clone()).collect();
    assert_eq!(messages, [json!("42"), json!("the disk is full"), json!("a line"), Value::Null], "{status}");
}

#[test]
fn a_server_killed_in_the_middle_of_an_init_container_runs_it_once() {
    let mut cluster = Cluster::start(0);
    cluster.apply(pod(
        "once",
        json!({ "restartPolicy": "Never", "initContainers": [shell("setup", "echo begun; while [ ! -e /go ]; do sleep 0.1; done")],
            "containers": [shell("main", "echo done")] }),
    ));
    wait_for("the init container", PATIENCE, || {
        let logs = cluster.cube(&["logs", "pod/once", "--container", "setup"]).stdout;
        if logs == "begun\n" { Ok(()) } else { Err(logs) }
    });
    let before = cluster.containers("once");
    cluster.leader.kill();
    cluster.leader.start();
    cluster.wait_until_ready();
    assert_eq!(cluster.containers("once"), before);
    wait_for("exec", PATIENCE, || {
        let done = cluster.cube(&["exec", "pod/once", "--container", "setup", "--", "touch", "/go"]);
        if done.code == Some(0) { Ok(()) } else { Err(done.stderr) }
    });
    cluster.wait_for_status("once", "Completed");
    assert_eq!(cluster.cube(&["logs", "pod/once", "--container", "setup"]).ok(), "begun\n");
}
