//! `podman kube play` of the same pod, from the command's start to its end: podman says so when the container runs.
//!
//! Its images and containers are in a folder of the run's own, which goes with the run: what a user's podman has is not touched.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tempfile::TempDir;
use tokio::process::Command;

use crate::engine::{Engine, IMAGE};

/// A podman with the image, and a manifest of the pod.
pub struct Podman {
    folder: TempDir,
}

impl Podman {
    /// Brings the engine's image into podman and plays the pod once, which makes podman's own pause image.
    pub async fn prepare(engine: &Engine) -> Result<Self> {
        let podman = Self { folder: tempfile::tempdir()? };
        // Its default is a million files, which a machine that may not raise limits refuses.
        std::fs::write(podman.path("containers.conf"), "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]\n")?;
        podman.run(&["--version"]).await.context("it is not installed")?;
        let archive = podman.path("image.tar");
        let socket = format!("unix://{}", engine.socket().display());
        let saved = Command::new("docker").args(["--host", &socket, "save", "--output", &archive, IMAGE]).status().await?;
        ensure!(saved.success(), "docker save {IMAGE}: {saved}");
        podman.run(&["load", "--quiet", "--input", &archive]).await?;
        let container = json!({ "name": "app", "image": IMAGE, "imagePullPolicy": "Never", "command": ["sleep", "3600"] });
        let name = format!("{}-podman", engine.node);
        let pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name }, "spec": { "containers": [container] } });
        std::fs::write(podman.path("pod.yaml"), pod.to_string())?;
        podman.play().await?;
        Ok(podman)
    }

    /// Plays the pod and takes it down again; how long the first took.
    pub async fn play(&self) -> Result<Duration> {
        let manifest = self.path("pod.yaml");
        let began = Instant::now();
        let played = self.run(&["kube", "play", &manifest]).await;
        let took = began.elapsed();
        // Its grace is ten seconds, and `sleep` as process 1 heeds no signal.
        self.run(&["pod", "rm", "--all", "--force", "--time", "0"]).await?;
        played.map(|()| took)
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    async fn run(&self, words: &[&str]) -> Result<()> {
        let (root, runroot) = (self.path("root"), self.path("run"));
        let own = ["--root", &root, "--runroot", &runroot, "--cgroup-manager", "cgroupfs", "--events-backend", "file"];
        let mut podman = Command::new("podman");
        podman.env("CONTAINERS_CONF", self.path("containers.conf"));
        let output = podman.args(own).args(words).stdin(Stdio::null()).output().await.context("podman")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "podman {}: {}", words.join(" "), said.lines().last().unwrap_or_default());
        Ok(())
    }
}
