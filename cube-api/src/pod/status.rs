//! What a node reports of a pod, and the words for it.

use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::port::PublishedPort;
use crate::meta::Name;

/// Where a pod is in its life. It moves one way: Pending, Running, then Succeeded or Failed; only `cube restart` brings a finished one back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Phase {
    /// Accepted; not every container has been started yet.
    #[default]
    Pending,
    /// Every container has been started and at least one runs or will be started again.
    Running,
    /// Every container ended with 0 and none will be started again.
    Succeeded,
    /// Every container ended, one of them badly, and none will be started again.
    Failed,
}

/// The reason of a Failed pod that may have run on a node that was lost, and that must not run twice. Also the STATUS of one that waits for its
/// lost node.
pub const NODE_LOST: &str = "NodeLost";
/// The reason of a Failed pod that may have run on a node that knows nothing of it any more, and that must not run twice.
pub const NODE_FORGOT: &str = "NodeForgot";
/// The reason of a Failed pod that was stopped because its node was drained by force, and that must not run twice.
pub const DRAINED: &str = "Drained";

/// The reason of a Failed pod that was active for longer than its `activeDeadlineSeconds`.
pub const DEADLINE_EXCEEDED: &str = "DeadlineExceeded";

/// What a pod's node says of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodStatus {
    /// Where it is in its life.
    #[serde(default)]
    pub phase: Phase,
    /// Why it is Failed, as a word: `CrashLimit`, `ImageLimit`, `Error`, [`DEADLINE_EXCEEDED`]; or [`NODE_LOST`], [`NODE_FORGOT`] or [`DRAINED`], which the leader says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The reason in a sentence that a person can act on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The address of its network namespace on its node.
    #[serde(default, rename = "podIP", skip_serializing_if = "Option::is_none")]
    pub pod_ip: Option<IpAddr>,
    /// The node's ports that lead to its containers, those that its manifest asks for by number and those that the node chose, as long as the pod
    /// isn't over. A slice, because most pods have none: it takes a word less than a list.
    #[serde(default, skip_serializing_if = "<[_]>::is_empty")]
    pub host_ports: Box<[PublishedPort]>,
    /// When every container had been started for the first time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// Since when all its containers are ready, by its node's clock; none while one isn't.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_since: Option<Timestamp>,
    /// When it became Succeeded or Failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
    /// Since when the leader knows of this phase and of this `readySince`, by its own clock: its decisions go by that, because clocks of nodes may be off.
    /// None in what a node says, and where the leader itself says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known_since: Option<Timestamp>,
    /// One for each init container of the spec, in the spec's order. Without room to grow: most pods have none.
    #[serde(default, skip_serializing_if = "<[_]>::is_empty")]
    pub init_containers: Box<[ContainerStatus]>,
    /// One for each container of the spec, in the spec's order.
    #[serde(default)]
    pub containers: Vec<ContainerStatus>,
}

impl PodStatus {
    /// Of all its containers: the init containers first.
    pub fn all_containers(&self) -> impl Iterator<Item = &ContainerStatus> {
        self.init_containers.iter().chain(&self.containers)
    }

    /// Of the container of a name, an init container too.
    pub fn container(&self, name: &Name) -> Option<&ContainerStatus> {
        self.all_containers().find(|container| container.name == *name)
    }
}

/// What a node says of one container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerStatus {
    /// The spec's name.
    pub name: Name,
    /// The spec's image.
    pub image: String,
    /// The image's content id, once known.
    #[serde(default, rename = "imageID", skip_serializing_if = "Option::is_none")]
    pub image_id: Option<String>,
    /// Docker's id of the newest attempt, once created.
    #[serde(default, rename = "containerID", skip_serializing_if = "Option::is_none")]
    pub container_id: Option<String>,
    /// What it does now.
    pub state: ContainerState,
    /// Whether its process runs and its startup probe, if it has one, has succeeded.
    #[serde(default)]
    pub started: bool,
    /// Whether it is started and its readiness probe, if it has one, says so. Absent from a node of a version before there were probes, where what
    /// runs is ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<bool>,
    /// What its startup or readiness probe got, while that keeps it from being ready: `readiness probe failed: HTTP 503 from http://...`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe_failure: Option<String>,
    /// How the attempt before ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_termination: Option<Terminated>,
    /// Starts beyond the first. Never falls.
    pub restart_count: u32,
}

impl ContainerStatus {
    /// Whether it may be sent requests.
    pub fn is_ready(&self) -> bool {
        match self.state {
            ContainerState::Running(_) => self.ready.unwrap_or(true),
            ContainerState::Waiting(_) | ContainerState::Terminated(_) => false,
        }
    }
}

/// What a container does now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ContainerState {
    /// Not started, and why.
    Waiting(Waiting),
    /// The process runs.
    Running(Running),
    /// The process ended and isn't about to be started again.
    Terminated(Terminated),
}

/// Why a container isn't started.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Waiting {
    /// The cause as a word.
    pub reason: WaitReason,
    /// The cause in a sentence; progress while pulling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// When the next try is due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

/// The causes of waiting, as people see them in the STATUS column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum WaitReason {
    /// The sandbox or the container is being made.
    ContainerCreating,
    /// The image is on its way.
    Pulling,
    /// The image couldn't be had just now.
    ErrImagePull,
    /// The image couldn't be had several times; waiting for the next try.
    ImagePullBackOff,
    /// Docker refused to create or start it (a taken host port, a missing executable).
    CreateContainerError,
    /// It crashed; waiting for the next start.
    CrashLoopBackOff,
    /// An init container before it hasn't done its part yet, or it is about to be started for the first time after the last of them.
    PodInitializing,
}

impl WaitReason {
    /// The word of the STATUS column.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ContainerCreating => "ContainerCreating",
            Self::Pulling => "Pulling",
            Self::ErrImagePull => "ErrImagePull",
            Self::ImagePullBackOff => "ImagePullBackOff",
            Self::CreateContainerError => "CreateContainerError",
            Self::CrashLoopBackOff => "CrashLoopBackOff",
            Self::PodInitializing => "PodInitializing",
        }
    }
}

/// A process that runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Running {
    /// Since when, by Docker.
    pub started_at: Timestamp,
}

/// A process that ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Terminated {
    /// The process's exit code; 128 + n for a signal n.
    pub exit_code: i64,
    /// The cause as a word.
    pub reason: EndReason,
    /// What it left in its `terminationMessagePath`, else the last lines that it wrote when it failed, or Docker's own words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// When it was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
}

impl Terminated {
    /// Whether it ended badly: with another code than 0, or because it was unhealthy.
    pub fn is_failure(&self) -> bool {
        self.exit_code != 0 || self.reason == EndReason::Unhealthy
    }
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum EndReason {
    /// With 0.
    Completed,
    /// With another code.
    Error,
    /// Killed for its memory limit.
    #[serde(rename = "OOMKilled")]
    OomKilled,
    /// A probe found it unhealthy, and it was stopped for that, whatever it exited with.
    Unhealthy,
    /// It could not be started at all.
    StartError,
    /// Its container is gone and nobody knows how it ended.
    Unknown,
}

impl EndReason {
    /// The word of the STATUS column.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "Completed",
            Self::Error => "Error",
            Self::OomKilled => "OOMKilled",
            Self::Unhealthy => "Unhealthy",
            Self::StartError => "StartError",
            Self::Unknown => "Unknown",
        }
    }
}
