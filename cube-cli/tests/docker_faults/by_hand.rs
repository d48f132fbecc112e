//! People with `docker` in their hands: what they do to containers and sandboxes is noticed, counted once, and made good.

use std::fs;

use serde_json::{Value, json};

use crate::cluster::{BUSYBOX, Cluster, PATIENCE, docker, run, wait_for};
use crate::pods::{RUNS, container, found, pod, restarts, run_pods, running, sandbox, status, wait_for_restarts};

#[test]
fn a_container_removed_killed_stopped_or_restarted_by_hand_is_running_again_and_counted_once() {
    let cluster = Cluster::start(0);
    let names = ["removed", "killed", "stopped", "restarted"];
    run_pods(&cluster, &names.map(|name| pod(name, &[("main", RUNS)])));
    let before = names.map(|name| container(&cluster, name, "main"));
    docker(["rm", "-f", &before[0]]);
    docker(["kill", &before[1]]);
    docker(["stop", &before[2]]);
    docker(["restart", &before[3]]);
    let last = |name: &str| {
        let pod = wait_for_restarts(&cluster, name, "main", 1);
        let end = &status(&pod, "main")["lastTermination"];
        (end["exitCode"].clone(), end["reason"].clone())
    };
    // Nobody knows how a container ended that is gone; it may have been killed on the way.
    let (_, reason) = last("removed");
    assert!(["Unknown", "Error"].contains(&reason.as_str().unwrap_or_default()), "{reason}");
    assert_eq!(last("killed"), (json!(137), json!("Error")));
    assert_eq!(last("stopped"), (json!(143), json!("Error")));
    last("restarted");
    for name in names {
        // `docker restart` may start the old container when the new one is made already: the next look removes it.
        wait_for("the sandbox and one container", PATIENCE, || match running(&cluster, name) {
            live if live.len() == 2 => Ok(()),
            live => Err(format!("{name}: {live:?}")),
        });
    }
}

#[test]
fn a_container_paused_by_hand_is_left_so_and_said_goes_on_and_can_be_deleted() {
    let cluster = Cluster::start(0);
    run_pods(&cluster, &[pod("box", &[("main", RUNS)])]);
    let paused = container(&cluster, "box", "main");
    docker(["pause", &paused]);
    let told = || -> Result<bool, String> {
        Ok(cluster.pod("box")?["status"]["message"].as_str().is_some_and(|message| message.contains("paused by hand: main")))
    };
    let wait_until_told =
        |wanted| {
            wait_for("the pause to be told, or not any more", PATIENCE, || {
                if told()? == wanted { Ok(()) } else { Err(format!("not {wanted}")) }
            });
        };
    wait_until_told(true);
    docker(["unpause", &paused]);
    wait_until_told(false);
    assert_eq!(restarts(&cluster.pod("box").expect("it is there"), "main"), 0);
    assert_eq!(container(&cluster, "box", "main"), paused);
    docker(["pause", &paused]);
    docker(["pause", &sandbox(&cluster, "box")]);
    wait_until_told(true);
    cluster.cube(&["delete", "pod/box"]).ok();
    assert_eq!(found(&cluster, "box"), []);
}

#[test]
fn a_sandbox_killed_restarted_removed_or_stopped_by_hand_brings_all_containers_into_one_new_network() {
    let cluster = Cluster::start(0);
    let names = ["killed", "restarted", "removed", "stopped"];
    run_pods(&cluster, &names.map(|name| pod(name, &[("one", RUNS), ("two", RUNS)])));
    let before: Vec<_> = names.iter().flat_map(|name| running(&cluster, name)).collect();
    docker(["kill", &sandbox(&cluster, "killed")]);
    docker(["restart", &sandbox(&cluster, "restarted")]);
    docker(["rm", "-f", &sandbox(&cluster, "removed")]);
    docker(["stop", &sandbox(&cluster, "stopped")]);
    for name in names {
        for container in ["one", "two"] {
            wait_for_restarts(&cluster, name, container, 1);
        }
        let after = running(&cluster, name);
        assert_eq!(after.len(), 3, "{name}");
        assert!(after.iter().all(|id| !before.contains(id)), "the whole pod is made anew: {name}");
        let networks: Vec<_> = after.iter().map(|id| network(id)).collect();
        assert!(networks.iter().all(|network| *network == networks[0]), "{name}: {networks:?}");
    }
}

