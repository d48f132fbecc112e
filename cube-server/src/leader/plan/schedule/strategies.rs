//! How good a node is for a need, as one number, and the words for it.

use cube_api::node::Capacity;
use cube_api::pod::Strategy;

use crate::leader::store::Reserved;

/// How good a node is: the smaller, the better. Nodes that are equally good are taken by their names.
pub(super) type Score = u64;

/// Worse than any node's.
pub(super) const NO_SCORE: Score = Score::MAX;

/// Shares are counted in so many parts of a whole (1 KiB of 1 TiB), rounded down: whole numbers, so that equally loaded nodes are equal whatever their
/// size, and two shares are added in one instruction.
const PARTS: u32 = 1 << 30;

/// Of cpu, memory and disk.
pub(super) type Shares = [u32; 3];

/// At most the whole: a node may have more on it than it gives, if that became less.
fn share(part: u64, all: u64) -> f64 {
    (part as f64 / all.max(1) as f64).min(1.0)
}

/// What so much is of a node of this size.
pub(super) fn shares(part: &Reserved, size: &Capacity) -> Shares {
    let parts = |part: u64, all: u64| (share(part, all) * f64::from(PARTS)) as u32;
    [parts(part.cpu.0, size.cpu.0), parts(part.memory.0, size.memory.0), parts(part.disk.0, size.disk.0)]
}

/// The fewest pods first, so that pods that reserve nothing spread too; then the smallest of the largest shares with the pod on it.
pub(super) fn spread(pods: u32, taken: &Shares, need: &Shares) -> Score {
    let [cpu, memory, disk] = sums(taken, need);
    (u64::from(pods) << 32) | u64::from(cpu.max(memory).max(disk))
}

/// The largest sum of shares with the pod on it first, as Kubernetes' MostAllocated has it; then the most pods, so that pods that reserve nothing are
/// packed too.
pub(super) fn binpack(pods: u32, taken: &Shares, need: &Shares) -> Score {
    let [cpu, memory, disk] = sums(taken, need);
    // The sum is at most three wholes, 3 * 2^30, so that this is never the number of a node that doesn't fit.
    (u64::from(u32::MAX - 1 - (cpu + memory + disk)) << 32) | u64::from(u32::MAX - pods)
}

fn sums(taken: &Shares, need: &Shares) -> Shares {
    std::array::from_fn(|index| (taken[index] + need[index]).min(PARTS))
}

/// Lieb's square ice constant, (4/3)^(3/2), the base that implementations of the rule use.
const LIEB: f64 = 1.539_600_717_839_002;

/// For cpu, memory, disk and pods.
pub(super) type Costs = [f64; 4];

/// What a node's cost is now. Pods count as something that a node has so many of: else pods that reserve nothing would cost nothing anywhere, and
/// all go to the first node.
pub(super) fn costs(pods: u32, taken: &Reserved, size: &Capacity) -> Costs {
    let cost = |used: u64, all: u64| if used == 0 { 1.0 } else { LIEB.powf(share(used, all)) };
    [
        cost(taken.cpu.0, size.cpu.0),
        cost(taken.memory.0, size.memory.0),
        cost(taken.disk.0, size.disk.0),
        cost(u64::from(pods), u64::from(size.pods)),
    ]
}

/// By which part of itself each cost of a node of this size rises with the pod: L^(used + need) - L^used = L^used * (L^need - 1). The two factors are
/// made once for each node and once for each size of nodes, because powers cost more than all the rest.
pub(super) fn rises(need: &Reserved, size: &Capacity) -> Costs {
    let rise = |needed: u64, all: u64| if needed == 0 { 0.0 } else { (share(needed, all) * LIEB.ln()).exp_m1() };
    [rise(need.cpu.0, size.cpu.0), rise(need.memory.0, size.memory.0), rise(need.disk.0, size.disk.0), rise(1, u64::from(size.pods))]
}

/// The least rise of the cost first. The bits of floating point numbers that aren't negative have the order of the numbers.
pub(super) fn epvm(costs: &Costs, rises: &Costs) -> Score {
    let [cpu, memory, disk, pods]: Costs = std::array::from_fn(|index| costs[index] * rises[index]);
    (cpu + memory + disk + pods).to_bits()
}

/// Whether the strategy has an order of its own, and not just turns.
pub(super) fn is_scored(strategy: Strategy) -> bool {
    match strategy {
        Strategy::Spread | Strategy::Binpack | Strategy::Epvm => true,
        Strategy::RoundRobin => false,
    }
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
