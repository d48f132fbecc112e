//! A leader that is killed and started again: how long nobody is served.

use anyhow::{Result, ensure};

use crate::cluster::Cluster;
use crate::engine::Engine;
use crate::report::{Figure, Report};

/// Kills a leader with so many pods so often. They have no node: what is measured is the leader alone, from its start to its first answer.
pub async fn measure(engine: &Engine, pods: usize, kills: usize) -> Result<Report> {
    let mut cluster = Cluster::start_without_nodes(engine).await?;
    cluster.fill(pods).await?;
    let mut times = Vec::new();
    for _ in 0..kills {
        times.push(cluster.crash_and_recover(engine).await?.as_secs_f64() * 1000.0);
        let there = cluster.count_pods().await?;
        ensure!(there == pods, "{there} of {pods} pods are there after a kill");
    }
    cluster.stop().await?;
    let mut report = Report::default();
    let what = format!("leader, {pods} pods: kill -9, start to serving (300 or less)");
    report.measured("leader_recovery_ms", &what, "ms", Figure::of(&times));
    Ok(report)
}
