//! What must hold at every moment. Each check has the id of the promise that it is about.
//!
//! The leader's store is read as a watcher does, every change in order, over all lives of the leader: what one life has published, the next must
//! have. The engines are looked at from outside.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use cube_api::Object;
use cube_api::job::JobStatus;
use cube_api::meta::{Metadata, Name, Revision, Uid};
use cube_api::node::{Cordon, Node};
use cube_api::pod::{DRAINED, EndReason, NODE_LOST, OnNodeLoss, Phase, RestartPolicy};
use cube_server::follower::runtime::fake::{Fake, Tally};
use cube_server::leader::Leader;
use cube_server::leader::store::{Change, Changed, Changes, PodRow, Reserved, State};
use futures::FutureExt;

use crate::images::PROBED;
use crate::machine::LOST_AFTER;
use crate::owners;
use crate::workload::Belief;
use crate::world::World;

/// What the nodes leave of their machines (4 cores, 8 GiB, a disk of 100) for pods: what these reserve must fit into it.
const CPU: u64 = 3_500;
const MEMORY: u64 = 6 << 30;
const DISK: u64 = 90 << 30;

/// Between two looks: a life of the leader is seen so late.
const LOOKS: Duration = Duration::from_millis(100);

/// The most starts of a container in ten seconds: the first restarts come after 0, 1, 2 and 4 s, and a restart that is asked for begins anew.
const MOST_STARTS: u32 = 14;
const STARTS_IN: Duration = Duration::from_secs(10);

/// A promise that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// As in the project's list of promises.
    pub promise: &'static str,
    /// What was seen.
    pub seen: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.promise, self.seen)
    }
}

pub fn violation(promise: &'static str, seen: impl Into<String>) -> Violation {
    Violation { promise, seen: seen.into() }
}

pub fn ensure(holds: bool, promise: &'static str, seen: impl FnOnce() -> String) -> Result<(), Violation> {
    if holds { Ok(()) } else { Err(violation(promise, seen())) }
}

/// A pod's container, or its sandbox.
type Key = (Uid, Option<Name>);

/// What was seen so far.
#[derive(Default)]
pub struct Checks {
    leader: Option<(Arc<Leader>, Option<Changes>)>,
    /// When this life of the leader was first seen.
    met_at: Duration,
    revision: Revision,
    epoch: u64,
    rows: BTreeMap<Uid, Arc<PodRow>>,
    /// Of every life of a pod that ever was: its policy, and how often a restart was asked for.
    lives: BTreeMap<Uid, (RestartPolicy, u64)>,
    /// Those that were on a node when it was lost and don't wait for it, or were drained from one: others may take their place.
    lost: BTreeSet<Uid>,
    /// Deployments and jobs.
    owners: BTreeMap<Uid, Arc<Object>>,
    /// The nodes that take no pods.
    cordons: BTreeMap<Name, Cordon>,
    /// Where a pod's containers were first seen.
    homes: BTreeMap<Uid, String>,
    engines: BTreeMap<String, Engine>,
}

#[derive(Default)]
struct Engine {
    looked_at: Duration,
    /// Starts of each container when the window began, and when that was.
    window: (Duration, BTreeMap<Key, u32>),
}

impl Checks {
    /// Looks at everything that can be seen now.
    pub fn look(&mut self, world: &World) -> Result<(), Violation> {
        for machine in &world.machines {
            ensure(!machine.has_panicked(), "panic", || format!("a task of {} panicked", machine.name))?;
            if let Some(problem) = machine.failed() {
                return Err(violation("start", format!("{} can't start: {problem}", machine.name)));
            }
        }
        if let Some(complaint) = world.mirror.complaints().into_iter().next() {
            return Err(violation("I2", complaint));
        }
        if let Some(complaint) = world.expected.complaints().into_iter().next() {
            return Err(violation("client", complaint));
        }
        self.look_at_store(world)?;
        let mut changed = false;
        for (machine, engine) in world.engines() {
            changed |= self.look_at_engine(&machine.name, engine, world.clock.now())?;
        }
        if changed { self.check_homes(world) } else { Ok(()) }
    }

