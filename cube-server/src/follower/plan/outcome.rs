//! What an action came to: changes of the view and, where something was refused, of the record.

use std::time::Duration;

use cube_api::meta::Name;
use cube_api::pod::{EndReason, PublishedPort, RestartPolicy, Terminated};
use cube_api::session::AssignedPod;
use jiff::Timestamp;

use super::containers::seconds;
use super::{Action, Decision, Input, Note, Signalled, Step, Trouble, View};
use crate::backoff::{Jitter, Waits};
use crate::follower::record::{PodRecord, Slot, Stage, WaitCause};
use crate::follower::restart::{self, Verdict};
use crate::follower::runtime::{ContainerId, Identity, Observed, RunState, RuntimeError};

/// The waits after calls that the engine failed.
const TROUBLE_WAITS: Waits = Waits::new(Duration::from_millis(500), Duration::from_secs(30));

/// What an action that worked came to.
#[derive(Debug)]
pub enum Outcome {
    /// `FindImage`: the content id, if the node has the image.
    Image(Option<String>),
    /// `Pull`: the content id, and how long it took.
    Pulled(String, Duration),
    /// `ChoosePorts`.
    Ports(Vec<PublishedPort>),
    /// `CreateSandbox`, `CreateApp`: Docker's id.
    Created(ContainerId),
    /// `ClaimSandbox`: the spare, as the pod's.
    Claimed(Box<Observed>),
    /// `Inspect`.
    Inspected(Option<Box<Observed>>),
    /// `ReadLines`: none where there is nothing to read.
    Lines(Option<String>),
    /// `List`.
    Listed(Vec<Observed>),
    /// The other actions.
    Done,
}

/// Takes in what an action came to. The result's actions are empty: `decide` comes next.
pub fn take_in(pod: &AssignedPod, record: &mut PodRecord, view: &mut View, came: Came) -> Vec<Note> {
    let Came { action, result, now, jitter } = came;
    view.busy.remove(&action.key());
    match result {
        Ok(Outcome::Ports(chosen)) => ports_chosen(record, view, chosen),
        Ok(outcome) => {
            if let Action::DropSpare(id) = &action {
                record.sandbox.spare.take_if(|spare| *spare == *id);
            }
            succeeded(pod, view, action, outcome, now)
        }
        Err(error) => failed(Failure { pod, action, error, now, jitter }, record, view),
    }
}

fn ports_chosen(record: &mut PodRecord, view: &mut View, chosen: Vec<PublishedPort>) -> Vec<Note> {
    let note = |port: &PublishedPort| {
        let PublishedPort { container, container_port, host_port, .. } = port;
        Note::normal("HostPortChosen", format!("port {container_port} of container '{container}' gets host port {host_port}"))
    };
    let before = record.chosen_ports().to_vec();
    let notes = chosen.iter().filter(|port| !before.contains(port)).map(note).collect();
    record.choose_ports(chosen);
    view.ports_for = Some(record.sandbox.attempt);
    notes
}

/// An action's end.
#[derive(Debug)]
pub struct Came {
    /// What was asked.
    pub action: Action,
    /// What it came to.
    pub result: Result<Outcome, RuntimeError>,
    /// The time of day.
    pub now: Timestamp,
    /// Spreads waits.
    pub jitter: Jitter,
}

