//! How far a rollout is: progress, its end, its deadline, and what is said of it.

use cube_api::deployment::{
    ConditionKind, Deployment, DeploymentCondition, DeploymentSpec, Marks, Rollout, RolloutState, StrategyKind, Verdict, newest_good,
};
use cube_api::event::EventKind;
use jiff::{SignedDuration, Timestamp};

use super::Seen;
use super::roll::Bounds;
use super::sets::{Member, Sets};
use super::why::{pods, why_not_available};

type Events = Vec<(EventKind, &'static str, String)>;

/// What a judgement came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Judged {
    /// The revision that all pods are to have is the same.
    Stands,
    /// The revision that is wanted failed: it is another one.
    RolledBack,
}

/// Moves the rollout on by what the sets are. Marks a revision that is through as good, and one that got nowhere as failed.
pub(super) fn judge(seen: &Seen<'_>, deployment: &mut Deployment, sets: &Sets<'_>, events: &mut Events) -> Judged {
    let Some(target) = deployment.target().map(|target| target.number) else { return Judged::Stands };
    let known = deployment.status.rollout.take().filter(|rollout| rollout.revision == target).map(|rollout| rollout.state);
    let is_complete = is_complete(&deployment.spec, sets);
    let state = match known {
        Some(RolloutState::Complete { at }) => RolloutState::Complete { at },
        Some(state @ RolloutState::Paused { .. }) if deployment.spec.paused => state,
        Some(RolloutState::Progressing { .. } | RolloutState::Stalled { .. } | RolloutState::Paused { .. }) | None
            if deployment.spec.paused =>
        {
            RolloutState::Paused { since: seen.now }
        }
        Some(RolloutState::Progressing { .. } | RolloutState::Stalled { .. }) if is_complete => complete(deployment, target, seen, events),
        Some(RolloutState::Stalled { at, reason }) => RolloutState::Stalled { at, reason },
        Some(RolloutState::Progressing { since, progressed_at, best }) => {
            let reached = best.best(marks(sets));
            let progressed_at = if reached == best { progressed_at } else { seen.now };
            match stalled(seen, &deployment.spec, progressed_at, sets) {
                None => RolloutState::Progressing { since, progressed_at, best: reached },
                Some(reason) if roll_back(deployment, seen.now, &reason, events) => return Judged::RolledBack,
                Some(reason) => {
                    let message = format!("revision {target} {reason}; no revision before it was rolled out to its end, so it is tried on");
                    events.push((EventKind::Warning, "ProgressDeadlineExceeded", message));
                    RolloutState::Stalled { at: seen.now, reason }
                }
            }
        }
        Some(RolloutState::Paused { .. }) | None => {
            begin(seen, deployment, sets, events);
            return Judged::Stands;
        }
    };
    deployment.status.rollout = Some(Rollout { revision: target, state });
    Judged::Stands
}

/// Begins the rollout of the revision that is the target now; or finds it done.
pub(super) fn begin(seen: &Seen<'_>, deployment: &mut Deployment, sets: &Sets<'_>, events: &mut Events) {
    let Some(target) = deployment.target().map(|target| (target.number, DeploymentSpec::stops_first(&target.template.spec))) else {
        return;
    };
    let (revision, stops_first) = target;
    let state = if is_complete(&deployment.spec, sets) {
        complete(deployment, revision, seen, events)
    } else {
        let has_old = sets.old.iter().any(|member| !member.is_misplaced);
        if let (Some(why), StrategyKind::RollingUpdate, true) = (stops_first, deployment.spec.strategy.kind, has_old) {
            let message = format!("each pod is stopped before its successor begins (maxSurge counts as 0): {why}");
            events.push((EventKind::Normal, "StopFirst", message));
        }
        RolloutState::Progressing { since: seen.now, progressed_at: seen.now, best: marks(sets) }
    };
    deployment.status.rollout = Some(Rollout { revision, state });
}

/// Whether all pods are of the revision and available. Those on their way out are none of it any more.
fn is_complete(spec: &DeploymentSpec, sets: &Sets<'_>) -> bool {
    let desired = spec.replicas() as usize;
    let all_new = sets.old.iter().all(|member| member.is_misplaced);
    all_new && sets.current.len() == desired && sets.current.iter().all(|member| member.is_available)
}

fn complete(deployment: &mut Deployment, target: u64, seen: &Seen<'_>, events: &mut Events) -> RolloutState {
    if let Some(revision) = deployment.history.iter_mut().find(|revision| revision.number == target) {
        revision.verdict = Verdict::Good { at: seen.now };
    }
    let message = format!("revision {target} is rolled out: {} available", pods(deployment.spec.replicas() as usize));
    events.push((EventKind::Normal, "RolledOut", message));
    RolloutState::Complete { at: seen.now }
}

