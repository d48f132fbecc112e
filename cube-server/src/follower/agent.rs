//! The handle that the session and the router hold on the node agent.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, RwLock};

use async_trait::async_trait;
use cube_api::meta::{ClusterId, Instance, Labels, Name, NodeId, Uid};
use cube_api::node::{Capacity, NodeRole};
use cube_api::routes::{ExecQuery, LogQuery};
use cube_api::session::{Announcement, Assignment, AssignmentAccepted, NodeFacts, Report, ReportAccepted, Welcome};
use cube_api::stream::Frame;
use cube_api::{ApiError, ErrorCode};
use futures::stream::BoxStream;
use tokio::sync::{Notify, Semaphore, mpsc, oneshot};

use crate::ambient::Ambient;
use crate::follower::assignments::{Assignments, Pods, Request};
use crate::follower::images::Images;
use crate::follower::ledger::{Home, LEDGER, Ledger, LedgerError, Membership, Opened};
use crate::follower::machine::Machine;
use crate::follower::observe::Observer;
use crate::follower::pods::{Context, STARTS_AT_ONCE, Snapshot};
use crate::follower::probes::Prober;
use crate::follower::reporter::{Reporter, Sources};
use crate::follower::reserve::Reserve;
use crate::follower::runtime::Runtime;
use crate::follower::spares::{Keeper, Spares};
use crate::follower::{exec, logs};
use crate::latest;
use crate::net::Network;
use crate::tasks::Tasks;

/// What a node agent is started with.
#[derive(Debug, Clone)]
pub struct AgentConfig {
    /// The node's name.
    pub node: Name,
    /// The leader's own node, or a follower.
    pub role: NodeRole,
    /// Labels that pods select by.
    pub labels: Labels,
    /// The machine's identity (`/etc/machine-id`).
    pub machine_id: String,
    /// The identity of its boot; empty where there is none.
    pub boot_id: String,
    /// Where `follower.db` is.
    pub data_dir: PathBuf,
    /// The most pods it takes.
    pub max_pods: u32,
    /// What of the machine pods may not reserve.
    pub reserve: Reserve,
    /// What is measured; none for a node whose machine is only pretended: its use is never known.
    pub machine: Option<Arc<dyn Machine>>,
    /// How its pods are probed; none for a node whose pods are only pretended: all their probes succeed.
    pub network: Option<Network>,
    /// How many sandboxes it keeps ready.
    pub spare_sandboxes: usize,
}

/// How reports reach the leader.
#[async_trait]
pub trait LeaderLink: Send + Sync + 'static {
    /// Hands a report over; answered after the leader's commit.
    async fn report(&self, report: &Report) -> Result<ReportAccepted, LinkError>;

    /// Nothing is to be reported for a while: what is held for the next report may go.
    fn rest(&self) {}
}

/// Why a report didn't get through.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The leader can't be reached or didn't answer: send again.
    #[error("the leader at {leader} can't be reached: {problem}")]
    Unreachable {
        /// Its address.
        leader: String,
        /// What happened.
        problem: String,
    },
    /// The leader refuses.
    #[error(transparent)]
    Refused(#[from] ApiError),
}

/// Why an agent can't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The ledger can't be used.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The node was given another name. Its containers carry the one that they were made under, and only a node of that name stops them.
    #[error(
        "the data folder {folder} is that of node '{known}', not of '{given}': start it with --name {known}, or run \
         `cube-server reset --data-dir {folder}` before it gets another name"
    )]
    Renamed {
        /// The data folder.
        folder: String,
        /// Its name.
        known: Name,
        /// The name that it was to get.
        given: Name,
    },
}

/// A running exec: frames in (`Stdin`, `StdinEnd`, `Resize`) and out (`Stdout`, `Stderr`, one `Status` at the end). Dropping `input` and
/// `output` means that the client is gone: the process is killed.
pub struct Exec {
    /// To the process. Bounded: a process that doesn't read stops the sender.
    pub input: mpsc::Sender<Frame>,
    /// From the process. Bounded: a client that doesn't read stops the process.
    pub output: mpsc::Receiver<Frame>,
}

/// The node agent. Clones share it.
#[derive(Clone)]
pub struct Agent {
    inner: Arc<Inner>,
}

struct Inner {
    config: AgentConfig,
    node_id: NodeId,
    instance: Instance,
    facts: latest::Receiver<NodeFacts>,
    membership: latest::Receiver<Membership>,
    requests: mpsc::Sender<Request>,
    pods: Arc<RwLock<Pods>>,
    runtime: Arc<dyn Runtime>,
    tasks: Tasks,
}