fn succeeded(pod: &AssignedPod, view: &mut View, action: Action, outcome: Outcome, now: Timestamp) -> Vec<Note> {
    match (action, outcome) {
        (Action::FindImage(name), Outcome::Image(found)) => return image_found(pod, view, name, found),
        (Action::Pull(name), Outcome::Pulled(id, took)) => {
            view.pulls.remove(&name);
            view.absent.remove(&name);
            view.images.insert(name.clone(), id);
            return vec![Note::normal("Pulled", format!("pulled image {} in {}", image_of(pod, &name), seconds(took)))];
        }
        (Action::CreateSandbox { attempt }, Outcome::Created(id)) => {
            view.look |= view.containers.contains_key(&id);
            made(pod, view, Made { container: None, attempt, id, sandbox: None });
        }
        (Action::ClaimSandbox { spare, .. }, Outcome::Claimed(sandbox)) => drop(view.containers.insert(spare, sandbox)),
        (Action::CreateApp { name, attempt, sandbox }, Outcome::Created(id)) => {
            let note = Note::normal("Created", format!("created container '{name}'"));
            made(pod, view, Made { container: Some(name), attempt, id, sandbox: Some(sandbox) });
            return vec![note];
        }
        (Action::StartSandbox(id) | Action::StartApp { id, .. }, _) => {
            view.started.insert(id);
        }
        (Action::Inspect(id), Outcome::Inspected(found)) => {
            view.started.remove(&id);
            match found {
                Some(container) => drop(view.containers.insert(id, container)),
                None => view.remove(&id),
            }
        }
        (Action::Signal(id, signal), _) => {
            view.signalled.insert(id, Signalled { signal, at: now });
            view.look = true;
        }
        (Action::Remove(id) | Action::DropSpare(id), _) => view.remove(&id),
        (Action::ReadLines(id), Outcome::Lines(lines)) => {
            view.lines.insert(id, lines);
        }
        (Action::List, Outcome::Listed(listed)) => {
            // Only a list ends trouble: another call that works says nothing of the one that failed.
            view.trouble = None;
            view.replace(listed);
        }
        (action, outcome) => unreachable!("the executor answers {action:?} with its own kind, not {outcome:?}"),
    }
    Vec::new()
}

fn image_found(pod: &AssignedPod, view: &mut View, name: Name, found: Option<String>) -> Vec<Note> {
    match found {
        Some(id) => {
            let message = format!("image {} is already present", image_of(pod, &name));
            view.images.insert(name, id);
            vec![Note::normal("Pulled", message)]
        }
        None => {
            view.absent.insert(name);
            Vec::new()
        }
    }
}

struct Made {
    container: Option<Name>,
    attempt: u32,
    id: ContainerId,
    sandbox: Option<ContainerId>,
}

/// A container that was created, or found by its identity: found ones may run already, so `start` and an inspect follow in any case.
fn made(pod: &AssignedPod, view: &mut View, made: Made) {
    let Made { container, attempt, id, sandbox } = made;
    // The next attempt looks for its image again: people remove images.
    let image_id = container.as_ref().and_then(|name| view.images.remove(name)).unwrap_or_default();
    let tty = container.as_ref().and_then(|name| pod.spec.containers.iter().find(|spec| spec.name == *name)).is_some_and(|spec| spec.tty);
    let identity = Identity { uid: pod.uid, pod: pod.name.clone(), container, attempt };
    let observed = Observed { id: id.clone(), identity, sandbox, image_id, tty, ip: None, bindings: Vec::new(), state: RunState::Created };
    view.containers.insert(id, Box::new(observed));
}

struct Failure<'a> {
    pod: &'a AssignedPod,
    action: Action,
    error: RuntimeError,
    now: Timestamp,
    jitter: Jitter,
}

