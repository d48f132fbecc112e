//! Applying, deleting, placing, joining; the group commit.

use cube_api::ErrorCode;
use cube_api::manifest::Resource;
use cube_api::meta::Revision;
use cube_api::node::NodeCondition;
use cube_api::pod::PublishedPort;
use cube_api::routes::{ApplyAction, DeleteQuery};
use cube_api::session::Want;
use futures::future::join_all;
use rusqlite::Connection;

use super::*;

#[tokio::test]
async fn a_restarted_leader_has_everything_and_another_epoch() {
    let leader = Leader::start().await;
    leader.join("n1", 1).await;
    leader.run_on("n1", pod("web", "nginx", "a")).await;
    leader.apply(pod("db", "postgres", "a")).await;
    let (cluster, epoch, before) = (leader.store.cluster_id(), leader.store.epoch(), leader.store.read(Clone::clone));
    let leader = leader.restart().await;
    assert_eq!(leader.store.read(Clone::clone), before);
    assert_eq!((leader.store.cluster_id(), leader.store.epoch().0), (cluster, epoch.0 + 1));
    assert_eq!(leader.reasons("pod/web").await, ["Created", "Scheduled"]);
    let next = leader.apply(pod("new", "nginx", "a")).await.1.metadata.revision;
    assert!(next > before.revision, "a revision is used once");
}

#[tokio::test]
async fn concurrent_applies_are_all_there_after_a_restart_and_each_has_its_revision() {
    let leader = Leader::start().await;
    let names: Vec<_> = (0..300).map(|i| format!("web-{i}")).collect();
    let applied = join_all(names.iter().map(|name| leader.apply(pod(name, "nginx", "a")))).await;
    let mut revisions: Vec<_> = applied.iter().map(|(_, pod)| pod.metadata.revision).collect();
    revisions.sort();
    revisions.dedup();
    assert_eq!(revisions.len(), 300);
    let leader = leader.restart().await;
    assert_eq!(leader.store.read(|state| state.names.len()), 300);
}

#[tokio::test]
async fn a_refused_or_failing_write_does_not_hurt_the_others_of_its_batch() {
    let leader = Leader::start().await;
    leader.join("n1", 1).await;
    let uid = leader.run_on("n1", pod("old", "nginx", "a")).await;
    let mut unreal = leader.report(1);
    // SQLite's integers end at 2^63: its row can't be written.
    unreal.pods.push(pod_report(uid, u64::MAX, Phase::Running, false));
    let (first, refused, failed, last) = futures::join!(
        leader.store.apply(vec![pod("first", "nginx", "a")], false),
        leader.store.restart_pod(name("nobody")),
        leader.store.report(name("n1"), unreal, ()),
        leader.store.apply(vec![pod("last", "nginx", "a")], false),
    );
    assert!(first.is_ok() && last.is_ok());
    assert_eq!(refusal(refused).message, "pod/nobody not found");
    assert!(matches!(failed, Err(StoreError::Sqlite { operation: "take a node's report", .. })));
    assert_eq!(leader.store.pod(&name("old")).expect("a pod").pod.status.phase, Phase::Pending);
    let before = leader.store.read(Clone::clone);
    assert_eq!(leader.restart().await.store.read(Clone::clone), before);
}

#[tokio::test]
async fn a_commit_that_fails_changes_nothing_and_everyone_hears_of_it() {
    let leader = Leader::start().await;
    leader.apply(pod("web", "nginx", "a")).await;
    let before = leader.store.read(Clone::clone);
    let saboteur = Connection::open(leader.folder.path().join("leader.db")).expect("a second connection");
    saboteur.execute_batch("ALTER TABLE meta RENAME TO away").expect("an alteration");
    let (a, b) =
        futures::join!(leader.store.apply(vec![pod("a", "nginx", "a")], false), leader.store.apply(vec![pod("b", "nginx", "a")], false));
    assert!(matches!(a, Err(StoreError::Sqlite { .. })) && matches!(b, Err(StoreError::Sqlite { .. })));
    assert_eq!(leader.store.read(Clone::clone), before);
    saboteur.execute_batch("ALTER TABLE away RENAME TO meta").expect("an alteration");
    leader.apply(pod("a", "nginx", "a")).await;
    let before = leader.store.read(Clone::clone);
    assert_eq!(before.names.len(), 2);
    assert_eq!(leader.restart().await.store.read(Clone::clone), before);
}

