//! What a pod's node reports of it: record x view -> the status that people see. Pure.

use cube_api::meta::Name;
use cube_api::pod::{
    Container, ContainerState, ContainerStatus, EndReason, Part, Phase, PodStatus, RestartPolicy, Running, Terminated, WaitReason, Waiting,
};
use cube_api::session::AssignedPod;
use jiff::Timestamp;

use crate::follower::plan::{self, View};
use crate::follower::ports;
use crate::follower::record::{ContainerRecord, PodEnd, PodRecord, Slot, Stage, WaitCause};
use crate::follower::runtime::{CALL_TIMEOUT, PullProgress, RunState};

/// The status of a pod.
pub fn of_pod(pod: &AssignedPod, record: &PodRecord, view: &View, now: Timestamp) -> PodStatus {
    let end = end_of(record);
    let phase = match end {
        Some(end) => end.phase,
        None if record.started_at.is_some() => Phase::Running,
        None => Phase::Pending,
    };
    let status = |spec: &Container| {
        let container = record.containers.get(&spec.name)?;
        Some(of_container(spec, Known { assigned: pod, pod: record, container, view, now }))
    };
    PodStatus {
        phase,
        reason: end.and_then(|end| end.reason.clone()),
        message: end.and_then(|end| end.message.clone()).or_else(|| paused(view)),
        pod_ip: view.sandbox(record.sandbox.attempt).and_then(|sandbox| sandbox.ip),
        host_ports: if record.is_over() { Box::default() } else { ports::of(&pod.spec, record.chosen_ports()).into() },
        started_at: record.started_at,
        ready_since: ready_since(pod, record, view),
        finished_at: finished_at(record),
        known_since: None,
        init_containers: pod.spec.init_containers.iter().filter_map(status).collect(),
        containers: pod.spec.containers.iter().filter_map(status).collect(),
    }
}

fn end_of(record: &PodRecord) -> Option<&PodEnd> {
    match &record.stage {
        Stage::Finished { end, .. } => Some(end),
        Stage::Stopping { end, .. } | Stage::Stopped { end } => end.as_ref(),
        Stage::Live | Stage::Restarting { .. } => None,
    }
}

/// Since the last of its containers is ready, if all are.
fn ready_since(pod: &AssignedPod, record: &PodRecord, view: &View) -> Option<Timestamp> {
    let sidecars = pod.spec.init_containers.iter().filter(|spec| spec.is_sidecar());
    let since = pod.spec.containers.iter().chain(sidecars).map(|spec| plan::ready_since(spec, record, view));
    since.collect::<Option<Vec<_>>>()?.into_iter().max()
}

fn finished_at(record: &PodRecord) -> Option<Timestamp> {
    match &record.stage {
        Stage::Finished { since, .. } => Some(*since),
        Stage::Live | Stage::Restarting { .. } | Stage::Stopping { .. } | Stage::Stopped { .. } => None,
    }
}

/// Nobody but a person pauses a container: it is left so, and said.
fn paused(view: &View) -> Option<String> {
    let paused = view.containers.values().filter(|container| matches!(container.state, RunState::Paused { .. }));
    let mut names: Vec<_> = paused.map(|container| container.identity.container.as_ref()).collect();
    // By name, not by Docker's ids, whose order says nothing: the same sentence for the same pod. The sandbox comes last.
    names.sort_by_key(|name| (name.is_none(), *name));
    let names: Vec<_> = names.into_iter().map(|name| name.map_or("the sandbox", Name::as_str)).collect();
    (!names.is_empty()).then(|| format!("paused by hand: {}; `docker unpause` lets it go on", names.join(", ")))
}

struct Known<'a> {
    assigned: &'a AssignedPod,
    pod: &'a PodRecord,
    container: &'a ContainerRecord,
    view: &'a View,
    now: Timestamp,
}

fn of_container(spec: &Container, known: Known<'_>) -> ContainerStatus {
    let Known { container, view, .. } = known;
    let newest = view.app(&spec.name, container.attempt);
    let before = || view.attempts(&spec.name).max_by_key(|seen| seen.identity.attempt);
    let shown = newest.or_else(before);
    let image_id = shown.map(|seen| seen.image_id.clone()).filter(|id| !id.is_empty());
    let (state, last_termination) = state_of(spec, &known);
    ContainerStatus {
        name: spec.name.clone(),
        image: spec.image.clone(),
        image_id: image_id.or_else(|| view.images.get(&spec.name).cloned()),
        container_id: shown.map(|seen| seen.id.0.clone()),
        started: matches!(state, ContainerState::Running(_)) && plan::is_started(spec, known.pod),
        ready: Some(plan::ready_since(spec, known.pod, view).is_some()),
        probe_failure: plan::failing(&spec.name, known.pod, view).cloned(),
        state,
        last_termination,
        restart_count: container.starts.saturating_sub(1),
    }
}

