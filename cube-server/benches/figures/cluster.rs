//! A cluster of one node: the release build of `cube-server`, on a folder and a port of its own.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use hyper::{Method, StatusCode};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use crate::engine::{Engine, IMAGE};
use crate::http::{Address, Connection, Lines};

/// The server under test.
pub const SERVER: &str = env!("CARGO_BIN_EXE_cube-server");

/// How long anything may take before it counts as broken. 30 pods take about 4 s.
const LIMIT: Duration = Duration::from_secs(60);

/// A running leader, and its follower if it has one. Killed when dropped; [`crate::engine::Engine::sweep`] removes what its pods leave then.
pub struct Cluster {
    folder: TempDir,
    address: SocketAddr,
    token: String,
    /// What the leader is started with.
    options: Vec<String>,
    server: Child,
    follower: Option<Child>,
    /// From its start until `/readyz` said so.
    pub ready_after: Duration,
}

impl Cluster {
    /// Starts a leader that is the node too, and waits until it serves.
    pub async fn start(engine: &Engine) -> Result<Self> {
        Self::lead(engine, &["--name", &engine.node]).await
    }

    /// As [`Cluster::start`], under that name and with so many sandboxes kept ready.
    pub async fn start_keeping(engine: &Engine, node: &str, sandboxes: usize) -> Result<Self> {
        Self::lead(engine, &["--name", node, "--spare-sandboxes", &sandboxes.to_string()]).await
    }

    /// Starts a leader without pods and a follower.
    pub async fn start_with_follower(engine: &Engine) -> Result<Self> {
        let mut cluster = Self::lead(engine, &["--name", "leader", "--no-pods"]).await?;
        let address = cluster.address.to_string();
        cluster.follower = Some(spawn(cluster.folder.path(), engine, "follower", &["--leader", &address, "--name", &engine.node])?);
        Ok(cluster)
    }

    /// Starts a leader alone, that runs no pods.
    pub async fn start_without_nodes(engine: &Engine) -> Result<Self> {
        Self::lead(engine, &["--name", "leader", "--no-pods"]).await
    }

