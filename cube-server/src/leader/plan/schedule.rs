//! Where pods go: filters, each with a reason and a count, then the choice of a strategy among the nodes that are left.
//!
//! The plain definition is one pod after another, each against every node, and what an earlier one takes is taken for the later;
//! `tests/reference.rs` says it so. What runs here gives the same answers, reasons and counts too, without asking every node for every pod:
//!
//! * `need`: what a pod asks of a node. Pods that ask for the same are one group;
//! * `filters`: why a node doesn't take a pod, and the sentence with the counts;
//! * `strategies`: how good a node is for a need, as one number;
//! * `board`: the nodes in the order of their names, what is left of each, and a log of what was taken in this pass;
//! * `ranking`: for one group, which nodes take it and the best of them. It is made by one look at every node, then follows the board's log, so that
//!   a further pod of the group costs what changed since the one before it.
//!
//! Nothing here iterates in an order that is not that of names or of the pods given.

mod board;
mod filters;
mod need;
mod ranking;
mod strategies;

use std::collections::BTreeMap;

use cube_api::meta::{Name, Uid};
use cube_api::pod::{OnNodeLoss, PodSpec, Strategy};

use self::board::Board;
use self::need::Need;
use self::ranking::Ranking;
use crate::leader::store::{Placing, PodRow};

pub use self::board::Candidate;

/// A pod without a node.
#[derive(Debug, Clone, Copy)]
pub struct Unplaced<'a> {
    /// Which.
    pub uid: Uid,
    /// Its name.
    pub name: &'a Name,
    /// What it asks for.
    pub spec: &'a PodSpec,
    /// Why it waited until now, if that was said.
    pub waiting_for: Option<&'a str>,
    /// Nodes that it should get only where no other fits: pods of its name failed there.
    pub avoids: &'a [Name],
    /// Where the named volumes are that it needs, as far as they are anywhere yet.
    pub pins: &'a [Pin],
    /// A pod of its name that it has to wait for ([`must_wait`]).
    pub predecessor: Option<Predecessor<'a>>,
}

/// A named volume that is on a node: pods that need it go there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pin {
    /// Its name.
    pub volume: Name,
    /// Where its data are.
    pub node: Name,
}

/// A pod whose name another one has taken over.
#[derive(Debug, Clone, Copy)]
pub struct Predecessor<'a> {
    /// Which.
    pub uid: Uid,
    /// Where its containers are.
    pub node: &'a Name,
    /// Whether that node is lost.
    pub on_lost_node: bool,
}

/// Whether a pod must not start before `old`, which had its name, is known to have stopped. On a node that is lost that may be never, so only a
/// pod that must not run twice waits for it, and any pod for such a one: `onNodeLoss: wait` is kept under a name over every change of the spec.
pub fn must_wait(spec: &PodSpec, old: &PodRow, on_lost_node: bool) -> bool {
    let waits = |spec: &PodSpec| match spec.node_loss() {
        OnNodeLoss::Wait => true,
        OnNodeLoss::Replace => false,
    };
    !on_lost_node || (!old.is_finished() && (waits(spec) || waits(&old.pod.spec)))
}

/// What holds for a whole pass.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rules<'a> {
    /// The strategy of a pod that names none.
    pub strategy: Strategy,
    /// The node that the last pod by `round-robin` got; none: the first by name is next.
    pub last_turn: Option<&'a Name>,
}

/// What a pass decided.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Decided {
    /// What is to be written. A pod that waits for what it waited for is left out.
    pub placings: Vec<Placing>,
    /// [`Rules::last_turn`] for the next pass.
    pub last_turn: Option<Name>,
}

