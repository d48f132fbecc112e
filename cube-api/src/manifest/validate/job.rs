//! The rules of jobs and cronjobs.

use super::{Checks, Finding, Path};
use crate::cron::{self, Schedule};
use crate::cronjob::{self, CronJobManifest, CronJobSpec};
use crate::job::{JobManifest, JobSpec};
use crate::pod::RestartPolicy;
use crate::template::TemplateMetadata;

/// The prefix of labels that the cluster sets.
const OWN_LABELS: &str = "cube.io/";

/// So many pods at a time are more than a few thousand machines run of one job; a typing slip that asks for more is told.
const MAX_PARALLELISM: u32 = 10_000;

/// All that is wrong with a job.
pub(in crate::manifest) fn job(job: &JobManifest) -> Vec<Finding> {
    let mut checks = Checks::default();
    checks.labels(&Path::default().key("metadata").key("labels"), &job.metadata.labels);
    checks.job(&Path::default().key("spec"), &job.spec);
    checks.findings
}

/// All that is wrong with a cronjob.
pub(in crate::manifest) fn cronjob(cronjob: &CronJobManifest) -> Vec<Finding> {
    let mut checks = Checks::default();
    let metadata = Path::default().key("metadata");
    checks.labels(&metadata.key("labels"), &cronjob.metadata.labels);
    let length = cronjob.metadata.name.as_str().len();
    let most = cronjob::MAX_NAME;
    checks.check(length <= most, || metadata.key("name"), || {
        format!("{length} characters, at most {most} are allowed for a cronjob: its jobs' names are longer")
    });
    checks.schedule(&Path::default().key("spec"), &cronjob.spec);
    let template = Path::default().key("spec").key("jobTemplate");
    checks.template_metadata(&template.key("metadata"), &cronjob.spec.job_template.metadata);
    checks.job(&template.key("spec"), &cronjob.spec.job_template.spec);
    checks.findings
}

impl Checks {
    fn job(&mut self, path: &Path, job: &JobSpec) {
        let parallelism = || path.key("parallelism");
        self.check(job.parallelism <= MAX_PARALLELISM, parallelism, || {
            format!("{}; at most {MAX_PARALLELISM} pods run at a time", job.parallelism)
        });
        // Kubernetes' work queues, whose first success ends the job, are another thing under the same words.
        self.check(job.completions.is_some() || job.parallelism <= 1, parallelism, || {
            format!("{} pods at a time of a job of one; say with `completions` how many have to succeed", job.parallelism)
        });
        self.check(job.active_deadline_seconds != Some(0), || path.key("activeDeadlineSeconds"), || {
            "0; no pod could begin. Leave it out for a job without a deadline".to_owned()
        });
        let template = path.key("template");
        self.template_metadata(&template.key("metadata"), &job.template.metadata);
        let spec = template.key("spec");
        self.spec(&spec, &job.template.spec);
        match job.template.spec.restart_policy {
            RestartPolicy::Never | RestartPolicy::OnFailure => {}
            RestartPolicy::Always => self.refuse(
                spec.key("restartPolicy"),
                "`Always`, which is the default, lets no pod come to its end; write Never (a failed pod is replaced by another) or OnFailure \
                 (its containers are started again)",
            ),
        }
    }

    fn schedule(&mut self, path: &Path, spec: &CronJobSpec) {
        if let Err(problem) = Schedule::parse(&spec.schedule) {
            self.refuse(path.key("schedule"), problem);
        }
        if let Err(problem) = cron::zone(spec.time_zone.as_deref()) {
            self.refuse(path.key("timeZone"), problem);
        }
        self.check(spec.starting_deadline_seconds != Some(0), || path.key("startingDeadlineSeconds"), || {
            "0; every job would be too late. Leave it out where a job is never too late".to_owned()
        });
    }

    fn template_metadata(&mut self, path: &Path, metadata: &TemplateMetadata) {
        let labels = path.key("labels");
        self.labels(&labels, &metadata.labels);
        for key in metadata.labels.keys().filter(|key| key.starts_with(OWN_LABELS)) {
            self.refuse(labels.key(key), format!("labels that begin with `{OWN_LABELS}` are the cluster's to set"));
        }
    }
}
