//! A job of short pods, from its apply until it is complete, against the Docker calls that its pods cost, in turns.
//!
//! The floor of a pod is: sandbox and container made and started, the container's end awaited, the sandbox killed, both removed, as a node does it
//! with all pods of a job but the newest few. The floor that leaves them there is printed, too.

use std::time::Duration;

use anyhow::Result;

use crate::cluster::Cluster;
use crate::engine::Engine;
use crate::floor::{self, Until};
use crate::report::{Figure, Report};

/// What to measure.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// How many pods have to succeed.
    #[arg(long, default_value_t = 1_000)]
    pods: usize,
    /// How many run at a time.
    #[arg(long, default_value_t = 16)]
    parallelism: usize,
    /// How many turns.
    #[arg(long, default_value_t = 1)]
    rounds: usize,
    /// How many sandboxes are kept ready.
    #[arg(long, default_value_t = 3)]
    spares: usize,
}

/// Measures both.
pub async fn measure(engine: &Engine, options: &Options) -> Result<Report> {
    let Options { pods, parallelism, rounds, spares } = *options;
    let mut report = Report::default();
    let cluster = Cluster::start_keeping(engine, &engine.node, spares).await?;
    // The first pod of an engine brings the pause image; it isn't counted.
    cluster.run_job("first", 1, 1).await?;
    cluster.delete_job("first").await?;
    let pause = engine.pause_image().await?;
    let rate = |took: Duration| f64::from(u32::try_from(pods).unwrap_or(u32::MAX)) / took.as_secs_f64();
    let (mut cube, mut gone, mut ended) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        let name = format!("job-{round}");
        cube.push(rate(cluster.run_job(&name, pods, parallelism).await?));
        cluster.delete_job(&name).await?;
        for (until, rates) in [(Until::Gone, &mut gone), (Until::Ended, &mut ended)] {
            rates.push(rate(floor::run(engine, &pause, pods, parallelism, until).await?));
            engine.sweep_floor().await?;
        }
    }
    cluster.stop().await?;
    let [cube, gone, ended] = [cube, gone, ended].map(|rates| Figure::of(&rates));
    let of = format!("{pods} short pods, {parallelism} at a time");
    report.measured("job_pods_per_s", &format!("{of}: a job"), "pods/s", cube);
    report.measured("job_floor_pods_per_s", &format!("{of}: bare Docker calls"), "pods/s", gone);
    report.measured("job_floor_left_pods_per_s", &format!("{of}: the same, nothing is removed"), "pods/s", ended);
    report.number("job_to_floor", "job / floor (0.85 or more is the aim)", "x", cube.median / gone.median);
    Ok(report)
}
