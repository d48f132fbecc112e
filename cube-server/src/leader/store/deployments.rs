//! What people say of a deployment beside its manifest: its number of pods, and what is to become of its rollout. The deployment loop carries it out.

use cube_api::deployment::{Deployment, newest_good};
use cube_api::event::EventKind;
use cube_api::meta::{Name, ResourceKind};
use cube_api::object::Object;
use cube_api::routes::{RolloutAction, RolloutQuery};
use cube_api::{ApiError, ErrorCode};

use super::draft::Draft;

/// The most pods of a deployment, as in a manifest.
const MAX_REPLICAS: u32 = 10_000;

/// Another number of pods.
pub(super) fn scale(draft: &mut Draft<'_>, name: &Name, replicas: u32) -> Result<Deployment, ApiError> {
    if replicas > MAX_REPLICAS {
        return Err(ApiError::new(ErrorCode::BadRequest, format!("{replicas} replicas; at most {MAX_REPLICAS} are allowed")));
    }
    let mut deployment = known(draft, name)?;
    if deployment.spec.replicas() == replicas {
        return Ok(deployment);
    }
    deployment.spec.replicas = Some(replicas);
    Ok(put(draft, deployment, "Scaled", format!("scaled to {replicas} by the user")))
}

/// What a person wants of a rollout.
pub(super) fn rollout(draft: &mut Draft<'_>, name: &Name, action: RolloutAction, query: RolloutQuery) -> Result<Deployment, ApiError> {
    let mut deployment = known(draft, name)?;
    // The loop may not have looked at what was applied a moment ago.
    deployment.revise(draft.now, "apply");
    match (action, query.to_revision) {
        (RolloutAction::Undo, to) => undo(draft, deployment, to),
        (_, Some(_)) => Err(ApiError::new(ErrorCode::BadRequest, "toRevision goes with undo")),
        (RolloutAction::Pause, None) => Ok(hold(draft, deployment, true)),
        (RolloutAction::Resume, None) => Ok(hold(draft, deployment, false)),
        (RolloutAction::Restart, None) => {
            refuse_held(&deployment, "restarted")?;
            deployment.restart(draft.now);
            Ok(put(draft, deployment, "Restarting", "every pod is replaced by a new one: asked for by the user".to_owned()))
        }
        (RolloutAction::Retry, None) => {
            if !deployment.retry() {
                let message = format!("deployment/{name} has nothing to try again: what is wanted of it wasn't rolled back");
                return Err(
                    ApiError::new(ErrorCode::Conflict, message).hint(format!("`cube rollout restart deployment/{name}` replaces its pods"))
                );
            }
            let number = deployment.wanted().map_or(0, |wanted| wanted.number);
            Ok(put(draft, deployment, "Retried", format!("revision {number} is tried again: asked for by the user")))
        }
    }
}

fn undo(draft: &mut Draft<'_>, mut deployment: Deployment, to: Option<u64>) -> Result<Deployment, ApiError> {
    let name = deployment.metadata.name.clone();
    refuse_held(&deployment, "undone")?;
    let hint = format!("`cube rollout history deployment/{name}` shows which there are");
    let before = deployment.history.split_last().and_then(|(_, before)| newest_good(before)).map(|revision| revision.number);
    let Some(number) = to.or(before) else {
        let message = format!("deployment/{name} has no revision to go back to that was rolled out to its end");
        return Err(ApiError::new(ErrorCode::Conflict, message).hint(hint));
    };
    if deployment.wanted().is_some_and(|wanted| wanted.number == number) {
        let message = format!("revision {number} of deployment/{name} is the one that is wanted already");
        return Err(ApiError::new(ErrorCode::Conflict, message).hint(hint));
    }
    if !deployment.undo_to(number) {
        return Err(ApiError::new(ErrorCode::NotFound, format!("deployment/{name} has no revision {number}")).hint(hint));
    }
    Ok(put(draft, deployment, "Undone", format!("back to revision {number}: asked for by the user")))
}

fn hold(draft: &mut Draft<'_>, mut deployment: Deployment, paused: bool) -> Deployment {
    if deployment.spec.paused == paused {
        return deployment;
    }
    deployment.spec.paused = paused;
    match paused {
        true => put(draft, deployment, "Paused", "nothing is rolled out until it is resumed: asked for by the user".to_owned()),
        false => put(draft, deployment, "Resumed", "rollouts go on: asked for by the user".to_owned()),
    }
}

/// What is held would do nothing, and that isn't what was asked for.
fn refuse_held(deployment: &Deployment, what: &str) -> Result<(), ApiError> {
    if !deployment.spec.paused {
        return Ok(());
    }
    let name = &deployment.metadata.name;
    let message = format!("deployment/{name} is paused, so it can't be {what}");
    Err(ApiError::new(ErrorCode::Conflict, message).hint(format!("`cube rollout resume deployment/{name}` first")))
}

fn known(draft: &Draft<'_>, name: &Name) -> Result<Deployment, ApiError> {
    let missing =
        || ApiError::new(ErrorCode::NotFound, format!("deployment/{name} not found")).hint("`cube list deployment` shows what there is");
    let found = draft.state().object(ResourceKind::Deployment, name).and_then(|object| object.deployment()).cloned().ok_or_else(missing)?;
    if found.metadata.deletion_requested_at.is_some() {
        return Err(ApiError::new(ErrorCode::Conflict, format!("deployment/{name} is being deleted")));
    }
    Ok(found)
}

/// The generation moves, so that who asked can tell when the loop has seen it.
fn put(draft: &mut Draft<'_>, mut deployment: Deployment, reason: &str, message: String) -> Deployment {
    deployment.metadata.generation += 1;
    let put = draft.put_object(Object::Deployment(Box::new(deployment.clone())));
    draft.object_event(&put, EventKind::Normal, reason, message);
    deployment.metadata.revision = put.metadata().revision;
    deployment
}
