//! Jobs, by how many of their pods have succeeded, and cronjobs, by when they are due.

use cube_api::cron::{self, Schedule};
use cube_api::cronjob::{CronJob, CronJobManifest};
use cube_api::job::{Job, JobConditionKind, JobManifest};
use cube_api::manifest::{ManifestMetadata, Resource};
use cube_api::meta::{Labels, Metadata};
use cube_api::pod::PodSpec;
use jiff::Timestamp;

use super::Shown;
use crate::output::page::Page;
use crate::output::style::Tone;
use crate::output::table::Cell;
use crate::output::{age, yaml};

impl Shown for Job {
    fn columns(wide: bool) -> Vec<&'static str> {
        let mut columns = vec!["STATUS", "COMPLETIONS", "DURATION"];
        if wide {
            columns.extend(["ACTIVE", "FAILED", "IMAGES", "REASON"]);
        }
        columns
    }

    fn cells(&self, wide: bool, now: Timestamp) -> Vec<Cell> {
        let mut cells = vec![Cell::toned(self.state(), tone(self)), completions(self).into(), duration(self, now).into()];
        if wide {
            cells.push(self.status.active.to_string().into());
            cells.push(self.status.failed.to_string().into());
            cells.push(images(&self.spec.template.spec).into());
            cells.push(self.status.end().map(|end| end.reason.as_str()).unwrap_or_default().into());
        }
        cells
    }

    fn describe(&self, page: &mut Page, now: Timestamp) {
        let ago = |then: Timestamp| format!("{then:.0} ({} ago)", age::since(then, now));
        let reasons = self.status.conditions.iter().map(|condition| format!("{}: {}", condition.reason, condition.message));
        page.line("Reason", &reasons.collect::<Vec<_>>().join("\n"));
        page.line("Completions", &completions(self));
        page.line("Counts", &format!("{} active, {} succeeded, {} failed", self.status.active, self.status.succeeded, self.status.failed));
        if let Some(retry) = self.status.retry.filter(|retry| retry.due() > now && self.status.end().is_none()) {
            page.line("Next try", &format!("in {} (failed in a row: {})", age::since(now, retry.due()), retry.failures));
        }
        page.line("Started", &self.status.start_time.map(ago).unwrap_or_default());
        page.line("Ended", &self.status.end().map(|end| ago(end.last_transition_time)).unwrap_or_default());
        page.line("Duration", &duration(self, now));
        let manifest = JobManifest { metadata: written(&self.metadata), spec: self.spec.clone() };
        page.section("Manifest", &yaml(&Resource::Job(manifest)));
    }

    fn status(&self) -> Option<(String, Tone)> {
        Some((self.state().to_owned(), tone(self)))
    }
}

impl Shown for CronJob {
    fn columns(wide: bool) -> Vec<&'static str> {
        let mut columns = vec!["SCHEDULE", "TIMEZONE", "SUSPEND", "ACTIVE", "LAST SCHEDULE", "NEXT"];
        if wide {
            columns.extend(["LAST SUCCESS", "IMAGES"]);
        }
        columns
    }

    fn cells(&self, wide: bool, now: Timestamp) -> Vec<Cell> {
        let Self { metadata: _, spec, status } = self;
        let ago = |then: Option<Timestamp>| then.map(|then| age::since(then, now)).unwrap_or_default();
        let mut cells: Vec<Cell> = vec![
            spec.schedule.as_str().into(),
            spec.time_zone.as_deref().unwrap_or_default().into(),
            spec.suspend.to_string().into(),
            status.active.len().to_string().into(),
            ago(status.last_schedule_time).into(),
            next(self, now).map(|next| age::since(now, next)).unwrap_or_default().into(),
        ];
        if wide {
            cells.push(ago(status.last_successful_time).into());
            cells.push(images(&spec.job_template.spec.template.spec).into());
        }
        cells
    }

    fn describe(&self, page: &mut Page, now: Timestamp) {
        let Self { metadata, spec, status } = self;
        let ago = |then: Timestamp| format!("{then:.0} ({} ago)", age::since(then, now));
        page.line("Schedule", &format!("{} ({})", spec.schedule, spec.time_zone.as_deref().unwrap_or("UTC")));
        page.line("Suspended", if spec.suspend { "yes" } else { "" });
        page.toned("Trouble", status.trouble.as_deref().unwrap_or_default(), Tone::Bad);
        page.line("Next", &next(self, now).map(|next| format!("{next:.0} (in {})", age::since(now, next))).unwrap_or_default());
        page.line("Last", &status.last_schedule_time.map(ago).unwrap_or_default());
        page.line("Succeeded", &status.last_successful_time.map(ago).unwrap_or_default());
        let waiting = status.waiting.map(|due| format!("a job that was due at {due:.0}, for the end of the one before"));
        page.line("Waiting", &waiting.unwrap_or_default());
        let manifest = CronJobManifest { metadata: written(metadata), spec: spec.clone() };
        page.section("Manifest", &yaml(&Resource::CronJob(manifest)));
    }
}

fn tone(job: &Job) -> Tone {
    match job.status.end().map(|end| end.kind) {
        Some(JobConditionKind::Complete) => Tone::Plain,
        Some(JobConditionKind::Failed | JobConditionKind::Suspended) => Tone::Bad,
        None if job.spec.suspend => Tone::Busy,
        None => Tone::Good,
    }
}

fn completions(job: &Job) -> String {
    format!("{}/{}", job.status.succeeded, job.spec.completions())
}

fn duration(job: &Job, now: Timestamp) -> String {
    let Some(duration) = job.duration(now) else { return String::new() };
    age::since(now.saturating_sub(duration).unwrap_or(Timestamp::MIN), now)
}

fn images(spec: &PodSpec) -> String {
    spec.containers.iter().map(|container| container.image.as_str()).collect::<Vec<_>>().join(",")
}

/// When its next job is due, as far as this machine knows its time zone.
fn next(cronjob: &CronJob, now: Timestamp) -> Option<Timestamp> {
    let zone = cron::zone(cronjob.spec.time_zone.as_deref()).ok()?;
    Schedule::parse(&cronjob.spec.schedule).ok()?.next_after(now, &zone).filter(|_| !cronjob.spec.suspend)
}

/// The metadata as a person would write it down.
fn written(metadata: &Metadata) -> ManifestMetadata {
    ManifestMetadata {
        name: metadata.name.clone(),
        labels: Labels::clone(&metadata.labels),
        uid: None,
        revision: None,
        generation: None,
        created_at: None,
        deletion_requested_at: None,
        owner: None,
    }
}