    /// A pod's containers run on one node, unless that was lost; those of one that waits for its node, always.
    fn check_homes(&self, world: &World) -> Result<(), Violation> {
        let mut homes: BTreeMap<Name, (&str, Uid)> = BTreeMap::new();
        for (machine, engine) in world.engines() {
            let residents = engine.residents();
            for identity in residents
                .iter()
                .filter(|resident| resident.live && !resident.foreign && !resident.spare)
                .map(|resident| &resident.observed.identity)
            {
                // Of one that may be anywhere.
                if self.lost.contains(&identity.uid) {
                    continue;
                }
                let (home, other) = *homes.entry(identity.pod.clone()).or_insert((&machine.name, identity.uid));
                let seen =
                    || format!("pod {} runs on {home} ({}) and on {} ({})", identity.pod, short(other), machine.name, short(identity.uid));
                ensure(home == machine.name, "I7", seen)?;
            }
        }
        Ok(())
    }

    /// Takes what the leader has published; to be called before it is killed, too.
    pub fn look_at_store(&mut self, world: &World) -> Result<(), Violation> {
        let Some(leader) = world.machines[0].leader() else { return Ok(()) };
        let is_known = self.leader.as_ref().is_some_and(|(known, _)| Arc::ptr_eq(known, &leader));
        if !is_known {
            self.meet(leader.clone())?;
            self.met_at = world.clock.now();
        }
        while let Some(change) = self.next_change() {
            self.take(world, change)?;
        }
        leader.store.read(|state| {
            self.revision = self.revision.max(state.revision);
            self.check_state(world, state)
        })
    }

    /// A new life of the leader: it goes on from what the one before has published.
    fn meet(&mut self, leader: Arc<Leader>) -> Result<(), Violation> {
        let epoch = leader.store.epoch().0;
        ensure(epoch > self.epoch, "I15", || format!("a leader of epoch {epoch} came after one of {}", self.epoch))?;
        self.epoch = epoch;
        let lost = |error: cube_api::ApiError| violation("I1", format!("after the leader's restart: {error}"));
        let changes = leader.store.watch(self.revision).map_err(lost)?;
        self.leader = Some((leader, Some(changes)));
        Ok(())
    }

    fn next_change(&mut self) -> Option<Change> {
        let (_, changes) = self.leader.as_mut()?;
        match changes.as_mut()?.next().now_or_never() {
            Some(Some(change)) => Some(change),
            // The store closes: the next life is looked at anew.
            Some(None) => {
                *changes = None;
                None
            }
            None => None,
        }
    }

    fn take(&mut self, world: &World, change: Change) -> Result<(), Violation> {
        let Change { revision, object } = change;
        ensure(revision > self.revision, "I2", || format!("revision {revision} was given after {}", self.revision))?;
        self.revision = revision;
        match object {
            Changed::Node { before, after } => {
                self.note_cordon(world, before.as_deref(), after.as_deref());
                if let Some(node) = &after
                    && before.is_none_or(|before| before.condition != node.condition)
                {
                    world.trace.note("leader", format_args!("r{revision} node {}: {:?}", node.name, node.condition));
                    if node.condition.is_lost() {
                        let after = world.clock.now() - self.met_at;
                        ensure(after + LOOKS >= 2 * LOST_AFTER, "I7", || {
                            format!("node {} was lost {after:?} after the leader's start: it heard nobody before", node.name)
                        })?;
                        let there = self.rows.values().filter(|row| row.pod.placement.node.as_ref() == Some(&node.name));
                        let movable = there.filter(|row| row.pod.spec.on_node_loss == OnNodeLoss::Replace);
                        self.lost.extend(movable.map(|row| row.pod.metadata.uid));
                    }
                }
                Ok(())
            }
            Changed::Object { before, after } => self.note_owner(world, before.as_deref(), after),
            Changed::Pod { before, after } => {
                let row = before.as_ref().or(after.as_ref()).expect("a change has a side");
                let (uid, name) = (row.pod.metadata.uid, row.pod.metadata.name.clone());
                world.trace.note("leader", format_args!("r{revision} pod {name} {}: {}", short(uid), told(after.as_deref())));
                let known = self.rows.get(&uid);
                let same = match (known, &before) {
                    (Some(known), Some(before)) => known == before,
                    (None, None) => true,
                    (Some(_), None) | (None, Some(_)) => false,
                };
                ensure(same, "I1", || {
                    format!("pod {name} was {} and is changed from {}", told(known.map(|row| &**row)), told(before.as_deref()))
                })?;
                self.check_step(world, before.as_deref(), after.as_deref())?;
                self.check_cordon(before.as_deref(), after.as_deref())?;
                match after {
                    Some(row) => {
                        self.lives.insert(uid, (row.pod.spec.restart_policy, row.restarts));
                        self.rows.insert(uid, row.clone());
                        self.check_owned(before.as_deref(), &row)
                    }
                    None => {
                        self.rows.remove(&uid);
                        Ok(())
                    }
                }
            }
        }
    }

