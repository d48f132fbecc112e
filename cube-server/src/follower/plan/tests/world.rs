//! A pod's world in small: an engine that keeps what was done, the agent's record and its look at the engine, and what may happen to them.

use super::*;
use crate::follower::plan::probes;

/// What happens next.
#[derive(Debug, Clone)]
pub(super) enum Step {
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
pub(super) const LONGEST_WAIT: SignedDuration = SignedDuration::from_secs(144);

/// What becomes of what was on its way when the agent died.
#[derive(Debug, Clone, Copy)]
pub(super) enum Left {
    Done,
    NotDone,
    /// Done, but for the starts: they come later.
    Late,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Fate {
    Done,
    /// A start that isn't answered and comes later; anything else is done.
    Late,
    ReplyLost,
    NotDone,
    Refused,
}

pub(super) struct Engine {
    pub(super) containers: BTreeMap<ContainerId, Observed>,
    pub(super) made: u32,
    pub(super) starts: BTreeMap<Option<Name>, u32>,
    /// Which containers have ended with 0 in which sandbox.
    pub(super) done: BTreeSet<(ContainerId, Name)>,
    /// Starts that are still to come.
    pub(super) late: Vec<ContainerId>,
    /// Spare sandboxes that were handed to the pod and that it has not taken.
    pub(super) spares: Vec<ContainerId>,
    /// The pod's volumes are there.
    pub(super) has_volumes: bool,
}

pub(super) struct World {
    pub(super) pod: AssignedPod,
    pub(super) saved: PodRecord,
    pub(super) record: PodRecord,
    pub(super) view: View,
    pub(super) flying: Vec<Action>,
    pub(super) engine: Engine,
    pub(super) now: Timestamp,
    /// Every probe that was to run at some time.
    pub(super) probes: Vec<Wanted>,
    /// Whether spare sandboxes are to be had.
    pub(super) has_spares: bool,
    /// How often `Never` may be started: once for each time that somebody asked.
    pub(super) allowed: u32,
}

impl World {
    pub(super) fn new(pod: AssignedPod) -> Self {
        let record = PodRecord::new(&pod);
        let engine = Engine {
            containers: BTreeMap::new(),
            made: 0,
            starts: BTreeMap::new(),
            done: BTreeSet::new(),
            late: Vec::new(),
            spares: Vec::new(),
            has_volumes: false,
        };
        let now = Timestamp::UNIX_EPOCH;
        let (saved, view) = (record.clone(), View::default());
        Self { pod, saved, record, view, flying: Vec::new(), engine, now, probes: Vec::new(), has_spares: false, allowed: 1 }
    }

    pub(super) fn with_spares(self, has_spares: bool) -> Self {
        Self { has_spares, ..self }
    }

