//! Properties of the plan against a small engine: whatever is killed, lost or done by hand, and whenever the agent dies.

mod lifecycle;
mod probes;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cube_api::meta::Name;
use cube_api::pod::{EndReason, Part, Probe, ProbeKind, PublishedPort, RestartPolicy};
use cube_api::session::{AssignedPod, Want};
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use self::lifecycle::perhaps_prepared;
use self::world::{Fate, Left, Step, World, policies, steps, two_containers};
use super::*;
use crate::follower::runtime::{Identity, Observed, RunState, RuntimeError};
use crate::follower::testing::{name, pod, stop};

#[test]
fn a_container_that_survives_its_kill_is_killed_again_and_that_is_said_once() {
    let mut world = World::new(stop(&pod(1, RestartPolicy::Always)));
    let at = |seconds| Timestamp::UNIX_EPOCH + Duration::from_secs(seconds);
    let id = world.engine.create(&world.pod, Some(name("app")), 0, None);
    world.engine.start(&id, at(0)).unwrap();
    world.view = View::of(world.engine.containers.values().cloned().collect());
    world.record.stage = Stage::Stopping { since: at(0), grace_seconds: 30, end: None };
    let kill = Action::Signal(id.clone(), StopSignal::Kill);
    let decide_at = |world: &World, now| {
        decide(Input { pod: &world.pod, record: &world.record, view: &world.view, now, jitter: Jitter::from_random(0) })
    };
    assert!(begun(&world.pod, &world.record, &world.view, &kill).is_some());
    world.view.signalled.insert(id, Signalled { signal: StopSignal::Kill, at: at(31) });
    let early = decide_at(&world, at(35));
    assert_eq!((early.actions, early.wake), (vec![], Some(at(41))));
    assert_eq!(decide_at(&world, at(41)).actions, std::slice::from_ref(&kill));
    assert_eq!(begun(&world.pod, &world.record, &world.view, &kill), None);
}

#[test]
fn a_container_that_has_ended_for_good_and_is_started_by_hand_is_stopped_by_its_grace() {
    let mut world = World::new(two_containers(RestartPolicy::OnFailure));
    world.decide();
    world.calm();
    let at = |seconds: u64| Timestamp::UNIX_EPOCH + Duration::from_secs(seconds);
    let side = world.engine.containers.values().find(|seen| seen.identity.container == Some(name("side"))).expect("it runs").id.clone();
    world.engine.end(&side, 0, world.now);
    world.view.look = true;
    world.decide();
    world.calm();
    assert!(matches!(world.record.containers[&name("side")].slot, Slot::Ended(_)));
    world.engine.start(&side, at(1_000)).unwrap();
    let mut view = View::of(world.engine.containers.values().cloned().collect());
    let decide_at = |view: &View, seconds| {
        let now = at(seconds);
        decide(Input { pod: &world.pod, record: &world.record, view, now, jitter: Jitter::from_random(0) })
    };
    let signal = |signal| vec![Action::Signal(side.clone(), signal)];
    let first = decide_at(&view, 1_001);
    assert_eq!(first.actions, signal(StopSignal::Stop));
    assert!(first.notes[0].message.contains("'side' had ended and was started by hand"), "{:?}", first.notes);
    view.signalled.insert(side.clone(), Signalled { signal: StopSignal::Stop, at: at(1_001) });
    let waits = decide_at(&view, 1_002);
    assert_eq!((waits.actions, waits.notes, waits.wake), (vec![], vec![], Some(at(1_031))));
    assert_eq!(decide_at(&view, 1_031).actions, signal(StopSignal::Kill));
}

/// The create was asked for by a life of the node that was killed, and the engine took its time.
#[test]
fn a_pod_that_had_stopped_stops_again_where_the_engine_made_a_container_of_it_late() {
    let mut world = World::new(stop(&pod(1, RestartPolicy::Always)));
    world.record.stage = Stage::Stopped { end: None };
    world.engine.create(&world.pod.clone(), Some(name("app")), 0, None);
    world.view = View::of(world.engine.containers.values().cloned().collect());
    world.decide();
    assert!(!world.record.is_stopped(), "what is reported now would let go of the row: {:?}", world.record.stage);
    world.calm();
    assert!(world.record.is_stopped() && world.engine.containers.is_empty(), "{:?}", world.record.stage);
}

