//! What an apply does with each resource: make it, relabel it, replace it, or leave it.
//!
//! A pod's spec never changes: another spec is another pod, with the next generation and another uid. All resources are applied, or none.

use std::sync::Arc;

use cube_api::error::Problem;
use cube_api::event::EventKind;
use cube_api::manifest::{PodManifest, Resource};
use cube_api::meta::{Metadata, ResourceKind, ResourceRef, Revision};
use cube_api::pod::{Placement, Pod, PodStatus};
use cube_api::routes::{Applied, AppliedItem, AppliedResource, ApplyAction};
use cube_api::{ApiError, ErrorCode};

use super::draft::Draft;
use super::{PodRow, Retired, avoid, objects};

/// Applies all resources; refused with every problem that there is.
pub(super) fn apply(draft: &mut Draft<'_>, resources: Vec<Resource>) -> Result<Applied, ApiError> {
    let mut items = Vec::with_capacity(resources.len());
    let mut conflicts = Vec::new();
    for resource in resources {
        match precondition(draft, &resource).and_then(|()| apply_one(draft, resource)) {
            Ok(item) => items.push(item),
            Err(problem) => conflicts.push(problem),
        }
    }
    if !conflicts.is_empty() {
        return Err(conflict(conflicts));
    }
    Ok(Applied { revision: draft.state().revision, items })
}

fn apply_one(draft: &mut Draft<'_>, resource: Resource) -> Result<AppliedItem, Problem> {
    match resource {
        Resource::Pod(manifest) => Ok(apply_pod(draft, manifest)),
        object @ (Resource::Secret(_) | Resource::Config(_) | Resource::Job(_) | Resource::CronJob(_) | Resource::Deployment(_)) => {
            let (action, object) = objects::apply(draft, object)?;
            Ok(AppliedItem { action, resource: AppliedResource::Object(object.shown()) })
        }
    }
}

/// The answer of a dry run: what is not committed has no revision of its own, so each resource shows the one that it has, 0 if it is new.
pub(super) fn as_dry_run(mut applied: Applied, draft: &Draft<'_>) -> Applied {
    applied.revision = draft.began_at();
    for item in &mut applied.items {
        let metadata = match &mut item.resource {
            AppliedResource::Pod(pod) => &mut pod.metadata,
            AppliedResource::Object(object) => object.metadata_mut(),
        };
        metadata.revision = match item.action {
            ApplyAction::Created | ApplyAction::Replaced => Revision::default(),
            ApplyAction::Configured | ApplyAction::Unchanged => metadata.revision.min(applied.revision),
        };
    }
    applied
}

fn conflict(conflicts: Vec<Problem>) -> ApiError {
    let message = match conflicts.as_slice() {
        [one] => one.to_string(),
        several => format!("{} resources can't become what the manifest says; nothing was changed", several.len()),
    };
    let is_stale = |problem: &Problem| matches!(problem.path.as_str(), "metadata.uid" | "metadata.revision");
    let stale = conflicts.iter().any(is_stale);
    let refusal = ApiError { details: conflicts, ..ApiError::new(ErrorCode::Conflict, message) };
    let hint = "read them again with `cube get`, or leave metadata.uid and metadata.revision out of the manifest";
    // What can't be changed says itself what to do.
    if stale { refusal.hint(hint) } else { refusal }
}

/// What is wrong with a resource of a manifest, as the store knows it.
pub(super) fn problem(resource: &ResourceRef, path: &str, message: String) -> Problem {
    Problem { resource: Some(resource.to_string()), path: path.to_owned(), message, line: None, column: None }
}

