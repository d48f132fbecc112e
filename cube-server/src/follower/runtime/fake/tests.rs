//! The scripted engine itself.

use std::collections::BTreeMap;

use cube_api::meta::{ClusterId, Name, Uid};
use cube_api::pod::Resources;
use futures::StreamExt;
use uuid::Uuid;

use super::*;
use crate::follower::runtime::{
    CALL_TIMEOUT, ContainerId, ContainerSpec, ExecRequest, Hint, Identity, LogLine, LogRequest, Observed, RunState, Runtime, RuntimeError,
    SandboxSpec, Scope, StopSignal,
};

/// A pod with one container of an image with that script: the engine, the sandbox, the container.
async fn pod(script: Script) -> (Fake, ContainerId, ContainerSpec) {
    let fake = Fake::new(Ambient::system(), &Tasks::default());
    fake.script("app:1", script);
    let (scope, identity) = whose();
    let spec = SandboxSpec {
        scope: scope.clone(),
        identity: identity.clone(),
        hostname: Some("web".to_owned()),
        published: Vec::new(),
        holds: Vec::new(),
    };
    let sandbox = fake.create_sandbox(&spec).await.unwrap();
    fake.start(&sandbox).await.unwrap();
    let spec = ContainerSpec {
        scope,
        identity: Identity { container: Some("app".parse().unwrap()), ..identity },
        sandbox: sandbox.clone(),
        image: "app:1".to_owned(),
        command: Vec::new(),
        args: Vec::new(),
        env: BTreeMap::new(),
        working_dir: None,
        resources: Resources::default(),
        tty: false,
        stdin: false,
        mounts: Vec::new(),
    };
    (fake, sandbox, spec)
}

/// A node, and the sandbox of a pod on it.
fn whose() -> (Scope, Identity) {
    let name = |text: &str| text.parse::<Name>().unwrap();
    let scope = Scope { cluster: ClusterId(Uuid::nil()), node: name("node-1") };
    (scope, Identity { uid: Uid(Uuid::nil()), pod: name("web"), container: None, attempt: 0 })
}

fn code(observed: &Observed) -> Option<i64> {
    match observed.state {
        RunState::Exited { code, .. } => Some(code),
        RunState::Created | RunState::Running { .. } | RunState::Paused { .. } | RunState::Removing => None,
    }
}

#[tokio::test(start_paused = true)]
async fn a_container_ends_when_its_time_is_up_and_a_waiting_reader_is_told() {
    let (fake, _, spec) = pod(Script { run_for: Some(Duration::from_secs(60)), exit_code: 7, ..Script::default() }).await;
    let mut hints = fake.hints(&spec.scope).await.unwrap();
    let id = fake.create_container(&spec).await.unwrap();
    fake.start(&id).await.unwrap();
    assert_eq!(code(&fake.inspect(&id).await.unwrap().unwrap()), None);
    assert_eq!(hints.next().await, Some(Hint { uid: spec.identity.uid }));
    assert_eq!(code(&fake.inspect(&id).await.unwrap().unwrap()), Some(7));
}

#[tokio::test(start_paused = true)]
async fn a_lost_reply_leaves_the_thing_done_and_a_failed_call_does_not() {
    let (fake, _, spec) = pod(Script::default()).await;
    let id = fake.create_container(&spec).await.unwrap();
    fake.fail_next(Operation::Start, Failure::NotDone);
    fake.fail_next(Operation::Start, Failure::ReplyLost);
    assert!(fake.start(&id).await.unwrap_err().is_engine_trouble());
    assert_eq!(fake.starts(spec.identity.uid, spec.identity.container.as_ref()), 0);
    assert!(fake.start(&id).await.unwrap_err().is_engine_trouble());
    fake.start(&id).await.unwrap();
    assert_eq!(fake.starts(spec.identity.uid, spec.identity.container.as_ref()), 1);
    assert_eq!(
        fake.calls().iter().filter(|call| call.operation == Operation::Start && call.identity == Some(spec.identity.clone())).count(),
        3
    );
}

