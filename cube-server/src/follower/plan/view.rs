//! What a pod's task knows that is not durable: what Docker showed, what is on its way.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use cube_api::meta::Name;
use cube_api::pod::PodSpec;
use cube_api::sources::Sources;
use jiff::{SignedDuration, Timestamp};

use super::probes::Health;
use crate::follower::record::{PodRecord, Slot};
use crate::follower::runtime::{ContainerId, Observed, PullProgress, RunState, StopSignal};

/// What is known of a pod's containers.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct View {
    /// Every container of the pod; in boxes, as a map has room for eleven where there are two.
    pub containers: BTreeMap<ContainerId, Box<Observed>>,
    /// Containers whose start was acknowledged, or can't come any more, and that were not inspected since.
    pub started: BTreeSet<ContainerId>,
    /// Containers whose start was asked for, by this life or the one before, and not answered: the engine may still carry it out. Once it can't
    /// any more, they are in `started`.
    pub unanswered: BTreeSet<ContainerId>,
    /// The image's content id, for containers whose next attempt may be created.
    pub images: BTreeMap<Name, String>,
    /// Images that the node doesn't have: to be pulled.
    pub absent: BTreeSet<Name>,
    /// Pulls on their way.
    pub pulls: BTreeMap<Name, PullProgress>,
    /// The newest signal that each container got in this life of the process.
    pub signalled: BTreeMap<ContainerId, Signalled>,
    /// The last lines of containers that failed; none where they could not be read.
    pub lines: BTreeMap<ContainerId, Option<String>>,
    /// What the probes of running containers have said; in boxes, as most pods have none.
    pub health: BTreeMap<Name, Box<Health>>,
    /// Hooks after a start that failed.
    pub failed_hooks: BTreeMap<ContainerId, FailedHook>,
    /// Containers whose hook before the stop is over, however it ended.
    pub pre_stopped: BTreeSet<ContainerId>,
    /// A spare sandbox that is held for this pod, which isn't promised to it yet.
    pub spare: Option<ContainerId>,
    /// The engine refused to make a spare the pod's: it makes one of its own.
    pub spare_refused: bool,
    /// The sandbox for which this life has seen to the host ports that the node chooses.
    pub ports_for: Option<u32>,
    /// With which values the pod's volumes were made for the next container; none where they are to be made or looked after again.
    pub prepared: Option<Option<Arc<Sources>>>,
    /// The pod's own volumes are known to be gone.
    pub volumes_gone: bool,
    /// What is being done.
    pub busy: BTreeSet<Key>,
    /// The containers are to be listed again.
    pub look: bool,
    /// They were never listed in this life of the process: that none is known says nothing.
    pub unlisted: bool,
    /// The engine's trouble, while it lasts.
    pub trouble: Option<Trouble>,
}

/// A signal that the engine passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signalled {
    /// Which.
    pub signal: StopSignal,
    /// When the engine said so.
    pub at: Timestamp,
}

/// A hook that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedHook {
    /// The run of the container, by Docker's time of its start.
    pub since: Timestamp,
    /// What it came to.
    pub problem: String,
}

/// Why nothing is asked of the engine just now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// Calls that failed in a row.
    pub failures: u32,
    /// When the next is due.
    pub retry_at: Timestamp,
}

/// What an action is about: at most one at a time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// Looking for or pulling a container's image.
    Image(Name),
    /// Creating or starting the sandbox.
    Sandbox,
    /// Making or removing the pod's volumes.
    Volumes,
    /// Creating or starting an app container.
    App(Name),
    /// Inspecting, signalling or removing a container, or reading what it left.
    Id(ContainerId),
    /// Running a container's hook after its start.
    PostStart(ContainerId),
    /// Running a container's hook before its stop.
    PreStop(ContainerId),
    /// Listing the pod's containers.
    List,
}

impl View {
    /// The view of a pod of which these containers were listed.
    pub fn of(listed: Vec<Observed>) -> Self {
        let mut view = Self::default();
        view.replace(listed);
        view
    }

    /// The view of a pod whose containers could not all be listed: it is listed before anything is decided.
    pub fn unlisted() -> Self {
        Self { look: true, unlisted: true, ..Self::default() }
    }

    /// Takes a new list.
    pub fn replace(&mut self, listed: Vec<Observed>) {
        self.unlisted = false;
        self.containers = listed.into_iter().map(|container| (container.id.clone(), Box::new(container))).collect();
        let known = &self.containers;
        self.started.retain(|id| known.contains_key(id));
        self.unanswered.retain(|id| known.contains_key(id));
        self.signalled.retain(|id, _| known.contains_key(id));
        self.lines.retain(|id, _| known.contains_key(id));
        self.failed_hooks.retain(|id, _| known.contains_key(id));
        self.pre_stopped.retain(|id| known.contains_key(id));
    }

    /// The calls that were not answered can't be under way any more: what they came to is to be looked at.
    pub fn give_up_answers(&mut self) {
        self.started.append(&mut self.unanswered);
    }

