//! Which nodes a pod's successor avoids: those on which pods of its name failed, so that one that crashes for its node's sake (a full disk, a missing
//! device, a kernel that is too old) isn't given the same node again and again when it is replaced.
//!
//! It is a preference and not a filter: as a rule a pod crashes for its own sake, and would crash anywhere.

use cube_api::meta::Name;
use cube_api::pod::{ContainerState, ContainerStatus, EndReason, Phase, Placement, Pod, WaitReason};
use jiff::{SignedDuration, Timestamp};

use super::PodRow;

/// As long as a follower wants a container to run before its crashes are forgotten.
const RUNS_WELL_AFTER: SignedDuration = SignedDuration::from_mins(2);

/// How a pod did on its node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Did {
    Well,
    /// It isn't known, or nobody's fault: it hasn't begun, or runs only since a moment, or was stopped.
    Nothing,
    /// It failed, or crashes again and again.
    Badly,
}

/// The nodes that a pod avoids which comes after `old`, the newest last.
pub(super) fn after(old: &PodRow, now: Timestamp) -> Vec<Name> {
    let Placement { node, avoids, .. } = &old.pod.placement;
    match (did(old, now), node) {
        (Did::Well, _) => Vec::new(),
        // Failed without a node is the leader's word on one that it gave up.
        (Did::Nothing, _) | (Did::Badly, None) => avoids.clone(),
        (Did::Badly, Some(node)) => {
            let others = avoids.iter().filter(|avoided| *avoided != node);
            let all: Vec<_> = others.chain([node]).cloned().collect();
            let most = Placement::MOST_AVOIDED;
            all[all.len().saturating_sub(most)..].to_vec()
        }
    }
}

fn did(old: &PodRow, now: Timestamp) -> Did {
    let PodRow { pod: Pod { status, .. }, retired, .. } = old;
    // What is being stopped ends badly for that reason.
    if retired.is_some() {
        return Did::Nothing;
    }
    match status.phase {
        Phase::Succeeded => Did::Well,
        Phase::Failed => Did::Badly,
        Phase::Pending | Phase::Running if status.containers.iter().any(|container| crashes(container, now)) => Did::Badly,
        Phase::Running if status.containers.iter().all(|container| runs_well(container, now)) => Did::Well,
        Phase::Pending | Phase::Running => Did::Nothing,
    }
}

/// Whether its newest attempt came after a crash and hasn't run for long, or is still waited for.
fn crashes(container: &ContainerStatus, now: Timestamp) -> bool {
    let crashed_before = container.last_termination.as_ref().is_some_and(|end| is_crash(end.reason));
    match &container.state {
        ContainerState::Waiting(waiting) => crashed_before || waiting.reason == WaitReason::CrashLoopBackOff,
        ContainerState::Running(running) => crashed_before && now.duration_since(running.started_at) < RUNS_WELL_AFTER,
        ContainerState::Terminated(end) => is_crash(end.reason),
    }
}

fn runs_well(container: &ContainerStatus, now: Timestamp) -> bool {
    match &container.state {
        ContainerState::Running(running) => now.duration_since(running.started_at) >= RUNS_WELL_AFTER,
        ContainerState::Terminated(end) => end.reason == EndReason::Completed,
        ContainerState::Waiting(_) => false,
    }
}

/// A container that somebody took away is no crash.
fn is_crash(reason: EndReason) -> bool {
    match reason {
        EndReason::Error | EndReason::OomKilled | EndReason::StartError | EndReason::Unhealthy => true,
        EndReason::Completed | EndReason::Unknown => false,
    }
}
