//! Runs many seeds of the simulation, or one with its trace. `scripts/simulate --help` says how.

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

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

use clap::Parser;
use summary::Summary;
use world::Settings;

/// Between two signs of life.
const TELL_EVERY: Duration = Duration::from_secs(30);

/// The real leader and followers on a simulated network, clock and engine, with faults. A seed decides everything.
#[derive(Parser)]
#[command(name = "simulate")]
struct Options {
    /// How many seeds to run.
    #[arg(long, default_value_t = 200)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Runs this one alone and prints its trace.
    #[arg(long, conflicts_with_all = ["seeds", "from"])]
    seed: Option<u64>,
    /// Seeds at a time [default: the machine's cores].
    #[arg(long)]
    jobs: Option<usize>,
    /// Nodes besides the leader.
    #[arg(long, default_value_t = 3)]
    nodes: usize,
    /// Pods that users want.
    #[arg(long, default_value_t = 20)]
    pods: usize,
    /// For how many simulated seconds users ask and faults begin.
    #[arg(long, default_value_t = 60)]
    length: u64,
    /// Goes on after a seed that fails.
    #[arg(long)]
    keep_going: bool,
    /// Cargo passes it to benchmarks.
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    fn settings(&self, seed: u64) -> Settings {
        Settings { nodes: self.nodes, pods: self.pods, length: Duration::from_secs(self.length), ..Settings::of(seed) }
    }

    fn replay(&self, seed: u64) -> String {
        let usual = Options::parse_from(["simulate"]);
        let mut command = format!("scripts/simulate --seed {seed}");
        for (flag, given, default) in [
            ("--nodes", self.nodes as u64, usual.nodes as u64),
            ("--pods", self.pods as u64, usual.pods as u64),
            ("--length", self.length, usual.length),
        ] {
            if given != default {
                command.push_str(&format!(" {flag} {given}"));
            }
        }
        command
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    // A panic is a verdict, told with its seed.
    std::panic::set_hook(Box::new(|_| {}));
    match options.seed {
        Some(seed) => one(&options, seed),
        None => many(&options),
    }
}

fn one(options: &Options, seed: u64) -> ExitCode {
    let began = Instant::now();
    let outcome = run::run(&options.settings(seed));
    for line in &outcome.trace {
        println!("{line}");
    }
    let mut summary = Summary::default();
    summary.take(&outcome);
    println!("{}", summary.told(began.elapsed()));
    println!("trace {}", outcome.hash);
    match outcome.verdict {
        Ok(()) => ExitCode::SUCCESS,
        Err(violation) => {
            println!("seed {seed} FAILED: {violation}");
            ExitCode::FAILURE
        }
    }
}

fn many(options: &Options) -> ExitCode {
    let began = Instant::now();
    let jobs = options.jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(2, usize::from));
    let (next, end) = (AtomicU64::new(options.from), options.from + options.seeds);
    let mut summary = Summary::default();
    let mut failed: BTreeMap<u64, String> = BTreeMap::new();
    let (outcomes, came) = mpsc::channel();
    let (stop, mut told) = (Mutex::new(false), began);
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            let outcomes = outcomes.clone();
            let (next, stop) = (&next, &stop);
            scope.spawn(move || {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end || *stop.lock().expect("nothing panics while it is held") {
                        return;
                    }
                    // Whoever takes them waits for all.
                    drop(outcomes.send(run::run(&options.settings(seed))));
                }
            });
        }
        drop(outcomes);
        for outcome in came {
            summary.take(&outcome);
            if let Err(violation) = &outcome.verdict {
                println!("seed {} FAILED: {violation}\n  {}", outcome.seed, options.replay(outcome.seed));
                failed.insert(outcome.seed, violation.promise.to_owned());
                *stop.lock().expect("nothing panics while it is held") = !options.keep_going;
            }
            if told.elapsed() >= TELL_EVERY {
                eprintln!("{} of {} seeds", summary.seeds, options.seeds);
                told = Instant::now();
            }
        }
    });
    println!("{}", summary.told(began.elapsed()));
    if failed.is_empty() {
        println!("every promise held");
        return ExitCode::SUCCESS;
    }
    println!("{} of {} seeds FAILED: {failed:?}", failed.len(), summary.seeds);
    ExitCode::FAILURE
}
