//! The pod: what a manifest may say of one, where it is placed, and what its node reports of it.
//!
//! Names and units are Kubernetes', so that people's habits carry over. Every field that is accepted works.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::meta::{Metadata, Name};
use crate::quantity::{Bytes, MilliCpu};

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

/// One container of a pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Container {
    /// Unique in the pod.
    pub name: Name,
    /// An image reference as Docker reads it.
    pub image: String,
    /// Replaces the image's entrypoint. `$(VAR)` in it is replaced from `env`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Replaces the image's command. `$(VAR)` in it is replaced from `env`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Environment, in order of the keys: a map, or Kubernetes' list of `{name, value}`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Replaces the image's working directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// Ports that the container listens on; those with a host port are published on the node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<Port>,
    /// What the scheduler reserves and what Docker enforces.
    #[serde(default, skip_serializing_if = "Resources::is_empty")]
    pub resources: Resources,
    /// When to ask a registry.
    #[serde(default)]
    pub image_pull_policy: ImagePullPolicy,
    /// Gives the main process a terminal.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tty: bool,
    /// Keeps the main process's standard input open.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stdin: bool,
}

/// When an image is pulled. Unlike Kubernetes, `:latest` does not change the default: what the node has is used, as `docker run` does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ImagePullPolicy {
    /// Only when the node doesn't have it.
    #[default]
    IfNotPresent,
    /// Before every start of a container.
    Always,
    /// Not at all: an image that isn't there is an error.
    Never,
}

/// A port of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Port {
    /// What it is for; unique in the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// Where the process listens, 1 to 65535.
    pub container_port: u16,
    /// Publishes it on this port of the node, 1 to 65535. Without it the port is reached inside the pod and by the pod's address only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_port: Option<u16>,
    /// The transport.
    #[serde(default)]
    pub protocol: Protocol,
    /// The node's address to publish on; all when absent.
    #[serde(default, rename = "hostIP", skip_serializing_if = "Option::is_none")]
    pub host_ip: Option<IpAddr>,
}

/// A port's transport.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
}

/// Requests and limits of a container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Resources {
    /// What the scheduler keeps free for it. A limit without a request is also the request, as in Kubernetes.
    #[serde(default, skip_serializing_if = "Amounts::is_empty")]
    pub requests: Amounts,
    /// What it may not exceed: cpu is throttled, memory kills it (OOMKilled).
    #[serde(default, skip_serializing_if = "Amounts::is_empty")]
    pub limits: Amounts,
}

impl Resources {
    /// Whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty() && self.limits.is_empty()
    }

    /// The cpu that the scheduler reserves.
    pub fn reserved_cpu(&self) -> MilliCpu {
        self.requests.cpu.or(self.limits.cpu).unwrap_or_default()
    }

    /// The memory that the scheduler reserves.
    pub fn reserved_memory(&self) -> Bytes {
        self.requests.memory.or(self.limits.memory).unwrap_or_default()
    }

    /// The disk space that the scheduler reserves.
    pub fn reserved_disk(&self) -> Bytes {
        self.requests.disk.unwrap_or_default()
    }
}

/// Amounts of what a node has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Amounts {
    /// `250m` or `0.5`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<MilliCpu>,
    /// `64Mi`, `1Gi`, `500M`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Bytes>,
    /// Disk space: `10Gi`. It is reserved and not enforced, so it is a request only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<Bytes>,
}

impl Amounts {
    /// Whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        self.cpu.is_none() && self.memory.is_none() && self.disk.is_none()
    }
}

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

/// What a pod's node says of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodStatus {
    /// Where it is in its life.
    #[serde(default)]
    pub phase: Phase,
    /// Why it is Failed, as a word: `CrashLimit`, `ImageLimit`, `Error`; or [`NODE_LOST`], [`NODE_FORGOT`] or [`DRAINED`], which the leader says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The reason in a sentence that a person can act on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The address of its network namespace on its node.
    #[serde(default, rename = "podIP", skip_serializing_if = "Option::is_none")]
    pub pod_ip: Option<IpAddr>,
    /// When every container had been started for the first time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When it became Succeeded or Failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
    /// One for each container of the spec, in the spec's order.
    #[serde(default)]
    pub containers: Vec<ContainerStatus>,
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
    /// How the attempt before ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_termination: Option<Terminated>,
    /// Starts beyond the first. Never falls.
    pub restart_count: u32,
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
    /// The last lines that it wrote when it failed, or Docker's own words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// When it was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
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
            Self::StartError => "StartError",
            Self::Unknown => "Unknown",
        }
    }
}

/// A word of a container's `command` or `args` with each `$(VAR)` replaced from its environment, by Kubernetes' rules: a variable that isn't
/// there leaves the text as it is, and `$$` is one `$` that begins nothing.
pub fn expand(text: &str, env: &BTreeMap<String, String>) -> String {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        expanded.push_str(before);
        let reference = after.strip_prefix('(').and_then(|inside| inside.split_once(')'));
        match (after.strip_prefix('$'), reference) {
            (Some(after_both), _) => {
                expanded.push('$');
                rest = after_both;
            }
            (None, Some((name, after_reference))) => {
                match env.get(name) {
                    Some(value) => expanded.push_str(value),
                    None => expanded.extend(["$(", name, ")"]),
                }
                rest = after_reference;
            }
            (None, None) => {
                expanded.push('$');
                rest = after;
            }
        }
    }
    expanded.push_str(rest);
    expanded
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn references_are_expanded_by_the_rules_of_kubernetes() {
        let env = BTreeMap::from([("A", "a"), ("B_2", "$(A)"), ("EMPTY", "")].map(|(k, v)| (k.to_owned(), v.to_owned())));
        for (text, expected) in [
            ("plain", "plain"),
            ("$(A)", "a"),
            ("<$(A)$(A)>", "<aa>"),
            ("$(B_2)", "$(A)"),
            ("$(EMPTY)|", "|"),
            ("$(NOT_THERE)", "$(NOT_THERE)"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$a"),
            ("$$$$(A)", "$$(A)"),
            ("$A ${A} $", "$A ${A} $"),
            ("$(A", "$(A"),
            ("$()", "$()"),
            ("$(A$(A))", "$(A$(A))"),
            ("$((A))", "$((A))"),
            ("\u{e4}$(A)\u{e4}", "\u{e4}a\u{e4}"),
        ] {
            assert_eq!(expand(text, &env), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn without_variables_only_doubled_dollars_change(text in "[$()A-C ]{0,40}") {
            prop_assume!(!text.contains("$$"));
            prop_assert_eq!(expand(&text, &BTreeMap::new()), text);
        }
    }
}
