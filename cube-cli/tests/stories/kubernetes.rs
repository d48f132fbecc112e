//! What people know from Kubernetes and no other story shows: restart policies by their counts and phases, an image's own words and a manifest's,
//! pods that fit nowhere yet.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::cluster::{BUSYBOX, Cluster, PATIENCE, docker, run, wait_for};

/// An image with an entrypoint and a command of its own, which goes with the test.
struct Speaking(String);

impl Speaking {
    fn new() -> Self {
        let name = format!("cube-story-speaking-{}", std::process::id());
        let mut build = Command::new("docker").args(["build", "-q", "-t", &name, "-"]).stdin(Stdio::piped()).spawn().expect("docker");
        let file = format!("FROM {BUSYBOX}\nENTRYPOINT [\"echo\", \"entry\"]\nCMD [\"own\"]\nLABEL story={name}\n");
        build.stdin.take().expect("piped").write_all(file.as_bytes()).expect("docker reads");
        assert!(build.wait().expect("it ends").success(), "the image {name} can't be made");
        Self(name)
    }
}

impl Drop for Speaking {
    fn drop(&mut self) {
        // Not there any more is fine.
        run(Command::new("docker").args(["rmi", "-f", &self.0]));
    }
}

fn pod(name: &str, spec: Value) -> Value {
    json!([{ "type": "pod", "metadata": { "name": name }, "spec": spec }])
}

fn script(script: &str) -> Value {
    json!([{ "name": "main", "image": BUSYBOX, "command": ["sh", "-c", script] }])
}

fn restarts(cluster: &Cluster, name: &str) -> Value {
    cluster.pod(name).expect("it is there")["status"]["containers"][0]["restartCount"].clone()
}

#[test]
fn restart_policies_have_the_counts_and_phases_of_kubernetes() {
    let cluster = Cluster::start(0);
    // A container's own files go with it: the pod keeps the count.
    let third_time = "n=$(cat /count/n 2>/dev/null || echo 0); n=$((n + 1)); echo $n >/count/n; [ $n -ge 3 ]";
    let counted = json!([{ "name": "main", "image": BUSYBOX, "command": ["sh", "-c", third_time],
        "volumeMounts": [{ "name": "count", "mountPath": "/count" }] }]);
    cluster.apply(pod(
        "on-failure",
        json!({ "restartPolicy": "OnFailure", "volumes": [{ "name": "count", "emptyDir": {} }], "containers": counted }),
    ));
    cluster.apply(pod("never-good", json!({ "restartPolicy": "Never", "containers": script("exit 0") })));
    cluster.apply(pod("never-bad", json!({ "restartPolicy": "Never", "containers": script("exit 7") })));
    cluster.apply(pod("always", json!({ "containers": script("exit 0") })));
    for (name, word, phase, count) in
        [("on-failure", "Completed", "Succeeded", 2), ("never-good", "Completed", "Succeeded", 0), ("never-bad", "Error", "Failed", 0)]
    {
        wait_for(&format!("the end of {name}"), PATIENCE, || {
            let ended = cluster.pod(name)?["status"]["phase"] == phase;
            if ended { Ok(()) } else { Err(cluster.status(name).unwrap_or_default()) }
        });
        assert_eq!((cluster.status(name), restarts(&cluster, name)), (Ok(word.to_owned()), json!(count)), "{name}");
    }
    let bad = cluster.pod("never-bad").expect("it is there");
    assert_eq!(bad["status"]["containers"][0]["state"]["terminated"]["exitCode"], 7, "{bad}");
    // Its good ends are restarts too, and none of them the pod's end.
    wait_for("two restarts of what ended well", PATIENCE, || {
        let pod = cluster.pod("always")?;
        let many = pod["status"]["containers"][0]["restartCount"].as_u64() >= Some(2);
        if many && pod["status"]["phase"] == "Running" { Ok(()) } else { Err(pod["status"].to_string()) }
    });
}

#[test]
fn command_and_args_replace_what_the_image_says_each_its_own_part() {
    let cluster = Cluster::start(0);
    let image = Speaking::new();
    for (name, words, says) in [
        ("neither", json!({}), "entry own\n"),
        ("args", json!({ "args": ["given"] }), "entry given\n"),
        ("command", json!({ "command": ["echo", "alone"] }), "alone\n"),
        ("both", json!({ "command": ["echo", "my"], "args": ["$(WHO)"], "env": { "WHO": "words" } }), "my words\n"),
    ] {
        let mut container = json!({ "name": "main", "image": image.0, "imagePullPolicy": "Never" });
        container.as_object_mut().expect("a map").extend(words.as_object().expect("a map").clone());
        cluster.apply(pod(name, json!({ "restartPolicy": "Never", "containers": [container] })));
        cluster.wait_for_status(name, "Completed");
        assert_eq!(cluster.cube(&["logs", &format!("pod/{name}"), "--container", "main"]).ok(), says, "{name}");
    }
}

#[test]
fn a_pod_that_fits_nowhere_is_pending_with_counts_and_runs_as_soon_as_it_fits() {
    let cluster = Cluster::start(0);
    let huge =
        json!([{ "name": "main", "image": BUSYBOX, "command": ["sleep", "1000"], "resources": { "requests": { "memory": "900Gi" } } }]);
    cluster.apply(pod("huge", json!({ "containers": huge })));
    cluster.apply(pod(
        "choosy",
        json!({ "nodeSelector": { "disk": "ssd" }, "terminationGracePeriodSeconds": 0, "containers": script("sleep 1000") }),
    ));
    for (name, reason) in [("huge", "0/1 nodes fit: 1 lacks memory (need 900Gi)"), ("choosy", "0/1 nodes fit: 1 lacks the labels disk=ssd")]
    {
        let told = wait_for(&format!("the reason of {name}"), PATIENCE, || {
            cluster.pod(name)?["placement"]["waitingFor"].as_str().map(str::to_owned).ok_or_else(|| "none yet".to_owned())
        });
        let phase = cluster.pod(name).expect("it is there")["status"]["phase"].clone();
        assert_eq!((told.as_str(), phase), (reason, json!("Pending")));
        assert!(cluster.cube(&["get", &format!("pod/{name}")]).ok().contains(reason));
    }
    let node = cluster.cube(&["list", "node", "-o", "name"]).ok();
    cluster.cube(&["label", node.trim(), "disk=ssd"]).ok();
    cluster.wait_for_status("choosy", "Running");
    assert!(docker(["ps", "--format", "{{.Names}}"]).contains("cube_choosy_main_"));
}
