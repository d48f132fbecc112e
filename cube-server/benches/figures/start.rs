//! From an apply to Running: cube, the floor and Docker Swarm take turns, so that a busy minute of the machine hits all of them.

use std::time::Duration;

use anyhow::Result;

use crate::cluster::Cluster;
use crate::engine::Engine;
use crate::report::{Figure, Report};
use crate::{floor, swarm};

/// How many pods the floor starts at a time; its best counts.
const PARALLELISMS: [usize; 4] = [2, 4, 8, 16];

/// What to measure.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// How many pods are applied together.
    #[arg(long, default_value_t = 30)]
    pods: usize,
    /// How many turns of one pod each.
    #[arg(long, default_value_t = 10)]
    rounds: usize,
    /// How many turns of all the pods each.
    #[arg(long, default_value_t = 3)]
    batches: usize,
    /// Without cube: what the engine can do. Needs an engine on which cube ran before, for its pause image.
    #[arg(long)]
    without_cube: bool,
    /// Without Docker Swarm.
    #[arg(long)]
    without_swarm: bool,
}

/// The samples of one kind of turn.
#[derive(Default)]
struct Samples {
    cube: Vec<f64>,
    floor: Vec<f64>,
    swarm: Vec<f64>,
}

/// Measures one pod, then many.
pub async fn measure(engine: &Engine, options: &Options) -> Result<Report> {
    let mut report = Report::default();
    let cluster = if options.without_cube { None } else { Some(Cluster::start(engine).await?) };
    if let Some(cluster) = &cluster {
        // The first pod of an engine brings the pause image; it isn't counted.
        cluster.run_pods(1).await?;
        cluster.delete_pods().await?;
    }
    let swarm = if options.without_swarm { None } else { joined(engine, &mut report).await };
    let turns = Turns { engine, pause: engine.pause_image().await?, cluster, swarm: swarm.is_some() };
    one(&turns, options, &mut report).await?;
    many(&turns, options, &mut report).await?;
    if let Some(cluster) = turns.cluster {
        cluster.stop().await?;
    }
    Ok(report)
}

async fn joined(engine: &Engine, report: &mut Report) -> Option<()> {
    match swarm::join(engine).await {
        Ok(()) => Some(()),
        Err(error) => {
            report.missing("swarm", &format!("{error:#}"));
            None
        }
    }
}

struct Turns<'a> {
    engine: &'a Engine,
    pause: String,
    cluster: Option<Cluster>,
    swarm: bool,
}

impl Turns<'_> {
    async fn cube(&self, pods: usize) -> Result<Option<Duration>> {
        let Some(cluster) = &self.cluster else { return Ok(None) };
        let took = cluster.run_pods(pods).await?;
        cluster.delete_pods().await?;
        Ok(Some(took))
    }

    async fn floor(&self, pods: usize, parallelism: usize) -> Result<Duration> {
        let took = floor::start(self.engine, &self.pause, pods, parallelism).await?;
        self.engine.sweep().await?;
        Ok(took)
    }

    async fn swarm(&self, tasks: usize) -> Result<Option<Duration>> {
        if self.swarm { swarm::start(self.engine, tasks).await.map(Some) } else { Ok(None) }
    }
}

async fn one(turns: &Turns<'_>, options: &Options, report: &mut Report) -> Result<()> {
    let millis = |took: Duration| took.as_secs_f64() * 1000.0;
    let mut samples = Samples::default();
    for _ in 0..options.rounds {
        samples.floor.push(millis(turns.floor(1, 1).await?));
        samples.cube.extend(turns.cube(1).await?.map(millis));
        samples.swarm.extend(turns.swarm(1).await?.map(millis));
    }
    let floor = add(report, "floor_one_ms", "one pod: bare Docker calls", "ms", &samples.floor);
    let cube = add(report, "cube_one_ms", "one pod: cube, apply to Running", "ms", &samples.cube);
    add(report, "swarm_one_ms", "one task: Docker Swarm, create to running", "ms", &samples.swarm);
    if let (Some(cube), Some(floor)) = (cube, floor) {
        report.number("cube_to_floor_one", "one pod: cube / floor (1.05 or less is the aim)", "x", cube / floor);
    }
    Ok(())
}

async fn many(turns: &Turns<'_>, options: &Options, report: &mut Report) -> Result<()> {
    let pods = options.pods;
    let rate = |took: Duration| f64::from(u32::try_from(pods).unwrap_or(u32::MAX)) / took.as_secs_f64();
    let mut samples = Samples::default();
    let mut floors = PARALLELISMS.map(|parallelism| (parallelism, Vec::new()));
    for _ in 0..options.batches {
        samples.cube.extend(turns.cube(pods).await?.map(rate));
        for (parallelism, floor) in &mut floors {
            floor.push(rate(turns.floor(pods, *parallelism).await?));
        }
        samples.swarm.extend(turns.swarm(pods).await?.map(rate));
    }
    let mut best: Option<f64> = None;
    for (parallelism, floor) in floors {
        let what = format!("{pods} pods: bare Docker calls, {parallelism} at a time");
        let median = add(report, &format!("floor_many_{parallelism}_pods_per_s"), &what, "pods/s", &floor);
        best = best.into_iter().chain(median).reduce(f64::max);
    }
    let cube = add(report, "cube_many_pods_per_s", &format!("{pods} pods: cube, applied together"), "pods/s", &samples.cube);
    add(report, "swarm_many_tasks_per_s", &format!("{pods} tasks: Docker Swarm, one service"), "tasks/s", &samples.swarm);
    if let (Some(cube), Some(best)) = (cube, best) {
        report.number("cube_to_floor_many", &format!("{pods} pods: cube / best floor (0.9 or more is the aim)"), "x", cube / best);
    }
    Ok(())
}

/// Adds a row, unless nothing was measured; its median.
fn add(report: &mut Report, key: &str, what: &str, unit: &'static str, samples: &[f64]) -> Option<f64> {
    if samples.is_empty() {
        return None;
    }
    let figure = Figure::of(samples);
    report.measured(key, what, unit, figure);
    Some(figure.median)
}