    fn note_owner(&mut self, world: &World, before: Option<&Object>, after: Option<Arc<Object>>) -> Result<(), Violation> {
        let Some(object) = after else {
            before.iter().for_each(|before| drop(self.owners.remove(&before.metadata().uid)));
            return Ok(());
        };
        let Metadata { uid, revision, .. } = object.metadata();
        let reference = object.reference();
        match (&*object, before) {
            (Object::Deployment(deployment), _) => {
                let rollout = deployment.status.rollout.as_ref();
                world.trace.note("leader", format_args!("r{revision} {reference} {}: {rollout:?}", short(*uid)));
            }
            (Object::Job(job), before) => {
                let JobStatus { active, succeeded, failed, .. } = job.status;
                world.trace.note("leader", format_args!("r{revision} {reference} {}: {active} {succeeded} {failed}", short(*uid)));
                let counted = before.and_then(Object::job).map_or((0, 0), |job| (job.status.succeeded, job.status.failed));
                ensure(counted.0 <= succeeded && counted.1 <= failed, "JO2", || {
                    format!("{reference}: {counted:?} of its pods were counted, then {:?}", (succeeded, failed))
                })?;
            }
            (Object::Secret(_) | Object::Config(_) | Object::Volume(_) | Object::CronJob(_), _) => return Ok(()),
        }
        self.owners.insert(*uid, object);
        Ok(())
    }

    /// What a deployment's bounds mean for a pod of it that has changed.
    fn check_owned(&self, before: Option<&PodRow>, after: &PodRow) -> Result<(), Violation> {
        let owner = after.pod.metadata.owner.as_ref().and_then(|owner| self.owners.get(&owner.uid));
        let Some(deployment) = owner.and_then(|object| object.deployment()) else { return Ok(()) };
        let is_cordoned = after.pod.placement.node.as_ref().is_some_and(|node| self.cordons.contains_key(node));
        owners::check_pod(deployment, before, after, is_cordoned, self.rows.values())
    }

    fn note_cordon(&mut self, world: &World, before: Option<&Node>, after: Option<&Node>) {
        let Some(node) = after else { return };
        if before.and_then(|before| before.cordon.as_ref()) != node.cordon.as_ref() {
            world.trace.note("leader", format_args!("r{} node {}: {:?}", node.revision, node.name, node.cordon));
        }
        match &node.cordon {
            Some(cordon) => drop(self.cordons.insert(node.name.clone(), cordon.clone())),
            None => drop(self.cordons.remove(&node.name)),
        }
    }

    /// What a cordon and a drain mean for a pod that changes.
    fn check_cordon(&mut self, before: Option<&PodRow>, after: Option<&PodRow>) -> Result<(), Violation> {
        let (Some(old), Some(new)) = (before, after) else { return Ok(()) };
        let Some(node) = &new.pod.placement.node else { return Ok(()) };
        let (metadata, cordon) = (&new.pod.metadata, self.cordons.get(node));
        let begins = old.pod.placement.node.is_none() || (old.is_finished() && !new.is_finished());
        ensure(!begins || cordon.is_none(), "ND1", || format!("pod {} begins on {node}, which is cordoned", metadata.name))?;
        let is_drained = new.retired.as_ref().is_some_and(|retired| retired.reason == format!("its node {node} is drained"));
        if !is_drained || old.retired.is_some() {
            return Ok(());
        }
        let drain = cordon.and_then(Cordon::draining);
        let Some(drain) = drain else { return Err(violation("ND2", format!("pod {} is drained from {node}, which isn't", metadata.name))) };
        let may_go = drain.force || new.pod.spec.restart_policy != RestartPolicy::Never;
        ensure(may_go, "ND3", || format!("pod {}, which is not run again, is drained from {node} without force", metadata.name))?;
        self.lost.insert(metadata.uid);
        Ok(())
    }

