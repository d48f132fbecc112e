//! What people say of a node: that it takes no new pods, that its pods are to go, and its labels.
//!
//! All of it is the node's row, so that it outlives restarts, and a join leaves it as it is. A drain is a wish ([`drain`]) that the drain loop carries
//! out in passes ([`go_on`]): a pod never moves, so each is retired, and one of its name takes its place as after the loss of a node (`lost.rs`), but
//! only when the old one is known to have stopped.

use cube_api::event::EventKind;
use cube_api::manifest::{label_key_problem, label_value_problem};
use cube_api::meta::{LabelChanges, Labels, Name};
use cube_api::node::{Cordon, Drain, LeftPod, Node};
use cube_api::routes::{CordonQuery, DrainQuery};
use cube_api::{ApiError, ErrorCode};

use super::draft::Draft;
use super::lifecycle;
use super::lost::{self, Cause};
use super::nodes::known;
use super::{PodRow, Retired};

/// The most labels that people change of a node: a row is written whole each time its node reports.
const MOST_CHANGES: usize = 64;

/// What the drain loop decided about one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrainPass {
    /// Which.
    pub node: Name,
    /// Its drain, as it was looked at.
    pub drain: Drain,
    /// What is left there, and how far it is. What is said to stop and runs is stopped by that; of what stops already the shorter grace counts.
    pub left: Vec<LeftPod>,
}

/// No new pods.
pub(super) fn cordon(draft: &mut Draft<'_>, name: &Name, query: CordonQuery) -> Result<Node, ApiError> {
    let before = known(draft, name)?.node.cordon.clone();
    let reason = checked(query.reason)?;
    let cordon =
        Cordon { reason: reason.clone().or(before.as_ref().and_then(|before| before.reason.clone())), ..begun(draft, before.clone()) };
    if before.as_ref() != Some(&cordon) {
        let message = format!("takes no new pods{}", because(&reason));
        put(draft, name, Some(cordon));
        draft.node_event(name, EventKind::Normal, "Cordoned", message);
    }
    view(draft, name)
}

/// Pods again.
pub(super) fn uncordon(draft: &mut Draft<'_>, name: &Name) -> Result<Node, ApiError> {
    let Some(before) = known(draft, name)?.node.cordon.clone() else { return view(draft, name) };
    put(draft, name, None);
    let message = match before.draining() {
        None => "takes pods again",
        Some(_) => "takes pods again; its drain is called off: what was stopping already begins anew on whichever node, the rest runs on",
    };
    draft.node_event(name, EventKind::Normal, "Uncordoned", message);
    view(draft, name)
}

/// No new pods, and those that are there are to go.
pub(super) fn drain(draft: &mut Draft<'_>, name: &Name, query: DrainQuery) -> Result<Node, ApiError> {
    let before = known(draft, name)?.node.cordon.clone();
    let DrainQuery { reason, grace_seconds, force } = query;
    let reason = checked(reason)?;
    let cordon = begun(draft, before.clone());
    let goes_on = cordon.draining().cloned();
    let new = Drain { since: draft.now, grace_seconds, force, left: Vec::new(), finished_at: None };
    let drain = match goes_on {
        Some(goes_on) => Drain { grace_seconds, force, ..goes_on },
        None => new,
    };
    let cordon = Cordon { reason: reason.clone().or(cordon.reason), drain: Some(drain), since: cordon.since };
    if before.as_ref() != Some(&cordon) {
        let how = if force { " by force" } else { "" };
        let message = format!("takes no new pods, and those that it has are moved away{how}{}", because(&reason));
        put(draft, name, Some(cordon));
        draft.node_event(name, EventKind::Normal, "Draining", message);
    }
    view(draft, name)
}

/// A pass of the drain loop, as far as it still holds: not if a person has said something else of the node since.
pub(super) fn go_on(draft: &mut Draft<'_>, pass: DrainPass) {
    let DrainPass { node, drain: seen, left } = pass;
    let goes_on = |draft: &Draft<'_>| draft.state().nodes.get(&node)?.cordon.as_ref()?.draining().cloned();
    let Some(drain) = goes_on(draft).filter(|drain| is_same(drain, &seen)) else { return };
    for LeftPod { uid, step, .. } in &left {
        let bound = draft.state().pods.get(uid).filter(|row| row.pod.placement.node.as_ref() == Some(&node));
        let (Some(row), Some(grace_seconds)) = (bound.cloned(), step.grace_seconds()) else { continue };
        match &row.retired {
            Some(retired) if grace_seconds < retired.grace_seconds => hurry(draft, &row, retired, grace_seconds),
            // Its owner has something else in its place.
            None if row.pod.metadata.deletion_requested_at.is_some() => {
                lifecycle::retire(draft, &row, &format!("its node {node} is drained"), Some(grace_seconds));
            }
            None if !row.is_finished() => lost::replace(draft, &row, &node, Cause::Drained { grace_seconds }),
            Some(_) | None => {}
        }
    }
    tell(draft, &drain, &left);
    let bound = lost::bound_to(draft, &node);
    let is_empty = left.is_empty() && !bound.iter().any(|row| row.uses_its_node());
    let after = Drain { left, finished_at: is_empty.then_some(draft.now), ..drain.clone() };
    if after == drain {
        return;
    }
    let Some(cordon) = draft.state().nodes.get(&node).and_then(|known| known.cordon.clone()) else { return };
    put(draft, &node, Some(Cordon { drain: Some(after), ..cordon }));
    if is_empty {
        let finished = match bound.len() {
            0 => String::new(),
            1 => "; 1 finished pod stays there".to_owned(),
            several => format!("; {several} finished pods stay there"),
        };
        let message = format!("no unfinished pod is left{finished}; it takes pods again after: cube uncordon {node}");
        draft.node_event(&node, EventKind::Normal, "Drained", message);
    }
}

