//! From an apply to Running: cube with and without sandboxes that are kept ready, the floor, Docker Swarm and podman take turns, so that a busy
//! minute of the machine hits all of them.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tokio::time::sleep;

use crate::cluster::Cluster;
use crate::engine::Engine;
use crate::floor::Until;
use crate::podman::Podman;
use crate::report::{Figure, Report};
use crate::{floor, swarm};

/// How many pods the floor starts at a time; its best counts.
const PARALLELISMS: [usize; 4] = [2, 4, 8, 16];

/// How long a few sandboxes may take to be made.
const READY_LIMIT: Duration = Duration::from_secs(60);

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
    /// Without podman.
    #[arg(long)]
    without_podman: bool,
    /// How many sandboxes are kept ready, where any are.
    #[arg(long, default_value_t = 3)]
    spares: usize,
}

/// The samples of one kind of turn.
#[derive(Default)]
struct Samples {
    cube: Vec<f64>,
    plain: Vec<f64>,
    floor: Vec<f64>,
    swarm: Vec<f64>,
    podman: Vec<f64>,
}

/// Measures one pod, then many.
pub async fn measure(engine: &Engine, options: &Options) -> Result<Report> {
    let mut report = Report::default();
    let cube = if options.without_cube { None } else { Some(Cubes::start(engine, options.spares).await?) };
    let swarm = if options.without_swarm { None } else { joined(engine, &mut report).await };
    let podman = if options.without_podman { None } else { prepared(engine, &mut report).await };
    let turns = Turns { engine, pause: engine.pause_image().await?, cube, swarm: swarm.is_some(), podman };
    one(&turns, options, &mut report).await?;
    many(&turns, options, &mut report).await?;
    if let Some(cube) = turns.cube {
        cube.keeping.stop().await?;
        cube.plain.stop().await?;
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

async fn prepared(engine: &Engine, report: &mut Report) -> Option<Podman> {
    match Podman::prepare(engine).await {
        Ok(podman) => Some(podman),
        Err(error) => {
            report.missing("podman", &format!("{error:#}"));
            None
        }
    }
}

/// Two clusters of one node each: one keeps sandboxes ready, the other doesn't.
struct Cubes {
    keeping: Cluster,
    plain: Cluster,
    spares: usize,
}

impl Cubes {
    async fn start(engine: &Engine, spares: usize) -> Result<Self> {
        let plain = Cluster::start_keeping(engine, &engine.plain_node(), 0).await?;
        // The first pod of an engine brings the pause image; it isn't counted.
        plain.run_pods(1).await?;
        plain.delete_pods().await?;
        Ok(Self { keeping: Cluster::start_keeping(engine, &engine.node, spares).await?, plain, spares })
    }

    /// Waits until as many sandboxes are ready as are kept: the engine has nothing to do for this node then.
    async fn until_ready(&self, engine: &Engine) -> Result<()> {
        let began = Instant::now();
        while engine.ready_sandboxes().await? != self.spares {
            ensure!(began.elapsed() < READY_LIMIT, "{} sandboxes aren't ready after {READY_LIMIT:?}", self.spares);
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }
}

struct Turns<'a> {
    engine: &'a Engine,
    pause: String,
    cube: Option<Cubes>,
    swarm: bool,
    podman: Option<Podman>,
}

impl Turns<'_> {
    /// With sandboxes that are kept ready, and without.
    async fn cube(&self, pods: usize) -> Result<Option<(Duration, Duration)>> {
        let Some(cube) = &self.cube else { return Ok(None) };
        cube.until_ready(self.engine).await?;
        let keeping = run(&cube.keeping, pods).await?;
        cube.until_ready(self.engine).await?;
        Ok(Some((keeping, run(&cube.plain, pods).await?)))
    }

    async fn floor(&self, pods: usize, parallelism: usize) -> Result<Duration> {
        let took = floor::run(self.engine, &self.pause, pods, parallelism, Until::Started).await?;
        self.engine.sweep_floor().await?;
        Ok(took)
    }

    async fn swarm(&self, tasks: usize) -> Result<Option<Duration>> {
        if self.swarm { swarm::start(self.engine, tasks).await.map(Some) } else { Ok(None) }
    }

    async fn podman(&self) -> Result<Option<Duration>> {
        match &self.podman {
            Some(podman) => podman.play().await.map(Some),
            None => Ok(None),
        }
    }
}

async fn run(cluster: &Cluster, pods: usize) -> Result<Duration> {
    let took = cluster.run_pods(pods).await?;
    cluster.delete_pods().await?;
    Ok(took)
}

async fn one(turns: &Turns<'_>, options: &Options, report: &mut Report) -> Result<()> {
    let millis = |took: Duration| took.as_secs_f64() * 1000.0;
    let mut samples = Samples::default();
    for _ in 0..options.rounds {
        samples.floor.push(millis(turns.floor(1, 1).await?));
        if let Some((keeping, plain)) = turns.cube(1).await? {
            samples.cube.push(millis(keeping));
            samples.plain.push(millis(plain));
        }
        samples.swarm.extend(turns.swarm(1).await?.map(millis));
        samples.podman.extend(turns.podman().await?.map(millis));
    }
    let floor = add(report, "floor_one_ms", "one pod: bare Docker calls", "ms", &samples.floor);
    let cube = add(report, "cube_one_ms", "one pod: cube, a sandbox is ready", "ms", &samples.cube);
    let plain = add(report, "cube_one_without_spares_ms", "one pod: cube, no sandbox is ready", "ms", &samples.plain);
    add(report, "swarm_one_ms", "one task: Docker Swarm, create to running", "ms", &samples.swarm);
    let podman = add(report, "podman_one_ms", "one pod: podman kube play", "ms", &samples.podman);
    let mut ratio = |key: &str, what: &str, of: Option<f64>, to: Option<f64>| {
        if let (Some(of), Some(to)) = (of, to) {
            report.number(key, what, "x", of / to);
        }
    };
    ratio("cube_to_floor_one", "one pod: cube / floor, ready (0.5 or less is the aim)", cube, floor);
    ratio("cube_to_floor_one_without_spares", "one pod: cube / floor, none ready (1.05 is the aim)", plain, floor);
    ratio("cube_to_podman_one", "one pod: cube / podman, ready (below 1 is the aim)", cube, podman);
    Ok(())
}

async fn many(turns: &Turns<'_>, options: &Options, report: &mut Report) -> Result<()> {
    let pods = options.pods;
    let rate = |took: Duration| f64::from(u32::try_from(pods).unwrap_or(u32::MAX)) / took.as_secs_f64();
    let mut samples = Samples::default();
    let mut floors = PARALLELISMS.map(|parallelism| (parallelism, Vec::new()));
    for _ in 0..options.batches {
        if let Some((keeping, plain)) = turns.cube(pods).await? {
            samples.cube.push(rate(keeping));
            samples.plain.push(rate(plain));
        }
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
    let plain_what = format!("{pods} pods: cube, no sandbox is ready");
    let plain = add(report, "cube_many_without_spares_pods_per_s", &plain_what, "pods/s", &samples.plain);
    add(report, "swarm_many_tasks_per_s", &format!("{pods} tasks: Docker Swarm, one service"), "tasks/s", &samples.swarm);
    if let (Some(cube), Some(best)) = (cube, best) {
        report.number("cube_to_floor_many", &format!("{pods} pods: cube / best floor (0.9 or more is the aim)"), "x", cube / best);
    }
    if let (Some(plain), Some(best)) = (plain, best) {
        report.number("cube_to_floor_many_without_spares", &format!("{pods} pods: the same, no sandbox is ready"), "x", plain / best);
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
