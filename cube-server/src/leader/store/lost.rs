//! What becomes of the pods of a node that is lost, or that a person declared dead. Whether a node is lost is decided elsewhere.
//!
//! Nobody knows then whether its containers run on. A pod is therefore
//! * **replaced**: a new pod of its name may go to another node at once; the old one is retired and stays, unseen, until its node says that it
//!   stopped. The two may run at the same time until that node is heard again;
//! * **given up**, with restart policy `Never`: the new pod is Failed, because what may have run must not run again by itself;
//! * **waiting**, with `onNodeLoss: wait`: it stays the node's, whoever wants it deleted or changed, until that node is heard again or is declared
//!   dead. That is what keeps such a pod from running on two nodes.
//!
//! A delete that was under way is over for all but those that wait: the name is free. What has finished stays as it is.
//!
//! A node that is back without a pod that must not run twice has lost it in another way: the pod is given up likewise ([`give_up_forgotten`]).

use std::collections::BTreeSet;
use std::sync::Arc;

use cube_api::event::EventKind;
use cube_api::meta::{Metadata, Name, Revision, Uid};
use cube_api::node::NodeCondition;
use cube_api::pod::{ContainerState, DRAINED, NODE_FORGOT, NODE_LOST, OnNodeLoss, Phase, Placement, Pod, PodStatus, RestartPolicy};

use super::draft::Draft;
use super::nodes::change_condition;
use super::{PodRow, Retired, avoid};

/// What the loss of its node means for a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It was on its way out already.
    Leaves,
    /// Its containers have ended for good.
    Stays,
    /// It may run there, and must run nowhere else.
    Waits,
    /// It may have run there, and must not run again by itself.
    IsGivenUp,
    /// Another takes its place.
    IsReplaced,
}

impl Fate {
    fn of(row: &PodRow) -> Self {
        let Pod { spec, .. } = &row.pod;
        match (&row.retired, row.is_finished(), spec.on_node_loss, spec.restart_policy) {
            (_, false, OnNodeLoss::Wait, _) => Self::Waits,
            (Some(_), _, _, _) => Self::Leaves,
            (None, true, _, _) => Self::Stays,
            (None, false, OnNodeLoss::Replace, RestartPolicy::Never) => Self::IsGivenUp,
            (None, false, OnNodeLoss::Replace, RestartPolicy::Always | RestartPolicy::OnFailure) => Self::IsReplaced,
        }
    }
}

/// Why a pod's place is taken by another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// Its node is lost, or declared dead.
    NodeLost,
    /// Its node is there and doesn't know it.
    NodeForgot,
    /// Its node is there and to have no pods: it is stopped there first, with so many seconds of grace.
    Drained { grace_seconds: u32 },
}

/// Marks a node lost, with all that it means for its pods, if it is still as the caller saw it: not so if it has joined since.
pub(super) fn lose(draft: &mut Draft<'_>, node: &Name, as_of: Revision, reason: String) {
    if draft.state().nodes.get(node).is_none_or(|known| known.revision != as_of) {
        return;
    }
    change_condition(draft, node, NodeCondition::Lost { reason });
    for row in bound_to(draft, node) {
        match Fate::of(&row) {
            Fate::Leaves => let_go(draft, &row),
            Fate::Stays => {}
            Fate::Waits => wait(draft, &row, node),
            Fate::IsGivenUp | Fate::IsReplaced => replace(draft, &row, node, Cause::NodeLost),
        }
    }
}

/// A lost node is heard again: what waited for it goes on.
pub(super) fn found(draft: &mut Draft<'_>, node: &Name) {
    for row in bound_to(draft, node) {
        if row.pod.placement.waiting_for.is_some() {
            let mut row = PodRow::clone(&row);
            row.pod.placement.waiting_for = None;
            draft.put_pod(row);
        }
    }
}

/// A person deleted a node, or declared it dead, by `force`: what it had is replaced, also what would have waited for it. Its rows go, because nobody
/// is left to confirm that they stopped; should it ever come back, it stops what is not assigned to it. Without `force` all of it has finished.
pub(super) fn bury(draft: &mut Draft<'_>, node: &Name, force: bool) {
    let (kind, event, how) = match force {
        true => (EventKind::Warning, NODE_LOST, "deleted by force"),
        false => (EventKind::Normal, "NodeDeleted", "deleted"),
    };
    for row in bound_to(draft, node) {
        let old = row.pod.metadata.uid;
        draft.drop_pod(&old);
        if row.retired.is_some() {
            let message = format!("forgotten with node {node}, which was {how}: its containers may remain there");
            draft.pod_event(&row, kind, "Deleted", message);
            continue;
        }
        let message = format!("its node {node} was {how}; its containers may remain there");
        draft.pod_event(&row, kind, event, message);
        let status = match row.is_finished() {
            true => row.pod.status.clone(),
            false => status_after_loss(draft, &row, node, Cause::NodeLost),
        };
        let whose = if force { format!("whose node {node} is lost") } else { format!("whose node {node} was deleted") };
        succeed(draft, &row, &whose, status);
    }
}

/// A node has joined, and holds these pods by its ledger. What may have run there, must not run twice and isn't held is given up: the node would
/// take it for new and start it. So it is with what was deleted after the backup that a leader was `restored` from (which may not know that it
/// began to run), and with a data folder that was brought back.
pub(super) fn give_up_forgotten(draft: &mut Draft<'_>, node: &Name, held: &BTreeSet<Uid>, restored: bool) {
    for row in bound_to(draft, node) {
        let never = match row.pod.spec.restart_policy {
            RestartPolicy::Never => true,
            RestartPolicy::Always | RestartPolicy::OnFailure => false,
        };
        let is_forgotten = never && row.retired.is_none() && !row.is_finished() && !held.contains(&row.pod.metadata.uid);
        if is_forgotten && (restored || has_started(&row.pod.status)) {
            replace(draft, &row, node, Cause::NodeForgot);
        }
    }
}

