//! A few seeds of the simulation, and that a seed decides everything. `scripts/simulate` runs many.

mod checks;
mod client;
mod clock;
mod faults;
mod images;
mod machine;
mod network;
mod operator;
mod owners;
mod rest;
mod run;
mod summary;
mod trace;
mod watcher;
mod workload;
mod world;

use std::time::Instant;

use summary::Summary;
use world::Settings;

/// The first of so many seeds: others than those of `scripts/simulate` without arguments.
const FIRST: u64 = 1_000_000;

/// Runs seeds; the trace of the first that fails is shown.
fn hold(seeds: std::ops::Range<u64>) {
    let (mut summary, began) = (Summary::default(), Instant::now());
    for seed in seeds {
        let outcome = run::run(&Settings::of(FIRST + seed));
        summary.take(&outcome);
        if let Err(violation) = outcome.verdict {
            let last = outcome.trace.len().saturating_sub(200);
            panic!("seed {}: {violation}\n{}", outcome.seed, outcome.trace[last..].join("\n"));
        }
    }
    println!("{}", summary.told(began.elapsed()));
    assert!(
        summary.faults.len() >= 8 && summary.acknowledged >= 100 && summary.watches >= summary.seeds,
        "hardly anything was tried: {summary:?}"
    );
}

// In four parts, which run at the same time.

#[test]
fn promises_hold_through_the_faults_of_nine_seeds() {
    hold(0..9);
}

#[test]
fn promises_hold_through_the_faults_of_nine_more_seeds() {
    hold(9..18);
}

#[test]
fn promises_hold_through_the_faults_of_yet_nine_more_seeds() {
    hold(18..27);
}

#[test]
fn promises_hold_through_the_faults_of_the_last_nine_seeds() {
    hold(27..36);
}

#[test]
fn the_same_seed_twice_gives_the_same_trace() {
    for seed in 0..4 {
        let [one, two] = [(); 2].map(|()| run::run(&Settings::of(FIRST + seed)));
        let (hashes, one, two) = ((one.hash, two.hash), one.trace, two.trace);
        let differing = one.iter().zip(&two).position(|(one, two)| one != two);
        if let Some(line) = differing {
            panic!("seed {seed} differs from line {line} on:\n  {}\n  {}", one[line], two[line]);
        }
        assert_eq!(one.len(), two.len(), "seed {seed}: one run has more events");
        assert_eq!(hashes.0, hashes.1);
        assert!(one.len() > 100, "seed {seed}: hardly anything happened");
    }
}
