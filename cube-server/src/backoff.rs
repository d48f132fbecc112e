//! How long to wait before something is tried again. Pure: the caller brings the dice and does the waiting.

use std::time::Duration;

/// Doubles from `first` to `most` with each failure in a row; every wait is spread by 20 % either way, so that nodes that lost one leader
/// together don't come back together.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    most: Duration,
    failures: u32,
}

impl Backoff {
    /// One that has seen no failure.
    pub const fn new(first: Duration, most: Duration) -> Self {
        Self { first, most, failures: 0 }
    }

    /// Notes a failure; the wait after it. `random` is any number, uniformly.
    pub fn next(&mut self, random: u64) -> Duration {
        // 2^20 times any `first` of a millisecond or more is over any sensible `most`.
        let doubled = self.first.saturating_mul(1 << self.failures.min(20)).min(self.most);
        self.failures = self.failures.saturating_add(1);
        let spread = 0.8 + 0.4 * (random as f64 / u64::MAX as f64);
        doubled.mul_f64(spread)
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
