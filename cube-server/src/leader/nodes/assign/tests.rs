use axum::Router;
use axum::routing::put;
use cube_api::ErrorCode;
use cube_api::meta::ClusterId;
use cube_api::session::{AssignedPod, Epoch, Generation};
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::super::pokes::Pokes;
use super::*;
use crate::h2;
use crate::tasks::Tasks;

async fn store_with_node(node_id: u128, tasks: &Tasks) -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let store = Store::open(&folder.path().join("leader.db"), Ambient::system(), tasks).await.expect("a store");
    join(&store, node_id).await;
    (folder, store)
}

async fn join(store: &Store, node_id: u128) {
    let facts = serde_json::json!({"version": "0.1.0", "engine": "20.10", "capacity": {"cpu": "4", "memory": "4Gi", "pods": 100}});
    let text =
        serde_json::json!({"node": "n1", "nodeId": uuid::Uuid::from_u128(node_id), "machineId": "m", "role": "Follower", "facts": facts});
    store.join(serde_json::from_value(text).expect("an announcement"), false).await.expect("a node that may join");
}

#[tokio::test]
async fn a_session_ends_when_its_node_is_deleted_or_another_data_folder_has_its_name() {
    let tasks = Tasks::default();
    let take = |generation| Ok(accepted(generation, true));
    let node: Name = "n1".parse().expect("a name");
    let limit = Duration::from_secs(10);
    for is_deleted in [true, false] {
        let (Delivery { client, .. }, mut seen) = delivery(&tasks, take).await;
        let (_folder, store) = store_with_node(1, &tasks).await;
        let pokes = Pokes::default();
        tasks.spawn_droppable("assignments", pokes.clone().follow(store.clone()));
        let node_id = NodeId(uuid::Uuid::from_u128(1));
        let work = keep_assigned(store.clone(), Ambient::system(), pokes.of(&node), node.clone(), node_id, client.clone());
        let change = async {
            assert!(seen.recv().await.is_some_and(|assignment| assignment.pods.is_empty()), "it is the node's");
            match is_deleted {
                true => drop(store.delete_node(node.clone(), true).await.expect("a delete")),
                false => join(&store, 2).await,
            }
        };
        let both = async { tokio::join!(work, change) };
        tokio::time::timeout(limit, both).await.unwrap_or_else(|_| panic!("deleted {is_deleted}: the session goes on without a row"));
        // As a node that was deleted between its join and its session.
        let late = keep_assigned(store, Ambient::system(), pokes.of(&node), node.clone(), node_id, client);
        tokio::time::timeout(limit, late).await.expect("there is no such node");
    }
    assert!(tasks.shut_down(limit).await);
}

/// The answer of a node that knows what an unchanged pod is, or of an older one.
fn accepted(generation: u64, takes_unchanged: bool) -> AssignmentAccepted {
    AssignmentAccepted { generation: Generation(generation), takes_unchanged }
}

fn assignment(generation: u64, pods: usize) -> Assignment {
    let spec = serde_json::json!({ "containers": [{ "name": "app", "image": "busybox" }] });
    let spec: cube_api::pod::PodSpec = serde_json::from_value(spec).expect("a spec");
    let pods = (0..pods).map(|i| AssignedPod {
        uid: Uid(uuid::Uuid::from_u128(i as u128)),
        name: "web".parse().expect("a name"),
        labels: Default::default(),
        spec: spec.clone(),
        want: Want::Run { restarts: 0 },
        sources: None,
    });
    Assignment {
        cluster_id: ClusterId(uuid::Uuid::nil()),
        epoch: Epoch(1),
        node: "n1".parse().expect("a name"),
        generation: Generation(generation),
        pods: pods.collect(),
        unchanged: None,
        cordoned: false,
        drop_volumes: Vec::new(),
    }
}

/// A way to a node that answers assignments with `answer`; those that it got.
async fn delivery(
    tasks: &Tasks,
    answer: impl Fn(u64) -> Result<AssignmentAccepted, ApiError> + Clone + Send + Sync + 'static,
) -> (Delivery, mpsc::Receiver<Assignment>) {
    let (got, seen) = mpsc::channel(8);
    let assign = async move |axum::Json(assignment): axum::Json<Assignment>| {
        let generation = assignment.generation.0;
        got.send(assignment).await.expect("the test listens");
        answer(generation).map(axum::Json).map_err(|e| (e.code.status(), axum::Json(e)))
    };
    let router = Router::new().route(node::ASSIGNMENT, put(assign));
    let (leaders, nodes) = tokio::io::duplex(64 * 1024);
    let end = CancellationToken::new();
    let executor = h2::Executor::new(tasks, &end);
    let nodes_executor = executor.clone();
    tasks.spawn_droppable("node", async move {
        h2::serve(nodes, router, nodes_executor).await.expect("the test ends first");
    });
    let (client, connection) = h2::client(TokioIo::new(leaders), executor).await.expect("a node");
    tasks.spawn_droppable("leader", async move { connection.await.expect("the test ends first") });
    (Delivery::new("n1".parse().expect("a name"), client), seen)
}

