//! The container runtime as the node agent sees it. `docker/` is the only folder that knows bollard; `fake/` is scripted and in memory; `hollow.rs`
//! pretends, for nodes that only load a leader.
//!
//! Absent is `Ok(None)` or `Ok(())` for a removal; trouble is `Err`. "I could not ask" is never "it is gone".

mod demux;
pub mod docker;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
pub mod hollow;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use cube_api::meta::{ClusterId, Name, Uid};
use cube_api::node::Capacity;
use cube_api::pod::{HostPort, PublishedPort, Resources};
use cube_api::stream::TerminalSize;
use futures::stream::BoxStream;
use jiff::Timestamp;
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::latest;

/// Whose containers: a node touches only those that carry its own cluster id and node name, also where nodes share an engine.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Scope {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node.
    pub node: Name,
}

/// What a container is for. Name and labels follow from it, so that create is idempotent and a restarted node finds what it made.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    /// The pod's life.
    pub uid: Uid,
    /// The pod's name.
    pub pod: Name,
    /// The container's name; none for the sandbox.
    pub container: Option<Name>,
    /// From 0, counted up with every new container or sandbox in its place.
    pub attempt: u32,
}

impl Identity {
    /// The name of the engine's container. Ours have single underscores between DNS labels (which have none), and a sandbox's has two in a row,
    /// so that no container's name can be taken for it.
    pub fn container_name(&self) -> String {
        let container = self.container.as_ref().map_or("", |name| name.as_str());
        format!("cube_{}_{container}_{}_{}", self.pod, self.uid, self.attempt)
    }

    /// Whose sandbox has this name, if it is a sandbox's.
    pub fn of_sandbox_name(name: &str) -> Option<Self> {
        let (pod, rest) = name.strip_prefix("cube_")?.split_once("__")?;
        let (uid, attempt) = rest.split_once('_')?;
        let identity = Self { uid: uid.parse().ok()?, pod: pod.parse().ok()?, container: None, attempt: attempt.parse().ok()? };
        // What parses has other spellings, such as an attempt of +0 or a uid without hyphens; ours has one.
        (identity.container_name() == name).then_some(identity)
    }
}

/// The name of a spare sandbox. No pod's container has one like it: a pod has a name.
pub fn spare_name(number: Uuid) -> String {
    format!("cube__spare_{number}")
}

/// What to create a sandbox from: the pause container that owns the pod's network namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxSpec {
    /// Whose.
    pub scope: Scope,
    /// Which; `container` is none.
    pub identity: Identity,
    /// The pod's host name; the engine makes one up if there is none.
    pub hostname: Option<String>,
    /// The host ports of all the pod's containers.
    pub published: Vec<PublishedPort>,
}

/// What to create an app container from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerSpec {
    /// Whose.
    pub scope: Scope,
    /// Which.
    pub identity: Identity,
    /// Whose network it joins: the sandbox's Docker id.
    pub sandbox: ContainerId,
    /// The image reference.
    pub image: String,
    /// Replaces the entrypoint, unless empty; `$(VAR)` is already replaced.
    pub command: Vec<String>,
    /// Replaces the command, unless empty.
    pub args: Vec<String>,
    /// The environment.
    pub env: BTreeMap<String, String>,
    /// Replaces the working directory.
    pub working_dir: Option<String>,
    /// Limits for Docker to enforce.
    pub resources: Resources,
    /// A terminal for the main process.
    pub tty: bool,
    /// Keep its standard input open.
    pub stdin: bool,
}

/// Docker's id of a container.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct ContainerId(pub String);

/// A container of ours as the runtime sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Observed {
    /// Docker's id.
    pub id: ContainerId,
    /// What it is for, from its labels.
    pub identity: Identity,
    /// For an app container, the sandbox whose network it joined.
    pub sandbox: Option<ContainerId>,
    /// The image's content id.
    pub image_id: String,
    /// Whether its main process has a terminal.
    pub tty: bool,
    /// For a sandbox: its address.
    pub ip: Option<IpAddr>,
    /// For a sandbox: the host ports that it was made with.
    pub bindings: Vec<Binding>,
    /// What it does.
    pub state: RunState,
}

/// A port of a sandbox that leads to one of its machine's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// Where the process listens.
    pub container_port: u16,
    /// The machine's port.
    pub host: HostPort,
}

/// A sandbox that no pod has yet, made before any needs it.
#[derive(Debug, Clone, PartialEq)]
pub struct Spare {
    /// Docker's id. It stays when a pod takes it.
    pub id: ContainerId,
    /// What it does.
    pub state: RunState,
}

