//! What is to be done about a job: which pods begin, which are stopped, and how it ends.
//!
//! The counts of [`Job::status`] are the store's: a pod is counted in the very write that ends it, so that no order of ends, passes and crashes counts
//! one twice or not at all. Here they are only read, together with the pods as of the same revision:
//! * **running**: not ended, not to be stopped. At most `parallelism` of them, and no more than what is missing to `completions`;
//! * **leaving**: to be stopped, and not known to have stopped. Counted already, but each keeps its place: what begins in it would run beside it. Not
//!   so on a lost node, whose word nobody waits for;
//! * **ended**: the newest [`KEPT`] of each outcome stay, for their logs; a job of a thousand pods leaves no thousand dead containers on its nodes.

use std::sync::Arc;

use cube_api::event::EventKind;
use cube_api::job::{JOB_LABEL, Job, JobCondition, JobConditionKind};
use cube_api::meta::Uid;
use cube_api::object::Object;
use cube_api::pod::{Phase, RestartPolicy};
use jiff::{SignedDuration, Timestamp};

use crate::leader::store::{NewPod, OwnerPass, PodRow};

/// So many succeeded pods stay, and so many failed ones: enough to see what they did and how they fail.
pub const KEPT: usize = 10;

/// So many pods begin in one pass. The next follows at once: nobody's write waits long behind one of 10,000.
pub const AT_ONCE: u32 = 256;

/// A pod of a job.
#[derive(Debug, Clone)]
pub struct OwnedPod {
    /// The pod.
    pub row: Arc<PodRow>,
    /// Whether its node is lost.
    pub is_on_lost_node: bool,
}

/// What is to be done about a job, and when it is to be looked at again if nothing happens before.
#[derive(Debug, Default)]
pub struct Decision {
    /// What is to be done now.
    pub pass: Option<OwnerPass>,
    /// When time alone changes something.
    pub due: Option<Timestamp>,
}

/// Looks at a job and its pods, which are in the order in which they were made.
pub fn decide(job: &Job, pods: &[OwnedPod], now: Timestamp) -> Decision {
    // What is deleted goes by itself when its pods are gone.
    if job.metadata.deletion_requested_at.is_some() {
        return Decision::default();
    }
    let sets = Sets::of(pods);
    let mut plan = Plan { job: job.clone(), pass: OwnerPass::of(&Object::Job(Box::new(job.clone()))), now };
    plan.job.status.active = u32::try_from(sets.running.len()).unwrap_or(u32::MAX);
    let due = match job.status.end() {
        Some(end) => plan.after_the_end(end),
        None => plan.before_the_end(&sets),
    };
    for uid in sets.surplus() {
        plan.pass.retire.push((uid, format!("it has ended, and the newest {KEPT} such pods of its job are kept"), Some(0)));
    }
    let Plan { job: after, mut pass, now: _ } = plan;
    let changes = after != *job || !pass.retire.is_empty();
    pass.owner = Object::Job(Box::new(after));
    Decision { pass: changes.then_some(pass), due }
}

/// A job's pods by what they are to it.
#[derive(Default)]
struct Sets<'a> {
    running: Vec<&'a PodRow>,
    leaving: usize,
    succeeded: Vec<Uid>,
    failed: Vec<Uid>,
}

impl<'a> Sets<'a> {
    fn of(pods: &'a [OwnedPod]) -> Self {
        let mut sets = Self::default();
        for OwnedPod { row, is_on_lost_node } in pods {
            match (&row.retired, row.pod.status.phase) {
                (None, Phase::Pending | Phase::Running) => sets.running.push(row),
                (Some(_), Phase::Pending | Phase::Running) => sets.leaving += usize::from(!is_on_lost_node),
                (None, Phase::Succeeded) => sets.succeeded.push(row.pod.metadata.uid),
                (None, Phase::Failed) => sets.failed.push(row.pod.metadata.uid),
                (Some(_), Phase::Succeeded | Phase::Failed) => {}
            }
        }
        sets
    }

    /// Ended pods over the number that stays, the oldest.
    fn surplus(&self) -> Vec<Uid> {
        let over = |ended: &[Uid]| ended[..ended.len().saturating_sub(KEPT)].to_vec();
        [over(&self.succeeded), over(&self.failed)].concat()
    }

