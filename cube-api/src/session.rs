//! What the leader and a node say to each other.
//!
//! A follower dials the leader (`POST /v1/session`, `Upgrade: cube-session/1`, the [`Announcement`] as its JSON body). The leader answers
//! `101` with its [`Welcome`] as JSON in the header `cube-welcome`; then the roles turn round: on that connection the follower serves HTTP/2 and
//! the leader is its client. [`crate::routes::node`] lists what the follower serves. The follower's reports are plain requests of its own to the
//! leader (`POST /v1/nodes/{name}/report`).
//!
//! Leader and nodes are of different versions while a cluster is upgraded, in either order. So what a peer says beyond what we know is let be,
//! and a field that came later is optional. (Manifests are strict: [`crate::manifest`].)

use std::net::IpAddr;

use std::collections::BTreeSet;

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::event::EventKind;
use crate::meta::{ClusterId, Instance, Labels, LifeId, Name, NodeId, Uid};
use crate::node::{Capacity, NodeRole, Usage};
use crate::pod::{Permission, PodSpec, PodStatus};
use crate::sources::Sources;

/// The protocol's name in the `Upgrade` header. The number moves when an old peer would misunderstand.
pub const UPGRADE: &str = "cube-session/1";

/// The header of the `101` answer that carries the [`Welcome`].
pub const WELCOME_HEADER: &str = "cube-welcome";

/// A leader's life: counted up in its store at each start. An older leader is not obeyed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u64);

/// Orders a node's assignments within an epoch; a node ignores a lower one than it has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(pub u64);

/// Who dials.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Announcement {
    /// The node's name.
    pub node: Name,
    /// Its data folder's identity.
    pub node_id: NodeId,
    /// The machine's (`/etc/machine-id`): the same machine may take its name back with a new data folder.
    pub machine_id: String,
    /// This start of its process; none from a peer that doesn't tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<Instance>,
    /// This start of its machine (`/proc/sys/kernel/random/boot_id`); empty where there is none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub boot_id: String,
    /// The cluster it belongs to; none before its first session.
    #[serde(default)]
    pub cluster_id: Option<ClusterId>,
    /// Whether it is the leader's own node.
    pub role: NodeRole,
    /// Labels that pods select by.
    #[serde(default)]
    pub labels: Labels,
    /// What it is.
    pub facts: NodeFacts,
    /// The pods that it runs, by its ledger: a leader that was restored from a backup may not know that they have a node.
    #[serde(default)]
    pub pods: Vec<HeldPod>,
}

/// A pod that a node was told to run and didn't stop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldPod {
    /// Which life.
    pub uid: Uid,
    /// The pod's name.
    pub name: Name,
}

/// What a node is and whether it can run pods now. Announced, and reported again when it changes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeFacts {
    /// cube-server's version.
    pub version: String,
    /// Docker's version; empty while it doesn't answer.
    pub engine: String,
    /// Why no pod can be started, if so: `docker doesn't answer: ...`.
    #[serde(default)]
    pub trouble: Option<String>,
    /// What the machine has.
    pub capacity: Capacity,
    /// What pods may reserve of it; none from a node that keeps nothing back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allocatable: Option<Capacity>,
    /// The machine's address; none where it has none, and from a node that doesn't tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// What pods may ask for here that makes them as mighty as the machine's root, or nearly.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty", deserialize_with = "Permission::known")]
    pub allows: BTreeSet<Permission>,
    /// Folders of the machine that pods may have, and what is below them; a `hostPath` outside of all of them is refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host_paths: Vec<String>,
}

/// Who answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Welcome {
    /// The leader's cluster. A node that belongs to another one hangs up.
    pub cluster_id: ClusterId,
    /// The leader's life, in their order.
    pub epoch: Epoch,
    /// Which one it is of those that count this epoch: a node obeys the first of them that it met. None from a leader that doesn't say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub life: Option<LifeId>,
}

