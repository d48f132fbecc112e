//! Simulated time, and the clock and the dice of each simulated process.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cube_server::ambient::{Ambient, Source};
use jiff::{SignedDuration, Timestamp};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, RngExt, SeedableRng};

/// When every simulation begins: 2026-01-01T00:00:00Z, in seconds.
const EPOCH: i64 = 1_767_225_600;

/// The time since the simulation began: within a host to the millisecond, between two steps that of the last one.
#[derive(Clone, Default)]
pub struct Clock {
    stepped: Arc<AtomicU64>,
}

impl Clock {
    pub fn now(&self) -> Duration {
        turmoil::sim_elapsed().unwrap_or_else(|| Duration::from_nanos(self.stepped.load(Ordering::Relaxed)))
    }

    /// The simulation has made a step.
    pub fn step_to(&self, elapsed: Duration) {
        self.stepped.store(u64::try_from(elapsed.as_nanos()).expect("a simulation of less than 500 years"), Ordering::Relaxed);
    }
}

/// How far a machine's time of day is off. Outlives the processes on it.
#[derive(Clone, Default)]
pub struct Offset {
    millis: Arc<AtomicI64>,
}

impl Offset {
    /// Two machines of three have a clock that is right.
    pub fn drawn(dice: &mut StdRng) -> Self {
        let offset = Self::default();
        if dice.random_ratio(1, 3) {
            offset.set(*[-3_600_000, -90_000, -2_500, 1_500, 45_000, 7_200_000].choose(dice).expect("not empty"));
        }
        offset
    }

    /// Sets the machine's clock forward or back.
    pub fn set(&self, millis: i64) {
        self.millis.store(millis, Ordering::Relaxed);
    }

    fn get(&self) -> SignedDuration {
        SignedDuration::from_millis(self.millis.load(Ordering::Relaxed))
    }
}

struct Simulated {
    clock: Clock,
    offset: Offset,
    dice: Mutex<StdRng>,
}

impl Source for Simulated {
    fn now(&self) -> Timestamp {
        let elapsed = SignedDuration::try_from(self.clock.now()).expect("a simulation of less than 500 years");
        Timestamp::from_second(EPOCH).expect("a time of now") + elapsed + self.offset.get()
    }

    fn random(&self) -> u64 {
        self.dice.lock().expect("nothing panics while it is held").next_u64()
    }
}

/// The surroundings of one process: its machine's clock, and dice of its own.
pub fn ambient(clock: &Clock, offset: &Offset, dice: StdRng) -> Ambient {
    Ambient::new(Simulated { clock: clock.clone(), offset: offset.clone(), dice: Mutex::new(dice) })
}

/// Dice that follow from the seed and from what they are for: none takes a number from another.
pub fn dice(seed: u64, purpose: &str) -> StdRng {
    use sha2::{Digest, Sha256};
    let digest = Sha256::new().chain_update(seed.to_be_bytes()).chain_update(purpose).finalize();
    StdRng::from_seed(digest.into())
}
