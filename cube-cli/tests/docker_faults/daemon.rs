//! The engine stops, dies, comes back: pods come back with it or were never touched, and the counts tell the truth.

use serde_json::json;

use crate::cluster::{Cluster, PATIENCE, wait_for};
use crate::engine::{Engine, OnStop};
use crate::pods::{RUNS, assert_made_once, found, pod, restarts, run_pods, running, sandbox, status, wait_for_restarts};

/// Waits until the only node has this status; its page.
#[track_caller]
fn wait_for_node(cluster: &Cluster, wanted: &str) -> String {
    wait_for(&format!("the node to be {wanted}"), PATIENCE, || {
        let done = cluster.cube(&["describe", &format!("node/{}", cluster.leader.name)]);
        let page = if done.code == Some(0) { done.stdout } else { return Err(done.stderr) };
        let status = page.lines().find(|line| line.starts_with("Status:")).unwrap_or_default();
        if status.split_whitespace().nth(1) == Some(wanted) { Ok(page) } else { Err(page) }
    })
}

/// Pods of each kind before the engine ends.
fn with_pods(engine: &Engine) -> Cluster {
    let cluster = Cluster::leader_on(engine.sockets(), &[]);
    let mut never = pod("never", &[("main", RUNS)]);
    never["spec"]["restartPolicy"] = json!("Never");
    let mut once = pod("once", &[("main", "echo started")]);
    once["spec"]["restartPolicy"] = json!("OnFailure");
    cluster.wait_until_ready();
    run_pods(&cluster, &[pod("pair", &[("one", RUNS), ("two", RUNS)]), never]);
    cluster.apply(json!([once]));
    cluster.wait_for_status("once", "Completed");
    cluster
}

/// After an engine that took its containers along is back.
#[track_caller]
fn assert_came_back(cluster: &Cluster) {
    wait_for_node(cluster, "Ready");
    for container in ["one", "two"] {
        wait_for_restarts(cluster, "pair", container, 1);
    }
    let sandbox = sandbox(cluster, "pair");
    let live: Vec<_> = found(cluster, "pair").into_iter().filter(|found| found.state == "running" && found.id != sandbox).collect();
    assert_eq!(live.len(), 2, "{live:?}");
    for found in live {
        assert_eq!(cluster.docker(["inspect", "-f", "{{.HostConfig.NetworkMode}}", &found.id]), format!("container:{sandbox}"));
    }
    // What is not to run twice has not; what was done stays done.
    wait_for("the pod that is never restarted to be Failed", PATIENCE, || {
        let pod = cluster.pod("never")?;
        if pod["status"]["phase"] == "Failed" { Ok(()) } else { Err(pod.to_string()) }
    });
    for name in ["never", "once"] {
        assert_eq!(restarts(&cluster.pod(name).expect("it is there"), "main"), 0, "{name}");
        assert_eq!(found(cluster, name).iter().filter(|found| found.container == "main").count(), 1, "{name}");
    }
    assert_eq!(cluster.status("once").as_deref(), Ok("Completed"));
}

#[test]
fn pods_come_back_with_an_engine_that_was_restarted() {
    let mut engine = Engine::start(OnStop::Stops);
    let cluster = with_pods(&engine);
    engine.stop();
    engine.up();
    assert_came_back(&cluster);
}

#[test]
fn pods_come_back_with_an_engine_that_was_killed() {
    let mut engine = Engine::start(OnStop::Stops);
    let cluster = with_pods(&engine);
    engine.kill();
    engine.up();
    assert_came_back(&cluster);
}

#[test]
fn while_the_engine_is_down_the_node_says_so_and_no_pod_or_counter_is_touched() {
    let mut engine = Engine::start(OnStop::RunsOn);
    let mut cluster = Cluster::leader_on(engine.sockets(), &[]);
    cluster.wait_until_ready();
    run_pods(&cluster, &["box", "going"].map(|name| pod(name, &[("main", RUNS)])));
    cluster.apply(json!([pod("crasher", &[("main", "exit 3")])]));
    wait_for("some crashes", PATIENCE, || {
        let pod = cluster.pod("crasher")?;
        if restarts(&pod, "main") == 2 { Ok(()) } else { Err(pod.to_string()) }
    });
    let before = running(&cluster, "box");
    engine.stop();
    let page = wait_for_node(&cluster, "NotReady");
    assert!(page.contains("docker doesn't answer"), "the node says why:\n{page}");
    let crashes = restarts(&cluster.pod("crasher").expect("it is there"), "main");
    // Also a node that starts while its engine is down waits for it.
    cluster.leader.kill();
    cluster.leader.start();
    wait_for_node(&cluster, "NotReady");
    cluster.cube(&["delete", "pod/going", "--wait=false"]).ok();
    cluster.apply(json!([pod("new", &[("main", RUNS)])]));
    assert_eq!(cluster.status("box").as_deref(), Ok("Running"), "nothing is known of it that would be worse");
    let pod = cluster.pod("crasher").expect("it is there");
    assert_eq!((restarts(&pod, "main"), pod["status"]["phase"].as_str()), (crashes, Some("Running")), "{pod}");

    engine.up();
    wait_for_node(&cluster, "Ready");
    assert_eq!(running(&cluster, "box"), before, "the same containers run on");
    cluster.wait_for_status("new", "Running");
    assert_made_once(&cluster, "box");
    assert_made_once(&cluster, "new");
    wait_for("the deleted pod to be gone", PATIENCE, || match found(&cluster, "going") {
        left if left.is_empty() => Ok(()),
        left => Err(format!("{left:?}")),
    });
    wait_for("the crashes to go on where they were", PATIENCE, || {
        let pod = cluster.pod("crasher")?;
        let end = &status(&pod, "main")["lastTermination"];
        if restarts(&pod, "main") > crashes && end["exitCode"] == 3 { Ok(()) } else { Err(pod.to_string()) }
    });
}
