//! The pod: what a manifest may say of one, where it is placed, and what its node reports of it.
//!
//! Names and units are Kubernetes', so that people's habits carry over. Every field that is accepted works.

mod container;
mod expand;
mod probe;
mod status;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use self::container::{Amounts, Container, ImagePullPolicy, Port, Protocol, Resources};
pub use self::expand::expand;
pub use self::probe::{ExecProbe, Handler, HttpGetProbe, HttpHeader, Probe, ProbeKind, ProbePort, Scheme, TcpSocketProbe};
pub use self::status::{
    ContainerState, ContainerStatus, DRAINED, EndReason, NODE_FORGOT, NODE_LOST, Phase, PodStatus, Running, Terminated, WaitReason, Waiting,
};

use crate::meta::{Metadata, Name};

/// A pod as the API answers it. Each part has one writer: `metadata` and `spec` the API, `placement` the scheduler, `status` the pod's node; only
/// a restart of a finished pod sets its phase back to Pending before the node says so, and a pod without a node is Failed by the leader's word.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pod {
    /// Who it is.
    pub metadata: Metadata,
    /// What was asked for. Pods of one template share it: with its containers it takes a kilobyte and more.
    pub spec: Arc<PodSpec>,
    /// Where it goes, or why nowhere yet.
    #[serde(default)]
    pub placement: Placement,
    /// What its node says of it.
    #[serde(default)]
    pub status: PodStatus,
}

impl Pod {
    /// Whether it may be sent requests: it is Running, each of its containers is ready, and it isn't on its way out. What the node of a pod that
    /// waits for its lost node said last doesn't count.
    pub fn is_ready(&self) -> bool {
        let PodStatus { phase, containers, .. } = &self.status;
        let is_here = self.metadata.deletion_requested_at.is_none() && self.placement.waiting_for.is_none();
        let all = !containers.is_empty() && containers.iter().all(ContainerStatus::is_ready);
        is_here && *phase == Phase::Running && all
    }
}

/// Where a pod runs. Set once: a pod never moves.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Placement {
    /// The node it is bound to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Name>,
    /// When it was bound, by the leader's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bound_at: Option<Timestamp>,
    /// Why no node takes it, with counts: `0/3 nodes fit: 2 lack memory (need 512Mi), 1 is not ready`. Once bound it is empty, unless the pod's
    /// node is lost and the pod waits for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_for: Option<String>,
    /// Nodes on which pods of its name failed before it, the newest last, at most [`Placement::MOST_AVOIDED`]: any other node that fits is
    /// preferred. A successor has them too, until one has run well.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub avoids: Vec<Name>,
}

impl Placement {
    /// Where a pod fails on as many nodes, the next one is no better a guess.
    pub const MOST_AVOIDED: usize = 3;
}

/// What a manifest asks of a pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodSpec {
    /// At least one; their names differ.
    pub containers: Vec<Container>,
    /// What to do when a container ends.
    #[serde(default)]
    pub restart_policy: RestartPolicy,
    /// When to stop trying.
    #[serde(default)]
    pub restart: RestartRules,
    /// Seconds between the stop signal and SIGKILL.
    #[serde(default = "default_grace")]
    pub termination_grace_period_seconds: u32,
    /// Labels that a node must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// What becomes of it when its node is lost.
    #[serde(default)]
    pub on_node_loss: OnNodeLoss,
    /// Which of the nodes that fit it gets; the leader's `--strategy` without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<Strategy>,
    /// Its host name. Absent: the pod's name where it publishes a port, else one that the node makes up, so that any ready sandbox fits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<Name>,
}

impl PodSpec {
    /// The ports of all its containers that have a host port.
    pub fn published(&self) -> impl Iterator<Item = &Port> {
        self.containers.iter().flat_map(|container| &container.ports).filter(|port| port.host_port.is_some())
    }
}

/// Kubernetes' default stop grace, in seconds.
pub const DEFAULT_GRACE_SECONDS: u32 = 30;

fn default_grace() -> u32 {
    DEFAULT_GRACE_SECONDS
}

/// Which ends of a container lead to a restart.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum RestartPolicy {
    /// Any.
    #[default]
    Always,
    /// An exit code other than 0.
    OnFailure,
    /// None: every container is started at most once.
    Never,
}

/// What becomes of a pod whose node is lost: silent for so long that it counts as dead (the leader's `--node-lost-after`). Nobody knows then
/// whether its containers run on, so it is either here again soon, or surely nowhere twice.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnNodeLoss {
    /// A new pod of its name takes its place on another node. Until the lost node is heard again, both may run. With restart policy `Never` the
    /// new pod is Failed (`NodeLost`) instead: what may have run is not run again, unless `cube restart` says so.
    #[default]
    Replace,
    /// It waits for its node, or for a person who declares that machine dead: it never runs on two nodes.
    Wait,
}

/// Which of the nodes that fit a pod gets. Nodes that are equally good are taken by their names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// The least loaded: the one with the fewest pods; of several the one whose largest share (of cpu, memory or disk) is the smallest with the
    /// pod on it.
    #[default]
    Spread,
    /// The fullest: the one whose shares of cpu, memory and disk add up to the most with the pod on it, of several the one with the most pods.
    /// Whole nodes stay free for large pods.
    Binpack,
    /// The next one by name after the one that the last such pod got.
    RoundRobin,
    /// The cheapest: the one whose cost rises least by the pod, where a node's cost is the sum, over cpu, memory, disk and its pod limit, of a
    /// constant to the power of the share that is taken (Amir et al., "An opportunity cost approach for job assignment in a scalable computing
    /// cluster"). The last free part of anything is dear.
    Epvm,
}

impl Strategy {
    /// All, in the order in which they are told.
    pub const ALL: [Self; 4] = [Self::Spread, Self::Binpack, Self::RoundRobin, Self::Epvm];

    /// The word for it in a manifest and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Spread => "spread",
            Self::Binpack => "binpack",
            Self::RoundRobin => "round-robin",
            Self::Epvm => "epvm",
        }
    }
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Strategy {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|strategy| strategy.as_str() == text);
        known.ok_or_else(|| format!("'{text}' is no strategy; there are {}", Self::ALL.map(Self::as_str).join(", ")))
    }
}

/// The limit on restarts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RestartRules {
    /// Crashes in a row after which the pod is Failed with reason `CrashLimit`; also tries to get an image (`ImageLimit`). 0: never give up.
    #[serde(default = "default_limit")]
    pub limit: u32,
}

fn default_limit() -> u32 {
    RestartRules::DEFAULT_LIMIT
}

impl RestartRules {
    /// About six minutes of trying with the default backoff.
    pub const DEFAULT_LIMIT: u32 = 10;
}

impl Default for RestartRules {
    fn default() -> Self {
        Self { limit: Self::DEFAULT_LIMIT }
    }
}