#[tokio::test(start_paused = true)]
async fn attempts_are_counted_together_and_live_ones_are_seen_together() {
    let (fake, sandbox, spec) = pod(Script { fail_first: 1, ..Script::default() }).await;
    let first = fake.create_container(&spec).await.unwrap();
    fake.start(&first).await.unwrap();
    assert_eq!(code(&fake.inspect(&first).await.unwrap().unwrap()), Some(1));
    for attempt in [1, 2] {
        let identity = Identity { attempt, ..spec.identity.clone() };
        let id = fake.create_container(&ContainerSpec { identity, ..spec.clone() }).await.unwrap();
        fake.start(&id).await.unwrap();
    }
    let container = spec.identity.container.as_ref();
    assert_eq!((fake.starts(spec.identity.uid, container), fake.most_live(spec.identity.uid, container)), (3, 2));
    let before = fake.inspect(&sandbox).await.unwrap();
    fake.restart_by_hand(&sandbox).unwrap();
    assert_ne!(fake.inspect(&sandbox).await.unwrap(), before);
}

#[tokio::test(start_paused = true)]
async fn an_abandoned_exec_ends() {
    let (fake, sandbox, _) = pod(Script::default()).await;
    let request = ExecRequest { command: vec!["sleep".to_owned(), "1000".to_owned()], tty: false, stdin: false };
    let handle = fake.exec(&sandbox, &request).await.unwrap();
    assert_eq!(fake.live_execs(), 1);
    drop(handle);
    while fake.live_execs() > 0 {
        fake.news.notified().await;
    }
}

/// The container of the pod's spec on the engine, if it is there.
fn on(fake: &Fake, spec: &ContainerSpec) -> Option<Observed> {
    fake.everything().into_iter().find(|seen| seen.identity == spec.identity)
}

