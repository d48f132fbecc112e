//! The classic task interface on a whole cluster, and what its best-known implementation gets wrong.

use std::time::Duration;

use cube_api::ErrorCode;
use cube_api::classic::{State, Task};
use cube_api::pod::Phase;
use cube_api::routes::LogQuery;
use cube_server::leader::control;
use cube_server::tasks::Tasks;
use serde_json::json;

use crate::rig::{Cluster, Follower, Leader, name, wait_for};

const ID: &str = "bb1d59ef-9fc1-4e4b-a44d-db571eeed203";

impl Leader {
    /// Runs a task of the image `app`.
    async fn post_task(&self) -> Task {
        let task = json!({"State": 2, "Task": {"ID": ID, "Name": "Web.1", "Image": "app"}});
        self.client.post_task(&task).await.expect("a task that isn't refused")
    }

    /// Waits until the task does so.
    async fn task_does(&self, state: State) -> Task {
        let what = format!("the task, {}", state.as_str());
        wait_for(&what, async || match self.client.task(ID).await {
            Ok(task) if task.state == state => Ok(task),
            other => Err(format!("{other:?}")),
        })
        .await
    }
}

#[tokio::test]
async fn a_task_goes_through_its_states_and_the_workers_count_it() {
    let cluster = Cluster::start().await;
    let leader = &cluster.leader;
    assert_eq!(leader.post_task().await.state, State::Pending);
    let task = leader.task_does(State::Running).await;
    assert!(!task.container_id.is_empty() && task.starts_at.is_some_and(|starts_at| starts_at >= task.created_at), "{task:?}");
    assert_eq!((task.restart_count, task.finished_at), (0, None));
    let workers = leader.client.workers().await.expect("workers");
    assert_eq!(workers.iter().map(|worker| (worker.name.as_str(), worker.task_count)).collect::<Vec<_>>(), [("n1", 1)]);
    leader.client.stop_task("bb1d").await.expect("a stop");
    wait_for("the end of the task", async || match leader.client.task(ID).await {
        Err(error) if error.code() == Some(ErrorCode::NotFound) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    cluster.stop().await;
}

#[tokio::test]
async fn bf1_a_failed_request_to_a_worker_is_an_answer_and_no_panic() {
    let cluster = Cluster::start().await;
    let leader = &cluster.leader;
    leader.post_task().await;
    leader.task_does(State::Running).await;
    cluster.gate.cut(false);
    wait_for("the end of the session", async || if leader.nodes.live().is_empty() { Ok(()) } else { Err(()) }).await;
    let error = leader.client.logs(&name("web-1"), &LogQuery::default()).await.err().expect("its node can't be asked");
    assert_eq!(error.code(), Some(ErrorCode::NodeUnavailable), "{error}");
    leader.client.stop_task(ID).await.expect("what is wanted is noted");
    cluster.gate.cut(true);
    wait_for("the end of the task", async || leader.client.task(ID).await.map_or(Ok(()), Err)).await;
    // The rig's stop fails if a task has panicked.
    cluster.stop().await;
}

#[tokio::test]
async fn bf2_a_task_that_fits_on_no_worker_waits_and_runs_when_one_comes() {
    let (leader, tasks) = (Leader::start().await, Tasks::default());
    leader.post_task().await;
    let waits =
        wait_for("why it waits", async || leader.client.pod(&name("web-1")).await.expect("it is kept").placement.waiting_for.ok_or(()));
    let waits = waits.await;
    assert!(waits.contains("node"), "with the reason: {waits}");
    assert_eq!(leader.task_does(State::Pending).await.name, "Web.1");
    let gate = leader.gate(&tasks).await;
    let follower = Follower::start("n1", "machine-1", &gate).await;
    leader.task_does(State::Running).await;
    follower.stop().await;
    leader.stop().await;
}

#[tokio::test]
async fn bf3_a_container_that_is_missing_is_made_again_and_stopping_it_is_no_crash() {
    let cluster = Cluster::start().await;
    let leader = &cluster.leader;
    leader.post_task().await;
    let task = leader.task_does(State::Running).await;
    let gone = |task: &Task| cluster.follower.fake.remove_by_hand(&cube_server::follower::runtime::ContainerId(task.container_id.clone()));
    gone(&task);
    let task = wait_for("another container", async || match leader.client.task(ID).await.expect("the task") {
        now if now.state == State::Running && now.container_id != task.container_id && now.restart_count > 0 => Ok(now),
        other => Err(other),
    })
    .await;
    gone(&task);
    leader.client.stop_task(ID).await.expect("a stop");
    wait_for("the end of the task", async || leader.client.task(ID).await.map_or(Ok(()), Err)).await;
    cluster.stop().await;
}

#[tokio::test]
async fn bf4_a_dead_workers_task_runs_on_another_one_under_its_id() {
    let impatient = control::Options {
        not_ready_after: Duration::from_millis(200),
        lost_after: Some(Duration::from_millis(600)),
        check_nodes_every: Duration::from_millis(50),
        ..control::Options::default()
    };
    let (leader, tasks) = (Leader::start_with(impatient).await, Tasks::default());
    let mut followers = Vec::new();
    for node in ["n0", "n1"] {
        let gate = leader.gate(&tasks).await;
        followers.push((Follower::start(node, &format!("machine-{node}"), &gate).await, gate));
        leader.ready(node).await;
    }
    leader.post_task().await;
    leader.task_does(State::Running).await;
    let pod = leader.phase("web-1", Phase::Running).await;
    let dead = usize::from(pod.placement.node == Some(name("n1")));
    followers[dead].1.cut(false);
    let moved = wait_for("the task elsewhere", async || match leader.client.pod(&name("web-1")).await.expect("the pod") {
        now if now.metadata.uid != pod.metadata.uid && now.status.phase == Phase::Running => Ok(now),
        other => Err(other),
    })
    .await;
    assert_ne!(moved.placement.node, pod.placement.node);
    assert_eq!(leader.task_does(State::Running).await.id, ID);
    for (follower, _) in &followers {
        follower.stop().await;
    }
    leader.stop().await;
}

#[tokio::test]
async fn bf6_a_manager_that_restarts_knows_where_its_tasks_are() {
    let Cluster { leader, follower, gate, .. } = Cluster::start().await;
    leader.post_task().await;
    let before = leader.task_does(State::Running).await;
    let uid = leader.phase("web-1", Phase::Running).await.metadata.uid;
    let leader = leader.restart(&gate).await;
    let after = leader.task_does(State::Running).await;
    assert_eq!((after.container_id, after.restart_count), (before.container_id, 0));
    assert_eq!(leader.phase("web-1", Phase::Running).await.placement.node, Some(name("n1")));
    wait_for("the follower's session", async || if leader.nodes.live().contains_key(&name("n1")) { Ok(()) } else { Err(()) }).await;
    leader.client.stop_task(ID).await.expect("it reaches the node that has it");
    wait_for("the end of the task", async || leader.client.task(ID).await.map_or(Ok(()), Err)).await;
    assert_eq!(follower.fake.starts(uid, None), 1, "nothing was started twice");
    follower.stop().await;
    leader.stop().await;
}
