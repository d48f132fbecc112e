//! The kill loops of `tests/processes`, for longer: `scripts/torture --kills 1000`. Ends with a failure if anything acknowledged was lost or anything
//! was there twice.

#[path = "../../tests/processes/follower_kills.rs"]
mod follower_kills;
#[path = "../../tests/processes/leader_kills.rs"]
mod leader_kills;
#[path = "../../tests/processes/rig.rs"]
#[allow(dead_code, reason = "the tests need more of it")]
mod rig;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};

#[derive(Parser)]
struct Args {
    /// How often each server is killed.
    #[arg(long, default_value_t = 1_000)]
    kills: usize,
    /// Which server.
    #[arg(long, value_enum, default_value_t = Role::Both)]
    role: Role,
    /// Decides the moments; printed, so that a run can be tried again.
    #[arg(long)]
    seed: Option<u64>,
    /// Cargo passes this to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Role {
    Leader,
    Follower,
    Both,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let seed = args.seed.unwrap_or_else(rand::random);
    println!("seed {seed}");
    let leader = args.role == Role::Follower || leader(seed, args.kills).await;
    let follower = args.role == Role::Leader || follower(seed, args.kills).await;
    if leader && follower { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn leader(seed: u64, kills: usize) -> bool {
    let began = Instant::now();
    let ground = rig::Ground::new();
    let (noticed, restarts) = leader_kills::torment(&ground, seed, kills).await;
    println!("leader: {kills} kills -9 in {:.0} s, ready again {}", began.elapsed().as_secs_f64(), spread(restarts));
    println!("  writes acknowledged              {}", noticed.acknowledged);
    println!("  without an answer                {} ({} of them carried out)", noticed.unanswered, noticed.carried_out);
    println!(
        "  changes watched                  {} (watches: {} resumed, {} told to list again)",
        noticed.watched, noticed.resumed, noticed.expired
    );
    println!("  lost                             {}", noticed.lost.len());
    println!("  double                           {}", noticed.double.len());
    println!("  otherwise wrong                  {}", noticed.wrong.len());
    let faults: Vec<_> = noticed.lost.iter().chain(&noticed.double).chain(&noticed.wrong).collect();
    faults.iter().for_each(|fault| println!("fault: {fault}"));
    faults.is_empty()
}

async fn follower(seed: u64, kills: usize) -> bool {
    let began = Instant::now();
    let ground = rig::Ground::new();
    let (noticed, recoveries) = follower_kills::torment(&ground, seed, kills).await;
    println!("follower: {kills} kills -9 in {:.0} s, back in its session {}", began.elapsed().as_secs_f64(), spread(recoveries));
    println!("  pods that came and went          {}", noticed.pods);
    println!("  lost or restarted                {}", noticed.lost.len());
    println!("  double                           {}", noticed.double.len());
    println!("  left over                        {}", noticed.left.len());
    let faults: Vec<_> = noticed.lost.iter().chain(&noticed.double).chain(&noticed.left).collect();
    faults.iter().for_each(|fault| println!("fault: {fault}"));
    faults.is_empty()
}

fn spread(mut times: Vec<Duration>) -> String {
    times.sort();
    if times.is_empty() {
        return "(not measured)".to_owned();
    }
    let millis = |time: Duration| time.as_secs_f64() * 1000.0;
    format!("after {:.1} ms (median; at most {:.1} ms)", millis(times[times.len() / 2]), millis(times[times.len() - 1]))
}