/// Whether the resource is the one, and as old, as the manifest says, and a person's to change.
fn precondition(draft: &Draft<'_>, resource: &Resource) -> Result<(), Problem> {
    let (reference, wanted) = (resource.reference(), resource.metadata());
    let standing = match reference.kind {
        ResourceKind::Pod => draft.state().standing(&reference.name).map(|row| &row.pod.metadata),
        kind @ (ResourceKind::Node
        | ResourceKind::Secret
        | ResourceKind::Config
        | ResourceKind::Volume
        | ResourceKind::Job
        | ResourceKind::CronJob
        | ResourceKind::Deployment) => draft.state().object(kind, &reference.name).map(|object| object.metadata()),
    };
    let absent = || format!("there is no such {}", reference.kind);
    if let Some(uid) = wanted.uid
        && standing.map(|metadata| metadata.uid) != Some(uid)
    {
        let now = standing.map_or_else(absent, |metadata| format!("it is {}, at revision {}", metadata.uid, metadata.revision));
        return Err(problem(&reference, "metadata.uid", format!("{uid} is asked for, but {now}")));
    }
    if let Some(revision) = wanted.revision
        && standing.map(|metadata| metadata.revision) != Some(revision)
    {
        let now = standing.map_or_else(absent, |metadata| format!("it is at {} now", metadata.revision));
        return Err(problem(&reference, "metadata.revision", format!("{revision} is asked for, but {now}")));
    }
    match standing.and_then(|metadata| metadata.owner.as_ref()) {
        Some(owner) => Err(problem(&reference, "metadata.name", format!("it belongs to {owner}; change that"))),
        None => Ok(()),
    }
}

fn apply_pod(draft: &mut Draft<'_>, manifest: PodManifest) -> AppliedItem {
    let standing = draft.state().standing(&manifest.metadata.name).cloned();
    let (action, row) = match standing {
        None => (ApplyAction::Created, create(draft, manifest, None)),
        Some(old) if old.retired.is_some() => (ApplyAction::Created, create(draft, manifest, Some(&old))),
        Some(old) if *old.pod.spec != manifest.spec => (ApplyAction::Replaced, create(draft, manifest, Some(&old))),
        Some(old) if *old.pod.metadata.labels != manifest.metadata.labels => (ApplyAction::Configured, relabel(draft, &old, manifest)),
        Some(old) => (ApplyAction::Unchanged, old),
    };
    AppliedItem { action, resource: AppliedResource::Pod(row.pod.clone()) }
}

/// Makes a pod, in the place of the one that stands for its name, if there is one. The old row's change comes first: a name has one live pod.
pub(super) fn create(draft: &mut Draft<'_>, manifest: PodManifest, old: Option<&Arc<PodRow>>) -> Arc<PodRow> {
    let generation = old.map_or(1, |old| old.pod.metadata.generation + 1);
    if let Some(old) = old {
        step_aside(draft, old, generation);
    }
    let metadata = Metadata {
        name: manifest.metadata.name,
        uid: draft.new_uid(),
        labels: draft.templates().labels.share(manifest.metadata.labels),
        generation,
        revision: Revision::default(),
        created_at: draft.now,
        deletion_requested_at: None,
        owner: None,
    };
    let placement = old.map_or_else(Placement::default, |old| Placement { avoids: avoid::after(old, draft.now), ..Placement::default() });
    let spec = draft.templates().specs.share(manifest.spec);
    let pod = Pod { metadata, spec, placement, status: PodStatus::default() };
    let row = draft.put_pod(PodRow { pod, restarts: 0, retired: None });
    let message = match old {
        None => "created by apply".to_owned(),
        Some(old) => format!("created by apply, generation {generation}, after {}", old.pod.metadata.uid),
    };
    draft.pod_event(&row, EventKind::Normal, "Created", message);
    row
}

/// Takes the old pod out of the way: one that never had a node is gone, another is stopped by its node first.
fn step_aside(draft: &mut Draft<'_>, old: &Arc<PodRow>, generation: u64) {
    let reason = format!("replaced: its spec changed (generation {generation})");
    if old.retired.is_none() {
        draft.pod_event(old, EventKind::Normal, "Replaced", reason.clone());
    }
    if old.pod.placement.node.is_none() {
        draft.drop_pod(&old.pod.metadata.uid);
        return;
    }
    let mut row = PodRow::clone(old);
    let retired = Retired { reason, grace_seconds: row.pod.spec.termination_grace_period_seconds, replaced: true };
    row.retired = Some(match row.retired.take() {
        None => retired,
        Some(leaving) => Retired { replaced: true, ..leaving },
    });
    row.pod.metadata.deletion_requested_at.get_or_insert(draft.now);
    draft.put_pod(row);
}

fn relabel(draft: &mut Draft<'_>, old: &Arc<PodRow>, manifest: PodManifest) -> Arc<PodRow> {
    let mut row = PodRow::clone(old);
    row.pod.metadata.labels = draft.templates().labels.share(manifest.metadata.labels);
    let row = draft.put_pod(row);
    draft.pod_event(&row, EventKind::Normal, "Relabelled", "its labels changed by apply; its containers run on");
    row
}