/// What a container does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunState {
    /// Made, never started.
    Created,
    /// It runs. A sandbox's identity is (id, since): if either changes, its namespace is another one.
    Running {
        /// Since when.
        since: Timestamp,
    },
    /// Frozen by hand.
    Paused {
        /// Running since when.
        since: Timestamp,
    },
    /// It ended.
    Exited {
        /// The exit code; 128 + n for a signal n.
        code: i64,
        /// Whether the kernel killed it for its memory limit.
        oom: bool,
        /// Docker's own words, such as why it could not be started.
        error: Option<String>,
        /// When it was started.
        started: Option<Timestamp>,
        /// When it ended.
        finished: Option<Timestamp>,
    },
    /// On its way out of Docker, or stuck there (`removing`, `dead`).
    Removing,
}

/// What the engine tells of a scope's containers, whether or not it tells of each.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Census {
    /// Those that it tells of, ended ones too.
    pub containers: Vec<Observed>,
    /// Pods of which it has a container that it is silent about: what is known of them is not all.
    pub silent: BTreeSet<Uid>,
}

/// What an engine is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EngineInfo {
    /// Its version.
    pub version: String,
    /// What the machine has; `pods` is 0 here, the node's own limit counts. `disk` is 0 where the engine doesn't tell.
    pub capacity: Capacity,
    /// Where it keeps what containers write, by its own names of files: whether there is such a folder here is another question.
    pub data_root: Option<PathBuf>,
}

/// A signal to a container's main process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopSignal {
    /// The image's own stop signal, else SIGTERM.
    Stop,
    /// SIGKILL.
    Kill,
}

/// A hint that a container of the scope changed. The truth is [`Runtime::list`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hint {
    /// The pod.
    pub uid: Uid,
}

/// Progress of a pull, for the status: `12 of 40 MB`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PullProgress {
    /// Bytes that arrived.
    pub current: u64,
    /// Bytes in all, as far as known.
    pub total: u64,
}

/// Which part of a container's log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogRequest {
    /// Stay and go on with what comes, until the container ends.
    pub follow: bool,
    /// Only the last so many lines.
    pub tail: Option<u64>,
    /// Only what was written at or after this time.
    pub since: Option<Timestamp>,
    /// Tell the time of each line. Docker's work on a line of 100 bytes and the line itself grow by a third with it.
    pub times: bool,
}

/// Docker cuts longer lines into pieces of this many bytes (its log copier's buffer).
pub const MAX_PIECE: usize = 16 * 1024;

/// One line, or a piece of [`MAX_PIECE`] bytes of a longer one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// When Docker read it, to the nanosecond; none unless asked for.
    pub at: Option<Timestamp>,
    /// With its newline, unless it is a piece of a longer line (or a last line without one).
    pub bytes: Bytes,
}

/// Lines that were ready together, at least one.
pub type LogBatch = Result<Vec<LogLine>, RuntimeError>;

/// A command to run in a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecRequest {
    /// The words.
    pub command: Vec<String>,
    /// With a terminal.
    pub tty: bool,
    /// With standard input.
    pub stdin: bool,
}

/// What goes to an exec's process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExecInput {
    /// Bytes.
    Stdin(Bytes),
    /// No more bytes: `cat` ends.
    StdinEnd,
    /// The terminal's size.
    Resize(TerminalSize),
}

/// What comes from an exec's process. `Exited` is the last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExecOutput {
    /// Bytes.
    Stdout(Bytes),
    /// Bytes.
    Stderr(Bytes),
    /// Its exit code, exactly.
    Exited(i64),
    /// It couldn't be run, or the connection to the runtime broke: why.
    Failed(String),
}

/// A running exec. Dropping it kills the process (the implementation sees to it in a task of its own).
pub struct ExecHandle {
    /// Bounded.
    pub input: mpsc::Sender<ExecInput>,
    /// Bounded.
    pub output: mpsc::Receiver<ExecOutput>,
}

/// Why the runtime didn't do it.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The engine doesn't answer, or not in time, or says that it is in trouble: nothing is known about the pod.
    #[error("docker can't {operation}: {problem}")]
    Unavailable {
        /// What was asked.
        operation: &'static str,
        /// What happened.
        problem: String,
    },
    /// The engine refuses this request: a bad command, a taken host port, a name that a foreign container has.
    #[error("{problem}")]
    Refused {
        /// What was asked.
        operation: &'static str,
        /// The engine's words.
        problem: String,
    },
    /// A host port that a sandbox is to publish is taken, by whatever it may be.
    #[error("{problem}")]
    PortTaken {
        /// The port.
        port: u16,
        /// The engine's words.
        problem: String,
    },
    /// The container isn't there (any more).
    #[error("the container is gone")]
    Gone,
    /// The image isn't there, and what the registry said.
    #[error("{problem}")]
    Image {
        /// The registry's or the engine's words.
        problem: String,
    },
}

