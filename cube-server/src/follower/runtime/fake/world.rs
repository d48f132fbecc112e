//! What the scripted engine holds, and what happens to it: a state machine over a queue of events in time order. Time comes in as an argument;
//! nothing here waits, and nobody has to look at it for time to go by.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use cube_api::meta::{Name, Uid};
use cube_api::pod::{Port, Protocol};
use jiff::Timestamp;
use tokio::sync::Notify;
use uuid::Uuid;

use super::desk::Desk;
use super::image_id;
use super::log::Log;
use super::look::Tally;
use super::script::{Pull, Script};
use crate::follower::runtime::{ContainerId, Identity, Observed, RunState, RuntimeError, Scope, spare_name};

/// As Docker: a hint that nobody fetched in time is lost.
const KEPT_HINTS: usize = 256;

/// `docker stop` by hand kills after so long.
const HAND_GRACE: Duration = Duration::from_secs(10);

/// A point in time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    /// By the engine's own clock, since the engine began.
    pub(super) elapsed: Duration,
    /// The time of day on its machine.
    pub(super) wall: Timestamp,
}

/// A call's part in the engine, once its time has come.
pub(super) type Carry = Box<dyn FnOnce(&mut World, Moment) + Send>;

/// What will happen.
enum Event {
    /// A call is carried out.
    Call(Carry),
    /// A process ends, if that run of its container still goes on.
    End { id: ContainerId, run: u32, code: i64, oom: bool },
}

/// A pod's container, or its sandbox: over all attempts.
pub(super) type Key = (Uid, Option<Name>);

/// Who did something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    Call,
    Hand,
}

#[derive(Default)]
pub(super) struct World {
    pub(super) desk: Desk,
    pub(super) scripts: BTreeMap<String, Script>,
    pub(super) pulled: BTreeSet<String>,
    /// Images that the node had and that somebody removed.
    pub(super) removed: BTreeSet<String>,
    pub(super) containers: BTreeMap<ContainerId, Container>,
    pub(super) tallies: BTreeMap<Key, Tally>,
    pub(super) live_execs: usize,
    pub(super) down: bool,
    /// How often it went down: what was open before is broken.
    pub(super) outages: u64,
    pub(super) changed_at: Duration,
    /// Told of every change, and of everything that is to happen.
    pub(super) news: Arc<Notify>,
    made: u64,
    events: BTreeMap<(Duration, u64), Event>,
    scheduled: u64,
    hints: VecDeque<(Scope, Uid)>,
    hints_lost: u64,
}

pub(super) struct Container {
    pub(super) name: String,
    /// Whose, by its labels; none has no labels of ours.
    pub(super) scope: Option<Scope>,
    /// Nobody's business but the test's.
    pub(super) foreign: bool,
    /// No pod's yet: `observed` says nothing of whose it is before one takes it.
    pub(super) spare: bool,
    pub(super) published: Vec<Port>,
    pub(super) image: String,
    pub(super) observed: Observed,
    pub(super) log: Log,
    /// How often it was started.
    pub(super) runs: u32,
    /// Which run of its sandbox it joined.
    pub(super) joined: Option<u32>,
    /// Which run of it a call has asked to end.
    stopped: Option<u32>,
    /// Its process would have ended while it was frozen: so it ends when it goes on.
    overdue: Option<(i64, bool)>,
}

impl Container {
    pub(super) fn new(scope: Option<Scope>, identity: &Identity, image: &str, image_id: String) -> Self {
        let id = ContainerId(String::new());
        let state = RunState::Created;
        let observed = Observed { id, identity: identity.clone(), sandbox: None, image_id, tty: false, ip: None, state };
        let (name, image) = (identity.container_name(), image.to_owned());
        let (published, log) = (Vec::new(), Log::default());
        let (foreign, spare, joined, stopped, overdue) = (false, false, None, None, None);
        Self { name, scope, foreign, spare, published, image, observed, log, runs: 0, joined, stopped, overdue }
    }

    /// A spare sandbox.
    pub(super) fn spare(scope: Scope, number: Uuid) -> Self {
        let nobody = Identity { uid: Uid::NONE, pod: Name::new("spare").expect("a label"), container: None, attempt: 0 };
        let container = Self::new(Some(scope), &nobody, "pause", image_id("pause"));
        Self { name: spare_name(number), spare: true, ..container }
    }

