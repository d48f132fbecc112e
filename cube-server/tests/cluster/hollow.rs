//! Hollow nodes: real sessions and agents, containers that only pretend.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use cube_api::LeaderAddress;
use cube_api::auth::Keys;
use cube_api::meta::Name;
use cube_api::pod::{ContainerState, Phase, Pod};
use cube_api::routes::ListQuery;
use cube_server::ambient::Ambient;
use cube_server::hollow::Hollows;
use cube_server::options::{HollowOptions, Options, RoleOptions};
use cube_server::tasks::Tasks;

use crate::rig::{Gate, Leader, name, pods, token, wait_for};

const NODES: [&str; 3] = ["hollow-1", "hollow-2", "hollow-3"];

fn options(leader: &LeaderAddress) -> HollowOptions {
    let leader = leader.to_string();
    let words = ["cube-server", "hollow", "--nodes", "3", "--leader", &leader, "--label", "kind=hollow", "--cpu", "2", "--memory", "1Gi"];
    match Options::parse_from(words).role {
        RoleOptions::Hollow(options) => options,
        other => panic!("{other:?}"),
    }
}

/// Starts three nodes and waits until they are ready.
async fn hollow_nodes(leader: &Leader, gate: &Gate) -> Tasks {
    let tasks = Tasks::default();
    let hollows = Hollows::new(options(&gate.address), gate.address.clone(), Keys::new(&token()), Ambient::system());
    Arc::new(hollows).start(tasks.clone()).await.expect("nodes that start");
    for node in NODES {
        leader.ready(node).await;
    }
    tasks
}

async fn all_pods(leader: &Leader) -> Vec<Pod> {
    leader.client.pods(&ListQuery::default()).await.expect("a list").items
}

#[tokio::test]
async fn hollow_nodes_run_pods_of_which_nothing_runs_and_give_them_up_when_they_are_deleted() {
    let (own, leader) = (Tasks::default(), Leader::start().await);
    let gate = leader.gate(&own).await;
    let tasks = hollow_nodes(&leader, &gate).await;
    let node = leader.client.node(&name("hollow-2")).await.expect("it has joined");
    assert_eq!(
        (node.engine.as_str(), node.labels["kind"].as_str(), node.capacity.cpu.0, node.capacity.pods),
        ("hollow", "hollow", 2000, 110)
    );
    let names: Vec<String> = (0..30).map(|number| format!("web-{number}")).collect();
    let manifest: Vec<(&str, &str)> = names.iter().map(|pod| (pod.as_str(), "no/such/image:1")).collect();
    leader.apply(&manifest).await;
    let running = wait_for("30 running pods", async || {
        let pods = all_pods(&leader).await;
        let running = pods.iter().filter(|pod| pod.status.phase == Phase::Running).count();
        if running == 30 { Ok(pods) } else { Err(running) }
    })
    .await;
    let used: BTreeSet<Name> = running.iter().filter_map(|pod| pod.placement.node.clone()).collect();
    assert_eq!(used, NODES.map(name).into(), "every node has some");
    for pod in &names {
        leader.client.delete_pod(&name(pod), &Default::default()).await.expect("it is there");
    }
    wait_for("their end", async || match all_pods(&leader).await.len() {
        0 => Ok(()),
        left => Err(left),
    })
    .await;
    assert!(tasks.shut_down(Duration::from_secs(10)).await && !tasks.has_panicked());
    leader.stop().await;
}

#[tokio::test]
async fn a_hollow_container_ends_as_its_args_say() {
    let (own, leader) = (Tasks::default(), Leader::start().await);
    let gate = leader.gate(&own).await;
    let tasks = hollow_nodes(&leader, &gate).await;
    let mut manifest = pods(&[("ends", "app"), ("wrong", "app")]);
    for (resource, args) in manifest.iter_mut().zip([["exit-after", "200ms", "3"], ["exit-after", "soon", "3"]]) {
        let cube_api::manifest::Resource::Pod(pod) = resource else { panic!("a pod") };
        pod.spec.containers[0].args = args.map(str::to_owned).into();
        pod.spec.restart_policy = cube_api::pod::RestartPolicy::Never;
    }
    leader.client.apply(&manifest, false).await.expect("an apply that isn't refused");
    let ended = leader.phase("ends", Phase::Failed).await;
    let code = match &ended.status.containers[0].state {
        ContainerState::Terminated(end) => end.exit_code,
        other => panic!("{other:?}"),
    };
    assert_eq!(code, 3);
    let refused = wait_for("the refusal", async || {
        let pod = leader.client.pod(&name("wrong")).await.expect("it is there");
        match &pod.status.containers.first().map(|container| container.state.clone()) {
            Some(ContainerState::Waiting(waiting)) if waiting.message.is_some() => Ok(waiting.message.clone().unwrap_or_default()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    assert!(refused.contains("'exit-after soon 3' are not 'exit-after TIME [CODE]'"), "{refused}");
    assert!(tasks.shut_down(Duration::from_secs(10)).await && !tasks.has_panicked());
    leader.stop().await;
}
