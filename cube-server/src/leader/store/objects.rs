//! Resources that are neither pods nor nodes: what an apply and a delete do with them.

use std::collections::BTreeMap;

use cube_api::config::Config;
use cube_api::deployment::{DEFAULT_REPLICAS, Deployment, DeploymentManifest, DeploymentSpec, DeploymentStatus};
use cube_api::error::Problem;
use cube_api::event::EventKind;
use cube_api::manifest::Resource;
use cube_api::meta::{Metadata, ResourceKind, ResourceRef, Revision};
use cube_api::object::Object;
use cube_api::routes::{ApplyAction, DeleteQuery};
use cube_api::secret::Secret;
use cube_api::{ApiError, ErrorCode};
use jiff::Timestamp;

use super::draft::Draft;
use super::{apply, jobs, owned, volumes};

/// Makes the resource, changes it in place, or leaves it; refused where it can't become what the manifest says.
pub(super) fn apply(draft: &mut Draft<'_>, manifest: Resource) -> Result<(ApplyAction, Object), Problem> {
    let reference = manifest.reference();
    let Some(old) = draft.state().object(reference.kind, &reference.name).cloned() else {
        let metadata = Metadata {
            name: reference.name,
            uid: draft.new_uid(),
            labels: draft.templates().labels.share(manifest.metadata().labels.clone()),
            generation: 1,
            revision: Revision::default(),
            created_at: draft.now,
            deletion_requested_at: None,
            owner: None,
        };
        let made = draft.put_object(wanted(manifest, metadata, None, draft.now)?);
        draft.object_event(&made, EventKind::Normal, "Created", "created by apply");
        return Ok((ApplyAction::Created, Object::clone(&made)));
    };
    if old.metadata().deletion_requested_at.is_some() {
        let message = "it is being deleted; apply it again once it is gone".to_owned();
        return Err(apply::problem(&reference, "metadata.name", message));
    }
    let same_labels = old.metadata().clone();
    let labels = draft.templates().labels.share(manifest.metadata().labels.clone());
    let mut new = wanted(manifest, same_labels, Some(&old), draft.now)?;
    let is_another = new != *old;
    if !is_another && *labels == *old.metadata().labels {
        return Ok((ApplyAction::Unchanged, Object::clone(&old)));
    }
    new.metadata_mut().labels = labels;
    if is_another {
        new.metadata_mut().generation += 1;
    }
    let new = draft.put_object(new);
    draft.object_event(&new, EventKind::Normal, "Configured", "changed by apply");
    Ok((ApplyAction::Configured, Object::clone(&new)))
}

/// As the manifest wants it, with this metadata; what loops wrote into the old one stays. The problem says what can't be changed.
fn wanted(manifest: Resource, metadata: Metadata, old: Option<&Object>, now: Timestamp) -> Result<Object, Problem> {
    match manifest {
        Resource::Secret(manifest) => Ok(Object::Secret(Secret { metadata, data: manifest.values(), sizes: BTreeMap::new() })),
        Resource::Config(manifest) => Ok(Object::Config(Config { metadata, data: manifest.data })),
        Resource::Job(manifest) => jobs::wanted(manifest, metadata, old.and_then(Object::job)),
        Resource::CronJob(manifest) => Ok(jobs::cronjob_wanted(manifest, metadata, old.and_then(Object::cronjob), now)),
        Resource::Deployment(manifest) => wanted_deployment(*manifest, metadata, old).map(|wanted| Object::Deployment(Box::new(wanted))),
        Resource::Pod(_) => unreachable!("apply.rs applies pods"),
    }
}

fn wanted_deployment(manifest: DeploymentManifest, metadata: Metadata, old: Option<&Object>) -> Result<Deployment, Problem> {
    let old = old.and_then(Object::deployment);
    let spec = manifest.spec;
    if let Some(fixed) = old.and_then(|old| old.spec.selector.as_ref())
        && spec.selector.as_ref() != Some(fixed)
    {
        let reference = ResourceRef { kind: ResourceKind::Deployment, name: metadata.name };
        let message =
            "a deployment's selector doesn't change; make another deployment under another name, or delete this one first".to_owned();
        return Err(apply::problem(&reference, "spec.selector", message));
    }
    let replicas = spec.replicas.or(old.and_then(|old| old.spec.replicas)).or(Some(DEFAULT_REPLICAS));
    let spec = DeploymentSpec { replicas, ..spec };
    let (history, status) = old.map_or_else(|| (Vec::new(), DeploymentStatus::default()), |old| (old.history.clone(), old.status.clone()));
    Ok(Deployment { metadata, spec, history, status })
}

/// Removes the resource; one that owns pods is marked, its pods are told to stop, and it goes when they are gone ([`super::owned`]).
pub(super) fn delete(draft: &mut Draft<'_>, reference: &ResourceRef, query: &DeleteQuery) -> Result<Object, ApiError> {
    let missing = || {
        let hint = format!("`cube list {}` shows what there is", reference.kind);
        ApiError::new(ErrorCode::NotFound, format!("{reference} not found")).hint(hint)
    };
    let old = draft.state().object(reference.kind, &reference.name).cloned().ok_or_else(missing)?;
    if let Object::Volume(volume) = &*old {
        return volumes::delete(draft, volume);
    }
    let mut new = Object::clone(&old);
    new.metadata_mut().deletion_requested_at.get_or_insert(draft.now);
    if !new.is_owner() {
        owned::stop_owned(draft, &old, query.grace_seconds);
        draft.drop_object(reference);
        draft.object_event(&new, EventKind::Normal, "Deleted", "deleted by the user");
        return Ok(new);
    }
    if new != *old {
        let new = draft.put_object(new);
        draft.object_event(&new, EventKind::Normal, "Deleting", "deleted by the user: it goes when what it owns is gone");
    }
    owned::stop_owned(draft, &old, query.grace_seconds);
    let now = draft.state().object(reference.kind, &reference.name).ok_or_else(missing)?;
    Ok(Object::clone(now))
}
