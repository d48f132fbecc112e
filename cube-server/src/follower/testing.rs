//! A node agent on the engine in memory, with a leader that only takes reports. Time is tokio's, paused.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use cube_api::meta::{ClusterId, Labels, Name, Uid};
use cube_api::node::{NodeRole, Usage};
use cube_api::pod::{Container, PodSpec, PodStatus, RestartPolicy};
use cube_api::session::{
    AssignedPod, Assignment, AssignmentAccepted, Epoch, Generation, NodeEvent, NodeFacts, PodReport, Report, ReportAccepted, Want, Welcome,
};
use cube_api::{ApiError, ErrorCode};
use jiff::{SignedDuration, Timestamp};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;
use uuid::Uuid;

use super::agent::{Agent, AgentConfig, LeaderLink, LinkError, StartError};
use super::host_paths::HostPaths;
use super::ledger::{LEDGER, Ledger};
use super::machine::Machine;
use super::ports::FreePorts;
use super::reserve::Reserve;
use super::runtime::Observed;
use super::runtime::fake::{Fake, Resident, Script};
use crate::ambient::{Ambient, Source};
use crate::disk::scripted::Scripted;
use crate::net::{self, Network};
use crate::tasks::Tasks;

/// A clock that goes with tokio's until somebody sets it, and dice that count.
struct Clock {
    began: Instant,
    set_by: Arc<AtomicI64>,
    dice: AtomicU64,
}

impl Source for Clock {
    fn now(&self) -> Timestamp {
        Timestamp::constant(1_800_000_000, 0) + self.began.elapsed() + SignedDuration::from_secs(self.set_by.load(Ordering::Relaxed))
    }

    fn random(&self) -> u64 {
        self.dice.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed)
    }
}

/// What the leader got.
#[derive(Default)]
pub struct Leader {
    pub away: AtomicBool,
    pub refuses: AtomicBool,
    /// It has more reports at a time than it takes.
    pub is_busy: AtomicBool,
    pub calls: AtomicU64,
    pub rests: AtomicU64,
    pub pods: Mutex<BTreeMap<Uid, PodReport>>,
    pub events: Mutex<BTreeMap<u64, NodeEvent>>,
    pub trouble: Mutex<Option<String>>,
    pub dropped: Mutex<BTreeSet<Uid>>,
    /// What the newest report said of the node and of its machine.
    pub node: Mutex<Option<(NodeFacts, Option<Usage>)>>,
}

#[async_trait]
impl LeaderLink for Leader {
    async fn report(&self, report: &Report) -> Result<ReportAccepted, LinkError> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        if self.away.load(Ordering::Relaxed) {
            return Err(LinkError::Unreachable { leader: "leader:4242".to_owned(), problem: "connection refused".to_owned() });
        }
        if self.refuses.load(Ordering::Relaxed) {
            return Err(LinkError::Refused(ApiError::new(ErrorCode::Conflict, "superseded")));
        }
        if self.is_busy.load(Ordering::Relaxed) {
            return Err(LinkError::Refused(ApiError::new(ErrorCode::Busy, "the leader is reading 128 reports")));
        }
        self.dropped.lock().unwrap().extend(&report.dropped);
        *self.trouble.lock().unwrap() = report.facts.trouble.clone();
        *self.node.lock().unwrap() = Some((report.facts.clone(), report.usage));
        let mut pods = self.pods.lock().unwrap();
        for pod in &report.pods {
            if pods.get(&pod.uid).is_none_or(|known| known.sequence < pod.sequence) {
                pods.insert(pod.uid, pod.clone());
            }
        }
        let mut events = self.events.lock().unwrap();
        for event in &report.events {
            events.entry(event.sequence).or_insert_with(|| event.clone());
        }
        Ok(ReportAccepted { events_through: events.keys().max().copied().unwrap_or(0) })
    }

    fn rest(&self) {
        self.rests.fetch_add(1, Ordering::Relaxed);
    }
}

/// How the pods answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// With this HTTP status, whatever is asked.
    Status(u16),
    /// Nobody listens.
    Refused,
    /// The connection is taken, and nothing is said.
    Silence,
    /// What is said is no HTTP.
    Garbage,
}