fn state_of(spec: &Container, known: &Known<'_>) -> (ContainerState, Option<Terminated>) {
    let Known { pod, container, .. } = known;
    let last = container.last.clone();
    match &container.slot {
        Slot::Ended(end) => (ContainerState::Terminated(end.clone()), last),
        Slot::Running { since } | Slot::Unhealthy { since, .. } => (running_or_ended(&spec.name, known, *since), last),
        // A pod that is given up starts nothing any more: what it waited for doesn't matter, how it ended does.
        Slot::Waiting(cause) => match last {
            Some(end) if pod.is_over() => (ContainerState::Terminated(end), None),
            last => (ContainerState::Waiting(waiting(spec, known, cause)), last),
        },
        Slot::Starting => {
            let message = unanswered(&spec.name, known);
            (ContainerState::Waiting(Waiting { reason: WaitReason::ContainerCreating, message, until: None }), last)
        }
    }
}

/// Why a container that is to run once isn't simply started again.
fn unanswered(name: &Name, known: &Known<'_>) -> Option<String> {
    let seen = known.view.app(name, known.container.attempt)?;
    let policy = known.assigned.spec.restart_policy_of(name);
    let waits = policy == RestartPolicy::Never && seen.state == RunState::Created && known.view.unanswered.contains(&seen.id);
    let limit = CALL_TIMEOUT.as_secs();
    waits.then(|| format!("its start was not answered and may still come: waiting up to {limit}s, since its restartPolicy is Never"))
}

/// A process that ended is shown so at once, also while its last lines are being read.
fn running_or_ended(name: &Name, known: &Known<'_>, since: Timestamp) -> ContainerState {
    match known.view.app(name, known.container.attempt).map(|seen| &seen.state) {
        Some(RunState::Exited { code, oom, started, finished, .. }) => {
            let reason = match (oom, code) {
                (true, _) => EndReason::OomKilled,
                (false, 0) => EndReason::Completed,
                (false, _) => EndReason::Error,
            };
            ContainerState::Terminated(Terminated { exit_code: *code, reason, message: None, started_at: *started, finished_at: *finished })
        }
        Some(RunState::Created | RunState::Running { .. } | RunState::Paused { .. } | RunState::Removing) | None => {
            ContainerState::Running(Running { started_at: since })
        }
    }
}

fn waiting(spec: &Container, known: &Known<'_>, cause: &WaitCause) -> Waiting {
    let Known { assigned, pod, container, view, now } = known;
    let creating = |reason, message, until| Waiting { reason, message, until };
    if let Some(progress) = view.pulls.get(&spec.name) {
        return creating(WaitReason::Pulling, Some(pulling(&spec.image, progress)), None);
    }
    if let Some(problem) = &pod.sandbox.problem {
        return creating(WaitReason::CreateContainerError, Some(problem.clone()), pod.sandbox.due());
    }
    let due = container.due().filter(|due| due > now);
    match (cause, due) {
        (WaitCause::Turn, _) if is_initializing(&spec.name, assigned, pod) => creating(WaitReason::PodInitializing, None, None),
        (WaitCause::Turn, _) => creating(WaitReason::ContainerCreating, None, None),
        (WaitCause::Crash, None) => creating(WaitReason::ContainerCreating, Some("starting again".to_owned()), None),
        (WaitCause::Crash, Some(_)) => {
            let times = container.crashes.failures;
            creating(WaitReason::CrashLoopBackOff, Some(format!("crashed {times} times in a row")), due)
        }
        (WaitCause::Image(problem), _) => {
            let again = container.images.failures > 1;
            let reason = if again { WaitReason::ImagePullBackOff } else { WaitReason::ErrImagePull };
            creating(reason, Some(problem.clone()), due)
        }
        (WaitCause::Refused(problem), _) => creating(WaitReason::CreateContainerError, Some(problem.clone()), due),
    }
}

/// Whether it waits for init containers; of one that is not an init container itself, Kubernetes says so until it is started.
fn is_initializing(name: &Name, pod: &AssignedPod, record: &PodRecord) -> bool {
    let is_prepared = pod.spec.part(name) == Some(Part::App) && !pod.spec.init_containers.is_empty();
    is_prepared || !plan::is_turn(pod, record, name)
}

fn pulling(image: &str, progress: &PullProgress) -> String {
    const MB: u64 = 1_000_000;
    if progress.total == 0 {
        return format!("pulling {image}");
    }
    format!("pulling {image}: {} of {} MB", progress.current / MB, progress.total.div_ceil(MB))
}
