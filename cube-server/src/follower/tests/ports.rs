//! Host ports that the node chooses, and what containers are told of their pod and node.

use std::collections::BTreeSet;

use cube_api::pod::{EnvVar, PublishedPort};

use super::*;
use crate::follower::runtime::fake::Resident;

/// A pod whose container publishes port 80 on a free host port.
fn publishing(number: u128) -> AssignedPod {
    let mut pod = pod(number, RestartPolicy::Always);
    pod.spec.containers[0].ports = serde_json::from_value(serde_json::json!([{"containerPort": 80, "hostPort": 0}])).unwrap();
    pod
}

fn shown(bench: &Bench, pod: &AssignedPod) -> Option<u16> {
    bench.status(pod.uid)?.host_ports.first().map(|port| port.host_port)
}

/// The pod's containers that run: the sandbox, and what was put into the app's environment.
fn running(bench: &Bench, pod: &AssignedPod) -> Vec<Resident> {
    bench.fake.residents().into_iter().filter(|resident| resident.live && resident.observed.identity.uid == pod.uid).collect()
}

async fn runs(bench: &Bench, pod: &AssignedPod) -> u16 {
    bench.phase(pod.uid, Phase::Running).await;
    shown(bench, pod).expect("a pod that runs shows its port")
}

/// The port that is shown is the one that is published, and the one that the container knows.
fn check(bench: &Bench, pod: &AssignedPod, port: u16) {
    let residents = running(bench, pod);
    let published: Vec<_> = residents.iter().flat_map(|resident| &resident.published).map(|port| port.host_port).collect();
    assert_eq!(published, [port]);
    let app = residents.iter().find(|resident| resident.observed.identity.container.is_some()).expect("the container runs");
    assert_eq!(app.env.get("CUBE_HOST_PORT_80"), Some(&port.to_string()));
}

#[tokio::test(start_paused = true)]
async fn a_free_port_is_chosen_shown_told_and_kept_over_every_restart() {
    let mut bench = Bench::new().await;
    let web = publishing(1);
    bench.assign(std::slice::from_ref(&web)).await;
    let port = runs(&bench, &web).await;
    assert!((30_000..=32_767).contains(&port), "{port}");
    check(&bench, &web, port);
    // Of the container.
    let app = bench.apps(web.uid)[0].id.clone();
    bench.fake.kill_by_hand(&app);
    bench.wait_for("another container", || running(&bench, &web).iter().any(|resident| resident.observed.identity.attempt == 1)).await;
    check(&bench, &web, port);
    // Of the agent.
    bench.kill_and_restart().await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    check(&bench, &web, port);
    // Of the sandbox.
    let sandbox = bench.sandbox(web.uid).unwrap();
    bench.fake.remove_by_hand(&sandbox.id);
    bench.wait_for("another sandbox", || bench.sandbox(web.uid).is_some_and(|other| other.id != sandbox.id)).await;
    bench.wait_for("two that run", || running(&bench, &web).len() == 2).await;
    check(&bench, &web, port);
    // By request.
    bench.assign(&[AssignedPod { want: Want::Run { restarts: 1 }, ..web.clone() }]).await;
    bench.wait_for("another start", || bench.fake.starts(web.uid, Some(&name("app"))) == 4).await;
    bench.wait_for("two that run", || running(&bench, &web).len() == 2).await;
    check(&bench, &web, port);
    assert_eq!(shown(&bench, &web), Some(port));
    assert_eq!(bench.reasons(web.uid).iter().filter(|reason| *reason == "HostPortChosen").count(), 1);
}