/// The network as probes see it: every address is a pod's.
#[derive(Clone)]
pub struct Peer {
    answer: Arc<Mutex<Answer>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Default for Peer {
    fn default() -> Self {
        Self { answer: Arc::new(Mutex::new(Answer::Status(200))), asked: Arc::default() }
    }
}

#[async_trait]
impl net::Source for Peer {
    async fn resolve(&self, host: &str, _port: u16) -> io::Result<Vec<SocketAddr>> {
        Err(io::Error::new(io::ErrorKind::NotFound, format!("no such host: {host}")))
    }

    async fn connect(&self, _address: SocketAddr) -> io::Result<net::Stream> {
        let answer = *self.answer.lock().unwrap();
        if answer == Answer::Refused {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let (ours, mut theirs) = tokio::io::duplex(4096);
        let asked = self.asked.clone();
        // It ends with its connection.
        tokio::spawn(async move {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                match theirs.read_buf(&mut head).await {
                    Ok(0) | Err(_) => return,
                    Ok(_) => {}
                }
            }
            asked.lock().unwrap().push(String::from_utf8(head).unwrap());
            let said = match answer {
                Answer::Status(status) => format!("HTTP/1.1 {status} Any\r\nContent-Length: 2\r\n\r\nhi"),
                Answer::Garbage => "220 mail.example ESMTP\r\n".to_owned(),
                Answer::Silence | Answer::Refused => return std::future::pending().await,
            };
            drop(theirs.write_all(said.as_bytes()).await);
        });
        Ok(net::Stream::new(ours))
    }
}

/// A node on a test bench: the engine, the leader and the data folder outlive the agent.
pub struct Bench {
    pub fake: Fake,
    pub leader: Arc<Leader>,
    pub ambient: Ambient,
    pub agent: Agent,
    set_by: Arc<AtomicI64>,
    machine: &'static str,
    spares: usize,
    free_ports: FreePorts,
    peer: Peer,
    folder: TempDir,
    disk: Arc<Scripted>,
    tasks: Tasks,
    generation: AtomicU64,
}

pub const CLUSTER: ClusterId = ClusterId(Uuid::from_u128(7));

impl Bench {
    /// A node that has joined its cluster and knows the image `app`.
    pub async fn new() -> Self {
        Self::on(Scripted::new()).await
    }

    /// As [`Bench::new`], with so many sandboxes kept ready, which are there.
    pub async fn with_spares(spares: usize) -> Self {
        let mut bench = Self::new().await;
        bench.keep_spares(spares).await;
        bench.assign(&[]).await;
        bench.wait_for("the spares", || bench.spares().len() == spares).await;
        bench
    }

    /// Kills the agent and starts another one that keeps so many sandboxes ready.
    pub async fn keep_spares(&mut self, spares: usize) {
        self.spares = spares;
        self.kill_and_restart().await;
    }

    /// Kills the agent and starts another one that gives these ports away.
    pub async fn give_ports(&mut self, range: &str) {
        self.free_ports = range.parse().unwrap();
        self.kill_and_restart().await;
    }

    /// What whoever connects to a pod gets from now on.
    pub fn answer(&self, answer: Answer) {
        *self.peer.answer.lock().unwrap() = answer;
    }

    /// The requests that pods got, their heads.
    pub fn asked(&self) -> Vec<String> {
        self.peer.asked.lock().unwrap().clone()
    }

    /// The sandboxes that run and that no pod has.
    pub fn spares(&self) -> Vec<Resident> {
        self.fake.residents().into_iter().filter(|resident| resident.spare && resident.live).collect()
    }

    /// As [`Bench::new`], on this disk.
    pub async fn on(disk: Arc<Scripted>) -> Self {
        let set_by = Arc::<AtomicI64>::default();
        let ambient = Ambient::new(Clock { began: Instant::now(), set_by: set_by.clone(), dice: AtomicU64::new(1) });
        let fake = Fake::new(ambient.clone(), &Tasks::default());
        fake.script("app", Script::default());
        let folder = tempfile::tempdir().unwrap();
        let (leader, peer) = (Arc::new(Leader::default()), Peer::default());
        let tasks = Tasks::default();
        let agent = start(config(&folder, "machine", 0, &peer), &disk, &fake, &leader, &ambient, &tasks).await;
        let bench = Self {
            fake,
            leader,
            ambient,
            set_by,
            machine: "machine",
            spares: 0,
            free_ports: FreePorts::default(),
            peer,
            agent,
            folder,
            disk,
            tasks,
            generation: AtomicU64::new(0),
        };
        bench.agent.welcome(&Welcome { cluster_id: CLUSTER, epoch: Epoch(1), life: None }).await.unwrap();
        bench
    }