impl RuntimeError {
    /// Whether it is the engine's trouble and not the pod's.
    pub fn is_engine_trouble(&self) -> bool {
        match self {
            Self::Unavailable { .. } => true,
            Self::Refused { .. } | Self::PortTaken { .. } | Self::Gone | Self::Image { .. } => false,
        }
    }
}

/// A container runtime. Every call has a timeout of its own and is safe to repeat.
#[async_trait]
pub trait Runtime: Send + Sync + 'static {
    /// Asks the engine who it is: also whether it answers.
    async fn info(&self) -> Result<EngineInfo, RuntimeError>;
    /// Whose containers of cube are on the engine, and how many: other clusters' and other nodes' too.
    async fn scopes(&self) -> Result<BTreeMap<Scope, usize>, RuntimeError>;
    /// Every container of the scope, ended ones too.
    async fn list(&self, scope: &Scope) -> Result<Vec<Observed>, RuntimeError>;
    /// As [`Runtime::list`], but an engine that is silent about one container still tells of the others.
    async fn census(&self, scope: &Scope) -> Result<Census, RuntimeError> {
        Ok(Census { containers: self.list(scope).await?, silent: BTreeSet::new() })
    }
    /// Every container of one pod.
    async fn list_pod(&self, scope: &Scope, uid: Uid) -> Result<Vec<Observed>, RuntimeError>;
    /// One container.
    async fn inspect(&self, id: &ContainerId) -> Result<Option<Observed>, RuntimeError>;
    /// Hints for the scope until the connection breaks; then open it again and list.
    async fn hints(&self, scope: &Scope) -> Result<BoxStream<'static, Hint>, RuntimeError>;
    /// The content id of an image that the node has.
    async fn image(&self, image: &str) -> Result<Option<String>, RuntimeError>;
    /// Pulls an image; progress goes to `progress`; the content id.
    async fn pull(&self, image: &str, progress: latest::Sender<PullProgress>) -> Result<String, RuntimeError>;
    /// Whether nothing listens on a port of the engine's machine, as far as a try shows: only the start of what publishes it decides.
    async fn port_is_free(&self, port: HostPort) -> bool;
    /// Creates a sandbox (making the pause image if need be), or finds the one of that identity.
    async fn create_sandbox(&self, spec: &SandboxSpec) -> Result<ContainerId, RuntimeError>;
    /// Creates a spare sandbox (making the pause image if need be). It belongs to the scope and to no pod, and is in no list but [`Runtime::spares`].
    async fn create_spare(&self, scope: &Scope, number: Uuid) -> Result<ContainerId, RuntimeError> {
        let problem = format!("this runtime keeps no spare sandboxes: none of number {number} for node {}", scope.node);
        Err(RuntimeError::Refused { operation: "create a spare sandbox", problem })
    }
    /// Every spare sandbox of the scope that no pod has taken, whatever it does.
    async fn spares(&self, _scope: &Scope) -> Result<Vec<Spare>, RuntimeError> {
        Ok(Vec::new())
    }
    /// Makes a spare sandbox a pod's: gives it the name of that identity, by which every list knows it from then on. One that has it already is
    /// fine; one that doesn't run, or that another pod has, is [`RuntimeError::Gone`]. Two claims of one spare for two pods at the same time
    /// are the caller's to prevent.
    async fn claim_spare(&self, _scope: &Scope, _spare: &ContainerId, _identity: &Identity) -> Result<Observed, RuntimeError> {
        Err(RuntimeError::Gone)
    }
    /// Creates an app container, or finds the one of that identity. The sandbox need not run yet.
    async fn create_container(&self, spec: &ContainerSpec) -> Result<ContainerId, RuntimeError>;
    /// Starts a container; one that runs already is fine.
    async fn start(&self, id: &ContainerId) -> Result<(), RuntimeError>;
    /// Signals a container's main process; one that ended or is gone is fine. A paused one is resumed first.
    async fn signal(&self, id: &ContainerId, signal: StopSignal) -> Result<(), RuntimeError>;
    /// Removes a container, killing it if need be; one that is gone is fine. Waits until it is gone.
    async fn remove(&self, id: &ContainerId) -> Result<(), RuntimeError>;
    /// A container's log, oldest first; the stream ends with the log, or with `follow` when the container ends. An `Err` is the last item.
    async fn logs(&self, id: &ContainerId, request: &LogRequest) -> Result<BoxStream<'static, LogBatch>, RuntimeError>;
    /// Runs a command in a container.
    async fn exec(&self, id: &ContainerId, request: &ExecRequest) -> Result<ExecHandle, RuntimeError>;
}

/// How long an ordinary call to an engine may take before it counts as not answered.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(60);

/// A pull that brings nothing for so long has failed: no layer comes further, none is unpacked further.
pub const PULL_IDLE: Duration = Duration::from_secs(60);
