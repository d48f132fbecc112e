//! What a leader that was restored from a backup doesn't know: where pods run that were placed after the backup was taken.
//!
//! So it places nothing until the nodes have said what they run (`leader/plan/fence.rs` decides how long that is waited for). A node announces its
//! pods when it joins, and the join takes over those that have no node by the backup, in the same commit and before the node's first assignment:
//! else that assignment, which is complete, would stop them. What the backup has on a node that doesn't hold it was deleted since: that assignment
//! starts it anew, unless it must not run twice.

use std::collections::BTreeSet;
use std::sync::Arc;

use cube_api::event::EventKind;
use cube_api::meta::Name;
use cube_api::pod::Placement;
use cube_api::session::HeldPod;
use serde::{Deserialize, Serialize};

use super::draft::Draft;
use super::{PodRow, lost};

/// The most pods that one event names.
const NAMED: usize = 5;

/// Stands from a restore until the nodes were heard. Stored, so that a restart in between doesn't end it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fence {
    /// The nodes of the backup that have not joined since.
    pub awaited: BTreeSet<Name>,
}

/// A node has joined, and holds these pods. `is_known` says whether it does so by a ledger that has been in this cluster: another one knows nothing.
pub(super) fn joined(draft: &mut Draft<'_>, node: &Name, held: Vec<HeldPod>, is_known: bool) {
    let fence = draft.state().fence.clone().filter(|fence| fence.awaited.contains(node));
    if let Some(fence) = &fence {
        let awaited = fence.awaited.iter().filter(|awaited| *awaited != node).cloned().collect();
        draft.put_fence(Some(Arc::new(Fence { awaited })));
    }
    if is_known {
        let uids = held.iter().map(|pod| pod.uid).collect();
        lost::give_up_forgotten(draft, node, &uids, fence.is_some());
    }
    let mut foreign = Vec::new();
    for pod in held {
        match draft.state().pods.get(&pod.uid).cloned() {
            Some(row) if row.pod.placement.node.is_none() && row.retired.is_none() => adopt(draft, node, &row),
            Some(row) if row.pod.placement.node.as_ref() == Some(node) => {}
            Some(_) | None => foreign.push(pod),
        }
    }
    if !foreign.is_empty() {
        draft.node_event(node, EventKind::Warning, "ForeignPods", sentence(&foreign));
    }
}

/// Only a restore makes a pod that runs somewhere unbound: a pod is bound once.
fn adopt(draft: &mut Draft<'_>, node: &Name, row: &PodRow) {
    let mut row = row.clone();
    let avoids = std::mem::take(&mut row.pod.placement.avoids);
    row.pod.placement = Placement { node: Some(node.clone()), bound_at: Some(draft.now), waiting_for: None, avoids };
    let row = draft.put_pod(row);
    let message = format!("node {node} runs it already: it was placed there after the backup that this leader was restored from");
    draft.pod_event(&row, EventKind::Normal, "Adopted", message);
}

fn sentence(foreign: &[HeldPod]) -> String {
    let mut named: Vec<_> = foreign.iter().take(NAMED).map(|pod| format!("pod/{} ({})", pod.name, pod.uid)).collect();
    if foreign.len() > NAMED {
        named.push(format!("{} more", foreign.len() - NAMED));
    }
    let named = named.join(", ");
    format!(
        "stops what it runs and isn't assigned to it: {named}; deleted by force, or made after the backup that this leader was restored from"
    )
}