    /// Kills the agent at whatever it does, and starts another one on its folder.
    pub async fn kill_and_restart(&mut self) {
        self.kill().await;
        self.tasks = Tasks::default();
        let config = AgentConfig { free_ports: self.free_ports, ..config(&self.folder, self.machine, self.spares, &self.peer) };
        self.agent = start(config, &self.disk, &self.fake, &self.leader, &self.ambient, &self.tasks).await;
    }

    /// As [`Bench::kill_and_restart`], with another reserve, on a machine that is measured.
    pub async fn restart_measured(&mut self, reserve: Reserve, machine: Arc<dyn Machine>) {
        self.kill().await;
        self.tasks = Tasks::default();
        let config = AgentConfig { reserve, machine: Some(machine), ..config(&self.folder, self.machine, self.spares, &self.peer) };
        self.agent = start(config, &self.disk, &self.fake, &self.leader, &self.ambient, &self.tasks).await;
    }

    /// Kills the agent and starts another one on its folder, with another configuration.
    pub async fn restart_with(&mut self, change: impl FnOnce(AgentConfig) -> AgentConfig) {
        self.kill().await;
        self.tasks = Tasks::default();
        let config = change(config(&self.folder, self.machine, self.spares, &self.peer));
        self.agent = start(config, &self.disk, &self.fake, &self.leader, &self.ambient, &self.tasks).await;
    }

    /// Sets the node's clock.
    pub fn set_clock(&self, by: SignedDuration) {
        self.set_by.fetch_add(by.as_secs(), Ordering::Relaxed);
    }

    /// Kills the agent and starts another one on its folder, on a machine whose engine is empty.
    pub async fn move_to(&mut self, machine: &'static str) {
        self.kill().await;
        self.machine = machine;
        self.fake.everything().iter().for_each(|container| self.fake.remove_by_hand(&container.id));
        self.kill_and_restart().await;
    }

    /// Starts another agent on the data folder, under another name.
    pub async fn start_as(&self, name: Name) -> Result<Agent, StartError> {
        let config = AgentConfig { node: name, ..config(&self.folder, self.machine, self.spares, &self.peer) };
        Agent::start(config, Arc::new(self.fake.clone()), self.leader.clone(), self.ambient.clone(), &Tasks::default()).await
    }

    /// The reasons and messages of the node's own events, in order.
    pub fn of_node(&self) -> Vec<(String, String)> {
        let events = self.leader.events.lock().unwrap();
        events.values().filter(|event| event.uid == Uid::NONE).map(|event| (event.reason.clone(), event.message.clone())).collect()
    }

    /// Kills the agent.
    pub async fn kill(&self) {
        assert!(self.tasks.shut_down(Duration::from_secs(10)).await, "tasks that don't end");
        assert!(!self.tasks.has_panicked());
    }

    /// As [`Bench::lose_ledger`], and meanwhile a person removes all containers.
    pub async fn lose_ledger_and_containers(&mut self) {
        self.kill().await;
        self.fake.everything().iter().for_each(|container| self.fake.remove_by_hand(&container.id));
        self.lose_ledger().await;
    }

    /// Kills the agent and starts another one, whose data folder is empty.
    pub async fn lose_ledger(&mut self) {
        self.kill().await;
        for file in std::fs::read_dir(self.folder.path()).unwrap() {
            std::fs::remove_file(file.unwrap().path()).unwrap();
        }
        self.kill_and_restart().await;
    }

    /// Assigns these pods, and no others.
    pub async fn assign(&self, pods: &[AssignedPod]) -> AssignmentAccepted {
        self.agent.assign(self.assignment(pods)).await.unwrap()
    }

    /// The next assignment.
    pub fn assignment(&self, pods: &[AssignedPod]) -> Assignment {
        let generation = Generation(self.generation.fetch_add(1, Ordering::Relaxed) + 1);
        Assignment {
            cluster_id: CLUSTER,
            epoch: Epoch(1),
            node: node(),
            generation,
            pods: pods.to_vec(),
            unchanged: None,
            cordoned: false,
            drop_volumes: Vec::new(),
        }
    }

    /// The status that the leader has.
    pub fn status(&self, uid: Uid) -> Option<PodStatus> {
        self.leader.pods.lock().unwrap().get(&uid).map(|report| report.status.clone())
    }

    /// Whether the leader knows that the pod is gone.
    pub fn is_stopped(&self, uid: Uid) -> bool {
        self.leader.pods.lock().unwrap().get(&uid).is_some_and(|report| report.stopped)
    }

