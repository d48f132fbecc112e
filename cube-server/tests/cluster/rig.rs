//! The cluster that the tests work with. Followers reach the leader through a [`Gate`], which keeps its address over the leader's restarts and can be cut.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cube_api::LeaderAddress;
use cube_api::auth::{Keys, Token};
use cube_api::client::Client;
use cube_api::manifest::{self, Resource};
use cube_api::meta::{ClusterId, Labels, Name};
use cube_api::node::NodeRole;
use cube_api::pod::{Phase, Pod};
use cube_server::ambient::Ambient;
use cube_server::disk::Space;
use cube_server::follower::dial::Dialer;
use cube_server::follower::host_paths::HostPaths;
use cube_server::follower::machine::{self, scripted::Scripted};
use cube_server::follower::reserve::Reserve;
use cube_server::follower::runtime::Runtime;
use cube_server::follower::runtime::fake::{Fake, Script};
use cube_server::follower::{self, AgentConfig};
use cube_server::leader::{self, control, nodes::Nodes};
use cube_server::net::Network;
use cube_server::serve::{self, Connections};
use cube_server::tasks::Tasks;
use tempfile::TempDir;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

const TOKEN: &str = "the cluster's token";

/// How long something may take that takes a fraction of it on an idle machine.
const LIMIT: Duration = Duration::from_secs(30);

pub fn name(text: &str) -> Name {
    Name::new(text).expect("a label")
}

pub fn token() -> Token {
    Token::new(TOKEN).expect("not blank")
}

/// A manifest of pods with one container `c` each.
pub fn pods(of: &[(&str, &str)]) -> Vec<Resource> {
    let pod = |(name, image): &(&str, &str)| serde_json::json!({"type": "pod", "metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": image}]}});
    let text = serde_json::Value::Array(of.iter().map(pod).collect()).to_string();
    manifest::from_json(text.as_bytes()).expect("a manifest without errors")
}

