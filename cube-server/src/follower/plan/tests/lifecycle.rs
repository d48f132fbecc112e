//! Init containers, sidecars, hooks and the deadline, each against the small engine.

use super::*;

/// Two init containers, of which the second is a sidecar, and two containers.
pub(super) fn prepared(policy: RestartPolicy) -> AssignedPod {
    let mut pod = two_containers(policy);
    let init = r#"[{"name": "setup", "image": "app"}, {"name": "proxy", "image": "app", "restartPolicy": "Always"}]"#;
    pod.spec.init_containers = serde_json::from_str(init).unwrap();
    pod
}

/// As the property tests want it: with init containers or without.
pub(super) fn perhaps_prepared(policy: RestartPolicy, is_prepared: bool) -> AssignedPod {
    if is_prepared { prepared(policy) } else { two_containers(policy) }
}

fn begun(pod: AssignedPod) -> World {
    let mut world = World::new(pod);
    world.decide();
    world
}

impl World {
    /// Does all that is to be done, until nothing is.
    fn rest(&mut self) {
        while !self.flying.is_empty() {
            self.step(Step::Act { which: 0, fate: Fate::Done });
        }
    }

    fn newest(&self, name: &str) -> Option<&Observed> {
        let of_name = |seen: &&Observed| seen.identity.container.as_ref().is_some_and(|container| container.as_str() == name);
        self.engine.containers.values().filter(of_name).max_by_key(|seen| seen.identity.attempt)
    }

    fn runs(&self, name: &str) -> bool {
        self.newest(name).is_some_and(|seen| matches!(seen.state, RunState::Running { .. }))
    }

    /// Ends a container's process, and lets the pod's task see it.
    fn ends(&mut self, name: &str, code: i64) {
        let id = self.newest(name).unwrap().id.clone();
        self.engine.end(&id, code, self.now);
        self.step(Step::Look);
        self.rest();
    }

    fn starts(&self, name: &str) -> u32 {
        self.engine.starts.get(&Some(super::name(name))).copied().unwrap_or(0)
    }

    fn asked(&self, which: impl Fn(&Action) -> bool) -> Option<usize> {
        self.flying.iter().position(which)
    }

    fn end(&self) -> &PodEnd {
        let Stage::Finished { end, .. } = &self.record.stage else { panic!("{:?}", self.record.stage) };
        end
    }
}

#[test]
fn init_containers_run_one_after_the_other_each_to_its_end_and_then_the_others() {
    let mut pod = prepared(RestartPolicy::Always);
    pod.spec.init_containers[1].restart_policy = None;
    let mut world = begun(pod);
    world.rest();
    assert!(world.runs("setup") && world.newest("proxy").is_none() && world.newest("app").is_none());
    world.ends("setup", 0);
    assert!(world.runs("proxy") && world.newest("app").is_none(), "the second is started when the first has ended");
    world.ends("proxy", 0);
    assert!(world.runs("app") && world.runs("side"));
    assert_eq!((world.starts("setup"), world.starts("proxy")), (1, 1));
}

#[test]
fn an_init_container_that_fails_is_started_again_and_counted_until_the_limit_is_reached() {
    let mut pod = prepared(RestartPolicy::OnFailure);
    pod.spec.restart.limit = 3;
    let mut world = begun(pod);
    world.rest();
    for _ in 0..3 {
        world.ends("setup", 1);
        world.step(Step::Pass(60));
        world.rest();
    }
    assert_eq!(world.starts("setup"), 3);
    assert!(world.newest("app").is_none());
    let end = world.end();
    assert_eq!(end.reason.as_deref(), Some("CrashLimit"));
    assert!(end.message.as_deref().unwrap().starts_with("init container 'setup' crashed 3 times in a row"), "{end:?}");
}