    /// The reasons of the pod's events, in order.
    pub fn reasons(&self, uid: Uid) -> Vec<String> {
        self.leader.events.lock().unwrap().values().filter(|event| event.uid == uid).map(|event| event.reason.clone()).collect()
    }

    /// The message of the pod's newest event with this reason.
    pub fn message(&self, uid: Uid, reason: &str) -> Option<String> {
        let events = self.leader.events.lock().unwrap();
        events.values().rev().find(|event| event.uid == uid && event.reason == reason).map(|event| event.message.clone())
    }

    /// The pod's app containers on the engine.
    pub fn apps(&self, uid: Uid) -> Vec<Observed> {
        let ours = |seen: &Observed| seen.identity.uid == uid && seen.identity.container.is_some();
        self.fake.everything().into_iter().filter(ours).collect()
    }

    /// The pod's newest sandbox on the engine.
    pub fn sandbox(&self, uid: Uid) -> Option<Observed> {
        let ours = |seen: &Observed| seen.identity.uid == uid && seen.identity.container.is_none();
        self.fake.everything().into_iter().filter(ours).max_by_key(|seen| seen.identity.attempt)
    }

    /// Waits until the leader shows the pod's phase.
    pub async fn phase(&self, uid: Uid, phase: cube_api::pod::Phase) {
        self.wait_for(&format!("phase {phase:?}"), || self.status(uid).is_some_and(|status| status.phase == phase)).await;
    }

    /// Waits for a predicate, at most ten minutes of the paused clock.
    pub async fn wait_for(&self, what: &str, probe: impl Fn() -> bool) {
        let limit = Instant::now() + Duration::from_secs(600);
        while !probe() {
            if Instant::now() > limit {
                let pods = self.leader.pods.lock().unwrap();
                panic!("{what} did not come; the leader has {pods:#?}, the engine {:#?}", self.fake.everything());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

async fn start(config: AgentConfig, disk: &Arc<Scripted>, fake: &Fake, leader: &Arc<Leader>, ambient: &Ambient, tasks: &Tasks) -> Agent {
    let ledger = Ledger::open_on(&config.data_dir.join(LEDGER), disk.clone(), ambient, tasks).await.unwrap();
    Agent::start_with(ledger, config, Arc::new(fake.clone()), leader.clone(), ambient.clone(), tasks).await.unwrap()
}

fn config(folder: &TempDir, machine: &str, spare_sandboxes: usize, peer: &Peer) -> AgentConfig {
    AgentConfig {
        free_ports: Default::default(),
        address: Some(IpAddr::from([192, 0, 2, 7])),
        allow: Default::default(),
        registry_auth: None,
        image_gc: None,
        node: node(),
        role: NodeRole::Follower,
        labels: Labels::new(),
        machine_id: machine.to_owned(),
        boot_id: format!("{machine}'s boot"),
        data_dir: folder.path().to_owned(),
        max_pods: 100,
        reserve: Reserve::NOTHING,
        machine: None,
        host_paths: HostPaths::default(),
        network: Some(Network::new(peer.clone())),
        spare_sandboxes,
    }
}

fn node() -> Name {
    name("node-1")
}

pub fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// A pod with one container `app` of image `app`.
pub fn pod(number: u128, policy: RestartPolicy) -> AssignedPod {
    let container: Container = serde_json::from_value(serde_json::json!({ "name": "app", "image": "app" })).unwrap();
    let spec = PodSpec {
        init_containers: Vec::new(),
        containers: vec![container],
        restart_policy: policy,
        restart: Default::default(),
        termination_grace_period_seconds: 30,
        active_deadline_seconds: None,
        node_selector: BTreeMap::new(),
        on_node_loss: Default::default(),
        strategy: None,
        hostname: None,
        security_context: Default::default(),
        host_network: false,
        image_pull_secrets: Vec::new(),
        volumes: Vec::new(),
    };
    AssignedPod {
        uid: Uid(Uuid::from_u128(number)),
        name: name(&format!("pod-{number}")),
        labels: Labels::new(),
        spec,
        want: Want::Run { restarts: 0 },
        sources: None,
    }
}

/// The pod, to be stopped.
pub fn stop(pod: &AssignedPod) -> AssignedPod {
    let want = Want::Stop { grace_seconds: 30, reason: "deleted by the user".to_owned() };
    AssignedPod { want, ..pod.clone() }
}
