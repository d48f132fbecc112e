//! What a container wrote. A flood is arithmetic: its lines follow from its rate and the time, so that no number of them takes memory.

use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;

use super::script::Script;
use super::world::Moment;
use crate::follower::runtime::LogLine;

/// A container's log: a part for each time that it was started.
#[derive(Default)]
pub(super) struct Log {
    runs: Vec<Run>,
}

struct Run {
    began: Moment,
    ended: Option<Duration>,
    output: Vec<String>,
    flood: u32,
}

impl Log {
    pub(super) fn begin(&mut self, script: &Script, at: Moment) {
        self.runs.push(Run { began: at, ended: None, output: script.output.clone(), flood: script.flood });
    }

    pub(super) fn end(&mut self, at: Duration) {
        if let Some(run) = self.runs.last_mut() {
            run.ended.get_or_insert(at);
        }
    }

    /// Lines that are written by `now`.
    pub(super) fn length(&self, now: Duration) -> u64 {
        self.runs.iter().map(|run| run.length(now)).sum()
    }

    /// A line that is written by `now`, counted from 0.
    pub(super) fn line(&self, mut number: u64, now: Duration) -> Option<LogLine> {
        for run in &self.runs {
            let length = run.length(now);
            if number < length {
                return Some(run.line(number));
            }
            number -= length;
        }
        None
    }

    /// The first line that was written at or after that time of day; the log's length if there is none.
    pub(super) fn first_since(&self, since: Timestamp, now: Duration) -> u64 {
        let (mut low, mut high) = (0, self.length(now));
        while low < high {
            let middle = low.midpoint(high);
            if self.line(middle, now).is_some_and(|line| line.at < Some(since)) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// When it grows by itself.
    pub(super) fn grows_at(&self, now: Duration) -> Option<Duration> {
        let run = self.runs.last().filter(|run| run.ended.is_none() && run.flood > 0)?;
        Some(run.began.elapsed + run.offset(run.flooded(now)))
    }
}

impl Run {
    fn length(&self, now: Duration) -> u64 {
        self.output.len() as u64 + self.flooded(now)
    }

    fn flooded(&self, now: Duration) -> u64 {
        let ran = self.ended.unwrap_or(now).min(now).saturating_sub(self.began.elapsed);
        u64::try_from(ran.as_nanos() * u128::from(self.flood) / 1_000_000_000).unwrap_or(u64::MAX)
    }

    /// From the start to a line of the flood.
    fn offset(&self, number: u64) -> Duration {
        let nanos = (u128::from(number) + 1) * 1_000_000_000;
        Duration::from_nanos(u64::try_from(nanos.div_ceil(u128::from(self.flood.max(1)))).unwrap_or(u64::MAX))
    }

    fn line(&self, number: u64) -> LogLine {
        match usize::try_from(number).ok().and_then(|number| self.output.get(number)) {
            Some(text) => LogLine { at: Some(self.began.wall), bytes: Bytes::from(format!("{text}\n")) },
            None => {
                let number = number - self.output.len() as u64;
                LogLine { at: Some(self.began.wall + self.offset(number)), bytes: Bytes::from(format!("line {number}\n")) }
            }
        }
    }
}
