//! Servers are killed, restarted and started in the wrong order; nothing acknowledged is lost and no container is restarted for it.

use std::process::Command;
use std::time::Duration;

use serde_json::json;

use crate::cluster::{Cluster, PATIENCE, docker, run, server_binary, shell_pod, wait_for};

#[test]
fn a_follower_that_starts_before_its_leader_joins_once_the_leader_is_there() {
    let mut cluster = Cluster::leader_only(&["--no-pods"]);
    cluster.leader.kill();
    let follower = cluster.add_follower();
    wait_for("the follower to say why it waits", PATIENCE, || {
        let log = follower.log();
        if log.contains("can't connect to the leader") { Ok(()) } else { Err(log) }
    });
    cluster.leader.start();
    wait_for("the follower to be Ready", PATIENCE, || {
        let done = cluster.cube(&["nodes"]);
        if done.stdout.contains("Ready") && done.stdout.contains("Follower") { Ok(()) } else { Err(format!("{done:?}")) }
    });
}

#[test]
fn servers_killed_at_any_time_lose_nothing_and_restart_no_container() {
    let mut cluster = Cluster::start(1);
    let pods: Vec<_> = (0..4).map(|n| shell_pod(&format!("p{n}"), "echo hello; sleep 1000")[0].clone()).collect();
    let file = cluster.manifest(json!(pods));
    cluster.cube(&["apply", &file, "--wait"]).ok();
    let names: Vec<String> = (0..4).map(|n| format!("p{n}")).collect();
    let ids = |cluster: &Cluster| names.iter().flat_map(|name| cluster.containers(name)).collect::<Vec<_>>();
    let before = ids(&cluster);
    assert_eq!(before.len(), 4);
    let uids = |cluster: &Cluster| {
        names.iter().map(|name| cluster.pod(name).map(|pod| pod["metadata"]["uid"].clone())).collect::<Result<Vec<_>, _>>()
    };
    let uids_before = uids(&cluster).expect("all are there");

    for _ in 0..3 {
        cluster.leader.kill();
        cluster.followers[0].kill();
        cluster.leader.start();
        cluster.followers[0].start();
    }
    cluster.wait_until_ready();
    wait_for("the same pods", PATIENCE, || if uids(&cluster)? == uids_before { Ok(()) } else { Err("others".to_owned()) });
    for name in &names {
        cluster.wait_for_status(name, "Running");
        assert_eq!(cluster.pod(name).expect("it is there")["status"]["containers"][0]["restartCount"], 0);
    }
    assert_eq!(ids(&cluster), before, "the same containers run on");
    assert_eq!(cluster.cube(&["logs", "pod/p0", "--container", "main"]).ok(), "hello\n");
    cluster.cube(&["delete", "pod/p0", "pod/p1", "pod/p2", "pod/p3"]).ok();
    assert_eq!(cluster.all_containers(), Vec::<String>::new());
}

#[test]
fn every_acknowledged_apply_is_there_after_the_leader_is_killed_in_the_middle() {
    let mut cluster = Cluster::leader_only(&["--no-pods"]);
    let mut acknowledged = Vec::new();
    for round in 0..5 {
        let files: Vec<_> = (0..8).map(|n| cluster.manifest(shell_pod(&format!("r{round}-{n}"), "true"))).collect();
        let mut children: Vec<_> = files
            .iter()
            .map(|file| cluster.command(&["apply", file]).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn())
            .map(|child| child.expect("cube starts"))
            .collect();
        // Killed as soon as the first is through, with the others anywhere.
        children[0].wait().expect("it ends");
        cluster.leader.kill();
        for (n, mut child) in children.into_iter().enumerate() {
            if child.wait().expect("it ends").success() {
                acknowledged.push(format!("r{round}-{n}"));
            }
        }
        cluster.leader.start();
        wait_for("the leader", PATIENCE, || match cluster.cube(&["nodes"]) {
            done if done.code == Some(0) => Ok(()),
            done => Err(done.stderr),
        });
    }
    assert!(acknowledged.len() >= 5, "at least the first of each round was acknowledged");
    let listed = cluster.cube(&["list", "pod", "-o", "name"]).ok();
    for name in acknowledged {
        assert!(listed.lines().any(|line| line == format!("pod/{name}")), "{name} was acknowledged and is lost:\n{listed}");
    }
}

#[test]
fn without_a_leader_crashed_containers_are_restarted_and_their_events_arrive_later() {
    let mut cluster = Cluster::leader_only(&["--no-pods"]);
    cluster.add_follower();
    let file = cluster.manifest(shell_pod("box", "sleep 1000"));
    cluster.cube(&["apply", &file, "--wait"]).ok();
    let before = cluster.containers("box");
    cluster.leader.kill();
    docker(["kill", &before[0]]);
    wait_for("a new container, without a leader", PATIENCE, || {
        let now = cluster.containers("box");
        if now.len() == 1 && now != before { Ok(()) } else { Err(format!("{now:?}")) }
    });
    cluster.leader.start();
    wait_for("the crash in the events", PATIENCE, || {
        let done = cluster.cube(&["get", "pod/box"]);
        if done.stdout.contains("Crashed") && done.stdout.contains("137") { Ok(()) } else { Err(format!("{done:?}")) }
    });
    assert_eq!(cluster.pod("box").expect("it is there")["status"]["containers"][0]["restartCount"], 1);
}

#[test]
fn crash_counters_and_backoff_survive_a_killed_follower() {
    let mut cluster = Cluster::start(0);
    let mut manifest = shell_pod("crasher", "exit 3");
    manifest[0]["spec"]["restart"] = json!({ "limit": 4 });
    cluster.apply(manifest);
    cluster.wait_for_status("crasher", "CrashLoopBackOff");
    cluster.leader.kill();
    cluster.leader.start();
    cluster.wait_for_status("crasher", "CrashLimit");
    let pod = cluster.pod("crasher").expect("it is there");
    assert_eq!(pod["status"]["containers"][0]["restartCount"], 3, "four starts in all, whoever counted them: {pod}");
}

