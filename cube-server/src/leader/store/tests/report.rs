//! What nodes report: once each, in order, of their own pods only. And what is kept of events.

use std::pin::pin;
use std::sync::{Arc, Mutex};

use cube_api::event::EventKind;
use cube_api::node::{Capacity, Usage};
use cube_api::pod::ContainerStatus;
use cube_api::quantity::{Bytes, MilliCpu};
use cube_api::session::NodeEvent;
use cube_api::{ApiError, ErrorCode};
use futures::poll;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::super::draft::Draft;
use super::super::lanes::Lane;
use super::*;
use crate::ambient::Source;

fn event(uid: Uid, sequence: u64, message: &str) -> NodeEvent {
    let (reason, message, at) = ("BackOff".to_owned(), message.to_owned(), Timestamp::UNIX_EPOCH);
    NodeEvent { sequence, uid, pod: name("web"), kind: EventKind::Warning, reason, message, at }
}

#[tokio::test]
async fn a_report_that_comes_twice_counts_once_also_over_a_restart_of_the_leader() {
    let leader = Leader::start().await;
    leader.join("n1", 1).await;
    let uid = leader.run_on("n1", pod("web", "nginx", "a")).await;
    let mut report = leader.report(1);
    report.pods.push(pod_report(uid, 5, Phase::Running, false));
    report.events = vec![event(uid, 2, "crashed"), event(uid, 3, "crashed"), event(uid, 1, "first")];
    let answer = leader.store.report(name("n1"), report.clone(), ()).await.expect("a report");
    assert_eq!(answer.events_through, 3);
    let leader = leader.restart().await;
    let answer = leader.store.report(name("n1"), report.clone(), ()).await.expect("the same report");
    assert_eq!(answer.events_through, 3);
    let seen: Vec<_> =
        leader.events("pod/web").await.into_iter().filter(|event| event.source == "n1").map(|event| (event.message, event.count)).collect();
    assert_eq!(seen, [("first".to_owned(), 1), ("crashed".to_owned(), 2)]);
    let mut late = leader.report(1);
    late.pods.push(pod_report(uid, 4, Phase::Pending, false));
    leader.store.report(name("n1"), late, ()).await.expect("an older report");
    assert_eq!(leader.store.pod(&name("web")).expect("a pod").pod.status.phase, Phase::Running);
}

#[tokio::test]
async fn since_when_a_pod_is_ready_is_known_by_the_leaders_clock_however_its_nodes_is_set() {
    let clock = SetClock(Arc::new(Mutex::new(Timestamp::UNIX_EPOCH)));
    let (set, nodes) = (clock.0.clone(), SignedDuration::from_hours(2));
    let leader = Leader::start_at(Ambient::new(clock)).await;
    leader.join("n1", 1).await;
    let uid = leader.run_on("n1", pod("web", "nginx", "a")).await;
    let at = |seconds| Timestamp::UNIX_EPOCH + SignedDuration::from_secs(seconds);
    // What its node says at which time, and since when the leader knows it.
    let steps = [
        (10, Phase::Pending, None, None),
        (20, Phase::Running, None, Some(20)),
        (30, Phase::Running, Some(25), Some(30)),
        (40, Phase::Running, Some(25), Some(30)),
        (50, Phase::Running, None, Some(50)),
        (60, Phase::Running, Some(58), Some(60)),
    ];
    for (sequence, (now, phase, ready_since, known_since)) in steps.into_iter().enumerate() {
        *set.lock().expect("no test panics while it holds the clock") = at(now);
        let mut report = leader.report(1);
        report.pods.push(pod_report(uid, sequence as u64 + 1, phase, false));
        report.pods[0].status.ready_since = ready_since.map(|seconds| at(seconds) + nodes);
        leader.store.report(name("n1"), report, ()).await.expect("a report");
        let status = leader.store.pod(&name("web")).expect("a pod").pod.status.clone();
        assert_eq!(status.known_since, known_since.map(at), "at {now}");
    }
}

/// Nodes hang up when they have waited for long, and come with another report: each in memory has to count as one.
#[tokio::test]
async fn a_report_whose_sender_has_hung_up_keeps_its_place_until_the_writer_took_it() {
    let leader = Leader::start().await;
    leader.join("n1", 1).await;
    let (go_on, until) = std::sync::mpsc::channel();
    let hold = move |_: &mut Draft<'_>| until.recv().map_err(|_| ApiError::new(ErrorCode::Internal, "the test has failed"));
    let mut writer = pin!(leader.store.write(Lane::People, "hold the writer", hold));
    assert!(poll!(writer.as_mut()).is_pending());
    let place = Arc::new(());
    let mut waits = Box::pin(leader.store.report(name("n1"), leader.report(1), place.clone()));
    assert!(poll!(waits.as_mut()).is_pending());
    drop(waits);
    assert_eq!(Arc::strong_count(&place), 2);
    go_on.send(()).expect("the writer waits");
    writer.await.expect("it goes on");
    // Reports are taken in their order.
    leader.store.report(name("n1"), leader.report(1), ()).await.expect("a report");
    assert_eq!(Arc::strong_count(&place), 1);
}