#[tokio::test]
async fn an_apply_makes_relabels_replaces_or_leaves() {
    let leader = Leader::start().await;
    let (action, first) = leader.apply(pod("web", "nginx:1", "a")).await;
    assert_eq!((action, first.metadata.generation), (ApplyAction::Created, 1));
    let (action, same) = leader.apply(pod("web", "nginx:1", "a")).await;
    assert_eq!((action, &same), (ApplyAction::Unchanged, &first));
    let (action, relabelled) = leader.apply(pod("web", "nginx:1", "b")).await;
    assert_eq!((action, relabelled.metadata.uid, relabelled.metadata.generation), (ApplyAction::Configured, first.metadata.uid, 1));
    assert!(relabelled.metadata.revision > first.metadata.revision);
    let (action, second) = leader.apply(pod("web", "nginx:2", "b")).await;
    assert_eq!((action, second.metadata.generation), (ApplyAction::Replaced, 2));
    assert_ne!(second.metadata.uid, first.metadata.uid);
    assert_eq!(leader.store.read(|state| state.pods.len()), 1, "the first never had a node: it is gone at once");
    assert_eq!(leader.reasons("pod/web").await, ["Created", "Relabelled", "Replaced", "Created"]);
}

#[tokio::test]
async fn a_bound_pod_whose_spec_changes_leaves_when_its_node_has_stopped_it() {
    let leader = Leader::start().await;
    leader.join("n1", 1).await;
    let old = leader.run_on("n1", pod("web", "nginx:1", "a")).await;
    let (action, new) = leader.apply(pod("web", "nginx:2", "a")).await;
    assert_eq!((action, new.metadata.generation), (ApplyAction::Replaced, 2));
    let assignment = leader.store.assignment(&name("n1"));
    let stop = Want::Stop { grace_seconds: 30, reason: "replaced: its spec changed (generation 2)".to_owned() };
    assert_eq!(assignment.pods.iter().map(|pod| (pod.uid, &pod.want)).collect::<Vec<_>>(), [(old, &stop)]);
    assert_eq!(leader.store.pod(&name("web")).expect("a pod").pod.metadata.uid, new.metadata.uid);
    let mut report = leader.report(1);
    report.pods.push(pod_report(old, 1, Phase::Succeeded, true));
    leader.store.report(name("n1"), report, ()).await.expect("a report");
    assert_eq!(leader.store.read(|state| state.pods.keys().copied().collect::<Vec<_>>()), [new.metadata.uid]);
    assert_eq!(leader.reasons("pod/web").await, ["Created", "Scheduled", "Replaced", "Created", "Stopped"]);
}

#[tokio::test]
async fn a_pod_that_is_being_deleted_and_applied_again_is_a_new_one() {
    let leader = Leader::start().await;
    leader.join("n1", 1).await;
    let old = leader.run_on("n1", pod("web", "nginx", "a")).await;
    leader.store.delete_pod(name("web"), DeleteQuery::default()).await.expect("a delete");
    let (action, new) = leader.apply(pod("web", "nginx", "a")).await;
    assert_eq!(action, ApplyAction::Created);
    let retired = leader.store.read(|state| state.pods[&old].retired.clone()).expect("still on its way out");
    assert_eq!((retired.reason.as_str(), retired.replaced), ("deleted by the user", true));
    // And the new one is deleted before it had a node: the old one stands for the name until it is gone.
    leader.store.delete_pod(name("web"), DeleteQuery::default()).await.expect("a delete");
    assert!(leader.store.read(|state| !state.pods.contains_key(&new.metadata.uid)));
    assert_eq!(leader.store.pod(&name("web")).expect("the old one").pod.metadata.uid, old);
}

