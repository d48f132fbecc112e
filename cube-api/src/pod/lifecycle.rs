//! What a manifest may say of a container's life: its part in the pod, what is run at its start and its stop, how it leaves its last words.

use serde::{Deserialize, Serialize};

use super::probe::{ExecProbe, HttpGetProbe};

/// A container's part in its pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// It runs to its end before the next one.
    Init {
        /// Its place among the init containers.
        index: usize,
    },
    /// It is started at its turn among the init containers and runs on, until all others have ended.
    Sidecar {
        /// Its place among the init containers.
        index: usize,
    },
    /// One of the pod's `containers`.
    App,
}

/// The restart policy of a container of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContainerRestartPolicy {
    /// For an init container: it is a sidecar. It is started again however it ends and whatever the pod's policy is, the next ones don't wait for its
    /// end, and a pod whose other containers are done is done.
    Always,
}

/// What a node runs when a container starts and stops. A hook is run at least once: a node that was killed in the middle of one runs it again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Lifecycle {
    /// Right after each start. Where it fails the container is stopped, and that counts as a crash. A sidecar has started when it is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub post_start: Option<Box<Hook>>,
    /// Before the stop signal, within the grace period. Where it fails the stop goes on. Not for a container that ends by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pre_stop: Option<Box<Hook>>,
}

impl Lifecycle {
    /// Whether nothing is run.
    pub fn is_empty(&self) -> bool {
        self.post_start.is_none() && self.pre_stop.is_none()
    }
}

/// One thing to run: exactly one of its fields is there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hook {
    /// A command in the container, which has to exit with 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec: Option<ExecProbe>,
    /// A request to the pod, which has to be answered with 200 to 399.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_get: Option<HttpGetProbe>,
    /// Nothing but time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sleep: Option<SleepAction>,
}

/// A hook's way to run, of the one field that it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunHandler<'a> {
    /// A command in the container.
    Exec(&'a ExecProbe),
    /// A request to the pod.
    HttpGet(&'a HttpGetProbe),
    /// Nothing but time.
    Sleep(&'a SleepAction),
}

impl Hook {
    /// Every way that it has; one, where it was checked.
    pub fn handlers(&self) -> impl Iterator<Item = RunHandler<'_>> {
        let Self { exec, http_get, sleep } = self;
        let exec = exec.iter().map(RunHandler::Exec);
        exec.chain(http_get.iter().map(RunHandler::HttpGet)).chain(sleep.iter().map(RunHandler::Sleep))
    }
}

/// A wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SleepAction {
    /// How long, in seconds.
    pub seconds: u32,
}

/// What a container that failed says where it left no words in a file. Unlike Kubernetes' default, the last lines of its log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum TerminationMessagePolicy {
    /// The last lines that it wrote.
    #[default]
    FallbackToLogsOnError,
    /// Nothing: for those whose log is nobody's business who may see their status.
    File,
}

impl TerminationMessagePolicy {
    /// Whether it is what a manifest that says nothing means.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}
