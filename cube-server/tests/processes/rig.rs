//! Servers as processes of their own, on temporary folders and free ports of the loopback address, and the ways to look at them and to hurt them.

use std::fmt::Debug;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use bollard::Docker;
use bollard::query_parameters::{ListContainersOptions, LogsOptions};
use cube_api::auth::Token;
use cube_api::client::Client;
use cube_api::manifest::{self, Resource};
use cube_api::meta::Name;
use cube_api::pod::{Phase, Pod};
use futures::TryStreamExt;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::sleep;

/// The server under test.
const SERVER: &str = env!("CARGO_BIN_EXE_cube-server");

/// The image that `scripts/images` makes: sh and the usual small programs.
pub const BUSYBOX: &str = "busybox:latest";

/// How long anything may take that takes a fraction of it on an idle machine.
pub const LIMIT: Duration = Duration::from_secs(60);

/// Where [`free_port`] looks: below the ports that Linux gives to outgoing connections, so that none of those takes the place of a leader that was
/// just killed.
const PORTS: std::ops::Range<u16> = 10_000..32_000;

/// A folder for one test's servers, with the cluster's token.
pub struct Ground {
    folder: TempDir,
    token: String,
}

impl Ground {
    /// A new one with a token of its own.
    pub fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("cube-processes-").tempdir().expect("a temporary folder");
        let token = format!("token-{:032x}", rand::random::<u128>());
        fs::write(folder.path().join("token"), &token).expect("a token file");
        Self { folder, token }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The cluster's secret.
    pub fn token(&self) -> Token {
        Token::new(&self.token).expect("not blank")
    }

    /// A leader that runs no pods, at a port that stays its own over its restarts. Not started.
    pub fn leader(&self, name: &str) -> Server {
        self.leader_at(name, (Ipv4Addr::LOCALHOST, free_port()).into())
    }

    /// As [`Ground::leader`], at the address of another one.
    pub fn leader_at(&self, name: &str, address: SocketAddr) -> Server {
        let listen = address.to_string();
        self.server(name, address, &["leader", "--no-pods", "--listen", &listen])
    }

    /// A follower that keeps no spare sandboxes: whose a container is, is read from labels here, and those that were spare have none of a pod's. Not
    /// started.
    pub fn follower(&self, name: &str, leader: SocketAddr) -> Server {
        self.server(name, leader, &["follower", "--leader", &leader.to_string(), "--spare-sandboxes", "0"])
    }

    fn server(&self, name: &str, address: SocketAddr, arguments: &[&str]) -> Server {
        let folder = self.path().join(name);
        let mut arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        for (flag, value) in [("--token-file", self.path().join("token")), ("--data-dir", folder.clone()), ("--name", name.into())] {
            arguments.extend([flag.to_owned(), value.display().to_string()]);
        }
        Server { address, folder, log: self.path().join(format!("{name}.log")), arguments, log_level: None, child: None }
    }

    /// A leader with a follower on this engine that is Ready, and a client.
    pub async fn cluster(&self, engine: &Engine) -> (Server, Server, Client) {
        let mut leader = self.leader("leader");
        leader.start_ready().await;
        let mut follower = self.follower(engine.node(), leader.address);
        follower.start();
        let client = self.client(leader.address);
        node_ready(&client, engine.node()).await;
        (leader, follower, client)
    }

    /// A client of a leader.
    pub fn client(&self, leader: SocketAddr) -> Client {
        Client::new(leader.to_string().parse().expect("an address"), self.token())
    }
}

/// A port that nothing listens on.
fn free_port() -> u16 {
    let free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    std::iter::repeat_with(|| rand::random_range(PORTS)).take(1_000).find(free).expect("a free port")
}

/// A server's process, or the place for one. Dropping it kills it.
pub struct Server {
    /// The leader's: where it listens, or where it is dialled.
    pub address: SocketAddr,
    /// Its data folder.
    pub folder: PathBuf,
    log: PathBuf,
    arguments: Vec<String>,
    log_level: Option<&'static str>,
    child: Option<Child>,
}

impl Server {
    /// It says so much: `CUBE_LOG`.
    pub fn with_log(mut self, level: &'static str) -> Self {
        self.log_level = Some(level);
        self
    }

    /// Starts the process (again). What it writes, on both streams, goes to its log.
    pub fn start(&mut self) {
        self.start_by(Command::new(SERVER));
    }

