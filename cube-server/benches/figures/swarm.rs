//! Docker Swarm on the same engine: a service from its creation until its tasks run.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use hyper::{Method, StatusCode};
use serde_json::json;

use crate::engine::{Engine, IMAGE};
use crate::http::{Connection, escaped};

/// How long a service may take. Swarm itself has no limit.
const LIMIT: Duration = Duration::from_secs(60);

/// How often Swarm is asked: it has no watch for tasks. Half of it is the error of the figure.
const POLL: Duration = Duration::from_millis(5);

/// The network that Swarm makes on every node and leaves behind.
const GATEWAY_NETWORK: &str = "docker_gwbridge";

/// What the engine was like before a run joined its swarm.
#[derive(Debug)]
pub struct Before {
    in_swarm: bool,
    had_network: bool,
}

/// Sees to it that the engine is in a swarm: its own, or one on the loopback address until [`leave`].
pub async fn join(engine: &Engine) -> Result<()> {
    let mut docker = engine.connect().await?;
    let info = docker.call(Method::GET, "/info", None).await?;
    let in_swarm = match info["Swarm"]["LocalNodeState"].as_str() {
        Some("active") => true,
        Some("inactive") => false,
        state => bail!("the engine's swarm is {}", state.unwrap_or("missing")),
    };
    let before = Before { in_swarm, had_network: has_network(&mut docker).await? };
    engine.before_swarm.set(before).expect("a run joins once");
    if !in_swarm {
        let body = json!({ "ListenAddr": "127.0.0.1:2377", "AdvertiseAddr": "127.0.0.1", "DataPathAddr": "127.0.0.1" });
        docker.call(Method::POST, "/swarm/init", Some(&body)).await?;
    }
    Ok(())
}

/// Leaves the engine as it was before [`join`].
pub async fn leave(engine: &Engine) -> Result<()> {
    let Some(before) = engine.before_swarm.get() else { return Ok(()) };
    let mut docker = engine.connect().await?;
    // There only if the run was interrupted.
    docker.try_call(Method::DELETE, &format!("/services/{}", service_name(engine)), None).await?;
    if !before.in_swarm {
        // Refused if the swarm could not be made: then there is none to leave.
        docker.try_call(Method::POST, "/swarm/leave?force=true", None).await?;
        if !before.had_network && has_network(&mut docker).await? {
            docker.call(Method::DELETE, &format!("/networks/{GATEWAY_NETWORK}"), None).await?;
        }
    }
    Ok(())
}

/// Creates a service of so many tasks; the time until all of them run. Removes it again.
pub async fn start(engine: &Engine, tasks: usize) -> Result<Duration> {
    let name = service_name(engine);
    let body = json!({
        "Name": name,
        "TaskTemplate": { "ContainerSpec": { "Image": IMAGE, "Command": ["sleep", "3600"], "StopGracePeriod": 0 } },
        "Mode": { "Replicated": { "Replicas": tasks } },
    });
    let mut docker = engine.connect().await?;
    let began = Instant::now();
    docker.call(Method::POST, "/services/create", Some(&body)).await?;
    let started = all_run(&mut docker, &name, tasks, began).await;
    docker.call(Method::DELETE, &format!("/services/{name}"), None).await?;
    gone(&mut docker, &name).await?;
    started
}

fn service_name(engine: &Engine) -> String {
    format!("{}-service", engine.node)
}

async fn has_network(docker: &mut Connection) -> Result<bool> {
    let (status, _) = docker.try_call(Method::GET, &format!("/networks/{GATEWAY_NETWORK}"), None).await?;
    Ok(status == StatusCode::OK)
}

async fn all_run(docker: &mut Connection, service: &str, tasks: usize, began: Instant) -> Result<Duration> {
    let path = format!("/tasks?filters={}", escaped(&json!({ "service": [service] }).to_string()));
    loop {
        let found = docker.call(Method::GET, &path, None).await?;
        let found = found.as_array().context("tasks are a list")?;
        if found.iter().filter(|task| task["Status"]["State"] == "running").count() >= tasks {
            return Ok(began.elapsed());
        }
        if began.elapsed() > LIMIT {
            let last = found.last().map(|task| task["Status"].to_string()).unwrap_or_default();
            bail!("a swarm service of {tasks} tasks didn't run in {LIMIT:?}: {last}");
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Waits until the containers of a removed service are gone, so that the next turn has the machine for itself.
async fn gone(docker: &mut Connection, service: &str) -> Result<()> {
    let filters = escaped(&json!({ "label": [format!("com.docker.swarm.service.name={service}")] }).to_string());
    let began = Instant::now();
    while began.elapsed() < LIMIT {
        let left = docker.call(Method::GET, &format!("/containers/json?all=true&filters={filters}"), None).await?;
        if left.as_array().is_some_and(Vec::is_empty) {
            return Ok(());
        }
        tokio::time::sleep(POLL * 10).await;
    }
    bail!("the containers of the swarm service {service} are still there after {LIMIT:?}")
}
