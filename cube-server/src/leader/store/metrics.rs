//! What the store counts of its own work, as handles that [`crate::leader::metrics`] shows.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

/// The store's counters. Clones share them.
#[derive(Clone)]
pub struct StoreMetrics {
    /// Operations that were answered after a commit, refusals too.
    pub writes: Counter,
    /// Commits.
    pub batches: Counter,
    /// How long a commit took, from its first decision.
    pub commit_seconds: Histogram,
    /// Writes that found the queue full.
    pub busy: Counter,
    /// Writes that were refused for want of room on the disk.
    pub no_space: Counter,
    /// Who follows the changes now.
    pub watchers: Gauge,
    /// Watchers that the ring had left behind.
    pub left_behind: Counter,
}

impl Default for StoreMetrics {
    fn default() -> Self {
        Self {
            writes: Counter::default(),
            batches: Counter::default(),
            // 100 us to 3.3 s.
            commit_seconds: Histogram::new(exponential_buckets(0.0001, 2.0, 16)),
            busy: Counter::default(),
            no_space: Counter::default(),
            watchers: Gauge::default(),
            left_behind: Counter::default(),
        }
    }
}

impl StoreMetrics {
    pub(super) fn committed(&self, writes: usize, took: Duration) {
        self.writes.inc_by(writes as u64);
        self.batches.inc();
        self.commit_seconds.observe(took.as_secs_f64());
    }
}

/// Who follows the changes, for as long as it does.
pub(super) struct Watcher {
    metrics: StoreMetrics,
}

impl Watcher {
    pub(super) fn new(metrics: StoreMetrics) -> Self {
        metrics.watchers.inc();
        Self { metrics }
    }

    pub(super) fn is_left_behind(&self) {
        self.metrics.left_behind.inc();
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.metrics.watchers.dec();
    }
}