/// Waits until the probe gives something; its last word is shown if it never does.
pub async fn wait_for<T, W: std::fmt::Debug>(what: &str, mut probe: impl AsyncFnMut() -> Result<T, W>) -> T {
    let limit = tokio::time::Instant::now() + LIMIT;
    loop {
        match probe().await {
            Ok(value) => return value,
            Err(last) if tokio::time::Instant::now() > limit => panic!("{what} did not come; the last seen: {last:?}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

/// What is awaited must come in time.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, future).await.unwrap_or_else(|_| panic!("{what} did not come"))
}

/// A way to the leader that can be cut.
#[derive(Clone)]
pub struct Gate {
    pub address: LeaderAddress,
    target: Arc<Mutex<Target>>,
}

struct Target {
    leader: SocketAddr,
    open: bool,
    /// Connections that were let through.
    passed: usize,
    /// Ends the connections of now.
    cut: CancellationToken,
}

impl Gate {
    async fn to(leader: SocketAddr, tasks: &Tasks) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound").to_string().parse().expect("an address");
        let target = Arc::new(Mutex::new(Target { leader, open: true, passed: 0, cut: CancellationToken::new() }));
        let (shared, owner) = (Arc::clone(&target), tasks.clone());
        tasks.spawn_droppable("gate", async move {
            while let Ok((mut inner, _)) = listener.accept().await {
                let (leader, open, cut) = {
                    let mut target = shared.lock().expect("nothing panics while it is held");
                    target.passed += usize::from(target.open);
                    (target.leader, target.open, target.cut.clone())
                };
                let pass = async move {
                    if let (true, Ok(mut outer)) = (open, TcpStream::connect(leader).await) {
                        tokio::select! {
                            _ = copy_bidirectional(&mut inner, &mut outer) => {}
                            () = cut.cancelled() => {}
                        }
                    }
                };
                owner.spawn_droppable("through the gate", pass);
            }
        });
        Self { address, target }
    }

    /// Cuts every connection; new ones pass if `open`.
    pub fn cut(&self, open: bool) {
        let mut target = self.target.lock().expect("nothing panics while it is held");
        target.open = open;
        std::mem::take(&mut target.cut).cancel();
    }

    /// Waits until so many more connections were let through.
    pub async fn let_through(&self, more: usize) {
        let passed = || self.target.lock().expect("nothing panics while it is held").passed;
        let before = passed();
        wait_for("connections through the gate", async || if passed() >= before + more { Ok(()) } else { Err(passed()) }).await;
    }

    fn lead_to(&self, leader: SocketAddr) {
        self.target.lock().expect("nothing panics while it is held").leader = leader;
        self.cut(true);
    }
}

/// A leader's life.
pub struct Leader {
    folder: TempDir,
    options: control::Options,
    tasks: Tasks,
    address: SocketAddr,
    pub nodes: Nodes,
    pub connections: Connections,
    pub client: Client,
    cluster_id: ClusterId,
}

impl Leader {
    pub async fn start() -> Self {
        Self::start_with(control::Options::default()).await
    }

    /// One that is more, or less, patient with its nodes.
    pub async fn start_with(options: control::Options) -> Self {
        Self::start_in(tempfile::tempdir().expect("a temporary folder"), options).await
    }

    async fn start_in(folder: TempDir, options: control::Options) -> Self {
        let (ambient, tasks) = (Ambient::system(), Tasks::default());
        let listener = serve::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let config =
            leader::Config { database: folder.path().join("leader.db"), disk: None, keys: Keys::new(&token()), loops: options.clone() };
        let started = leader::start(config, listener, ambient, &tasks).await.expect("a leader that starts");
        let leader: LeaderAddress = address.to_string().parse().expect("an address");
        let leader::Leader { nodes, store, connections } = started;
        Self { folder, options, tasks, address, nodes, connections, client: Client::new(leader, token()), cluster_id: store.cluster_id() }
    }

    pub fn cluster_id(&self) -> ClusterId {
        self.cluster_id
    }

    /// Stops it, and starts another life on the same database.
    pub async fn restart(self, gate: &Gate) -> Self {
        self.restart_after(gate, |_| {}).await
    }

    /// As [`Leader::restart`]; what is done to the database in between is done with nobody there.
    pub async fn restart_after(self, gate: &Gate, change: impl FnOnce(&Path)) -> Self {
        self.stop().await;
        change(&self.database());
        let leader = Self::start_in(self.folder, self.options).await;
        gate.lead_to(leader.address);
        leader
    }

    /// Its database's file.
    pub fn database(&self) -> PathBuf {
        self.folder.path().join("leader.db")
    }

    pub async fn stop(&self) {
        assert!(self.tasks.shut_down(LIMIT).await, "the leader's tasks don't end");
        assert!(!self.tasks.has_panicked());
    }

    /// A way to it.
    pub async fn gate(&self, tasks: &Tasks) -> Gate {
        Gate::to(self.address, tasks).await
    }

    /// Leads a gate here.
    pub fn take(&self, gate: &Gate) {
        gate.lead_to(self.address);
    }

    /// Waits until a node can take pods.
    pub async fn ready(&self, node: &str) {
        let client = &self.client;
        wait_for(&format!("node {node}, ready"), async || match client.node(&name(node)).await {
            Ok(found) if found.condition.is_ready() => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
    }

    /// Waits until a pod is in a phase.
    pub async fn phase(&self, pod: &str, phase: Phase) -> Pod {
        let client = &self.client;
        wait_for(&format!("pod {pod}, {phase:?}"), async || match client.pod(&name(pod)).await {
            Ok(found) if found.status.phase == phase => Ok(found),
            other => Err(format!("{other:?}")),
        })
        .await
    }

    pub async fn apply(&self, of: &[(&str, &str)]) {
        self.client.apply(&pods(of), false).await.expect("an apply that isn't refused");
    }

    pub async fn apply_text(&self, text: &str) {
        let resources = manifest::from_json(text.as_bytes()).expect("a manifest without errors");
        self.client.apply(&resources, false).await.expect("an apply that isn't refused");
    }
}

/// A follower. Its engine and its folder outlive it.
pub struct Follower {
    pub fake: Fake,
    tasks: Tasks,
    folder: TempDir,
}

/// The machine of a follower.
#[derive(Clone, Copy)]
pub struct Machine<'a> {
    pub id: &'a str,
    pub boot: &'a str,
}

impl Follower {
    /// A follower whose engine knows the image `app`, which writes two lines and runs.
    pub async fn start(node: &str, machine: &str, gate: &Gate) -> Self {
        let tasks = Tasks::default();
        let fake = Fake::new(Ambient::system(), &tasks);
        fake.script("app", Script { output: vec!["one".to_owned(), "two".to_owned()], ..Script::default() });
        Self::start_on(node, machine, gate, fake.clone(), Arc::new(fake), tasks).await
    }

    pub async fn start_on(node: &str, machine: &str, gate: &Gate, fake: Fake, runtime: Arc<dyn Runtime>, tasks: Tasks) -> Self {
        let (folder, boot) = (tempfile::tempdir().expect("a temporary folder"), format!("{machine}'s boot"));
        Self::start_in(folder, node, Machine { id: machine, boot: &boot }, gate, Engine { fake, runtime, tasks, measured: None }).await
    }

    /// Another process with this data folder, on an engine that may be another one's.
    pub async fn start_with(folder: TempDir, node: &str, machine: Machine<'_>, gate: &Gate, fake: Fake) -> Self {
        let runtime = Arc::new(fake.clone());
        Self::start_in(folder, node, machine, gate, Engine { fake, runtime, tasks: Tasks::default(), measured: None }).await
    }

    /// As [`Follower::start`], on a machine that is measured: 4 cores of which one works, 8 GiB of which 2 are taken, a disk of 100 bytes with
    /// 30 free.
    pub async fn start_measured(node: &str, gate: &Gate) -> Self {
        let (fake, folder) = (engine(), tempfile::tempdir().expect("a temporary folder"));
        let measured = Scripted::with_disks(&[(folder.path(), Space { free: 30, all: 100 })]);
        measured.work(25, 6 << 30);
        measured.be_busy([120, 80, 40]);
        let engine = Engine { runtime: Arc::new(fake.clone()), fake, tasks: Tasks::default(), measured: Some(measured) };
        Self::start_in(folder, node, Machine { id: "machine-1", boot: "boot" }, gate, engine).await
    }

    /// As [`Follower::start`], which reaches its leader by this name over this network.
    pub async fn start_over(network: Network, leader: LeaderAddress, node: &str) -> Self {
        let fake = engine();
        let engine = Engine { runtime: Arc::new(fake.clone()), fake, tasks: Tasks::default(), measured: None };
        let folder = tempfile::tempdir().expect("a temporary folder");
        Self::start_at(folder, node, Machine { id: "machine-1", boot: "boot" }, (network, leader), engine).await
    }

    async fn start_in(folder: TempDir, node: &str, machine: Machine<'_>, gate: &Gate, engine: Engine) -> Self {
        Self::start_at(folder, node, machine, (Network::system(), gate.address.clone()), engine).await
    }

    async fn start_at(
        folder: TempDir,
        node: &str,
        machine: Machine<'_>,
        (network, leader): (Network, LeaderAddress),
        engine: Engine,
    ) -> Self {
        let (ambient, keys, Engine { fake, runtime, tasks, measured }) = (Ambient::system(), Keys::new(&token()), engine);
        let config = AgentConfig {
            free_ports: Default::default(),
            address: None,
            allow: Default::default(),
            registry_auth: None,
            image_gc: None,
            node: name(node),
            role: NodeRole::Follower,
            labels: Labels::new(),
            machine_id: machine.id.to_owned(),
            boot_id: machine.boot.to_owned(),
            data_dir: folder.path().to_owned(),
            host_paths: HostPaths::default(),
            spare_sandboxes: 0,
            max_pods: 100,
            reserve: Reserve::default(),
            machine: measured,
            network: Some(network.clone()),
        };
        let dialer = Dialer::new(leader, name(node), keys, network, ambient.clone());
        follower::start(config, runtime, dialer, ambient, &tasks).await.expect("a node that starts");
        Self { fake, tasks, folder }
    }

    /// Stops it; its data folder, and a copy of it.
    pub async fn stop_and_copy(self) -> (TempDir, TempDir) {
        self.stop().await;
        let copy = tempfile::tempdir().expect("a temporary folder");
        for file in std::fs::read_dir(self.folder.path()).expect("its folder") {
            let file = file.expect("a file");
            std::fs::copy(file.path(), copy.path().join(file.file_name())).expect("a copy");
        }
        (self.folder, copy)
    }

    pub async fn stop(&self) {
        assert!(self.tasks.shut_down(LIMIT).await, "the follower's tasks don't end");
        assert!(!self.tasks.has_panicked());
    }
}

struct Engine {
    fake: Fake,
    runtime: Arc<dyn Runtime>,
    tasks: Tasks,
    measured: Option<Arc<dyn machine::Machine>>,
}

/// An engine that knows the image `app`, which runs.
pub fn engine() -> Fake {
    let fake = Fake::new(Ambient::system(), &Tasks::default());
    fake.script("app", Script::default());
    fake
}

/// A leader with one follower, `n1`, behind a gate.
pub struct Cluster {
    pub leader: Leader,
    pub follower: Follower,
    pub gate: Gate,
    tasks: Tasks,
}

impl Cluster {
    pub async fn start() -> Self {
        let tasks = Tasks::default();
        let leader = Leader::start().await;
        let gate = leader.gate(&tasks).await;
        let follower = Follower::start("n1", "machine-1", &gate).await;
        leader.ready("n1").await;
        Self { leader, follower, gate, tasks }
    }

    /// Ends all of it; a task that panicked or doesn't end is a failure.
    pub async fn stop(self) {
        self.follower.stop().await;
        self.leader.stop().await;
        assert!(self.tasks.shut_down(LIMIT).await, "the gate doesn't end");
    }
}