fn failed(failure: Failure<'_>, record: &mut PodRecord, view: &mut View) -> Vec<Note> {
    if let Action::Pull(name) = &failure.action {
        view.pulls.remove(name);
        view.absent.remove(name);
    }
    let problem = failure.error.to_string();
    match (&failure.error, failure.action.clone()) {
        // Lines are a courtesy: a log that can't be read must not hold up a restart.
        (_, Action::ReadLines(id)) => {
            view.lines.insert(id, None);
            Vec::new()
        }
        (RuntimeError::Unavailable { .. }, action) => {
            if let Action::StartApp { id, .. } = action {
                view.unanswered.insert(id);
            }
            let first = trouble(view, failure.now, failure.jitter);
            let note = Note::warning("EngineTrouble", format!("{problem}; nothing is changed until it answers"));
            if first { vec![note] } else { Vec::new() }
        }
        (RuntimeError::Image { .. }, Action::FindImage(name) | Action::Pull(name)) => no_image(failure, record, view, &name, problem),
        // The image went between the check and the create.
        (RuntimeError::Image { .. }, Action::CreateApp { name, .. }) => {
            view.images.remove(&name);
            no_image(failure, record, view, &name, problem)
        }
        (RuntimeError::Refused { .. } | RuntimeError::PortTaken { .. }, Action::FindImage(name) | Action::Pull(name)) => {
            no_image(failure, record, view, &name, problem)
        }
        (RuntimeError::PortTaken { port, .. }, Action::StartSandbox(_)) => {
            let port = *port;
            port_taken(failure, record, view, port, problem)
        }
        (
            RuntimeError::Refused { .. } | RuntimeError::Image { .. } | RuntimeError::PortTaken { .. },
            Action::ChoosePorts { .. } | Action::CreateSandbox { .. } | Action::StartSandbox(_),
        ) => sandbox_refused(failure, record, view, problem),
        // It ended while nobody had it, or the name is taken: that is nothing against the pod.
        (
            RuntimeError::Refused { .. } | RuntimeError::PortTaken { .. } | RuntimeError::Image { .. } | RuntimeError::Gone,
            Action::ClaimSandbox { .. },
        ) => {
            view.spare_refused = true;
            Vec::new()
        }
        (RuntimeError::Refused { .. } | RuntimeError::PortTaken { .. }, Action::CreateApp { name, .. }) => {
            app_refused(failure, record, view, &name, problem)
        }
        (RuntimeError::Refused { .. } | RuntimeError::PortTaken { .. } | RuntimeError::Image { .. }, Action::StartApp { name, .. }) => {
            view.look = true;
            app_refused(failure, record, view, &name, problem)
        }
        (
            RuntimeError::Refused { .. } | RuntimeError::PortTaken { .. } | RuntimeError::Image { .. },
            Action::Inspect(_) | Action::Signal(..) | Action::Remove(_) | Action::DropSpare(_) | Action::List,
        )
        | (RuntimeError::Gone, _) => {
            view.look = true;
            trouble(view, failure.now, failure.jitter);
            Vec::new()
        }
    }
}

/// Waits before the engine is asked again. Whether the trouble is new.
fn trouble(view: &mut View, now: Timestamp, jitter: Jitter) -> bool {
    let failures = view.trouble.as_ref().map_or(0, |trouble| trouble.failures) + 1;
    let wait = jitter.spread(TROUBLE_WAITS.after(failures));
    view.trouble = Some(Trouble { failures, retry_at: now + wait });
    view.look = true;
    failures == 1
}

fn no_image(failure: Failure<'_>, record: &mut PodRecord, view: &View, name: &Name, problem: String) -> Vec<Note> {
    let Failure { pod, now, jitter, .. } = failure;
    let Some(container) = record.containers.get_mut(name) else { return Vec::new() };
    let Slot::Waiting(_) = container.slot else { return Vec::new() };
    let verdict = restart::after_missing_image(&mut container.images, pod.spec.restart.limit, now, jitter);
    let times = container.images.failures;
    container.slot = Slot::Waiting(WaitCause::Image(problem.clone()));
    let image = image_of(pod, name);
    match verdict {
        Verdict::Again(wait) => {
            let message = format!("image {image}: {problem}; next try in {} (try {times} failed)", seconds(wait));
            vec![Note::warning("ErrImagePull", message)]
        }
        Verdict::GiveUp => given_up(
            Input { pod, record, view, now, jitter },
            record.clone(),
            "ImageLimit",
            &format!("image {image} could not be had in {times} tries: {problem}"),
        )
        .apply(record),
    }
}

/// So many host ports may turn out to be taken one after the other before a pod waits as after any refusal: what a bind found free is taken by rules
/// of a packet filter, or by a program that was quicker.
const PORTS_IN_A_ROW: u32 = 4;

