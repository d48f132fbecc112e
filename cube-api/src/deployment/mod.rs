//! The deployment: a number of equal pods that are kept, and replaced a few at a time when their template changes.

mod share;
mod status;

use serde::{Deserialize, Serialize};

pub use self::share::Share;
pub use self::status::{
    ConditionKind, DeploymentCondition, DeploymentStatus, Marks, Rollout, RolloutState, TemplateRevision, Verdict, newest_good,
};

use crate::manifest::ManifestMetadata;
use crate::meta::{Labels, Metadata, ResourceKind};
use crate::object::ObjectType;
use crate::pod::PodSpec;
use crate::template::PodTemplate;

/// The label of a deployment's pods with its name. No template may set labels of this prefix.
pub const DEPLOYMENT_LABEL: &str = "cube.io/deployment";
/// The label of a deployment's pods with the number of their revision.
pub const REVISION_LABEL: &str = "cube.io/revision";
/// The prefix of labels that the cluster sets.
pub const LABEL_PREFIX: &str = "cube.io/";

/// The longest name of a deployment, so that those of its pods (`web-12345-x7k2p`) are names still.
pub const MAX_NAME: usize = 40;

/// A deployment as the API answers it. `spec` is written by the API, `history` by the API (a revision that is wanted) and the deployment loop (its
/// verdict), `status` by the loop.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Deployment {
    /// Who it is.
    pub metadata: Metadata,
    /// What was asked for.
    pub spec: DeploymentSpec,
    /// The templates that it has had. The last one is the one that is wanted; what was wanted before comes before it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<TemplateRevision>,
    /// How far it is.
    #[serde(default)]
    pub status: DeploymentStatus,
}

impl ObjectType for Deployment {
    const KIND: ResourceKind = ResourceKind::Deployment;
    fn metadata(&self) -> &Metadata {
        &self.metadata
    }
}

/// A deployment as it is written down.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeploymentManifest {
    /// Its name and labels.
    pub metadata: ManifestMetadata,
    /// What it should be.
    pub spec: DeploymentSpec,
}

/// What a manifest asks of a deployment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeploymentSpec {
    /// How many pods there should be. Absent in a manifest: 1 of a new deployment, else as many as there should be already, so that an apply doesn't
    /// undo a scale. Always there in what the leader answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<u32>,
    /// The labels by which its pods are found. Absent: those of the template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
    /// What the pods are made by.
    pub template: PodTemplate,
    /// How pods of one revision come in the place of another's.
    #[serde(default)]
    pub strategy: DeploymentStrategy,
    /// Seconds for which a pod must be ready before it counts as available.
    #[serde(default)]
    pub min_ready_seconds: u32,
    /// Seconds without progress after which a rollout is given up.
    #[serde(default = "default_deadline")]
    pub progress_deadline_seconds: u32,
    /// How many revisions are kept beside the one that is wanted, for an undo.
    #[serde(default = "default_history")]
    pub revision_history_limit: u32,
    /// Whether nothing is rolled out for now. The number of pods is kept all the same.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
}

impl DeploymentSpec {
    /// How many pods there should be.
    pub fn replicas(&self) -> u32 {
        self.replicas.unwrap_or(DEFAULT_REPLICAS)
    }

    /// The labels by which its pods are found.
    pub fn selector(&self) -> &Labels {
        self.selector.as_ref().map_or(&self.template.metadata.labels, |selector| &selector.match_labels)
    }

    /// Why no two pods of a template can run beside each other on one node, so that a pod is stopped before its successor begins; none where they
    /// can.
    pub fn stops_first(template: &PodSpec) -> Option<String> {
        let port = template.published().find_map(|(_, port)| port.fixed_host_port());
        let port = port.map(|port| format!("its pods publish the host port {port}, which a node can give to one of them only"));
        let volume = || template.claims().next().map(|name| format!("its pods have the volume '{name}', which is on one node only"));
        port.or_else(volume)
    }
}

/// Kubernetes' default of 1.
pub const DEFAULT_REPLICAS: u32 = 1;
/// Kubernetes' default of 600 s.
pub const DEFAULT_PROGRESS_DEADLINE_SECONDS: u32 = 600;
/// Kubernetes' default of 10.
pub const DEFAULT_REVISION_HISTORY_LIMIT: u32 = 10;

fn default_deadline() -> u32 {
    DEFAULT_PROGRESS_DEADLINE_SECONDS
}

fn default_history() -> u32 {
    DEFAULT_REVISION_HISTORY_LIMIT
}

/// The labels that pods must have.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LabelSelector {
    /// All of these, with these values.
    #[serde(default)]
    pub match_labels: Labels,
}

/// How pods of one revision come in the place of another's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeploymentStrategy {
    /// Which way.
    #[serde(rename = "type", default)]
    pub kind: StrategyKind,
    /// The bounds of a `RollingUpdate`; absent: the defaults.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rolling_update: Option<RollingUpdate>,
}

/// The ways of a rollout.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum StrategyKind {
    /// A few at a time, so that there are always enough that are available.
    #[default]
    RollingUpdate,
    /// All old ones go before the first new one begins.
    Recreate,
}

/// The bounds of a rolling update.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RollingUpdate {
    /// How many pods more than wanted there may be; a percentage is rounded up.
    #[serde(default)]
    pub max_surge: Share,
    /// How many pods fewer than wanted may be available; a percentage is rounded down.
    #[serde(default)]
    pub max_unavailable: Share,
}

impl Default for RollingUpdate {
    fn default() -> Self {
        Self { max_surge: Share::DEFAULT, max_unavailable: Share::DEFAULT }
    }
}

impl DeploymentStrategy {
    /// The bounds of a rolling update, as they are given or by default.
    pub fn bounds(&self) -> RollingUpdate {
        self.rolling_update.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_kubernetes_default() {
        let spec: DeploymentSpec =
            serde_json::from_str(r#"{"template": {"spec": {"containers": [{"name": "c", "image": "nginx"}]}}}"#).expect("a spec");
        assert_eq!((spec.replicas(), spec.min_ready_seconds, spec.progress_deadline_seconds, spec.revision_history_limit), (1, 0, 600, 10));
        assert_eq!((spec.strategy.kind, spec.strategy.bounds()), (StrategyKind::RollingUpdate, RollingUpdate::default()));
        assert_eq!(RollingUpdate::default().max_surge, Share::Percent(25));
        assert!(!spec.paused && spec.selector().is_empty());
    }

    #[test]
    fn only_a_fixed_host_port_keeps_two_pods_from_running_beside_each_other() {
        let of = |ports: &str| {
            let spec = format!(r#"{{"containers": [{{"name": "c", "image": "nginx", "ports": [{ports}]}}]}}"#);
            DeploymentSpec::stops_first(&serde_json::from_str(&spec).expect("a spec"))
        };
        assert_eq!(of(""), None);
        assert_eq!(of(r#"{"containerPort": 80}"#), None);
        assert_eq!(of(r#"{"containerPort": 80, "hostPort": 0}"#), None);
        assert!(of(r#"{"containerPort": 80, "hostPort": 8080}"#).is_some_and(|why| why.contains("8080")));
    }
}
