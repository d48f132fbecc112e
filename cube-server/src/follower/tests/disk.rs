//! A node whose disk is full.

use super::*;
use crate::disk::scripted::{PIECES, Scripted};

/// A pod whose assignment takes several pages of the ledger.
fn large(number: u128) -> AssignedPod {
    let mut pod = pod(number, RestartPolicy::Always);
    pod.spec.containers[0].env.set("LARGE", "x".repeat(64 << 10));
    pod
}

fn trouble(bench: &Bench) -> Option<String> {
    bench.leader.trouble.lock().unwrap().clone()
}

#[tokio::test(start_paused = true)]
async fn a_node_whose_disk_is_full_says_so_runs_its_pods_and_stops_those_that_are_deleted() {
    let disk = Scripted::new();
    let bench = Bench::on(disk.clone()).await;
    let (web, db) = (pod(1, RestartPolicy::Always), pod(2, RestartPolicy::Always));
    bench.assign(&[web.clone(), db.clone()]).await;
    bench.phase(web.uid, Phase::Running).await;
    bench.phase(db.uid, Phase::Running).await;
    disk.fill(1);
    let more = large(3);
    bench.assign(&[web.clone(), db.clone(), more.clone()]).await;
    bench.wait_for("word of the full disk", || trouble(&bench).is_some()).await;
    let said = trouble(&bench).unwrap();
    assert!(said.starts_with("the node's disk is full: free room on the disk of /the/data/folder"), "{said}");

    bench.assign(&[stop(&web), db.clone(), more.clone()]).await;
    bench.wait_for("the end of the deleted pod", || bench.is_stopped(web.uid)).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(trouble(&bench).is_some(), "as long as there is no room");
    disk.free();
    bench.wait_for("word of the room", || trouble(&bench).is_none()).await;
    assert_eq!((bench.fake.starts(db.uid, Some(&name("app"))), bench.apps(db.uid).len()), (1, 1), "the other pod ran on");
    assert_eq!(disk.pieces(), PIECES);
}

#[tokio::test(start_paused = true)]
async fn a_ledger_that_cannot_be_written_at_all_leaves_pods_alone_and_goes_on_when_there_is_room() {
    let disk = Scripted::new();
    let bench = Bench::on(disk.clone()).await;
    let web = pod(1, RestartPolicy::Always);
    bench.assign(std::slice::from_ref(&web)).await;
    bench.phase(web.uid, Phase::Running).await;
    disk.fill(1);
    disk.use_up();
    let more = large(2);
    let refused = bench.agent.assign(bench.assignment(&[stop(&web), more.clone()])).await.expect_err("it can't be written");
    assert_eq!(refused.code, ErrorCode::Unavailable);
    bench.wait_for("word of the full disk", || trouble(&bench).is_some()).await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(bench.apps(web.uid).iter().all(|seen| matches!(seen.state, RunState::Running { .. })), "what isn't written isn't done");
    disk.free();
    bench.wait_for("word of the room", || trouble(&bench).is_none()).await;
    bench.assign(&[stop(&web), more.clone()]).await;
    bench.wait_for("the end of the deleted pod", || bench.is_stopped(web.uid)).await;
    bench.phase(more.uid, Phase::Running).await;
}

#[tokio::test(start_paused = true)]
async fn a_follower_that_starts_on_a_full_disk_finds_its_pods_running() {
    let disk = Scripted::new();
    let mut bench = Bench::on(disk.clone()).await;
    let web = pod(1, RestartPolicy::Always);
    bench.assign(std::slice::from_ref(&web)).await;
    bench.phase(web.uid, Phase::Running).await;
    disk.fill(1);
    disk.use_up();
    bench.kill_and_restart().await;
    bench.wait_for("word of the full disk", || trouble(&bench).is_some_and(|trouble| trouble.contains("disk is full"))).await;
    assert_eq!((bench.fake.starts(web.uid, Some(&name("app"))), bench.apps(web.uid).len()), (1, 1));
}
