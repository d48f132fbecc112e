//! What to do next with a pod: assigned x record x view x now -> the new record, events, actions and when to look again.
//!
//! Pure: no async, no clock, no engine. `decide` looks at the whole state each time and may be called as often as one likes: what is on its way is
//! in `View::busy`. `outcome` takes in what an action came to. The same path serves a new pod, a running one and one found after a crash.

mod containers;
mod halt;
mod outcome;
mod probes;
mod sandbox;
#[cfg(test)]
mod tests;
mod view;

use std::time::Duration;

use cube_api::event::EventKind;
use cube_api::meta::Name;
use cube_api::pod::{Container, Phase};
use cube_api::session::{AssignedPod, Want};
use jiff::Timestamp;

use crate::backoff::Jitter;
use crate::follower::record::{PodEnd, PodRecord, Slot, Stage, Streak, WaitCause};
use crate::follower::runtime::{ContainerId, StopSignal};

pub use outcome::{Came, Outcome, take_in};
pub use probes::{News, Tally, Tried, Wanted, failing, heed, is_started, ready_since, wanted};
pub use view::{Key, Signalled, Trouble, View};

/// Everything that a decision is made from.
#[derive(Clone, Copy)]
pub struct Input<'a> {
    /// What the leader wants.
    pub pod: &'a AssignedPod,
    /// What is durable.
    pub record: &'a PodRecord,
    /// What is known besides.
    pub view: &'a View,
    /// The time of day.
    pub now: Timestamp,
    /// Spreads waits.
    pub jitter: Jitter,
}

/// What follows.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// To be written before the actions are done.
    pub record: PodRecord,
    /// Events, in order.
    pub notes: Vec<Note>,
    /// To be done at the same time.
    pub actions: Vec<Action>,
    /// When to decide again, if nothing happens before.
    pub wake: Option<Timestamp>,
}

/// An event that isn't stamped yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// Whether a person should look.
    pub kind: EventKind,
    /// A stable word.
    pub reason: &'static str,
    /// The sentence.
    pub message: String,
}

impl Decision {
    /// Whether a sandbox is to be made for this pod that a spare one could be as well: one without ports and without a name that it asked for, which
    /// Docker gives at creation only.
    pub fn could_take_a_spare(&self, pod: &AssignedPod, view: &View) -> bool {
        let makes_one = self.actions.iter().any(|action| matches!(action, Action::CreateSandbox { .. }));
        makes_one && view.spare.is_none() && !view.spare_refused && pod.spec.hostname.is_none() && pod.spec.published().next().is_none()
    }
}

impl Note {
    /// As it should be.
    pub fn normal(reason: &'static str, message: impl Into<String>) -> Self {
        Self { kind: EventKind::Normal, reason, message: message.into() }
    }

    /// A person may want to act.
    pub fn warning(reason: &'static str, message: impl Into<String>) -> Self {
        Self { kind: EventKind::Warning, reason, message: message.into() }
    }
}

/// One call to the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Look whether the node has a container's image.
    FindImage(Name),
    /// Pull a container's image.
    Pull(Name),
    /// Make the sandbox.
    CreateSandbox {
        /// Which.
        attempt: u32,
    },
    /// Make a spare sandbox the pod's.
    ClaimSandbox {
        /// As which.
        attempt: u32,
        /// The spare.
        spare: ContainerId,
    },
    /// Start the sandbox.
    StartSandbox(ContainerId),
    /// Make an app container.
    CreateApp {
        /// Which.
        name: Name,
        /// Which of that name.
        attempt: u32,
        /// Whose network it joins.
        sandbox: ContainerId,
    },
    /// Start an app container.
    StartApp {
        /// Which.
        name: Name,
        /// Docker's id.
        id: ContainerId,
    },
    /// Look at one container.
    Inspect(ContainerId),
    /// Signal a container.
    Signal(ContainerId, StopSignal),
    /// Remove a container.
    Remove(ContainerId),
    /// Remove a spare that was promised to this pod, unless it is another pod's sandbox.
    DropSpare(ContainerId),
    /// Read the last lines that a container wrote.
    ReadLines(ContainerId),
    /// List all the pod's containers.
    List,
}

impl Action {
    /// What it is about.
    pub fn key(&self) -> Key {
        match self {
            Self::FindImage(name) | Self::Pull(name) => Key::Image(name.clone()),
            Self::CreateSandbox { .. } | Self::ClaimSandbox { .. } | Self::StartSandbox(_) => Key::Sandbox,
            Self::CreateApp { name, .. } | Self::StartApp { name, .. } => Key::App(name.clone()),
            Self::Inspect(id) | Self::Signal(id, _) | Self::Remove(id) | Self::DropSpare(id) | Self::ReadLines(id) => Key::Id(id.clone()),
            Self::List => Key::List,
        }
    }