/// Decides about each pod, in order; what an earlier one takes is taken for the later.
pub fn schedule(pods: &[Unplaced<'_>], nodes: Vec<Candidate<'_>>, rules: Rules<'_>) -> Decided {
    let (mut known, mut groups, mut group_of) = (BTreeMap::new(), Vec::<Group<'_>>::new(), Vec::with_capacity(pods.len()));
    for pod in pods {
        let group = pod.predecessor.is_none().then(|| {
            let need = Need::of(pod.spec, pod.pins, rules.strategy);
            let next = groups.len();
            let group = *known.entry(need.clone()).or_insert(next);
            if group == next {
                groups.push(Group { need, undecided: 0, ranking: None });
            }
            groups[group].undecided += 1;
            group
        });
        group_of.push(group);
    }
    let board = Board::new(nodes, groups.iter().map(|group| &group.need));
    let mut pass = Pass { next_turn: board.after(rules.last_turn), board, groups, rankings: 0, last_turn: None };
    let mut placings = Vec::new();
    for (pod, group) in pods.iter().zip(group_of) {
        let placing = match (pod.predecessor, group) {
            (Some(predecessor), _) => hold_for(pod, predecessor),
            (None, Some(group)) => pass.place(pod, group),
            (None, None) => continue,
        };
        let is_known = match &placing {
            Placing::Wait { reason, .. } | Placing::Hold { reason, .. } => pod.waiting_for == Some(reason),
            Placing::Bind { .. } => false,
        };
        if !is_known {
            placings.push(placing);
        }
    }
    Decided { placings, last_turn: pass.last_turn.or(rules.last_turn).cloned() }
}

/// Notes that a pod is not to be placed, unless that was noted.
pub fn hold(pod: &Unplaced<'_>, reason: String) -> Option<Placing> {
    (pod.waiting_for != Some(&*reason)).then_some(Placing::Hold { uid: pod.uid, reason })
}

fn hold_for(pod: &Unplaced<'_>, predecessor: Predecessor<'_>) -> Placing {
    let Predecessor { uid: old, node, on_lost_node } = predecessor;
    let waits = format!("waiting for the previous pod/{} ({old}) on node {node} to stop", pod.name);
    let remedy = "that node is lost (onNodeLoss: wait); if that machine is dead, make sure that it is off, then";
    let reason = if on_lost_node { format!("{waits}: {remedy}: cube delete node/{node} --force") } else { waits };
    Placing::Hold { uid: pod.uid, reason }
}

/// Pods that ask for the same.
struct Group<'a> {
    need: Need<'a>,
    /// Its pods that this pass hasn't come to.
    undecided: usize,
    /// None before its first pod and after its last.
    ranking: Option<Ranking>,
}

/// The most rankings that are kept at a time, each some 11 bytes for a node: 7 MB at 5,000 nodes. A pod of a group beyond them gets one of its own,
/// and costs a look at every node.
const MOST_RANKINGS: usize = 128;

/// A pass at work.
struct Pass<'a> {
    board: Board<'a>,
    groups: Vec<Group<'a>>,
    /// How many groups have one.
    rankings: usize,
    /// The node that has the next turn of `round-robin`.
    next_turn: usize,
    last_turn: Option<&'a Name>,
}

impl Pass<'_> {
    fn place(&mut self, pod: &Unplaced<'_>, group: usize) -> Placing {
        let mut ranking = self.take_ranking(group);
        let need = &self.groups[group].need;
        ranking.follow(&self.board, need, |taker| &self.groups[taker].need);
        let placing = match ranking.choose(&self.board, need, self.next_turn, pod.avoids) {
            None => Placing::Wait { uid: pod.uid, reason: ranking.why_none(need) },
            Some(choice) => {
                let reason = choice.reason(need.strategy);
                self.board.take(choice.node, group, need);
                let node = self.board.name(choice.node);
                match need.strategy {
                    Strategy::RoundRobin => (self.next_turn, self.last_turn) = (choice.node + 1, Some(node)),
                    Strategy::Spread | Strategy::Binpack | Strategy::Epvm => {}
                }
                Placing::Bind { uid: pod.uid, node: node.clone(), reason }
            }
        };
        self.keep_ranking(group, ranking);
        placing
    }

    fn take_ranking(&mut self, group: usize) -> Ranking {
        let Group { need, undecided, ranking } = &mut self.groups[group];
        *undecided -= 1;
        match ranking.take() {
            Some(ranking) => {
                self.rankings -= 1;
                ranking
            }
            None => Ranking::new(&mut self.board, need),
        }
    }

    fn keep_ranking(&mut self, group: usize, ranking: Ranking) {
        if self.groups[group].undecided > 0 && self.rankings < MOST_RANKINGS {
            self.groups[group].ranking = Some(ranking);
            self.rankings += 1;
        }
    }
}

#[cfg(test)]
mod tests;
