//! Images from a real registry: with and without a password, by tag and by digest.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::cluster::{Cluster, PATIENCE, docker, run, shell_pod, wait_for};
use crate::registry::{PASSWORD, Registry, USER, config_json};

fn with_image(name: &str, image: &str, policy: &str) -> Value {
    let mut pods = shell_pod(name, "echo $MARK");
    let spec = &mut pods[0]["spec"];
    spec["restartPolicy"] = json!("Never");
    spec["containers"][0]["image"] = json!(image);
    spec["containers"][0]["imagePullPolicy"] = json!(policy);
    pods
}

fn wait_for_words(cluster: &Cluster, pod: &str, words: &str) {
    wait_for(&format!("'{words}' to be told"), PATIENCE, || {
        let page = cluster.cube(&["get", &format!("pod/{pod}")]).ok();
        if page.contains(words) { Ok(()) } else { Err(page) }
    });
}

fn write_secret(file: &Path, text: &str) {
    fs::write(file, text).expect("written");
    run(Command::new("chmod").arg("600").arg(file)).ok();
}

#[test]
fn a_private_image_needs_the_right_password_and_a_pod_gets_it_as_soon_as_the_node_has_that() {
    let mut registry = Registry::secured();
    let image = registry.push("team/app", "1", "private");
    let folder = tempfile::tempdir().expect("a temp folder");
    let logins = folder.path().join("config.json");
    write_secret(&logins, r#"{"auths": {}}"#);
    let cluster = Cluster::leader_only(&["--registry-auth", logins.to_str().expect("utf-8")]);
    cluster.wait_until_ready();
    cluster.apply(with_image("app", &image, "IfNotPresent"));
    wait_for_words(
        &cluster,
        "app",
        "no login for this registry: name a secret with imagePullSecrets, or start the node with --registry-auth",
    );
    assert!(cluster.cube(&["get", "pod/app"]).ok().contains("ErrImagePull"));
    write_secret(&logins, &config_json(&registry.address, USER, "wrong-pass-word"));
    wait_for_words(&cluster, "app", "the login that was used is not accepted");
    write_secret(&logins, &config_json(&registry.address, USER, PASSWORD));
    cluster.wait_for_status("app", "Completed");
    assert_eq!(cluster.cube(&["logs", "pod/app", "--container", "main"]).ok(), "private\n");
    // What the registry doesn't have it says only to those who may ask.
    let missing = registry.name("team/app", "2");
    cluster.apply(with_image("missing", &missing, "IfNotPresent"));
    wait_for_words(&cluster, "missing", "manifest unknown");
    let everything = format!("{}{}", cluster.leader.log(), cluster.cube(&["events"]).ok());
    for secret in [PASSWORD, "wrong-pass-word"] {
        assert!(!everything.contains(secret), "{everything}");
    }
}

#[test]
fn always_gets_what_a_tag_means_now_if_not_present_what_the_node_has_and_a_digest_what_it_names() {
    let mut registry = Registry::open();
    let image = registry.push("app", "1", "first");
    let cluster = Cluster::start(0);
    let says = |name: &str, image: &str, policy: &str| {
        cluster.apply(with_image(name, image, policy));
        cluster.wait_for_status(name, "Completed");
        cluster.cube(&["logs", &format!("pod/{name}"), "--container", "main"]).ok()
    };
    assert_eq!(says("a", &image, "IfNotPresent"), "first\n");
    let digest = docker(["inspect", "-f", "{{index .RepoDigests 0}}", &image]);
    assert_eq!(says("b", &digest, "Always"), "first\n");
    registry.push("app", "1", "second");
    // Pushed from here: what the node has is put back by the digest.
    docker(["pull", "-q", &digest]);
    docker(["tag", &digest, &image]);
    assert_eq!(says("c", &image, "IfNotPresent"), "first\n");
    assert_eq!(says("d", &image, "Always"), "second\n");
    assert_eq!(says("e", &image, "Never"), "second\n");
    assert_eq!(says("f", &digest, "Never"), "first\n");
    cluster.apply(with_image("g", &registry.name("app", "2"), "Never"));
    wait_for_words(&cluster, "g", "this node doesn't have it, and imagePullPolicy is Never");
    for pod in ["a", "b", "c", "d", "f"] {
        cluster.cube(&["delete", &format!("pod/{pod}")]).ok();
    }
    run(Command::new("docker").args(["rmi", &digest]));
}

#[test]
fn a_pod_brings_its_own_login_in_a_secret_and_goes_on_when_the_secret_comes_later() {
    let mut registry = Registry::secured();
    let image = registry.push("team/app", "1", "private");
    let cluster = Cluster::start(0);
    let mut pods = with_image("app", &image, "IfNotPresent");
    pods[0]["spec"]["imagePullSecrets"] = json!([{ "name": "login" }]);
    cluster.apply(pods);
    wait_for_words(&cluster, "app", "of imagePullSecrets, secret/login is not there");
    let data = json!({ "registry": registry.address, "username": USER, "password": PASSWORD });
    cluster.apply(json!([{ "type": "secret", "metadata": { "name": "login" }, "stringData": data }]));
    cluster.wait_for_status("app", "Completed");
    let config = json!({ ".dockerconfigjson": config_json(&registry.address, USER, PASSWORD) });
    cluster.apply(json!([{ "type": "secret", "metadata": { "name": "as-kubernetes" }, "stringData": config }]));
    let mut pods = with_image("always", &image, "Always");
    pods[0]["spec"]["imagePullSecrets"] = json!([{ "name": "as-kubernetes" }]);
    cluster.apply(pods);
    cluster.wait_for_status("always", "Completed");
    // What the node has by now doesn't help a pod without a login whose policy is to ask.
    cluster.apply(with_image("stranger", &image, "Always"));
    wait_for_words(&cluster, "stranger", "no login for this registry");
    let everything = format!("{}{}{}", cluster.leader.log(), cluster.cube(&["events"]).ok(), cluster.cube(&["get", "pod/app"]).ok());
    assert!(!everything.contains(PASSWORD), "{everything}");
}