#[tokio::test]
async fn a_set_of_pods_is_sent_once_and_again_when_it_changed() {
    let tasks = Tasks::default();
    let (mut delivery, mut seen) = delivery(&tasks, |generation| Ok(accepted(generation, false))).await;
    for assignment in [assignment(1, 1), assignment(2, 1), assignment(3, 2)] {
        delivery.deliver(assignment).await.expect("taken");
    }
    assert_eq!(seen.recv().await, Some(assignment(1, 1)));
    assert_eq!(seen.recv().await, Some(assignment(3, 2)));
}

/// What is left of an assignment when these are known since another one.
fn after(since: u64, known: &[u128], whole: Assignment) -> Assignment {
    let known: Vec<_> = known.iter().map(|uid| Uid(uuid::Uuid::from_u128(*uid))).collect();
    let pods = whole.pods.iter().filter(|pod| !known.contains(&pod.uid)).cloned().collect();
    Assignment { pods, unchanged: Some(Unchanged { since: Generation(since), pods: known }), ..whole }
}

#[tokio::test]
async fn what_a_node_knows_of_a_pod_is_not_said_again() {
    let tasks = Tasks::default();
    let (mut delivery, mut seen) = delivery(&tasks, |generation| Ok(accepted(generation, true))).await;
    let mut stopping = assignment(5, 3);
    stopping.pods[1].want = Want::Stop { grace_seconds: 1, reason: "deleted by the user".to_owned() };
    let mut labelled = assignment(6, 3);
    labelled.pods[0].labels.insert("app".parse().expect("a label"), "web".parse().expect("a value"));
    for assignment in [assignment(1, 2), assignment(2, 3), assignment(3, 1), assignment(4, 3), stopping.clone(), labelled.clone()] {
        delivery.deliver(assignment).await.expect("taken");
    }
    let told = [
        assignment(1, 2),
        after(1, &[0, 1], assignment(2, 3)),
        after(2, &[0], assignment(3, 1)),
        after(3, &[0], assignment(4, 3)),
        after(4, &[0, 2], stopping),
        after(5, &[2], labelled),
    ];
    for expected in told {
        assert_eq!(seen.recv().await, Some(expected));
    }
}

#[tokio::test]
async fn a_node_that_did_not_take_an_assignment_is_told_all_again() {
    let tasks = Tasks::default();
    let (mut delivery, mut seen) = delivery(&tasks, |generation| match generation {
        2 => Err(ApiError::new(ErrorCode::Conflict, "its newest assignment is another one")),
        generation => Ok(accepted(generation, true)),
    })
    .await;
    delivery.deliver(assignment(1, 1)).await.expect("taken");
    delivery.deliver(assignment(2, 2)).await.expect_err("refused");
    delivery.deliver(assignment(3, 2)).await.expect("taken");
    for expected in [assignment(1, 1), after(1, &[0], assignment(2, 2)), assignment(3, 2)] {
        assert_eq!(seen.recv().await, Some(expected));
    }
}

#[tokio::test]
async fn what_a_node_refused_is_sent_again() {
    let tasks = Tasks::default();
    let (mut delivery, mut seen) = delivery(&tasks, |generation| match generation {
        1 => Err(ApiError::new(ErrorCode::Busy, "the disk is slow")),
        2 => Ok(accepted(5, true)),
        generation => Ok(accepted(generation, true)),
    })
    .await;
    assert_eq!(delivery.deliver(assignment(1, 1)).await.expect_err("refused").message, "the disk is slow");
    delivery.deliver(assignment(2, 1)).await.expect_err("older than what the node has");
    delivery.deliver(assignment(6, 1)).await.expect("taken");
    for generation in [1, 2, 6] {
        assert_eq!(seen.recv().await.map(|a| a.generation), Some(Generation(generation)));
    }
}
