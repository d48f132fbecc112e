//! How long to wait before something is tried again. Pure: the caller brings the dice and does the waiting.

use std::time::Duration;

/// A factor from 0.8 to 1.2, so that what failed together (nodes that lost one leader, say) is not tried together.
#[derive(Debug, Clone, Copy)]
pub struct Jitter(f64);

impl Jitter {
    /// The one that makes a wait the longest.
    pub const MOST: Self = Self(1.2);

    /// From any number, uniformly.
    pub fn from_random(random: u64) -> Self {
        Self(0.8 + 0.4 * (random as f64 / u64::MAX as f64))
    }

    /// A wait, spread.
    pub fn spread(self, wait: Duration) -> Duration {
        wait.mul_f64(self.0)
    }
}

/// The shortest wait and the longest.
#[derive(Debug, Clone, Copy)]
pub struct Waits {
    /// After the first failure.
    pub first: Duration,
    /// However many there were.
    pub most: Duration,
}

impl Waits {
    /// From `first`, doubling to `most`.
    pub const fn new(first: Duration, most: Duration) -> Self {
        Self { first, most }
    }

    /// The wait after so many failures in a row, at least one, not spread.
    pub fn after(self, failures: u32) -> Duration {
        // 2^20 times any `first` of a millisecond or more is over any sensible `most`.
        self.first.saturating_mul(1 << failures.saturating_sub(1).min(20)).min(self.most)
    }
}

/// Counts failures in a row; every wait is spread.
#[derive(Debug, Clone)]
pub struct Backoff {
    waits: Waits,
    failures: u32,
}

impl Backoff {
    /// One that has seen no failure.
    pub const fn new(first: Duration, most: Duration) -> Self {
        Self { waits: Waits::new(first, most), failures: 0 }
    }

    /// Notes a failure; the wait after it. `random` is any number, uniformly.
    pub fn next(&mut self, random: u64) -> Duration {
        self.failures = self.failures.saturating_add(1);
        Jitter::from_random(random).spread(self.waits.after(self.failures))
    }

    /// It works again.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_to_the_most_and_begin_again_after_a_reset() {
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(30));
        let middle = u64::MAX / 2;
        let waits: Vec<_> = (0..40).map(|_| backoff.next(middle).as_millis()).collect();
        assert_eq!(waits[..4], [200, 400, 800, 1600]);
        assert_eq!(waits[39], 30_000);
        backoff.reset();
        assert_eq!(backoff.next(middle).as_millis(), 200);
    }

    #[test]
    fn waits_are_spread_by_a_fifth() {
        let wait = |random| Backoff::new(Duration::from_secs(10), Duration::from_secs(10)).next(random);
        assert_eq!((wait(0), wait(u64::MAX)), (Duration::from_secs(8), Duration::from_secs(12)));
    }
}