fn has_started(status: &PodStatus) -> bool {
    status.containers.iter().any(|container| match container.state {
        ContainerState::Waiting(_) => container.last_termination.is_some(),
        ContainerState::Running(_) | ContainerState::Terminated(_) => true,
    })
}

pub(super) fn bound_to(draft: &Draft<'_>, node: &Name) -> Vec<Arc<PodRow>> {
    let state = draft.state();
    let bound = state.load(node).into_iter().flat_map(|load| &load.bound);
    bound.filter_map(|uid| state.pods.get(uid).cloned()).collect()
}

/// The delete of a pod on a lost node is over: its name is free, and its node stops it when it is heard again.
pub(super) fn let_go(draft: &mut Draft<'_>, row: &PodRow) {
    let mut row = row.clone();
    match &mut row.retired {
        Some(retired) if !retired.replaced => retired.replaced = true,
        Some(_) | None => return,
    }
    let row = draft.put_pod(row);
    let message = "its node is lost: its containers may remain there until that node is heard again";
    draft.pod_event(&row, EventKind::Warning, "Deleted", message);
}

fn wait(draft: &mut Draft<'_>, row: &PodRow, node: &Name) {
    let reason = format!("waiting for node {node}, which is lost (onNodeLoss: wait); {}", remedy(node));
    let mut row = row.clone();
    row.pod.placement.waiting_for = Some(reason.clone());
    let row = draft.put_pod(row);
    draft.pod_event(&row, EventKind::Warning, NODE_LOST, reason);
}

/// How a pod that waits for a lost node is freed.
fn remedy(node: &Name) -> String {
    format!("if that machine is dead, make sure that it is off, then: cube delete node/{node} --force")
}

/// Retires a pod and makes the one that takes its place.
pub(super) fn replace(draft: &mut Draft<'_>, old: &Arc<PodRow>, node: &Name, cause: Cause) {
    let mut row = PodRow::clone(old);
    let own_grace = row.pod.spec.termination_grace_period_seconds;
    let (reason, kind, event, message, grace_seconds) = match cause {
        Cause::NodeLost => {
            let message = format!("node {node} is lost; its containers may run on there until that node is heard again");
            (format!("its node {node} was lost"), EventKind::Warning, NODE_LOST, message, own_grace)
        }
        Cause::NodeForgot => {
            let message = format!("node {node} is back and doesn't know it; what may be left of it there is stopped");
            (format!("its node {node} doesn't know it any more"), EventKind::Warning, NODE_FORGOT, message, own_grace)
        }
        Cause::Drained { grace_seconds } => {
            let message = format!("node {node} is drained: it has {grace_seconds}s to stop there, and what takes its place begins then");
            (format!("its node {node} is drained"), EventKind::Normal, "Draining", message, grace_seconds)
        }
    };
    row.retired = Some(Retired { reason, grace_seconds, replaced: true });
    row.pod.metadata.deletion_requested_at.get_or_insert(draft.now);
    let row = draft.put_pod(row);
    draft.pod_event(&row, kind, event, message);
    let status = status_after_loss(draft, old, node, cause);
    let whose = match cause {
        Cause::NodeLost => format!("whose node {node} is lost"),
        Cause::NodeForgot => format!("which node {node} doesn't know any more"),
        Cause::Drained { .. } => format!("whose node {node} is drained"),
    };
    succeed(draft, old, &whose, status);
}

/// What the pod that comes after one that left its node unfinished begins with.
fn status_after_loss(draft: &Draft<'_>, old: &PodRow, node: &Name, cause: Cause) -> PodStatus {
    match old.pod.spec.restart_policy {
        RestartPolicy::Always | RestartPolicy::OnFailure => PodStatus::default(),
        RestartPolicy::Never => {
            let name = &old.pod.metadata.name;
            let (reason, which) = match cause {
                Cause::NodeLost => (NODE_LOST, "was lost"),
                Cause::NodeForgot => (NODE_FORGOT, "doesn't know it any more"),
                Cause::Drained { .. } => (DRAINED, "was drained by force"),
            };
            let message = format!(
                "it may have run on node {node}, which {which}, and with restartPolicy Never it isn't run twice by itself; to run it again: \
                 cube restart pod/{name}"
            );
            let (reason, finished_at) = (Some(reason.to_owned()), Some(draft.now));
            PodStatus { phase: Phase::Failed, reason, message: Some(message), finished_at, ..PodStatus::default() }
        }
    }
}

/// Makes the pod that has the name from now on. The old one must have let go of it.
fn succeed(draft: &mut Draft<'_>, old: &PodRow, whose: &str, status: PodStatus) {
    let before = &old.pod.metadata;
    let generation = before.generation + 1;
    let metadata = Metadata {
        name: before.name.clone(),
        uid: draft.new_uid(),
        labels: before.labels.clone(),
        generation,
        revision: Revision::default(),
        created_at: draft.now,
        deletion_requested_at: None,
        owner: before.owner.clone(),
    };
    let placement = Placement { avoids: avoid::after(old, draft.now), ..Placement::default() };
    let pod = Pod { metadata, spec: old.pod.spec.clone(), placement, status };
    let row = draft.put_pod(PodRow { pod, restarts: 0, retired: None });
    let message = format!("created in the place of {}, {whose}, generation {generation}", before.uid);
    draft.pod_event(&row, EventKind::Normal, "Created", message);
}
