//! The clock and the dice, as one value that is passed in: a simulation gives each host its own.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;
use uuid::Uuid;

/// Where time of day and randomness come from. Waiting is tokio's clock, which tests can pause; this one is for what is stored and compared.
#[derive(Clone)]
pub struct Ambient {
    source: Arc<dyn Source>,
}

/// What an [`Ambient`] asks.
pub trait Source: Send + Sync + 'static {
    /// The time of day.
    fn now(&self) -> Timestamp;
    /// Any number, uniformly.
    fn random(&self) -> u64;
}

struct System;

impl Source for System {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn random(&self) -> u64 {
        rand::random()
    }
}

/// The time of day, with an eye on tokio's clock, which nobody can set: tells by how much the time of day was.
pub struct WatchedClock {
    ambient: Ambient,
    read_at: Instant,
    said: Timestamp,
}

impl WatchedClock {
    /// Below this it is the two clocks' drift, or the work between reading one and the other.
    const TOLERATED: SignedDuration = SignedDuration::from_secs(1);

    /// Watched from now on.
    pub fn new(ambient: Ambient) -> Self {
        Self { read_at: Instant::now(), said: ambient.now(), ambient }
    }

    /// The time of day, and by how much it was set since the call before.
    pub fn read(&mut self) -> (Timestamp, Option<SignedDuration>) {
        let (before, read_before) = (self.said, self.read_at);
        (self.said, self.read_at) = (self.ambient.now(), Instant::now());
        let passed = SignedDuration::try_from(self.read_at.duration_since(read_before)).unwrap_or(SignedDuration::MAX);
        let set = self.said.duration_since(before).saturating_sub(passed);
        (self.said, (set.abs() >= Self::TOLERATED).then_some(set))
    }
}

impl Ambient {
    /// The machine's.
    pub fn system() -> Self {
        Self::new(System)
    }

    /// Another one.
    pub fn new(source: impl Source) -> Self {
        Self { source: Arc::new(source) }
    }

    /// The time of day.
    pub fn now(&self) -> Timestamp {
        self.source.now()
    }

    /// Any number, uniformly.
    pub fn random(&self) -> u64 {
        self.source.random()
    }

    /// A new identity (UUID version 7: ordered by time, so that databases append).
    pub fn uuid(&self) -> Uuid {
        self.uuid_after(Uuid::nil())
    }

    /// A new identity that is greater than another one: where the clock says otherwise, it is of the millisecond after that one's.
    pub fn uuid_after(&self, other: Uuid) -> Uuid {
        // The first 48 bits of a version 7; any other tells no time.
        let others = if other.get_version_num() == 7 { u64::try_from(other.as_u128() >> 80).unwrap_or(0) } else { 0 };
        let millis = u64::try_from(self.now().as_millisecond()).unwrap_or(0).max(others.saturating_add(1));
        let random = (u128::from(self.random()) << 64 | u128::from(self.random())).to_be_bytes();
        let mut tail = [0; 10];
        tail.copy_from_slice(&random[..10]);
        uuid::Builder::from_unix_timestamp_millis(millis, &tail).into_uuid()
    }
}
