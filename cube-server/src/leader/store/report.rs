//! What a node reports, taken so that every part of it may come twice, late, or from a data folder that isn't the node's any more.

use cube_api::event::{Event, EventKind};
use cube_api::meta::{Name, ResourceKind, ResourceRef, Revision, Uid};
use cube_api::node::Node;
use cube_api::pod::{ContainerStatus, PodStatus};
use cube_api::session::{NodeEvent, PodReport, Report, ReportAccepted};
use cube_api::{ApiError, ErrorCode};

use super::draft::Draft;
use super::nodes::{same_cluster, with_facts};
use super::state::{KeptNode, Machine};
use super::{PodRow, volumes};

/// Takes a report. Events come before the statuses: the end of a pod is the last thing that is said of it.
pub(super) fn take(draft: &mut Draft<'_>, node: &Name, report: Report) -> Result<ReportAccepted, ApiError> {
    let known = reporter(draft, node, &report)?;
    let (facts, machine) = (with_facts(&known.node, &report.facts), Machine { trouble: report.facts.trouble, ..known.machine.clone() });
    if facts != *known.node || machine != known.machine {
        draft.put_node(Node { seen_at: draft.now, ..facts }, machine);
    }
    volumes::dropped(draft, node, &report.dropped);
    let events_through = take_events(draft, &known, report.events);
    for pod in report.pods {
        take_pod(draft, node, pod);
    }
    Ok(ReportAccepted { events_through })
}

fn reporter(draft: &Draft<'_>, node: &Name, report: &Report) -> Result<KeptNode, ApiError> {
    same_cluster(draft, node, report.cluster_id)?;
    let Some(known) = draft.state().kept_node(node) else {
        let message = format!("node '{node}' is not known here");
        return Err(ApiError::new(ErrorCode::Conflict, message).hint("it joins again when its next session begins"));
    };
    if known.node.node_id != report.node_id {
        let message = format!("node '{node}' is superseded: data folder {} has its name now", known.node.node_id);
        return Err(ApiError::new(ErrorCode::Conflict, message).hint("start this one with another --name"));
    }
    // What became of its pods was decided without it: a late word of theirs would undo that.
    if known.node.condition.is_lost() {
        let message = format!("node '{node}' was silent for so long that it is lost: its pods may have been replaced");
        return Err(ApiError::new(ErrorCode::Conflict, message).hint("it reports again when its next session begins"));
    }
    Ok(known)
}

/// Each event once, by its sequence.
fn take_events(draft: &mut Draft<'_>, known: &KeptNode, mut events: Vec<NodeEvent>) -> u64 {
    let mut through = draft.state().events_through(&known.node.node_id).unwrap_or(0);
    events.sort_by_key(|event| event.sequence);
    for event in events {
        if event.sequence <= through {
            continue;
        }
        through = event.sequence;
        // A pod whose row is gone may still have its last words; another node's pod is not this one's to speak of.
        if event.uid == Uid::NONE {
            draft.event(of_node(event, &known.node.name));
            continue;
        }
        let foreign = draft.state().pods.get(&event.uid).is_some_and(|row| row.pod.placement.node.as_ref() != Some(&known.node.name));
        if !foreign {
            draft.event(kept(event, &known.node.name));
        }
    }
    if through > 0 {
        draft.put_events_through(known.node.node_id, Some(through));
    }
    through
}

/// What a node says of itself, and of no other one, whatever name it gives.
fn of_node(event: NodeEvent, node: &Name) -> Event {
    let object = ResourceRef { kind: ResourceKind::Node, name: node.clone() };
    Event { object, uid: None, ..kept(event, node) }
}

fn kept(event: NodeEvent, node: &Name) -> Event {
    Event {
        object: ResourceRef { kind: ResourceKind::Pod, name: event.pod },
        uid: Some(event.uid),
        kind: event.kind,
        reason: event.reason,
        message: event.message,
        count: 1,
        first_at: event.at,
        last_at: event.at,
        source: node.to_string(),
        revision: Revision::default(),
    }
}

fn take_pod(draft: &mut Draft<'_>, node: &Name, report: PodReport) {
    let Some(kept) = draft.state().kept_pod(&report.uid) else { return };
    let old = kept.row;
    if old.pod.placement.node.as_ref() != Some(node) || report.sequence <= kept.report_sequence {
        return;
    }
    // The node's word of a life that is over: it would take a pod that starts again for a finished one and give its room to others.
    let is_outdated = old.retired.is_none() && report.restarts.is_some_and(|acted_on| acted_on < old.restarts);
    let status = match is_outdated {
        true => old.pod.status.clone(),
        false => known_since(with_counts_that_never_fall(report.status, &old.pod.status), &old.pod.status, draft.now),
    };
    if let Some(retired) = &old.retired
        && report.stopped
    {
        draft.drop_pod(&report.uid);
        let reason = if retired.replaced { "Stopped" } else { "Deleted" };
        draft.pod_event(&old, EventKind::Normal, reason, format!("{}; its containers are gone", retired.reason));
    } else {
        // Noted though the status may be the same: the report before it, late on a broken connection, would else bring back what it said.
        let mut row = PodRow::clone(&old);
        row.pod.status = status;
        // A leader that was restored from a backup doesn't know of each restart that its node has acted on: the next must be one more.
        row.restarts = row.restarts.max(report.restarts.unwrap_or(0));
        draft.put_reported_pod(row, report.sequence);
    }
}

/// With the time by our own clock since when it is so: what a node says of times is by the node's.
fn known_since(status: PodStatus, before: &PodStatus, now: jiff::Timestamp) -> PodStatus {
    let is_as_before = (status.phase, status.ready_since) == (before.phase, before.ready_since);
    PodStatus { known_since: if is_as_before { before.known_since } else { Some(now) }, ..status }
}

/// A node that lost its data folder counts from what Docker still shows; what was seen already stays seen.
fn with_counts_that_never_fall(mut status: PodStatus, before: &PodStatus) -> PodStatus {
    // It was read with room for four, of which most pods use one: 900 bytes that the leader would keep for each pod.
    status.containers.shrink_to_fit();
    let count_before = |name: &Name| before.container(name).map_or(0, |found| found.restart_count);
    for ContainerStatus { name, restart_count, .. } in status.init_containers.iter_mut().chain(&mut status.containers) {
        *restart_count = (*restart_count).max(count_before(name));
    }
    status
}
