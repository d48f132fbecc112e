//! A follower is killed between what it asked of the engine and what it heard: nothing is made twice, nothing restarts.

use serde_json::json;

use crate::cluster::{Cluster, PATIENCE, wait_for};
use crate::pods::{RUNS, assert_made_once, container, found, pod, restarts, run_pods, status, wait_for_restarts};
use crate::proxy::{Calls, Point, Proxy};

/// What becomes of the call during which the follower was killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    /// The engine never heard of it.
    NeverCame,
    /// The engine hears of it when the restarted follower has done its own.
    CameLate,
    /// The engine did it, the answer was lost.
    AnswerLost,
}

const ALL: [Then; 3] = [Then::NeverCame, Then::CameLate, Then::AnswerLost];

fn one_node(proxy: &Proxy) -> Cluster {
    let mut cluster = Cluster::leader_on(proxy.sockets(), &["--no-pods"]);
    cluster.add_follower();
    cluster
}

/// Kills the only follower at a call that making the pod needs.
fn kill_at(cluster: &mut Cluster, proxy: &Proxy, name: &str, calls: Calls, then: Then) {
    let point = if then == Then::AnswerLost { Point::After } else { Point::Before };
    let held = proxy.hold_next(point, calls);
    cluster.apply(json!([pod(name, &[("main", RUNS)])]));
    held.arrived();
    cluster.followers[0].kill();
    if then != Then::CameLate {
        held.discard();
    }
    cluster.followers[0].start();
    cluster.wait_for_status(name, "Running");
    if then == Then::CameLate {
        held.let_through();
        // The follower has looked again when it has heard of what it did not do.
        cluster.cube(&["exec", &format!("pod/{name}"), "--", "true"]).ok();
    }
    assert_made_once(cluster, name);
}

#[test]
fn a_follower_killed_at_a_create_makes_nothing_twice() {
    let proxy = Proxy::start();
    let mut cluster = one_node(&proxy);
    for (n, then) in ALL.into_iter().enumerate() {
        let (first, second) = (format!("a{n}"), format!("b{n}"));
        kill_at(&mut cluster, &proxy, &first, Calls::new("POST", format!("/containers/create?name=cube_{first}__")), then);
        kill_at(&mut cluster, &proxy, &second, Calls::new("POST", format!("/containers/create?name=cube_{second}_main_")), then);
    }
}

#[test]
fn a_follower_killed_at_a_start_starts_nothing_twice() {
    let proxy = Proxy::start();
    let mut cluster = one_node(&proxy);
    for (n, then) in ALL.into_iter().enumerate() {
        // The sandbox is started before any container.
        kill_at(&mut cluster, &proxy, &format!("a{n}"), Calls::new("POST", "/start"), then);
        kill_at(&mut cluster, &proxy, &format!("b{n}"), Calls::new("POST", "/start").after(1), then);
    }
}

#[test]
fn a_follower_killed_at_a_stop_or_a_removal_leaves_nothing_behind() {
    let proxy = Proxy::start();
    let mut cluster = one_node(&proxy);
    for (n, then) in ALL.into_iter().enumerate() {
        for (kind, method, part) in [("stop", "POST", "/kill"), ("remove", "DELETE", "/containers/")] {
            let name = format!("{kind}{n}");
            run_pods(&cluster, &[pod(&name, &[("main", RUNS)])]);
            let point = if then == Then::AnswerLost { Point::After } else { Point::Before };
            let held = proxy.hold_next(point, Calls::new(method, part));
            cluster.cube(&["delete", &format!("pod/{name}"), "--wait=false"]).ok();
            held.arrived();
            cluster.followers[0].kill();
            if then != Then::CameLate {
                held.discard();
            }
            cluster.followers[0].start();
            wait_for("the pod to be gone", PATIENCE, || match cluster.pod(&name) {
                Ok(pod) => Err(pod.to_string()),
                Err(refused) if refused.contains("not found") || refused.contains("no such") => Ok(()),
                Err(other) => Err(other),
            });
            held.let_through();
            assert_eq!(found(&cluster, &name), []);
        }
    }
}