    pub(super) fn is_live(&self) -> bool {
        match self.observed.state {
            RunState::Running { .. } | RunState::Paused { .. } => true,
            RunState::Created | RunState::Exited { .. } | RunState::Removing => false,
        }
    }
}

// Time.
impl World {
    pub(super) fn new(news: Arc<Notify>) -> Self {
        Self { news, ..Self::default() }
    }

    /// Lets everything happen that is due by `now`, in order, each at its own time.
    pub(super) fn settle(&mut self, now: Moment) {
        while let Some(next) = self.events.first_entry().filter(|next| next.key().0 <= now.elapsed) {
            let ((elapsed, _), event) = next.remove_entry();
            let at = Moment { elapsed, wall: now.wall - (now.elapsed - elapsed) };
            match event {
                Event::Call(carry) => carry(self, at),
                Event::End { id, run, code, oom } => self.due_end(&id, run, (code, oom), at),
            }
        }
    }

    /// When something happens next.
    pub(super) fn next_event(&self) -> Option<Duration> {
        self.events.first_key_value().map(|((at, _), _)| *at)
    }

    pub(super) fn carry_at(&mut self, at: Duration, carry: Carry) {
        self.schedule(at, Event::Call(carry));
    }

    fn schedule(&mut self, at: Duration, event: Event) {
        self.scheduled += 1;
        self.events.insert((at, self.scheduled), event);
        self.news.notify_waiters();
    }

    fn changed(&mut self, at: Moment) {
        self.changed_at = self.changed_at.max(at.elapsed);
        self.news.notify_waiters();
    }

    /// The engine is gone, and with it every call that it had not carried out.
    pub(super) fn go_down(&mut self, at: Moment) {
        self.down = true;
        self.outages += 1;
        self.desk.held.clear();
        self.events.retain(|_, event| match event {
            Event::Call(_) => false,
            Event::End { .. } => true,
        });
        self.changed(at);
    }
}

// What is done to containers.
impl World {
    pub(super) fn create(&mut self, container: Container, at: Moment) -> Result<ContainerId, RuntimeError> {
        if let Some(holder) = self.containers.values().find(|other| other.name == container.name) {
            let same = holder.scope == container.scope && holder.observed.identity == container.observed.identity && !holder.foreign;
            let problem = format!("a container named '{}' exists that is not this node's: remove or rename it", holder.name);
            let refused = RuntimeError::Refused { operation: "create the container", problem };
            return if same { Ok(holder.observed.id.clone()) } else { Err(refused) };
        }
        self.made += 1;
        let id = ContainerId(format!("fake-{}", self.made));
        let observed = Observed { id: id.clone(), ..container.observed.clone() };
        self.containers.insert(id.clone(), Container { observed, ..container });
        self.changed(at);
        Ok(id)
    }

    /// A pod takes a spare: Docker's rename, which its caller looks before and after.
    pub(super) fn claim(&mut self, scope: &Scope, id: &ContainerId, identity: &Identity, at: Moment) -> Result<Observed, RuntimeError> {
        let name = identity.container_name();
        let is_taken = self.containers.values().any(|other| other.name == name && other.observed.id != *id);
        let container = self.containers.get_mut(id).filter(|found| found.scope.as_ref() == Some(scope)).ok_or(RuntimeError::Gone)?;
        match (container.spare, &container.observed.state) {
            (false, _) if container.observed.identity == *identity => return Ok(container.observed.clone()),
            (true, RunState::Running { .. }) => {}
            (true | false, _) => return Err(RuntimeError::Gone),
        }
        if is_taken {
            let problem = format!("the name '{name}' is in use by another container");
            return Err(RuntimeError::Refused { operation: "give a spare sandbox its pod's name", problem });
        }
        (container.spare, container.name) = (false, name);
        container.observed.identity = identity.clone();
        let observed = container.observed.clone();
        // It runs from now on as far as its pod is concerned.
        self.tally(id).map(|tally| tally.started(By::Call));
        self.changed(at);
        Ok(observed)
    }

