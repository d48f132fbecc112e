//! The Docker engine that everything runs on, and the removal of what a run made.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Context, Result};
use futures::stream::{self, StreamExt, TryStreamExt};
use hyper::Method;
use serde_json::{Value, json};

use crate::http::{Address, Connection, escaped};
use crate::swarm::Before;

/// What every container runs: quiet and quick to stop.
pub const IMAGE: &str = "busybox:latest";

/// The engine, and the node name that this run's containers carry.
pub struct Engine {
    socket: PathBuf,
    /// In the label `io.cube.node`.
    pub node: String,
    /// Set by the run that joined the engine's swarm.
    pub before_swarm: OnceLock<Before>,
}

impl Engine {
    /// Makes no call.
    pub fn new(socket: &Path, node: String) -> Self {
        Self { socket: socket.to_owned(), node, before_swarm: OnceLock::new() }
    }

    /// The engine's socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// A connection of its own.
    pub async fn connect(&self) -> Result<Connection> {
        Connection::open(&Address::Unix(self.socket.clone())).await
    }

    /// The pause image that cube has put into the engine.
    pub async fn pause_image(&self) -> Result<String> {
        let filters = escaped(&json!({ "reference": ["cube/pause"] }).to_string());
        let images = self.connect().await?.call(Method::GET, &format!("/images/json?filters={filters}"), None).await?;
        Ok(images[0]["RepoTags"][0].as_str().context("the engine has no image cube/pause")?.to_owned())
    }

    /// The node that keeps no sandboxes ready, where both kinds are compared.
    pub fn plain_node(&self) -> String {
        format!("{}-plain", self.node)
    }

    /// The ids of this run's containers that carry a label too, if one is given.
    pub async fn containers(&self, label: Option<&str>) -> Result<Vec<String>> {
        self.containers_of(&self.node, label, &["created", "running", "paused", "exited", "dead"]).await
    }

    /// How many sandboxes are ready.
    pub async fn ready_sandboxes(&self) -> Result<usize> {
        Ok(self.containers_of(&self.node, Some("io.cube.role=spare"), &["running"]).await?.len())
    }

    async fn containers_of(&self, node: &str, label: Option<&str>, states: &[&str]) -> Result<Vec<String>> {
        let labels: Vec<String> = [format!("io.cube.node={node}")].into_iter().chain(label.map(str::to_owned)).collect();
        let filters = escaped(&json!({ "label": labels, "status": states }).to_string());
        let found = self.connect().await?.call(Method::GET, &format!("/containers/json?all=true&filters={filters}"), None).await?;
        let ids = found.as_array().into_iter().flatten().filter_map(|container| container["Id"].as_str());
        Ok(ids.map(str::to_owned).collect())
    }

    /// Removes every container of this run.
    pub async fn sweep(&self) -> Result<()> {
        self.remove(self.containers(None).await?).await?;
        self.remove(self.containers_of(&self.plain_node(), None, &["created", "running", "paused", "exited", "dead"]).await?).await
    }

    /// Removes what the bare calls made.
    pub async fn sweep_floor(&self) -> Result<()> {
        self.remove(self.containers(Some(&format!("io.cube.cluster={}", crate::floor::CLUSTER))).await?).await
    }

    async fn remove(&self, ids: Vec<String>) -> Result<()> {
        let removals = stream::iter(ids).map(|id| async move {
            let path = format!("/containers/{id}?force=true&v=true");
            // Gone already, or on its way out by another call: both are what is wanted.
            let _answer: (_, Value) = self.connect().await?.try_call(Method::DELETE, &path, None).await?;
            anyhow::Ok(())
        });
        removals.buffer_unordered(4).try_collect().await
    }
}