#[test]
fn a_create_that_comes_when_its_pod_is_gone_is_found_and_removed() {
    let proxy = Proxy::start();
    let mut cluster = one_node(&proxy);
    let held = proxy.hold_next(Point::Before, Calls::new("POST", "/containers/create?name=cube_box__"));
    cluster.apply(json!([pod("box", &[("main", RUNS)])]));
    held.arrived();
    cluster.followers[0].kill();
    cluster.followers[0].start();
    cluster.wait_for_status("box", "Running");
    cluster.cube(&["delete", "pod/box"]).ok();
    assert_eq!(found(&cluster, "box"), []);
    held.let_through();
    assert_eq!(found(&cluster, "box").len(), 1, "the engine made it, for nobody");
    wait_for("nothing to be left", PATIENCE, || match found(&cluster, "box") {
        left if left.is_empty() => Ok(()),
        left => Err(format!("{left:?}")),
    });
}

/// A process that ends when the test says so.
const ENDS_ON_CALL: &str = "echo started; until [ -e /tmp/end ]; do sleep 0.05; done; exit 3";

#[test]
fn an_end_that_a_killed_follower_did_not_see_is_counted_once() {
    let proxy = Proxy::start();
    let mut cluster = one_node(&proxy);
    let mut never = pod("never", &[("main", ENDS_ON_CALL)]);
    never["spec"]["restartPolicy"] = json!("Never");
    run_pods(&cluster, &[never, pod("always", &[("main", ENDS_ON_CALL)])]);
    let ids = ["never", "always"].map(|name| container(&cluster, name, "main"));
    // From now on the follower learns nothing of any container.
    let blind = proxy.hold_all(Point::Before, Calls::new("GET", "/containers/"));
    for id in &ids {
        cluster.docker(["exec", id, "mkdir", "-p", "/tmp"]);
        cluster.docker(["exec", id, "touch", "/tmp/end"]);
    }
    for id in &ids {
        cluster.docker(["wait", id]);
    }
    cluster.followers[0].kill();
    blind.discard();
    cluster.followers[0].start();
    let pod = wait_for_restarts(&cluster, "always", "main", 1);
    assert_eq!(status(&pod, "main")["lastTermination"]["exitCode"], 3, "{pod}");
    cluster.wait_for_status("never", "Error");
    let pod = cluster.pod("never").expect("it is there");
    assert_eq!((restarts(&pod, "main"), &status(&pod, "main")["state"]["terminated"]["exitCode"]), (0, &json!(3)), "{pod}");
    let attempts = |name| found(&cluster, name).into_iter().filter(|found| found.container == "main").count();
    assert_eq!((attempts("never"), attempts("always")), (1, 2));
}

#[test]
fn an_end_that_was_seen_but_not_reported_is_told_once() {
    let proxy = Proxy::start();
    let mut cluster = one_node(&proxy);
    run_pods(&cluster, &[pod("box", &[("main", RUNS)])]);
    let first = container(&cluster, "box", "main");
    cluster.leader.kill();
    cluster.docker(["kill", &first]);
    wait_for("the next attempt", PATIENCE, || {
        let found = found(&cluster, "box");
        if found.iter().any(|found| found.attempt == 1 && found.state == "running") { Ok(()) } else { Err(format!("{found:?}")) }
    });
    cluster.followers[0].kill();
    cluster.leader.start();
    cluster.followers[0].start();
    wait_for_restarts(&cluster, "box", "main", 1);
    wait_for("the crash in the events", PATIENCE, || {
        let page = cluster.cube(&["get", "pod/box"]).ok();
        if page.contains("Crashed") { Ok(page) } else { Err(page) }
    });
    let page = cluster.cube(&["get", "pod/box"]).ok();
    assert_eq!(page.lines().filter(|line| line.contains("Crashed")).count(), 1, "{page}");
    assert!(!page.contains("Crashed (x"), "{page}");
}
