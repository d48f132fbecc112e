//! A full disk: SQLite's page limit stands for it, on a real file.

use std::sync::Arc;

use cube_api::event::EventKind;
use cube_api::node::NodeCondition;
use cube_api::routes::DeleteQuery;
use cube_api::session::NodeEvent;
use futures::future::join_all;
use jiff::Timestamp;

use super::*;
use crate::disk::scripted::{PIECES, Scripted};

/// A leader on such a disk, with its own node `n1`.
async fn leader_on(disk: &Arc<Scripted>) -> Leader {
    let leader = start(tempfile::tempdir().expect("a temporary folder"), disk).await;
    let mut own = announcement("n1", 1, "machine-1");
    own.role = cube_api::node::NodeRole::Leader;
    leader.store.join(own, false).await.expect("a node that may join");
    leader
}

async fn start(folder: TempDir, disk: &Arc<Scripted>) -> Leader {
    let tasks = Tasks::default();
    let path = folder.path().join("leader.db");
    let store = Store::open_on(&path, disk.clone(), Ambient::system(), &tasks).await.expect("a store that opens");
    Leader { folder, tasks, store }
}

async fn restart(leader: Leader, disk: &Arc<Scripted>) -> Leader {
    let Leader { folder, tasks, store } = leader;
    drop(store);
    assert!(tasks.shut_down(Duration::from_secs(10)).await, "the writer ends when it is told to");
    start(folder, disk).await
}

/// A pod that takes several pages.
fn large(name: &str) -> Resource {
    let Resource::Pod(mut manifest) = pod(name, "nginx", "a") else { panic!("a pod") };
    manifest.spec.containers[0].env.set("LARGE", "x".repeat(64 << 10));
    Resource::Pod(manifest)
}

/// Applies until the disk is full; how many pods were acknowledged.
async fn fill_up(leader: &Leader) -> usize {
    for number in 0..1_000 {
        match leader.store.apply(vec![large(&format!("large-{number}"))], false).await {
            Ok(_) => {}
            Err(StoreError::NoSpace { remedy }) => {
                assert!(remedy.contains("/the/data/folder"), "{remedy}");
                return number;
            }
            Err(error) => panic!("another failure: {error:?}"),
        }
    }
    panic!("the disk isn't full after 64 MiB");
}

fn is_no_space<T: std::fmt::Debug>(result: Result<T, StoreError>) -> bool {
    match result {
        Err(StoreError::NoSpace { .. }) => true,
        Err(_) => panic!("another failure: {result:?}"),
        Ok(_) => false,
    }
}

#[tokio::test]
async fn on_a_full_disk_new_work_is_refused_and_deletes_reports_and_conditions_go_on() {
    let disk = Scripted::new();
    let leader = leader_on(&disk).await;
    let web = leader.run_on("n1", pod("web", "nginx", "a")).await;
    disk.fill(100);
    fill_up(&leader).await;
    let before = leader.store.read(Clone::clone);
    assert!(is_no_space(leader.store.apply(vec![pod("small", "nginx", "a")], false).await));
    assert!(is_no_space(leader.store.restart_pod(name("web")).await));
    assert_eq!(leader.store.read(|state| state.pods.clone()), before.pods, "a refusal changes nothing");
    leader.store.apply(vec![pod("small", "nginx", "a")], true).await.expect("a dry run needs no room");

    let sick = NodeCondition::NotReady { reason: "its docker is away".to_owned() };
    leader.store.set_condition(name("n1"), sick.clone()).await.expect("a condition");
    assert_eq!(leader.store.read(|state| state.nodes[&name("n1")].condition.clone()), sick);
    let mut report = leader.report(1);
    report.pods.push(pod_report(web, 1, Phase::Running, false));
    leader.store.report(name("n1"), report, ()).await.expect("a report");
    leader.store.delete_pod(name("web"), DeleteQuery::default()).await.expect("a delete");
    let mut report = leader.report(1);
    report.pods.push(pod_report(web, 2, Phase::Succeeded, true));
    leader.store.report(name("n1"), report, ()).await.expect("the report of its end");
    assert!(leader.store.pod(&name("web")).is_none());
}

#[tokio::test]
async fn thousands_of_deletes_and_reports_fit_into_the_reserve() {
    let disk = Scripted::new();
    let leader = leader_on(&disk).await;
    let names: Vec<_> = (0..1_000).map(|number| format!("web-{number}")).collect();
    leader.store.apply(names.iter().map(|name| pod(name, "nginx", "a")).collect(), false).await.expect("an apply");
    let bind = leader.store.read(|state| state.pods.keys().copied().collect::<Vec<_>>()).into_iter();
    let bind = bind.map(|uid| Placing::Bind { uid, node: name("n1"), reason: "it fits".to_owned() }).collect();
    leader.store.place(bind).await.expect("a placing");
    disk.fill(1);
    fill_up(&leader).await;
    for piece in names.chunks(100) {
        let deletes = piece.iter().map(|text| leader.store.delete_pod(name(text), DeleteQuery::default()));
        assert!(join_all(deletes).await.iter().all(Result::is_ok), "a delete was refused");
    }
    let retired =
        leader.store.read(|state| state.pods.values().filter(|row| row.retired.is_some()).map(|row| row.pod.metadata.uid).collect());
    for piece in Vec::from_iter::<Vec<Uid>>(retired).chunks(100) {
        let mut report = leader.report(1);
        report.pods.extend(piece.iter().map(|uid| pod_report(*uid, 1, Phase::Succeeded, true)));
        leader.store.report(name("n1"), report, ()).await.expect("a report");
    }
    assert_eq!(leader.store.read(|state| state.pods.values().filter(|row| row.retired.is_some()).count()), 0);
    assert!(disk.pieces() > 0, "something is left of the reserve");
}