/// Whether a person has said nothing else of it in between.
fn is_same(one: &Drain, other: &Drain) -> bool {
    (one.since, one.force, one.grace_seconds) == (other.since, other.force, other.grace_seconds)
}

/// An end that is under way gets a shorter grace.
fn hurry(draft: &mut Draft<'_>, row: &PodRow, retired: &Retired, grace_seconds: u32) {
    draft.put_pod(PodRow { retired: Some(Retired { grace_seconds, ..retired.clone() }), ..row.clone() });
}

/// Says of each pod that stays why, once for each reason.
fn tell(draft: &mut Draft<'_>, before: &Drain, left: &[LeftPod]) {
    for pod in left.iter().filter(|pod| !before.left.contains(pod)) {
        let Some(reason) = pod.step.reason() else { continue };
        if let Some(row) = draft.state().pods.get(&pod.uid).cloned() {
            draft.pod_event(&row, EventKind::Warning, "NotDrained", format!("its node is drained, and it stays: {reason}"));
        }
    }
}

/// The cordon that there is, or a new one.
fn begun(draft: &Draft<'_>, before: Option<Cordon>) -> Cordon {
    before.unwrap_or(Cordon { since: draft.now, reason: None, drain: None })
}

fn because(reason: &Option<String>) -> String {
    reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default()
}

/// A reason is a line that tables and pages show.
fn checked(reason: Option<String>) -> Result<Option<String>, ApiError> {
    let Some(reason) = reason.map(|reason| reason.trim().to_owned()).filter(|reason| !reason.is_empty()) else { return Ok(None) };
    let count = reason.chars().count();
    if count > Cordon::MAX_REASON || reason.chars().any(char::is_control) {
        let message = format!("the reason has {count} characters; at most {} are allowed, on one line", Cordon::MAX_REASON);
        return Err(ApiError::new(ErrorCode::BadRequest, message));
    }
    Ok(Some(reason))
}

fn put(draft: &mut Draft<'_>, name: &Name, cordon: Option<Cordon>) {
    if let Some(known) = draft.state().kept_node(name) {
        draft.put_node(Node { cordon, ..(*known.node).clone() }, known.machine);
    }
}

fn view(draft: &Draft<'_>, name: &Name) -> Result<Node, ApiError> {
    let known = known(draft, name)?;
    Ok(draft.state().node_view(&known.node))
}

/// Changes a node's labels.
pub(super) fn label(draft: &mut Draft<'_>, name: &Name, changes: LabelChanges) -> Result<Node, ApiError> {
    let known = known(draft, name)?;
    let problems = changes.iter().flat_map(|(key, value)| {
        let of_value = value.as_ref().and_then(|value| label_value_problem(value));
        [label_key_problem(key), of_value].into_iter().flatten()
    });
    if let Some(problem) = problems.reduce(|all, problem| format!("{all}; {problem}")) {
        return Err(ApiError::new(ErrorCode::Invalid, format!("node/{name} is not labelled so: {problem}")));
    }
    let before = &known.node;
    let mut label_changes = before.label_changes.clone();
    // To take away what isn't there is no change, and must not keep away what the node will announce.
    let is_change = |key: &String, value: &Option<String>| value.is_some() || before.labels.contains_key(key);
    label_changes.extend(changes.into_iter().filter(|(key, value)| is_change(key, value)));
    if label_changes.len() > MOST_CHANGES {
        let message = format!("{} labels of node/{name} would be changed, at most {MOST_CHANGES} may be", label_changes.len());
        return Err(ApiError::new(ErrorCode::Invalid, message).hint("let the node announce them: cube-server follower --label KEY=VALUE"));
    }
    let labels = labelled(before.labels.clone(), &label_changes);
    if (&labels, &label_changes) != (&before.labels, &before.label_changes) {
        let message = format!("its labels are now {}", sentence(&labels));
        draft.put_node(Node { labels, label_changes, ..(**before).clone() }, known.machine.clone());
        draft.node_event(name, EventKind::Normal, "Relabelled", message);
    }
    view(draft, name)
}

/// What a node announces, with what people changed of it: a person's word counts, whatever the node says when it joins again.
pub(super) fn labelled(mut announced: Labels, changes: &LabelChanges) -> Labels {
    for (key, value) in changes {
        match value {
            Some(value) => drop(announced.insert(key.clone(), value.clone())),
            None => drop(announced.remove(key)),
        }
    }
    announced
}

fn sentence(labels: &Labels) -> String {
    if labels.is_empty() {
        return "none".to_owned();
    }
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}