#[tokio::test]
async fn an_apply_with_one_conflict_changes_nothing_and_lists_every_conflict() {
    let leader = Leader::start().await;
    let (_, web) = leader.apply(pod("web", "nginx:1", "a")).await;
    let before = leader.store.read(Clone::clone);
    let stale = |resource| {
        let Resource::Pod(mut manifest) = resource else { panic!("a pod") };
        manifest.metadata.revision = Some(Revision(77));
        Resource::Pod(manifest)
    };
    let all = vec![pod("new", "nginx", "a"), stale(pod("web", "nginx:2", "a")), stale(pod("gone", "nginx", "a"))];
    let error = refusal(leader.store.apply(all, false).await);
    assert_eq!((error.code, error.details.len()), (ErrorCode::Conflict, 2));
    let expected = format!("pod/web: metadata.revision: 77 is asked for, but it is at {} now", web.metadata.revision);
    assert_eq!(error.details[0].to_string(), expected);
    assert_eq!(leader.store.read(Clone::clone), before);
}

#[tokio::test]
async fn a_dry_run_says_what_an_apply_would_do_and_keeps_nothing() {
    let leader = Leader::start().await;
    leader.apply(pod("web", "nginx:1", "a")).await;
    let before = leader.store.read(Clone::clone);
    let dry = leader.store.apply(vec![pod("web", "nginx:2", "a"), pod("new", "nginx", "a")], true).await.expect("a dry run");
    assert_eq!(dry.items.iter().map(|item| item.action).collect::<Vec<_>>(), [ApplyAction::Replaced, ApplyAction::Created]);
    assert_eq!(dry.revision, before.revision);
    assert_eq!(leader.store.read(Clone::clone), before);
    assert_eq!(leader.reasons("pod/new").await, [""; 0]);
    assert_eq!(leader.restart().await.store.read(Clone::clone), before);
}

#[tokio::test]
async fn a_delete_may_be_repeated_and_a_smaller_grace_shortens_it() {
    let leader = Leader::start().await;
    leader.join("n1", 1).await;
    leader.run_on("n1", pod("web", "nginx", "a")).await;
    let grace = |seconds| DeleteQuery { grace_seconds: Some(seconds), force: false };
    leader.store.delete_pod(name("web"), grace(20)).await.expect("a delete");
    leader.store.delete_pod(name("web"), grace(60)).await.expect("a longer one");
    let want = |store: &Store| store.assignment(&name("n1")).pods[0].want.clone();
    let stop = |grace_seconds| Want::Stop { grace_seconds, reason: "deleted by the user".to_owned() };
    assert_eq!(want(&leader.store), stop(20));
    leader.store.delete_pod(name("web"), grace(0)).await.expect("a shorter one");
    assert_eq!(want(&leader.store), stop(0));
    assert_eq!(leader.reasons("pod/web").await, ["Created", "Scheduled", "Deleting"]);
    let error = refusal(leader.store.restart_pod(name("web")).await);
    assert_eq!((error.code, error.message.as_str()), (ErrorCode::Conflict, "pod/web is being deleted"));
    leader.store.delete_pod(name("web"), DeleteQuery { grace_seconds: None, force: true }).await.expect("a forced one");
    assert!(leader.store.pod(&name("web")).is_none());
    let error = refusal(leader.store.delete_pod(name("web"), DeleteQuery::default()).await);
    assert_eq!((error.code, error.hint.as_deref()), (ErrorCode::NotFound, Some("`cube list pod` shows what there is")));
}

