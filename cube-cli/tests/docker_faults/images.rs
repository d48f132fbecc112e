//! Images that are removed by hand, and registries that refuse or hang.

use std::process::Command;

use serde_json::{Value, json};

use crate::cluster::{BUSYBOX, Cluster, PATIENCE, docker, run, wait_for};
use crate::pods::{RUNS, container, pod, restarts, run_pods, status, wait_for_restarts};
use crate::registry::Registry;

/// Another name of busybox on the usual engine. Dropping it takes the name away.
struct Tag(String);

impl Tag {
    fn new(name: String) -> Self {
        docker(["tag", BUSYBOX, &name]);
        Self(name)
    }
}

impl Drop for Tag {
    fn drop(&mut self) {
        run(Command::new("docker").args(["rmi", "-f", &self.0]));
    }
}

fn with_image(name: &str, image: &str) -> Value {
    let mut pod = pod(name, &[("main", RUNS)]);
    pod["spec"]["containers"][0]["image"] = json!(image);
    pod
}

#[test]
fn an_image_removed_by_hand_touches_no_running_pod_and_a_restart_says_what_is_missing() {
    let registry = Registry::start();
    let cluster = Cluster::start(0);
    let tag = Tag::new(registry.image("missing"));
    run_pods(&cluster, &[with_image("box", &tag.0)]);
    let before = container(&cluster, "box", "main");
    docker(["rmi", "-f", &tag.0]);
    assert_eq!(cluster.cube(&["exec", "pod/box", "--", "echo", "alive"]).ok(), "alive\n");
    assert_eq!((container(&cluster, "box", "main"), restarts(&cluster.pod("box").expect("it is there"), "main")), (before.clone(), 0));
    docker(["kill", &before]);
    wait_for("the missing image to be told", PATIENCE, || {
        let pod = cluster.pod("box")?;
        let waiting = &status(&pod, "main")["state"]["waiting"];
        let known = ["ErrImagePull", "ImagePullBackOff"].iter().any(|reason| waiting["reason"] == *reason);
        if known && waiting["message"].as_str().is_some_and(|words| words.contains("manifest unknown")) {
            Ok(())
        } else {
            Err(pod.to_string())
        }
    });
    // Somebody brings it back: nothing else has to be done.
    let tag = Tag::new(tag.0.clone());
    wait_for_restarts(&cluster, "box", "main", 1);
    drop(tag);
}

#[test]
fn what_a_registry_refuses_is_told_in_its_words_and_no_trouble_of_the_node() {
    let registry = Registry::start();
    let cluster = Cluster::start(0);
    let refusals = [("secret", "unauthorized"), ("missing", "manifest unknown"), ("busy", "pull rate limit")];
    cluster.apply(json!(refusals.map(|(repository, _)| with_image(repository, &registry.image(repository)))));
    for (repository, words) in refusals {
        wait_for(&format!("'{words}' to be told"), PATIENCE, || {
            let page = cluster.cube(&["get", &format!("pod/{repository}")]).ok();
            let status = cluster.status(repository)?;
            let told = page.contains(words) && page.contains("ErrImagePull");
            if told && ["ErrImagePull", "ImagePullBackOff"].contains(&status.as_str()) { Ok(()) } else { Err(page) }
        });
        let page = cluster.cube(&["get", &format!("pod/{repository}")]).ok();
        assert!(!page.contains("EngineTrouble"), "{page}");
    }
    cluster.wait_until_ready();
    run_pods(&cluster, &[pod("box", &[("main", RUNS)])]);
}

#[test]
fn a_pull_that_hangs_holds_up_no_other_pod_and_its_pod_can_be_deleted() {
    let registry = Registry::start();
    let cluster = Cluster::start(0);
    cluster.apply(json!([with_image("hangs", &registry.image("hangs"))]));
    cluster.wait_for_status("hangs", "Pulling");
    run_pods(&cluster, &[pod("box", &[("main", RUNS)])]);
    cluster.apply(json!([with_image("missing", &registry.image("missing"))]));
    wait_for("another pull's end", PATIENCE, || {
        let page = cluster.cube(&["get", "pod/missing"]).ok();
        if page.contains("manifest unknown") { Ok(()) } else { Err(page) }
    });
    assert_eq!(cluster.status("hangs").as_deref(), Ok("Pulling"));
    cluster.cube(&["delete", "pod/hangs", "--timeout", "20s"]).ok();
    assert_eq!(cluster.cube(&["nodes"]).ok().matches(" Ready ").count(), 1);
}
