//! What probes cost the follower that tries them: HTTP requests to its pods' own addresses, each second one of each probe, against the same
//! containers without probes.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::cluster::Cluster;
use crate::engine::{Engine, IMAGE};
use crate::report::Report;
use crate::scale::process::cpu_seconds;

/// What answers.
const SERVER_IMAGE: &str = "nginx:latest";

/// Containers of a pod that have probes, beside the one that answers: a pod has 64 containers at most.
const IN_A_POD: usize = 60;

/// Probes of each of them: for its liveness and for its readiness.
const OF_A_CONTAINER: usize = 2;

/// From the start of the last container to the measurement: first tries and reports of the start are over by then.
const SETTLE: Duration = Duration::from_secs(15);

/// What to measure.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// How many probes are tried in a second. There is a container for each two of them.
    #[arg(long, default_value_t = 500)]
    probes: usize,
    /// For how long the CPU time is counted, in seconds, with and without probes.
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// How long all containers may take to be ready, in seconds.
    #[arg(long, default_value_t = 600)]
    limit: u64,
}

/// Measures the follower's CPU time without and with probes.
pub async fn measure(engine: &Engine, options: &Options) -> Result<Report> {
    let Options { probes, seconds, limit } = *options;
    let (length, limit) = (Duration::from_secs(seconds), Duration::from_secs(limit));
    let cluster = Cluster::start_with_follower(engine).await?;
    let follower = cluster.follower_pid().context("the follower has ended")?;
    let mut shares = Vec::new();
    for probed in [false, true] {
        cluster.run_until_ready(pods(probes, probed), limit).await?;
        sleep(SETTLE).await;
        let (before, began) = (cpu_seconds(follower)?, Instant::now());
        sleep(length).await;
        shares.push(100.0 * (cpu_seconds(follower)? - before) / began.elapsed().as_secs_f64());
        ensure!(cluster.are_ready().await?, "a pod was not ready at the end: the probes took other ways than they should");
        cluster.delete_pods().await?;
    }
    cluster.stop().await?;
    let (idle, probing) = (shares[0], shares[1]);
    let mut report = Report::default();
    report.number("idle_cpu_percent", "follower, the same containers without probes: CPU", "% of a core", idle);
    report.number("probing_cpu_percent", &format!("follower, {probes} HTTP probes a second: CPU"), "% of a core", probing);
    let cost = probing - idle;
    report.number("probes_cpu_percent", "what the probes cost (10 or less is the aim for 500)", "% of a core", cost);
    report.number("probe_cpu_us", "a probe", "us", cost / 100.0 * 1e6 / probes as f64);
    Ok(report)
}

/// Pods that have so many probes in all: in each a server, and containers that do nothing and whose probes ask the server.
fn pods(probes: usize, probed: bool) -> Vec<Value> {
    let containers = probes.div_ceil(OF_A_CONTAINER);
    let sizes = (0..containers).step_by(IN_A_POD).map(|first| IN_A_POD.min(containers - first));
    sizes.enumerate().map(|(number, size)| pod(&format!("probed-{number}"), size, probed)).collect()
}

fn pod(name: &str, size: usize, probed: bool) -> Value {
    let probe = json!({ "httpGet": { "path": "/", "port": 80 }, "periodSeconds": 1, "timeoutSeconds": 5, "failureThreshold": 10 });
    let container = |number| {
        let mut container = json!({ "name": format!("c-{number}"), "image": IMAGE, "command": ["sleep", "36000"] });
        if probed {
            container["livenessProbe"] = probe.clone();
            container["readinessProbe"] = probe.clone();
        }
        container
    };
    let server = json!({ "name": "server", "image": SERVER_IMAGE });
    let containers: Vec<Value> = [server].into_iter().chain((0..size).map(container)).collect();
    json!({ "type": "pod", "metadata": { "name": name }, "spec": { "containers": containers } })
}
