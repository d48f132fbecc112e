//! Nodes that people look after.

use std::process::Stdio;

use serde_json::{Value, json};

use crate::cluster::{Cluster, PATIENCE, shell_pod, wait_for};

/// What a drained node's row says of what is left there.
fn left(cluster: &Cluster, node: &str) -> Result<Vec<Value>, String> {
    let done = cluster.cube(&["get", &format!("node/{node}"), "-o", "json"]);
    let node: Value = serde_json::from_str(&done.stdout).map_err(|error| format!("{error}: {}", done.stderr))?;
    Ok(node["cordon"]["drain"]["left"].as_array().cloned().unwrap_or_default())
}

#[test]
fn a_drain_goes_on_over_a_kill_of_the_leader_and_the_pods_run_on_elsewhere() {
    let mut cluster = Cluster::start(2);
    let [leader, one, two] = [&cluster.leader, &cluster.followers[0], &cluster.followers[1]].map(|server| server.name.clone());
    cluster.cube(&["cordon", &leader, &two, "--reason", "not these"]).ok();
    let mut slow = shell_pod("slow", "trap '' TERM; while :; do sleep 1; done")[0].clone();
    slow["spec"]["terminationGracePeriodSeconds"] = json!(5);
    let mut job = shell_pod("job", "sleep 8")[0].clone();
    job["spec"]["restartPolicy"] = json!("Never");
    let web = shell_pod("web", "trap exit TERM; while :; do sleep 1; done")[0].clone();
    let file = cluster.manifest(json!([web, slow, job]));
    cluster.cube(&["apply", &file, "--wait"]).ok();
    let before = cluster.pod("slow").expect("it is there")["metadata"]["uid"].clone();
    cluster.cube(&["uncordon", &two]).ok();

    let drain = cluster.command(&["drain", &one]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("cube starts");
    wait_for("a drain in the middle", PATIENCE, || {
        let left = left(&cluster, &one)?;
        if left.iter().any(|pod| pod["name"] == "slow" && pod["step"] == "stopping") { Ok(()) } else { Err(format!("{left:?}")) }
    });
    cluster.leader.kill();
    cluster.leader.start();
    let drained = drain.wait_with_output().expect("it ends");
    let (told, said) = (String::from_utf8_lossy(&drained.stdout), String::from_utf8_lossy(&drained.stderr));
    assert_eq!(drained.status.code(), Some(0), "{told}{said}");
    for line in [
        format!("node/{one} cordoned"),
        "pod/slow: stopping (5s grace)".to_owned(),
        format!("pod/slow: stopped; placed on {two}"),
        format!("pod/web: stopped; placed on {two}"),
        "pod/job: stays: restartPolicy Never: it would not be run again, so its end is waited for".to_owned(),
        "pod/job: finished: Completed".to_owned(),
        format!("node/{one} drained; it takes no pods until: cube uncordon {one}"),
    ] {
        assert!(told.lines().any(|told| told == line), "no '{line}' in:\n{told}");
    }
    for pod in ["web", "slow"] {
        cluster.wait_for_status(pod, "Running");
        assert_eq!(cluster.containers(pod).len(), 1, "the old one is gone");
    }
    assert_ne!(cluster.pod("slow").expect("it is there")["metadata"]["uid"], before);
    assert_eq!(cluster.status("job").expect("its record stays"), "Completed");
    let nodes = cluster.cube(&["nodes"]).ok();
    assert!(nodes.lines().any(|line| line.starts_with(&one) && line.contains("Ready,Cordoned")), "{nodes}");

    cluster.cube(&["label", "node", &one, "disk=ssd"]).ok();
    let mut fast = shell_pod("fast", "sleep 1000")[0].clone();
    fast["spec"]["nodeSelector"] = json!({"disk": "ssd"});
    cluster.apply(json!([fast]));
    wait_for("the reason", PATIENCE, || {
        let pod = cluster.pod("fast")?;
        let reason = pod["placement"]["waitingFor"].as_str().unwrap_or_default().to_owned();
        if reason == "0/3 nodes fit: 2 are cordoned, 1 lacks the labels disk=ssd" { Ok(()) } else { Err(reason) }
    });
    cluster.cube(&["uncordon", &one]).ok();
    cluster.wait_for_status("fast", "Running");
    assert_eq!(cluster.pod("fast").expect("it is there")["placement"]["node"], json!(one));
}
