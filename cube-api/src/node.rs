//! The node: a machine that runs pods.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::meta::{Labels, Name, NodeId, Revision};
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
    /// Labels that pods select by.
    #[serde(default)]
    pub labels: Labels,
    /// What the machine has.
    pub capacity: Capacity,
    /// What pods may reserve of it: the capacity less what the node keeps back for the machine itself.
    #[serde(default)]
    pub allocatable: Capacity,
    /// What the machine uses now, by pods and by all else; none until the node has said it to this leader, and while it isn't connected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// That a person wants no new pods on it, whatever its condition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cordon: Option<Cordon>,
    /// cube-server's version there.
    pub version: String,
    /// Docker's version there; empty while Docker doesn't answer.
    #[serde(default)]
    pub engine: String,
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
}

/// That no new pods are placed on a node, because a person said so. The pods that are there stay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cordon {
    /// Since when.
    pub since: Timestamp,
    /// What for, in the words of whoever said it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
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