    /// One change of one pod.
    fn check_step(&self, world: &World, before: Option<&PodRow>, after: Option<&PodRow>) -> Result<(), Violation> {
        match (before, after) {
            (None, Some(new)) => {
                let is_reused = self.lives.contains_key(&new.pod.metadata.uid);
                ensure(!is_reused, "I2", || format!("the uid {} was given twice", new.pod.metadata.uid))?;
                self.check_successor(new)
            }
            (Some(old), Some(new)) => check_move(old, new),
            (Some(old), None) => check_end(world, old),
            (None, None) => Ok(()),
        }
    }

    /// A pod that the leader itself makes in the place of one that may have run: with `Never` it is finished from the beginning.
    fn check_successor(&self, new: &PodRow) -> Result<(), Violation> {
        let metadata = &new.pod.metadata;
        let is_older =
            |row: &&Arc<PodRow>| row.pod.metadata.name == metadata.name && row.pod.metadata.generation + 1 == metadata.generation;
        let Some(old) = self.rows.values().find(is_older) else { return Ok(()) };
        // Who is replaced by a person is of another spec, or was on its way out before.
        let is_own_idea = old.pod.spec == new.pod.spec && old.pod.metadata.deletion_requested_at == Some(metadata.created_at);
        let again = is_own_idea && new.pod.spec.restart_policy == RestartPolicy::Never && new.pod.status.phase != Phase::Failed;
        ensure(!again, "I6", || {
            format!("pod {}, which never restarts, may have run as {} and begins anew", metadata.name, short(old.pod.metadata.uid))
        })
    }

    /// The state as a whole.
    fn check_state(&self, world: &World, state: &State) -> Result<(), Violation> {
        let same = |(uid, row): (&Uid, &Arc<PodRow>)| self.rows.get(uid).is_some_and(|known| Arc::ptr_eq(known, row) || known == row);
        let odd = state.pods.iter().find(|(uid, row)| !same((uid, row))).map(|(uid, _)| uid);
        let gone = self.rows.keys().find(|uid| !state.pods.contains_key(uid));
        if let Some(uid) = odd.or(gone) {
            let (known, now) = (self.rows.get(uid), state.pods.get(uid));
            let (known, now) = (told(known.map(|row| &**row)), told(now.map(|row| &**row)));
            return Err(violation("I1", format!("after every change of it pod {} was {known}, and it is {now}", short(*uid))));
        }
        for (name, belief) in world.expected.certain() {
            let standing = state.standing(&name);
            match belief {
                Belief::Present { uid, spec } => {
                    // What replaces a pod of a lost node is another one.
                    let is_it = |row: &&Arc<PodRow>| row.pod.metadata.uid == uid || self.lost.contains(&uid);
                    let found = standing.filter(|row| is_it(row) && row.retired.is_none() && *row.pod.spec == *spec);
                    ensure(found.is_some(), "I1", || {
                        format!("pod {name} {} was acknowledged, and now it is {}", short(uid), told(standing.map(|row| &**row)))
                    })?;
                }
                Belief::Deleted { uid } => {
                    // One that it replaced may still be on its way out.
                    let back = standing.filter(|row| row.retired.is_none());
                    ensure(back.is_none(), "I1", || {
                        format!("the end of pod {name} {} was acknowledged, and now it is {}", short(uid), told(back.map(|row| &**row)))
                    })?;
                }
            }
        }
        owners::check_state(&world.owned, state)?;
        for name in state.nodes.keys() {
            let Some(load) = state.load(name) else { continue };
            let Reserved { cpu, memory, disk } = load.reserved;
            ensure(cpu.0 <= CPU && memory.0 <= MEMORY && disk.0 <= DISK, "I12", || {
                format!("{name} is asked for {cpu} of cpu, {memory} of memory and {disk} of disk space")
            })?;
            let twice = load.host_ports.iter().find(|(_, count)| **count > 1);
            ensure(twice.is_none(), "I12", || format!("host port {twice:?} of {name} is given twice"))?;
        }
        Ok(())
    }

    /// The limit on crashes of a pod that nobody ever wanted to stop, and that isn't lost.
    fn limit_of_wanted(&self, uid: Uid) -> Option<u32> {
        let row = self.rows.get(&uid).filter(|row| row.retired.is_none() && !self.lost.contains(&uid))?;
        Some(row.pod.spec.restart.limit)
    }