/// Requests that may wait for the task that takes assignments; more means that the disk hangs.
const REQUESTS: usize = 256;

impl Agent {
    /// Opens the ledger, adopts what runs and starts the agent's tasks. Does not wait for Docker or the leader.
    pub async fn start(
        config: AgentConfig,
        runtime: Arc<dyn Runtime>,
        link: Arc<dyn LeaderLink>,
        ambient: Ambient,
        tasks: &Tasks,
    ) -> Result<Self, StartError> {
        let ledger = Ledger::open(&config.data_dir.join(LEDGER), &ambient, tasks).await?;
        Self::start_with(ledger, config, runtime, link, ambient, tasks).await
    }

    /// As [`Agent::start`], with a ledger that is open.
    pub(super) async fn start_with(
        (ledger, opened): (Ledger, Opened),
        config: AgentConfig,
        runtime: Arc<dyn Runtime>,
        link: Arc<dyn LeaderLink>,
        ambient: Ambient,
        tasks: &Tasks,
    ) -> Result<Self, StartError> {
        let moved = settle(&config, &ledger, &opened).await?;
        let instance = Instance(ambient.uuid());
        let facts = NodeFacts {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            engine: String::new(),
            trouble: Some("docker was not asked yet".to_owned()),
            capacity: Capacity { pods: config.max_pods, ..Capacity::default() },
            allocatable: None,
        };
        let (facts, facts_seen) = latest::channel(facts);
        let (membership, membership_seen) = latest::channel(opened.membership);
        let (requests, waiting) = mpsc::channel(REQUESTS);
        let pods = Arc::new(RwLock::new(Pods::new()));
        let reporter = Reporter::new(opened.starts);
        let promised = opened.pods.values().filter_map(|pod| pod.record.sandbox.spare.clone());
        let (spares, admission) = (Spares::new(promised.collect()), Arc::new(Semaphore::new(STARTS_AT_ONCE)));
        let keeper = Keeper {
            spares: spares.clone(),
            runtime: runtime.clone(),
            ambient: ambient.clone(),
            admission: admission.clone(),
            target: config.spare_sandboxes,
        };
        let context = Context {
            runtime: runtime.clone(),
            ledger: ledger.clone(),
            ambient: ambient.clone(),
            images: Images::new(runtime.clone(), tasks.clone()),
            reporter: reporter.clone(),
            probes: Prober::new(runtime.clone(), config.network.clone(), ambient.clone(), tasks.clone()),
            spares,
            admission,
            assignments: requests.clone(),
        };
        let assignments = Assignments {
            node: config.node.clone(),
            membership,
            kept: opened.pods,
            census: None,
            silent: BTreeSet::new(),
            moved,
            pods: pods.clone(),
            context: Arc::new(context),
            tasks: tasks.clone(),
        };
        let observer = Observer {
            runtime: runtime.clone(),
            node: config.node.clone(),
            membership: membership_seen.clone(),
            pods: pods.clone(),
            assignments: requests.clone(),
            facts,
            reporter: reporter.clone(),
            room: ledger.room().clone(),
            max_pods: config.max_pods,
            reserve: config.reserve,
            machine: config.machine.clone(),
            data_dir: config.data_dir.clone(),
            disk_of: Mutex::default(),
            ambient: ambient.clone(),
            ledger: ledger.clone(),
            relist: Notify::new(),
        };
        let node_id = opened.node_id;
        let sources = Sources { node_id, instance, membership: membership_seen.clone(), facts: facts_seen.clone(), ledger, link, ambient };
        tasks.spawn_droppable("assignments", assignments.run(waiting));
        tasks.spawn_droppable("engine watcher", observer.run());
        tasks.spawn_droppable("spare sandboxes", keeper.run());
        tasks.spawn_droppable("reporter", reporter.run(sources));
        let (facts, membership, tasks) = (facts_seen, membership_seen, tasks.clone());
        Ok(Self { inner: Arc::new(Inner { config, node_id, instance, facts, membership, requests, pods, runtime, tasks }) })
    }

    /// The node's name.
    pub fn node(&self) -> &Name {
        &self.inner.config.node
    }

