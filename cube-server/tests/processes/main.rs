//! The built `cube-server` as processes on the loopback address: killed, replaced, stopped under load, tormented by its peers.

mod backup;
mod connections;
mod deployments;
mod disk;
mod follower_kills;
mod jobs;
mod leader_kills;
mod lives;
mod rig;
mod secrets;
mod stops;

use rig::Ground;

/// What a test prints, so that a failure can be tried again with the same moments.
fn seed() -> u64 {
    let seed = rand::random();
    println!("seed {seed}");
    seed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_killed_at_any_moment_keeps_what_it_acknowledged_and_doubles_nothing() {
    let ground = Ground::new();
    let (noticed, _) = leader_kills::torment(&ground, seed(), 20).await;
    assert!(noticed.acknowledged > 20 && noticed.watched > 0, "{noticed:?}");
    assert!(noticed.lost.is_empty() && noticed.double.is_empty() && noticed.wrong.is_empty(), "{noticed:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_killed_at_any_moment_restarts_no_container_doubles_none_and_leaves_none() {
    let ground = Ground::new();
    let (noticed, _) = follower_kills::torment(&ground, seed(), 10).await;
    assert!(noticed.pods > 0, "{noticed:?}");
    assert!(noticed.lost.is_empty() && noticed.double.is_empty() && noticed.left.is_empty(), "{noticed:#?}");
}