    /// Whether it costs the engine much: making and starting containers.
    pub fn is_heavy(&self) -> bool {
        match self {
            Self::CreateSandbox { .. }
            | Self::ClaimSandbox { .. }
            | Self::StartSandbox(_)
            | Self::CreateApp { .. }
            | Self::StartApp { .. } => true,
            Self::FindImage(_)
            | Self::Pull(_)
            | Self::Inspect(_)
            | Self::Signal(..)
            | Self::Remove(_)
            | Self::DropSpare(_)
            | Self::ReadLines(_)
            | Self::List => false,
        }
    }
}

/// The event of an action that is being done now.
pub fn begun(pod: &AssignedPod, record: &PodRecord, view: &View, action: &Action) -> Option<Note> {
    match action {
        Action::Pull(name) => {
            let image = pod.spec.containers.iter().find(|container| container.name == *name).map(|container| &container.image)?;
            Some(Note::normal("Pulling", format!("pulling image {image}")))
        }
        // Said once, however often it takes.
        Action::Signal(id, StopSignal::Kill) if !view.is_killed(id) => {
            let name = view.containers.get(id)?.identity.container.as_ref()?;
            let slot = record.containers.get(name).map(|container| &container.slot);
            let grace = match (&record.stage, slot) {
                (Stage::Stopping { grace_seconds, .. }, _) | (Stage::Live, Some(Slot::Unhealthy { grace_seconds, .. })) => *grace_seconds,
                (Stage::Live | Stage::Restarting { .. } | Stage::Finished { .. } | Stage::Stopped { .. }, _) => {
                    pod.spec.termination_grace_period_seconds
                }
            };
            Some(Note::warning("Killing", format!("container '{name}' did not stop within {grace}s: killing it")))
        }
        Action::FindImage(_)
        | Action::CreateSandbox { .. }
        | Action::ClaimSandbox { .. }
        | Action::StartSandbox(_)
        | Action::CreateApp { .. }
        | Action::StartApp { .. }
        | Action::Inspect(_)
        | Action::Signal(..)
        | Action::Remove(_)
        | Action::DropSpare(_)
        | Action::ReadLines(_)
        | Action::List => None,
    }
}

/// How often the progress of a pull is looked at.
const PULL_LOOK: Duration = Duration::from_secs(2);

/// What to do next.
pub fn decide(input: Input<'_>) -> Decision {
    let mut step = Step::new(input);
    step.heed_spare();
    step.heed_want();
    match step.record.stage.clone() {
        // A container that isn't known of is not gone.
        _ if step.view.unlisted => {}
        Stage::Live => step.live(),
        Stage::Restarting { since, new_sandbox } => step.restarting(since, new_sandbox),
        Stage::Finished { since, .. } => step.finished(since),
        Stage::Stopping { since, grace_seconds, end } => step.stopping(since, grace_seconds, end),
        Stage::Stopped { end } => step.stopped(end),
    }
    step.look_again();
    step.finish()
}

/// A decision in the making.
struct Step<'a> {
    pod: &'a AssignedPod,
    view: &'a View,
    now: Timestamp,
    jitter: Jitter,
    record: PodRecord,
    notes: Vec<Note>,
    actions: Vec<Action>,
    wake: Option<Timestamp>,
}

impl<'a> Step<'a> {
    fn new(input: Input<'a>) -> Self {
        let Input { pod, record, view, now, jitter } = input;
        let mut record = record.clone();
        record.believe(now);
        Self { pod, view, now, jitter, record, notes: Vec::new(), actions: Vec::new(), wake: None }
    }

    /// While the engine is in trouble nothing is asked of it; the record and the events stand all the same.
    fn finish(mut self) -> Decision {
        if let Some(trouble) = &self.view.trouble
            && self.now < trouble.retry_at
        {
            self.actions.clear();
            self.wake = Some(trouble.retry_at);
        }
        Decision { record: self.record, notes: self.notes, actions: self.actions, wake: self.wake }
    }

    /// Asks for an action, unless one about the same thing is on its way.
    fn act(&mut self, action: Action) {
        let key = action.key();
        if !self.view.busy.contains(&key) && !self.actions.iter().any(|other| other.key() == key) {
            self.actions.push(action);
        }
    }

    fn wake_at(&mut self, at: Timestamp) {
        self.wake = Some(self.wake.map_or(at, |other| other.min(at)));
    }

    /// Lists again when asked to and nothing is being changed. After trouble nothing else is done before: a call that failed may have been done.
    fn look_again(&mut self) {
        if self.view.trouble.is_some() {
            self.actions.clear();
        }
        if self.view.look && !self.view.is_changing() && self.actions.is_empty() {
            self.act(Action::List);
        }
    }

    /// A promised spare that shows up under the pod's name is its sandbox.
    fn heed_spare(&mut self) {
        if self.record.sandbox.spare.as_ref().is_some_and(|id| self.view.containers.contains_key(id)) {
            self.record.sandbox.spare = None;
        }
    }

