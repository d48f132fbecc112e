//! A pod's way from a node to its end, as far as people and the scheduler decide it: delete, restart, place.

use std::sync::Arc;

use cube_api::event::EventKind;
use cube_api::meta::{Name, Uid};
use cube_api::node::Node;
use cube_api::pod::{Phase, Placement, Pod, PodStatus};
use cube_api::routes::DeleteQuery;
use cube_api::{ApiError, ErrorCode};

use super::draft::Draft;
use super::{Placing, PodRow, Retired, lost};

fn standing(draft: &Draft<'_>, name: &Name) -> Result<Arc<PodRow>, ApiError> {
    draft.state().standing(name).cloned().ok_or_else(|| missing(name))
}

fn missing(name: &Name) -> ApiError {
    ApiError::new(ErrorCode::NotFound, format!("pod/{name} not found")).hint("`cube list pod` shows what there is")
}

/// Marks the pod of a name for deletion, or forgets it.
pub(super) fn delete(draft: &mut Draft<'_>, name: &Name, query: &DeleteQuery) -> Result<Pod, ApiError> {
    let old = standing(draft, name)?;
    if query.force {
        nothing_pinned(draft, name)?;
        let mut row = PodRow::clone(&old);
        row.pod.metadata.deletion_requested_at.get_or_insert(draft.now);
        forget_all(draft, name);
        return Ok(row.pod);
    }
    Ok(retire(draft, &old, "deleted by the user", query.grace_seconds))
}

/// Has a pod stop for good; one that never had a node is gone at once. Asked for again, only a shorter grace is news. `why` is for the events.
pub(super) fn retire(draft: &mut Draft<'_>, old: &Arc<PodRow>, why: &str, grace_seconds: Option<u32>) -> Pod {
    let mut row = PodRow::clone(old);
    row.pod.metadata.deletion_requested_at.get_or_insert(draft.now);
    if row.pod.placement.node.is_none() {
        draft.drop_pod(&row.pod.metadata.uid);
        draft.pod_event(&row, EventKind::Normal, "Deleted", format!("{why} before it had a node"));
        return row.pod;
    }
    let grace_seconds = grace_seconds.unwrap_or(row.pod.spec.termination_grace_period_seconds);
    let first = row.retired.is_none();
    row.retired = Some(match row.retired.take() {
        None => Retired { reason: why.to_owned(), grace_seconds, replaced: false },
        Some(leaving) => Retired { grace_seconds: leaving.grace_seconds.min(grace_seconds), ..leaving },
    });
    if row == **old {
        return row.pod;
    }
    let row = draft.put_pod(row);
    if first {
        draft.pod_event(&row, EventKind::Normal, "Deleting", format!("{why}, {grace_seconds}s to stop"));
    }
    if draft.state().is_on_lost_node(&row) && row.pinned_to().is_none() {
        lost::let_go(draft, &row);
    }
    row.pod.clone()
}

/// Refuses to forget what must not run twice and may run now: its node, or its node's end, has to say that it doesn't.
fn nothing_pinned(draft: &Draft<'_>, name: &Name) -> Result<(), ApiError> {
    let namesakes = draft.state().namesakes(name);
    let Some(node) = namesakes.iter().find_map(|row| row.pinned_to()) else { return Ok(()) };
    let message = format!(
        "pod/{name} may still run on node {node}, and with onNodeLoss: wait it is not forgotten before it is known to have stopped"
    );
    let hint = format!(
        "delete it without --force; if that machine is dead, make sure that it is off, then `cube delete node/{node} --force`, and delete the \
         pod that takes its place"
    );
    Err(ApiError::new(ErrorCode::Conflict, message).hint(hint))
}

/// Drops every row of a name without its node's word.
fn forget_all(draft: &mut Draft<'_>, name: &Name) {
    let rows: Vec<_> = draft.state().namesakes(name).into_iter().cloned().collect();
    for row in rows {
        draft.drop_pod(&row.pod.metadata.uid);
        match &row.pod.placement.node {
            None => draft.pod_event(&row, EventKind::Normal, "Deleted", "deleted by the user before it had a node"),
            Some(node) => {
                let message = format!("forgotten by force: its containers may remain on node {node} until that node is heard again");
                draft.pod_event(&row, EventKind::Warning, "Deleted", message);
            }
        }
    }
}

