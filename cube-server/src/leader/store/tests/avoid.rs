//! Nodes on which a pod failed, and what its successors know of them.

use std::sync::{Arc, Mutex};

use cube_api::pod::ContainerStatus;
use cube_api::routes::DeleteQuery;
use jiff::{SignedDuration, Timestamp};

use super::report::SetClock;
use super::*;

/// Two minutes after the containers of these tests were started.
const LATER: i64 = 120;

/// A leader with four nodes, at a time that the test sets.
struct Stage {
    leader: Leader,
    clock: Arc<Mutex<Timestamp>>,
    /// Of the newest pod of the name `web`.
    uid: Uid,
    applied: u32,
    reported: u64,
}

impl Stage {
    async fn begin() -> Self {
        let clock = Arc::new(Mutex::new(Timestamp::UNIX_EPOCH));
        let leader = Leader::start_at(Ambient::new(SetClock(clock.clone()))).await;
        for number in 1..=4 {
            leader.join(&format!("n{number}"), number).await;
        }
        let mut stage = Self { leader, clock, uid: Uid::NONE, applied: 0, reported: 0 };
        stage.replace().await;
        stage
    }

    fn at(&self, seconds: i64) {
        *self.clock.lock().expect("the clock") = Timestamp::UNIX_EPOCH + SignedDuration::from_secs(seconds);
    }

    /// Applies `web` with another spec; what its pod avoids.
    async fn replace(&mut self) -> Vec<String> {
        self.applied += 1;
        self.uid = self.leader.apply(portless(pod("web", &format!("nginx:{}", self.applied), "a"))).await.1.metadata.uid;
        self.avoids()
    }

    /// What the newest pod of the name avoids.
    fn avoids(&self) -> Vec<String> {
        let row = self.leader.store.pod(&name("web")).expect("a pod");
        row.pod.placement.avoids.iter().map(ToString::to_string).collect()
    }

    /// The pod is bound to a node, which then says this of it.
    async fn on(&mut self, number: u128, phase: Phase, state: serde_json::Value, last: Option<serde_json::Value>) {
        let node = name(&format!("n{number}"));
        let bind = Placing::Bind { uid: self.uid, node: node.clone(), reason: "it fits".to_owned() };
        self.leader.store.place(vec![bind]).await.expect("a placing");
        let mut container = json!({"name": "c", "image": "nginx", "state": state, "restartCount": 0});
        if let Some(last) = last {
            container["lastTermination"] = last;
        }
        let container: ContainerStatus = serde_json::from_value(container).expect("a status");
        self.reported += 1;
        let mut pod = pod_report(self.uid, self.reported, phase, false);
        pod.status.containers.push(container);
        let mut report = self.leader.report(number);
        report.pods.push(pod);
        self.leader.store.report(node, report, ()).await.expect("a report");
    }

    async fn crashes_on(&mut self, number: u128) {
        self.on(number, Phase::Running, json!({"waiting": {"reason": "CrashLoopBackOff"}}), Some(ended(1, "Error"))).await;
    }
}

fn ended(code: i64, reason: &str) -> serde_json::Value {
    json!({"exitCode": code, "reason": reason})
}

fn running() -> serde_json::Value {
    json!({"running": {"startedAt": Timestamp::UNIX_EPOCH}})
}

#[tokio::test]
async fn a_crash_looping_pods_successors_avoid_the_newest_three_nodes_that_it_crashed_on() {
    let mut stage = Stage::begin().await;
    assert_eq!(stage.avoids(), [""; 0]);
    for (node, avoided) in [(1, vec!["n1"]), (2, vec!["n1", "n2"]), (3, vec!["n1", "n2", "n3"]), (4, vec!["n2", "n3", "n4"])] {
        stage.crashes_on(node).await;
        assert_eq!(stage.replace().await, avoided);
    }
    stage.crashes_on(3).await;
    assert_eq!(stage.avoids(), ["n2", "n3", "n4"], "a pod that is bound keeps what it avoids");
    assert_eq!(stage.replace().await, ["n2", "n4", "n3"], "the newest is the last");
    assert_eq!(stage.replace().await, ["n2", "n4", "n3"], "one that never had a node changes nothing");
    let before = stage.avoids();
    stage.leader = stage.leader.restart().await;
    assert_eq!(stage.avoids(), before, "it is stored");
}

#[tokio::test]
async fn a_pod_that_runs_well_ends_what_its_name_avoids() {
    let mut stage = Stage::begin().await;
    stage.crashes_on(1).await;
    stage.replace().await;
    // It hasn't run for long: nobody knows.
    stage.on(2, Phase::Running, running(), None).await;
    stage.at(LATER - 1);
    assert_eq!(stage.replace().await, ["n1"]);
    stage.on(2, Phase::Running, running(), Some(ended(1, "Error"))).await;
    assert_eq!(stage.replace().await, ["n1", "n2"], "one that runs since a moment, after a crash, is crash looping");
    stage.on(3, Phase::Running, running(), Some(ended(1, "Error"))).await;
    stage.at(LATER);
    assert_eq!(stage.replace().await, [""; 0]);
}

#[tokio::test]
async fn what_failed_is_avoided_and_what_was_stopped_taken_away_or_ended_well_is_not() {
    let finished = |code, reason| json!({"terminated": ended(code, reason)});
    let cases = [
        (Phase::Failed, finished(1, "Error"), vec!["n1"]),
        (Phase::Running, json!({"waiting": {"reason": "ContainerCreating"}}), vec![]),
        (Phase::Running, finished(137, "OOMKilled"), vec!["n1"]),
        (Phase::Running, finished(0, "Completed"), vec![]),
        (Phase::Running, finished(137, "Unknown"), vec![]),
        (Phase::Succeeded, finished(0, "Completed"), vec![]),
    ];
    for (phase, state, avoided) in cases {
        let mut stage = Stage::begin().await;
        stage.on(1, phase, state.clone(), None).await;
        assert_eq!(stage.replace().await, avoided, "{phase:?} {state}");
    }
    let mut stage = Stage::begin().await;
    stage.on(1, Phase::Running, running(), None).await;
    stage.leader.store.delete_pod(name("web"), DeleteQuery::default()).await.expect("a delete");
    stage.on(1, Phase::Failed, finished(143, "Error"), None).await;
    assert_eq!(stage.replace().await, [""; 0], "it was told to stop");
}

#[tokio::test]
async fn a_lost_nodes_pod_that_crashed_there_is_avoided_there_too() {
    let mut stage = Stage::begin().await;
    stage.crashes_on(1).await;
    let seen = stage.leader.store.read(|state| state.nodes[&name("n1")].revision);
    stage.leader.store.lose_node(name("n1"), seen, "no session".to_owned()).await.expect("a write");
    assert_ne!(stage.leader.store.pod(&name("web")).expect("its successor").pod.metadata.uid, stage.uid);
    assert_eq!(stage.avoids(), ["n1"]);
}
