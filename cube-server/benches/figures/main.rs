//! cube's figures, measured against what the engine itself can do: `scripts/bench start|exec|logs|job|idle|recover|probes|rollout`; and what a leader bears, without an
//! engine: `scripts/bench scale|lost|scheduler`. README.md in the folder above has what was found.
//!
//! Everything is made under a node name of its own and removed at the end, after a failure and after Ctrl-C too. Not a test: what is too slow
//! is printed, never failed.

mod cluster;
mod commands;
mod engine;
mod floor;
mod http;
mod idle;
mod job;
mod podman;
mod probes;
mod recover;
mod report;
mod rollout;
mod scale;
mod scheduler;
mod start;
mod swarm;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use crate::engine::Engine;
use crate::report::Report;

#[derive(Parser)]
struct Args {
    /// One JSON object instead of a table.
    #[arg(long, global = true)]
    json: bool,
    /// The engine's socket.
    #[arg(long, global = true, default_value = "/var/run/docker.sock")]
    docker: PathBuf,
    /// Cargo passes this to every benchmark.
    #[arg(long, global = true, hide = true)]
    bench: bool,
    #[command(subcommand)]
    figure: Figure,
}

#[derive(Subcommand)]
enum Figure {
    /// From an apply to Running, against the bare Docker calls, Docker Swarm and podman, in turns.
    Start(start::Options),
    /// `cube exec` of `true` against `docker exec`.
    Exec {
        /// How often each.
        #[arg(long, default_value_t = 20)]
        rounds: usize,
    },
    /// `cube logs` against `docker logs`, and the server's memory meanwhile.
    Logs {
        /// How much is read in a turn, in megabytes.
        #[arg(long, default_value_t = 200)]
        megabytes: u64,
        /// How often each.
        #[arg(long, default_value_t = 3)]
        rounds: usize,
    },
    /// A job of short pods, against the bare Docker calls.
    Job(job::Options),
    /// Memory with pods that do nothing, time until ready, sizes of the binaries.
    Idle {
        /// How many pods.
        #[arg(long, default_value_t = 10)]
        pods: usize,
    },
    /// How soon a leader serves again after kill -9.
    Recover {
        /// How many pods it has.
        #[arg(long, default_value_t = 1_000)]
        pods: usize,
        /// How often it is killed.
        #[arg(long, default_value_t = 10)]
        kills: usize,
    },
    /// What a follower's probes cost it.
    Probes(probes::Options),
    /// A deployment's rolling update under requests: which of them fail, and how long it takes.
    Rollout(rollout::Options),
    /// A leader with many hollow nodes: pods a second, latencies, cost, recovery. Needs no engine.
    Scale(scale::Options),
    /// How soon the pods of a killed node run elsewhere. Needs no engine.
    Lost(scale::LostOptions),
    /// Decisions of the scheduler alone, in memory.
    Scheduler(scheduler::Options),
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    let report = match &args.figure {
        Figure::Scale(options) => until_interrupted(scale::measure(options)).await?,
        Figure::Lost(options) => until_interrupted(scale::measure_lost(options)).await?,
        Figure::Scheduler(options) => scheduler::measure(options)?,
        Figure::Start(_)
        | Figure::Exec { .. }
        | Figure::Logs { .. }
        | Figure::Job(_)
        | Figure::Idle { .. }
        | Figure::Recover { .. }
        | Figure::Probes(_)
        | Figure::Rollout(_) => on_engine(&args).await?,
    };
    report.print(args.json);
    Ok(())
}

/// What is dropped by a signal kills the processes that it started.
async fn until_interrupted(measuring: impl Future<Output = Result<Report>>) -> Result<Report> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        measured = measuring => measured,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
        _ = terminate.recv() => Err(anyhow::anyhow!("terminated")),
    }
}

async fn on_engine(args: &Args) -> Result<Report> {
    // Another run on the same engine has another name, and neither removes the other's containers.
    let engine = Engine::new(&args.docker, format!("bench-{}", std::process::id()));
    let measured = until_interrupted(measure(&args.figure, &engine)).await;
    let (left, swept) = (swarm::leave(&engine).await, engine.sweep().await);
    let report = measured?;
    left.and(swept)?;
    Ok(report)
}

async fn measure(figure: &Figure, engine: &Engine) -> Result<Report> {
    match figure {
        Figure::Start(options) => start::measure(engine, options).await,
        Figure::Exec { rounds } => commands::exec(engine, *rounds).await,
        Figure::Logs { megabytes, rounds } => commands::logs(engine, *megabytes, *rounds).await,
        Figure::Job(options) => job::measure(engine, options).await,
        Figure::Idle { pods } => idle::measure(engine, *pods).await,
        Figure::Recover { pods, kills } => recover::measure(engine, *pods, *kills).await,
        Figure::Probes(options) => probes::measure(engine, options).await,
        Figure::Rollout(options) => rollout::measure(engine, options).await,
        Figure::Scale(_) | Figure::Lost(_) | Figure::Scheduler(_) => unreachable!("these need no engine"),
    }
}
