//! Resources that are neither pods nor nodes: what an apply and a delete do with them.

use std::collections::BTreeMap;

use cube_api::config::Config;
use cube_api::error::Problem;
use cube_api::event::EventKind;
use cube_api::manifest::Resource;
use cube_api::meta::{Metadata, ResourceRef, Revision};
use cube_api::object::Object;
use cube_api::routes::{ApplyAction, DeleteQuery};
use cube_api::secret::Secret;
use cube_api::{ApiError, ErrorCode};

use super::draft::Draft;
use super::{apply, owned};

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
        let made = draft.put_object(wanted(manifest, metadata, None)?);
        draft.object_event(&made, EventKind::Normal, "Created", "created by apply");
        return Ok((ApplyAction::Created, Object::clone(&made)));
    };
    if old.metadata().deletion_requested_at.is_some() {
        let message = "it is being deleted; apply it again once it is gone".to_owned();
        return Err(apply::problem(&reference, "metadata.name", message));
    }
    let same_labels = old.metadata().clone();
    let labels = draft.templates().labels.share(manifest.metadata().labels.clone());
    let mut new = wanted(manifest, same_labels, Some(&old))?;
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
fn wanted(manifest: Resource, metadata: Metadata, _old: Option<&Object>) -> Result<Object, Problem> {
    match manifest {
        Resource::Secret(manifest) => Ok(Object::Secret(Secret { metadata, data: manifest.values(), sizes: BTreeMap::new() })),
        Resource::Config(manifest) => Ok(Object::Config(Config { metadata, data: manifest.data })),
        Resource::Pod(_) => unreachable!("apply.rs applies pods"),
    }
}

/// Removes the resource; one that owns pods is marked, its pods are told to stop, and it goes when they are gone ([`super::owned`]).
pub(super) fn delete(draft: &mut Draft<'_>, reference: &ResourceRef, query: &DeleteQuery) -> Result<Object, ApiError> {
    let missing = || {
        let hint = format!("`cube list {}` shows what there is", reference.kind);
        ApiError::new(ErrorCode::NotFound, format!("{reference} not found")).hint(hint)
    };
    let old = draft.state().object(reference.kind, &reference.name).cloned().ok_or_else(missing)?;
    owned::stop_owned(draft, &old, query.grace_seconds);
    let mut new = Object::clone(&old);
    new.metadata_mut().deletion_requested_at.get_or_insert(draft.now);
    if !new.is_owner() {
        draft.drop_object(reference);
        draft.object_event(&new, EventKind::Normal, "Deleted", "deleted by the user");
        return Ok(new);
    }
    if new == *old {
        return Ok(new);
    }
    let new = draft.put_object(new);
    draft.object_event(&new, EventKind::Normal, "Deleting", "deleted by the user: it goes when what it owns is gone");
    Ok(Object::clone(&new))
}
