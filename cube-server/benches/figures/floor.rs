//! The floor: nothing but the Docker calls that a pod of one container costs, with the options that cube gives, as fast as they can be made.
//!
//! Every worker keeps two connections: the app container is created while the sandbox starts.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::future::try_join_all;
use hyper::Method;
use serde_json::{Value, json};

use crate::engine::{Engine, IMAGE};
use crate::http::Connection;

/// Nobody's: what the bare calls made is told by it.
pub const CLUSTER: &str = "00000000-0000-0000-0000-000000000000";

/// How far a bare pod goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// Until it runs.
    Started,
    /// Until its container has ended and its sandbox is stopped: what a node does with a pod of a job.
    Ended,
    /// Until both are gone: what a node does with most of a job's pods.
    Gone,
}

/// Takes so many pods so far, so many at a time; the time until the last call has returned.
pub async fn run(engine: &Engine, pause: &str, pods: usize, parallelism: usize, until: Until) -> Result<Duration> {
    let mut workers = Vec::new();
    for _ in 0..parallelism.min(pods) {
        workers.push((engine.connect().await?, engine.connect().await?));
    }
    let next = AtomicUsize::new(0);
    let began = Instant::now();
    try_join_all(workers.into_iter().map(|(mut first, mut second)| {
        let next = &next;
        async move {
            loop {
                let pod = next.fetch_add(1, Ordering::Relaxed);
                if pod >= pods {
                    return anyhow::Ok(());
                }
                run_pod(&mut first, &mut second, &engine.node, pause, &format!("floor-{parallelism}-{pod}"), until).await?;
            }
        }
    }))
    .await?;
    Ok(began.elapsed())
}

async fn run_pod(first: &mut Connection, second: &mut Connection, node: &str, pause: &str, pod: &str, until: Until) -> Result<()> {
    let command: &[&str] = if until == Until::Started { &["sleep", "3600"] } else { &["true"] };
    let sandbox = create(first, &format!("{node}_{pod}__0"), &sandbox_body(node, pod, pause)).await?;
    let app_name = format!("{node}_{pod}_app_0");
    let app_body = container_body(node, pod, &sandbox, command);
    let ((), app) = tokio::try_join!(start(first, &sandbox), create(second, &app_name, &app_body))?;
    start(first, &app).await?;
    if until == Until::Started {
        return Ok(());
    }
    first.call(Method::POST, &format!("/containers/{app}/wait"), None).await?;
    first.call(Method::POST, &format!("/containers/{sandbox}/kill"), None).await?;
    if until == Until::Gone {
        tokio::try_join!(remove(first, &app), remove(second, &sandbox))?;
    }
    Ok(())
}

async fn remove(connection: &mut Connection, id: &str) -> Result<()> {
    connection.call(Method::DELETE, &format!("/containers/{id}?force=true&v=true"), None).await.map(drop)
}

async fn create(connection: &mut Connection, name: &str, body: &Value) -> Result<String> {
    let created = connection.call(Method::POST, &format!("/containers/create?name={name}"), Some(body)).await?;
    Ok(created["Id"].as_str().context("a container was created without an id")?.to_owned())
}

async fn start(connection: &mut Connection, id: &str) -> Result<()> {
    connection.call(Method::POST, &format!("/containers/{id}/start"), None).await.map(drop)
}

// The same as in cube_server's follower/runtime/docker/translate.rs.
fn sandbox_body(node: &str, pod: &str, pause: &str) -> Value {
    json!({
        "Image": pause,
        "Hostname": pod,
        "Labels": labels(node, pod),
        "HostConfig": { "LogConfig": { "Type": "none" }, "ReadonlyRootfs": true },
    })
}

fn container_body(node: &str, pod: &str, sandbox: &str, command: &[&str]) -> Value {
    let mut labels = labels(node, pod);
    labels["io.cube.container"] = json!("app");
    labels["io.cube.sandbox"] = json!(sandbox);
    json!({
        "Image": IMAGE,
        "Entrypoint": command,
        "Labels": labels,
        "HostConfig": {
            "NetworkMode": format!("container:{sandbox}"),
            "LogConfig": { "Type": "json-file", "Config": { "max-size": "10m", "max-file": "5" } },
        },
    })
}

fn labels(node: &str, pod: &str) -> Value {
    json!({
        "io.cube.cluster": CLUSTER,
        "io.cube.node": node,
        "io.cube.pod.uid": "00000000-0000-0000-0000-000000000000",
        "io.cube.pod.name": pod,
        "io.cube.attempt": "0",
    })
}
