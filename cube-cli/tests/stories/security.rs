//! As whom containers run and what they may do, and what a node has to allow.

use serde_json::{Value, json};

use crate::cluster::{Cluster, PATIENCE, docker, shell_pod, wait_for};

fn secured(name: &str, script: &str, context: Value) -> Value {
    let mut pods = shell_pod(name, script);
    pods[0]["spec"]["restartPolicy"] = json!("Never");
    pods[0]["spec"]["containers"][0]["securityContext"] = context;
    pods
}

fn says(cluster: &Cluster, name: &str) -> String {
    cluster.wait_for_status(name, "Completed");
    cluster.cube(&["logs", &format!("pod/{name}"), "--container", "main"]).ok()
}

#[test]
fn a_container_runs_as_its_user_and_may_do_no_more_than_its_manifest_says() {
    let cluster = Cluster::start(0);
    let mut user = secured(
        "user",
        "id -u; id -g; id -G; touch /x 2>/dev/null || echo refused",
        json!({ "runAsUser": 1234, "readOnlyRootFilesystem": true }),
    );
    user[0]["spec"]["securityContext"] = json!({ "runAsUser": 1, "runAsGroup": 5678, "supplementalGroups": [4321], "runAsNonRoot": true });
    cluster.apply(user);
    let script = "chown 1:1 /tmp 2>/dev/null || echo refused; grep NoNewPrivs /proc/self/status";
    let context = json!({ "capabilities": { "drop": ["CHOWN"] }, "allowPrivilegeEscalation": false });
    cluster.apply(secured("dropped", script, context));
    cluster.apply(secured("kept", "chown 1:1 /tmp && echo done", json!({ "capabilities": { "drop": ["ALL"], "add": ["CHOWN"] } })));
    cluster.apply(secured("root", "true", json!({ "runAsNonRoot": true })));
    let user = says(&cluster, "user");
    assert!(user.starts_with("1234\n5678\n5678 4321\n") && user.ends_with("refused\n"), "{user}");
    let dropped = says(&cluster, "dropped");
    assert!(dropped.ends_with("refused\nNoNewPrivs:\t1\n"), "{dropped}");
    assert_eq!(says(&cluster, "kept"), "done\n");
    wait_for("the refusal of root", PATIENCE, || {
        let page = cluster.cube(&["get", "pod/root"]).ok();
        if page.contains("its image runs as root, and runAsNonRoot is true") { Ok(()) } else { Err(page) }
    });
    assert_eq!(cluster.containers("root"), Vec::<String>::new());
}

#[test]
fn what_is_as_mighty_as_the_machine_s_root_waits_for_a_node_that_allows_it() {
    let mut cluster = Cluster::start(0);
    cluster.apply(secured("privileged", "true", json!({ "privileged": true })));
    cluster.apply(secured("adds", "grep CapEff /proc/self/status", json!({ "capabilities": { "drop": ["ALL"], "add": ["NET_ADMIN"] } })));
    let mut hosts = shell_pod("hosts", "readlink /proc/self/ns/net; hostname");
    hosts[0]["spec"]["restartPolicy"] = json!("Never");
    hosts[0]["spec"]["hostNetwork"] = json!(true);
    cluster.apply(hosts);
    for (pod, words) in [
        ("privileged", "0/1 nodes fit: 1 doesn't allow privileged containers (--allow privileged)"),
        ("adds", "0/1 nodes fit: 1 doesn't allow added capabilities (--allow cap-add)"),
        ("hosts", "0/1 nodes fit: 1 doesn't allow pods in the host's network (--allow host-network)"),
    ] {
        wait_for(words, PATIENCE, || {
            let page = cluster.cube(&["get", &format!("pod/{pod}")]).ok();
            if page.contains(words) { Ok(()) } else { Err(page) }
        });
    }
    cluster.add_follower_with(&["--allow", "privileged,host-network,cap-add"]);
    // An engine that has not all of root's power itself makes such a container and can't start it: so whether it is one is looked at, and no more.
    wait_for("a privileged container", PATIENCE, || {
        let made = docker([
            "ps",
            "-a",
            "-q",
            "--filter",
            &format!("label=io.cube.node={}", cluster.followers[0].name),
            "--filter",
            "label=io.cube.pod.name=privileged",
            "--filter",
            "label=io.cube.container=main",
        ]);
        let id = made.lines().next().ok_or("none yet")?;
        if docker(["inspect", "-f", "{{.HostConfig.Privileged}}", id]) == "true" { Ok(()) } else { Err(id.to_owned()) }
    });
    assert_eq!(says(&cluster, "adds"), "CapEff:\t0000000000001000\n");
    let node = cluster.pod("adds").expect("it is there")["placement"]["node"].clone();
    assert_eq!(node, json!(cluster.followers[0].name));
    let own = std::fs::read_link("/proc/self/ns/net").expect("Linux").display().to_string();
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").expect("Linux");
    assert_eq!(says(&cluster, "hosts"), format!("{own}\n{host}"));
}
