//! A node is taken off its machine.

use std::process::Command;

use serde_json::json;

use crate::cluster::{Cluster, Done, Server, docker, run, server_binary, shell_pod};

fn reset(server: &Server, more: &[&str]) -> Done {
    run(Command::new(server_binary()).arg("reset").arg("--data-dir").arg(&server.data_dir).args(more))
}

fn of_node(node: &str) -> Vec<String> {
    let listed = docker(["ps", "-a", "-q", "--no-trunc", "--filter", &format!("label=io.cube.node={node}")]);
    listed.lines().map(str::to_owned).collect()
}

#[test]
fn a_node_that_is_reset_leaves_no_container_and_no_database_and_touches_no_other_node() {
    let mut cluster = Cluster::start(1);
    let pods: Vec<_> = (0..4).map(|n| shell_pod(&format!("p{n}"), "trap 'exit 0' TERM; sleep 1000 & wait")[0].clone()).collect();
    let file = cluster.manifest(json!(pods));
    cluster.cube(&["apply", &file, "--wait"]).ok();
    let (leader, follower) = (cluster.leader.name.clone(), cluster.followers[0].name.clone());
    let leaders = of_node(&leader);
    assert_eq!((leaders.len(), of_node(&follower).len()), (4, 4), "two pods each, with their sandboxes");

    let refused = reset(&cluster.followers[0], &["--yes"]).fails_with(1);
    assert!(refused.contains(&format!("process {}", cluster.followers[0].pid())) && refused.contains("stop it first"), "{refused}");
    assert_eq!(cluster.followers[0].terminate(), Some(0));
    let refused = reset(&cluster.followers[0], &[]).fails_with(1);
    assert!(refused.contains("--yes"), "{refused}");
    assert_eq!(of_node(&follower).len(), 4, "a refusal removes nothing");
    let said = reset(&cluster.followers[0], &["--yes"]).ok();
    assert!(said.contains("4 containers of 2 pods") && said.contains(&format!("`cube delete node/{follower} --force`")), "{said}");
    assert_eq!((of_node(&follower), of_node(&leader)), (Vec::new(), leaders));
    assert!(!cluster.followers[0].data_dir.join("follower.db").exists());
    assert!(
        reset(&cluster.followers[0], &["--yes"]).fails_with(1).contains("choose one of those"),
        "it doesn't know the leader's for its own"
    );

    // Without a ledger nothing is guessed; the leader's own state goes only when that is said.
    let cluster_id = docker(["inspect", "--format", "{{index .Config.Labels \"io.cube.cluster\"}}", &of_node(&leader)[0]]);
    let folder = cluster.leader.data_dir.clone();
    assert_eq!(cluster.leader.terminate(), Some(0));
    for file in ["follower.db", "follower.db-wal", "follower.db-shm"] {
        drop(std::fs::remove_file(folder.join(file)));
    }
    let refused = reset(&cluster.leader, &["--yes"]).fails_with(1);
    assert!(refused.contains(&format!("--cluster-id {cluster_id} --name {leader}")), "{refused}");
    reset(&cluster.leader, &["--yes", "--cluster-id", &cluster_id, "--name", &leader]).ok();
    assert_eq!(of_node(&leader), Vec::<String>::new());
    assert!(folder.join("leader.db").exists() && folder.join("token").exists());
    reset(&cluster.leader, &["--yes", "--everything"]).ok();
    assert!(!folder.join("leader.db").exists() && !folder.join("token").exists());
}