    /// As the pod's task does.
    pub(super) fn hold_spare(&mut self, decision: &Decision) -> bool {
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
    pub(super) fn let_go_of_spare(&mut self) {
        if self.record.sandbox.spare == self.view.spare {
            self.view.spare = None;
        } else if let Some(spare) = self.view.spare.take_if(|_| self.record.is_over()) {
            self.engine.spares.retain(|other| *other != spare);
        }
    }

    pub(super) fn decide(&mut self) {
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

    pub(super) fn step(&mut self, step: Step) {
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

    pub(super) fn probe_says(&mut self, of: Wanted, healthy: bool) {
        let verdict = match healthy {
            true => probes::Verdict::Healthy,
            false => probes::Verdict::Unhealthy { times: 3, got: "HTTP 500".to_owned() },
        };
        heed(&self.pod, &mut self.record, &mut self.view, News { of, verdict }, self.now);
    }

    /// The probes that are to run now.
    pub(super) fn wanted(&self) -> Vec<Wanted> {
        wanted(&self.pod, &self.record, &self.view)
    }

    /// As the pod's task does when a call can't be under way any more.
    pub(super) fn end_of_late(&mut self) {
        if self.engine.late.is_empty() {
            self.view.give_up_answers();
        }
    }

    pub(super) fn pick(&self, which: usize) -> Option<ContainerId> {
        let ids: Vec<_> = self.engine.containers.keys().collect();
        (!ids.is_empty()).then(|| ids[which % ids.len()].clone())
    }

    pub(super) fn perform(&mut self, action: &Action, fate: Fate) -> Result<Outcome, RuntimeError> {
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

    pub(super) fn check(&self) {
        for container in self.pod.spec.all_containers() {
            let live = self.engine.containers.values().filter(|c| c.identity.container.as_ref() == Some(&container.name));
            let live = live.filter(|c| matches!(c.state, RunState::Running { .. })).count();
            assert!(live <= 1, "{live} live containers of {}", container.name);
            let starts = self.engine.starts.get(&Some(container.name.clone())).copied().unwrap_or(0);
            if self.pod.spec.restart_policy_of(&container.name) == RestartPolicy::Never {
                assert!(starts <= self.allowed, "Never was started {starts} times");
            }
        }
        // Nothing runs before what prepares it has ended with 0 in the same sandbox.
        for seen in self.engine.containers.values().filter(|seen| matches!(seen.state, RunState::Running { .. })) {
            let (Some(name), Some(sandbox)) = (&seen.identity.container, &seen.sandbox) else { continue };
            let before = self.pod.spec.init_containers.iter().take_while(|container| container.name != *name);
            for init in before.filter(|container| !container.is_sidecar()) {
                assert!(self.engine.done.contains(&(sandbox.clone(), init.name.clone())), "{name} runs before {} is done", init.name);
            }
        }
    }

    /// Everything goes well from now on, for so long that every wait is over.
    pub(super) fn calm(&mut self) {
        while !self.engine.late.is_empty() {
            self.step(Step::Land { which: 0 });
        }
        self.step(Step::Look);
        for _ in 0..60 {
            while !self.flying.is_empty() {
                self.step(Step::Act { which: 0, fate: Fate::Done });
            }
            // What prepares the others does so.
            let init = |seen: &&Observed| {
                matches!(seen.identity.container.as_ref().and_then(|name| self.pod.spec.part(name)), Some(Part::Init { .. }))
            };
            let ids: Vec<_> = self.engine.containers.values().filter(init).map(|seen| seen.id.clone()).collect();
            ids.iter().for_each(|id| self.engine.end(id, 0, self.now));
            self.step(Step::Look);
            self.step(Step::Pass(60));
        }
    }
}

impl Engine {
    pub(super) fn perform(&mut self, action: &Action, pod: &AssignedPod, now: Timestamp) -> Result<Outcome, RuntimeError> {
        match action {
            Action::FindImage(_) => Ok(Outcome::Image(Some("sha256:app".to_owned()))),
            Action::Pull(_) => Ok(Outcome::Pulled("sha256:app".to_owned(), Duration::ZERO)),
            Action::ChoosePorts { after } => Ok(Outcome::Ports(chosen(pod, after.map_or(30_000, |after| after + 1)))),
            Action::CreateSandbox { attempt } => Ok(Outcome::Created(self.create(pod, None, *attempt, None))),
            Action::ClaimSandbox { attempt, spare } => self.claim(pod, *attempt, spare, now).ok_or(RuntimeError::Gone),
            Action::DropSpare(id) => {
                self.spares.retain(|spare| spare != id);
                self.containers.remove(id);
                Ok(Outcome::Done)
            }
            Action::PrepareVolumes { first } => {
                let made = self.containers.values().any(|container| container.identity.container.is_some());
                assert!(!(*first && made), "what its containers have is not to be made anew");
                self.has_volumes = true;
                Ok(Outcome::Prepared(pod.sources.clone()))
            }
            Action::DropVolumes => {
                assert!(self.containers.is_empty(), "a container has them: {:?}", self.containers);
                self.has_volumes = false;
                Ok(Outcome::Done)
            }
            Action::CreateApp { name, attempt, sandbox } => {
                assert!(self.has_volumes || pod.spec.volumes.is_empty(), "an engine would make a volume of nobody's");
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
            Action::ReadLines(_) | Action::ReadMessage { .. } => Ok(Outcome::Lines(None)),
            Action::PostStart { .. } | Action::PreStop(_) => Ok(Outcome::Hooked(Ok(()))),
            Action::List => Ok(Outcome::Listed(self.containers.values().cloned().collect())),
        }
    }

    pub(super) fn create(&mut self, pod: &AssignedPod, container: Option<Name>, attempt: u32, sandbox: Option<ContainerId>) -> ContainerId {
        let identity = Identity { uid: pod.uid, pod: pod.name.clone(), container, attempt };
        if let Some(existing) = self.containers.values().find(|c| c.identity == identity) {
            return existing.id.clone();
        }
        self.made += 1;
        let id = ContainerId(format!("{:04}", self.made));
        let image_id = "sha256:app".to_owned();
        let observed =
            Observed { id: id.clone(), identity, sandbox, image_id, tty: false, ip: None, bindings: Vec::new(), state: RunState::Created };
        self.containers.insert(id.clone(), observed);
        id
    }

    pub(super) fn claim(&mut self, pod: &AssignedPod, attempt: u32, spare: &ContainerId, now: Timestamp) -> Option<Outcome> {
        let identity = Identity { uid: pod.uid, pod: pod.name.clone(), container: None, attempt };
        if let Some(place) = self.spares.iter().position(|other| other == spare) {
            let id = self.spares.remove(place);
            let (image_id, state) = (String::new(), RunState::Running { since: now });
            let observed = Observed {
                id: id.clone(),
                identity: identity.clone(),
                sandbox: None,
                image_id,
                tty: false,
                ip: None,
                bindings: Vec::new(),
                state,
            };
            self.containers.insert(id, observed);
        }
        let taken = self.containers.get(spare).filter(|taken| taken.identity == identity)?;
        Some(Outcome::Claimed(Box::new(taken.clone())))
    }

    pub(super) fn start(&mut self, id: &ContainerId, now: Timestamp) -> Result<Outcome, RuntimeError> {
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

    pub(super) fn end(&mut self, id: &ContainerId, code: i64, now: Timestamp) {
        let Some(container) = self.containers.get_mut(id) else { return };
        if let RunState::Running { since } = container.state {
            let place = container.sandbox.clone().zip(container.identity.container.clone());
            self.done.extend(place.filter(|_| code == 0));
            container.state = RunState::Exited { code, oom: false, error: None, started: Some(since), finished: Some(now) };
        }
    }
}

pub(super) fn steps() -> impl Strategy<Value = Vec<Step>> {
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

/// This one for each port that the pod leaves to the node.
pub(super) fn chosen(pod: &AssignedPod, number: u16) -> Vec<PublishedPort> {
    let free = pod.spec.published().filter(|(_, port)| port.wants_free_host_port());
    free.map(|(container, port)| PublishedPort::new(container, port, number)).collect()
}

pub(super) fn two_containers(policy: RestartPolicy) -> AssignedPod {
    let mut pod = pod(1, policy);
    let mut side = pod.spec.containers[0].clone();
    side.name = name("side");
    pod.spec.containers.push(side);
    pod.spec.restart.limit = 0;
    pod.spec.volumes = vec![serde_json::from_value(serde_json::json!({ "name": "shared", "emptyDir": {} })).unwrap()];
    let probe: Probe = serde_json::from_str(r#"{"tcpSocket": {"port": 80}, "terminationGracePeriodSeconds": 5}"#).unwrap();
    for (index, container) in pod.spec.containers.iter_mut().enumerate() {
        container.liveness_probe = Some(Box::new(probe.clone()));
        container.readiness_probe = (index == 0).then(|| Box::new(probe.clone()));
        container.startup_probe = (index == 0).then(|| Box::new(probe.clone()));
    }
    pod
}

pub(super) fn policies() -> impl Strategy<Value = RestartPolicy> {
    prop_oneof![Just(RestartPolicy::Always), Just(RestartPolicy::OnFailure), Just(RestartPolicy::Never)]
}
