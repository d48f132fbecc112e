//! Paths and queries, in one place for those who serve and those who call.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::meta::{LabelChanges, Metadata, Name, ResourceKind, ResourceRef, Revision};
use crate::object::Object;
use crate::pod::Pod;

/// The port of the leader.
pub const DEFAULT_PORT: u16 = 4242;
/// `POST`: a list of resources ([`ApplyQuery`], answers [`Applied`]).
pub const APPLY: &str = "/v1/apply";
/// `GET`: list or watch ([`ListQuery`], answers [`List`] or lines of [`WatchEvent`]).
pub const PODS: &str = "/v1/pods";
/// `GET`, `DELETE` ([`DeleteQuery`]; answers the pod).
pub const POD: &str = "/v1/pods/{name}";
/// `POST`: restart every container and clear the limits; answers the pod.
pub const POD_RESTART: &str = "/v1/pods/{name}/restart";
/// Websocket ([`LogQuery`]): [`crate::stream`] frames from the server, stdout and status.
pub const POD_LOGS: &str = "/v1/pods/{name}/logs";
/// Websocket ([`ExecQuery`]): [`crate::stream`] frames both ways.
pub const POD_EXEC: &str = "/v1/pods/{name}/exec";
/// `GET`: list or watch the resources of a type that is neither pod nor node, such as `/v1/secrets` ([`ListQuery`]).
pub const OBJECTS: &str = "/v1/{types}";
/// `GET`, `DELETE` ([`DeleteQuery`]) one of them; both answer it.
pub const OBJECT: &str = "/v1/{types}/{name}";
/// `POST` ([`ScaleQuery`]): another number of pods; answers the deployment.
pub const DEPLOYMENT_SCALE: &str = "/v1/deployments/{name}/scale";
/// `POST` ([`RolloutQuery`]): what a person wants of a rollout, `action` being a [`RolloutAction`]; answers the deployment.
pub const DEPLOYMENT_ROLLOUT: &str = "/v1/deployments/{name}/rollout/{action}";
/// `POST` ([`TriggerQuery`]): a job by a cronjob's template, now; answers the job.
pub const CRONJOB_TRIGGER: &str = "/v1/cronjobs/{name}/trigger";
/// `GET`: list or watch the nodes.
pub const NODES: &str = "/v1/nodes";
/// `GET` a node; `PATCH` its labels ([`NodePatch`]); `DELETE` one that is away.
pub const NODE: &str = "/v1/nodes/{name}";
/// `POST` ([`CordonQuery`]): no new pods there; `DELETE`: pods again, and the end of a drain. Both answer the node.
pub const NODE_CORDON: &str = "/v1/nodes/{name}/cordon";
/// `POST` ([`DrainQuery`]): cordons the node and moves its pods; answers the node, whose `cordon.drain` says how far it is.
pub const NODE_DRAIN: &str = "/v1/nodes/{name}/drain";
/// `POST`: a node's [`crate::session::Report`]; node credentials only.
pub const NODE_REPORT: &str = "/v1/nodes/{name}/report";
/// `GET` ([`EventQuery`]): events, oldest first.
pub const EVENTS: &str = "/v1/events";
/// `POST` with upgrade: a node's session; node credentials only.
pub const SESSION: &str = "/v1/session";
/// `GET`: every pod as a [`crate::classic::Task`]; `POST`: run one, or stop it ([`crate::classic::read`]; answers the task).
pub const TASKS: &str = "/tasks";
/// `GET` a task by its ID, the beginning of it, or a name; `DELETE`: stop it (answers nothing).
pub const TASK: &str = "/tasks/{name}";
/// `GET`: every node as a [`crate::classic::Worker`].
pub const WORKERS: &str = "/workers";
/// `GET`: the leader's figures in Prometheus' text form.
pub const METRICS: &str = "/metrics";
/// `GET`, no credential: `200 ok` while the process works.
pub const HEALTHZ: &str = "/healthz";
/// `GET`, no credential: `200 ok` once the leader serves; `503` with the reason while its disk is full and it takes nothing new.
pub const READYZ: &str = "/readyz";
/// `GET`, no credential: [`VersionInfo`].
pub const VERSION: &str = "/version";

/// What a node serves to the leader over its session.
pub mod node {
    /// `PUT`: an [`crate::session::Assignment`].
    pub const ASSIGNMENT: &str = "/assignment";
    /// `GET` ([`super::LogQuery`]): length-prefixed [`crate::stream`] frames.
    pub const LOGS: &str = "/pods/{uid}/logs";
    /// `POST` ([`super::ExecQuery`]): length-prefixed [`crate::stream`] frames both ways.
    pub const EXEC: &str = "/pods/{uid}/exec";
}

/// A list, and the revision to watch from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct List<T> {
    /// Everything in it had happened by this revision; a watch from it misses nothing.
    pub revision: Revision,
    /// Where to go on, if `limit` cut the list.
    #[serde(default, rename = "continue", skip_serializing_if = "Option::is_none")]
    pub continue_from: Option<String>,
    /// In order of their names.
    pub items: Vec<T>,
}

/// The query of a list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ListQuery {
    /// Labels: `app=web,tier!=db,env in (a,b),!legacy,owner`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// The most items in one answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// The `continue` of the answer before.
    #[serde(default, rename = "continue", skip_serializing_if = "Option::is_none")]
    pub continue_from: Option<String>,
    /// Instead of a list: every change after `from`, one JSON object a line, until the caller hangs up.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub watch: bool,
    /// The revision to watch from; none: from now, after an `added` for everything that is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Revision>,
}