#[tokio::test]
async fn a_report_that_comes_after_a_newer_one_changes_nothing_though_the_newer_said_nothing_new() {
    let leader = Leader::start().await;
    leader.join("n1", 1).await;
    let uid = leader.run_on("n1", pod("web", "nginx", "a")).await;
    for (sequence, phase) in [(1, Phase::Running), (3, Phase::Running), (2, Phase::Failed)] {
        let mut report = leader.report(1);
        report.pods.push(pod_report(uid, sequence, phase, false));
        leader.store.report(name("n1"), report, ()).await.expect("a report");
    }
    assert_eq!(leader.store.pod(&name("web")).expect("a pod").pod.status.phase, Phase::Running);
}

#[tokio::test]
async fn an_end_from_before_a_restart_that_was_asked_for_frees_no_room() {
    let leader = Leader::start().await;
    leader.join("n1", 1).await;
    let uid = leader.run_on("n1", pod("web", "nginx", "a")).await;
    let take = async |sequence, restarts, phase| {
        let mut report = leader.report(1);
        report.pods.push(PodReport { restarts, ..pod_report(uid, sequence, phase, false) });
        leader.store.report(name("n1"), report, ()).await.expect("a report");
        let unfinished = leader.store.read(|state| state.load(&name("n1")).map(|load| load.unfinished));
        (leader.store.pod(&name("web")).expect("a pod").pod.status.phase, unfinished)
    };
    assert_eq!(take(1, Some(0), Phase::Running).await, (Phase::Running, Some(1)));
    leader.store.restart_pod(name("web")).await.expect("a restart");
    // It ended while its node couldn't be told of the restart.
    assert_eq!(take(2, Some(0), Phase::Succeeded).await, (Phase::Running, Some(1)));
    assert_eq!(take(3, Some(1), Phase::Succeeded).await, (Phase::Succeeded, Some(0)));
    leader.store.restart_pod(name("web")).await.expect("a restart");
    // On its way while the restart was committed: sent again, or with something new in it.
    assert_eq!(take(4, Some(1), Phase::Succeeded).await, (Phase::Pending, Some(1)));
    assert_eq!(take(5, Some(1), Phase::Failed).await, (Phase::Pending, Some(1)));
    assert_eq!(take(6, Some(2), Phase::Failed).await, (Phase::Failed, Some(0)));
}

#[tokio::test]
async fn a_report_of_nothing_new_writes_nothing() {
    let leader = Leader::start().await;
    leader.join("n1", 1).await;
    let before = leader.store.read(|state| state.revision);
    leader.store.report(name("n1"), leader.report(1), ()).await.expect("a report");
    assert_eq!(leader.store.read(|state| state.revision), before);
}

#[tokio::test]
async fn a_node_speaks_of_its_own_pods_only() {
    let leader = Leader::start().await;
    leader.join("n1", 1).await;
    leader.join("n2", 2).await;
    let uid = leader.run_on("n1", pod("web", "nginx", "a")).await;
    let mut report = leader.report(2);
    report.pods.push(pod_report(uid, 1, Phase::Failed, true));
    report.events.push(event(uid, 1, "not mine"));
    leader.store.report(name("n2"), report, ()).await.expect("a report");
    assert_eq!(leader.store.pod(&name("web")).expect("a pod").pod.status.phase, Phase::Pending);
    assert_eq!(leader.reasons("pod/web").await, ["Created", "Scheduled"]);
    let mut foreign = leader.report(1);
    foreign.cluster_id = other_cluster();
    assert!(refusal(leader.store.report(name("n1"), foreign, ()).await).message.contains("belongs to cluster"));
}

#[tokio::test]
async fn a_pod_that_was_not_retired_stays_though_its_node_says_stopped() {
    let leader = Leader::start().await;
    leader.join("n1", 1).await;
    let uid = leader.run_on("n1", pod("web", "nginx", "a")).await;
    let mut report = leader.report(1);
    report.pods.push(pod_report(uid, 1, Phase::Failed, true));
    leader.store.report(name("n1"), report, ()).await.expect("a report");
    assert_eq!(leader.store.pod(&name("web")).expect("still there").pod.status.phase, Phase::Failed);
    assert_eq!(leader.store.read(|state| state.node_view(&state.nodes[&name("n1")]).pods), 0, "a finished pod uses nothing");
}