/// The complete set of pods that a node should run or stop. Complete means: a pod that isn't in it is not this node's any more. `Spec` is what
/// holds a [`PodSpec`]: a leader has it shared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Assignment<Spec = PodSpec> {
    /// The cluster; a node of another one refuses it.
    pub cluster_id: ClusterId,
    /// The leader's life.
    pub epoch: Epoch,
    /// The node it is for.
    pub node: Name,
    /// Its place in the order of this node's assignments: the store's revision when it was made.
    pub generation: Generation,
    /// Every pod that is bound to the node and not known to be gone, except those that are `unchanged`.
    pub pods: Vec<AssignedPod<Spec>>,
    /// The rest of the set; none if `pods` are all. Only for a node that [takes it](AssignmentAccepted::takes_unchanged).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unchanged: Option<Unchanged>,
    /// No new pods are to come: the node keeps no sandboxes ready for them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cordoned: bool,
    /// Named volumes that were deleted: the node removes their data and then reports them as `dropped`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drop_volumes: Vec<Uid>,
}

/// Pods of an assignment that are in it as they were in an earlier one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Unchanged {
    /// Which one: a node whose newest assignment is another refuses, and is sent all.
    pub since: Generation,
    /// Which pods.
    pub pods: Vec<Uid>,
}

/// A pod as its node is told of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AssignedPod<Spec = PodSpec> {
    /// Which life.
    pub uid: Uid,
    /// The pod's name.
    pub name: Name,
    /// Those of its labels that its containers ask for.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// What to run.
    pub spec: Spec,
    /// What to do with it.
    pub want: Want,
    /// The newest values of what its spec names of secrets, configs and named volumes. A container has those of its creation: other values stop
    /// and start nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sources: Option<Arc<Sources>>,
}

/// What a node should do with a pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Want {
    /// Run it by its spec.
    Run {
        /// How often `cube restart` was asked for. A higher number than the node has seen restarts every container, clears counters and limits.
        restarts: u64,
    },
    /// Stop it, remove its containers, then report `stopped`.
    Stop {
        /// Seconds between the stop signal and SIGKILL.
        grace_seconds: u32,
        /// Why, for the event: `deleted by the user`, `replaced: its spec changed`.
        reason: String,
    },
}

/// What a node tells the leader. Sent again until accepted; every part is safe to repeat.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The sender's data folder; a leader that knows another one for this name refuses.
    pub node_id: NodeId,
    /// The sender's process; none from a peer that doesn't tell. Refused while another process on a copy of its data folder has the session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<Instance>,
    /// The cluster it belongs to.
    pub cluster_id: ClusterId,
    /// The newest facts.
    pub facts: NodeFacts,
    /// What the machine used when it was last measured; none where it isn't, or not yet. Nobody decides by it, so the leader doesn't store it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// The newest status of pods that changed.
    #[serde(default)]
    pub pods: Vec<PodReport>,
    /// Events in order of their sequence.
    #[serde(default)]
    pub events: Vec<NodeEvent>,
    /// Deleted named volumes of which nothing is left on the node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dropped: Vec<Uid>,
}

/// The newest status of one pod.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodReport {
    /// Which pod.
    pub uid: Uid,
    /// Rises with each report of this pod by this data folder; a lower or equal one than the stored is ignored.
    pub sequence: u64,
    /// The highest `Want::Run { restarts }` that this status follows from; none from a peer that doesn't tell. An end that was reported on the
    /// way of a restart is the end before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restarts: Option<u64>,
    /// What it does.
    pub status: PodStatus,
    /// Whether its containers are known to be gone, after a `Want::Stop`.
    pub stopped: bool,
}

/// An event that a node saw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeEvent {
    /// Rises with each event of this data folder; the leader takes each once.
    pub sequence: u64,
    /// The pod; [`Uid::NONE`] for an event of the node itself.
    pub uid: Uid,
    /// The pod's name, or the node's.
    pub pod: Name,
    /// Whether a person should look.
    #[serde(rename = "type")]
    pub kind: EventKind,
    /// A stable word.
    pub reason: String,
    /// The sentence.
    pub message: String,
    /// When, by the node's clock.
    pub at: Timestamp,
}

/// The answer to a [`Report`], after the commit that holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReportAccepted {
    /// Every event up to this sequence is stored.
    pub events_through: u64,
}

/// The answer to `PUT /assignment`, after the node has written it to its ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AssignmentAccepted {
    /// The generation that the node has now; higher than the one sent if that was old.
    pub generation: Generation,
    /// Whether the node knows [`Assignment::unchanged`]: one that doesn't would take what is left for the whole set.
    #[serde(default)]
    pub takes_unchanged: bool,
}
