//! How calls reach the engine: how long they take, which of them fail or hang, and what is remembered of them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::RangeInclusive;
use std::time::Duration;

use super::world::Carry;
use crate::ambient::Ambient;
use crate::follower::runtime::Identity;

/// So many calls are remembered, the newest; all are counted.
const KEPT_CALLS: usize = 10_000;

/// The calls, as the call log and the failures name them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "they are the methods of Runtime")]
pub enum Operation {
    Info,
    Scopes,
    List,
    Inspect,
    Hints,
    Image,
    Pull,
    CreateSandbox,
    CreateContainer,
    CreateSpare,
    Spares,
    ClaimSpare,
    PrepareVolumes,
    Volumes,
    RemoveVolumes,
    RemoveKept,
    Start,
    Signal,
    Remove,
    Logs,
    Exec,
}

impl Operation {
    /// Whether it does something to a container, or looks into it: what nobody may do to a foreign one.
    pub(super) fn touches(self) -> bool {
        match self {
            Self::ClaimSpare | Self::Start | Self::Signal | Self::Remove | Self::Logs | Self::Exec => true,
            Self::Info
            | Self::Scopes
            | Self::List
            | Self::Inspect
            | Self::Hints
            | Self::Image
            | Self::Pull
            | Self::CreateSandbox
            | Self::CreateContainer
            | Self::CreateSpare
            | Self::Spares
            | Self::PrepareVolumes
            | Self::Volumes
            | Self::RemoveVolumes
            | Self::RemoveKept => false,
        }
    }
}

/// How a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// Nothing was done.
    NotDone,
    /// It was done, but the answer got lost: the caller can't tell the two apart.
    ReplyLost,
}

/// One call that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Which.
    pub operation: Operation,
    /// Of which container, where it is about one that exists or is to be made.
    pub identity: Option<Identity>,
}

/// How long a call takes, from being made to its answer: so long, or something in between.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Latency {
    least: Duration,
    most: Duration,
}

impl From<Duration> for Latency {
    fn from(exactly: Duration) -> Self {
        Self { least: exactly, most: exactly }
    }
}

impl From<RangeInclusive<Duration>> for Latency {
    fn from(range: RangeInclusive<Duration>) -> Self {
        Self { least: *range.start(), most: (*range.end()).max(*range.start()) }
    }
}

impl Latency {
    /// Throws the dice only where there is a choice.
    fn draw(self, ambient: &Ambient) -> Duration {
        let spread = u64::try_from((self.most - self.least).as_nanos()).unwrap_or(u64::MAX);
        if spread == 0 { self.least } else { self.least + Duration::from_nanos(ambient.random() % spread.saturating_add(1)) }
    }
}

/// Where calls come in.
#[derive(Default)]
pub(super) struct Desk {
    pub(super) calls: VecDeque<Call>,
    pub(super) counts: BTreeMap<Operation, u64>,
    /// Calls that touched a foreign container: there should be none.
    pub(super) trespasses: Vec<Call>,
    pub(super) failures: VecDeque<(Operation, Failure)>,
    pub(super) latency: Latency,
    pub(super) latency_of: BTreeMap<Operation, Latency>,
    pub(super) hanging: BTreeSet<Operation>,
    /// Calls that hang, in the order in which they came.
    pub(super) held: Vec<Carry>,
}

impl Desk {
    pub(super) fn note(&mut self, call: Call, foreign: bool) {
        *self.counts.entry(call.operation).or_default() += 1;
        if foreign && call.operation.touches() {
            self.trespasses.push(call.clone());
            self.trespasses.truncate(KEPT_CALLS);
        }
        self.calls.push_back(call);
        if self.calls.len() > KEPT_CALLS {
            self.calls.pop_front();
        }
    }

    pub(super) fn latency(&self, operation: Operation, ambient: &Ambient) -> Duration {
        self.latency_of.get(&operation).copied().unwrap_or(self.latency).draw(ambient)
    }

    pub(super) fn failure(&mut self, operation: Operation) -> Option<Failure> {
        let due = self.failures.iter().position(|(at, _)| *at == operation)?;
        self.failures.remove(due).map(|(_, failure)| failure)
    }
}
