//! Properties of the plan against a small engine: whatever is killed, lost or done by hand, and whenever the agent dies.

use std::collections::BTreeMap;
use std::time::Duration;

use cube_api::meta::Name;
use cube_api::pod::{EndReason, Probe, ProbeKind, RestartPolicy};
use cube_api::session::{AssignedPod, Want};
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use super::*;
use crate::follower::runtime::{Identity, Observed, RunState, RuntimeError};
use crate::follower::testing::{name, pod, stop};

/// What happens next.
#[derive(Debug, Clone)]
enum Step {
    /// One action is done, and its answer arrives.
    Act { which: usize, fate: Fate },
    /// So many seconds pass.
    Pass(u16),
    /// A container's process ends.
    End { which: usize, code: i64 },
    /// A container is removed by hand.
    Vanish { which: usize },
    /// The sandbox is restarted by hand.
    RestartSandbox,
    /// The agent dies. The next one is told of all containers, or the engine is silent about some.
    Die { left: Left, silent: bool },
    /// A start that was given up is carried out.
    Land { which: usize },
    /// All containers are listed again.
    Look,
    /// The clock is set by so many hours, while the agent looks on.
    Set(i8),
    /// The agent dies, and the clock is set before its next life.
    DieAndSet(i8),
    /// A probe says something, perhaps of a run that is over.
    Probe { which: usize, healthy: bool },
}

/// The longest wait of all: for an image, at its largest spread. Less are a grace (30 s here), a clean run, a crash, an engine in trouble.
const LONGEST_WAIT: SignedDuration = SignedDuration::from_secs(144);

/// What becomes of what was on its way when the agent died.
#[derive(Debug, Clone, Copy)]
enum Left {
    Done,
    NotDone,
    /// Done, but for the starts: they come later.
    Late,
}

#[derive(Debug, Clone, Copy)]
enum Fate {
    Done,
    /// A start that isn't answered and comes later; anything else is done.
    Late,
    ReplyLost,
    NotDone,
    Refused,
}

struct Engine {
    containers: BTreeMap<ContainerId, Observed>,
    made: u32,
    starts: BTreeMap<Option<Name>, u32>,
    /// Starts that are still to come.
    late: Vec<ContainerId>,
    /// Spare sandboxes that were handed to the pod and that it has not taken.
    spares: Vec<ContainerId>,
}

struct World {
    pod: AssignedPod,
    saved: PodRecord,
    record: PodRecord,
    view: View,
    flying: Vec<Action>,
    engine: Engine,
    now: Timestamp,
    /// Every probe that was to run at some time.
    probes: Vec<Wanted>,
    /// Whether spare sandboxes are to be had.
    has_spares: bool,
    /// How often `Never` may be started: once for each time that somebody asked.
    allowed: u32,
}

impl World {
    fn new(pod: AssignedPod) -> Self {
        let record = PodRecord::new(&pod);
        let engine = Engine { containers: BTreeMap::new(), made: 0, starts: BTreeMap::new(), late: Vec::new(), spares: Vec::new() };
        let now = Timestamp::UNIX_EPOCH;
        let (saved, view) = (record.clone(), View::default());
        Self { pod, saved, record, view, flying: Vec::new(), engine, now, probes: Vec::new(), has_spares: false, allowed: 1 }
    }

    fn with_spares(self, has_spares: bool) -> Self {
        Self { has_spares, ..self }
    }

    /// As the pod's task does.
    fn hold_spare(&mut self, decision: &Decision) -> bool {
        let takes = self.has_spares && decision.could_take_a_spare(&self.pod, &self.view);
        if takes {
            self.engine.made += 1;
            let spare = ContainerId(format!("{:04}", self.engine.made));
            self.engine.spares.push(spare.clone());
            self.view.spare = Some(spare);
        }
        takes
    }

    /// As the pod's task does: what it holds and doesn't need goes.
    fn let_go_of_spare(&mut self) {
        if self.record.sandbox.spare == self.view.spare {
            self.view.spare = None;
        } else if let Some(spare) = self.view.spare.take_if(|_| self.record.is_over()) {
            self.engine.spares.retain(|other| *other != spare);
        }
    }

