//! The handle that the session and the router hold on the node agent.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use cube_api::ApiError;
use cube_api::meta::{ClusterId, Labels, Name, Uid};
use cube_api::node::NodeRole;
use cube_api::routes::{ExecQuery, LogQuery};
use cube_api::session::{Announcement, Assignment, AssignmentAccepted, Report, ReportAccepted, Welcome};
use cube_api::stream::Frame;
use futures::stream::BoxStream;
use tokio::sync::mpsc;

use crate::ambient::Ambient;
use crate::follower::runtime::Runtime;
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
    /// Where `follower.db` is.
    pub data_dir: PathBuf,
    /// The most pods it takes.
    pub max_pods: u32,
}

/// How reports reach the leader.
#[async_trait]
pub trait LeaderLink: Send + Sync + 'static {
    /// Hands a report over; answered after the leader's commit.
    async fn report(&self, report: &Report) -> Result<ReportAccepted, LinkError>;
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
    _inner: Arc<()>,
}

impl Agent {
    /// Opens the ledger, adopts what runs and starts the agent's tasks. Does not wait for Docker or the leader.
    pub async fn start(
        _config: AgentConfig,
        _runtime: Arc<dyn Runtime>,
        _link: Arc<dyn LeaderLink>,
        _ambient: Ambient,
        _tasks: &Tasks,
    ) -> anyhow::Result<Self> {
        unimplemented!()
    }

    /// What to dial with, as of now.
    pub async fn announcement(&self) -> Announcement {
        unimplemented!()
    }

    /// The cluster that this node belongs to; none before its first session.
    pub fn cluster_id(&self) -> Option<ClusterId> {
        unimplemented!()
    }

    /// A leader answered: adopts its cluster on the first session (durable), refuses another cluster or a lower epoch ever after.
    pub async fn welcome(&self, _welcome: &Welcome) -> Result<(), ApiError> {
        unimplemented!()
    }

    /// Takes an assignment: durable before it is answered, then acted on. An older generation is answered with the newer one and ignored.
    pub async fn assign(&self, _assignment: Assignment) -> Result<AssignmentAccepted, ApiError> {
        unimplemented!()
    }

    /// A pod's logs as `Stdout` frames and one `Status` at the end.
    pub async fn logs(&self, _uid: Uid, _query: LogQuery) -> Result<BoxStream<'static, Frame>, ApiError> {
        unimplemented!()
    }

    /// Starts a command in a container.
    pub async fn exec(&self, _uid: Uid, _query: ExecQuery) -> Result<Exec, ApiError> {
        unimplemented!()
    }
}
