//! cube's figures, measured against what the engine itself can do: `scripts/bench start|exec|logs|idle|recover`.
//!
//! Everything is made under a node name of its own and removed at the end, after a failure and after Ctrl-C too. Not a test: what is too slow
//! is printed, never failed.

mod cluster;
mod commands;
mod engine;
mod floor;
mod http;
mod idle;
mod podman;
mod recover;
mod report;
mod start;
mod swarm;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};

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
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    // Another run on the same engine has another name, and neither removes the other's containers.
    let engine = Engine::new(&args.docker, format!("bench-{}", std::process::id()));
    let measured = tokio::select! {
        measured = measure(&args.figure, &engine) => measured,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
    };
    let (left, swept) = (swarm::leave(&engine).await, engine.sweep().await);
    let report = measured?;
    left.and(swept)?;
    report.print(args.json);
    Ok(())
}

async fn measure(figure: &Figure, engine: &Engine) -> Result<Report> {
    match figure {
        Figure::Start(options) => start::measure(engine, options).await,
        Figure::Exec { rounds } => commands::exec(engine, *rounds).await,
        Figure::Logs { megabytes, rounds } => commands::logs(engine, *megabytes, *rounds).await,
        Figure::Idle { pods } => idle::measure(engine, *pods).await,
        Figure::Recover { pods, kills } => recover::measure(engine, *pods, *kills).await,
    }
}