    fn decide(&mut self) {
        for _ in 0..8 {
            let input = Input { pod: &self.pod, record: &self.record, view: &self.view, now: self.now, jitter: Jitter::from_random(0) };
            let decision = decide(input);
            assert_eq!(decision, decide(input), "the same input gives the same output");
            if self.hold_spare(&decision) {
                continue;
            }
            let longest = self.now + LONGEST_WAIT;
            assert!(decision.wake.is_none_or(|at| at <= longest), "{:?} is too late at {}: {:?}", decision.wake, self.now, self.record);
            let rests = decision.record == self.record;
            let probed = wanted(&self.pod, &decision.record, &self.view);
            self.probes.extend(probed.into_iter().filter(|probe| !self.probes.contains(probe)).collect::<Vec<_>>());
            self.saved = decision.record.clone();
            self.record = decision.record;
            self.let_go_of_spare();
            for action in decision.actions {
                assert!(self.view.busy.insert(action.key()), "{action:?} is asked for twice");
                self.view.look &= action != Action::List;
                self.flying.push(action);
            }
            if rests {
                return;
            }
        }
        panic!("the plan does not come to rest: {:?}", self.record);
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Act { which, fate } if !self.flying.is_empty() => {
                let action = self.flying.remove(which % self.flying.len());
                let result = self.perform(&action, fate);
                let came = Came { action, result, now: self.now, jitter: Jitter::from_random(0) };
                let was_unlisted = self.view.unlisted;
                take_in(&self.pod, &mut self.record, &mut self.view, came);
                if was_unlisted && !self.view.unlisted {
                    self.view.unanswered = self.view.asked_for_before(&self.record);
                }
                self.end_of_late();
            }
            Step::Act { .. } => {}
            Step::Pass(seconds) => self.now += Duration::from_secs(seconds.into()),
            Step::End { which, code } => {
                if let Some(id) = self.pick(which) {
                    self.engine.end(&id, code, self.now);
                }
                self.view.look = true;
            }
            Step::Vanish { which } => {
                if let Some(id) = self.pick(which) {
                    self.engine.containers.remove(&id);
                }
                self.view.look = true;
            }
            Step::RestartSandbox => {
                let sandbox = self.engine.containers.values_mut().find(|c| c.identity.container.is_none());
                if let Some(sandbox) = sandbox {
                    sandbox.state = RunState::Running { since: self.now + Duration::from_nanos(1) };
                }
                self.view.look = true;
            }
            Step::Die { left, silent } => {
                for action in std::mem::take(&mut self.flying) {
                    match left {
                        Left::Done => drop(self.perform(&action, Fate::Done)),
                        Left::NotDone => {}
                        Left::Late => drop(self.perform(&action, Fate::Late)),
                    }
                }
                self.record = self.saved.clone();
                // What was not promised is a spare like any other again.
                let held = self.view.spare.take();
                self.engine.spares.retain(|spare| Some(spare) != held.as_ref());
                self.view = if silent { View::unlisted() } else { View::of(self.engine.containers.values().cloned().collect()) };
                self.view.unanswered = self.view.asked_for_before(&self.record);
                self.end_of_late();
            }
            Step::Land { which } if !self.engine.late.is_empty() => {
                let id = self.engine.late[which % self.engine.late.len()].clone();
                drop(self.engine.start(&id, self.now));
                self.view.look = true;
                self.end_of_late();
            }
            Step::Land { .. } => {}
            Step::Look => self.view.look = true,
            Step::Probe { which, healthy } if !self.probes.is_empty() => {
                let of = self.probes[which % self.probes.len()].clone();
                self.probe_says(of, healthy);
            }
            Step::Probe { .. } => {}
            Step::Set(hours) => {
                let by = SignedDuration::from_hours(hours.into());
                self.now += by;
                self.record.clock_was_set(by);
                self.view.clock_was_set(by);
            }
            Step::DieAndSet(hours) => {
                self.now += SignedDuration::from_hours(hours.into());
                return self.step(Step::Die { left: Left::Done, silent: false });
            }
        }
        self.decide();
        self.check();
    }

    fn probe_says(&mut self, of: Wanted, healthy: bool) {
        let verdict = match healthy {
            true => probes::Verdict::Healthy,
            false => probes::Verdict::Unhealthy { times: 3, got: "HTTP 500".to_owned() },
        };
        heed(&self.pod, &mut self.record, &mut self.view, News { of, verdict }, self.now);
    }

    /// The probes that are to run now.
    fn wanted(&self) -> Vec<Wanted> {
        wanted(&self.pod, &self.record, &self.view)
    }

    /// As the pod's task does when a call can't be under way any more.
    fn end_of_late(&mut self) {
        if self.engine.late.is_empty() {
            self.view.give_up_answers();
        }
    }

    fn pick(&self, which: usize) -> Option<ContainerId> {
        let ids: Vec<_> = self.engine.containers.keys().collect();
        (!ids.is_empty()).then(|| ids[which % ids.len()].clone())
    }

    fn perform(&mut self, action: &Action, fate: Fate) -> Result<Outcome, RuntimeError> {
        let lost = || RuntimeError::Unavailable { operation: "answer", problem: "injected".to_owned() };
        match fate {
            Fate::NotDone => Err(lost()),
            Fate::Refused if action.is_heavy() => Err(RuntimeError::Refused { operation: "do it", problem: "injected".to_owned() }),
            Fate::Late => {
                match action {
                    Action::StartApp { id, .. } => self.engine.late.push(id.clone()),
                    _other => drop(self.engine.perform(action, &self.pod, self.now)),
                }
                Err(lost())
            }
            Fate::Done | Fate::Refused => self.engine.perform(action, &self.pod, self.now),
            Fate::ReplyLost => {
                drop(self.engine.perform(action, &self.pod, self.now));
                Err(lost())
            }
        }
    }

    fn check(&self) {
        for container in &self.pod.spec.containers {
            let live = self.engine.containers.values().filter(|c| c.identity.container.as_ref() == Some(&container.name));
            let live = live.filter(|c| matches!(c.state, RunState::Running { .. })).count();
            assert!(live <= 1, "{live} live containers of {}", container.name);
            let starts = self.engine.starts.get(&Some(container.name.clone())).copied().unwrap_or(0);
            if self.pod.spec.restart_policy == RestartPolicy::Never {
                assert!(starts <= self.allowed, "Never was started {starts} times");
            }
        }
    }

    /// Everything goes well from now on, for so long that every wait is over.
    fn calm(&mut self) {
        while !self.engine.late.is_empty() {
            self.step(Step::Land { which: 0 });
        }
        self.step(Step::Look);
        for _ in 0..60 {
            while !self.flying.is_empty() {
                self.step(Step::Act { which: 0, fate: Fate::Done });
            }
            self.step(Step::Pass(60));
        }
    }
}