#[tokio::test]
async fn what_was_acknowledged_around_a_full_disk_is_there_after_a_restart_and_nothing_else() {
    let disk = Scripted::new();
    let leader = leader_on(&disk).await;
    disk.fill(200);
    let applies = (0..60).map(|number| leader.store.apply(vec![large(&format!("large-{number}"))], false));
    let answers = join_all(applies).await;
    let acknowledged: Vec<_> = (0..60).filter(|number| answers[*number].is_ok()).map(|number| name(&format!("large-{number}"))).collect();
    assert!(acknowledged.len() < 60, "nothing was refused");
    let before = leader.store.read(Clone::clone);
    let mut names: Vec<_> = before.names.keys().cloned().collect();
    names.sort();
    let mut expected = acknowledged;
    expected.sort();
    assert_eq!(names, expected);
    let leader = restart(leader, &disk).await;
    assert_eq!(leader.store.read(|state| state.names.keys().cloned().collect::<Vec<_>>()), expected);
    assert!(leader.store.read(|state| state.revision) >= before.revision);
}

#[tokio::test]
async fn a_large_batch_does_not_use_the_reserve_up() {
    let disk = Scripted::new();
    let leader = leader_on(&disk).await;
    disk.fill(1);
    let many = (0..40).map(|number| large(&format!("large-{number}"))).collect();
    assert!(is_no_space(leader.store.apply(many, false).await));
    assert_eq!(disk.pieces(), PIECES - 1);
    assert!(is_no_space(leader.store.apply(vec![pod("small", "nginx", "a")], false).await), "the mode has begun");
    assert!(leader.store.read(|state| state.pods.is_empty()));
}

#[tokio::test(start_paused = true)]
async fn room_that_comes_back_ends_it_and_both_changes_are_events_of_the_leaders_node() {
    let disk = Scripted::new();
    let leader = leader_on(&disk).await;
    disk.fill(60);
    fill_up(&leader).await;
    assert!(leader.store.trouble().is_some_and(|trouble| trouble.contains("/the/data/folder")));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(is_no_space(leader.store.apply(vec![pod("small", "nginx", "a")], false).await), "as long as there is no room");
    disk.free();
    tokio::time::sleep(Duration::from_secs(6)).await;
    leader.apply(pod("small", "nginx", "a")).await;
    assert_eq!((disk.pieces(), leader.store.trouble()), (PIECES, None));
    let reasons = leader.reasons("node/n1").await;
    assert_eq!(reasons.iter().filter(|reason| reason.starts_with("Disk")).collect::<Vec<_>>(), ["DiskFull", "DiskFreed"]);
}

#[tokio::test]
async fn a_leader_that_starts_on_a_full_disk_serves_and_takes_deletes_only() {
    let disk = Scripted::new();
    let leader = leader_on(&disk).await;
    disk.fill(60);
    fill_up(&leader).await;
    let (before, epoch) = (leader.store.read(|state| state.pods.clone()), leader.store.epoch());
    let leader = restart(leader, &disk).await;
    assert_eq!(leader.store.epoch().0, epoch.0 + 1);
    assert_eq!(leader.store.read(|state| state.pods.clone()), before);
    assert!(is_no_space(leader.store.apply(vec![pod("small", "nginx", "a")], false).await));
    leader.store.delete_pod(name("large-0"), DeleteQuery::default()).await.expect("a delete");
}

#[tokio::test(start_paused = true)]
async fn old_events_make_room_on_a_full_disk_and_the_newest_stay() {
    let disk = Scripted::new();
    let leader = leader_on(&disk).await;
    let web = leader.run_on("n1", pod("web", "nginx", "a")).await;
    // Of fifty pods: one has no more than 200.
    let event = |sequence: u64| NodeEvent {
        sequence,
        uid: web,
        pod: name(&format!("web-{}", sequence % 50)),
        kind: EventKind::Normal,
        reason: "Started".to_owned(),
        message: format!("number {sequence} of many {}", "x".repeat(400)),
        at: Timestamp::UNIX_EPOCH,
    };
    let mut report = leader.report(1);
    report.events.extend((1..=5_000).map(event));
    leader.store.report(name("n1"), report, ()).await.expect("a report");
    disk.fill(1);
    fill_up(&leader).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let kept = leader.store.figures().await.expect("figures").events;
    assert!((1_000..4_900).contains(&kept), "{kept} events are kept");
    let newest = leader.events("pod/web-0").await.pop().expect("an event");
    assert!(newest.message.starts_with("number 5000 "), "{}", newest.message);
}