#[tokio::test]
async fn restart_counts_never_fall_when_a_node_comes_back_with_a_new_data_folder() {
    let leader = Leader::start().await;
    leader.join("n1", 1).await;
    let uid = leader.run_on("n1", pod("web", "nginx", "a")).await;
    let counted = |sequence, count: u32| {
        let container = json!({"name": "c", "image": "nginx", "state": {"waiting": {"reason": "Pulling"}}, "restartCount": count});
        let container: ContainerStatus = serde_json::from_value(container).expect("a status");
        let mut report = pod_report(uid, sequence, Phase::Running, false);
        report.status.containers.push(container);
        report
    };
    let mut report = leader.report(1);
    report.pods.push(counted(9, 7));
    leader.store.report(name("n1"), report, ()).await.expect("a report");
    leader.store.join(announcement("n1", 2, "machine-1"), false).await.expect("the same machine");
    let mut report = leader.report(2);
    report.pods.push(PodReport { status: PodStatus { message: Some("new".to_owned()), ..counted(1, 0).status }, ..counted(1, 0) });
    leader.store.report(name("n1"), report, ()).await.expect("a report that counts from the beginning");
    let status = leader.store.pod(&name("web")).expect("a pod").pod.status.clone();
    assert_eq!((status.message.as_deref(), status.containers[0].restart_count), (Some("new"), 7));
}

/// A clock that a test sets.
#[derive(Clone)]
pub(super) struct SetClock(pub(super) Arc<Mutex<Timestamp>>);

impl Source for SetClock {
    fn now(&self) -> Timestamp {
        *self.0.lock().expect("no test panics while it holds the clock")
    }

    fn random(&self) -> u64 {
        rand::random()
    }
}

#[tokio::test]
async fn events_are_forgotten_after_7_days_and_beyond_200_of_an_object() {
    let clock = SetClock(Arc::new(Mutex::new(Timestamp::UNIX_EPOCH)));
    let leader = Leader::start_at(Ambient::new(clock.clone())).await;
    leader.join("n1", 1).await;
    assert_eq!(leader.store.collect_garbage().await.expect("a pass"), 0);
    *clock.0.lock().expect("the clock") += SignedDuration::from_hours(7 * 24 + 1);
    let uid = leader.run_on("n1", pod("web", "nginx", "a")).await;
    let mut report = leader.report(1);
    report.events = (1..=250).map(|i| NodeEvent { at: clock.now(), ..event(uid, i, &format!("number {i}")) }).collect();
    leader.store.report(name("n1"), report, ()).await.expect("a report");
    assert_eq!(leader.store.collect_garbage().await.expect("a pass"), 1 + 52, "the node's old one; 250 and the leader's two over 200");
    let left = leader.events("pod/web").await;
    assert_eq!((left.len(), left[0].message.as_str(), left[199].message.as_str()), (200, "number 51", "number 250"));
}

#[tokio::test]
async fn a_query_of_events_gives_the_newest_in_order_and_goes_on_from_a_revision() {
    let leader = Leader::start().await;
    for name in ["a", "b", "c"] {
        leader.apply(pod(name, "nginx", "a")).await;
    }
    let query = |from, limit| EventQuery { object: None, from, limit };
    let two = leader.store.events(query(None, Some(2))).await.expect("events");
    assert_eq!(two.iter().map(|event| event.object.to_string()).collect::<Vec<_>>(), ["pod/b", "pod/c"]);
    let rest = leader.store.events(query(Some(two[0].revision), None)).await.expect("events");
    assert_eq!(rest, two[1..]);
    let error = refusal(leader.store.events(EventQuery { object: Some("web".to_owned()), ..EventQuery::default() }).await);
    assert_eq!(error.message, "'web' is not an object");
}

#[tokio::test]
async fn a_node_speaks_of_itself_and_of_no_other_node() {
    let leader = Leader::start().await;
    leader.join("n1", 1).await;
    leader.join("n2", 2).await;
    let mut report = leader.report(1);
    report.events = vec![NodeEvent { pod: name("n2"), ..event(cube_api::Uid::NONE, 1, "found something") }];
    leader.store.report(name("n1"), report, ()).await.expect("a report");
    let said: Vec<_> = leader.events("node/n1").await.into_iter().map(|event| event.message).collect();
    assert!(said.iter().any(|message| message == "found something"), "{said:?}");
    assert!(leader.events("node/n2").await.iter().all(|event| event.message != "found something"));
}

#[tokio::test]
async fn a_data_folder_is_one_node_and_the_refusal_says_how_to_rename_it() {
    let leader = Leader::start().await;
    leader.join("n1", 1).await;
    let error = refusal(leader.store.join(announcement("n2", 1, "machine-1"), false).await);
    assert!(
        error.message.contains("node 'n1'") && error.hint.as_deref().is_some_and(|hint| hint.contains("cube-server reset")),
        "{error:?}"
    );
    assert!(leader.store.read(|state| !state.nodes.contains_key(&name("n2"))));
}

