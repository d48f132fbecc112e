//! For one need: which nodes take it, why the others don't, and the best of those that do.

use cube_api::meta::Name;
use cube_api::pod::Strategy;

use super::board::Board;
use super::filters::{Tally, Unfit};
use super::need::Need;
use super::strategies::{Costs, NO_SCORE, Score, epvm, rises, superlative};

/// The nodes as a need sees them, as of a place in the board's log.
pub(super) struct Ranking {
    /// By node; none: it takes the pod.
    refused: Vec<Option<Unfit>>,
    tally: Tally,
    /// By node, whether it can't publish a port of the need; empty where the need has none.
    is_port_held: Vec<bool>,
    scores: Scores,
    /// By size of nodes, for `epvm`.
    rises: Vec<Costs>,
    /// How much of the board's log is in it.
    followed: usize,
}

impl Ranking {
    /// Looks at every node.
    pub(super) fn new<'a>(board: &mut Board<'a>, need: &Need<'a>) -> Self {
        let gate = board.gate(need);
        let rises = match need.strategy {
            Strategy::Epvm => board.sizes().iter().map(|size| rises(size, &need.reserved)).collect(),
            Strategy::Spread | Strategy::Binpack | Strategy::RoundRobin => Vec::new(),
        };
        let mut new = Self {
            refused: gate.refused.clone(),
            tally: gate.tally,
            is_port_held: board.port_holders(need),
            scores: Scores::default(),
            rises,
            followed: board.log().len(),
        };
        for node in 0..board.len() {
            if new.refused[node].is_none() {
                let why = board.refuses(node, &need.reserved, new.holds_port(node));
                new.tally.moves(None, why);
                new.refused[node] = why;
            }
        }
        if need.is_scored() {
            new.scores = Scores::of((0..board.len()).map(|node| new.score(board, need, node)).collect());
        }
        new
    }

    /// Takes in what was taken since the last look. `need_of` tells the need of a group.
    pub(super) fn follow<'n, 'a: 'n>(&mut self, board: &Board<'_>, need: &Need<'_>, need_of: impl Fn(usize) -> &'n Need<'a>) {
        for (node, taker) in &board.log()[self.followed..] {
            let node = *node;
            let before = self.refused[node];
            if before.is_some_and(Unfit::is_fixed) {
                continue;
            }
            if let Some(held) = self.is_port_held.get_mut(node) {
                *held = *held || need.collides(need_of(*taker));
            }
            let why = board.refuses(node, &need.reserved, self.holds_port(node));
            self.tally.moves(before, why);
            self.refused[node] = why;
            // What takes it no more is not to come back in this pass: then there is nothing to score.
            if need.is_scored() && before.is_none() {
                let score = self.score(board, need, node);
                self.scores.set(node, score);
            }
        }
        self.followed = board.log().len();
    }

    /// How many nodes take it.
    pub(super) fn fitting(&self) -> usize {
        self.refused.len() - self.tally.refused()
    }

    /// Why none takes it.
    pub(super) fn why_none(&self, need: &Need<'_>) -> String {
        self.tally.why_none(self.refused.len(), need)
    }

    /// The best of the nodes that take it, those that are avoided only where there is no other; none where none takes it. For `round-robin` the
    /// first from `turn` on.
    pub(super) fn choose<'a>(&self, board: &Board<'a>, need: &Need<'_>, turn: usize, avoids: &[Name]) -> Option<Choice<'a>> {
        let fitting = self.fitting();
        if fitting == 0 {
            return None;
        }
        let mut avoided: Vec<usize> = avoids.iter().filter_map(|name| board.find(name)).filter(|node| self.takes(*node)).collect();
        avoided.sort_unstable();
        avoided.dedup();
        let others = fitting - avoided.len();
        let (node, of) = match others {
            0 => (self.best(need, turn, &[])?, fitting),
            _ => (self.best(need, turn, &avoided)?, others),
        };
        let failed_here = avoided.binary_search(&node).is_ok();
        let avoided = if failed_here { Vec::new() } else { avoided.into_iter().map(|node| board.name(node)).collect() };
        Some(Choice { node, of, avoided, failed_here })
    }

    fn best(&self, need: &Need<'_>, turn: usize, except: &[usize]) -> Option<usize> {
        if !need.is_scored() {
            let may_have_it = |node: &usize| self.takes(*node) && !except.contains(node);
            let turn = turn.min(self.refused.len());
            return (turn..self.refused.len()).chain(0..turn).find(may_have_it);
        }
        if except.is_empty() { self.scores.best() } else { self.scores.best_except(except) }
    }

    fn takes(&self, node: usize) -> bool {
        self.refused[node].is_none()
    }

    fn holds_port(&self, node: usize) -> bool {
        self.is_port_held.get(node).copied().unwrap_or(false)
    }

    fn score(&self, board: &Board<'_>, need: &Need<'_>, node: usize) -> Score {
        if !self.takes(node) {
            return NO_SCORE;
        }
        match need.strategy {
            Strategy::Spread => board.load(node).spread(&need.reserved),
            Strategy::Binpack => board.load(node).binpack(&need.reserved),
            Strategy::Epvm => epvm(board.costs(node), &self.rises[board.size_of(node)]),
            Strategy::RoundRobin => NO_SCORE,
        }
    }
}