#[test]
fn with_never_an_init_container_that_fails_fails_the_pod_and_is_named() {
    let mut world = begun(prepared(RestartPolicy::Never));
    world.rest();
    world.ends("setup", 7);
    let end = world.end();
    assert_eq!((end.phase, end.reason.as_deref()), (Phase::Failed, Some("Error")));
    assert_eq!(end.message.as_deref(), Some("init container 'setup' ended with exit code 7 (Error)"));
    assert_eq!((world.starts("setup"), world.starts("app")), (1, 0));
}

#[test]
fn a_sidecar_runs_beside_the_others_is_always_started_again_and_keeps_no_pod_from_its_end() {
    for policy in [RestartPolicy::Never, RestartPolicy::OnFailure] {
        let mut world = begun(prepared(policy));
        world.rest();
        world.ends("setup", 0);
        assert!(world.runs("proxy") && world.runs("app"), "the next ones don't wait for its end");
        world.ends("proxy", 0);
        assert!(world.runs("proxy") && world.starts("proxy") == 2, "{policy:?}");
        assert_eq!(world.starts("app"), 1, "the others go on meanwhile");
        world.ends("app", 0);
        assert_eq!(world.record.stage, Stage::Live);
        world.ends("side", 0);
        assert_eq!(world.end().phase, Phase::Succeeded);
        assert!(!world.runs("proxy"), "it is stopped when the others are done");
    }
}

#[test]
fn sidecars_stop_after_the_others_and_the_last_one_first() {
    let mut pod = prepared(RestartPolicy::Always);
    pod.spec.init_containers[0].restart_policy = Some(cube_api::pod::ContainerRestartPolicy::Always);
    let mut world = begun(pod);
    world.rest();
    world.pod = stop(&world.pod);
    world.step(Step::Look);
    let mut order = Vec::new();
    while let Some(which) = world.asked(|action| matches!(action, Action::Signal(..))).or(world.asked(|_| true)) {
        if let Action::Signal(id, StopSignal::Stop) = &world.flying[which] {
            order.push(world.engine.containers[id].identity.container.clone().unwrap().to_string());
        }
        world.step(Step::Act { which, fate: Fate::Done });
    }
    order[..2].sort();
    assert_eq!(order, ["app", "side", "proxy", "setup"]);
    assert!(world.record.is_stopped());
}

#[test]
fn when_the_grace_is_over_sidecars_are_killed_with_the_others() {
    let mut world = begun(prepared(RestartPolicy::Always));
    world.rest();
    world.ends("setup", 0);
    world.pod = stop(&world.pod);
    world.step(Step::Look);
    world.flying.clear();
    world.view.busy.clear();
    world.step(Step::Pass(30));
    let kills = world.flying.iter().filter(|action| matches!(action, Action::Signal(_, StopSignal::Kill))).count();
    assert_eq!(kills, 3, "{:?}", world.flying);
}

/// Its init containers prepare each sandbox, and each life that a person asks for.
#[test]
fn a_new_sandbox_and_a_persons_restart_run_the_init_containers_again() {
    let mut world = begun(prepared(RestartPolicy::Always));
    world.rest();
    world.ends("setup", 0);
    for (lives, by_hand) in [(2, false), (3, true)] {
        if by_hand {
            world.pod.want = Want::Run { restarts: 1 };
            world.step(Step::Look);
        } else {
            world.step(Step::RestartSandbox);
        }
        world.rest();
        world.step(Step::Pass(5));
        world.rest();
        assert!(world.starts("setup") == lives && world.runs("setup") && !world.runs("app"), "{:?}", world.record);
        world.ends("setup", 0);
        assert!(world.runs("app") && world.runs("side") && world.runs("proxy"));
    }
}

#[test]
fn what_runs_after_the_ledger_was_lost_says_that_its_init_containers_were_done() {
    let mut world = begun(prepared(RestartPolicy::Always));
    world.rest();
    world.ends("setup", 0);
    let setup = world.newest("setup").unwrap().id.clone();
    world.engine.containers.remove(&setup);
    world.saved = PodRecord::new(&world.pod);
    world.step(Step::Die { left: Left::Done, silent: false });
    world.rest();
    assert_eq!((world.starts("setup"), world.starts("app")), (1, 1));
}

