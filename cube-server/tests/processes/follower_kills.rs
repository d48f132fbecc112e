//! A follower on the machine's Docker that is killed again and again while pods come and go: how it is tormented, and what is noticed.
//!
//! Some pods are left alone: their containers must be the same ones at the end. Others are applied, replaced, run to their end and deleted all the
//! while. The engine is looked at after each kill, when nobody changes anything. `benches/torture` runs the same for longer.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cube_api::ErrorCode;
use cube_api::client::Client;
use cube_api::pod::Phase;
use cube_api::routes::DeleteQuery;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::rig::{Container, Engine, Ground, LIMIT, name, node_ready, phase, pod, resources, sleeper, wait_for};

/// Pods that nobody touches.
const STEADY: [&str; 3] = ["steady-0", "steady-1", "steady-2"];
/// Clients that make and delete pods at the same time.
const CHURNERS: u64 = 2;

/// What was done and what was noticed.
#[derive(Debug, Default)]
pub struct Noticed {
    /// Pods that came and went.
    pub pods: u64,
    /// A container of a pod that nobody touched is another one, or doesn't run, or was restarted.
    pub lost: Vec<String>,
    /// Two live containers for one, or a pod that must run once and ran twice.
    pub double: Vec<String>,
    /// Containers that belong to nothing at the end.
    pub left: Vec<String>,
}

struct Shared {
    client: Client,
    engine: Engine,
    over: AtomicBool,
    pods: AtomicU64,
    noticed: Mutex<Noticed>,
}

impl Shared {
    fn note(&self, note: impl FnOnce(&mut Noticed)) {
        note(&mut self.noticed.lock().expect("nothing panics while it is held"));
    }
}

/// Kills a follower so often, and gives what was noticed and the times from a start to its session.
pub async fn torment(ground: &Ground, seed: u64, kills: usize) -> (Noticed, Vec<Duration>) {
    let engine = Engine::new();
    let mut leader = ground.leader("leader");
    leader.start_ready().await;
    let mut follower = ground.follower(engine.node(), leader.address);
    let shared = Shared {
        client: ground.client(leader.address),
        engine,
        over: AtomicBool::new(false),
        pods: AtomicU64::new(0),
        noticed: Mutex::default(),
    };
    let shared = Arc::new(shared);
    follower.start();
    node_ready(&shared.client, shared.engine.node()).await;
    shared.client.apply(&resources(STEADY.map(sleeper).to_vec()), false).await.expect("steady pods");
    for pod in STEADY {
        phase(&shared.client, pod, Phase::Running).await;
    }
    let steady = shared.engine.running(&STEADY).await;
    assert_eq!(steady.len(), 2 * STEADY.len(), "each has a sandbox and a container: {steady:?}");
    let mut churners = JoinSet::new();
    for number in 0..CHURNERS {
        churners.spawn(churn(shared.clone(), number, seed));
    }
    let mut dice = StdRng::seed_from_u64(seed);
    let mut recoveries = Vec::new();
    for _ in 0..kills {
        // Half of the kills come while it finds out what runs, half while it works.
        if dice.random_ratio(1, 2) {
            sleep(Duration::from_micros(dice.random_range(0..200_000))).await;
        } else {
            sleep(Duration::from_micros(dice.random_range(0..900_000))).await;
        }
        follower.kill();
        look(&shared, &steady).await;
        let (began, written) = (Instant::now(), follower.log_length());
        follower.start();
        if dice.random_ratio(1, 2) {
            wait_for(
                "a session",
                async || if follower.log_from(written).contains("joined the leader") { Ok(()) } else { Err(follower.log()) },
            )
            .await;
            recoveries.push(began.elapsed());
        }
    }
    shared.over.store(true, Ordering::Relaxed);
    while let Some(ended) = churners.join_next().await {
        ended.expect("a churner that doesn't panic");
    }
    end(&shared, &steady).await;
    let mut noticed = std::mem::take(&mut *shared.noticed.lock().expect("nothing panics while it is held"));
    noticed.pods = shared.pods.load(Ordering::Relaxed);
    (noticed, recoveries)
}

/// What runs while the follower is dead: the steady containers, and none twice.
async fn look(shared: &Shared, steady: &[Container]) {
    let running: Vec<_> = shared.engine.containers().await.into_iter().filter(|container| container.running).collect();
    let missing: Vec<_> = steady.iter().filter(|container| !running.contains(container)).collect();
    if !missing.is_empty() {
        shared.note(|noticed| noticed.lost.push(format!("{missing:?} don't run any more")));
    }
    let mut by_place: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for container in &running {
        by_place.entry((&container.uid, &container.container)).or_default().push(&container.id);
    }
    for (place, ids) in by_place.iter().filter(|(_, ids)| ids.len() > 1) {
        shared.note(|noticed| noticed.double.push(format!("{place:?} runs as {ids:?}")));
    }
}