fn marks(sets: &Sets<'_>) -> Marks {
    let count = |is: fn(&Member<'_>) -> bool| to_u32(sets.current.iter().filter(|member| is(member)).count());
    let old = sets.old.iter().filter(|member| !member.is_misplaced).count();
    Marks { ready: count(|member| member.is_ready), available: count(|member| member.is_available), old: to_u32(old) }
}

/// Why a rollout counts as stuck, if it does.
fn stalled(seen: &Seen<'_>, spec: &DeploymentSpec, progressed_at: Timestamp, sets: &Sets<'_>) -> Option<String> {
    if seen.now < deadline_after(seen, spec, progressed_at) {
        return None;
    }
    let cause = why_not_available(&sets.current);
    let cause = if cause.is_empty() { format!("{} of {} there", sets.current.len(), pods(spec.replicas() as usize)) } else { cause };
    Some(format!("made no progress in {}s: {cause}", spec.progress_deadline_seconds))
}

fn deadline_after(seen: &Seen<'_>, spec: &DeploymentSpec, progressed_at: Timestamp) -> Timestamp {
    let time = SignedDuration::from_secs(spec.progress_deadline_seconds.into());
    // What lies ahead was before the clock was set back.
    let progressed_at = if progressed_at > seen.now { seen.watched_since } else { progressed_at.max(seen.watched_since) };
    progressed_at.saturating_add(time).unwrap_or(Timestamp::MAX)
}

/// When a rollout that goes on counts as stuck.
pub(super) fn deadline(seen: &Seen<'_>, deployment: &Deployment) -> Option<Timestamp> {
    match &deployment.status.rollout.as_ref()?.state {
        RolloutState::Progressing { progressed_at, .. } => Some(deadline_after(seen, &deployment.spec, *progressed_at)),
        RolloutState::Paused { .. } | RolloutState::Complete { .. } | RolloutState::Stalled { .. } => None,
    }
}

/// Gives the wanted revision up for the newest good one before it; whether there is one. What was gone back to is never given up itself: that would
/// be a walk through the history with everything down.
fn roll_back(deployment: &mut Deployment, now: Timestamp, reason: &str, events: &mut Events) -> bool {
    let Some((wanted, before)) = deployment.history.split_last_mut() else { return false };
    let Some(good) = newest_good(before).map(|good| good.number).filter(|_| wanted.verdict.failure().is_none()) else { return false };
    wanted.verdict = Verdict::Failed { at: now, reason: reason.to_owned() };
    let message = format!("rolled back to revision {good}: revision {} {reason}", wanted.number);
    events.push((EventKind::Warning, "RolledBack", message));
    true
}

/// Notes how many pods there are, and what that means in Kubernetes' words.
pub(super) fn tell_counts(deployment: &mut Deployment, sets: &Sets<'_>, now: Timestamp) {
    let count = |is: fn(&Member<'_>) -> bool| to_u32(sets.live().filter(|member| is(member)).count());
    let target = deployment.target().map(|target| target.number);
    let conditions = conditions(deployment, sets, now);
    let status = &mut deployment.status;
    status.observed_generation = deployment.metadata.generation;
    status.replicas = to_u32(sets.live().count());
    status.updated_replicas = to_u32(sets.live().filter(|member| Some(member.revision) == target).count());
    status.ready_replicas = count(|member| member.is_ready);
    status.available_replicas = count(|member| member.is_available);
    status.conditions = conditions;
}

fn conditions(deployment: &Deployment, sets: &Sets<'_>, now: Timestamp) -> Vec<DeploymentCondition> {
    let Some((target, rollout)) = deployment.target().zip(deployment.status.rollout.as_ref()) else { return Vec::new() };
    let all: Vec<_> = sets.live().copied().collect();
    let available = all.iter().filter(|member| member.is_available).count();
    let least = Bounds::of(&deployment.spec, target).available;
    let counted = format!("{available} of {} available", pods(deployment.spec.replicas() as usize));
    let enough = match available >= least {
        true => (true, "MinimumReplicasAvailable", counted),
        false => (false, "MinimumReplicasUnavailable", joined(counted, why_not_available(&all))),
    };
    let revision = rollout.revision;
    let failed = deployment.wanted().and_then(|wanted| Some((wanted.number, wanted.verdict.failure()?)));
    let progress = match (&rollout.state, failed) {
        (RolloutState::Stalled { reason, .. }, _) => (false, "ProgressDeadlineExceeded", format!("revision {revision} {reason}")),
        (RolloutState::Progressing { .. } | RolloutState::Complete { .. } | RolloutState::Paused { .. }, Some((number, reason))) => {
            (false, "RolledBack", format!("rolled back to revision {revision}: revision {number} {reason}"))
        }
        (RolloutState::Progressing { .. }, None) => (true, "Progressing", format!("revision {revision} is rolled out")),
        (RolloutState::Complete { .. }, None) => (true, "Complete", format!("revision {revision} has been rolled out")),
        (RolloutState::Paused { .. }, None) => (false, "Paused", format!("the rollout of revision {revision} is held")),
    };
    vec![condition(deployment, ConditionKind::Available, enough, now), condition(deployment, ConditionKind::Progressing, progress, now)]
}

fn joined(counted: String, why: String) -> String {
    if why.is_empty() { counted } else { format!("{counted}: {why}") }
}

fn condition(
    deployment: &Deployment,
    kind: ConditionKind,
    (status, reason, message): (bool, &str, String),
    now: Timestamp,
) -> DeploymentCondition {
    let before = deployment.status.conditions.iter().find(|condition| condition.kind == kind);
    let last_transition_time = before.filter(|before| before.status == status).map_or(now, |before| before.last_transition_time);
    DeploymentCondition { kind, status, reason: reason.to_owned(), message, last_transition_time }
}

/// Forgets revisions over the limit, the oldest first; never one that is wanted, that pods have, or that could be gone back to.
pub(super) fn trim(deployment: &mut Deployment, sets: &Sets<'_>) {
    let Some(wanted) = deployment.wanted().map(|wanted| wanted.number) else { return };
    let good = newest_good(&deployment.history).map(|good| good.number);
    let target = deployment.target().map(|target| target.number);
    let in_use = |number: u64| {
        number == wanted || Some(number) == good || Some(number) == target || sets.live().any(|member| member.revision == number)
    };
    let limit = deployment.spec.revision_history_limit as usize;
    let mut surplus = deployment.history.len().saturating_sub(limit + 1);
    deployment.history.retain(|revision| {
        let goes = surplus > 0 && !in_use(revision.number);
        surplus -= usize::from(goes);
        !goes
    });
}

fn to_u32(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