fn with_hooks(policy: RestartPolicy) -> AssignedPod {
    let mut pod = pod(1, policy);
    let hook = r#"{"exec": {"command": ["true"]}}"#;
    pod.spec.containers[0].lifecycle = serde_json::from_str(&format!(r#"{{"postStart": {hook}, "preStop": {hook}}}"#)).unwrap();
    pod
}

fn is_post_start(action: &Action) -> bool {
    matches!(action, Action::PostStart { .. })
}

fn is_pre_stop(action: &Action) -> bool {
    matches!(action, Action::PreStop(_))
}

fn fail_hook(world: &mut World, which: usize) {
    let action = world.flying.remove(which);
    let result = Ok(Outcome::Hooked(Err("its command exited with 1".to_owned())));
    let came = Came { action, result, now: world.now, jitter: Jitter::from_random(0) };
    take_in(&world.pod, &mut world.record, &mut world.view, came);
    world.decide();
}

fn until(world: &mut World, which: impl Fn(&Action) -> bool) -> usize {
    loop {
        if let Some(which) = world.asked(&which) {
            return which;
        }
        assert!(!world.flying.is_empty(), "it is never asked for: {:?}", world.record);
        world.step(Step::Act { which: 0, fate: Fate::Done });
    }
}

#[test]
fn a_hook_follows_each_start_once_and_its_failure_is_a_crash() {
    let mut world = begun(with_hooks(RestartPolicy::OnFailure));
    let which = until(&mut world, is_post_start);
    world.step(Step::Act { which, fate: Fate::Done });
    world.rest();
    world.step(Step::Look);
    world.rest();
    assert_eq!(world.asked(is_post_start), None, "it is done for this start");

    let id = world.newest("app").unwrap().id.clone();
    world.engine.end(&id, 1, world.now);
    world.step(Step::Look);
    let which = until(&mut world, is_post_start);
    fail_hook(&mut world, which);
    let which = until(&mut world, is_pre_stop);
    world.step(Step::Act { which, fate: Fate::Done });
    until(&mut world, |action| matches!(action, Action::Signal(_, StopSignal::Stop)));
    assert_eq!(world.record.containers[&name("app")].crashes.failures, 1);
    // It exits with 0 when it is told to stop: a crash all the same.
    let id = world.newest("app").unwrap().id.clone();
    world.engine.end(&id, 0, world.now);
    world.rest();
    let app = &world.record.containers[&name("app")];
    assert_eq!(app.crashes.failures, 2, "{app:?}");
    let message = app.last.as_ref().and_then(|end| end.message.as_deref());
    assert_eq!(message, Some("postStart hook failed: its command exited with 1"));
}

#[test]
fn the_agents_death_in_the_middle_of_a_hook_runs_it_again_and_restarts_nothing() {
    let mut world = begun(with_hooks(RestartPolicy::Never));
    until(&mut world, is_post_start);
    world.step(Step::Die { left: Left::NotDone, silent: false });
    let which = until(&mut world, is_post_start);
    world.step(Step::Act { which, fate: Fate::Done });
    world.rest();
    assert_eq!(world.starts("app"), 1);
    world.step(Step::Die { left: Left::NotDone, silent: false });
    world.rest();
    assert!(world.asked(is_post_start).is_none() && world.starts("app") == 1, "what was done is in the record");
}

#[test]
fn the_hook_before_a_stop_comes_before_the_signal_and_its_failure_holds_nothing_up() {
    for fails in [false, true] {
        let mut world = begun(with_hooks(RestartPolicy::Always));
        world.rest();
        world.pod = stop(&world.pod);
        world.step(Step::Look);
        let which = until(&mut world, is_pre_stop);
        assert_eq!(world.asked(|action| matches!(action, Action::Signal(..))), None);
        match fails {
            true => fail_hook(&mut world, which),
            false => world.step(Step::Act { which, fate: Fate::Done }),
        }
        until(&mut world, |action| matches!(action, Action::Signal(_, StopSignal::Stop)));
        assert_eq!(world.asked(is_pre_stop), None);
        world.rest();
        assert!(world.record.is_stopped());
    }
}

#[test]
fn a_hook_that_takes_the_whole_grace_leaves_two_seconds_for_the_signal() {
    let mut world = begun(with_hooks(RestartPolicy::Always));
    world.rest();
    world.pod = stop(&world.pod);
    world.step(Step::Look);
    until(&mut world, is_pre_stop);
    world.step(Step::Pass(29));
    assert_eq!(world.asked(|action| matches!(action, Action::Signal(..))), None, "it has 30 s");
    world.step(Step::Pass(1));
    let stop = world.asked(|action| matches!(action, Action::Signal(_, StopSignal::Stop))).unwrap();
    // The process doesn't heed it.
    let Action::Signal(id, signal) = world.flying.remove(stop) else { unreachable!() };
    world.view.busy.remove(&Key::Id(id.clone()));
    world.view.signalled.insert(id.clone(), Signalled { signal, at: world.now });
    world.step(Step::Pass(1));
    assert_eq!(world.asked(|action| matches!(action, Action::Signal(..))), None);
    world.step(Step::Pass(1));
    assert!(world.flying.contains(&Action::Signal(id, StopSignal::Kill)), "{:?}", world.flying);
}

#[test]
fn a_stop_without_grace_waits_for_no_hook() {
    let mut world = begun(with_hooks(RestartPolicy::Always));
    world.rest();
    world.pod.want = Want::Stop { grace_seconds: 0, reason: "now".to_owned() };
    world.step(Step::Look);
    assert!(world.asked(is_pre_stop).is_none());
    assert!(world.asked(|action| matches!(action, Action::Signal(_, StopSignal::Kill))).is_some(), "{:?}", world.flying);
}

#[test]
fn a_sidecar_has_come_up_when_its_hook_is_done() {
    let mut pod = prepared(RestartPolicy::Always);
    pod.spec.init_containers[1].lifecycle = with_hooks(RestartPolicy::Always).spec.containers[0].lifecycle.clone();
    let mut world = begun(pod);
    until(&mut world, |action| matches!(action, Action::Inspect(_)));
    while world.newest("setup").is_none_or(|seen| !matches!(seen.state, RunState::Running { .. })) {
        world.step(Step::Act { which: 0, fate: Fate::Done });
    }
    let setup = world.newest("setup").unwrap().id.clone();
    world.engine.end(&setup, 0, world.now);
    world.step(Step::Look);
    let which = until(&mut world, is_post_start);
    assert!(world.newest("app").is_none());
    world.step(Step::Act { which, fate: Fate::Done });
    world.rest();
    assert!(world.runs("app"));
}

#[test]
fn a_pod_that_was_active_for_as_long_as_it_may_is_stopped_and_failed_though_the_agent_died_and_the_clock_was_set() {
    let mut pod = prepared(RestartPolicy::Always);
    pod.spec.active_deadline_seconds = Some(100);
    let mut world = begun(pod);
    world.rest();
    world.ends("setup", 0);
    world.step(Step::Pass(60));
    world.step(Step::Die { left: Left::Done, silent: false });
    world.step(Step::Set(5));
    world.rest();
    world.step(Step::Pass(39));
    assert_eq!(world.record.stage, Stage::Live);
    world.step(Step::Pass(1));
    let end = world.end();
    assert_eq!((end.phase, end.reason.as_deref()), (Phase::Failed, Some("DeadlineExceeded")));
    world.rest();
    assert!(!world.runs("app") && !world.runs("proxy"));
    // A person gives it the same time again.
    world.pod.want = Want::Run { restarts: 1 };
    world.step(Step::Pass(99));
    world.rest();
    world.ends("setup", 0);
    world.step(Step::Pass(99));
    assert!(world.runs("app") && world.record.stage == Stage::Live, "{:?}", world.record.stage);
}
