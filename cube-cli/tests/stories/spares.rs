//! Sandboxes that a node keeps ready.

use std::process::Command;

use serde_json::json;

use crate::cluster::{Cluster, PATIENCE, docker, run, server_binary, shell_pod, wait_for};

/// A leader that is the only node and keeps so many sandboxes ready, which are there.
fn keeping(spares: u8) -> Cluster {
    let mut cluster = Cluster::start(0);
    keep(&mut cluster, spares);
    cluster
}

/// The server is stopped and starts again, to keep so many.
fn keep(cluster: &mut Cluster, spares: u8) {
    assert_eq!(cluster.leader.terminate(), Some(0));
    cluster.leader.spares = spares;
    cluster.leader.start();
    cluster.wait_until_ready();
    wait_for_spares(cluster);
}

/// Docker's ids of the cluster's containers that run and whose name begins so.
fn named(cluster: &Cluster, prefix: &str) -> Vec<String> {
    let (node, name) = (format!("label=io.cube.node={}", cluster.leader.name), format!("name=^{prefix}"));
    let listed = docker(["ps", "-q", "--no-trunc", "--filter", &node, "--filter", &name]);
    let mut ids: Vec<_> = listed.lines().map(str::to_owned).collect();
    ids.sort();
    ids
}

fn wait_for_spares(cluster: &Cluster) -> Vec<String> {
    let wanted = usize::from(cluster.leader.spares);
    wait_for(&format!("{wanted} ready sandboxes"), PATIENCE, || {
        let ready = named(cluster, "cube__spare_");
        if ready.len() == wanted { Ok(ready) } else { Err(format!("{ready:?}")) }
    })
}

#[test]
fn a_pod_takes_a_ready_sandbox_survives_its_followers_kill_and_a_reset_leaves_nothing() {
    let mut cluster = keeping(2);
    let before = wait_for_spares(&cluster);
    let file = cluster.manifest(shell_pod("box", "sleep 1000"));
    cluster.cube(&["apply", &file, "--wait"]).ok();
    let sandbox = named(&cluster, "cube_box__");
    assert!(sandbox.len() == 1 && before.contains(&sandbox[0]), "{sandbox:?} is none of {before:?}");
    assert!(!wait_for_spares(&cluster).contains(&sandbox[0]));
    let apps = cluster.containers("box");

    cluster.leader.kill();
    cluster.leader.start();
    cluster.wait_until_ready();
    cluster.wait_for_status("box", "Running");
    let after = cluster.pod("box").expect("it is there");
    assert_eq!(after["status"]["containers"][0]["restartCount"], 0);
    assert_eq!((cluster.containers("box"), named(&cluster, "cube_box__")), (apps, sandbox));
    // The pod goes, and the sandbox with it, not back to the ready ones.
    cluster.cube(&["delete", "pod/box"]).ok();
    assert_eq!(named(&cluster, "cube_box_"), Vec::<String>::new());

    wait_for_spares(&cluster);
    assert_eq!(cluster.leader.terminate(), Some(0));
    assert_eq!(cluster.all_containers().len(), 2, "they stay when the server stops");
    let said = run(Command::new(server_binary()).arg("reset").arg("--data-dir").arg(&cluster.leader.data_dir).arg("--yes")).ok();
    assert!(said.contains("and 2 sandboxes that were kept ready"), "{said}");
    assert_eq!(cluster.all_containers(), Vec::<String>::new());
}

/// What a program can see of its sandbox, with the host name and the address as words.
fn seen(cluster: &Cluster, pod: &str) -> (String, String) {
    let sandbox = named(cluster, &format!("cube_{pod}__"));
    let address = docker(["inspect", "--format", "{{.NetworkSettings.IPAddress}}", &sandbox[0]]);
    let look =
        "hostname; echo $HOSTNAME; cat /etc/hostname /etc/hosts /etc/resolv.conf; ls /sys/class/net; cat /proc/sys/net/ipv4/ip_forward";
    let said = cluster.cube(&["exec", &format!("pod/{pod}"), "--", "sh", "-c", look]).ok();
    let name = said.lines().next().unwrap_or_default().to_owned();
    (said.replace(&name, "NAME").replace(&address, "ADDRESS"), name)
}

#[test]
fn a_program_sees_the_same_in_a_ready_sandbox_as_in_one_of_its_own_and_the_hostname_that_it_asks_for() {
    let mut cluster = keeping(1);
    let ready = wait_for_spares(&cluster);
    let pod = |name: &str| shell_pod(name, "sleep 1000");
    cluster.cube(&["apply", &cluster.manifest(pod("spared")), "--wait"]).ok();
    assert_eq!(named(&cluster, "cube_spared__"), ready);
    let mut named_pod = pod("named");
    named_pod[0]["spec"]["hostname"] = json!("front");
    cluster.cube(&["apply", &cluster.manifest(named_pod), "--wait"]).ok();
    keep(&mut cluster, 0);
    cluster.cube(&["apply", &cluster.manifest(pod("own")), "--wait"]).ok();

    let (in_ready, ready_name) = seen(&cluster, "spared");
    let (in_own, own_name) = seen(&cluster, "own");
    assert_eq!(in_ready, in_own);
    assert!(ready[0].starts_with(&ready_name) && named(&cluster, "cube_own__")[0].starts_with(&own_name), "{ready_name} {own_name}");
    let (in_named, name) = seen(&cluster, "named");
    assert_eq!((in_named, name.as_str()), (in_own, "front"));
}