impl Engine {
    fn perform(&mut self, action: &Action, pod: &AssignedPod, now: Timestamp) -> Result<Outcome, RuntimeError> {
        match action {
            Action::FindImage(_) => Ok(Outcome::Image(Some("sha256:app".to_owned()))),
            Action::Pull(_) => Ok(Outcome::Pulled("sha256:app".to_owned(), Duration::ZERO)),
            Action::CreateSandbox { attempt } => Ok(Outcome::Created(self.create(pod, None, *attempt, None))),
            Action::ClaimSandbox { attempt, spare } => self.claim(pod, *attempt, spare, now).ok_or(RuntimeError::Gone),
            Action::DropSpare(id) => {
                self.spares.retain(|spare| spare != id);
                self.containers.remove(id);
                Ok(Outcome::Done)
            }
            Action::CreateApp { name, attempt, sandbox } => {
                Ok(Outcome::Created(self.create(pod, Some(name.clone()), *attempt, Some(sandbox.clone()))))
            }
            Action::StartSandbox(id) | Action::StartApp { id, .. } => self.start(id, now),
            Action::Inspect(id) => Ok(Outcome::Inspected(self.containers.get(id).cloned().map(Box::new))),
            Action::Signal(id, _) => {
                self.end(id, 143, now);
                Ok(Outcome::Done)
            }
            Action::Remove(id) => {
                self.containers.remove(id);
                Ok(Outcome::Done)
            }
            Action::ReadLines(_) => Ok(Outcome::Lines(None)),
            Action::List => Ok(Outcome::Listed(self.containers.values().cloned().collect())),
        }
    }

