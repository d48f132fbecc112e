//! For one need: which nodes take it, why the others don't, and the best of those that do.

use cube_api::meta::Name;
use cube_api::pod::Strategy;

use super::board::{Board, Spot};
use super::filters::{Tally, Unfit};
use super::need::Need;
use super::strategies::{Costs, NO_SCORE, Score, Shares, binpack, epvm, is_scored, rises, shares, spread, superlative};

/// The nodes as a need sees them, as of a place in the board's log.
pub(super) struct Ranking {
    /// By node; none: it takes the pod.
    refused: Vec<Option<Unfit>>,
    tally: Tally,
    /// By node, whether it can't publish a port of the need; empty where the need has none.
    is_port_held: Vec<bool>,
    scorer: Scorer,
    /// Empty where nodes have turns.
    scores: Scores,
    /// How much of the board's log is in it.
    followed: usize,
}

/// What of a strategy's rule depends on the need only, by size of nodes.
enum Scorer {
    Spread(Vec<Shares>),
    Binpack(Vec<Shares>),
    Epvm(Vec<Costs>),
    Turns,
}

impl Scorer {
    fn new(board: &Board<'_>, need: &Need<'_>) -> Self {
        let shares = || board.sizes().iter().map(|size| shares(&need.reserved, size)).collect();
        match need.strategy {
            Strategy::Spread => Self::Spread(shares()),
            Strategy::Binpack => Self::Binpack(shares()),
            Strategy::Epvm => Self::Epvm(board.sizes().iter().map(|size| rises(&need.reserved, size)).collect()),
            Strategy::RoundRobin => Self::Turns,
        }
    }

    fn score(&self, node: usize, spot: &Spot, costs: &[Costs]) -> Score {
        let Spot { pods, shares, size, .. } = spot;
        match self {
            Self::Spread(need) => spread(*pods, shares, &need[*size as usize]),
            Self::Binpack(need) => binpack(*pods, shares, &need[*size as usize]),
            Self::Epvm(rises) => epvm(&costs[node], &rises[*size as usize]),
            Self::Turns => NO_SCORE,
        }
    }

    /// The score of each node that isn't refused; empty where nodes have turns. The strategy is asked once here, and not for every node.
    fn scores(&self, board: &Board<'_>, refused: &[Option<Unfit>]) -> Vec<Score> {
        fn each(board: &Board<'_>, refused: &[Option<Unfit>], score: impl Fn(usize, &Spot) -> Score) -> Vec<Score> {
            let nodes = board.spots().iter().zip(refused).enumerate();
            nodes.map(|(node, (spot, refused))| if refused.is_none() { score(node, spot) } else { NO_SCORE }).collect()
        }
        match self {
            Self::Spread(need) => each(board, refused, |_, spot| spread(spot.pods, &spot.shares, &need[spot.size as usize])),
            Self::Binpack(need) => each(board, refused, |_, spot| binpack(spot.pods, &spot.shares, &need[spot.size as usize])),
            Self::Epvm(rises) => each(board, refused, |node, spot| epvm(&board.costs()[node], &rises[spot.size as usize])),
            Self::Turns => Vec::new(),
        }
    }
}