    /// What to dial with, as of now.
    pub async fn announcement(&self) -> Result<Announcement, ApiError> {
        let (reply, answer) = oneshot::channel();
        let pods = self.ask(Request::Held(reply), answer).await?;
        let Inner { config, node_id, instance, facts, .. } = &*self.inner;
        Ok(Announcement {
            node: config.node.clone(),
            node_id: *node_id,
            machine_id: config.machine_id.clone(),
            instance: Some(*instance),
            boot_id: config.boot_id.clone(),
            cluster_id: self.cluster_id(),
            role: config.role,
            labels: config.labels.clone(),
            facts: facts.borrow().clone(),
            pods,
        })
    }

    /// Its data folder.
    pub fn data_dir(&self) -> &Path {
        &self.inner.config.data_dir
    }

    /// The cluster that this node belongs to; none before its first session.
    pub fn cluster_id(&self) -> Option<ClusterId> {
        self.inner.membership.borrow().cluster
    }

    /// A leader answered: adopts its cluster on the first session (durable), refuses another cluster or a lower epoch ever after.
    pub async fn welcome(&self, welcome: &Welcome) -> Result<(), ApiError> {
        let (reply, answer) = oneshot::channel();
        self.ask(Request::Welcome(welcome.clone(), reply), answer).await
    }

    /// Takes an assignment: durable before it is answered, then acted on. An older generation is answered with the newer one and ignored.
    pub async fn assign(&self, assignment: Assignment) -> Result<AssignmentAccepted, ApiError> {
        let (reply, answer) = oneshot::channel();
        self.ask(Request::Assign(assignment, reply), answer).await
    }

    /// A pod's logs as `Stdout` frames and one `Status` at the end.
    pub async fn logs(&self, uid: Uid, query: LogQuery) -> Result<BoxStream<'static, Frame>, ApiError> {
        logs::open(self.inner.runtime.clone(), self.snapshot(uid)?, query)
    }

    /// Starts a command in a container.
    pub async fn exec(&self, uid: Uid, query: ExecQuery) -> Result<Exec, ApiError> {
        let snapshot = self.snapshot(uid)?.borrow().clone();
        exec::start(self.inner.runtime.as_ref(), &self.inner.tasks, &snapshot, query).await
    }

    fn snapshot(&self, uid: Uid) -> Result<latest::Receiver<Arc<Snapshot>>, ApiError> {
        let pods = self.inner.pods.read().expect("nothing panics while it is held");
        match pods.get(&uid) {
            Some(handle) => Ok(handle.snapshot.clone()),
            None => match &self.inner.facts.borrow().trouble {
                Some(trouble) => Err(ApiError::new(ErrorCode::NodeUnavailable, format!("node {}: {trouble}", self.inner.config.node))),
                None => Err(ApiError::new(ErrorCode::NotFound, format!("node {} has no such pod (yet)", self.inner.config.node))),
            },
        }
    }

    async fn ask<T>(&self, request: Request, answer: oneshot::Receiver<Result<T, ApiError>>) -> Result<T, ApiError> {
        let stopping = || ApiError::new(ErrorCode::Unavailable, "the node is stopping");
        match self.inner.requests.try_send(request) {
            Ok(()) => answer.await.map_err(|_| stopping())?,
            Err(mpsc::error::TrySendError::Full(_)) => Err(ApiError::new(ErrorCode::Busy, "the node has too many requests waiting")),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(stopping()),
        }
    }
}

/// Notes where the data folder is used. Refuses another name than it has; where it was moved to another machine, nothing is noted yet, and the
/// new home is answered.
///
/// A folder that was moved may be a copy: the machine where it is from may run its pods. So nothing of it is started before the leader has
/// assigned it, and the leader refuses it while the other one is connected. A machine that was cloned with its `/etc/machine-id` can't be told
/// from one that was rebooted, and that one must go on alone without its leader.
async fn settle(config: &AgentConfig, ledger: &Ledger, opened: &Opened) -> Result<Option<Home>, StartError> {
    let now = Home { node: config.node.clone(), machine_id: config.machine_id.clone(), boot_id: config.boot_id.clone() };
    match opened.home.as_ref().filter(|_| opened.membership.cluster.is_some()) {
        Some(known) if known.node != now.node => {
            let folder = config.data_dir.display().to_string();
            return Err(StartError::Renamed { folder, known: known.node.clone(), given: now.node });
        }
        Some(known) if known.is_elsewhere(&now) => {
            tracing::warn!(
                "this data folder was used on another machine ({}): its pods are not started here before the leader says so",
                known.machine_id
            );
            return Ok(Some(now));
        }
        Some(_) | None => {}
    }
    ledger.settle(now).await?;
    Ok(None)
}