/// A port that the node chose is replaced by another at once; one that the manifest asks for can only be waited for.
fn port_taken(failure: Failure<'_>, record: &mut PodRecord, view: &View, port: u16, problem: String) -> Vec<Note> {
    let Some(ports) = record.sandbox.ports.as_mut().filter(|ports| ports.chosen.iter().any(|chosen| chosen.host_port == port)) else {
        return sandbox_refused(failure, record, view, problem);
    };
    ports.refused = Some(port);
    ports.refusals = ports.refusals.saturating_add(1);
    let refusals = ports.refusals;
    // What was made publishes the port that is taken, and no engine changes that.
    record.sandbox.attempt += 1;
    if refusals.is_multiple_of(PORTS_IN_A_ROW) {
        return sandbox_refused(failure, record, view, problem);
    }
    vec![Note::warning("HostPortTaken", format!("host port {port} is taken after all ({problem}): another one is chosen"))]
}

fn sandbox_refused(failure: Failure<'_>, record: &mut PodRecord, view: &View, problem: String) -> Vec<Note> {
    let Failure { pod, now, jitter, .. } = failure;
    let verdict = restart::after_crash(&mut record.sandbox.streak, pod.spec.restart.limit, now, jitter);
    let times = record.sandbox.streak.failures;
    record.sandbox.problem = Some(problem.clone());
    match verdict {
        Verdict::Again(wait) => {
            let message = format!("the pod's sandbox can't be started: {problem}; next try in {}", seconds(wait));
            vec![Note::warning("CreateContainerError", message)]
        }
        Verdict::GiveUp => given_up(
            Input { pod, record, view, now, jitter },
            record.clone(),
            "CrashLimit",
            &format!("the pod's sandbox could not be started {times} times in a row: {problem}"),
        )
        .apply(record),
    }
}

fn app_refused(failure: Failure<'_>, record: &mut PodRecord, view: &View, name: &Name, problem: String) -> Vec<Note> {
    let Failure { pod, action, now, jitter, .. } = failure;
    let Some(container) = record.containers.get_mut(name) else { return Vec::new() };
    let tried = matches!(action, Action::StartApp { .. });
    let end = Terminated {
        exit_code: 128,
        reason: EndReason::StartError,
        message: Some(problem.clone()),
        started_at: None,
        finished_at: Some(now),
    };
    if tried && pod.spec.restart_policy == RestartPolicy::Never {
        container.slot = Slot::Ended(end);
        return vec![Note::warning("CreateContainerError", format!("container '{name}' can't be started: {problem}"))];
    }
    let verdict = restart::after_crash(&mut container.crashes, pod.spec.restart.limit, now, jitter);
    let times = container.crashes.failures;
    match verdict {
        Verdict::Again(wait) => {
            // A container that Docker refused to start stays as it is for people to look at; the next try is a new one.
            if tried {
                container.last = Some(end);
                container.next_attempt(WaitCause::Refused(problem.clone()));
            } else {
                container.slot = Slot::Waiting(WaitCause::Refused(problem.clone()));
            }
            let message = format!("container '{name}' can't be started: {problem}; next try in {}", seconds(wait));
            vec![Note::warning("CreateContainerError", message)]
        }
        Verdict::GiveUp => {
            container.slot = Slot::Ended(end);
            given_up(
                Input { pod, record, view, now, jitter },
                record.clone(),
                "CrashLimit",
                &format!("container '{name}' could not be started {times} times in a row: {problem}"),
            )
            .apply(record)
        }
    }
}

/// Gives the pod up, unless it is on its way out already.
fn given_up(input: Input<'_>, record: PodRecord, reason: &'static str, what: &str) -> Decision {
    let mut step = Step::new(Input { record: &record, ..input });
    if let Stage::Live = step.record.stage {
        step.give_up(reason, what);
    }
    Decision { record: step.record, notes: step.notes, actions: Vec::new(), wake: None }
}

impl Decision {
    fn apply(self, record: &mut PodRecord) -> Vec<Note> {
        *record = self.record;
        self.notes
    }
}

fn image_of<'a>(pod: &'a AssignedPod, name: &Name) -> &'a str {
    pod.spec.containers.iter().find(|container| container.name == *name).map_or("", |container| container.image.as_str())
}
