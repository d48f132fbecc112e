//! What to do next about the spare sandboxes: listed x held x how many there are to be x now -> one step. Pure.

use std::collections::{BTreeSet, VecDeque};

use jiff::{SignedDuration, Timestamp};

use crate::follower::runtime::{ContainerId, RunState, Spare};

/// A spare of this age is replaced. Docker writes its `resolv.conf` when it starts and never again, so a pod would get what the machine's was then;
/// one an hour costs nothing that can be measured.
const REPLACED_AFTER: SignedDuration = SignedDuration::from_hours(1);

/// Which spares are not to be had.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Holdings {
    /// Handed to a pod, promised to one, or being removed.
    pub held: BTreeSet<ContainerId>,
    /// Of those, the ones that nobody needs.
    pub unwanted: BTreeSet<ContainerId>,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Make another.
    Make,
    /// Start one that was made and not started: its start was lost, or its maker killed.
    Start(ContainerId),
    /// Remove one.
    Remove(ContainerId),
}

/// The next step; none when all is as it should be. Room is made before anything is made, so that there are never more than there are to be.
pub fn next(listed: &[Spare], holdings: &Holdings, target: usize, now: Timestamp) -> Option<Step> {
    if let Some(unwanted) = listed.iter().find(|spare| holdings.unwanted.contains(&spare.id)) {
        return Some(Step::Remove(unwanted.id.clone()));
    }
    let free: Vec<_> = listed.iter().filter(|spare| !holdings.held.contains(&spare.id)).collect();
    let is_over = |spare: &&&Spare| match spare.state {
        RunState::Created | RunState::Running { .. } => false,
        RunState::Paused { .. } | RunState::Exited { .. } | RunState::Removing => true,
    };
    if let Some(over) = free.iter().find(is_over) {
        return Some(Step::Remove(over.id.clone()));
    }
    if free.len() > target {
        return free.last().map(|surplus| Step::Remove(surplus.id.clone()));
    }
    if let Some(made) = free.iter().find(|spare| spare.state == RunState::Created) {
        return Some(Step::Start(made.id.clone()));
    }
    // Those that are held count too: whoever holds one is about to start, and must not wait for the next one to be made.
    if listed.len() < target {
        return Some(Step::Make);
    }
    let old = free.iter().find(|spare| since(spare).is_some_and(|since| now.duration_since(since) > REPLACED_AFTER));
    old.map(|old| Step::Remove(old.id.clone()))
}

/// Those that a pod may take, the oldest first.
pub fn ready(listed: &[Spare], holdings: &Holdings) -> VecDeque<ContainerId> {
    let free = listed.iter().filter(|spare| !holdings.held.contains(&spare.id));
    let mut ready: Vec<_> = free.filter_map(|spare| Some((since(spare)?, &spare.id))).collect();
    ready.sort();
    ready.into_iter().map(|(_, id)| id.clone()).collect()
}

fn since(spare: &Spare) -> Option<Timestamp> {
    match spare.state {
        RunState::Running { since } => Some(since),
        RunState::Created | RunState::Paused { .. } | RunState::Exited { .. } | RunState::Removing => None,
    }
}