/// Asks the pod's node to start every container anew.
pub(super) fn restart(draft: &mut Draft<'_>, name: &Name) -> Result<Pod, ApiError> {
    let old = draft.state().shown(name).cloned().ok_or_else(|| missing(name))?;
    if old.retired.is_some() {
        let message = format!("pod/{name} is being deleted");
        return Err(ApiError::new(ErrorCode::Conflict, message).hint("wait until it is gone, then apply it again"));
    }
    let Some(node) = &old.pod.placement.node else {
        return Ok(restart_unplaced(draft, &old));
    };
    if old.is_finished() && draft.state().is_on_lost_node(&old) {
        let message = format!("pod/{name} can't start again: its node {node} is lost");
        let hint = format!("`cube delete pod/{name}` and apply it again: it then goes to another node");
        return Err(ApiError::new(ErrorCode::Conflict, message).hint(hint));
    }
    if old.is_finished() && draft.state().nodes.get(node).is_some_and(|node| node.cordon.is_some()) {
        let message = format!("pod/{name} can't start again: its node {node} is cordoned, and nothing begins there");
        let hint = format!("`cube uncordon {node}`; or `cube delete pod/{name}` and apply it again: it then goes to another node");
        return Err(ApiError::new(ErrorCode::Conflict, message).hint(hint));
    }
    let mut row = PodRow::clone(&old);
    row.restarts += 1;
    match row.pod.status.phase {
        // From now on it uses its node again. If that were true only once the node says so, another pod could be given its room meanwhile.
        Phase::Succeeded | Phase::Failed => {
            has_room_again(draft, name, node, &old.pod)?;
            row.pod.status =
                PodStatus { phase: Phase::Pending, reason: None, message: None, finished_at: None, ..std::mem::take(&mut row.pod.status) };
        }
        Phase::Pending | Phase::Running => {}
    }
    let row = draft.put_pod(row);
    draft.pod_event(&row, EventKind::Normal, "Restarting", "a restart of every container was asked for by the user");
    Ok(row.pod.clone())
}

/// One that is finished without a node was given up when its node was lost: it is to be run again, wherever. Of any other nothing runs yet, and
/// nothing has failed: it starts as soon as it has a node.
fn restart_unplaced(draft: &mut Draft<'_>, old: &Arc<PodRow>) -> Pod {
    if !old.is_finished() {
        return old.pod.clone();
    }
    let mut row = PodRow::clone(old);
    row.pod.status = PodStatus::default();
    let row = draft.put_pod(row);
    draft.pod_event(&row, EventKind::Normal, "Restarting", "the user asked to run it again, on any node");
    row.pod.clone()
}

/// A finished pod uses nothing, so others may have what it had: they keep it.
fn has_room_again(draft: &Draft<'_>, name: &Name, node: &Name, pod: &Pod) -> Result<(), ApiError> {
    let allocatable = draft.state().nodes.get(node).map(|node| node.allocatable).unwrap_or_default();
    match draft.state().lacks_for(node, &pod.spec, &allocatable) {
        None => Ok(()),
        Some(what) => {
            let message = format!("pod/{name} can't start again: node {node} lacks {what} for it now");
            let hint = format!("delete other pods there, or `cube delete pod/{name}` and apply it again: it may then go to another node");
            Err(ApiError::new(ErrorCode::Conflict, message).hint(hint))
        }
    }
}

/// Writes the scheduler's decisions, each if it still holds.
pub(super) fn place(draft: &mut Draft<'_>, placings: Vec<Placing>) {
    for placing in placings {
        match placing {
            Placing::Bind { uid, node, reason } => bind(draft, &uid, node, &reason),
            Placing::Wait { uid, reason } => wait(draft, &uid, reason, EventKind::Warning, "FailedScheduling"),
            Placing::Hold { uid, reason } => wait(draft, &uid, reason, EventKind::Normal, "Waiting"),
        }
    }
}

fn unplaced(draft: &Draft<'_>, uid: &Uid) -> Option<PodRow> {
    let row = draft.state().pods.get(uid)?;
    (row.is_unplaced() && row.retired.is_none()).then(|| PodRow::clone(row))
}

fn bind(draft: &mut Draft<'_>, uid: &Uid, node: Name, reason: &str) {
    let Some(mut row) = unplaced(draft, uid) else { return };
    // One that was lost in the meantime has been relieved of its pods already: this one would be forgotten there. Nor may a drain that has come to
    // its end be followed by a pod.
    let is_open = |known: &&Arc<Node>| !known.condition.is_lost() && known.cordon.is_none();
    let Some(known) = draft.state().nodes.get(&node).filter(is_open) else { return };
    // A restart, or a pod that was taken over, may have had the room since the scheduler looked.
    if draft.state().lacks_for(&node, &row.pod.spec, &known.allocatable).is_some() {
        return;
    }
    let message = format!("on node {node}: {reason}");
    row.pod.placement = Placement { node: Some(node), bound_at: Some(draft.now), waiting_for: None, avoids: row.pod.placement.avoids };
    let row = draft.put_pod(row);
    draft.pod_event(&row, EventKind::Normal, "Scheduled", message);
}

fn wait(draft: &mut Draft<'_>, uid: &Uid, reason: String, kind: EventKind, event: &str) {
    let Some(mut row) = unplaced(draft, uid) else { return };
    if row.pod.placement.waiting_for.as_ref() == Some(&reason) {
        return;
    }
    row.pod.placement.waiting_for = Some(reason.clone());
    let row = draft.put_pod(row);
    draft.pod_event(&row, kind, event, reason);
}
