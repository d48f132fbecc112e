//! Jobs and cronjobs: what an apply makes of them, what a job counts, and jobs that people ask a cronjob for.

use std::sync::Arc;

use cube_api::cronjob::{CronJob, CronJobManifest, CronJobStatus};
use cube_api::error::Problem;
use cube_api::event::EventKind;
use cube_api::job::{Job, JobManifest, JobStatus, Retry};
use cube_api::meta::{Metadata, Name, Owner, ResourceKind, ResourceRef};
use cube_api::object::Object;
use cube_api::pod::Phase;
use cube_api::{ApiError, ErrorCode};
use jiff::Timestamp;

use super::draft::Draft;
use super::{PodRow, apply, owned};

/// As the manifest wants the job, with what the old one has come to. Only how many run at a time, the limits and the suspension can be changed, as in
/// Kubernetes: pods by another template would be counted with those by the old one.
pub(super) fn wanted(manifest: JobManifest, metadata: Metadata, old: Option<&Job>) -> Result<Object, Problem> {
    let spec = manifest.spec;
    if let Some(old) = old {
        let reference = ResourceRef { kind: ResourceKind::Job, name: metadata.name.clone() };
        let fixed = [
            ("spec.template", old.spec.template != spec.template),
            ("spec.completions", old.spec.completions() != spec.completions()),
            ("spec.completionMode", old.spec.completion_mode != spec.completion_mode),
        ];
        if let Some((path, _)) = fixed.into_iter().find(|(_, changes)| *changes) {
            let message =
                format!("can't be changed; to run it so: cube delete {reference}, then apply it again, or give the new one another name");
            return Err(apply::problem(&reference, path, message));
        }
    }
    let status = old.map(|old| old.status.clone()).unwrap_or_default();
    Ok(Object::Job(Box::new(Job { metadata, spec, status })))
}

/// As the manifest wants the cronjob. What a new schedule would have asked for before it was there isn't made up for.
pub(super) fn cronjob_wanted(manifest: CronJobManifest, metadata: Metadata, old: Option<&CronJob>, now: Timestamp) -> Object {
    let spec = manifest.spec;
    let mut status = old.map(|old| old.status.clone()).unwrap_or_default();
    let is_another = |old: &CronJob| (&old.spec.schedule, &old.spec.time_zone) != (&spec.schedule, &spec.time_zone);
    if old.is_some_and(is_another) {
        status = CronJobStatus { since: Some(now), waiting: None, ..status };
    }
    Object::CronJob(Box::new(CronJob { metadata, spec, status }))
}

/// What a pod is to its job.
#[derive(PartialEq, Eq)]
enum Part {
    /// Nothing: it isn't there yet, or was counted.
    None,
    /// It runs, or is to.
    Active,
    Succeeded,
    Failed,
}

impl Part {
    /// A pod that is to be stopped before its end has failed by that, whatever its end will be: so it is counted once, and when another may begin.
    fn of(row: &PodRow) -> Self {
        match (&row.retired, row.pod.status.phase) {
            (_, Phase::Succeeded) => Self::Succeeded,
            (_, Phase::Failed) | (Some(_), Phase::Pending | Phase::Running) => Self::Failed,
            (None, Phase::Pending | Phase::Running) => Self::Active,
        }
    }
}

/// Counts a pod with its job, in the write that begins or ends it. Each pod is active once and then ends once, so each is counted once, whatever
/// order reports, deletes, losses, passes and crashes come in. One whose row goes without a word of its end has failed.
pub(super) fn count(draft: &mut Draft<'_>, owner: &Owner, before: Option<&PodRow>, after: Option<&PodRow>) {
    let (was, is) = (before.map_or(Part::None, Part::of), after.map_or(Part::Failed, Part::of));
    let now = draft.now;
    let change: fn(&mut JobStatus, Timestamp) = match (was, is) {
        (Part::None, Part::Active) => |status, _| status.active = status.active.saturating_add(1),
        (Part::Active, Part::Succeeded) => |status, _| {
            status.active = status.active.saturating_sub(1);
            status.succeeded = status.succeeded.saturating_add(1);
            status.retry = None;
        },
        (Part::Active, Part::Failed) => |status, now| {
            status.active = status.active.saturating_sub(1);
            status.failed = status.failed.saturating_add(1);
            let failures = status.retry.map_or(0, |retry| retry.failures).saturating_add(1);
            status.retry = Some(Retry { failures, last: now });
        },
        (Part::None | Part::Succeeded | Part::Failed, _) | (Part::Active, Part::None | Part::Active) => return,
    };
    let object = draft.state().object(owner.kind, &owner.name).filter(|object| object.metadata().uid == owner.uid);
    let Some(job) = object.and_then(|object| object.job()) else { return };
    let mut job = job.clone();
    change(&mut job.status, now);
    draft.put_object(Object::Job(Box::new(job)));
}

/// Makes a job by a cronjob's template, now.
pub(super) fn trigger(draft: &mut Draft<'_>, cronjob: &Name, name: Option<Name>) -> Result<Object, ApiError> {
    let absent = || {
        let message = format!("cronjob/{cronjob} not found");
        ApiError::new(ErrorCode::NotFound, message).hint("`cube list cronjob` shows what there is")
    };
    let object = draft.state().object(ResourceKind::CronJob, cronjob).cloned().ok_or_else(absent)?;
    let Some(found) = object.cronjob().filter(|found| found.metadata.deletion_requested_at.is_none()) else {
        return Err(ApiError::new(ErrorCode::Conflict, format!("cronjob/{cronjob} is being deleted")));
    };
    let name = name.unwrap_or_else(|| free_name(draft, cronjob));
    if draft.state().object(ResourceKind::Job, &name).is_some() {
        let message = format!("there is a job/{name} already");
        let hint = format!("delete it, choose another name, or leave the name out: cube trigger cronjob/{cronjob}");
        return Err(ApiError::new(ErrorCode::Conflict, message).hint(hint));
    }
    let owner = Arc::new(Owner { kind: ResourceKind::CronJob, name: cronjob.clone(), uid: found.metadata.uid });
    owned::make(draft, &owner, Object::Job(Box::new(found.job(name.clone()))));
    draft.object_event(&object, EventKind::Normal, "Triggered", format!("created job/{name} by hand"));
    let made = draft.state().object(ResourceKind::Job, &name).expect("it was made just now");
    Ok(Object::clone(made))
}

fn free_name(draft: &Draft<'_>, cronjob: &Name) -> Name {
    loop {
        let name = Name::new(format!("{cronjob}-{}", draft.new_suffix())).expect("52 characters, a dash and five letters are a name");
        if draft.state().object(ResourceKind::Job, &name).is_none() {
            return name;
        }
    }
}
