//! One seed, from its first step to its verdict.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use crate::checks::{Checks, Violation, violation};
use crate::faults::Faults;
use crate::rest;
use crate::workload::Counts;
use crate::world::{Settings, World};

/// Between two looks at everything. Every change of the store is seen, however many there are between two looks, and engines keep counts.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Between two looks at whether the cluster rests.
const REST_EVERY: Duration = Duration::from_millis(500);
/// How long after the last fault the cluster must be at rest: nodes dial again within 12 s, a crashed container is started again within 72 s.
const REST_WITHIN: Duration = Duration::from_secs(150);
/// How long it must stay so: a relist and a pass of every loop.
const REST_FOR: Duration = Duration::from_secs(12);

/// What became of a seed.
pub struct Outcome {
    pub seed: u64,
    pub verdict: Result<(), Violation>,
    /// How long it was in simulated time, and how much of that it took to rest.
    pub simulated: Duration,
    pub rested_after: Duration,
    pub faults: BTreeMap<&'static str, u64>,
    pub counts: Counts,
    /// Deployments and jobs.
    pub owners: u64,
    /// Events of the watch, and how often it was opened.
    pub watched: (u64, u64),
    pub trace: Vec<String>,
    /// Names the trace.
    pub hash: String,
}

/// Runs a seed.
pub fn run(settings: &Settings) -> Outcome {
    let mut world = World::new(settings);
    let mut faults = Faults::plan(settings);
    let mut healed_at = Duration::ZERO;
    let ran = catch_unwind(AssertUnwindSafe(|| drive(settings, &mut world, &mut faults, &mut healed_at)));
    let verdict = ran.unwrap_or_else(|panic| {
        let words = panic.downcast_ref::<String>().cloned().or_else(|| panic.downcast_ref::<&str>().map(|words| (*words).to_owned()));
        Err(violation("panic", words.unwrap_or_default()))
    });
    if let Err(violation) = &verdict {
        world.trace.note("verdict", violation);
    }
    let simulated = world.clock.now();
    Outcome {
        seed: settings.seed,
        verdict,
        simulated,
        rested_after: simulated.saturating_sub(healed_at),
        faults: faults.happened,
        counts: world.expected.counts(),
        owners: world.owned.made(),
        watched: world.mirror.counts(),
        trace: world.trace.lines(),
        hash: world.trace.hash(),
    }
}

fn drive(settings: &Settings, world: &mut World, faults: &mut Faults, healed_at: &mut Duration) -> Result<(), Violation> {
    let mut checks = Checks::default();
    while world.clock.now() < settings.length {
        step(world, &mut checks)?;
        if faults.next().is_some_and(|at| at <= world.clock.now()) {
            // A leader that is about to be killed has published what it has.
            checks.look_at_store(world)?;
            faults.act(world);
        }
    }
    checks.look_at_store(world)?;
    faults.heal(world);
    *healed_at = world.clock.now();
    let (mut rests_since, mut told, mut unsaid) = (None, None, rest::Unsaid::default());
    loop {
        step(world, &mut checks)?;
        let now = world.clock.now();
        if !now.as_millis().is_multiple_of(REST_EVERY.as_millis()) {
            continue;
        }
        let unmet = rest::unmet(world, &mut unsaid);
        if unmet.first() != told.as_ref() {
            told = unmet.first().cloned();
            world.trace.note("rest", told.as_deref().unwrap_or("everything is as it should be"));
        }
        match (unmet.first(), rests_since) {
            (None, None) => rests_since = Some(now),
            (None, Some(since)) if now - since >= REST_FOR => break,
            (None, Some(_)) => {}
            (Some(first), _) => {
                rests_since = None;
                if now - *healed_at > REST_WITHIN {
                    return Err(violation("liveness", format!("{} s after the last fault: {first}", REST_WITHIN.as_secs())));
                }
            }
        }
    }
    rest::check_strangers(world)
}

fn step(world: &mut World, checks: &mut Checks) -> Result<(), Violation> {
    world.step().map_err(|error| violation("panic", error))?;
    if world.has_stopped() {
        checks.look_at_store(world)?;
        world.revive();
    }
    if world.clock.now().as_millis().is_multiple_of(LOOK_EVERY.as_millis()) { checks.look(world) } else { Ok(()) }
}