    fn restarts(&self) -> u32 {
        let containers = self.running.iter().flat_map(|row| &row.pod.status.containers);
        containers.map(|container| container.restart_count).fold(0, u32::saturating_add)
    }

    /// So many that are to stop, those first that are the least far: without a node, not yet running, then the newest.
    fn least_far(&self, count: usize) -> Vec<Uid> {
        let mut rows = self.running.clone();
        rows.sort_by_key(|row| (row.pod.status.phase, row.pod.placement.node.is_some(), std::cmp::Reverse(row.pod.metadata.uid)));
        rows.iter().take(count).map(|row| row.pod.metadata.uid).collect()
    }
}

/// A decision as it grows.
struct Plan {
    /// As it is to be.
    job: Job,
    pass: OwnerPass,
    now: Timestamp,
}

impl Plan {
    fn after_the_end(&mut self, end: &JobCondition) -> Option<Timestamp> {
        let ttl = self.job.spec.ttl_seconds_after_finished?;
        let due = later(end.last_transition_time, ttl);
        if due > self.now {
            return Some(due);
        }
        self.job.metadata.deletion_requested_at = Some(self.now);
        self.tell(EventKind::Normal, "Expired", format!("deleted: it ended {ttl}s ago (ttlSecondsAfterFinished)"));
        None
    }

    fn before_the_end(&mut self, sets: &Sets<'_>) -> Option<Timestamp> {
        if self.job.spec.suspend {
            self.suspend(sets);
            return None;
        }
        let start = self.start();
        if let Some(end) = self.end(sets, start) {
            self.end_by(sets, end);
            return None;
        }
        let retry = self.keep_going(sets);
        let deadline = self.job.spec.active_deadline_seconds.map(|seconds| later(start, seconds));
        [retry, deadline].into_iter().flatten().min()
    }

    fn suspend(&mut self, sets: &Sets<'_>) {
        let status = &mut self.job.status;
        if !status.is_suspended() {
            status.start_time = None;
            status.conditions.push(JobCondition {
                kind: JobConditionKind::Suspended,
                reason: "JobSuspended".to_owned(),
                message: "no pod begins before `suspend` is taken back".to_owned(),
                last_transition_time: self.now,
            });
            self.tell(EventKind::Normal, "Suspended", "it stands still: no pod begins, and those that run are stopped".to_owned());
        }
        self.stop(sets.running.iter().map(|row| row.pod.metadata.uid).collect(), "its job is suspended");
    }

    /// Since when it runs: from now on, if it didn't.
    fn start(&mut self) -> Timestamp {
        let was_suspended = self.job.status.is_suspended();
        if let Some(start) = self.job.status.start_time.filter(|_| !was_suspended) {
            return start;
        }
        self.job.status.conditions.retain(|condition| condition.kind != JobConditionKind::Suspended);
        self.job.status.start_time = Some(self.now);
        if was_suspended {
            self.tell(EventKind::Normal, "Resumed", "it goes on".to_owned());
        }
        self.now
    }

    /// How the job has ended just now, if it has. What is complete has not failed, however it came there.
    fn end(&self, sets: &Sets<'_>, start: Timestamp) -> Option<JobCondition> {
        let (spec, status) = (&self.job.spec, &self.job.status);
        let (succeeded, completions, limit) = (status.succeeded, spec.completions(), spec.backoff_limit);
        let end = |kind, reason: &str, message: String| {
            Some(JobCondition { kind, reason: reason.to_owned(), message, last_transition_time: self.now })
        };
        if succeeded >= completions {
            return end(JobConditionKind::Complete, "CompletionsReached", format!("{succeeded} of {completions} pods succeeded"));
        }
        let so_far = format!("{succeeded} of {completions} had succeeded");
        if status.failed > limit {
            let failed = if status.failed == 1 { "1 pod has failed".to_owned() } else { format!("{} pods have failed", status.failed) };
            let message = format!("{failed}, more than backoffLimit {limit} allows; {so_far}");
            return end(JobConditionKind::Failed, "BackoffLimitExceeded", message);
        }
        let restarts = match spec.template.spec.restart_policy {
            RestartPolicy::OnFailure => sets.restarts(),
            RestartPolicy::Never | RestartPolicy::Always => 0,
        };
        if restarts > 0 && restarts >= limit {
            let message = format!("{restarts} restarts of its running pods' containers, as many as backoffLimit {limit} allows; {so_far}");
            return end(JobConditionKind::Failed, "BackoffLimitExceeded", message);
        }
        let seconds = spec.active_deadline_seconds.filter(|seconds| later(start, *seconds) <= self.now)?;
        end(JobConditionKind::Failed, "DeadlineExceeded", format!("not complete after activeDeadlineSeconds {seconds}; {so_far}"))
    }

