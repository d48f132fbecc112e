//! The job: pods that are run to their end, so many times.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::manifest::ManifestMetadata;
use crate::meta::{Metadata, ResourceKind};
use crate::object::ObjectType;
use crate::template::PodTemplate;

/// The label of a job's pods with its name.
pub const JOB_LABEL: &str = "cube.io/job";

/// Kubernetes' default of 6.
pub const DEFAULT_BACKOFF_LIMIT: u32 = 6;

/// A job as the API answers it. `spec` is written by the API; of `status` the counts are written with the very pods that they count, the rest by the
/// job loop.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Job {
    /// Who it is.
    pub metadata: Metadata,
    /// What was asked for.
    pub spec: JobSpec,
    /// How far it is.
    #[serde(default)]
    pub status: JobStatus,
}

impl ObjectType for Job {
    const KIND: ResourceKind = ResourceKind::Job;
    fn metadata(&self) -> &Metadata {
        &self.metadata
    }
}

/// A job as it is written down.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JobManifest {
    /// Its name and labels.
    pub metadata: ManifestMetadata,
    /// What it should be.
    pub spec: JobSpec,
}

/// What a manifest asks of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JobSpec {
    /// How many pods have to succeed; 1 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completions: Option<u32>,
    /// How many may run at a time.
    #[serde(default = "one")]
    pub parallelism: u32,
    /// How many may fail: one more, and the job is given up. With restart policy `OnFailure` also how many restarts of their containers the pods that
    /// run may have together.
    #[serde(default = "default_backoff_limit")]
    pub backoff_limit: u32,
    /// Seconds after its start at which the job is given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active_deadline_seconds: Option<u32>,
    /// Seconds after its end at which the job goes, with its pods; absent: it stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_seconds_after_finished: Option<u32>,
    /// Whether its pods are told apart.
    #[serde(default)]
    pub completion_mode: CompletionMode,
    /// Whether it stands still: no pod begins, and those that run are stopped, which counts as no failure.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspend: bool,
    /// What its pods are made by.
    pub template: PodTemplate,
}

impl JobSpec {
    /// How many pods have to succeed.
    pub fn completions(&self) -> u32 {
        self.completions.unwrap_or(1)
    }
}

fn one() -> u32 {
    1
}

fn default_backoff_limit() -> u32 {
    DEFAULT_BACKOFF_LIMIT
}

/// Whether a job's pods are told apart. Kubernetes' `Indexed` is not in this version, and refused.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum CompletionMode {
    /// One is as good as another.
    #[default]
    NonIndexed,
}

/// How far a job is. A pod is counted once: when it ends, or before that when it is to be stopped.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JobStatus {
    /// Pods that have not ended and are not to be stopped.
    #[serde(default)]
    pub active: u32,
    /// Pods that succeeded, those that are gone too.
    #[serde(default)]
    pub succeeded: u32,
    /// Pods that failed, were lost with their node or deleted by a person, those that are gone too.
    #[serde(default)]
    pub failed: u32,
    /// Failures since the last success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// When its first pod could begin, by the leader's clock; a suspension that ends is a new start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Timestamp>,
    /// When it was complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Timestamp>,
    /// What it has come to: at most one of each kind, and of `Complete` and `Failed` one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<JobCondition>,
}

/// Failures in a row, which make the next pod wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Retry {
    /// How many.
    pub failures: u32,
    /// When the newest of them was counted.
    pub last: Timestamp,
}

impl Retry {
    /// Kubernetes' waits: from 10 s, doubling to 6 min.
    const FIRST_SECONDS: i64 = 10;
    const MOST_SECONDS: i64 = 360;

    /// When the next pod may begin.
    pub fn due(&self) -> Timestamp {
        let seconds = (Self::FIRST_SECONDS << self.failures.saturating_sub(1).min(10)).min(Self::MOST_SECONDS);
        self.last.saturating_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX)
    }
}

/// Something that a job has come to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JobCondition {
    /// What.
    #[serde(rename = "type")]
    pub kind: JobConditionKind,
    /// Why, as a word: `BackoffLimitExceeded`.
    pub reason: String,
    /// Why, in a sentence.
    pub message: String,
    /// Since when.
    pub last_transition_time: Timestamp,
}

/// What a job can come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum JobConditionKind {
    /// It stands still.
    Suspended,
    /// As many pods have succeeded as were asked for. The end.
    Complete,
    /// It was given up. The end.
    Failed,
}

impl JobConditionKind {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Suspended => "Suspended",
            Self::Complete => "Complete",
            Self::Failed => "Failed",
        }
    }
}

impl JobStatus {
    /// How it ended, if it has.
    pub fn end(&self) -> Option<&JobCondition> {
        self.conditions.iter().find(|condition| match condition.kind {
            JobConditionKind::Complete | JobConditionKind::Failed => true,
            JobConditionKind::Suspended => false,
        })
    }

    /// Whether it stands still.
    pub fn is_suspended(&self) -> bool {
        self.conditions.iter().any(|condition| condition.kind == JobConditionKind::Suspended)
    }
}

impl Job {
    /// The word of the STATUS column.
    pub fn state(&self) -> &'static str {
        if self.metadata.deletion_requested_at.is_some() {
            return "Terminating";
        }
        match self.status.end() {
            Some(end) => end.kind.as_str(),
            None if self.spec.suspend => "Suspended",
            None => "Running",
        }
    }

    /// From its start to its end, or until now.
    pub fn duration(&self, now: Timestamp) -> Option<SignedDuration> {
        let end = self.status.end().map_or(now, |end| end.last_transition_time);
        Some(end.duration_since(self.status.start_time?).max(SignedDuration::ZERO))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_after_failures_doubles_from_ten_seconds_to_six_minutes() {
        let waits = [1, 2, 3, 4, 5, 6, 7, 40, u32::MAX].map(|failures| {
            let retry = Retry { failures, last: Timestamp::UNIX_EPOCH };
            retry.due().as_second()
        });
        assert_eq!(waits, [10, 20, 40, 80, 160, 320, 360, 360, 360]);
    }
}