    /// Forgets a container that is gone.
    pub fn remove(&mut self, id: &ContainerId) {
        self.containers.remove(id);
        self.started.remove(id);
        self.unanswered.remove(id);
        self.signalled.remove(id);
        self.lines.remove(id);
        self.failed_hooks.remove(id);
        self.pre_stopped.remove(id);
    }

    /// The node's clock was set: what waits goes on waiting for as long as it would have.
    pub fn clock_was_set(&mut self, by: SignedDuration) {
        let signals = self.signalled.values_mut().map(|signalled| &mut signalled.at);
        let retry = self.trouble.as_mut().map(|trouble| &mut trouble.retry_at);
        let ready = self.health.values_mut().filter_map(|health| health.ready_since.as_mut());
        signals.chain(retry).chain(ready).for_each(|time| *time = time.checked_add(by).unwrap_or(*time));
    }

    /// Every container of the pod, the sandbox too.
    pub fn all(&self) -> impl Iterator<Item = &Observed> {
        self.containers.values().map(|seen| &**seen)
    }

    /// Where this node reaches a pod's programs: at the pod's address, or, where they have the machine's network, at the machine itself.
    pub fn reached_at(&self, spec: &PodSpec, record: &PodRecord) -> Option<IpAddr> {
        if spec.host_network {
            return Some(IpAddr::V4(Ipv4Addr::LOCALHOST));
        }
        self.sandbox(record.sandbox.attempt)?.ip
    }

    /// The sandbox of an attempt.
    pub fn sandbox(&self, attempt: u32) -> Option<&Observed> {
        self.all().find(|seen| seen.identity.container.is_none() && seen.identity.attempt == attempt)
    }

    /// Whether the pod may publish ports: it has a sandbox, or that isn't known.
    pub fn may_publish(&self) -> bool {
        self.unlisted || self.is_making() || self.all().any(|seen| seen.identity.container.is_none())
    }

    /// An app container of an attempt.
    pub fn app<'a>(&'a self, name: &'a Name, attempt: u32) -> Option<&'a Observed> {
        self.attempts(name).find(|c| c.identity.attempt == attempt)
    }

    /// Every attempt of an app container, in no order.
    pub fn attempts<'a>(&'a self, name: &'a Name) -> impl Iterator<Item = &'a Observed> {
        self.all().filter(move |seen| seen.identity.container.as_ref() == Some(name))
    }

    /// Whether an attempt before this one runs, or may: a start of it that was not answered comes even now. Docker starts none that it is removing.
    pub fn may_run_before(&self, name: &Name, attempt: u32) -> bool {
        self.attempts(name).filter(|seen| seen.identity.attempt < attempt).any(|seen| match seen.state {
            RunState::Created | RunState::Running { .. } | RunState::Paused { .. } => true,
            RunState::Exited { .. } | RunState::Removing => false,
        })
    }

    /// The containers that the life before was about to start and that Docker shows as never started.
    pub fn asked_for_before(&self, record: &PodRecord) -> BTreeSet<ContainerId> {
        let starting = record.containers.iter().filter(|(_, container)| container.slot == Slot::Starting);
        let seen = starting.filter_map(|(name, container)| self.app(name, container.attempt));
        seen.filter(|seen| seen.state == RunState::Created).map(|seen| seen.id.clone()).collect()
    }

    /// The app containers whose processes run.
    pub fn live_apps(&self) -> impl Iterator<Item = &Observed> {
        self.all().filter(|seen| seen.identity.container.is_some() && is_live(&seen.state))
    }

    /// Whether the engine has passed on a SIGKILL to it.
    pub fn is_killed(&self, id: &ContainerId) -> bool {
        self.signalled.get(id).is_some_and(|signalled| signalled.signal == StopSignal::Kill)
    }

    /// Whether a call that makes or starts a container, or what it needs, is on its way.
    pub fn is_making(&self) -> bool {
        self.busy.iter().any(|key| match key {
            Key::Sandbox | Key::App(_) | Key::Volumes => true,
            Key::Image(_) | Key::Id(_) | Key::PostStart(_) | Key::PreStop(_) | Key::List => false,
        })
    }

    /// Whether nothing is on its way, or to be looked at, that could show another container.
    pub fn is_settled(&self) -> bool {
        !self.look && self.trouble.is_none() && !self.is_changing() && !self.busy.contains(&Key::List)
    }

    /// Whether a call that changes containers may be on its way: a list made meanwhile is not to be trusted.
    pub fn is_changing(&self) -> bool {
        self.busy.iter().any(|key| match key {
            Key::Sandbox | Key::App(_) | Key::Id(_) => true,
            Key::Image(_) | Key::Volumes | Key::PostStart(_) | Key::PreStop(_) | Key::List => false,
        })
    }
}

/// Whether a process runs (or is frozen).
fn is_live(state: &RunState) -> bool {
    match state {
        RunState::Running { .. } | RunState::Paused { .. } => true,
        RunState::Created | RunState::Exited { .. } | RunState::Removing => false,
    }
}
