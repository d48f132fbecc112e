//! What probes say, and what follows from it.

use super::*;

fn kinds(world: &World) -> Vec<(String, ProbeKind)> {
    world.wanted().into_iter().map(|probe| (probe.container.to_string(), probe.kind)).collect()
}

fn running(policy: RestartPolicy) -> World {
    let mut world = World::new(two_containers(policy));
    world.decide();
    world.calm();
    world
}

impl World {
    fn say(&mut self, container: &str, kind: ProbeKind, healthy: bool) {
        let of = self.wanted().into_iter().find(|probe| probe.container == name(container) && probe.kind == kind).unwrap();
        self.probe_says(of, healthy);
        self.decide();
    }

    fn slot(&self, container: &str) -> &Slot {
        &self.record.containers[&name(container)].slot
    }
}

#[test]
fn the_other_probes_wait_for_the_startup_probe_also_over_the_agents_death() {
    let mut world = running(RestartPolicy::Always);
    let app = |kind| ("app".to_owned(), kind);
    let side = ("side".to_owned(), ProbeKind::Liveness);
    assert_eq!(kinds(&world), [app(ProbeKind::Startup), side.clone()]);
    world.say("app", ProbeKind::Startup, true);
    let later = [app(ProbeKind::Liveness), app(ProbeKind::Readiness), side];
    assert_eq!(kinds(&world), later);
    world.step(Step::Die { left: Left::Done, silent: false });
    assert_eq!(kinds(&world), later, "it has come up once and for all");
    assert_eq!(ready_since(&world.pod.spec.containers[0], &world.record, &world.view), None, "not ready before it was asked again");
}

#[test]
fn an_unhealthy_container_is_stopped_with_its_probes_grace_and_counts_as_crashed() {
    let mut world = running(RestartPolicy::Always);
    world.say("side", ProbeKind::Liveness, false);
    assert!(matches!(world.slot("side"), Slot::Unhealthy { grace_seconds: 5, .. }), "{:?}", world.record);
    assert!(world.flying.iter().any(|action| matches!(action, Action::Signal(_, StopSignal::Stop))), "{:?}", world.flying);
    assert!(!kinds(&world).iter().any(|(container, _)| container == "side"), "what is on its way out isn't probed");
    // The next life of the agent goes on with it.
    world.step(Step::Die { left: Left::NotDone, silent: false });
    assert!(world.flying.iter().any(|action| matches!(action, Action::Signal(_, StopSignal::Stop))), "{:?}", world.flying);
    world.calm();
    let side = &world.record.containers[&name("side")];
    assert!(matches!(side.slot, Slot::Running { .. }) && side.attempt == 1 && side.starts == 2, "{side:?}");
    let last = side.last.as_ref().unwrap();
    assert_eq!((last.reason, last.message.as_deref()), (EndReason::Unhealthy, Some("liveness probe failed 3 times: HTTP 500")));
    assert_eq!(world.record.containers[&name("app")].attempt, 0, "its neighbour runs on");
}

#[test]
fn an_unhealthy_container_that_exits_with_0_has_failed() {
    for (policy, attempt) in [(RestartPolicy::OnFailure, 1), (RestartPolicy::Never, 0)] {
        let mut world = running(policy);
        for container in ["side", "app"] {
            let kind = if container == "app" { ProbeKind::Startup } else { ProbeKind::Liveness };
            world.say(container, kind, false);
            let id = world.view.app(&name(container), 0).unwrap().id.clone();
            world.engine.end(&id, 0, world.now);
        }
        world.calm();
        assert_eq!(world.record.containers[&name("side")].attempt, attempt, "{policy:?}");
        if let RestartPolicy::Never = policy {
            let Stage::Finished { end, .. } = &world.record.stage else { panic!("{:?}", world.record) };
            assert_eq!((end.phase, end.reason.as_deref()), (Phase::Failed, Some("Unhealthy")));
        }
    }
}

#[test]
fn readiness_comes_and_goes_and_restarts_nothing() {
    let mut world = running(RestartPolicy::Always);
    let ready = |world: &World| ready_since(&world.pod.spec.containers[0], &world.record, &world.view);
    world.say("app", ProbeKind::Startup, true);
    assert_eq!(ready(&world), None);
    world.say("app", ProbeKind::Readiness, true);
    assert_eq!(ready(&world), Some(world.now));
    world.say("app", ProbeKind::Readiness, false);
    assert_eq!(ready(&world), None);
    assert_eq!(failing(&name("app"), &world.record, &world.view).unwrap(), "readiness probe failed: HTTP 500");
    world.calm();
    assert_eq!(world.record.containers[&name("app")].starts, 1);
}
