//! Leaders that a node must not obey: another cluster's, an older one, one on a copy of the database.

use std::path::Path;

use cube_api::client::Client;
use cube_api::pod::Phase;

use crate::rig::{Container, Engine, Ground, Server, node_ready, phase, resources, sleeper, wait_for};

/// A pod that runs, on a follower that knows its leader only.
async fn run(client: &Client, pod: &str) {
    client.apply(&resources(vec![sleeper(pod)]), false).await.expect("an apply that isn't refused");
    phase(client, pod, Phase::Running).await;
}

/// Starts the right leader, and waits until the follower follows this life of it.
async fn is_followed(right: &mut Server, follower: &Server) {
    let from = follower.log_length();
    right.start_ready().await;
    says(follower, from, "joined the leader").await;
}

/// Waits until the follower says so of the leader that it meets now.
async fn says(follower: &Server, from: u64, words: &str) {
    wait_for(words, async || if follower.log_from(from).contains(words) { Ok(()) } else { Err(follower.log_from(from)) }).await;
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).expect("a folder");
    for file in std::fs::read_dir(from).expect("a folder") {
        let file = file.expect("a file");
        std::fs::copy(file.path(), to.join(file.file_name())).expect("a copy");
    }
}

/// The leader whose followers they are, one of these, and a client.
async fn cluster(ground: &Ground, engine: &Engine) -> (Server, Server, Client) {
    let mut right = ground.leader("right");
    right.start_ready().await;
    let client = ground.client(right.address);
    let mut follower = ground.follower(engine.node(), right.address);
    follower.start();
    node_ready(&client, engine.node()).await;
    (right, follower, client)
}

async fn untouched(engine: &Engine, pods: &[&str], before: &[Container]) {
    assert_eq!(engine.running(pods).await, before, "the same containers run");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_leader_with_the_same_token_is_refused_and_the_right_one_is_followed_again() {
    let (ground, engine) = (Ground::new(), Engine::new());
    let (mut right, mut follower, client) = cluster(&ground, &engine).await;
    run(&client, "web").await;
    let before = engine.running(&["web"]).await;
    right.kill();
    let (mut empty, from) = (ground.leader_at("empty", right.address), follower.log_length());
    empty.start_ready().await;
    says(&follower, from, "belongs to cluster").await;
    let said = follower.log_from(from);
    assert!(said.contains("data folder"), "what to do: {said}");
    untouched(&engine, &["web"], &before).await;
    empty.kill();
    is_followed(&mut right, &follower).await;
    run(&client, "second").await;
    untouched(&engine, &["web"], &before).await;
    assert_eq!(phase(&client, "web", Phase::Running).await.status.containers[0].restart_count, 0);
    follower.kill();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_on_a_copy_of_the_database_is_refused_whether_its_epoch_is_lower_or_equal() {
    let (ground, engine) = (Ground::new(), Engine::new());
    let (mut right, mut follower, client) = cluster(&ground, &engine).await;
    run(&client, "first").await;
    right.kill();
    // Each copy knows the first pod only, and its next life counts the epoch that the right one's next life counts.
    let mut copies = ["equal", "lower"].map(|name| ground.leader_at(name, right.address));
    copies.iter().for_each(|leader| copy(&right.folder, &leader.folder));
    for (leader, words) in copies.iter_mut().zip(["copy of the other's data", "has followed a newer life of the leader"]) {
        is_followed(&mut right, &follower).await;
        run(&client, "second").await;
        let before = engine.running(&["first", "second"]).await;
        assert_eq!(before.len(), 4, "{before:?}");
        right.kill();
        let from = follower.log_length();
        leader.start_ready().await;
        says(&follower, from, words).await;
        untouched(&engine, &["first", "second"], &before).await;
        leader.kill();
    }
    is_followed(&mut right, &follower).await;
    run(&client, "third").await;
    follower.kill();
}