/// The network namespace of a container's process, as the kernel tells it.
fn network(id: &str) -> String {
    let process = docker(["inspect", "-f", "{{.State.Pid}}", id]);
    fs::read_link(format!("/proc/{process}/ns/net")).expect("its process runs on this machine").display().to_string()
}

/// A container of nobody's. Dropping it removes it.
struct Foreign(String);

impl Foreign {
    fn named(name: &str) -> Self {
        Self(docker(["run", "-d", "--name", name, BUSYBOX, "sleep", "1000"]))
    }

    fn is_untouched(&self) -> bool {
        docker(["inspect", "-f", "{{.State.Running}} {{.RestartCount}}", &self.0]) == "true 0"
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        run(std::process::Command::new("docker").args(["rm", "-f", &self.0]));
    }
}

#[test]
fn a_foreign_container_with_the_very_name_is_untouched_the_pod_says_so_and_goes_on_without_it() {
    let cluster = Cluster::start(0);
    run_pods(&cluster, &[pod("app", &[("main", RUNS)]), pod("net", &[("main", RUNS)])]);
    let uid = |name: &str| cluster.pod(name).expect("it is there")["metadata"]["uid"].as_str().expect("a string").to_owned();
    let app = Foreign::named(&format!("cube_app_main_{}_1", uid("app")));
    let net = Foreign::named(&format!("cube_net__{}_1", uid("net")));
    docker(["kill", &container(&cluster, "app", "main")]);
    docker(["kill", &sandbox(&cluster, "net")]);
    for name in ["app", "net"] {
        wait_for("the pod to name who is in its way", PATIENCE, || {
            let page = cluster.cube(&["get", &format!("pod/{name}")]).ok();
            let told = page.contains(&format!("cube_{name}_")) && page.contains("remove or rename it");
            if told && cluster.status(name)? == "CreateContainerError" { Ok(()) } else { Err(page) }
        });
    }
    assert!(app.is_untouched() && net.is_untouched());
    // One is renamed, as the pod says; one is removed.
    docker(["rename", &app.0, &format!("renamed-{}", uid("app"))]);
    drop(net);
    for name in ["app", "net"] {
        cluster.wait_for_status(name, "Running");
    }
    assert!(app.is_untouched());
}

#[test]
fn a_foreign_container_with_the_labels_of_another_cluster_is_untouched() {
    let cluster = Cluster::start(0);
    run_pods(&cluster, &[pod("app", &[("main", RUNS)])]);
    let ours = container(&cluster, "app", "main");
    let labels: Value = serde_json::from_str(&docker(["inspect", "-f", "{{json .Config.Labels}}", &ours])).expect("json");
    let mut command = std::process::Command::new("docker");
    command.args(["run", "-d"]);
    for (key, value) in labels.as_object().expect("a map") {
        let value = if key == "io.cube.cluster" { "00000000-0000-0000-0000-000000000000" } else { value.as_str().expect("a string") };
        command.arg("--label").arg(format!("{key}={value}"));
    }
    let foreign = Foreign(run(command.args([BUSYBOX, "sleep", "1000"])).ok().trim().to_owned());
    docker(["kill", &ours]);
    wait_for_restarts(&cluster, "app", "main", 1);
    cluster.cube(&["delete", "pod/app"]).ok();
    assert!(foreign.is_untouched());
}

#[test]
fn a_pod_that_breeds_zombies_and_ignores_its_stop_signal_is_gone_after_its_grace() {
    let cluster = Cluster::start(0);
    // Its children are orphaned, and end when process 1 is `sleep`, which reaps nobody.
    let breeds = "trap '' TERM; for n in $(seq 50); do (sleep 4 &) ; done; exec sleep 1000";
    run_pods(&cluster, &[pod("breeder", &[("main", breeds)])]);
    let id = container(&cluster, "breeder", "main");
    wait_for("zombies", PATIENCE, || {
        let states = docker(["exec", &id, "sh", "-c", "cat /proc/[0-9]*/stat"]);
        let zombies = states.lines().filter(|line| line.contains(") Z ")).count();
        if zombies >= 40 { Ok(()) } else { Err(format!("{zombies} zombies")) }
    });
    let process = docker(["inspect", "-f", "{{.State.Pid}}", &id]);
    assert_eq!(cluster.cube(&["exec", "pod/breeder", "--", "echo", "alive"]).ok(), "alive\n");
    cluster.cube(&["delete", "pod/breeder", "--timeout", "20s"]).ok();
    assert_eq!(found(&cluster, "breeder"), []);
    assert!(!fs::exists(format!("/proc/{process}")).expect("readable"), "its process is gone too");
}