#[test]
fn a_stopped_server_leaves_its_pods_running() {
    let mut cluster = Cluster::start(1);
    let pods: Vec<_> = (0..2).map(|n| shell_pod(&format!("p{n}"), "sleep 1000")[0].clone()).collect();
    let file = cluster.manifest(json!(pods));
    cluster.cube(&["apply", &file, "--wait"]).ok();
    let before = cluster.all_containers();
    assert_eq!(cluster.followers[0].terminate(), Some(0));
    assert_eq!(cluster.leader.terminate(), Some(0));
    assert_eq!(cluster.all_containers(), before);
    let running = docker(["inspect", "-f", "{{.State.Running}}", &before[0]]);
    assert_eq!(running, "true");
}

#[test]
fn a_node_that_is_away_is_not_ready_with_the_reason() {
    let mut cluster = Cluster::start(1);
    cluster.followers[0].kill();
    let name = cluster.followers[0].name.clone();
    wait_for("NotReady", Duration::from_secs(30), || {
        let table = cluster.cube(&["nodes"]).ok();
        let row = table.lines().find(|line| line.contains(&name)).unwrap_or_default();
        if row.contains("NotReady") { Ok(()) } else { Err(table.clone()) }
    });
    assert!(cluster.cube(&["nodes", "-o", "wide"]).ok().contains("no session"), "the reason is shown");
}

#[test]
fn a_killed_followers_pod_runs_on_another_node_and_is_stopped_where_it_was_when_that_is_back() {
    let mut cluster = Cluster::leader_only(&["--no-pods", "--node-not-ready-after", "1s", "--node-lost-after", "3s"]);
    for _ in 0..2 {
        cluster.add_follower();
    }
    wait_for("both followers to be Ready", PATIENCE, || {
        let table = cluster.cube(&["nodes"]).ok();
        if table.matches(" Ready").count() == 2 { Ok(()) } else { Err(table) }
    });
    let file = cluster.manifest(shell_pod("web", "sleep 1000"));
    cluster.cube(&["apply", &file, "--wait"]).ok();
    let node = |cluster: &Cluster| cluster.pod("web").map(|pod| pod["placement"]["node"].as_str().unwrap_or_default().to_owned());
    let (before, old) = (node(&cluster).expect("it is there"), cluster.containers("web"));
    let place = cluster.followers.iter().position(|follower| follower.name == before).expect("one of them");
    cluster.followers[place].kill();

    wait_for("the pod on the other node", PATIENCE, || match node(&cluster) {
        Ok(now) if now != before && !now.is_empty() => Ok(()),
        other => Err(format!("{other:?}")),
    });
    cluster.wait_for_status("web", "Running");
    let page = cluster.cube(&["get", "pod/web"]).ok();
    assert!(page.contains("NodeLost") && page.contains(&format!("node {before} is lost")), "{page}");
    assert!(cluster.cube(&["nodes", "-o", "wide"]).ok().contains("no session for more than 3s: its pods are replaced elsewhere"));
    assert!(cluster.containers("web").contains(&old[0]), "nobody could stop it");

    cluster.followers[place].start();
    let left = wait_for("the end of the old container", PATIENCE, || match cluster.containers("web") {
        now if now.len() == 1 => Ok(now),
        now => Err(format!("{now:?}")),
    });
    assert_ne!(left, old);
    cluster.wait_for_status("web", "Running");
    cluster.cube(&["delete", "pod/web"]).ok();
    assert_eq!(cluster.all_containers(), Vec::<String>::new());
}

#[test]
fn containers_of_others_are_never_touched() {
    let cluster = Cluster::start(0);
    // A look-alike: the labels of another cluster's node, and a name like cube's.
    let name = format!("cube_box_main_{}", cluster.leader.name);
    let foreign = docker([
        "run",
        "-d",
        "--name",
        &name,
        "--label",
        "io.cube.cluster=00000000-0000-0000-0000-000000000000",
        "--label",
        "io.cube.pod.name=box",
        "busybox:latest",
        "sleep",
        "1000",
    ]);
    let file = cluster.manifest(shell_pod("box", "sleep 1000"));
    cluster.cube(&["apply", &file, "--wait"]).ok();
    cluster.cube(&["delete", "pod/box"]).ok();
    let alive = docker(["inspect", "-f", "{{.State.Running}}", &foreign]);
    run(Command::new("docker").args(["rm", "-f", &foreign])).ok();
    assert_eq!(alive, "true");
}

#[test]
fn what_a_server_keeps_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let cluster = Cluster::start(0);
    let kept = std::fs::read_dir(&cluster.leader.data_dir).expect("its data folder").map(|entry| entry.expect("a file").path());
    let files: Vec<_> = kept.filter(|path| path.is_file()).collect();
    assert!(files.len() >= 4, "two databases, a lock and a token: {files:?}");
    for path in files {
        let mode = path.metadata().expect("it is there").permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{}", path.display());
    }
}

#[test]
fn a_second_process_on_a_data_folder_is_refused() {
    let cluster = Cluster::leader_only(&["--no-pods"]);
    let data_dir = cluster.leader.data_dir.display().to_string();
    let done = run(Command::new(server_binary()).args(["leader", "--listen", "127.0.0.1:0", "--no-pods", "--data-dir", &data_dir]));
    let refused = done.fails_with(1);
    assert!(refused.contains("in use by another cube-server") && refused.contains(&cluster.leader.pid().to_string()), "{refused}");
}