    fn create(&mut self, pod: &AssignedPod, container: Option<Name>, attempt: u32, sandbox: Option<ContainerId>) -> ContainerId {
        let identity = Identity { uid: pod.uid, pod: pod.name.clone(), container, attempt };
        if let Some(existing) = self.containers.values().find(|c| c.identity == identity) {
            return existing.id.clone();
        }
        self.made += 1;
        let id = ContainerId(format!("{:04}", self.made));
        let image_id = "sha256:app".to_owned();
        let observed = Observed { id: id.clone(), identity, sandbox, image_id, tty: false, ip: None, state: RunState::Created };
        self.containers.insert(id.clone(), observed);
        id
    }

    fn claim(&mut self, pod: &AssignedPod, attempt: u32, spare: &ContainerId, now: Timestamp) -> Option<Outcome> {
        let identity = Identity { uid: pod.uid, pod: pod.name.clone(), container: None, attempt };
        if let Some(place) = self.spares.iter().position(|other| other == spare) {
            let id = self.spares.remove(place);
            let (image_id, state) = (String::new(), RunState::Running { since: now });
            let observed = Observed { id: id.clone(), identity: identity.clone(), sandbox: None, image_id, tty: false, ip: None, state };
            self.containers.insert(id, observed);
        }
        let taken = self.containers.get(spare).filter(|taken| taken.identity == identity)?;
        Some(Outcome::Claimed(Box::new(taken.clone())))
    }

    fn start(&mut self, id: &ContainerId, now: Timestamp) -> Result<Outcome, RuntimeError> {
        // The engine does one thing at a time with a container: an earlier start comes before a later one.
        self.late.retain(|late| late != id);
        let Some(container) = self.containers.get(id) else { return Err(RuntimeError::Gone) };
        if let RunState::Running { .. } = container.state {
            return Ok(Outcome::Done);
        }
        let up = |sandbox: &ContainerId| self.containers.get(sandbox).is_some_and(|c| matches!(c.state, RunState::Running { .. }));
        if container.sandbox.as_ref().is_some_and(|sandbox| !up(sandbox)) {
            return Err(RuntimeError::Refused { operation: "start", problem: "the sandbox is down".to_owned() });
        }
        *self.starts.entry(container.identity.container.clone()).or_default() += 1;
        if let Some(container) = self.containers.get_mut(id) {
            container.state = RunState::Running { since: now };
        }
        Ok(Outcome::Done)
    }