    /// As [`Server::start`], with so many open files at first.
    pub fn start_with_few_files(&mut self, files: usize) {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("ulimit -Sn {files}; exec \"$0\" \"$@\""), SERVER]);
        self.start_by(shell);
    }

    fn start_by(&mut self, mut command: Command) {
        assert!(self.child.is_none(), "it runs");
        let log = self.open_log();
        command.args(&self.arguments).stdin(Stdio::null()).stdout(log.try_clone().expect("a second handle")).stderr(log);
        // The environment of whoever runs the tests is not part of them.
        for (variable, _) in std::env::vars().filter(|(variable, _)| variable.starts_with("CUBE_")) {
            command.env_remove(variable);
        }
        command.envs(self.log_level.map(|level| ("CUBE_LOG", level)));
        self.child = Some(command.spawn().expect("cube-server starts"));
    }

    fn open_log(&self) -> File {
        OpenOptions::new().create(true).append(true).open(&self.log).expect("a log file")
    }

    /// Starts a leader and waits until it serves.
    pub async fn start_ready(&mut self) -> Duration {
        let began = Instant::now();
        self.start();
        self.ready().await;
        began.elapsed()
    }

    /// Waits until a leader serves. It listens before it serves: the request waits then, so that nothing is lost by asking too often.
    pub async fn ready(&mut self) {
        let began = Instant::now();
        loop {
            let answer = exchange(self.address, b"GET /readyz HTTP/1.1\r\nhost: leader\r\nconnection: close\r\n\r\n").await;
            if answer.is_ok_and(|answer| answer.starts_with(b"HTTP/1.1 200")) {
                return;
            }
            let ended = self.child.as_mut().expect("it was started").try_wait().expect("it is ours");
            assert!(ended.is_none(), "the leader ended by itself ({ended:?}):\n{}", self.log());
            assert!(began.elapsed() < LIMIT, "the leader isn't ready after {LIMIT:?}:\n{}", self.log());
            sleep(Duration::from_millis(1)).await;
        }
    }

    /// Starts it, and expects that it ends by itself: its end, and what it wrote.
    pub async fn refuses_to_start(&mut self) -> (ExitStatus, String) {
        let before = self.log_length();
        self.start();
        let status = self.ended().await;
        (status, self.log_from(before))
    }

    /// What it wrote so far, over all its lives.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// How much it wrote so far, in bytes.
    pub fn log_length(&self) -> u64 {
        fs::metadata(&self.log).map(|file| file.len()).unwrap_or_default()
    }

    /// What it wrote after so many bytes.
    pub fn log_from(&self, start: u64) -> String {
        let mut text = String::new();
        let mut log = File::open(&self.log).expect("a log");
        log.seek(SeekFrom::Start(start)).and_then(|_| log.read_to_string(&mut text)).expect("text");
        text
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// Its resident memory in KiB.
    pub fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a size");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// SIGKILL; it is gone afterwards.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("it is ours");
            child.wait().expect("it was running");
        }
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid().try_into().expect("a process id")).expect("not 0");
        kill_process(pid, signal).expect("it is ours");
    }

    /// Waits for its end.
    pub async fn ended(&mut self) -> ExitStatus {
        let log = self.log.clone();
        let child = self.child.as_mut().expect("it runs");
        let status = wait_for("the end of a server", async || match child.try_wait().expect("it is ours") {
            Some(status) => Ok(status),
            None => Err(fs::read_to_string(&log).unwrap_or_default()),
        })
        .await;
        self.child = None;
        status
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.log();
            let end: Vec<_> = log.lines().rev().take(40).collect();
            eprintln!("---- the end of {} ----", self.log.display());
            end.iter().rev().for_each(|line| eprintln!("{line}"));
        }
    }
}

/// Sends bytes on a connection of its own and reads until the peer closes it.
pub async fn exchange(address: SocketAddr, bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(bytes).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(answer)
}

/// Waits until the probe gives something; its last word is shown if it never does.
pub async fn wait_for<T, W: Debug>(what: &str, mut probe: impl AsyncFnMut() -> Result<T, W>) -> T {
    let began = Instant::now();
    loop {
        match probe().await {
            Ok(value) => return value,
            Err(last) if began.elapsed() > LIMIT => panic!("{what} did not come within {LIMIT:?}; the last seen: {last:?}"),
            Err(_) => sleep(Duration::from_millis(5)).await,
        }
    }
}

