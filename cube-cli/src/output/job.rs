//! Jobs and cronjobs as rows, and as pages.

use cube_api::cron::{self, Schedule};
use cube_api::cronjob::CronJob;
use cube_api::event::Event;
use cube_api::job::{Job, JobConditionKind};
use cube_api::meta::Metadata;
use cube_api::pod::{Pod, PodSpec};
use jiff::Timestamp;

use super::page::Page;
use super::style::{Style, Tone};
use super::table::{Cell, Table};
use super::{age, node, pod as pods};

/// A table of jobs.
pub fn table<'a>(jobs: impl IntoIterator<Item = &'a Job>, wide: bool, now: Timestamp) -> Table {
    let mut header = vec!["NAME", "STATUS", "COMPLETIONS", "DURATION", "AGE"];
    if wide {
        header.extend(["ACTIVE", "FAILED", "IMAGES", "REASON"]);
    }
    let mut table = Table::new(header);
    for job in jobs {
        let mut row = vec![
            job.metadata.name.as_str().into(),
            Cell::toned(job.state(), tone(job)),
            completions(job).into(),
            duration(job, now).into(),
            age::since(job.metadata.created_at, now).into(),
        ];
        if wide {
            row.push(job.status.active.to_string().into());
            row.push(job.status.failed.to_string().into());
            row.push(images(&job.spec.template.spec).into());
            row.push(job.status.end().map(|end| end.reason.as_str()).unwrap_or_default().into());
        }
        table.row(row);
    }
    table
}

/// A table of cronjobs.
pub fn cron_table<'a>(cronjobs: impl IntoIterator<Item = &'a CronJob>, wide: bool, now: Timestamp) -> Table {
    let mut header = vec!["NAME", "SCHEDULE", "TIMEZONE", "SUSPEND", "ACTIVE", "LAST SCHEDULE", "NEXT", "AGE"];
    if wide {
        header.extend(["LAST SUCCESS", "IMAGES"]);
    }
    let mut table = Table::new(header);
    let ago = |then: Option<Timestamp>| then.map(|then| age::since(then, now)).unwrap_or_default();
    for cronjob in cronjobs {
        let CronJob { metadata, spec, status } = cronjob;
        let mut row = vec![
            metadata.name.as_str().into(),
            spec.schedule.as_str().into(),
            spec.time_zone.as_deref().unwrap_or_default().into(),
            spec.suspend.to_string().into(),
            status.active.len().to_string().into(),
            ago(status.last_schedule_time).into(),
            next(cronjob, now).map(|next| age::since(now, next)).unwrap_or_default().into(),
            age::since(metadata.created_at, now).into(),
        ];
        if wide {
            row.push(ago(status.last_successful_time).into());
            row.push(images(&spec.job_template.spec.template.spec).into());
        }
        table.row(row);
    }
    table
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

/// Everything about one job. The manifest is text.
pub fn page(job: &Job, owned: &[Pod], manifest: &str, events: &[Event], now: Timestamp, style: Style) -> String {
    let mut page = Page::new(style);
    let ago = |then: Timestamp| format!("{then:.0} ({} ago)", age::since(then, now));
    page.line("Name", job.metadata.name.as_str());
    page.toned("Status", job.state(), tone(job));
    let reasons = job.status.conditions.iter().map(|condition| format!("{}: {}", condition.reason, condition.message));
    page.line("Reason", &reasons.collect::<Vec<_>>().join("\n"));
    page.line("Completions", &completions(job));
    let counts = format!("{} active, {} succeeded, {} failed", job.status.active, job.status.succeeded, job.status.failed);
    page.line("Pods", &counts);
    if let Some(retry) = job.status.retry.filter(|retry| retry.due() > now && job.status.end().is_none()) {
        page.line("Next try", &format!("in {} ({} failed in a row)", age::since(now, retry.due()), retry.failures));
    }
    identity(&mut page, &job.metadata);
    page.line("Created", &ago(job.metadata.created_at));
    page.line("Started", &job.status.start_time.map(ago).unwrap_or_default());
    page.line("Ended", &job.status.end().map(|end| ago(end.last_transition_time)).unwrap_or_default());
    page.line("Duration", &duration(job, now));
    page.line("Deleted", &job.metadata.deletion_requested_at.map(ago).unwrap_or_default());
    if !owned.is_empty() {
        page.section("Pods", &pods::table(owned, false, now).text(style));
    }
    page.section("Manifest", manifest);
    page.events(events, now);
    page.text()
}

/// Everything about one cronjob, with its jobs.
pub fn cron_page(cronjob: &CronJob, owned: &[Job], manifest: &str, events: &[Event], now: Timestamp, style: Style) -> String {
    let CronJob { metadata, spec, status } = cronjob;
    let mut page = Page::new(style);
    let ago = |then: Timestamp| format!("{then:.0} ({} ago)", age::since(then, now));
    page.line("Name", metadata.name.as_str());
    page.line("Schedule", &format!("{} ({})", spec.schedule, spec.time_zone.as_deref().unwrap_or("UTC")));
    page.line("Suspended", if spec.suspend { "yes" } else { "" });
    page.toned("Trouble", status.trouble.as_deref().unwrap_or_default(), Tone::Bad);
    page.line("Next", &next(cronjob, now).map(|next| format!("{next:.0} (in {})", age::since(now, next))).unwrap_or_default());
    page.line("Last", &status.last_schedule_time.map(ago).unwrap_or_default());
    page.line("Succeeded", &status.last_successful_time.map(ago).unwrap_or_default());
    page.line("Waiting", &status.waiting.map(|since| format!("since {since:.0}, for the end of its active job")).unwrap_or_default());
    identity(&mut page, metadata);
    page.line("Created", &ago(metadata.created_at));
    page.line("Deleted", &metadata.deletion_requested_at.map(ago).unwrap_or_default());
    if !owned.is_empty() {
        page.section("Jobs", &table(owned, false, now).text(style));
    }
    page.section("Manifest", manifest);
    page.events(events, now);
    page.text()
}

fn identity(page: &mut Page, metadata: &Metadata) {
    page.line("Labels", &node::labels(&metadata.labels));
    page.line("Owner", &metadata.owner.as_ref().map(ToString::to_string).unwrap_or_default());
    page.line("Uid", &metadata.uid.to_string());
    page.line("Generation", &metadata.generation.to_string());
}