    /// Whether anything has changed there.
    fn look_at_engine(&mut self, node: &str, engine: &Fake, now: Duration) -> Result<bool, Violation> {
        if let Some(call) = engine.trespasses().first() {
            return Err(violation("I9", format!("{node}: a foreign container was touched: {call:?}")));
        }
        let changed_at = engine.changed_at();
        let known = self.engines.entry(node.to_owned()).or_default();
        if changed_at < known.looked_at {
            return Ok(false);
        }
        known.looked_at = now;
        check_sandboxes(node, engine)?;
        let tallies = engine.tallies();
        known.check_rates(node, &tallies, now)?;
        for ((uid, container), tally) in &tallies {
            if uid.0.as_u128() < 0x100 {
                continue;
            }
            let what = || format!("{} of {} on {node}", container.as_ref().map_or("the sandbox", Name::as_str), short(*uid));
            let Some((policy, restarts)) = self.lives.get(uid) else {
                return Err(violation("I10", format!("{node} runs {}, which the leader never had", what())));
            };
            let home = self.homes.entry(*uid).or_insert_with(|| node.to_owned());
            ensure(home == node, "I7", || format!("{} was on {home} before", what()))?;
            ensure(tally.by_hand > 0 || tally.most_live <= 1, "I5", || format!("{} of {} ran at once", tally.most_live, what()))?;
            let own_starts = u64::from(tally.starts - tally.by_hand);
            let is_once = container.is_none() || *policy != RestartPolicy::Never || own_starts <= 1 + restarts;
            ensure(is_once, "I6", || format!("{}, which never restarts, was started {own_starts} times with {restarts} restarts", what()))?;
            if let Some(limit) = self.limit_of_wanted(*uid).filter(|_| container.is_some()) {
                // Whose network is gone by itself or by hand, or whom a person started beside another one, has to go; and who is given up, once.
                let sandbox = tallies.get(&(*uid, None)).copied().unwrap_or_default();
                let networks = (sandbox.starts - sandbox.live).saturating_sub(sandbox.stopped);
                let most = *restarts + u64::from(networks + tally.by_hand) + u64::from(limit > 0);
                ensure(u64::from(tally.stopped) <= most, "A15", || {
                    format!("{} was stopped {} times, and there was a reason {most} times", what(), tally.stopped)
                })?;
            }
        }
        Ok(true)
    }
}

impl Engine {
    fn check_rates(&mut self, node: &str, tallies: &BTreeMap<Key, Tally>, now: Duration) -> Result<(), Violation> {
        let (began, before) = &self.window;
        for (key, tally) in tallies {
            let more = tally.starts - before.get(key).copied().unwrap_or(0);
            ensure(more <= MOST_STARTS, "I14", || format!("{key:?} was started {more} times within {STARTS_IN:?} on {node}"))?;
        }
        if now.saturating_sub(*began) > STARTS_IN {
            self.window = (now, tallies.iter().map(|(key, tally)| (key.clone(), tally.starts)).collect());
        }
        Ok(())
    }
}

/// A sandbox has the containers of one pod, which has its name, and a spare has none.
fn check_sandboxes(node: &str, engine: &Fake) -> Result<(), Violation> {
    let residents = engine.residents();
    let by_id: BTreeMap<_, _> = residents.iter().map(|resident| (&resident.observed.id, resident)).collect();
    for app in residents.iter().filter(|resident| resident.live && !resident.foreign) {
        let Some(sandbox) = app.observed.sandbox.as_ref().and_then(|id| by_id.get(id)) else { continue };
        // A hand may start what waits for its promised spare to get the pod's name.
        let identity = &app.observed.identity;
        let by_hand = engine.tally(identity.uid, identity.container.as_ref()).by_hand > 0;
        let is_own = if sandbox.spare { by_hand } else { sandbox.observed.identity.uid == identity.uid };
        ensure(is_own, "PL1", || format!("{} of {node} runs in {}, which isn't its pod's", app.name, sandbox.name))?;
    }
    Ok(())
}