    pub(super) fn start(&mut self, id: &ContainerId, by: By, at: Moment) -> Result<(), RuntimeError> {
        let container = self.containers.get(id).ok_or(RuntimeError::Gone)?;
        if container.is_live() {
            return Ok(());
        }
        let script = self.scripts.get(&container.image).cloned().unwrap_or_default();
        let obstacle = self.obstacle(container);
        let joined = container.observed.sandbox.as_ref().and_then(|sandbox| self.containers.get(sandbox)).map(|sandbox| sandbox.runs);
        let container = self.containers.get_mut(id).ok_or(RuntimeError::Gone)?;
        // Docker's codes: 128 for what is around the process, 127 for a program that isn't there.
        let problem = obstacle.map(|problem| (128, problem)).or_else(|| script.start_error.clone().map(|problem| (127, problem)));
        if let Some((code, problem)) = problem {
            let error = Some(problem.clone());
            container.observed.state = RunState::Exited { code, oom: false, error, started: None, finished: None };
            self.changed(at);
            return Err(RuntimeError::Refused { operation: "start the container", problem });
        }
        container.observed.state = RunState::Running { since: at.wall };
        container.runs += 1;
        // As on Docker, a sandbox has an address while it runs. Nothing is reached by it: there is no network here.
        let is_sandbox = container.observed.identity.container.is_none();
        container.observed.ip = is_sandbox.then(|| address_of(id));
        (container.joined, container.overdue) = (joined, None);
        container.log.begin(&script, at);
        let run = container.runs;
        let earlier = self.tally(id).map_or(0, |tally| tally.started(by));
        let fate = if earlier < script.fail_first {
            Some((Duration::ZERO, 1, false))
        } else {
            script.run_for.map(|length| (length, if script.oom { 137 } else { script.exit_code }, script.oom))
        };
        if let Some((length, code, oom)) = fate {
            self.schedule(at.elapsed + length, Event::End { id: id.clone(), run, code, oom });
        }
        self.changed(at);
        Ok(())
    }

    /// Why a container can't start for what others do.
    fn obstacle(&self, container: &Container) -> Option<String> {
        let sandbox = container.observed.sandbox.as_ref();
        if sandbox.is_some_and(|sandbox| !self.containers.get(sandbox).is_some_and(Container::is_live)) {
            return Some("cannot join network of a non running container".to_owned());
        }
        let taken = |port: &&Port| {
            let mut others = self.containers.values().filter(|other| other.is_live()).flat_map(|other| &other.published);
            others.any(|other| collide(other, port))
        };
        let port = container.published.iter().find(taken)?;
        let address = port.host_ip.map_or_else(|| "0.0.0.0".to_owned(), |ip| ip.to_string());
        Some(format!("Bind for {address}:{} failed: port is already allocated", port.host_port?))
    }

    pub(super) fn end(&mut self, id: &ContainerId, code: i64, oom: bool, at: Moment) {
        let Some(container) = self.containers.get_mut(id) else { return };
        let (RunState::Running { since } | RunState::Paused { since }) = container.observed.state else { return };
        let finished = Some(at.wall.max(since));
        container.observed.state = RunState::Exited { code, oom, error: None, started: Some(since), finished };
        (container.overdue, container.observed.ip) = (None, None);
        container.log.end(at.elapsed);
        self.tally(id).map(Tally::ended);
        self.hint(id);
        self.changed(at);
    }

    /// Whether a container is well, by its image's script.
    pub(super) fn is_well(&self, id: &ContainerId, at: Moment) -> bool {
        let Some(container) = self.containers.get(id) else { return false };
        let RunState::Running { since } = container.observed.state else { return false };
        let age = Duration::try_from(at.wall.duration_since(since)).unwrap_or_default();
        let health = self.scripts.get(&container.image).map(|script| script.health).unwrap_or_default();
        age >= health.from && health.until.is_none_or(|until| age < until)
    }

    /// A process's time is up, unless it is another run's or it is frozen.
    fn due_end(&mut self, id: &ContainerId, run: u32, (code, oom): (i64, bool), at: Moment) {
        let Some(container) = self.containers.get_mut(id).filter(|container| container.runs == run) else { return };
        match container.observed.state {
            RunState::Paused { .. } => container.overdue = Some((code, oom)),
            RunState::Running { .. } => self.end(id, code, oom, at),
            RunState::Created | RunState::Exited { .. } | RunState::Removing => {}
        }
    }

    /// A call asks for the end of what runs: counted once for each process, also one that heeds SIGKILL only.
    pub(super) fn note_stop(&mut self, id: &ContainerId) {
        let Some(container) = self.containers.get_mut(id) else { return };
        if container.is_live() && container.stopped != Some(container.runs) {
            container.stopped = Some(container.runs);
            self.tally(id).into_iter().for_each(|tally| tally.stopped += 1);
        }
    }