/// A name.
pub fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

/// A manifest of one pod with one busybox container `c`, with more of a pod's spec and of the container's.
pub fn pod(name: &str, spec: &Value, container: &Value) -> Value {
    let mut pod = json!({"type": "pod", "metadata": {"name": name}, "spec": {"terminationGracePeriodSeconds": 0, "containers": [{"name": "c", "image": BUSYBOX}]}});
    merge(&mut pod["spec"], spec);
    merge(&mut pod["spec"]["containers"][0], container);
    pod
}

fn merge(into: &mut Value, more: &Value) {
    for (key, value) in more.as_object().into_iter().flatten() {
        into[key] = value.clone();
    }
}

/// A pod that sleeps.
pub fn sleeper(name: &str) -> Value {
    pod(name, &json!({}), &json!({"command": ["sleep", "100000"]}))
}

/// A manifest, read as the leader reads it.
pub fn resources(pods: Vec<Value>) -> Vec<Resource> {
    manifest::from_json(Value::Array(pods).to_string().as_bytes()).expect("a manifest without errors")
}

/// Waits until a pod is in a phase.
pub async fn phase(client: &Client, pod: &str, phase: Phase) -> Pod {
    wait_for(&format!("pod {pod}, {phase:?}"), async || match client.pod(&name(pod)).await {
        Ok(found) if found.status.phase == phase => Ok(found),
        other => Err(format!("{other:?}")),
    })
    .await
}

/// Waits until a node can take pods.
pub async fn node_ready(client: &Client, node: &str) {
    wait_for(&format!("node {node}, ready"), async || match client.node(&name(node)).await {
        Ok(found) if found.condition.is_ready() => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
}

/// A container of a node, as Docker shows it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Container {
    pub id: String,
    pub pod: String,
    pub uid: String,
    /// Empty for the sandbox.
    pub container: String,
    pub running: bool,
}

/// The containers of one node on the machine's engine. Removes what is left of them when dropped: so make it before the servers, which must be
/// gone by then.
pub struct Engine {
    docker: Docker,
    node: String,
}

impl Engine {
    /// For a node of a name that nothing else has.
    pub fn new() -> Self {
        let docker = Docker::connect_with_defaults().expect("a Docker client");
        Self { docker, node: format!("proc-{:012x}", rand::random::<u64>() >> 16) }
    }

    /// The node's name.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// All of them.
    pub async fn containers(&self) -> Vec<Container> {
        let filters = [("label".to_owned(), vec![format!("io.cube.node={}", self.node)])].into();
        let options = ListContainersOptions { all: true, filters: Some(filters), ..ListContainersOptions::default() };
        let listed = self.docker.list_containers(Some(options)).await.expect("Docker answers");
        let mut containers: Vec<_> = listed.into_iter().map(container).collect();
        containers.sort();
        containers
    }

    /// What a container wrote to its standard output.
    pub async fn log(&self, id: &str) -> String {
        let options = LogsOptions { stdout: true, ..LogsOptions::default() };
        let pieces: Vec<_> = self.docker.logs(id, Some(options)).try_collect().await.unwrap_or_default();
        pieces.iter().map(ToString::to_string).collect()
    }

    /// The running ones of the named pods.
    pub async fn running(&self, pods: &[&str]) -> Vec<Container> {
        let mut found = self.containers().await;
        found.retain(|container| container.running && pods.contains(&container.pod.as_str()));
        found
    }
}

fn container(summary: bollard::models::ContainerSummary) -> Container {
    let labels = summary.labels.unwrap_or_default();
    let label = |key: &str| labels.get(key).cloned().unwrap_or_default();
    Container {
        id: summary.id.unwrap_or_default(),
        pod: label("io.cube.pod.name"),
        uid: label("io.cube.pod.uid"),
        container: label("io.cube.container"),
        running: summary.state.is_some_and(|state| state.to_string() == "running"),
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let filter = format!("label=io.cube.node={}", self.node);
        let listed = Command::new("docker").args(["ps", "-aq", "--filter", &filter]).output();
        let ids = listed.map(|listed| String::from_utf8_lossy(&listed.stdout).into_owned()).unwrap_or_default();
        if !ids.trim().is_empty() {
            Command::new("docker").args(["rm", "-f"]).args(ids.split_whitespace()).output().ok();
        }
    }
}