#[tokio::test]
async fn pods_wait_in_the_order_in_which_they_were_accepted_whatever_the_clock_says() {
    let clock = SetClock(Arc::new(Mutex::new(Timestamp::UNIX_EPOCH + SignedDuration::from_hours(100))));
    let leader = Leader::start_at(Ambient::new(clock.clone())).await;
    let names: Vec<_> = (0..20).map(|number| format!("web-{number:02}")).collect();
    for (number, name) in names.iter().enumerate() {
        leader.apply(pod(name, "nginx", "a")).await;
        // Back by an hour now and then; otherwise within one millisecond.
        if number % 5 == 4 {
            *clock.0.lock().expect("the clock") -= SignedDuration::from_hours(1);
        }
    }
    let order = leader.store.read(|state| state.unbound().map(|row| row.pod.metadata.name.to_string()).collect::<Vec<_>>());
    assert_eq!(order, names);
}

#[tokio::test]
async fn a_flood_of_events_is_bounded_without_waiting_for_the_hourly_pass() {
    let leader = Leader::start().await;
    leader.join("n1", 1).await;
    let web = leader.run_on("n1", pod("web", "nginx", "a")).await;
    for flood in 0..6 {
        let mut report = leader.report(1);
        report.events.extend((1..=2_000).map(|number| node_event(web, flood * 2_000 + number)));
        leader.store.report(name("n1"), report, ()).await.expect("a report");
    }
    let kept = leader.store.figures().await.expect("figures").events;
    assert!(kept < 4_000, "{kept} of 12,000 events of one pod are kept");
    assert!(leader.events("pod/web").await.pop().is_some_and(|newest| newest.message.ends_with(" 12000")));
}

fn node_event(uid: Uid, sequence: u64) -> cube_api::session::NodeEvent {
    cube_api::session::NodeEvent {
        sequence,
        uid,
        pod: name("web"),
        kind: cube_api::event::EventKind::Normal,
        reason: "Started".to_owned(),
        message: format!("number {sequence}"),
        at: jiff::Timestamp::now(),
    }
}

#[tokio::test]
async fn a_report_that_tells_of_nothing_but_use_is_no_write() {
    let leader = Leader::start().await;
    leader.join("n1", 1).await;
    let mut report = leader.report(1);
    let looked_at = async || {
        let wal = leader.store.figures().await.expect("figures").files.1;
        (leader.store.read(|state| state.revision), wal)
    };
    let before = looked_at().await;
    for cpu in 0..100 {
        report.usage = Some(Usage { cpu: MilliCpu(cpu), ..Usage::default() });
        leader.store.report(name("n1"), report.clone(), ()).await.expect("a report");
    }
    assert_eq!(looked_at().await, before, "the log of the database would grow by a page for each commit");
    assert_eq!(leader.store.read(|state| state.nodes[&name("n1")].usage), None, "nor is it the store's to keep");
}

#[tokio::test]
async fn a_node_that_was_kept_before_anything_was_kept_back_offers_all_it_has_until_it_joins_again() {
    let leader = Leader::start().await;
    leader.join("n1", 1).await;
    let database = leader.folder.path().join("leader.db");
    let older = "UPDATE nodes SET node = json_remove(node, '$.allocatable', '$.capacity.disk', '$.reservedDisk')";
    rusqlite::Connection::open(&database).expect("a database").execute(older, []).expect("a row");
    let leader = leader.restart().await;
    let node = leader.store.read(|state| state.nodes[&name("n1")].clone());
    assert_eq!((node.allocatable, node.allocatable.cpu, node.allocatable.disk), (node.capacity, MilliCpu(4_000), Bytes(0)));
    let mut report = leader.report(1);
    report.facts.allocatable = Some(Capacity { cpu: MilliCpu(3_900), ..node.capacity });
    leader.store.report(name("n1"), report, ()).await.expect("a report");
    let allocatable = leader.store.read(|state| state.nodes[&name("n1")].allocatable);
    assert_eq!(allocatable, Capacity { cpu: MilliCpu(3_900), ..node.capacity });
}

#[tokio::test]
async fn a_report_that_says_nothing_new_writes_nothing() {
    let leader = Leader::start().await;
    leader.join("n1", 1).await;
    let written = async || leader.store.figures().await.expect("figures").files.1;
    let before = written().await;
    for _ in 0..3 {
        leader.store.report(name("n1"), leader.report(1), ()).await.expect("a report");
    }
    assert_eq!(written().await, before, "bytes of the WAL");
}