#[tokio::test]
async fn a_pod_is_bound_once_and_only_to_a_node_that_is_there() {
    let leader = Leader::start().await;
    leader.join("n1", 1).await;
    leader.join("n2", 2).await;
    let uid = leader.apply(pod("web", "nginx", "a")).await.1.metadata.uid;
    let bind = |node: &str| Placing::Bind { uid, node: name(node), reason: "it fits".to_owned() };
    let node_of = |store: &Store| store.read(|state| state.pods[&uid].pod.placement.node.clone());
    leader.store.place(vec![bind("n9")]).await.expect("a placing");
    assert_eq!(node_of(&leader.store), None);
    leader.store.place(vec![bind("n1"), bind("n2")]).await.expect("a placing");
    leader.store.place(vec![bind("n2"), Placing::Wait { uid, reason: "late".to_owned() }]).await.expect("a placing");
    assert_eq!(node_of(&leader.store), Some(name("n1")));
    let view = leader.store.read(|state| state.node_view(&state.nodes[&name("n1")]));
    assert_eq!((view.pods, view.reserved_cpu.0, view.reserved_memory.0), (1, 100, 64 << 20));
}

#[tokio::test]
async fn a_pod_is_not_bound_where_a_restart_took_the_room_after_the_scheduler_looked() {
    let leader = Leader::start().await;
    leader.join("n1", 1).await;
    let finished = leader.run_on("n1", pod("web", "nginx", "a")).await;
    let mut report = leader.report(1);
    report.pods.push(pod_report(finished, 1, Phase::Succeeded, false));
    leader.store.report(name("n1"), report, ()).await.expect("a report");
    let uid = leader.apply(pod("next", "nginx", "a")).await.1.metadata.uid;
    leader.store.restart_pod(name("web")).await.expect("there is room: nothing is placed yet");
    let bind = Placing::Bind { uid, node: name("n1"), reason: "it fitted".to_owned() };
    leader.store.place(vec![bind]).await.expect("a placing");
    assert_eq!(leader.store.read(|state| state.pods[&uid].pod.placement.node.clone()), None, "host port 8080 is taken");
}

#[tokio::test]
async fn a_port_that_a_node_chose_is_taken_as_one_that_a_pod_asks_for_until_its_pod_is_over() {
    let leader = Leader::start().await;
    leader.join("n1", 1).await;
    let Resource::Pod(mut free) = pod("free", "nginx", "a") else { panic!("a pod") };
    free.spec.containers[0].ports[0].host_port = Some(0);
    let chosen = PublishedPort::new(&free.spec.containers[0].name, &free.spec.containers[0].ports[0], 8080);
    let holder = leader.run_on("n1", Resource::Pod(free)).await;
    let report = async |sequence, phase, ports: &[PublishedPort]| {
        let mut report = leader.report(1);
        report.pods.push(pod_report(holder, sequence, phase, false));
        report.pods[0].status.host_ports = ports.into();
        leader.store.report(name("n1"), report, ()).await.expect("a report");
    };
    let taken = || leader.store.read(|state| state.load(&name("n1")).map(|load| load.host_ports.values().sum::<u32>()));
    assert_eq!(taken(), Some(0), "none is known yet");
    report(1, Phase::Running, std::slice::from_ref(&chosen)).await;
    assert_eq!(taken(), Some(1));
    let uid = leader.apply(pod("next", "nginx", "a")).await.1.metadata.uid;
    let bind = || Placing::Bind { uid, node: name("n1"), reason: "it fitted".to_owned() };
    let node = || leader.store.read(|state| state.pods[&uid].pod.placement.node.clone());
    leader.store.place(vec![bind()]).await.expect("a placing");
    assert_eq!(node(), None, "host port 8080 is taken");
    report(2, Phase::Succeeded, &[]).await;
    assert_eq!(taken(), Some(0));
    leader.store.place(vec![bind()]).await.expect("a placing");
    assert_eq!(node(), Some(name("n1")));
}

