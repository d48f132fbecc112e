//! The clock and the dice, as one value that is passed in: a simulation gives each host its own.

use std::sync::Arc;

use jiff::Timestamp;
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
        let millis = u64::try_from(self.now().as_millisecond()).unwrap_or(0);
        let random = (u128::from(self.random()) << 64 | u128::from(self.random())).to_be_bytes();
        let mut tail = [0; 10];
        tail.copy_from_slice(&random[..10]);
        uuid::Builder::from_unix_timestamp_millis(millis, &tail).into_uuid()
    }
}