/// Its pod was given up between its start and the look at it.
#[test]
fn a_container_that_was_started_and_never_seen_running_is_shown_as_ended() {
    let mut world = World::new(two_containers(RestartPolicy::Always));
    let now = Timestamp::UNIX_EPOCH;
    let id = world.engine.create(&world.pod, Some(name("side")), 0, None);
    world.engine.start(&id, now).unwrap();
    world.engine.end(&id, 143, now);
    world.view = View::of(world.engine.containers.values().cloned().collect());
    world.record.containers.get_mut(&name("side")).unwrap().slot = Slot::Starting;
    let end = PodEnd { phase: Phase::Failed, reason: None, message: None };
    world.record.stage = Stage::Finished { since: now, end };
    world.decide();
    let side = &world.record.containers[&name("side")];
    assert!(matches!(&side.slot, Slot::Ended(end) if end.exit_code == 143) && side.starts == 1, "{side:?}");
}

#[test]
fn nothing_is_decided_of_a_pod_before_the_engine_has_told_of_all_its_containers() {
    let mut world = World::new(two_containers(RestartPolicy::Always));
    world.decide();
    world.calm();
    world.view = View::unlisted();
    let input = Input { pod: &world.pod, record: &world.record, view: &world.view, now: world.now, jitter: Jitter::from_random(0) };
    let decision = decide(input);
    assert_eq!((decision.record, decision.notes, decision.actions), (world.record.clone(), vec![], vec![Action::List]));
    // A stop is taken, but nothing is thought gone.
    let stopped = stop(&world.pod);
    let decision = decide(Input { pod: &stopped, ..input });
    assert!(matches!(decision.record.stage, Stage::Stopping { .. }), "{:?}", decision.record.stage);
    assert_eq!(decision.actions, vec![Action::List]);
}

/// The start is under way when the agent dies; then a person restarts the pod, or its sandbox changes, before the engine has carried it out.
#[test]
fn the_next_attempt_is_not_started_while_a_start_of_the_one_before_may_come() {
    for sandbox_changes in [false, true] {
        let mut pod = pod(1, RestartPolicy::Always);
        pod.spec.restart.limit = 0;
        let mut world = World::new(pod);
        world.decide();
        // Until nothing but the start is under way.
        while let Some(which) = world.flying.iter().position(|action| !matches!(action, Action::StartApp { .. })) {
            world.step(Step::Act { which, fate: Fate::Done });
        }
        match sandbox_changes {
            true => world.step(Step::RestartSandbox),
            false => world.pod.want = Want::Run { restarts: 1 },
        }
        world.step(Step::Die { left: Left::Late, silent: false });
        // All but the removal of the first attempt is done.
        for _ in 0..40 {
            let keeps = |action: &Action| matches!(action, Action::Remove(id) if world.engine.late.contains(id));
            match world.flying.iter().position(|action| !keeps(action)) {
                Some(which) => world.step(Step::Act { which, fate: Fate::Done }),
                None => world.step(Step::Pass(1)),
            }
        }
        assert_eq!(world.engine.late.len(), 1);
        world.step(Step::Land { which: 0 });
        world.calm();
        // Into the sandbox that was removed it can't come.
        let expected = if sandbox_changes { 1 } else { 2 };
        let app = &world.record.containers[&name("app")];
        assert!(matches!(app.slot, Slot::Running { .. }) && app.attempt == 1, "{app:?}");
        assert_eq!(world.engine.starts[&Some(name("app"))], expected);
    }
}

/// Another sandbox takes the place of one that nobody has seen running: the container that was started in the first counts all the same.
#[test]
fn never_is_started_once_though_its_sandbox_goes_before_either_is_seen_running() {
    for start_is_answered in [true, false] {
        let mut world = World::new(pod(1, RestartPolicy::Never));
        world.decide();
        let waits = |action: &Action| match action {
            Action::Inspect(_) => true,
            Action::StartApp { .. } => !start_is_answered,
            _other => false,
        };
        while let Some(which) = world.flying.iter().position(|action| !waits(action)) {
            world.step(Step::Act { which, fate: Fate::Done });
        }
        let sandbox = world.engine.containers.values().find(|c| c.identity.container.is_none()).unwrap().id.clone();
        if !start_is_answered {
            // It is carried out before the sandbox goes; the answer takes its time.
            let app = world.engine.containers.values().find(|c| c.identity.container.is_some()).unwrap().id.clone();
            world.engine.start(&app, world.now).unwrap();
        }
        world.engine.containers.remove(&sandbox);
        let look = world.flying.iter().position(|action| *action == Action::Inspect(sandbox.clone())).unwrap();
        world.step(Step::Act { which: look, fate: Fate::Done });
        while let Some(which) = world.flying.iter().position(|action| !waits(action)) {
            world.step(Step::Act { which, fate: Fate::Done });
        }
        world.calm();
        assert_eq!(world.engine.starts[&Some(name("app"))], 1);
        let Stage::Finished { end, .. } = &world.record.stage else { panic!("{:?}", world.record) };
        assert_eq!(end.reason.as_deref(), Some("SandboxChanged"));
    }
}