#[tokio::test]
async fn a_finished_pod_that_is_restarted_has_its_room_before_its_node_says_so() {
    let leader = Leader::start().await;
    leader.join("n1", 1).await;
    let uid = leader.run_on("n1", pod("web", "nginx", "a")).await;
    let mut report = leader.report(1);
    report.pods.push(pod_report(uid, 1, Phase::Failed, false));
    report.pods[0].status.reason = Some("CrashLimit".to_owned());
    leader.store.report(name("n1"), report, ()).await.expect("a report");
    let used = |store: &Store| {
        store.read(|state| state.load(&name("n1")).map(|load| (load.unfinished, load.reserved.cpu.0, load.host_ports.len())))
    };
    assert_eq!(used(&leader.store), Some((0, 0, 0)));
    let restarted = leader.store.restart_pod(name("web")).await.expect("a restart");
    assert_eq!((restarted.status.phase, restarted.status.reason), (Phase::Pending, None));
    assert_eq!(used(&leader.store), Some((1, 100, 1)));
    assert_eq!(used(&leader.restart().await.store), Some((1, 100, 1)));
}

#[tokio::test]
async fn a_finished_pod_is_not_restarted_where_another_has_its_room() {
    let leader = Leader::start().await;
    leader.join("n1", 1).await;
    let old = leader.run_on("n1", pod("web", "nginx", "a")).await;
    let mut report = leader.report(1);
    report.pods.push(pod_report(old, 1, Phase::Succeeded, false));
    leader.store.report(name("n1"), report, ()).await.expect("a report");
    leader.run_on("n1", pod("next", "nginx", "a")).await;
    let before = leader.store.read(Clone::clone);
    let error = refusal(leader.store.restart_pod(name("web")).await);
    assert_eq!(error.message, "pod/web can't start again: node n1 lacks a free host port for it now");
    assert_eq!((error.code, leader.store.read(Clone::clone)), (ErrorCode::Conflict, before));
}

#[tokio::test]
async fn a_taken_name_is_refused_with_a_remedy_unless_it_is_the_same_machine_and_not_connected() {
    let leader = Leader::start().await;
    leader.join("n1", 1).await;
    leader.store.join(announcement("n1", 1, "machine-1"), true).await.expect("the node itself dials again");
    let join = |node_id, machine, live| leader.store.join(announcement("n1", node_id, machine), live);
    let error = refusal(join(2, "machine-1", true).await);
    assert_eq!(error.message, "a node named 'n1' is connected from another data folder (machine machine-1)");
    assert!(error.hint.is_some_and(|hint| hint.contains("--name")));
    assert_eq!(refusal(join(2, "machine-2", false).await).code, ErrorCode::Conflict);
    join(2, "machine-1", false).await.expect("the same machine takes its name back");
    let error = refusal(leader.store.report(name("n1"), leader.report(1), ()).await);
    assert!(error.message.contains("superseded"), "{}", error.message);
    let mut stranger = announcement("n3", 3, "machine-3");
    stranger.cluster_id = Some(other_cluster());
    assert!(refusal(leader.store.join(stranger, false).await).message.contains("belongs to cluster"));
}

#[tokio::test]
async fn a_node_with_pods_is_forgotten_by_force_only() {
    let leader = Leader::start().await;
    leader.join("n1", 1).await;
    let uid = leader.run_on("n1", pod("web", "nginx", "a")).await;
    assert_eq!(refusal(leader.store.delete_node(name("n1"), false).await).message, "node/n1 is Ready: it was connected a moment ago");
    let away = NodeCondition::NotReady { reason: "away".to_owned() };
    leader.store.set_condition(name("n1"), away).await.expect("a condition");
    assert_eq!(refusal(leader.store.delete_node(name("n1"), false).await).message, "1 pod is bound to node/n1");
    leader.store.delete_node(name("n1"), true).await.expect("a forced delete");
    assert!(leader.store.read(|state| state.nodes.is_empty() && !state.pods.contains_key(&uid)));
    assert_eq!(leader.reasons("node/n1").await, ["NodeJoined", "NodeNotReady", "NodeDeleted"]);
}