/// A node for a pod.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Choice<'a> {
    pub(super) node: usize,
    /// Of how many.
    of: usize,
    /// Those that would take it too, and where pods of its name failed.
    avoided: Vec<&'a Name>,
    /// Whether the node is such a one itself.
    failed_here: bool,
}

impl Choice<'_> {
    /// `least loaded of 3 that fit (spread); n2 was avoided: it failed there`.
    pub(super) fn reason(&self, strategy: Strategy) -> String {
        let mut reason = match (self.of, self.avoided.is_empty()) {
            (1, true) => "the only one that fits".to_owned(),
            (1, false) => "the only other one that fits".to_owned(),
            (several, _) => format!("{} of {several} that fit ({strategy})", superlative(strategy)),
        };
        if self.failed_here {
            reason += ", though it failed there before";
        }
        if let Some((last, others)) = self.avoided.split_last() {
            let names: String = others.iter().map(|name| format!("{name}, ")).collect();
            reason += &format!("; {names}{last} {} avoided: it failed there", if others.is_empty() { "was" } else { "were" });
        }
        reason
    }
}

/// Nodes under one of the marks of [`Scores`]: the square root of some thousands, so that neither the nodes below a mark nor the marks are many.
const BLOCK: usize = 64;

/// A score by node, and the best of each block of nodes. A change costs a look at its block at most, the best of all a look at every block: a
/// heap would be faster for a million nodes, and has to be cleared of what is out of date.
#[derive(Debug, Default)]
struct Scores {
    scores: Vec<Score>,
    /// The best of each block, and its node.
    best: Vec<(Score, usize)>,
}

impl Scores {
    fn of(scores: Vec<Score>) -> Self {
        let mut new = Self { best: Vec::with_capacity(scores.len().div_ceil(BLOCK)), scores };
        for block in 0..new.scores.len().div_ceil(BLOCK) {
            new.best.push(new.best_of(block));
        }
        new
    }

    /// The first of the best.
    fn best_of(&self, block: usize) -> (Score, usize) {
        let first = block * BLOCK;
        let mut best = (NO_SCORE, first);
        for (index, score) in self.scores[first..].iter().take(BLOCK).enumerate() {
            if *score < best.0 {
                best = (*score, first + index);
            }
        }
        best
    }

    fn set(&mut self, node: usize, score: Score) {
        self.scores[node] = score;
        let block = node / BLOCK;
        if self.best[block].1 == node {
            self.best[block] = self.best_of(block);
        } else {
            self.best[block] = self.best[block].min((score, node));
        }
    }

    fn best(&self) -> Option<usize> {
        let best = self.best.iter().min()?;
        (best.0 != NO_SCORE).then_some(best.1)
    }

    /// Looks at every node: few pods have something to avoid.
    fn best_except(&self, except: &[usize]) -> Option<usize> {
        let others = self.scores.iter().enumerate().filter(|(node, score)| **score != NO_SCORE && !except.contains(node));
        others.min_by_key(|(_, score)| **score).map(|(node, _)| node)
    }
}
