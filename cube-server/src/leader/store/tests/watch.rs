//! A watch gives every later change, in one order, or says that it can't.

use std::time::Duration;

use cube_api::ErrorCode;
use cube_api::meta::Revision;
use tokio::time::timeout;

use super::*;
use crate::leader::store::{Change, Changed, Changes};

async fn next(changes: &mut Changes) -> Change {
    timeout(Duration::from_secs(10), changes.next()).await.expect("a change within 10 s").expect("a watch that goes on")
}

fn pod_name(change: &Change) -> String {
    match &change.object {
        Changed::Pod { before, after } => after.as_ref().or(before.as_ref()).expect("one side").pod.metadata.name.to_string(),
        Changed::Node { .. } | Changed::Object { .. } => panic!("only pods change"),
    }
}

#[tokio::test]
async fn a_watch_gives_every_later_change_in_order_and_can_be_resumed_anywhere() {
    let leader = Leader::start().await;
    leader.apply(pod("before", "nginx", "a")).await;
    let from = leader.store.read(|state| state.revision);
    let mut live = leader.store.watch(from).expect("a watch");
    let mut seen = Vec::new();
    for i in 0..100 {
        leader.apply(pod(&format!("web-{i}"), "nginx", "a")).await;
        seen.push(next(&mut live).await);
    }
    assert_eq!(seen.iter().map(pod_name).collect::<Vec<_>>(), (0..100).map(|i| format!("web-{i}")).collect::<Vec<_>>());
    assert!(seen.is_sorted_by(|a, b| a.revision < b.revision));
    let mut resumed = leader.store.watch(seen[41].revision).expect("a watch");
    for expected in &seen[42..] {
        assert_eq!(next(&mut resumed).await.revision, expected.revision);
    }
}

#[tokio::test]
async fn a_list_and_the_watch_from_its_revision_miss_nothing_while_others_write() {
    let leader = Leader::start().await;
    let names: Vec<_> = (0..50).map(|i| format!("web-{i}")).collect();
    let writing = futures::future::join_all(names.iter().map(|name| leader.apply(pod(name, "nginx", "a"))));
    let watching = async {
        let (mut names, from) =
            leader.store.read(|state| (state.names.keys().map(ToString::to_string).collect::<Vec<_>>(), state.revision));
        let mut changes = leader.store.watch(from).expect("a watch");
        while names.len() < 50 {
            names.push(pod_name(&next(&mut changes).await));
        }
        names.sort();
        names.dedup();
        names.len()
    };
    assert_eq!(futures::join!(writing, watching).1, 50);
}

#[tokio::test]
async fn what_happened_before_the_leader_started_is_expired_and_what_has_not_happened_is_refused() {
    let leader = Leader::start().await;
    leader.apply(pod("web", "nginx", "a")).await;
    let leader = leader.restart().await;
    let newest = leader.store.read(|state| state.revision);
    let error = |from| leader.store.watch(from).err().expect("a refusal").code;
    assert_eq!(error(Revision(newest.0 - 1)), ErrorCode::Expired);
    assert_eq!(error(Revision(newest.0 + 1)), ErrorCode::BadRequest);
    assert!(leader.store.watch(newest).is_ok());
}

#[tokio::test]
async fn a_watcher_that_the_ring_has_left_behind_is_told_to_list_again() {
    let leader = Leader::start().await;
    leader.join("n1", 1).await;
    let from = leader.store.read(|state| state.revision);
    let mut slow = leader.store.watch(from).expect("a watch");
    // More than the ring holds, in few transactions.
    for round in 0..9 {
        let batch = (0..2_000).map(|i| pod(&format!("web-{i}"), &format!("nginx:{}", round % 2), "a")).collect();
        leader.store.apply(batch, false).await.expect("an apply");
    }
    assert!(slow.next().await.is_none());
    assert_eq!(leader.store.watch(from).err().expect("a refusal").code, ErrorCode::Expired);
}

#[tokio::test]
async fn a_watch_ends_when_the_store_closes() {
    let leader = Leader::start().await;
    let mut changes = leader.store.watch(Revision(0)).expect("a watch");
    let waits = async { timeout(Duration::from_secs(10), changes.next()).await.expect("an end within 10 s") };
    let (ended, _) = futures::join!(waits, leader.tasks.shut_down(Duration::from_secs(10)));
    assert!(ended.is_none());
    assert!(matches!(leader.store.restart_pod(name("web")).await, Err(StoreError::Closed)));
}