    /// What runs yet is stopped, and has failed by that.
    fn end_by(&mut self, sets: &Sets<'_>, end: JobCondition) {
        let kind = if end.kind == JobConditionKind::Complete { EventKind::Normal } else { EventKind::Warning };
        self.tell(
            kind,
            if end.kind == JobConditionKind::Complete { "Completed" } else { "Failed" },
            format!("{}: {}", end.reason, end.message),
        );
        let reason = format!("its job has ended ({})", end.reason);
        let running: Vec<_> = sets.running.iter().map(|row| row.pod.metadata.uid).collect();
        let status = &mut self.job.status;
        status.failed = status.failed.saturating_add(u32::try_from(running.len()).unwrap_or(u32::MAX));
        status.retry = None;
        status.completion_time = (end.kind == JobConditionKind::Complete).then_some(end.last_transition_time);
        status.conditions.push(end);
        self.stop(running, &reason);
    }

    /// Pods begin or stop, so that as many run as should. Answers when more may begin.
    fn keep_going(&mut self, sets: &Sets<'_>) -> Option<Timestamp> {
        // A failure that lies ahead was before the clock was set back: its wait begins again, and not when it shows the old time.
        if let Some(retry) = self.job.status.retry.as_mut() {
            retry.last = retry.last.min(self.now);
        }
        let (spec, status) = (&self.job.spec, &self.job.status);
        let missing = spec.completions().saturating_sub(status.succeeded);
        let running = u32::try_from(sets.running.len()).unwrap_or(u32::MAX);
        let wanted = spec.parallelism.min(missing);
        if running > wanted {
            self.stop(sets.least_far((running - wanted) as usize), &format!("its job runs {wanted} at a time now"));
            return None;
        }
        let leaving = u32::try_from(sets.leaving).unwrap_or(u32::MAX);
        let places = spec.parallelism.saturating_sub(running.saturating_add(leaving));
        let count = places.min(missing - running).min(AT_ONCE);
        match status.retry.map(|retry| retry.due()) {
            _ if count == 0 => None,
            Some(due) if due > self.now => Some(due),
            Some(_) | None => {
                self.create(count);
                None
            }
        }
    }

    fn create(&mut self, count: u32) {
        let Job { metadata, spec, status } = &mut self.job;
        let mut labels = spec.template.metadata.labels.clone();
        labels.insert(JOB_LABEL.to_owned(), metadata.name.to_string());
        let reason = format!("{} of {} have succeeded, {} failed", status.succeeded, spec.completions(), status.failed);
        let pod = NewPod { stem: metadata.name.to_string(), labels, spec: spec.template.spec.clone(), reason };
        self.pass.create.extend(std::iter::repeat_n(pod, count as usize));
        status.active = status.active.saturating_add(count);
    }

    fn stop(&mut self, pods: Vec<Uid>, reason: &str) {
        let count = u32::try_from(pods.len()).unwrap_or(u32::MAX);
        self.job.status.active = self.job.status.active.saturating_sub(count);
        self.pass.retire.extend(pods.into_iter().map(|uid| (uid, reason.to_owned(), None)));
    }

    fn tell(&mut self, kind: EventKind, reason: &'static str, message: String) {
        self.pass.events.push((kind, reason, message));
    }
}

fn later(moment: Timestamp, seconds: u32) -> Timestamp {
    moment.saturating_add(SignedDuration::from_secs(seconds.into())).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests;
