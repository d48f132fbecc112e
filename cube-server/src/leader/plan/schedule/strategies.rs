//! How good a node is for a need, as one number, and the words for it.

use cube_api::node::Capacity;
use cube_api::pod::Strategy;

use super::need::Need;
use crate::leader::store::Reserved;

/// How good a node is: the smaller, the better. Nodes that are equally good are taken by their names.
pub(super) type Score = u128;

/// Worse than any node's.
pub(super) const NO_SCORE: Score = Score::MAX;

/// What a node gives to pods, and what of it is taken.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    pub(super) allocatable: Capacity,
    pub(super) pods: u32,
    pub(super) taken: Reserved,
}

/// A part of a whole. Division rounds equal fractions to equal numbers, so that equally loaded nodes are equal whatever their size.
fn share(part: u64, all: u64) -> f64 {
    part as f64 / all.max(1) as f64
}

impl Load {
    /// Of cpu, memory and disk, with the pod on it.
    fn shares_with(&self, need: &Reserved) -> [f64; 3] {
        let Self { allocatable, taken, .. } = self;
        [
            share(taken.cpu.0.saturating_add(need.cpu.0), allocatable.cpu.0),
            share(taken.memory.0.saturating_add(need.memory.0), allocatable.memory.0),
            share(taken.disk.0.saturating_add(need.disk.0), allocatable.disk.0),
        ]
    }

    /// The fewest pods first, so that pods that reserve nothing spread too; then the smallest of the largest shares.
    pub(super) fn spread(&self, need: &Reserved) -> Score {
        let [cpu, memory, disk] = self.shares_with(need);
        joined(u64::from(self.pods), cpu.max(memory).max(disk).to_bits())
    }

    /// The largest sum of shares first, as Kubernetes' MostAllocated has it; then the most pods, so that pods that reserve nothing are packed too.
    pub(super) fn binpack(&self, need: &Reserved) -> Score {
        let [cpu, memory, disk] = self.shares_with(need);
        joined(!(cpu + memory + disk).to_bits(), u64::from(!self.pods))
    }
}

/// The first decides. The bits of floating point numbers that aren't negative have the order of the numbers.
fn joined(first: u64, second: u64) -> Score {
    (Score::from(first) << 64) | Score::from(second)
}

/// Lieb's square ice constant, (4/3)^(3/2), the base that implementations of the rule use.
const LIEB: f64 = 1.539_600_717_839_002;

/// For cpu, memory, disk and pods.
pub(super) type Costs = [f64; 4];

/// What a node's cost is now. Pods count as something that a node has so many of: else pods that reserve nothing would cost nothing anywhere, and
/// all go to the first node.
pub(super) fn costs(load: &Load) -> Costs {
    let Load { allocatable, pods, taken } = load;
    let cost = |used: u64, all: u64| LIEB.powf(share(used, all).min(1.0));
    [
        cost(taken.cpu.0, allocatable.cpu.0),
        cost(taken.memory.0, allocatable.memory.0),
        cost(taken.disk.0, allocatable.disk.0),
        cost(u64::from(*pods), u64::from(allocatable.pods)),
    ]
}

/// By which part of itself each cost of a node of this size rises with the pod: L^(used + need) - L^used = L^used * (L^need - 1). The two factors are
/// made once for each node and once for each size of nodes, because powers cost more than all the rest.
pub(super) fn rises(allocatable: &Capacity, need: &Reserved) -> Costs {
    let rise = |needed: u64, all: u64| (share(needed, all) * LIEB.ln()).exp_m1();
    [
        rise(need.cpu.0, allocatable.cpu.0),
        rise(need.memory.0, allocatable.memory.0),
        rise(need.disk.0, allocatable.disk.0),
        rise(1, u64::from(allocatable.pods)),
    ]
}

/// The least rise of the cost first.
pub(super) fn epvm(costs: &Costs, rises: &Costs) -> Score {
    let rise: f64 = costs.iter().zip(rises).map(|(cost, rise)| cost * rise).sum();
    Score::from(rise.to_bits())
}

/// What the chosen of several is.
pub(super) fn superlative(strategy: Strategy) -> &'static str {
    match strategy {
        Strategy::Spread => "least loaded",
        Strategy::Binpack => "fullest",
        Strategy::RoundRobin => "next",
        Strategy::Epvm => "cheapest",
    }
}

impl Need<'_> {
    /// Whether its nodes have an order of their own, and not just turns.
    pub(super) fn is_scored(&self) -> bool {
        match self.strategy {
            Strategy::Spread | Strategy::Binpack | Strategy::Epvm => true,
            Strategy::RoundRobin => false,
        }
    }
}
