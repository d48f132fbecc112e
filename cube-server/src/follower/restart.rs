//! Restart policy: which ends lead to a restart, how long to wait, when to give up. Pure.

use std::time::Duration;

use cube_api::pod::RestartPolicy;
use jiff::{SignedDuration, Timestamp};

use crate::backoff::{Jitter, Waits};
use crate::follower::record::Streak;

/// Clean running for so long ends a streak of crashes.
const CLEAN_RUN: SignedDuration = SignedDuration::from_mins(2);

/// The first wait after a second crash in a row, and the longest.
const CRASH_WAITS: Waits = Waits::new(Duration::from_secs(1), Duration::from_secs(60));

/// The first wait after an image could not be had, and the longest.
const IMAGE_WAITS: Waits = Waits::new(Duration::from_secs(2), Duration::from_secs(120));

/// What follows from a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Try again after so long.
    Again(Duration),
    /// The limit is reached.
    GiveUp,
}

/// Whether a container that ended so is started again.
pub fn restarts(policy: RestartPolicy, failed: bool) -> bool {
    match policy {
        RestartPolicy::Always => true,
        RestartPolicy::OnFailure => failed,
        RestartPolicy::Never => false,
    }
}

/// Counts a crash (or a refused start). The first restart is at once; then 1 s, doubling to 60 s. `limit` 0: never give up.
pub fn after_crash(streak: &mut Streak, limit: u32, now: Timestamp, jitter: Jitter) -> Verdict {
    streak.failures = streak.failures.saturating_add(1);
    streak.clean_since = None;
    let wait = match streak.failures {
        0 | 1 => Duration::ZERO,
        more => CRASH_WAITS.after(more - 1),
    };
    verdict(streak, wait, limit, now, jitter)
}

/// Counts an image that could not be had: 2 s, doubling to 2 min. `limit` 0: never give up.
pub fn after_missing_image(streak: &mut Streak, limit: u32, now: Timestamp, jitter: Jitter) -> Verdict {
    streak.failures = streak.failures.saturating_add(1);
    let wait = IMAGE_WAITS.after(streak.failures);
    verdict(streak, wait, limit, now, jitter)
}

/// Notes that it runs, by Docker since `started`. When the streak will end, while there is one; after [`CLEAN_RUN`] there is none.
pub fn runs(streak: &mut Streak, started: Timestamp, now: Timestamp) -> Option<Timestamp> {
    if streak.failures == 0 {
        return None;
    }
    let clean_at = *streak.clean_since.get_or_insert(started.min(now)) + CLEAN_RUN;
    if now < clean_at {
        return Some(clean_at);
    }
    *streak = Streak::default();
    None
}

/// Whether a run ends the streak of crashes before it: by Docker's times, and, where this node saw it run, by its own too. A clock that was set
/// forward meanwhile makes any run a long one for Docker.
pub fn was_clean(streak: &Streak, started: Timestamp, finished: Timestamp, now: Timestamp) -> bool {
    let long = |since: Timestamp, until: Timestamp| until.duration_since(since) >= CLEAN_RUN;
    long(started, finished) && streak.clean_since.is_none_or(|since| long(since, now))
}

/// Brings back what is further away than the longest wait, or began after now.
pub fn believe_crashes(streak: &mut Streak, now: Timestamp) {
    believe(streak, CRASH_WAITS, now);
}

/// As [`believe_crashes`], for images that could not be had.
pub fn believe_images(streak: &mut Streak, now: Timestamp) {
    believe(streak, IMAGE_WAITS, now);
}

fn believe(streak: &mut Streak, waits: Waits, now: Timestamp) {
    let latest = now + Jitter::MOST.spread(waits.most);
    streak.due = streak.due.map(|due| due.min(latest));
    streak.clean_since = streak.clean_since.map(|since| since.min(now));
}

fn verdict(streak: &mut Streak, wait: Duration, limit: u32, now: Timestamp, jitter: Jitter) -> Verdict {
    if limit > 0 && streak.failures >= limit {
        streak.due = None;
        return Verdict::GiveUp;
    }
    let wait = jitter.spread(wait);
    streak.due = (!wait.is_zero()).then(|| now + wait);
    Verdict::Again(wait)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn even() -> Jitter {
        Jitter::from_random(u64::MAX / 2)
    }

    #[test]
    fn the_first_restart_is_at_once_then_1_s_doubling_to_60_s() {
        let mut streak = Streak::default();
        let waits: Vec<_> = (0..9)
            .map(|_| match after_crash(&mut streak, 0, Timestamp::UNIX_EPOCH, even()) {
                Verdict::Again(wait) => wait.as_secs(),
                Verdict::GiveUp => unreachable!("no limit"),
            })
            .collect();
        assert_eq!(waits, [0, 1, 2, 4, 8, 16, 32, 60, 60]);
    }

    #[test]
    fn the_tenth_crash_in_a_row_is_the_last() {
        let mut streak = Streak::default();
        let verdicts: Vec<_> = (0..10).map(|_| after_crash(&mut streak, 10, Timestamp::UNIX_EPOCH, even())).collect();
        assert!(verdicts[..9].iter().all(|verdict| *verdict != Verdict::GiveUp));
        assert_eq!(verdicts[9], Verdict::GiveUp);
    }

    #[test]
    fn image_tries_wait_2_s_doubling_to_2_min() {
        let mut streak = Streak::default();
        let waits: Vec<_> = (0..8).map(|_| after_missing_image(&mut streak, 0, Timestamp::UNIX_EPOCH, even())).collect();
        let secs = [2, 4, 8, 16, 32, 64, 120, 120];
        assert_eq!(waits, secs.map(|s| Verdict::Again(Duration::from_secs(s))));
    }
}
