//! Nodes that join, change their condition and are forgotten.

use cube_api::event::EventKind;
use cube_api::meta::{ClusterId, LabelChanges, Name, Revision};
use cube_api::node::{Capacity, Node, NodeCondition};
use cube_api::quantity::{Bytes, MilliCpu};
use cube_api::session::{Announcement, NodeFacts};
use cube_api::{ApiError, ErrorCode};

use super::draft::Draft;
use super::state::{KeptNode, Machine};
use super::{cordon, lost};

pub(super) fn known(draft: &Draft<'_>, name: &Name) -> Result<KeptNode, ApiError> {
    let missing = || ApiError::new(ErrorCode::NotFound, format!("node/{name} not found")).hint("`cube nodes` shows what there is");
    draft.state().kept_node(name).ok_or_else(missing)
}

/// Refuses a node of another cluster: its containers are that cluster's.
pub(super) fn same_cluster(draft: &Draft<'_>, node: &Name, theirs: ClusterId) -> Result<(), ApiError> {
    if theirs == draft.cluster_id {
        return Ok(());
    }
    let message = format!("node '{node}' belongs to cluster {theirs}, this leader's is {}", draft.cluster_id);
    Err(ApiError::new(ErrorCode::Conflict, message)
        .hint("point it to its own leader, or remove its data folder to let it join this cluster"))
}

/// A node dials.
pub(super) fn join(draft: &mut Draft<'_>, announcement: Announcement, session_live: bool) -> Result<(), ApiError> {
    if let Some(theirs) = announcement.cluster_id {
        same_cluster(draft, &announcement.node, theirs)?;
    }
    match draft.state().kept_node(&announcement.node) {
        None => {
            keeps_its_name(draft, &announcement)?;
            welcome_new(draft, announcement);
        }
        Some(known) if known.node.node_id == announcement.node_id => welcome_back(draft, &known, announcement),
        Some(known) => {
            may_take_over(&known, &announcement, session_live)?;
            take_over(draft, &known, &announcement);
            welcome_back(draft, &known, announcement);
        }
    }
    Ok(())
}

/// A data folder keeps its name: what runs on its machine carries the name, and only a node of that name may stop it.
fn keeps_its_name(draft: &Draft<'_>, announcement: &Announcement) -> Result<(), ApiError> {
    let Some(known) = draft.state().nodes.values().find(|node| node.node_id == announcement.node_id) else { return Ok(()) };
    let (name, new) = (&known.name, &announcement.node);
    let message = format!("this data folder is that of node '{name}', it can't be node '{new}' as well");
    let hint = format!(
        "start it with --name {name}; to rename it, run `cube-server reset` there and `cube delete node/{name} --force`, then start it with --name {new}"
    );
    Err(ApiError::new(ErrorCode::Conflict, message).hint(hint))
}

fn welcome_new(draft: &mut Draft<'_>, announcement: Announcement) {
    let message = format!("joined from data folder {} (machine {})", announcement.node_id, announcement.machine_id);
    let name = announcement.node.clone();
    let condition = condition_at_join(&announcement.facts);
    let node = Node {
        name: announcement.node,
        node_id: announcement.node_id,
        role: announcement.role,
        labels: announcement.labels,
        label_changes: LabelChanges::new(),
        capacity: announcement.facts.capacity,
        allocatable: allocatable(&announcement.facts),
        usage: None,
        cordon: None,
        version: announcement.facts.version,
        engine: announcement.facts.engine,
        address: announcement.facts.address,
        created_at: draft.now,
        seen_at: draft.now,
        condition,
        pods: 0,
        reserved_cpu: MilliCpu::default(),
        reserved_memory: Bytes::default(),
        reserved_disk: Bytes::default(),
        revision: Revision::default(),
    };
    draft.put_node(node, Machine { id: announcement.machine_id, trouble: announcement.facts.trouble });
    draft.node_event(&name, EventKind::Normal, "NodeJoined", message);
}

/// A node that is known dials again: what it says now holds.
fn welcome_back(draft: &mut Draft<'_>, known: &KeptNode, announcement: Announcement) {
    let condition = condition_at_join(&announcement.facts);
    let node = Node {
        node_id: announcement.node_id,
        role: announcement.role,
        labels: cordon::labelled(announcement.labels, &known.node.label_changes),
        seen_at: draft.now,
        ..with_facts(&known.node, &announcement.facts)
    };
    let name = node.name.clone();
    draft.put_node(node, Machine { id: announcement.machine_id, trouble: announcement.facts.trouble });
    // The condition changed by the join itself: the caller is here, so it needn't wait for the node loop to notice.
    change_condition(draft, &name, condition);
}

fn condition_at_join(facts: &NodeFacts) -> NodeCondition {
    match &facts.trouble {
        None => NodeCondition::Ready,
        Some(trouble) => NodeCondition::NotReady { reason: trouble.clone() },
    }
}

