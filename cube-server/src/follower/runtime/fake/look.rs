//! What a test's checks see of the engine, at any moment and from anywhere: no call is made for it.

use std::collections::BTreeMap;
use std::time::Duration;

use cube_api::meta::{Name, Uid};
use cube_api::pod::PublishedPort;

use super::world::{By, Container, Key, World};
use super::{Call, Fake, Operation};
use crate::follower::runtime::{Observed, Scope};

/// What became of a pod's container (or sandbox), over all attempts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Processes that were begun, also by hand.
    pub starts: u32,
    /// Those of them that were begun by hand.
    pub by_hand: u32,
    /// Processes that run (or are frozen).
    pub live: u32,
    /// The most that ever ran at the same time.
    pub most_live: u32,
    /// Processes that ran and that a call asked to end, or ended: not by themselves, nor by hand.
    pub stopped: u32,
}

impl Tally {
    /// Counts a start; how many there were before.
    pub(super) fn started(&mut self, by: By) -> u32 {
        let earlier = self.starts;
        self.starts += 1;
        self.by_hand += match by {
            By::Call => 0,
            By::Hand => 1,
        };
        self.live += 1;
        self.most_live = self.most_live.max(self.live);
        earlier
    }

    pub(super) fn ended(&mut self) {
        self.live -= 1;
    }
}

/// A container on the engine, whoever's.
#[derive(Debug, Clone, PartialEq)]
pub struct Resident {
    /// Its name.
    pub name: String,
    /// Whose, by its labels.
    pub scope: Option<Scope>,
    /// Put there by [`Fake::add_foreign`].
    pub foreign: bool,
    /// A sandbox that no pod has: what the engine says of whose it is means nothing.
    pub spare: bool,
    /// What the engine says of it.
    pub observed: Observed,
    /// Whether its process runs (or is frozen).
    pub live: bool,
    /// It runs in a network that isn't its sandbox's of now: that ended, was started again or is gone.
    pub astray: bool,
    /// What its process finds in its environment.
    pub env: BTreeMap<String, String>,
    /// Its host ports; while it is live, they are taken.
    pub published: Vec<PublishedPort>,
}

impl Fake {
    /// Every container, whoever's.
    pub fn residents(&self) -> Vec<Resident> {
        let (world, _) = self.settled();
        world.containers.values().map(|container| resident(&world, container)).collect()
    }

    /// Every container, whoever's, as the engine says.
    pub fn everything(&self) -> Vec<Observed> {
        let (world, _) = self.settled();
        world.containers.values().map(|container| container.observed.clone()).collect()
    }

    /// Of each pod's container and sandbox, what became of it. Entries stay when the containers are gone.
    pub fn tallies(&self) -> BTreeMap<Key, Tally> {
        self.settled().0.tallies.clone()
    }

    /// What became of a pod's container (its sandbox: none).
    pub fn tally(&self, uid: Uid, container: Option<&Name>) -> Tally {
        self.settled().0.tallies.get(&(uid, container.cloned())).copied().unwrap_or_default()
    }

    /// How often a pod's container (its sandbox: none) was started, over all attempts.
    pub fn starts(&self, uid: Uid, container: Option<&Name>) -> u32 {
        self.tally(uid, container).starts
    }

    /// The most attempts of a pod's container that ever ran at the same time.
    pub fn most_live(&self, uid: Uid, container: Option<&Name>) -> u32 {
        self.tally(uid, container).most_live
    }

    /// When something changed last, by the engine's clock.
    pub fn changed_at(&self) -> Duration {
        self.settled().0.changed_at
    }

    /// Execs whose process runs.
    pub fn live_execs(&self) -> usize {
        self.settled().0.live_execs
    }

    /// The newest calls, also those that failed; 10,000 at most.
    pub fn calls(&self) -> Vec<Call> {
        self.world().desk.calls.iter().cloned().collect()
    }

    /// How often an operation was asked for, ever.
    pub fn count(&self, operation: Operation) -> u64 {
        self.world().desk.counts.get(&operation).copied().unwrap_or(0)
    }

    /// The calls that touched a foreign container: there should be none.
    pub fn trespasses(&self) -> Vec<Call> {
        self.world().desk.trespasses.clone()
    }
}

fn resident(world: &World, container: &Container) -> Resident {
    let live = container.is_live();
    let sandbox = container.observed.sandbox.as_ref().map(|id| world.containers.get(id));
    let at_home = sandbox.is_none_or(|sandbox| sandbox.is_some_and(|sandbox| sandbox.is_live() && Some(sandbox.runs) == container.joined));
    Resident {
        name: container.name.clone(),
        scope: container.scope.clone(),
        foreign: container.foreign,
        spare: container.spare,
        observed: container.observed.clone(),
        live,
        astray: live && !at_home,
        env: container.env.clone(),
        published: container.published.clone(),
    }
}
