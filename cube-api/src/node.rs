//! The node: a machine that runs pods.

use std::net::IpAddr;

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::meta::{LabelChanges, Labels, Name, NodeId, Revision, Uid};
use crate::pod::Permission;
use crate::quantity::{Bytes, MilliCpu};

/// A node as the API answers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Node {
    /// Its name in the cluster.
    pub name: Name,
    /// Its data folder's identity.
    pub node_id: NodeId,
    /// Whether the leader's own process runs it.
    pub role: NodeRole,
    /// Labels that pods select by: those that the node announced, with what people changed of them.
    #[serde(default)]
    pub labels: Labels,
    /// What people changed of its labels at the leader, whatever it announces.
    #[serde(default, skip_serializing_if = "LabelChanges::is_empty")]
    pub label_changes: LabelChanges,
    /// What the machine has.
    pub capacity: Capacity,
    /// What pods may reserve of it: the capacity less what the node keeps back for the machine itself.
    #[serde(default)]
    pub allocatable: Capacity,
    /// What pods may ask for there that makes them as mighty as the machine's root, or nearly.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty", deserialize_with = "Permission::known")]
    pub allows: BTreeSet<Permission>,
    /// What the machine uses now, by pods and by all else; none until the node has said it to this leader, and while it isn't connected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// That a person wants no new pods on it, whatever its condition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cordon: Option<Cordon>,
    /// Folders of its machine that pods may have, with all below them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host_paths: Vec<String>,
    /// cube-server's version there.
    pub version: String,
    /// Docker's version there; empty while Docker doesn't answer.
    #[serde(default)]
    pub engine: String,
    /// The machine's address, by its `--address` or its default route; none where it has none, and from a node of before that was told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// When it first joined.
    pub created_at: Timestamp,
    /// When the leader last heard from it.
    pub seen_at: Timestamp,
    /// Whether pods can be placed there, and if not, why.
    pub condition: NodeCondition,
    /// Pods bound to it that aren't finished. Derived at the time of the answer.
    #[serde(default)]
    pub pods: u32,
    /// The cpu that these pods reserve.
    #[serde(default)]
    pub reserved_cpu: MilliCpu,
    /// The memory that these pods reserve.
    #[serde(default)]
    pub reserved_memory: Bytes,
    /// The disk space that these pods reserve.
    #[serde(default)]
    pub reserved_disk: Bytes,
    /// The revision of its newest write.
    pub revision: Revision,
}

/// What a node's process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeRole {
    /// The leader's own node.
    Leader,
    /// Any other.
    Follower,
}

impl NodeRole {
    /// The word of the TYPE column.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Leader => "Leader",
            Self::Follower => "Follower",
        }
    }
}

/// What a machine has for pods.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Capacity {
    /// All its cores.
    pub cpu: MilliCpu,
    /// Its memory.
    pub memory: Bytes,
    /// Its disk space, where containers write.
    #[serde(default)]
    pub disk: Bytes,
    /// The most pods it takes.
    pub pods: u32,
}

/// What a machine uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    /// Of its cores, on average since the measurement before.
    pub cpu: MilliCpu,
    /// What programs can't be given any more: caches that the kernel would give up don't count.
    pub memory: Bytes,
    /// What can't be written any more, with what the file system keeps for root.
    pub disk: Bytes,
    /// How busy it is; none from a node of a version that doesn't say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<LoadAverage>,
}

/// How many processes ran or waited to (on Linux also those that waited for a disk), on average.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LoadAverage {
    /// Over 1, 5 and 15 minutes; `[52, 58, 59]` is what Linux writes as `0.52 0.58 0.59`.
    pub hundredths: [u32; 3],
}

/// That no new pods are placed on a node, because a person said so. The pods that are there stay, unless they are to go too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cordon {
    /// Since when.
    pub since: Timestamp,
    /// What for, in the words of whoever said it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// That its pods are to go, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<Drain>,
}

impl Cordon {
    /// The longest reason, in characters.
    pub const MAX_REASON: usize = 256;

    /// The drain that goes on, if one does.
    pub fn draining(&self) -> Option<&Drain> {
        self.drain.as_ref().filter(|drain| drain.finished_at.is_none())
    }
}

/// That a node's pods are to go: each is stopped, and a new pod of its name begins on another node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Drain {
    /// Since when.
    pub since: Timestamp,
    /// The most seconds between the stop signal and SIGKILL; none: each pod has its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_seconds: Option<u32>,
    /// Whether pods are stopped that would stay otherwise: no other node takes them, or they wouldn't be run again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
    /// The pods that are there and unfinished, as the leader last looked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left: Vec<LeftPod>,
    /// When none was left: it is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
}

/// A pod that is still on a node that is drained.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LeftPod {
    /// Its name.
    pub name: Name,
    /// Which life.
    pub uid: Uid,
    /// How far it is.
    #[serde(flatten)]
    pub step: DrainStep,
}

/// How far a drain is with a pod: `Stays` or `Queued`, as long as it runs, then `Stopping`. While its node isn't connected each of them is `Stays`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum DrainStep {
    /// It runs until others have stopped: only some are stopped at a time.
    Queued,
    /// It runs on, because of this; looked at again whenever something changes.
    Stays {
        /// The cause, in a sentence.
        reason: String,
    },
    /// Its node was told to stop it.
    Stopping {
        /// Seconds between the stop signal and SIGKILL.
        grace_seconds: u32,
    },
}

impl DrainStep {
    /// Why it stays, if it does.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Stays { reason } => Some(reason),
            Self::Queued | Self::Stopping { .. } => None,
        }
    }

    /// The grace that it was given, if it is being stopped.
    pub fn grace_seconds(&self) -> Option<u32> {
        match self {
            Self::Stopping { grace_seconds } => Some(*grace_seconds),
            Self::Queued | Self::Stays { .. } => None,
        }
    }
}

/// Whether pods can be placed on a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status")]
pub enum NodeCondition {
    /// Yes.
    Ready,
    /// No, and why: `no session for more than 10s`, `docker doesn't answer: ...`.
    NotReady {
        /// The cause, in a sentence.
        reason: String,
    },
    /// No, and it has been silent for so long that it counts as dead: other nodes have the pods that don't wait for it. Its next session ends it.
    Lost {
        /// The cause, in a sentence.
        reason: String,
    },
}

impl NodeCondition {
    /// Whether pods can be placed.
    pub fn is_ready(&self) -> bool {
        match self {
            Self::Ready => true,
            Self::NotReady { .. } | Self::Lost { .. } => false,
        }
    }

    /// Whether its pods count as gone with it.
    pub fn is_lost(&self) -> bool {
        match self {
            Self::Ready | Self::NotReady { .. } => false,
            Self::Lost { .. } => true,
        }
    }

    /// Why no pods can be placed, if so.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Ready => None,
            Self::NotReady { reason } | Self::Lost { reason } => Some(reason),
        }
    }

    /// The word of the STATUS column.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::NotReady { .. } => "NotReady",
            Self::Lost { .. } => "Lost",
        }
    }
}