    async fn lead(engine: &Engine, options: &[&str]) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let token = format!("{:032x}", rand::random::<u128>());
        write_private(&folder.path().join("token"), &token)?;
        let address = free_port()?;
        let began = Instant::now();
        let listen = address.to_string();
        let options: Vec<String> = ["--listen", &listen].into_iter().chain(options.iter().copied()).map(str::to_owned).collect();
        let server = spawn(folder.path(), engine, "leader", &options)?;
        let mut cluster = Self { folder, address, token, options, server, follower: None, ready_after: Duration::ZERO };
        cluster.until_ready(began).await?;
        cluster.ready_after = began.elapsed();
        Ok(cluster)
    }

    async fn until_ready(&mut self, began: Instant) -> Result<()> {
        while began.elapsed() < LIMIT {
            if let Ok(mut connection) = self.connect().await
                && connection.try_call(Method::GET, "/readyz", None).await.is_ok_and(|(status, _)| status == StatusCode::OK)
            {
                return Ok(());
            }
            ensure!(self.server.try_wait()?.is_none(), "the leader ended at once:\n{}", self.log());
            // Half of it is the error of the figure.
            sleep(Duration::from_millis(1)).await;
        }
        bail!("the leader isn't ready after {LIMIT:?}:\n{}", self.log())
    }

    /// Applies so many pods in one manifest; no node is there to run them.
    pub async fn fill(&self, count: usize) -> Result<()> {
        let pods = (0..count).map(|n| pod(&format!("pod-{n}"), &["sleep", "3600"])).collect();
        self.connect().await?.call(Method::POST, "/v1/apply", Some(&Value::Array(pods))).await?;
        Ok(())
    }

    /// How many pods the leader lists.
    pub async fn count_pods(&self) -> Result<usize> {
        let list = self.connect().await?.call(Method::GET, "/v1/pods", None).await?;
        Ok(list["items"].as_array().context("pods are a list")?.len())
    }

    /// Kills the leader as a crash does and starts it again; the time until it serves.
    pub async fn crash_and_recover(&mut self, engine: &Engine) -> Result<Duration> {
        self.server.kill().await?;
        let began = Instant::now();
        self.server = spawn(self.folder.path(), engine, "leader", &self.options)?;
        self.until_ready(began).await?;
        Ok(began.elapsed())
    }

    /// What the leader has written.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("leader.log")).unwrap_or_else(|error| format!("(its log can't be read: {error})"))
    }

    async fn connect(&self) -> Result<Connection> {
        Connection::open(&Address::Tcp(self.address, self.token.clone())).await
    }

    /// The leader's process id.
    pub fn pid(&self) -> Option<u32> {
        self.server.id()
    }

    /// The follower's process id.
    pub fn follower_pid(&self) -> Option<u32> {
        self.follower.as_ref().and_then(Child::id)
    }

    /// Writes the configuration that `cube` needs for this cluster.
    pub fn client_config(&self) -> Result<PathBuf> {
        let path = self.folder.path().join("config");
        write_private(&path, &json!({ "leaderUrl": self.address.to_string(), "password": self.token }).to_string())?;
        Ok(path)
    }

    /// Applies so many pods together; the time until a watch has shown each of them Running.
    pub async fn run_pods(&self, count: usize) -> Result<Duration> {
        let pods: Vec<Value> = (0..count).map(|n| pod(&format!("pod-{n}"), &["sleep", "3600"])).collect();
        self.run(pods).await
    }

    /// As [`Cluster::run_pods`], for one pod with a command of its own.
    pub async fn run_pod(&self, name: &str, command: &[&str]) -> Result<Duration> {
        self.run(vec![pod(name, command)]).await
    }

    async fn run(&self, pods: Vec<Value>) -> Result<Duration> {
        let mut waiting: BTreeSet<String> = pods.iter().filter_map(|pod| Some(pod["metadata"]["name"].as_str()?.to_owned())).collect();
        let mut watch = self.connect().await?.lines("/v1/pods?watch=true").await?;
        let mut connection = self.connect().await?;
        let manifest = Value::Array(pods);
        let began = Instant::now();
        connection.call(Method::POST, "/v1/apply", Some(&manifest)).await?;
        let running = timeout(LIMIT, async {
            while !waiting.is_empty() {
                note_running(&mut watch, &mut waiting).await?;
            }
            anyhow::Ok(began.elapsed())
        });
        match running.await {
            Ok(took) => took,
            Err(_) => bail!("{} pods don't run after {LIMIT:?}:\n{}", waiting.len(), self.log()),
        }
    }

    /// Applies pods and waits until each of their containers is ready.
    pub async fn run_until_ready(&self, pods: Vec<Value>, limit: Duration) -> Result<()> {
        self.connect().await?.call(Method::POST, "/v1/apply", Some(&Value::Array(pods))).await?;
        let began = Instant::now();
        while !self.are_ready().await? {
            ensure!(began.elapsed() < limit, "not every pod is ready after {limit:?}:\n{}", self.log());
            sleep(Duration::from_millis(500)).await;
        }
        Ok(())
    }

    /// Whether all containers of all pods are ready.
    pub async fn are_ready(&self) -> Result<bool> {
        let list = self.connect().await?.call(Method::GET, "/v1/pods", None).await?;
        let pods = list["items"].as_array().context("pods are a list")?;
        Ok(pods.iter().all(|pod| pod["status"]["readySince"].is_string()))
    }

    /// Applies a job of so many pods that end at once; the time until a watch has shown it Complete. The job stays, with what it keeps.
    pub async fn run_job(&self, name: &str, completions: usize, parallelism: usize) -> Result<Duration> {
        let spec = json!({ "restartPolicy": "Never", "containers": [{ "name": "app", "image": IMAGE, "command": ["true"] }] });
        let job = json!({ "type": "job", "metadata": { "name": name },
            "spec": { "completions": completions, "parallelism": parallelism, "template": { "spec": spec } } });
        let mut watch = self.connect().await?.lines("/v1/jobs?watch=true").await?;
        let mut connection = self.connect().await?;
        let began = Instant::now();
        connection.call(Method::POST, "/v1/apply", Some(&Value::Array(vec![job]))).await?;
        loop {
            // Nothing for so long means that it is stuck, however long the whole may take.
            let event = match timeout(LIMIT, watch.next()).await {
                Ok(event) => event?,
                Err(_) => bail!("job {name} makes no progress for {LIMIT:?}:\n{}", self.log()),
            };
            let status = &event["object"]["status"];
            match status["conditions"][0]["type"].as_str() {
                Some("Complete") if event["object"]["metadata"]["name"] == name => return Ok(began.elapsed()),
                Some("Failed") => bail!("job {name} failed: {status}\n{}", self.log()),
                Some(_) | None => {}
            }
        }
    }

    /// Applies resources.
    pub async fn apply(&self, resources: Vec<Value>) -> Result<()> {
        self.connect().await?.call(Method::POST, "/v1/apply", Some(&Value::Array(resources))).await.map(drop)
    }

    /// What is listed at a path, and then each change of it.
    pub async fn watch(&self, path: &str) -> Result<Lines> {
        self.connect().await?.lines(&format!("{path}?watch=true")).await
    }

    /// Deletes a job and waits until its pods are gone.
    pub async fn delete_job(&self, name: &str) -> Result<()> {
        self.delete_object(&format!("/v1/jobs/{name}")).await
    }

    /// Deletes what has pods, by its path, and waits until it is gone with them.
    pub async fn delete_object(&self, path: &str) -> Result<()> {
        let mut connection = self.connect().await?;
        let began = Instant::now();
        while connection.try_call(Method::DELETE, path, None).await?.0 != StatusCode::NOT_FOUND {
            ensure!(began.elapsed() < LIMIT, "{path} isn't gone after {LIMIT:?}:\n{}", self.log());
            sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Deletes every pod and waits until they are gone.
    pub async fn delete_pods(&self) -> Result<()> {
        let mut connection = self.connect().await?;
        let began = Instant::now();
        loop {
            let list = connection.call(Method::GET, "/v1/pods", None).await?;
            let names: Vec<&str> =
                list["items"].as_array().into_iter().flatten().filter_map(|pod| pod["metadata"]["name"].as_str()).collect();
            if names.is_empty() {
                return Ok(());
            }
            ensure!(began.elapsed() < LIMIT, "{} pods aren't gone after {LIMIT:?}:\n{}", names.len(), self.log());
            for name in names {
                // A pod that went in between is what is wanted.
                connection.try_call(Method::DELETE, &format!("/v1/pods/{name}?graceSeconds=0"), None).await?;
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Deletes what runs and stops the servers.
    pub async fn stop(mut self) -> Result<()> {
        self.delete_pods().await?;
        for server in self.follower.iter_mut().chain([&mut self.server]) {
            let pid = server.id().and_then(|pid| Pid::from_raw(pid.try_into().ok()?)).context("a server has ended by itself")?;
            kill_process(pid, Signal::TERM)?;
            timeout(LIMIT, server.wait()).await.context("a server doesn't stop")??;
        }
        Ok(())
    }
}

/// Starts a server on a folder that has the token; its data and its log go there too.
fn spawn(folder: &Path, engine: &Engine, role: &str, options: &[impl AsRef<OsStr>]) -> Result<Child> {
    let log = std::fs::File::create(folder.join(format!("{role}.log")))?;
    Command::new(SERVER)
        .arg(role)
        .args(options)
        .arg("--token-file")
        .arg(folder.join("token"))
        .arg("--data-dir")
        .arg(folder.join(role))
        .arg("--docker")
        .arg(format!("unix://{}", engine.socket().display()))
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("{SERVER} can't be started"))
}

async fn note_running(watch: &mut Lines, waiting: &mut BTreeSet<String>) -> Result<()> {
    let event = watch.next().await?;
    let pod = &event["object"];
    if let (Some(name), Some("Running")) = (pod["metadata"]["name"].as_str(), pod["status"]["phase"].as_str()) {
        waiting.remove(name);
    }
    Ok(())
}

fn pod(name: &str, command: &[&str]) -> Value {
    json!({
        "type": "pod",
        "metadata": { "name": name },
        "spec": { "containers": [{ "name": "app", "image": IMAGE, "command": command }] },
    })
}

/// Free at the moment: another program may take it before the leader does, and then the leader says so.
fn free_port() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// Writes what only its owner may read.
pub fn write_private(path: &Path, text: &str) -> Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?.write_all(text.as_bytes())?;
    Ok(())
}
