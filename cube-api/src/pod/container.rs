//! What a manifest may say of one container.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::probe::{Probe, ProbeKind};
use crate::meta::Name;
use crate::quantity::{Bytes, MilliCpu};

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
    /// Whether it still works: if not, it is ended, which counts as a crash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub liveness_probe: Option<Box<Probe>>,
    /// Whether it may be sent requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub readiness_probe: Option<Box<Probe>>,
    /// Whether it has come up: the other probes wait for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub startup_probe: Option<Box<Probe>>,
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

impl Container {
    /// Its probe of this kind.
    pub fn probe(&self, kind: ProbeKind) -> Option<&Probe> {
        match kind {
            ProbeKind::Startup => self.startup_probe.as_deref(),
            ProbeKind::Liveness => self.liveness_probe.as_deref(),
            ProbeKind::Readiness => self.readiness_probe.as_deref(),
        }
    }
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
