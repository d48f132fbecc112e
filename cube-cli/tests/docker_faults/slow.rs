//! An engine that answers late, or not, or loses its answers: that is its trouble and no pod's, and one stuck container is one pod's.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::cluster::{Cluster, PATIENCE, wait_for};
use crate::pods::{RUNS, assert_made_once, container, pod, restarts, run_pods, running};
use crate::proxy::{Calls, Point, Proxy};

#[test]
fn answers_that_are_lost_make_nothing_twice_and_count_for_nothing() {
    let proxy = Proxy::start();
    let cluster = Cluster::leader_on(proxy.sockets(), &[]);
    cluster.wait_until_ready();
    let lost: Vec<_> = ["/containers/create?name=cube_box__", "/start", "/containers/create?name=cube_box_main_"]
        .into_iter()
        .map(|part| proxy.hold_next(Point::After, Calls::new("POST", part)))
        .chain([proxy.hold_next(Point::After, Calls::new("POST", "/start").after(1))])
        .collect();
    cluster.apply(json!([pod("box", &[("main", RUNS)])]));
    std::thread::scope(|scope| {
        for held in &lost {
            scope.spawn(|| {
                held.arrived();
                held.discard();
            });
        }
    });
    cluster.wait_for_status("box", "Running");
    assert_made_once(&cluster, "box");
    let page = cluster.cube(&["get", "pod/box"]).ok();
    assert!(page.contains("EngineTrouble"), "it is told whose trouble it was:\n{page}");
}

#[test]
fn an_engine_that_is_slow_in_everything_is_only_slow() {
    let proxy = Proxy::start();
    for method in ["GET", "POST", "DELETE"] {
        proxy.delay(Calls::new(method, "/"), Duration::from_millis(300));
    }
    let cluster = Cluster::leader_on(proxy.sockets(), &[]);
    cluster.wait_until_ready();
    run_pods(&cluster, &["a", "b", "c"].map(|name| pod(name, &[("main", RUNS)])));
    for name in ["a", "b", "c"] {
        assert_made_once(&cluster, name);
    }
    assert_eq!(cluster.cube(&["logs", "pod/a", "--container", "main"]).ok(), "started\n");
    assert_eq!(cluster.cube(&["exec", "pod/a", "--", "sh", "-c", "exit 7"]).code, Some(7));
    cluster.cube(&["delete", "pod/a", "pod/b", "pod/c"]).ok();
    assert_eq!(cluster.all_containers(), Vec::<String>::new());
}

#[test]
fn a_start_that_hangs_holds_up_its_own_pod_alone() {
    let proxy = Proxy::start();
    let cluster = Cluster::leader_on(proxy.sockets(), &[]);
    cluster.wait_until_ready();
    let held = proxy.hold_next(Point::Before, Calls::new("POST", "/start"));
    cluster.apply(json!([pod("stuck", &[("main", RUNS)])]));
    held.arrived();
    run_pods(&cluster, &["a", "b"].map(|name| pod(name, &[("main", RUNS)])));
    assert_eq!(cluster.status("stuck").as_deref(), Ok("ContainerCreating"));
    held.let_through();
    cluster.wait_for_status("stuck", "Running");
    for name in ["stuck", "a", "b"] {
        assert_made_once(&cluster, name);
    }
}

/// Docker answers nothing about a container that is stuck in the kernel or in its runtime, and everything about the others.
#[test]
fn a_container_that_docker_is_silent_about_holds_up_its_own_pod_alone_also_after_a_restart() {
    let proxy = Proxy::start();
    let mut cluster = Cluster::leader_on(proxy.sockets(), &[]);
    cluster.wait_until_ready();
    run_pods(&cluster, &["stuck", "other"].map(|name| pod(name, &[("main", RUNS)])));
    let before = ["stuck", "other"].map(|name| running(&cluster, name));
    let id = container(&cluster, "stuck", "main");
    let silent = proxy.hold_all(Point::Before, Calls::new("GET", format!("/containers/{id}/json")));
    cluster.leader.kill();
    cluster.leader.start();
    silent.arrived();
    let start = Instant::now();
    cluster.wait_until_ready();
    run_pods(&cluster, &[pod("new", &[("main", RUNS)])]);
    cluster.docker(["kill", &container(&cluster, "other", "main")]);
    wait_for("the other pod's restart", PATIENCE, || {
        let pod = cluster.pod("other")?;
        if restarts(&pod, "main") == 1 { Ok(()) } else { Err(pod.to_string()) }
    });
    assert!(start.elapsed() < Duration::from_secs(20), "the others didn't wait for it: {:?}", start.elapsed());
    wait_for("the stuck pod to say what it waits for", PATIENCE, || {
        let page = cluster.cube(&["get", "pod/stuck"]).ok();
        if page.contains("docker can't inspect a container: no answer about 'cube_stuck_main_") { Ok(()) } else { Err(page) }
    });
    silent.let_through();
    wait_for("the stuck pod to be known again", PATIENCE, || {
        let done = cluster.cube(&["exec", "pod/stuck", "--", "true"]);
        if done.code == Some(0) { Ok(()) } else { Err(done.stderr) }
    });
    assert_eq!(running(&cluster, "stuck"), before[0]);
    assert_eq!(restarts(&cluster.pod("stuck").expect("it is there"), "main"), 0);
}