/// The node with what it newly says of itself.
pub(super) fn with_facts(node: &Node, facts: &NodeFacts) -> Node {
    Node {
        capacity: facts.capacity,
        allocatable: allocatable(facts),
        version: facts.version.clone(),
        engine: facts.engine.clone(),
        address: facts.address,
        ..node.clone()
    }
}

/// What pods may reserve; a node that doesn't say keeps nothing back.
fn allocatable(facts: &NodeFacts) -> Capacity {
    facts.allocatable.unwrap_or(facts.capacity)
}

/// Whether another data folder may have the name: only on the same machine, and only while the known one isn't connected.
fn may_take_over(known: &KeptNode, announcement: &Announcement, session_live: bool) -> Result<(), ApiError> {
    let name = &announcement.node;
    if session_live {
        let message = format!("a node named '{name}' is connected from another data folder (machine {})", known.machine.id);
        let hint = format!("start this one with another --name, or stop that one and `cube delete node/{name}`");
        return Err(ApiError::new(ErrorCode::Conflict, message).hint(hint));
    }
    // An empty identity is no identity: containers often have no machine id.
    if announcement.machine_id.is_empty() || known.machine.id != announcement.machine_id {
        let message = format!("the name '{name}' belongs to a node on another machine ({}), which isn't connected now", known.machine.id);
        let hint = format!("start this one with another --name, or, if that machine is gone for good, `cube delete node/{name}`");
        return Err(ApiError::new(ErrorCode::Conflict, message).hint(hint));
    }
    Ok(())
}

/// A new data folder counts its reports and events from the beginning.
fn take_over(draft: &mut Draft<'_>, known: &KeptNode, announcement: &Announcement) {
    draft.put_events_through(known.node.node_id, None);
    let bound: Vec<_> = draft.state().load(&known.node.name).into_iter().flat_map(|load| load.bound.iter().copied()).collect();
    for uid in bound {
        if let Some(row) = draft.state().pods.get(&uid).cloned() {
            draft.put_reported_pod((*row).clone(), 0);
        }
    }
    let message = format!("taken over by data folder {} on the same machine", announcement.node_id);
    draft.node_event(&known.node.name, EventKind::Warning, "NodeReplaced", message);
}

/// Sets a node's condition.
pub(super) fn set_condition(draft: &mut Draft<'_>, name: &Name, condition: NodeCondition) -> Result<(), ApiError> {
    known(draft, name)?;
    change_condition(draft, name, condition);
    Ok(())
}

/// As [`set_condition`], of a node that is there.
pub(super) fn change_condition(draft: &mut Draft<'_>, name: &Name, condition: NodeCondition) {
    let Some(known) = draft.state().kept_node(name) else { return };
    if known.node.condition == condition {
        return;
    }
    let (kind, reason, message) = match &condition {
        NodeCondition::Ready => (EventKind::Normal, "NodeReady", "connected and ready for pods".to_owned()),
        NodeCondition::NotReady { reason } => (EventKind::Warning, "NodeNotReady", reason.clone()),
        NodeCondition::Lost { reason } => (EventKind::Warning, "NodeLost", reason.clone()),
    };
    let is_found = known.node.condition.is_lost() && !condition.is_lost();
    draft.put_node(Node { condition, ..(*known.node).clone() }, known.machine);
    draft.node_event(name, kind, reason, message);
    if is_found {
        lost::found(draft, name);
    }
}

/// Forgets a node; `force`: though it has pods, which are replaced, and though it is Ready. Whether it has a session is the caller's to look at. What
/// has finished there is no obstacle: its record stays.
pub(super) fn delete(draft: &mut Draft<'_>, name: &Name, force: bool) -> Result<Node, ApiError> {
    let known = known(draft, name)?;
    let unfinished = lost::bound_to(draft, name).iter().filter(|row| row.uses_its_node()).count();
    if !force && known.node.condition.is_ready() {
        let message = format!("node/{name} is Ready: it was connected a moment ago");
        let hint = "stop its cube-server and wait until it is NotReady, or delete it with --force";
        return Err(ApiError::new(ErrorCode::Conflict, message).hint(hint));
    }
    if !force && unfinished > 0 {
        let pods = if unfinished == 1 { "1 pod is".to_owned() } else { format!("{unfinished} pods are") };
        let message = format!("{pods} bound to node/{name}");
        let hint = format!(
            "start the node again and move its pods away with `cube drain {name}`; or, if its machine is dead and off, delete it with --force: \
             its pods are then replaced on other nodes"
        );
        return Err(ApiError::new(ErrorCode::Conflict, message).hint(hint));
    }
    let view = draft.state().node_view(&known.node);
    lost::bury(draft, name, force);
    draft.drop_node(name);
    draft.node_event(name, EventKind::Normal, "NodeDeleted", "deleted by the user");
    Ok(view)
}