    fn heed_want(&mut self) {
        match &self.pod.want {
            Want::Stop { grace_seconds, reason } => self.heed_stop(*grace_seconds, reason),
            Want::Run { restarts } if *restarts > self.record.restarts_seen => {
                self.record.restarts_seen = *restarts;
                self.heed_restart();
            }
            Want::Run { .. } => {}
        }
    }

    fn heed_stop(&mut self, grace_seconds: u32, reason: &str) {
        let end = match &mut self.record.stage {
            Stage::Stopped { .. } => return,
            // A second, more impatient request.
            Stage::Stopping { grace_seconds: current, .. } => {
                *current = grace_seconds.min(*current);
                return;
            }
            Stage::Finished { end, .. } => Some(end.clone()),
            Stage::Live | Stage::Restarting { .. } => None,
        };
        self.notes.push(Note::normal("Stopping", format!("stopping its containers: {reason}")));
        self.record.stage = Stage::Stopping { since: self.now, grace_seconds, end };
    }

    fn heed_restart(&mut self) {
        if let Stage::Stopping { .. } | Stage::Stopped { .. } = self.record.stage {
            return;
        }
        for container in self.record.containers.values_mut() {
            container.crashes = Streak::default();
            container.images = Streak::default();
        }
        self.record.sandbox.streak = Streak::default();
        self.record.sandbox.lost = Streak::default();
        self.record.sandbox.problem = None;
        self.notes.push(Note::normal("Restarting", "restarting its containers: asked for by the user"));
        self.record.stage = Stage::Restarting { since: self.now, new_sandbox: false };
    }

    fn live(&mut self) {
        self.catch_up_attempts();
        if let Some(sandbox) = self.sandbox() {
            for container in &self.pod.spec.containers {
                self.container(container, &sandbox);
            }
        }
        // Images are looked for while the sandbox is being made.
        if let Stage::Live = self.record.stage {
            for container in &self.pod.spec.containers {
                self.image(container);
            }
            self.note_first_start();
            self.finish_when_done();
        }
        // Giving up decides anew, so that the rest is stopped at once.
        match self.record.stage.clone() {
            Stage::Live => self.prune(),
            Stage::Restarting { since, new_sandbox } => self.restarting(since, new_sandbox),
            Stage::Finished { since, .. } => self.finished(since),
            Stage::Stopping { .. } | Stage::Stopped { .. } => {}
        }
    }

    /// After the ledger was lost, what Docker shows counts: attempts never go back, so that no two containers of a name ever run.
    fn catch_up_attempts(&mut self) {
        for (name, container) in &mut self.record.containers {
            let newest = self.view.attempts(name).map(|seen| seen.identity.attempt).max();
            if newest > Some(container.attempt) {
                container.attempt = newest.unwrap_or_default();
                container.slot = Slot::Waiting(WaitCause::Turn);
            }
        }
        let sandboxes = self.view.containers.values().filter(|seen| seen.identity.container.is_none());
        let newest = sandboxes.map(|seen| seen.identity.attempt).max();
        if newest > Some(self.record.sandbox.attempt) {
            self.record.sandbox.attempt = newest.unwrap_or_default();
            self.record.sandbox.identity = None;
        }
    }

    fn note_first_start(&mut self) {
        let all = self.record.containers.values().all(|container| container.starts > 0);
        if all && self.record.started_at.is_none() {
            self.record.started_at = Some(self.now);
        }
    }

    fn finish_when_done(&mut self) {
        let mut worst = None;
        for container in &self.pod.spec.containers {
            let Some(Slot::Ended(end)) = self.record.containers.get(&container.name).map(|record| &record.slot) else { return };
            if end.is_failure() && worst.is_none() {
                worst = Some((container, end.clone()));
            }
        }
        let end = match worst {
            None => PodEnd { phase: Phase::Succeeded, reason: None, message: None },
            Some((container, end)) => PodEnd {
                phase: Phase::Failed,
                reason: Some(end.reason.as_str().to_owned()),
                message: Some(format!("container '{}' ended with exit code {} ({})", container.name, end.exit_code, end.reason.as_str())),
            },
        };
        self.record.stage = Stage::Finished { since: self.now, end };
    }

    /// The pod is given up: `what` is the sentence's beginning.
    fn give_up(&mut self, reason: &'static str, what: &str) {
        let message = format!("{what}; `cube restart pod/{}` tries again", self.pod.name);
        self.notes.push(Note::warning(reason, message.clone()));
        let end = PodEnd { phase: Phase::Failed, reason: Some(reason.to_owned()), message: Some(message) };
        self.record.stage = Stage::Finished { since: self.now, end };
    }

    fn limit(&self) -> u32 {
        self.pod.spec.restart.limit
    }

    fn spec_of(&self, name: &Name) -> Option<&'a Container> {
        self.pod.spec.containers.iter().find(|container| container.name == *name)
    }
}