fn check_move(old: &PodRow, new: &PodRow) -> Result<(), Violation> {
    let (was, is) = (&old.pod, &new.pod);
    let who = || format!("pod {} {}", is.metadata.name, short(is.metadata.uid));
    ensure(
        was.spec == is.spec && was.metadata.name == is.metadata.name && was.metadata.created_at == is.metadata.created_at,
        "I4",
        || format!("{} has another spec or name than it was made with", who()),
    )?;
    ensure(was.placement.node.is_none() || was.placement.node == is.placement.node, "I8", || {
        format!("{} was bound to {:?} and is on {:?} now", who(), was.placement.node, is.placement.node)
    })?;
    ensure(new.restarts >= old.restarts, "I3", || format!("{}: {} restarts were asked for, then {}", who(), old.restarts, new.restarts))?;
    ensure(old.retired.is_none() || new.retired.is_some(), "I3", || format!("{} was on its way out and came back", who()))?;
    let (from, to) = (was.status.phase, is.status.phase);
    // One that was given up with its node has nothing anywhere: asked for again, it is as new, and no node has to see a restart.
    let is_given_up = was.placement.node.is_none() && matches!(was.status.reason.as_deref(), Some(NODE_LOST | DRAINED));
    let is_begun_again = new.restarts > old.restarts || is_given_up;
    ensure(is_begun_again || from == to || rank(from) < rank(to), "I3", || format!("{} went from {from:?} to {to:?}", who()))?;
    for container in &was.status.containers {
        let later = is.status.containers.iter().find(|later| later.name == container.name);
        let fell = later.filter(|later| later.restart_count < container.restart_count);
        ensure(fell.is_none(), "I3", || {
            let now = fell.map(|later| later.restart_count);
            format!("{}: the restarts of {} fell from {} to {now:?}", who(), container.name, container.restart_count)
        })?;
    }
    for container in is.status.containers.iter().filter(|container| PROBED.contains(&container.image.as_str())) {
        let unhealthy = container.last_termination.as_ref().filter(|end| end.reason == EndReason::Unhealthy);
        ensure(unhealthy.is_none(), "PR8", || format!("{}: {} was well and was ended as unhealthy", who(), container.name))?;
    }
    Ok(())
}

/// A row that goes.
fn check_end(world: &World, old: &PodRow) -> Result<(), Violation> {
    let uid = old.pod.metadata.uid;
    let who = || format!("pod {} {}", old.pod.metadata.name, short(uid));
    let Some(node) = &old.pod.placement.node else { return Ok(()) };
    ensure(old.retired.is_some(), "A6", || format!("{} went though nobody wanted it to", who()))?;
    let left = world.engines().filter(|(machine, _)| machine.name == node.as_str()).flat_map(|(_, engine)| engine.everything());
    let left: Vec<_> = left.filter(|container| container.identity.uid == uid).map(|container| container.id.0).collect();
    ensure(left.is_empty(), "A6", || format!("{} went while {node} had {left:?} of it", who()))
}

fn rank(phase: Phase) -> u8 {
    match phase {
        Phase::Pending => 0,
        Phase::Running => 1,
        Phase::Succeeded | Phase::Failed => 2,
    }
}

/// Enough of a uid to tell the few of a run apart.
pub fn short(uid: Uid) -> String {
    uid.to_string()[28..].to_owned()
}

/// A row in a few words.
pub fn told(row: Option<&PodRow>) -> String {
    let Some(PodRow { pod, restarts, retired }) = row else { return "gone".to_owned() };
    let node = pod.placement.node.as_ref().map_or_else(|| "unbound".to_owned(), |node| format!("on {node}"));
    let containers = pod.status.containers.iter().map(|container| {
        let state = match &container.state {
            cube_api::pod::ContainerState::Waiting(waiting) => format!("{:?}", waiting.reason),
            cube_api::pod::ContainerState::Running(_) => "running".to_owned(),
            cube_api::pod::ContainerState::Terminated(end) => format!("ended {}", end.exit_code),
        };
        format!(" {}={state}/{}", container.name, container.restart_count)
    });
    let containers: String = containers.collect();
    let out = retired.as_ref().map_or("", |_| " retired");
    let reason = pod.status.reason.as_deref().map(|reason| format!(" ({reason})")).unwrap_or_default();
    format!("g{} {node} {:?}{reason} restarts {restarts}{out}{containers}", pod.metadata.generation, pod.status.phase)
}
