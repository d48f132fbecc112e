//! What the scripted engine holds, and what happens to it. Time comes in as tokio's and the ambient clock; nothing here waits.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use cube_api::meta::{Name, Uid};
use cube_api::pod::{Port, Protocol};
use tokio::time::Instant;

use super::{Call, Failure, Operation, Pull, Script};
use crate::ambient::Ambient;
use crate::follower::runtime::{ContainerId, Identity, LogLine, Observed, RunState, RuntimeError, Scope};

#[derive(Default)]
pub(super) struct World {
    pub(super) scripts: BTreeMap<String, Script>,
    pub(super) pulled: Vec<String>,
    pub(super) containers: BTreeMap<ContainerId, Container>,
    pub(super) made: u64,
    pub(super) starts: BTreeMap<(Uid, Option<Name>), u32>,
    pub(super) most_live: BTreeMap<(Uid, Option<Name>), usize>,
    pub(super) calls: Vec<Call>,
    pub(super) failures: VecDeque<(Operation, Failure)>,
    pub(super) down: bool,
    pub(super) latency: Duration,
    pub(super) live_execs: usize,
    /// Every end and removal, in order, for the hints.
    pub(super) ends: Vec<(Scope, Uid)>,
}

pub(super) struct Container {
    pub(super) scope: Scope,
    pub(super) published: Vec<Port>,
    pub(super) image: String,
    pub(super) observed: Observed,
    pub(super) log: Vec<LogLine>,
    /// When and how it ends by itself.
    pub(super) fate: Option<(Instant, i64, bool)>,
}

/// A pod's container, or its sandbox: over all attempts.
pub(super) type Key = (Uid, Option<Name>);

impl World {
    /// Ends what should have ended by now.
    pub(super) fn settle(&mut self, ambient: &Ambient) {
        let now = Instant::now();
        let due = |container: &Container| container.fate.filter(|(at, _, _)| *at <= now);
        let due: Vec<_> = self.containers.iter().filter_map(|(id, container)| Some((id.clone(), due(container)?))).collect();
        for (id, (_, code, oom)) in due {
            self.end(ambient, &id, code, oom);
        }
    }

    pub(super) fn end(&mut self, ambient: &Ambient, id: &ContainerId, code: i64, oom: bool) {
        let Some(container) = self.containers.get_mut(id) else { return };
        let (RunState::Running { since } | RunState::Paused { since }) = container.observed.state else { return };
        container.fate = None;
        container.observed.state = RunState::Exited { code, oom, error: None, started: Some(since), finished: Some(ambient.now()) };
        self.ends.push((container.scope.clone(), container.observed.identity.uid));
    }

    pub(super) fn remove(&mut self, id: &ContainerId) {
        if let Some(container) = self.containers.remove(id) {
            self.ends.push((container.scope, container.observed.identity.uid));
        }
    }

    pub(super) fn identity(&self, id: &ContainerId) -> Option<Identity> {
        Some(self.containers.get(id)?.observed.identity.clone())
    }

    pub(super) fn has_image(&self, image: &str) -> bool {
        match self.scripts.get(image).map(|script| &script.pull) {
            Some(Pull::Present) => true,
            Some(Pull::After(_)) => self.pulled.iter().any(|pulled| pulled == image),
            Some(Pull::Missing) | None => false,
        }
    }

    pub(super) fn create(&mut self, scope: &Scope, container: Container) -> ContainerId {
        let same = |other: &&Container| other.scope == *scope && other.observed.identity == container.observed.identity;
        if let Some(existing) = self.containers.values().find(same) {
            return existing.observed.id.clone();
        }
        self.made += 1;
        let id = ContainerId(format!("fake-{}", self.made));
        let observed = Observed { id: id.clone(), ..container.observed.clone() };
        self.containers.insert(id.clone(), Container { observed, ..container });
        id
    }

    pub(super) fn start(&mut self, ambient: &Ambient, id: &ContainerId) -> Result<(), RuntimeError> {
        let container = self.containers.get(id).ok_or(RuntimeError::Gone)?;
        if is_live(container) {
            return Ok(());
        }
        let (key, script) = (key(container), self.scripts.get(&container.image).cloned().unwrap_or_default());
        let earlier = self.starts.get(&key).copied().unwrap_or(0);
        let problem = self.obstacle(container).or(script.start_error);
        let now = ambient.now();
        let container = self.containers.get_mut(id).ok_or(RuntimeError::Gone)?;
        if let Some(problem) = problem {
            container.observed.state =
                RunState::Exited { code: 127, oom: false, error: Some(problem.clone()), started: None, finished: None };
            return Err(RuntimeError::Refused { operation: "start the container", problem });
        }
        container.observed.state = RunState::Running { since: now };
        container.log.extend(script.output.iter().map(|line| LogLine { at: Some(now), bytes: Bytes::from(format!("{line}\n")) }));
        let fate = |code| script.run_for.map(|length| (Instant::now() + length, code, script.oom));
        let code = if script.oom { 137 } else { script.exit_code };
        container.fate = if earlier < script.fail_first { Some((Instant::now(), 1, false)) } else { fate(code) };
        self.starts.insert(key.clone(), earlier + 1);
        let live = self.containers.values().filter(|other| is_live(other) && self::key(other) == key).count();
        let most = self.most_live.entry(key).or_default();
        *most = live.max(*most);
        Ok(())
    }

    /// Why a container can't start for what others do.
    fn obstacle(&self, container: &Container) -> Option<String> {
        let sandbox = container.observed.sandbox.as_ref();
        if sandbox.is_some_and(|sandbox| !self.containers.get(sandbox).is_some_and(is_live)) {
            return Some("cannot join network of a non running container".to_owned());
        }
        let taken = |port: &&Port| {
            let mut others = self.containers.values().filter(|other| is_live(other)).flat_map(|other| &other.published);
            others.any(|other| collide(other, port))
        };
        let port = container.published.iter().find(taken)?.host_port?;
        Some(format!("Bind for 0.0.0.0:{port} failed: port is already allocated"))
    }
}

pub(super) fn is_live(container: &Container) -> bool {
    match container.observed.state {
        RunState::Running { .. } | RunState::Paused { .. } => true,
        RunState::Created | RunState::Exited { .. } | RunState::Removing => false,
    }
}

fn key(container: &Container) -> Key {
    (container.observed.identity.uid, container.observed.identity.container.clone())
}

fn collide(one: &Port, other: &Port) -> bool {
    let key = |port: &Port| (port.host_port, port.protocol == Protocol::Tcp);
    let same_address = one.host_ip.is_none() || other.host_ip.is_none() || one.host_ip == other.host_ip;
    one.host_port.is_some() && key(one) == key(other) && same_address
}
