//! What some seeds covered, in numbers.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::run::Outcome;

/// Sums over seeds.
#[derive(Debug, Default)]
pub struct Summary {
    pub seeds: u64,
    pub simulated: Duration,
    pub slowest_rest: Duration,
    /// Lives of pods that users made themselves.
    pub pods: u64,
    /// Deployments and jobs.
    pub owners: u64,
    /// Writes.
    pub acknowledged: u64,
    /// Answers that didn't come.
    pub unknown: u64,
    /// Events of watches, and how often one was opened.
    pub events: u64,
    pub watches: u64,
    /// By kind.
    pub faults: BTreeMap<&'static str, u64>,
}

impl Summary {
    pub fn take(&mut self, outcome: &Outcome) {
        self.seeds += 1;
        self.simulated += outcome.simulated;
        self.slowest_rest = self.slowest_rest.max(outcome.rested_after);
        self.pods += outcome.counts.pods;
        self.owners += outcome.owners;
        self.acknowledged += outcome.counts.acknowledged;
        self.unknown += outcome.counts.unknown;
        self.events += outcome.watched.0;
        self.watches += outcome.watched.1;
        for (kind, count) in &outcome.faults {
            *self.faults.entry(kind).or_default() += count;
        }
    }

    /// In lines for people; `took` is real time.
    pub fn told(&self, took: Duration) -> String {
        let simulated = self.simulated.as_secs_f64();
        let mut lines = vec![
            format!("seeds             {}", self.seeds),
            format!("simulated         {:.1} h, {:.0} s in a second", simulated / 3_600.0, simulated / took.as_secs_f64()),
            format!("pods              {} lives, {} writes acknowledged, {} answers lost", self.pods, self.acknowledged, self.unknown),
            format!("owners            {} deployments and jobs", self.owners),
            format!("watched           {} changes, {} times begun or resumed", self.events, self.watches),
            format!("slowest recovery  {:.0} s after the last fault", self.slowest_rest.as_secs_f64()),
            format!("faults            {}", self.faults.values().sum::<u64>()),
        ];
        lines.extend(self.faults.iter().map(|(kind, count)| format!("  {kind:<18}{count:>8}")));
        lines.join("\n")
    }
}