/// One line of a watch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", content = "object", rename_all = "camelCase")]
pub enum WatchEvent<T> {
    /// It is new, or came into the selector.
    Added(T),
    /// It changed.
    Modified(T),
    /// It is gone, or left the selector; its last state.
    Deleted(T),
    /// Nothing changed up to this revision: a place to resume from.
    Bookmark(Bookmark),
}

/// A place to resume a watch from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Bookmark {
    /// The revision to watch from.
    pub revision: Revision,
}

/// A line of a watch of pods.
pub type PodWatch = WatchEvent<Pod>;

/// The query of an apply.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ApplyQuery {
    /// Check and say what would change; change nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
}

/// What an apply did, one for each resource, in the manifest's order. All or nothing was done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Applied {
    /// The store's revision after it; everything of it has happened by then.
    pub revision: Revision,
    /// What was done.
    pub items: Vec<AppliedItem>,
}

/// What an apply did with one resource.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AppliedItem {
    /// What was done.
    pub action: ApplyAction,
    /// The resource as it is now: `pod`, or `object` with its type.
    #[serde(flatten)]
    pub resource: AppliedResource,
}

/// A resource that was applied.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(clippy::large_enum_variant, reason = "most of them are pods, and nobody keeps them")]
pub enum AppliedResource {
    /// A pod.
    Pod(Pod),
    /// Anything else, a secret without its values.
    Object(Object),
}

impl AppliedItem {
    /// Who it is.
    pub fn metadata(&self) -> &Metadata {
        match &self.resource {
            AppliedResource::Pod(pod) => &pod.metadata,
            AppliedResource::Object(object) => object.metadata(),
        }
    }

    /// The name people use for it.
    pub fn reference(&self) -> ResourceRef {
        match &self.resource {
            AppliedResource::Pod(pod) => ResourceRef { kind: ResourceKind::Pod, name: pod.metadata.name.clone() },
            AppliedResource::Object(object) => object.reference(),
        }
    }

    /// The pod, if it is one.
    pub fn into_pod(self) -> Option<Pod> {
        match self.resource {
            AppliedResource::Pod(pod) => Some(pod),
            AppliedResource::Object(_) => None,
        }
    }
}

/// What an apply does with a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ApplyAction {
    /// It wasn't there.
    Created,
    /// It was changed in place. Of a pod, its labels: its containers run on.
    Configured,
    /// Its spec changed: a new pod of that name replaces it once it stopped.
    Replaced,
    /// It is as asked for already.
    Unchanged,
}

impl ApplyAction {
    /// The word that `cube apply` prints.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Configured => "configured",
            Self::Replaced => "replaced",
            Self::Unchanged => "unchanged",
        }
    }
}

/// The query of a delete.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeleteQuery {
    /// Instead of the spec's, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_seconds: Option<u32>,
    /// Forget it now, without its node's word that its containers are gone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
}

/// The query of a node's delete.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeleteNodeQuery {
    /// Forget its pods too, without its word that their containers are gone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
}

/// The query of a cordon.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CordonQuery {
    /// What for; of a node that is cordoned already, none keeps what was said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The query of a drain. Of one that goes on, it says anew how.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DrainQuery {
    /// As [`CordonQuery::reason`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The most seconds between the stop signal and SIGKILL; a pod that has fewer keeps its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_seconds: Option<u32>,
    /// Stop pods that would stay: those that no other node takes, and those that wouldn't be run again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
}

/// What to change of a node, as a JSON merge patch (RFC 7396).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodePatch {
    /// Labels: a value sets one, null takes it away, the others stay.
    #[serde(default)]
    pub labels: LabelChanges,
}

/// The query of a scale.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ScaleQuery {
    /// How many pods there should be.
    pub replicas: u32,
}

/// What a person wants of a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RolloutAction {
    /// Back to another revision.
    Undo,
    /// Nothing is rolled out for now.
    Pause,
    /// What is held goes on.
    Resume,
    /// Every pod is replaced by a new one of the same template.
    Restart,
    /// A revision that was rolled back is tried again.
    Retry,
}

impl RolloutAction {
    /// The word in the path and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Undo => "undo",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Restart => "restart",
            Self::Retry => "retry",
        }
    }
}

/// The query of a rollout's action.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RolloutQuery {
    /// Of an undo: the revision to go back to; none: the newest one before that was rolled out to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_revision: Option<u64>,
}

/// The query of a cronjob's trigger.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TriggerQuery {
    /// The job's name; one is made up when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<Name>,
}

/// The query of events.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EventQuery {
    /// Only of this object: `pod/my-pod`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
    /// Only those written after this revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Revision>,
    /// The newest so many; 1,000 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

/// The query of logs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LogQuery {
    /// This container alone, without prefix; none: all, in time order, each line prefixed `[name] `.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<Name>,
    /// Go on with what comes, over restarts, until the pod has finished or is deleted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub follow: bool,
    /// Only the last so many lines of each container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tail: Option<u64>,
    /// Only what was written at or after this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Begin each line with its time (RFC 3339).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub timestamps: bool,
    /// Of the attempt before the newest.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub previous: bool,
}

/// The query of an exec. `command` is given once for each word (`command=sh&command=-c`), as Kubernetes does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExecQuery {
    /// The container; may be left out where the pod has one only.
    pub container: Option<Name>,
    /// The words of the command; at least one.
    pub command: Vec<String>,
    /// Give it a terminal.
    pub tty: bool,
    /// Pass standard input on.
    pub stdin: bool,
}

/// What `/version` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VersionInfo {
    /// cube-server's version.
    pub version: String,
}