impl Ranking {
    /// Looks at every node.
    pub(super) fn new<'a>(board: &mut Board<'a>, need: &Need<'a>) -> Self {
        let gate = board.gate(need);
        let (mut refused, mut tally) = (gate.refused.clone(), gate.tally);
        let (is_port_held, scorer) = (board.port_holders(need), Scorer::new(board, need));
        for (node, (spot, refused)) in board.spots().iter().zip(&mut refused).enumerate() {
            if refused.is_none() {
                *refused = spot.refuses(&need.reserved, is_port_held.get(node).copied().unwrap_or(false));
                tally.moves(None, *refused);
            }
        }
        let scores = Scores::of(scorer.scores(board, &refused));
        Self { refused, tally, is_port_held, scorer, scores, followed: board.log().len() }
    }

    /// Takes in what was taken since the last look. `need_of` tells the need of a group.
    pub(super) fn follow<'n, 'a: 'n>(&mut self, board: &Board<'_>, need: &Need<'_>, need_of: impl Fn(usize) -> &'n Need<'a>) {
        for (node, taker) in &board.log()[self.followed..] {
            let node = *node as usize;
            let before = self.refused[node];
            if before.is_some_and(Unfit::is_fixed) {
                continue;
            }
            if let Some(held) = self.is_port_held.get_mut(node) {
                *held = *held || need.collides(need_of(*taker as usize));
            }
            let spot = &board.spots()[node];
            let why = spot.refuses(&need.reserved, self.is_port_held.get(node).copied().unwrap_or(false));
            if why != before {
                self.tally.moves(before, why);
                self.refused[node] = why;
            }
            // What takes it no more is not to come back in this pass: then there is nothing to score.
            if before.is_none() && is_scored(need.strategy) {
                let score = if why.is_none() { self.scorer.score(node, spot, board.costs()) } else { NO_SCORE };
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
        if !is_scored(need.strategy) {
            let may_have_it = |node: &usize| self.takes(*node) && !except.contains(node);
            let turn = turn.min(self.refused.len());
            return (turn..self.refused.len()).chain(0..turn).find(may_have_it);
        }
        if except.is_empty() { self.scores.best() } else { self.scores.best_except(except) }
    }

    fn takes(&self, node: usize) -> bool {
        self.refused[node].is_none()
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

/// How many entries of one level stand under one of the next: a change looks at so many on each level.
const FAN: usize = 16;

/// A score by node, and above it levels of the best of each `FAN` entries below, until there is one. A change costs a few looks at `FAN` entries, the
/// best of all none. A heap would have to be cleared of what is out of date.
#[derive(Debug, Default)]
struct Scores {
    scores: Vec<Score>,
    /// Each entry is the best score below it, and its node: the first of equals.
    levels: Vec<Vec<(Score, u32)>>,
}

impl Scores {
    fn of(scores: Vec<Score>) -> Self {
        let mut below: Vec<_> = (0..).zip(scores.chunks(FAN)).map(|(chunk, scores)| best_score(chunk * FAN as u32, scores)).collect();
        let mut levels = Vec::new();
        while below.len() > 1 {
            let above = below.chunks(FAN).map(best_entry).collect();
            levels.push(std::mem::replace(&mut below, above));
        }
        levels.push(below);
        Self { scores, levels }
    }

    fn set(&mut self, node: usize, score: Score) {
        self.scores[node] = score;
        let mut place = node / FAN;
        let first = place * FAN;
        let mut best = best_score(first as u32, &self.scores[first..self.scores.len().min(first + FAN)]);
        for level in 0..self.levels.len() {
            if self.levels[level][place] == best {
                return;
            }
            self.levels[level][place] = best;
            place /= FAN;
            let first = place * FAN;
            let entries = &self.levels[level];
            best = best_entry(&entries[first..entries.len().min(first + FAN)]);
        }
    }

    fn best(&self) -> Option<usize> {
        let (score, node) = self.levels.last()?.first()?;
        (*score != NO_SCORE).then_some(*node as usize)
    }

    /// Looks at every node: few pods have something to avoid.
    fn best_except(&self, except: &[usize]) -> Option<usize> {
        let others = self.scores.iter().enumerate().filter(|(node, score)| **score != NO_SCORE && !except.contains(node));
        others.min_by_key(|(_, score)| **score).map(|(node, _)| node)
    }
}

/// The best of some scores, the first of which is that of this node.
fn best_score(first: u32, scores: &[Score]) -> (Score, u32) {
    let mut best = (NO_SCORE, first);
    for (score, node) in scores.iter().zip(first..) {
        if *score < best.0 {
            best = (*score, node);
        }
    }
    best
}

fn best_entry(entries: &[(Score, u32)]) -> (Score, u32) {
    let mut best = entries[0];
    for entry in &entries[1..] {
        if entry.0 < best.0 {
            best = *entry;
        }
    }
    best
}
