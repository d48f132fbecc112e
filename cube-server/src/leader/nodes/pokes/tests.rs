use cube_api::manifest::Resource;
use cube_api::meta::Revision;
use cube_api::routes::DeleteQuery;
use serde_json::json;

use super::*;
use crate::ambient::Ambient;
use crate::leader::store::Placing;
use crate::tasks::Tasks;

const LIMIT: Duration = Duration::from_secs(10);

fn name(text: &str) -> Name {
    text.parse().expect("a name")
}

fn pod(node: Option<&str>, status: &str) -> Arc<PodRow> {
    let metadata =
        json!({"name": "web", "uid": uuid::Uuid::from_u128(1), "generation": 1, "revision": 1, "createdAt": "2026-11-21T00:00:00Z"});
    let spec = json!({"containers": [{"name": "app", "image": "busybox"}]});
    let pod = json!({"metadata": metadata, "spec": spec, "placement": {"node": node}});
    let mut pod: cube_api::Pod = serde_json::from_value(pod).expect("a pod");
    pod.status.message = Some(status.to_owned());
    Arc::new(PodRow { pod, restarts: 0, retired: None })
}

fn change(before: Option<Arc<PodRow>>, after: Option<Arc<PodRow>>) -> Change {
    Change { revision: Revision(9), object: Changed::Pod { before, after } }
}

#[test]
fn only_changes_of_what_an_assignment_is_made_of_concern_a_node() {
    let bound = || Some(pod(Some("n1"), "a"));
    let restarted = Arc::new(PodRow { restarts: 1, ..pod(Some("n1"), "a").as_ref().clone() });
    assert_eq!(concerned(&change(Some(pod(None, "a")), bound())), Some(&name("n1")), "bound");
    assert_eq!(concerned(&change(bound(), None)), Some(&name("n1")), "forgotten");
    assert_eq!(concerned(&change(None, bound())), Some(&name("n1")), "found by a restored leader");
    assert_eq!(concerned(&change(bound(), Some(restarted))), Some(&name("n1")), "restarted");
    assert_eq!(concerned(&change(bound(), Some(pod(Some("n1"), "b")))), None, "only its status");
    assert_eq!(concerned(&change(None, Some(pod(None, "a")))), None, "nobody's yet");
}

async fn store(tasks: &Tasks) -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let store = Store::open(&folder.path().join("leader.db"), Ambient::system(), tasks).await.expect("a store");
    (folder, store)
}

async fn join(store: &Store, node: &str, node_id: u128) {
    let facts = json!({"version": "0.1.0", "engine": "20.10", "capacity": {"cpu": "4", "memory": "4Gi", "pods": 1000}});
    let node_id = uuid::Uuid::from_u128(node_id);
    let text = json!({"node": node, "nodeId": node_id, "machineId": "m", "role": "Follower", "facts": facts});
    store.join(serde_json::from_value(text).expect("an announcement"), false).await.expect("a node that may join");
}

fn manifest(pod: &str) -> Resource {
    let manifest = json!({"metadata": {"name": pod}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    Resource::Pod(serde_json::from_value(manifest).expect("a manifest"))
}

#[tokio::test]
async fn a_node_that_changes_while_nobody_waits_is_looked_at_and_others_are_not() {
    let tasks = Tasks::default();
    let (_folder, store) = store(&tasks).await;
    let pokes = Pokes::default();
    let (poke, other) = (pokes.of(&name("n1")), pokes.of(&name("n2")));
    tasks.spawn_droppable("assignments", pokes.clone().follow(store.clone()));
    // The beginning of the watch.
    for poke in [&poke, &other] {
        tokio::time::timeout(LIMIT, poke.next()).await.expect("everybody looks once");
    }
    join(&store, "n1", 1).await;
    join(&store, "n2", 2).await;
    store.delete_node(name("n1"), true).await.expect("a delete");
    tokio::time::timeout(LIMIT, poke.next()).await.expect("its node was deleted before it waited");
    assert!(futures::poll!(std::pin::pin!(other.next())).is_pending(), "its node only joined");
    drop(poke);
    assert!(pokes.with(|sessions| sessions.keys().eq([&name("n2")])), "who is gone isn't kept");
    assert!(tasks.shut_down(LIMIT).await);
}

/// 512 pods that wait are a burst.
#[tokio::test(start_paused = true)]
async fn a_node_is_told_of_its_pods_of_a_burst_together_and_of_a_single_one_at_once() {
    let tasks = Tasks::default();
    let (_folder, store) = store(&tasks).await;
    join(&store, "n1", 1).await;
    let pokes = Pokes::default();
    let poke = pokes.of(&name("n1"));
    tasks.spawn_droppable("assignments", pokes.clone().follow(store.clone()));
    poke.next().await;
    // In the first burst the node gets four pods one after the other, in the second one.
    for (burst, waits) in [("first", &[2, 4, 8, 8][..]), ("single", &[0]), ("second", &[2])] {
        let waiting = if waits == [0] { 1 } else { 600 };
        let pods = (0..waiting).map(|number| manifest(&format!("{burst}-{number}"))).collect();
        store.apply(pods, false).await.expect("an apply");
        for wait in waits {
            let uid = store.read(|state| state.fresh().next().expect("a pod").pod.metadata.uid);
            let began = Instant::now();
            store.place(vec![Placing::Bind { uid, node: name("n1"), reason: "it fits".to_owned() }]).await.expect("a placing");
            poke.next().await;
            // Nothing of the store takes time that is paused; a timer is a millisecond late.
            let late = began.elapsed().checked_sub(Duration::from_secs(*wait));
            assert!(late.is_some_and(|late| late < Duration::from_millis(10)), "{burst}: told after {:?} for {wait} s", began.elapsed());
        }
        let rest: Vec<_> = store.read(|state| state.fresh().map(|row| row.pod.metadata.name.clone()).collect());
        for pod in rest {
            store.delete_pod(pod, DeleteQuery::default()).await.expect("a delete");
        }
    }
    assert!(tasks.shut_down(LIMIT).await);
}

/// The ring of changes has 16,384.
#[tokio::test]
async fn everybody_looks_when_there_were_more_changes_than_are_kept() {
    let tasks = Tasks::default();
    let (_folder, store) = store(&tasks).await;
    let pokes = Pokes::default();
    let poke = pokes.of(&name("n1"));
    tasks.spawn_droppable("assignments", pokes.clone().follow(store.clone()));
    tokio::time::timeout(LIMIT, poke.next()).await.expect("everybody looks once");
    store.apply((0..16_400).map(|number| manifest(&format!("p{number}"))).collect(), false).await.expect("an apply");
    tokio::time::timeout(LIMIT, poke.next()).await.expect("what was missed may have been its node's");
    assert!(tasks.shut_down(LIMIT).await);
}