#[tokio::test(start_paused = true)]
async fn what_was_handed_over_is_carried_out_though_its_caller_is_gone_and_not_before_its_time() {
    let (fake, sandbox, spec) = pod(Script { start_takes: Duration::from_secs(3), ..Script::default() }).await;
    fake.set_latency(Duration::from_secs(2));
    // The caller is there for less than half of the latency.
    let hang_up = Duration::from_millis(500);
    assert!(tokio::time::timeout(hang_up, fake.create_container(&spec)).await.is_err());
    assert_eq!(on(&fake, &spec), None);
    tokio::time::sleep(hang_up).await;
    let id = on(&fake, &spec).unwrap().id;
    assert!(tokio::time::timeout(hang_up, fake.start(&id)).await.is_err());
    tokio::time::sleep(Duration::from_millis(3400)).await;
    assert_eq!(on(&fake, &spec).unwrap().state, RunState::Created);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(matches!(on(&fake, &spec).unwrap().state, RunState::Running { .. }));
    assert!(tokio::time::timeout(hang_up, fake.signal(&id, StopSignal::Kill)).await.is_err());
    assert!(tokio::time::timeout(hang_up, fake.remove(&sandbox)).await.is_err());
    tokio::time::sleep(hang_up).await;
    assert_eq!(code(&on(&fake, &spec).unwrap()), Some(137));
    assert_eq!(fake.everything().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_pull_whose_caller_is_gone_is_given_up() {
    let (fake, _, spec) = pod(Script { pull: Pull::After(Duration::from_secs(5)), ..Script::default() }).await;
    let pull = || fake.pull(&spec.image, crate::latest::channel(Default::default()).0);
    assert!(tokio::time::timeout(Duration::from_secs(1), pull()).await.is_err());
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(fake.image(&spec.image).await.unwrap(), None);
    pull().await.unwrap();
    assert!(fake.image(&spec.image).await.unwrap().is_some());
    fake.remove_image_by_hand(&spec.image);
    assert_eq!(fake.image(&spec.image).await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_hangs_is_late_for_its_caller_and_carried_out_when_it_is_released() {
    let (fake, _, spec) = pod(Script::default()).await;
    let id = fake.create_container(&spec).await.unwrap();
    fake.hang(Operation::Start);
    let began = Instant::now();
    assert!(fake.start(&id).await.unwrap_err().is_engine_trouble());
    assert_eq!(began.elapsed(), CALL_TIMEOUT);
    assert_eq!(fake.inspect(&id).await.unwrap().unwrap().state, RunState::Created);
    fake.release();
    assert!(matches!(fake.inspect(&id).await.unwrap().unwrap().state, RunState::Running { .. }));
}

#[tokio::test(start_paused = true)]
async fn a_process_of_no_length_runs_once_and_is_never_seen_to_run() {
    let (fake, _, spec) = pod(Script { run_for: Some(Duration::ZERO), exit_code: 3, ..Script::default() }).await;
    let id = fake.create_container(&spec).await.unwrap();
    fake.start(&id).await.unwrap();
    assert_eq!(code(&on(&fake, &spec).unwrap()), Some(3));
    let tally = fake.tally(spec.identity.uid, spec.identity.container.as_ref());
    assert_eq!(tally, Tally { starts: 1, by_hand: 0, live: 0, most_live: 1, stopped: 0 });
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_goes_down_loses_what_it_had_not_carried_out_and_breaks_what_was_open() {
    let (fake, sandbox, spec) = pod(Script::default()).await;
    let id = fake.create_container(&spec).await.unwrap();
    let mut hints = fake.hints(&spec.scope).await.unwrap();
    let mut log = fake.logs(&sandbox, &LogRequest { follow: true, ..LogRequest::default() }).await.unwrap();
    fake.set_latency(Duration::from_secs(2));
    let start = async { fake.start(&id).await.unwrap_err() };
    let outage = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        fake.set_down(true);
        fake.set_down(false);
    };
    let (error, ()) = tokio::join!(start, outage);
    assert!(error.is_engine_trouble());
    assert_eq!(hints.next().await, None);
    assert!(log.next().await.unwrap().is_err());
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(on(&fake, &spec).unwrap().state, RunState::Created);
    fake.set_latency(Duration::ZERO);
    fake.start(&id).await.unwrap();
    fake.shut_down();
    fake.set_down(false);
    assert!(fake.residents().iter().all(|resident| !resident.live));
}

#[tokio::test(start_paused = true)]
async fn a_frozen_process_ends_when_it_goes_on() {
    let (fake, _, spec) = pod(Script { run_for: Some(Duration::from_secs(5)), ..Script::default() }).await;
    let id = fake.create_container(&spec).await.unwrap();
    fake.start(&id).await.unwrap();
    fake.pause_by_hand(&id);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(matches!(on(&fake, &spec).unwrap().state, RunState::Paused { .. }));
    fake.unpause_by_hand(&id);
    assert_eq!(code(&on(&fake, &spec).unwrap()), Some(0));
}

#[tokio::test(start_paused = true)]
async fn a_deaf_container_that_is_stopped_by_hand_is_killed_after_ten_seconds() {
    let (fake, _, spec) = pod(Script { ignores_stop: true, ..Script::default() }).await;
    let id = fake.create_container(&spec).await.unwrap();
    fake.start(&id).await.unwrap();
    fake.stop_by_hand(&id);
    tokio::time::sleep(Duration::from_millis(9999)).await;
    assert_eq!(code(&on(&fake, &spec).unwrap()), None);
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(code(&on(&fake, &spec).unwrap()), Some(137));
}

#[tokio::test(start_paused = true)]
async fn a_container_whose_sandbox_is_another_one_now_is_astray() {
    let (fake, sandbox, spec) = pod(Script::default()).await;
    let id = fake.create_container(&spec).await.unwrap();
    fake.start(&id).await.unwrap();
    let astray = || fake.residents().iter().any(|resident| resident.astray);
    assert!(!astray());
    fake.restart_by_hand(&sandbox).unwrap();
    assert!(astray());
    fake.restart_by_hand(&id).unwrap();
    assert!(!astray());
    fake.kill_by_hand(&sandbox);
    assert!(astray());
    assert_eq!(fake.tally(spec.identity.uid, spec.identity.container.as_ref()).by_hand, 1);
}

#[tokio::test(start_paused = true)]
async fn a_foreign_container_is_counted_as_nobody_s_and_whoever_touches_it_is_noted() {
    let (fake, _, spec) = pod(Script::default()).await;
    let theirs = fake.add_foreign(&spec.identity, None).unwrap();
    assert!(matches!(fake.create_container(&spec).await, Err(RuntimeError::Refused { .. })));
    assert_eq!(fake.inspect(&theirs).await.unwrap(), None);
    assert_eq!(fake.list(&spec.scope).await.unwrap().len(), 1);
    assert_eq!(fake.starts(spec.identity.uid, spec.identity.container.as_ref()), 0);
    assert_eq!(fake.trespasses(), []);
    fake.remove(&theirs).await.unwrap();
    assert_eq!(fake.trespasses(), [Call { operation: Operation::Remove, identity: Some(spec.identity.clone()) }]);
}

#[tokio::test(start_paused = true)]
async fn a_flood_is_read_as_it_is_written() {
    let (fake, _, spec) = pod(Script { flood: 1000, output: vec!["hello".to_owned()], ..Script::default() }).await;
    let id = fake.create_container(&spec).await.unwrap();
    fake.start(&id).await.unwrap();
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let read =
        async |request: LogRequest| -> Vec<LogLine> { fake.logs(&id, &request).await.unwrap().map(|batch| batch.unwrap()).concat().await };
    let tail = read(LogRequest { tail: Some(2), times: true, ..LogRequest::default() }).await;
    assert_eq!([&tail[0].bytes[..], &tail[1].bytes[..]], [&b"line 3599998\n"[..], &b"line 3599999\n"[..]]);
    let since = read(LogRequest { since: tail[1].at, ..LogRequest::default() }).await;
    assert_eq!(since.len(), 1);
    let follow = LogRequest { follow: true, tail: Some(1), ..LogRequest::default() };
    let mut followed = fake.logs(&id, &follow).await.unwrap();
    let began = Instant::now();
    let mut lines = 0;
    while lines <= 1000 {
        lines += followed.next().await.unwrap().unwrap().len();
    }
    assert_eq!(began.elapsed(), Duration::from_secs(1));
    fake.kill_by_hand(&id);
    assert!(followed.next().await.is_none());
    assert_eq!(read(LogRequest::default()).await.len(), 3_601_001);
}

#[test]
fn an_engine_outlives_the_clock_of_its_caller_and_the_same_dice_give_the_same_world() {
    let history = || {
        let elapsed = Arc::new(Mutex::new(Duration::ZERO));
        let clock = elapsed.clone();
        let fake = Fake::with_clock(Ambient::new(Steady), &Tasks::default(), move || *clock.lock().unwrap());
        fake.script("app:1", Script { run_for: Some(Duration::from_secs(60)), ..Script::default() });
        fake.set_latency(Duration::from_millis(1)..=Duration::from_millis(900));
        let (scope, identity) = whose();
        let spec =
            SandboxSpec { scope, identity: identity.clone(), hostname: Some("web".to_owned()), published: Vec::new(), holds: Vec::new() };
        // Each life has a runtime of its own, dropped in the middle of a call: that is what a simulation's crash does.
        for _ in 0..3 {
            let life = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
            let call = life.spawn({
                let (fake, spec) = (fake.clone(), spec.clone());
                async move { fake.create_sandbox(&spec).await }
            });
            life.block_on(tokio::task::yield_now());
            drop((life, call));
            *elapsed.lock().unwrap() += Duration::from_secs(1);
        }
        (fake.everything(), fake.changed_at())
    };
    let first = history();
    assert_eq!(first, history());
    assert_eq!(first.0.len(), 1);
    assert!(first.1 > Duration::ZERO && first.1 < Duration::from_millis(450), "{:?}", first.1);
}

/// A clock that stands still and dice that always fall the same way.
struct Steady;

impl crate::ambient::Source for Steady {
    fn now(&self) -> jiff::Timestamp {
        jiff::Timestamp::constant(1_800_000_000, 0)
    }

    fn random(&self) -> u64 {
        0x9E37_79B9_7F4A_7C15
    }
}