/// When the last follower has had its time: the steady containers without a restart, and after their end nothing.
async fn end(shared: &Shared, steady: &[Container]) {
    node_ready(&shared.client, shared.engine.node()).await;
    look(shared, steady).await;
    for pod in STEADY {
        let shown = phase(&shared.client, pod, Phase::Running).await;
        let restarts: u64 = shown.status.containers.iter().map(|container| u64::from(container.restart_count)).sum();
        if restarts > 0 {
            shared.note(|noticed| noticed.lost.push(format!("{pod} was restarted {restarts} times")));
        }
    }
    let left: Vec<_> = shared.engine.containers().await.into_iter().filter(|container| !STEADY.contains(&container.pod.as_str())).collect();
    if !left.is_empty() {
        shared.note(|noticed| noticed.left.push(format!("{left:?} after their pods' end")));
    }
    for pod in STEADY {
        delete(shared, pod).await;
    }
    let left = shared.engine.containers().await;
    if !left.is_empty() {
        shared.note(|noticed| noticed.left.push(format!("{left:?} at the end")));
    }
}

/// Makes, changes and deletes one pod after the other.
async fn churn(shared: Arc<Shared>, number: u64, seed: u64) {
    let mut dice = StdRng::seed_from_u64(seed ^ (number + 1) << 32);
    for turn in 0_u64.. {
        if shared.over.load(Ordering::Relaxed) {
            return;
        }
        let pod = format!("churn-{number}-{turn}");
        match dice.random_range(0..4) {
            0 => runs_once(&shared, &pod).await,
            1 => crashes(&shared, &pod, &mut dice).await,
            _ => sleeps(&shared, &pod, &mut dice).await,
        }
        delete(&shared, &pod).await;
        shared.pods.fetch_add(1, Ordering::Relaxed);
    }
}

/// A pod that is deleted at any moment, often after it was replaced.
async fn sleeps(shared: &Shared, pod: &str, dice: &mut StdRng) {
    apply(shared, sleeper(pod)).await;
    sleep(Duration::from_millis(dice.random_range(0..1_500))).await;
    if dice.random_ratio(1, 3) {
        let mut other = sleeper(pod);
        other["spec"]["containers"][0]["env"] = json!({"SECOND": "yes"});
        apply(shared, other).await;
        sleep(Duration::from_millis(dice.random_range(0..1_500))).await;
    }
}

/// A pod whose container is restarted all the time.
async fn crashes(shared: &Shared, name: &str, dice: &mut StdRng) {
    apply(shared, pod(name, &json!({}), &json!({"command": ["sh", "-c", "sleep 0.2; exit 3"]}))).await;
    sleep(Duration::from_millis(dice.random_range(0..3_000))).await;
}

/// A pod that must not run twice.
async fn runs_once(shared: &Shared, name: &str) {
    apply(shared, pod(name, &json!({"restartPolicy": "Never"}), &json!({"command": ["sh", "-c", "echo ran"]}))).await;
    let began = Instant::now();
    // Not by `wait_for`: what is spawned can't use it.
    let ended = loop {
        match shared.client.pod(&crate::rig::name(name)).await {
            Ok(found) if matches!(found.status.phase, Phase::Succeeded | Phase::Failed) => break found,
            other => assert!(began.elapsed() < LIMIT, "{name} doesn't end: {other:?}"),
        }
        sleep(Duration::from_millis(20)).await;
    };
    let uid = ended.metadata.uid.to_string();
    let mut runs = 0;
    for container in shared.engine.containers().await.iter().filter(|container| container.uid == uid && !container.container.is_empty()) {
        runs += shared.engine.log(&container.id).await.matches("ran").count();
    }
    if runs > 1 {
        shared.note(|noticed| noticed.double.push(format!("{name} must run once and ran {runs} times")));
    }
}

async fn apply(shared: &Shared, pod: serde_json::Value) {
    shared.client.apply(&resources(vec![pod]), false).await.expect("an apply that isn't refused");
}

/// Deletes a pod and waits until it is gone.
async fn delete(shared: &Shared, pod: &str) {
    let pod = name(pod);
    shared.client.delete_pod(&pod, &DeleteQuery::default()).await.expect("a delete that isn't refused");
    let began = Instant::now();
    loop {
        match shared.client.pod(&pod).await {
            Err(error) if error.code() == Some(ErrorCode::NotFound) => return,
            other => assert!(began.elapsed() < LIMIT, "{pod} isn't gone: {other:?}"),
        }
        sleep(Duration::from_millis(20)).await;
    }
}
