//! The cronjob: jobs that are made on schedule.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::job::{Job, JobSpec, JobStatus};
use crate::manifest::ManifestMetadata;
use crate::meta::{Metadata, Name, ResourceKind, Revision, Uid};
use crate::object::ObjectType;
use crate::template::TemplateMetadata;

/// The label of a cronjob's jobs with its name.
pub const CRONJOB_LABEL: &str = "cube.io/cronjob";

/// The longest name, as Kubernetes has it: its jobs have 11 characters more.
pub const MAX_NAME: usize = 52;

/// A cronjob as the API answers it. `spec` is written by the API, `status` by the cronjob loop; `status.since` by
/// both: the API writes it with a changed schedule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CronJob {
    /// Who it is.
    pub metadata: Metadata,
    /// What was asked for.
    pub spec: CronJobSpec,
    /// What became of it.
    #[serde(default)]
    pub status: CronJobStatus,
}

impl ObjectType for CronJob {
    const KIND: ResourceKind = ResourceKind::CronJob;
    fn metadata(&self) -> &Metadata {
        &self.metadata
    }
}

/// A cronjob as it is written down.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CronJobManifest {
    /// Its name and labels.
    pub metadata: ManifestMetadata,
    /// What it should be.
    pub spec: CronJobSpec,
}

/// What a manifest asks of a cronjob.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CronJobSpec {
    /// When: a line that [`crate::cron`] reads.
    pub schedule: String,
    /// Where that is, as the IANA database calls it; UTC when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    /// What happens when it is time and the job before runs yet.
    #[serde(default)]
    pub concurrency_policy: ConcurrencyPolicy,
    /// Seconds after its time within which a job is still made; absent: however late it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub starting_deadline_seconds: Option<u32>,
    /// Whether no jobs are made. What is missed meanwhile counts as missed, as in Kubernetes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspend: bool,
    /// How many complete jobs are kept.
    #[serde(default = "three")]
    pub successful_jobs_history_limit: u32,
    /// How many failed jobs are kept.
    #[serde(default = "one")]
    pub failed_jobs_history_limit: u32,
    /// What its jobs are made by.
    pub job_template: JobTemplate,
}

fn three() -> u32 {
    3
}

fn one() -> u32 {
    1
}

/// What a cronjob's jobs have in common.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JobTemplate {
    /// Their labels.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub metadata: TemplateMetadata,
    /// What each of them should be.
    pub spec: JobSpec,
}

fn is_empty(metadata: &TemplateMetadata) -> bool {
    metadata.labels.is_empty()
}

/// What happens when it is time for a job and the one before runs yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConcurrencyPolicy {
    /// They run beside each other.
    #[default]
    Allow,
    /// The new one waits for the other's end, and is then made if it isn't too late for it.
    Forbid,
    /// The other is deleted, and the new one made when it is gone.
    Replace,
}

/// What became of a cronjob.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CronJobStatus {
    /// Its jobs that have not ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub active: Vec<Name>,
    /// The time of the schedule for which a job was made last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_schedule_time: Option<Timestamp>,
    /// When a job of it was complete last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_successful_time: Option<Timestamp>,
    /// Times of the schedule up to here are not made up for: it was changed then, or they were too late.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// The time of the schedule whose job waits for the end of the one before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<Timestamp>,
    /// Why it can't be told when its jobs are due: its time zone is not known on the leader's machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

impl CronJob {
    /// A job by the template, as it is to be made: who it is beside its name and labels is the store's to say.
    pub fn job(&self, name: Name) -> Job {
        let template = &self.spec.job_template;
        let mut labels = template.metadata.labels.clone();
        labels.insert(CRONJOB_LABEL.to_owned(), self.metadata.name.to_string());
        let metadata = Metadata {
            name,
            uid: Uid::NONE,
            labels: labels.into(),
            generation: 1,
            revision: Revision::default(),
            created_at: self.metadata.created_at,
            deletion_requested_at: None,
            owner: None,
        };
        Job { metadata, spec: template.spec.clone(), status: JobStatus::default() }
    }

    /// The moment up to which its schedule has been seen to.
    pub fn seen_to(&self) -> Timestamp {
        let CronJobStatus { last_schedule_time, since, .. } = &self.status;
        [*last_schedule_time, *since].into_iter().flatten().fold(self.metadata.created_at, Timestamp::max)
    }
}

/// The name of the job for a time of the schedule: the same however often it is asked for, so that no run is made twice.
pub fn job_name(cronjob: &Name, scheduled: Timestamp) -> Name {
    let minutes = scheduled.as_second().div_euclid(60);
    Name::new(format!("{cronjob}-{minutes}")).expect("52 characters, a dash and at most 10 digits are a name")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_named_by_its_time_in_minutes() {
        let longest = Name::new("x".repeat(MAX_NAME)).expect("a name");
        let late = "9999-12-30T22:00:00Z".parse().expect("a time");
        assert_eq!(job_name(&longest, late).as_str().len(), MAX_NAME + 11);
        let at = |text: &str| job_name(&Name::new("nightly").expect("a name"), text.parse().expect("a time")).to_string();
        assert_eq!(at("2026-01-01T02:30:00Z"), "nightly-29453910");
        assert_eq!(at("2026-01-01T02:30:59Z"), at("2026-01-01T02:30:00Z"));
    }
}