    /// SIGTERM (or the image's own signal); whether the process heeds it.
    pub(super) fn terminate(&mut self, id: &ContainerId, at: Moment) -> bool {
        self.resume(id, at);
        let Some(container) = self.containers.get(id) else { return true };
        let deaf = self.scripts.get(&container.image).is_some_and(|script| script.ignores_stop);
        if !deaf {
            self.end(id, 143, false, at);
        }
        !deaf
    }

    pub(super) fn kill(&mut self, id: &ContainerId, at: Moment) {
        self.end(id, 137, false, at);
    }

    /// SIGTERM, and SIGKILL ten seconds later: what `docker stop` does.
    pub(super) fn stop_by_hand(&mut self, id: &ContainerId, at: Moment) {
        if !self.terminate(id, at)
            && let Some(container) = self.containers.get(id)
        {
            let run = container.runs;
            self.schedule(at.elapsed + HAND_GRACE, Event::End { id: id.clone(), run, code: 137, oom: false });
        }
    }

    pub(super) fn pause(&mut self, id: &ContainerId, at: Moment) {
        let Some(container) = self.containers.get_mut(id) else { return };
        if let RunState::Running { since } = container.observed.state {
            container.observed.state = RunState::Paused { since };
            self.hint(id);
            self.changed(at);
        }
    }

    pub(super) fn resume(&mut self, id: &ContainerId, at: Moment) {
        let Some(container) = self.containers.get_mut(id) else { return };
        let RunState::Paused { since } = container.observed.state else { return };
        container.observed.state = RunState::Running { since };
        let overdue = container.overdue.take();
        self.hint(id);
        self.changed(at);
        if let Some((code, oom)) = overdue {
            self.end(id, code, oom, at);
        }
    }

    pub(super) fn remove(&mut self, id: &ContainerId, at: Moment) {
        let Some(container) = self.containers.get(id) else { return };
        if container.is_live() {
            self.tally(id).map(Tally::ended);
        }
        self.hint(id);
        self.containers.remove(id);
        self.changed(at);
    }

    /// None for a foreign container, which must not be counted as the one whose name it has, and for a spare, which is nobody's.
    fn tally(&mut self, id: &ContainerId) -> Option<&mut Tally> {
        let container = self.containers.get(id).filter(|container| !container.foreign && !container.spare)?;
        let identity = &container.observed.identity;
        Some(self.tallies.entry((identity.uid, identity.container.clone())).or_default())
    }

    pub(super) fn has_image(&self, image: &str) -> bool {
        match self.scripts.get(image).map(|script| &script.pull) {
            Some(Pull::Present) => !self.removed.contains(image),
            Some(Pull::After(_)) => self.pulled.contains(image),
            Some(Pull::Missing) | None => false,
        }
    }
}

// Hints.
impl World {
    fn hint(&mut self, id: &ContainerId) {
        let Some(Container { scope: Some(scope), observed, spare: false, .. }) = self.containers.get(id) else { return };
        self.hints.push_back((scope.clone(), observed.identity.uid));
        if self.hints.len() > KEPT_HINTS {
            self.hints.pop_front();
            self.hints_lost += 1;
        }
    }

    /// How many hints there ever were.
    pub(super) fn hinted(&self) -> u64 {
        self.hints_lost + self.hints.len() as u64
    }

    /// The first hint for a scope from that place on, and the place after it.
    pub(super) fn hint_from(&self, scope: &Scope, from: u64) -> Option<(Uid, u64)> {
        let skip = usize::try_from(from.saturating_sub(self.hints_lost)).unwrap_or(usize::MAX);
        let found = self.hints.iter().enumerate().skip(skip).find(|(_, (of, _))| of == scope);
        found.map(|(place, (_, uid))| (*uid, self.hints_lost + place as u64 + 1))
    }
}

fn collide(one: &Port, other: &Port) -> bool {
    let key = |port: &Port| (port.host_port, port.protocol == Protocol::Tcp);
    let same_address = one.host_ip.is_none() || other.host_ip.is_none() || one.host_ip == other.host_ip;
    one.host_port.is_some() && key(one) == key(other) && same_address
}

/// An address for each sandbox: the ids are counted.
fn address_of(id: &ContainerId) -> IpAddr {
    let digits = id.0.bytes().filter(u8::is_ascii_digit);
    let number = digits.fold(0_u32, |number, digit| number.wrapping_mul(10).wrapping_add(u32::from(digit - b'0')));
    IpAddr::V4(Ipv4Addr::from_bits(0x0A00_0000 | (number & 0x00FF_FFFF)))
}