    fn end(&mut self, id: &ContainerId, code: i64, now: Timestamp) {
        let Some(container) = self.containers.get_mut(id) else { return };
        if let RunState::Running { since } = container.state {
            container.state = RunState::Exited { code, oom: false, error: None, started: Some(since), finished: Some(now) };
        }
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let fate = prop_oneof![
        8 => Just(Fate::Done),
        1 => Just(Fate::ReplyLost),
        1 => Just(Fate::Late),
        1 => Just(Fate::NotDone),
        1 => Just(Fate::Refused)
    ];
    let left = prop_oneof![Just(Left::Done), Just(Left::NotDone), Just(Left::Late)];
    let step = prop_oneof![
        16 => (any::<usize>(), fate).prop_map(|(which, fate)| Step::Act { which, fate }),
        2 => (0..200_u16).prop_map(Step::Pass),
        2 => (any::<usize>(), prop_oneof![Just(0), Just(1)]).prop_map(|(which, code)| Step::End { which, code }),
        1 => any::<usize>().prop_map(|which| Step::Vanish { which }),
        1 => Just(Step::RestartSandbox),
        1 => (left, any::<bool>()).prop_map(|(left, silent)| Step::Die { left, silent }),
        1 => any::<usize>().prop_map(|which| Step::Land { which }),
        1 => Just(Step::Look),
        1 => any::<i8>().prop_map(Step::Set),
        1 => any::<i8>().prop_map(Step::DieAndSet),
        3 => (any::<usize>(), any::<bool>()).prop_map(|(which, healthy)| Step::Probe { which, healthy }),
    ];
    prop::collection::vec(step, 0..120)
}

fn two_containers(policy: RestartPolicy) -> AssignedPod {
    let mut pod = pod(1, policy);
    let mut side = pod.spec.containers[0].clone();
    side.name = name("side");
    pod.spec.containers.push(side);
    pod.spec.restart.limit = 0;
    let probe: Probe = serde_json::from_str(r#"{"tcpSocket": {"port": 80}, "terminationGracePeriodSeconds": 5}"#).unwrap();
    for (index, container) in pod.spec.containers.iter_mut().enumerate() {
        container.liveness_probe = Some(Box::new(probe.clone()));
        container.readiness_probe = (index == 0).then(|| Box::new(probe.clone()));
        container.startup_probe = (index == 0).then(|| Box::new(probe.clone()));
    }
    pod
}

fn policies() -> impl Strategy<Value = RestartPolicy> {
    prop_oneof![Just(RestartPolicy::Always), Just(RestartPolicy::OnFailure), Just(RestartPolicy::Never)]
}

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
    fn never_two_live_containers_of_a_name_and_never_a_second_start(policy in policies(), spares: bool, steps in steps()) {
        let mut world = World::new(two_containers(policy)).with_spares(spares);
        world.decide();
        steps.into_iter().for_each(|step| world.step(step));
    }

    #[test]
    fn never_two_live_containers_of_a_name_though_a_person_restarts_the_pod(policy in policies(), spares: bool, before in steps(), after in steps()) {
        let mut world = World::new(two_containers(policy)).with_spares(spares);
        world.decide();
        before.into_iter().for_each(|step| world.step(step));
        world.allowed += 1;
        world.pod.want = Want::Run { restarts: 1 };
        after.into_iter().for_each(|step| world.step(step));
    }

    #[test]
    fn when_the_trouble_is_over_a_pod_that_always_runs_runs_in_one_sandbox(spares: bool, steps in steps()) {
        let mut world = World::new(two_containers(RestartPolicy::Always)).with_spares(spares);
        world.decide();
        steps.into_iter().for_each(|step| world.step(step));
        world.calm();
        let live: Vec<_> = world.engine.containers.values().filter(|c| matches!(c.state, RunState::Running { .. })).collect();
        let sandboxes: Vec<_> = live.iter().filter(|c| c.identity.container.is_none()).collect();
        prop_assert!(sandboxes.len() == 1 && live.len() == 3, "{:?} {:?}", live, world.record);
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
    fn a_stopped_pod_leaves_nothing(policy in policies(), spares: bool, before in steps(), after in steps()) {
        let mut world = World::new(two_containers(policy)).with_spares(spares);
        world.decide();
        before.into_iter().for_each(|step| world.step(step));
        world.pod = stop(&world.pod);
        after.into_iter().for_each(|step| world.step(step));
        world.calm();
        prop_assert!(world.record.is_stopped(), "{:?}", world.record);
        prop_assert!(world.engine.containers.is_empty(), "{:?}", world.engine.containers);
        prop_assert!(world.engine.spares.is_empty(), "a spare that was handed out is nobody's: {:?} {:?}", world.engine.spares, world.record);
    }

    #[test]
    fn counts_never_fall_and_attempts_never_go_back(steps in steps(), restarts in 0..3_u64) {
        let mut world = World::new(two_containers(RestartPolicy::Always));
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
