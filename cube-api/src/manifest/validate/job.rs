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
    checks.check(
        length <= most,
        || metadata.key("name"),
        || format!("{length} characters, at most {most} are allowed for a cronjob: its jobs' names are longer"),
    );
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
        self.check(
            job.active_deadline_seconds != Some(0),
            || path.key("activeDeadlineSeconds"),
            || "0; no pod could begin. Leave it out for a job without a deadline".to_owned(),
        );
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
        self.check(
            spec.starting_deadline_seconds != Some(0),
            || path.key("startingDeadlineSeconds"),
            || "0; every job would be too late. Leave it out where a job is never too late".to_owned(),
        );
    }

    fn template_metadata(&mut self, path: &Path, metadata: &TemplateMetadata) {
        let labels = path.key("labels");
        self.labels(&labels, &metadata.labels);
        for key in metadata.labels.keys().filter(|key| key.starts_with(OWN_LABELS)) {
            self.refuse(labels.key(key), format!("labels that begin with `{OWN_LABELS}` are the cluster's to set"));
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::manifest::{Resource, parse};

    fn problems(text: &str) -> Vec<String> {
        let found = parse(text).expect_err("it is wrong");
        found.iter().map(|problem| format!("{}: {}", problem.path, problem.message)).collect()
    }

    const POD: &str = "{ spec: { restartPolicy: Never, containers: [{ name: c, image: busybox }] } }";

    #[test]
    fn a_job_has_kubernetes_defaults_and_other_forms_are_read_in_its_template_too() {
        let template = "{ metadata: { labels: [a=b] }, spec: { restartPolicy: Never,
            containers: [{ name: c, image: busybox, env: [{ name: X, value: y }] }] } }";
        let text = format!("{{ type: job, metadata: {{ name: j }}, spec: {{ template: {template} }} }}");
        let [Resource::Job(job)] = &parse(&text).expect("a job")[..] else { panic!("a job") };
        assert_eq!((job.spec.completions(), job.spec.parallelism, job.spec.backoff_limit), (1, 1, 6));
        let template = &job.spec.template;
        assert_eq!(template.metadata.labels.get("a").map(String::as_str), Some("b"));
        assert_eq!(template.spec.containers[0].env.value("X"), Some("y"));
        let text = format!(
            "{{ type: cronjob, metadata: {{ name: c }}, spec: {{ schedule: '@daily', jobTemplate: {{ spec: {{ template: {POD} }} }} }} }}"
        );
        let [Resource::CronJob(cronjob)] = &parse(&text).expect("a cronjob")[..] else { panic!("a cronjob") };
        let kept = (cronjob.spec.successful_jobs_history_limit, cronjob.spec.failed_jobs_history_limit);
        assert_eq!((kept, cronjob.spec.suspend), ((3, 1), false));
    }

    #[test]
    fn all_that_is_wrong_with_a_job_is_told_with_its_path() {
        let told = problems(
            "{ type: job, metadata: { name: j }, spec: { parallelism: 3, activeDeadlineSeconds: 0, completionMode: Indexed, template: {
                metadata: { labels: { cube.io/job: x } }, spec: { containers: [{ name: c, image: 'no image' }, { name: c, image: busybox }] } } } }",
        );
        for part in [
            "spec.parallelism: 3 pods at a time of a job of one; say with `completions`",
            "spec.activeDeadlineSeconds: 0; no pod could begin",
            "spec.completionMode: `Indexed` is not allowed",
            r#"spec.template.metadata.labels["cube.io/job"]: labels that begin with `cube.io/`"#,
            "spec.template.spec.containers[0].image: `no image` is not an image reference",
            "spec.template.spec.containers[1].name: `c` is the name of containers[0] already",
            "spec.template.spec.restartPolicy: `Always`, which is the default",
        ] {
            assert!(told.iter().any(|told| told.contains(part)), "{part} is missing in {told:#?}");
        }
    }

    #[test]
    fn all_that_is_wrong_with_a_cronjob_is_told_with_its_path() {
        let name = "x".repeat(53);
        let told = problems(&format!(
            "{{ type: cronjob, metadata: {{ name: {name} }}, spec: {{ schedule: '61 * * * *', timeZone: Mars/Base, startingDeadlineSeconds: 0,
                jobTemplate: {{ metadata: {{ labels: {{ cube.io/x: y }} }}, spec: {{ template: {{ spec: {{ restartPolicy: Always, containers: [] }} }} }} }} }} }}"
        ));
        for part in [
            "metadata.name: 53 characters, at most 52",
            "spec.schedule: `61` of the minute",
            "spec.timeZone: `Mars/Base` is no time zone",
            "spec.startingDeadlineSeconds: 0; every job would be too late",
            r#"spec.jobTemplate.metadata.labels["cube.io/x"]: labels that begin"#,
            "spec.jobTemplate.spec.template.spec.containers: the list is empty",
            "spec.jobTemplate.spec.template.spec.restartPolicy: `Always`",
        ] {
            assert!(told.iter().any(|told| told.contains(part)), "{part} is missing in {told:#?}");
        }
    }
}