/// An engine that restarts takes every sandbox with it.
#[test]
fn a_lost_sandbox_ends_no_pod_however_low_its_limit_is_and_however_often() {
    let mut pod = pod(1, RestartPolicy::Always);
    pod.spec.restart.limit = 1;
    let mut world = World::new(pod);
    world.decide();
    for _ in 0..12 {
        for _ in 0..80 {
            while !world.flying.is_empty() {
                world.step(Step::Act { which: 0, fate: Fate::Done });
            }
            world.step(Step::Pass(1));
        }
        assert_eq!(world.record.stage, Stage::Live);
        assert!(world.record.sandbox.identity.is_some(), "{:?}", world.record);
        world.step(Step::RestartSandbox);
        world.step(Step::Act { which: 0, fate: Fate::Done });
    }
    assert_eq!(world.record.sandbox.lost.failures, 12);
    assert!(world.record.sandbox.lost.due > Some(world.now + Duration::from_secs(30)), "the tries are spread: {:?}", world.record.sandbox);
}

proptest! {
    #[test]
    fn never_two_live_containers_of_a_name_and_never_a_second_start(policy in policies(), init: bool, spares: bool, steps in steps()) {
        let mut world = World::new(perhaps_prepared(policy, init)).with_spares(spares);
        world.decide();
        steps.into_iter().for_each(|step| world.step(step));
    }

    #[test]
    fn never_two_live_containers_of_a_name_though_a_person_restarts_the_pod(
        policy in policies(),
        init: bool,
        spares: bool,
        before in steps(),
        after in steps(),
    ) {
        let mut world = World::new(perhaps_prepared(policy, init)).with_spares(spares);
        world.decide();
        before.into_iter().for_each(|step| world.step(step));
        world.allowed += 1;
        world.pod.want = Want::Run { restarts: 1 };
        after.into_iter().for_each(|step| world.step(step));
    }

    #[test]
    fn when_the_trouble_is_over_a_pod_that_always_runs_runs_in_one_sandbox(init: bool, spares: bool, steps in steps()) {
        let mut world = World::new(perhaps_prepared(RestartPolicy::Always, init)).with_spares(spares);
        world.decide();
        steps.into_iter().for_each(|step| world.step(step));
        world.calm();
        let live: Vec<_> = world.engine.containers.values().filter(|c| matches!(c.state, RunState::Running { .. })).collect();
        let sandboxes: Vec<_> = live.iter().filter(|c| c.identity.container.is_none()).collect();
        // With the sidecar, if there is one.
        let all = 3 + usize::from(init);
        prop_assert!(sandboxes.len() == 1 && live.len() == all, "{:?} {:?}", live, world.record);
        prop_assert!(live.iter().all(|c| c.sandbox.as_ref().is_none_or(|id| *id == sandboxes[0].id)), "{:?}", live);
    }

    #[test]
    fn without_a_failed_probe_nothing_is_unhealthy(steps in steps()) {
        let mut world = World::new(two_containers(RestartPolicy::Always));
        world.decide();
        for step in steps.into_iter().filter(|step| !matches!(step, Step::Probe { healthy: false, .. })) {
            world.step(step);
            prop_assert!(!world.record.containers.values().any(|record| matches!(record.slot, Slot::Unhealthy { .. })), "{:?}", world.record);
        }
    }

    #[test]
    fn a_stopped_pod_leaves_nothing(policy in policies(), init: bool, spares: bool, before in steps(), after in steps()) {
        let mut world = World::new(perhaps_prepared(policy, init)).with_spares(spares);
        world.decide();
        before.into_iter().for_each(|step| world.step(step));
        world.pod = stop(&world.pod);
        after.into_iter().for_each(|step| world.step(step));
        world.calm();
        prop_assert!(world.record.is_stopped(), "{:?}", world.record);
        prop_assert!(world.engine.containers.is_empty(), "{:?}", world.engine.containers);
        prop_assert!(!world.engine.has_volumes, "{:?}", world.record);
        prop_assert!(world.engine.spares.is_empty(), "a spare that was handed out is nobody's: {:?} {:?}", world.engine.spares, world.record);
    }

    #[test]
    fn counts_never_fall_and_attempts_never_go_back(steps in steps(), init: bool, restarts in 0..3_u64) {
        let mut world = World::new(perhaps_prepared(RestartPolicy::Always, init));
        world.decide();
        let half = steps.len() / 2;
        for (index, step) in steps.into_iter().enumerate() {
            let before = world.saved.clone();
            if index == half {
                world.pod.want = Want::Run { restarts };
            }
            world.step(step);
            for (name, record) in &world.saved.containers {
                prop_assert!(record.starts >= before.containers[name].starts && record.attempt >= before.containers[name].attempt);
            }
        }
    }
}
