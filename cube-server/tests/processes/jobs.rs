//! A leader that is killed in the middle of a job.

use std::collections::BTreeSet;

use cube_api::client::Client;
use cube_api::job::{Job, JobConditionKind};
use serde_json::json;

use crate::rig::{BUSYBOX, Engine, Ground, name, resources, wait_for};

/// As many as are kept when they have ended: each is still there to be counted.
const COMPLETIONS: u32 = 10;

async fn job(client: &Client) -> Result<Job, String> {
    client.object::<Job>(&name("sum")).await.map_err(|error| error.to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_killed_in_the_middle_of_a_job_counts_each_pod_once_and_starts_none_too_many() {
    let ground = Ground::new();
    let engine = Engine::new();
    let (mut leader, _follower, client) = ground.cluster(&engine).await;
    let spec = json!({ "restartPolicy": "Never", "containers": [{ "name": "c", "image": BUSYBOX, "command": ["true"] }] });
    let manifest = json!({ "type": "job", "metadata": { "name": "sum" },
        "spec": { "completions": COMPLETIONS, "parallelism": 2, "template": { "spec": spec } } });
    client.apply(&resources(vec![manifest]), false).await.expect("an apply");
    for after in [1, 3, 6] {
        wait_for(&format!("{after} completions"), async || match job(&client).await {
            Ok(job) if job.status.succeeded >= after => Ok(()),
            other => Err(other),
        })
        .await;
        leader.kill();
        leader.start_ready().await;
    }
    let ended = wait_for("the job's end", async || match job(&client).await {
        Ok(job) if job.status.end().is_some() => Ok(job),
        other => Err(other),
    })
    .await;
    let end = ended.status.end().map(|end| end.kind);
    assert_eq!((end, ended.status.succeeded, ended.status.failed), (Some(JobConditionKind::Complete), COMPLETIONS, 0), "{ended:?}");
    let containers = engine.containers().await;
    let ran: Vec<_> = containers.iter().filter(|container| container.container == "c").collect();
    let pods: BTreeSet<_> = ran.iter().map(|container| &container.uid).collect();
    assert_eq!((ran.len(), pods.len()), (COMPLETIONS as usize, COMPLETIONS as usize), "each pod ran once: {containers:#?}");
}
