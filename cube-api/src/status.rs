//! The STATUS column: one word for what a person should know first, derived here and nowhere else.

use crate::pod::{ContainerState, Phase, Pod};

/// The word for a pod.
pub fn of_pod(pod: &Pod) -> String {
    if pod.metadata.deletion_requested_at.is_some() {
        return "Terminating".to_owned();
    }
    if pod.placement.node.is_none() {
        return if pod.placement.waiting_for.is_some() { "Unschedulable" } else { "Pending" }.to_owned();
    }
    match pod.status.phase {
        Phase::Succeeded => "Completed".to_owned(),
        Phase::Failed => failed(pod),
        Phase::Pending | Phase::Running => unfinished(pod),
    }
}

fn failed(pod: &Pod) -> String {
    let reason = pod.status.reason.clone();
    reason.unwrap_or_else(|| "Error".to_owned())
}

fn unfinished(pod: &Pod) -> String {
    if pod.status.containers.is_empty() {
        return "Scheduled".to_owned();
    }
    let waiting = pod.status.containers.iter().find_map(|container| match &container.state {
        ContainerState::Waiting(waiting) => Some(waiting.reason.as_str()),
        ContainerState::Running(_) | ContainerState::Terminated(_) => None,
    });
    let ended = pod.status.containers.iter().find_map(|container| match &container.state {
        ContainerState::Terminated(end) if end.exit_code != 0 => Some(end.reason.as_str()),
        ContainerState::Terminated(_) | ContainerState::Running(_) | ContainerState::Waiting(_) => None,
    });
    waiting.or(ended).unwrap_or("Running").to_owned()
}

/// How many containers run, and how many there are: `1/2`.
pub fn running_of(pod: &Pod) -> (usize, usize) {
    let running = pod.status.containers.iter().filter(|container| matches!(container.state, ContainerState::Running(_))).count();
    (running, pod.spec.containers.len())
}