/// Kills the agent at every millisecond of a start in which each call takes 3 ms: what is published in the end is what is shown and told.
#[tokio::test(start_paused = true)]
async fn a_port_is_the_same_for_all_wherever_the_agent_is_killed() {
    for millis in 0..30 {
        let mut bench = Bench::new().await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        bench.fake.set_latency(Duration::from_millis(3));
        let web = publishing(1);
        bench.assign(std::slice::from_ref(&web)).await;
        tokio::time::sleep(Duration::from_millis(millis)).await;
        bench.kill_and_restart().await;
        let port = runs(&bench, &web).await;
        check(&bench, &web, port);
        assert_eq!(bench.fake.starts(web.uid, None), 1, "killed after {millis} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn two_pods_never_get_one_port_and_none_that_a_third_asks_for() {
    let mut bench = Bench::new().await;
    bench.give_ports("30000-30002").await;
    let (one, two, mut fixed) = (publishing(1), publishing(2), publishing(3));
    fixed.spec.containers[0].ports[0].host_port = Some(30_001);
    bench.assign(&[one.clone(), two.clone(), fixed.clone()]).await;
    let ports = BTreeSet::from([runs(&bench, &one).await, runs(&bench, &two).await, runs(&bench, &fixed).await]);
    assert_eq!(ports, BTreeSet::from([30_000, 30_001, 30_002]));
    // None is left for a fourth, which says so and gets the first that becomes free.
    let four = publishing(4);
    bench.assign(&[one.clone(), two.clone(), fixed.clone(), four.clone()]).await;
    bench.wait_for("the reason", || bench.message(four.uid, "CreateContainerError").is_some()).await;
    let reason = bench.message(four.uid, "CreateContainerError").unwrap();
    assert!(reason.contains("no host port of 30000-30002 (tcp) is free"), "{reason}");
    let freed = shown(&bench, &two);
    bench.assign(&[one, stop(&two), fixed, four.clone()]).await;
    bench.phase(four.uid, Phase::Running).await;
    assert_eq!(shown(&bench, &four), freed);
}

/// A bind doesn't show it: it is what a packet filter takes, or a program that was quicker.
#[tokio::test(start_paused = true)]
async fn a_port_that_the_engine_finds_taken_is_replaced_at_once() {
    let mut bench = Bench::new().await;
    bench.give_ports("30000-30003").await;
    for port in [30_000, 30_001, 30_002] {
        bench.fake.take_port(port, false);
    }
    let web = publishing(1);
    bench.assign(std::slice::from_ref(&web)).await;
    let port = runs(&bench, &web).await;
    check(&bench, &web, port);
    assert_eq!(port, 30_003);
    let reasons = bench.reasons(web.uid);
    assert!(!reasons.iter().any(|reason| reason == "CreateContainerError"), "no wait was needed: {reasons:?}");
}

#[tokio::test(start_paused = true)]
async fn where_every_port_is_taken_the_pod_waits_and_says_why() {
    let mut bench = Bench::new().await;
    bench.give_ports("30000-30001").await;
    [30_000, 30_001].iter().for_each(|port| bench.fake.take_port(*port, false));
    let web = publishing(1);
    bench.assign(std::slice::from_ref(&web)).await;
    bench.phase(web.uid, Phase::Failed).await;
    let status = bench.status(web.uid).unwrap();
    assert_eq!(status.reason.as_deref(), Some("CrashLimit"));
    assert!(status.message.is_some_and(|message| message.contains("failed: port is already allocated")));
    assert!(status.host_ports.is_empty(), "what is over publishes nothing");
}

#[tokio::test(start_paused = true)]
async fn a_lost_ledger_is_told_of_its_ports_by_the_engine() {
    let mut bench = Bench::new().await;
    let web = publishing(1);
    bench.assign(std::slice::from_ref(&web)).await;
    let port = runs(&bench, &web).await;
    bench.lose_ledger().await;
    bench.agent.welcome(&Welcome { cluster_id: CLUSTER, epoch: Epoch(1), life: None }).await.unwrap();
    bench.leader.pods.lock().unwrap().clear();
    bench.assign(std::slice::from_ref(&web)).await;
    assert_eq!(runs(&bench, &web).await, port);
    check(&bench, &web, port);
}

#[tokio::test(start_paused = true)]
async fn containers_are_told_of_their_pod_and_node() {
    let bench = Bench::new().await;
    let mut web = pod(1, RestartPolicy::Always);
    let field = |name: &str, path: &str| serde_json::json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    let env = serde_json::json!([
        field("POD", "metadata.name"),
        field("POD_UID", "metadata.uid"),
        field("TIER", "metadata.labels['tier']"),
        field("NONE", "metadata.labels['none']"),
        field("NODE", "spec.nodeName"),
        field("IP", "status.podIP"),
        field("HOST", "status.hostIP"),
        {"name": "MEMORY", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
        {"name": "URL", "value": "http://$(IP):80/$(LATER)/$$(IP)"},
        {"name": "LATER", "value": "x"}
    ]);
    web.spec.containers[0].env = serde_json::from_value(env).unwrap();
    web.labels.insert("tier".to_owned(), "front".to_owned());
    bench.assign(std::slice::from_ref(&web)).await;
    bench.phase(web.uid, Phase::Running).await;
    let ip = bench.status(web.uid).unwrap().pod_ip.unwrap();
    let residents = running(&bench, &web);
    let env = &residents.iter().find(|resident| resident.observed.identity.container.is_some()).unwrap().env;
    let told = |name: &str| env.get(name).map(String::as_str);
    assert_eq!((told("POD"), told("POD_UID")), (Some("pod-1"), Some(web.uid.to_string().as_str())));
    assert_eq!((told("TIER"), told("NONE"), told("NODE")), (Some("front"), Some(""), Some("node-1")));
    assert_eq!((told("IP"), told("HOST")), (Some(ip.to_string().as_str()), Some("192.0.2.7")));
    assert_eq!(told("MEMORY"), Some("8192"), "without a limit it is the node's");
    assert_eq!(told("URL"), Some(format!("http://{ip}:80/$(LATER)/$(IP)").as_str()));
}

#[tokio::test(start_paused = true)]
async fn a_variable_that_cannot_be_filled_in_is_a_reason_and_no_empty_text() {
    let bench = Bench::new().await;
    let mut web = pod(1, RestartPolicy::Always);
    let later = serde_json::json!({"name": "A", "valueFrom": {"laterRef": {}}});
    web.spec.containers[0].env = [serde_json::from_value::<EnvVar>(later).unwrap()].into_iter().collect();
    bench.assign(std::slice::from_ref(&web)).await;
    bench.wait_for("the reason", || bench.message(web.uid, "CreateContainerError").is_some()).await;
    let reason = bench.message(web.uid, "CreateContainerError").unwrap();
    assert!(reason.contains("env A: valueFrom is none that version"), "{reason}");
}

#[test]
fn a_port_of_another_container_or_address_is_another_port() {
    let web = publishing(1);
    let port = &web.spec.containers[0].ports[0];
    let of = PublishedPort::new(&name("app"), port, 30_000);
    assert!(of.is_of(&name("app"), port) && !of.is_of(&name("side"), port));
    assert!(!PublishedPort { host_ip: Some("127.0.0.1".parse().unwrap()), ..of }.is_of(&name("app"), port));
}
