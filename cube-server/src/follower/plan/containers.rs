//! An app container's part of a decision: image, create, start, adopt, count its ends.

use cube_api::pod::{Container, EndReason, ImagePullPolicy, RestartPolicy, Terminated};
use jiff::{SignedDuration, Timestamp};

use super::halt::KILL_AGAIN;
use super::sandbox::Sandbox;
use super::{Action, Key, Note, PULL_LOOK, Signalled, Step};
use crate::follower::record::{Slot, Stage, Streak, WaitCause};
use crate::follower::restart::{self, Verdict};
use crate::follower::runtime::{ContainerId, Observed, RunState, StopSignal};

/// How many ended attempts of a container are kept for `logs --previous`.
const KEPT_ATTEMPTS: usize = 3;

impl Step<'_> {
    /// One container of a live pod whose sandbox is there.
    pub(super) fn container(&mut self, spec: &Container, sandbox: &Sandbox) {
        let Stage::Live = self.record.stage else { return };
        let Some(record) = self.record.containers.get(&spec.name) else { return };
        let (slot, attempt) = (record.slot.clone(), record.attempt);
        let view = self.view;
        let seen = view.app(&spec.name, attempt);
        // With `Never`, a second start would be a second run if the first is still to come and ends at once. Where containers are started
        // again anyway, starting one that runs by now changes nothing.
        let unanswered = seen.is_some_and(|seen| seen.state == RunState::Created && view.unanswered.contains(&seen.id));
        if unanswered && slot == Slot::Starting && self.pod.spec.restart_policy == RestartPolicy::Never {
            return;
        }
        let astray = seen.filter(|seen| seen.sandbox.as_ref().is_some_and(|id| *id != sandbox.id)).map(|seen| &seen.state);
        match (&slot, astray) {
            (Slot::Starting | Slot::Running { .. } | Slot::Unhealthy { .. }, Some(RunState::Running { .. } | RunState::Paused { .. })) => {
                return self.sandbox_changed("a container is in an earlier one");
            }
            // It may have run since it was seen, or is about to: that comes first.
            (Slot::Starting, Some(RunState::Created)) if view.busy.contains(&Key::App(spec.name.clone())) => return,
            (Slot::Starting, Some(RunState::Created)) if seen.is_some_and(|seen| view.started.contains(&seen.id)) => {}
            (Slot::Starting, Some(RunState::Created)) => return self.replace(spec, WaitCause::Turn),
            (Slot::Waiting(_) | Slot::Starting | Slot::Running { .. } | Slot::Unhealthy { .. } | Slot::Ended(_), _) => {}
        }
        match slot {
            Slot::Waiting(_) => self.waiting(spec, attempt, seen, sandbox),
            Slot::Starting => self.starting(spec, seen, sandbox),
            Slot::Running { since } => self.running(spec, seen, since),
            Slot::Unhealthy { since, stop_since, grace_seconds, .. } => {
                self.unhealthy(spec, seen, since, stop_since + SignedDuration::from_secs(grace_seconds.into()));
            }
            Slot::Ended(_) => self.stays_ended(spec, seen),
        }
    }

    /// What has ended and isn't started again runs all the same, if a person starts it: it is stopped, or what is said of the pod would not be so.
    fn stays_ended(&mut self, spec: &Container, seen: Option<&Observed>) {
        let runs = seen.filter(|seen| matches!(seen.state, RunState::Running { .. } | RunState::Paused { .. }));
        let Some(stray) = runs else { return };
        let grace = SignedDuration::from_secs(self.pod.spec.termination_grace_period_seconds.into());
        match self.view.signalled.get(&stray.id) {
            None if self.view.busy.contains(&Key::Id(stray.id.clone())) => {}
            None => {
                let message = format!("container '{}' had ended and was started by hand: stopping it", spec.name);
                self.notes.push(Note::warning("Stopping", message));
                self.act(Action::Signal(stray.id.clone(), StopSignal::Stop));
            }
            Some(Signalled { signal: StopSignal::Stop, at }) if self.now < *at + grace => self.wake_at(*at + grace),
            Some(Signalled { signal: StopSignal::Kill, at }) if self.now < *at + KILL_AGAIN => self.wake_at(*at + KILL_AGAIN),
            Some(Signalled { .. }) => self.act(Action::Signal(stray.id.clone(), StopSignal::Kill)),
        }
    }

    fn waiting(&mut self, spec: &Container, attempt: u32, seen: Option<&Observed>, sandbox: &Sandbox) {
        let Some(seen) = seen else {
            if self.is_due(self.record.containers[&spec.name].due()) && self.view.images.contains_key(&spec.name) {
                self.act(Action::CreateApp { name: spec.name.clone(), attempt, sandbox: sandbox.id.clone() });
            }
            return;
        };
        let joined = seen.sandbox.as_ref().is_none_or(|id| *id == sandbox.id);
        match seen.state {
            RunState::Created if !joined => self.replace(spec, WaitCause::Turn),
            RunState::Created => {
                if sandbox.up && !self.view.may_run_before(&spec.name, attempt) && self.is_due(self.record.containers[&spec.name].due()) {
                    self.set_slot(spec, Slot::Starting);
                    self.act(Action::StartApp { name: spec.name.clone(), id: seen.id.clone() });
                }
            }
            // Nothing is in the ledger of it, so the ledger was lost: what runs in our sandbox is adopted.
            RunState::Running { since } | RunState::Paused { since } if joined => {
                self.set_slot(spec, Slot::Running { since });
                self.count_start(spec, None);
            }
            RunState::Running { .. } | RunState::Paused { .. } => self.replace(spec, WaitCause::Turn),
            RunState::Exited { .. } => self.ended(spec, Some(seen)),
            RunState::Removing => self.wake_at(self.now + PULL_LOOK),
        }
    }

    fn starting(&mut self, spec: &Container, seen: Option<&Observed>, sandbox: &Sandbox) {
        let Some(seen) = seen else { return self.ended(spec, None) };
        match seen.state {
            // Docker shows that it never ran, and no call is under way that would change that: also `Never` may be started.
            RunState::Created if self.view.started.contains(&seen.id) => self.act(Action::Inspect(seen.id.clone())),
            RunState::Created if sandbox.up && !self.view.may_run_before(&spec.name, seen.identity.attempt) => {
                self.act(Action::StartApp { name: spec.name.clone(), id: seen.id.clone() });
            }
            RunState::Created => {}
            RunState::Running { since } | RunState::Paused { since } => {
                self.set_slot(spec, Slot::Running { since });
                self.count_start(spec, Some(&seen.id));
            }
            RunState::Exited { started, .. } => {
                // The start is counted once, also while the last lines are being read; one that was refused is none.
                if let Some(since) = started {
                    self.set_slot(spec, Slot::Running { since });
                    self.count_start(spec, Some(&seen.id));
                }
                self.ended(spec, Some(seen));
            }
            RunState::Removing => self.ended(spec, None),
        }
    }

    fn running(&mut self, spec: &Container, seen: Option<&Observed>, since: Timestamp) {
        let Some(seen) = seen else { return self.ended(spec, None) };
        match seen.state {
            RunState::Running { since: now_since } | RunState::Paused { since: now_since } => {
                if now_since != since {
                    if let Some(record) = self.record.containers.get_mut(&spec.name) {
                        record.begin_anew();
                    }
                    self.set_slot(spec, Slot::Running { since: now_since });
                    self.count_start(spec, None);
                    self.notes.push(Note::normal("Started", format!("container '{}' was restarted by hand", spec.name)));
                }
                self.end_streak(spec, now_since);
                if let Some(deadline) = self.condemn(spec, now_since) {
                    self.bring_down(&seen.id, deadline);
                }
            }
            RunState::Exited { .. } => self.ended(spec, Some(seen)),
            RunState::Created | RunState::Removing => self.ended(spec, None),
        }
    }

    /// It is being ended for its health, from the time in the record, so that a process that was killed in between goes on where it was.
    fn unhealthy(&mut self, spec: &Container, seen: Option<&Observed>, since: Timestamp, deadline: Timestamp) {
        let Some(seen) = seen else { return self.ended(spec, None) };
        match seen.state {
            RunState::Running { since: now_since } | RunState::Paused { since: now_since } if now_since != since => {
                self.set_slot(spec, Slot::Running { since });
                self.running(spec, Some(seen), since);
            }
            RunState::Running { .. } | RunState::Paused { .. } => self.bring_down(&seen.id, deadline),
            RunState::Exited { .. } => self.ended(spec, Some(seen)),
            RunState::Created | RunState::Removing => self.ended(spec, None),
        }
    }

    fn end_streak(&mut self, spec: &Container, since: Timestamp) {
        let Some(record) = self.record.containers.get_mut(&spec.name) else { return };
        let streaks = [&mut record.crashes, &mut record.images];
        let ends = streaks.into_iter().filter_map(|streak| restart::runs(streak, since, self.now)).min();
        ends.into_iter().for_each(|at| self.wake_at(at));
    }

    /// A container ended, or is gone. What failed has its last lines read first: they belong into the event.
    fn ended(&mut self, spec: &Container, seen: Option<&Observed>) {
        let failed = seen.filter(|seen| matches!(&seen.state, RunState::Exited { code, .. } if *code != 0));
        if let Some(failed) = failed
            && !self.view.lines.contains_key(&failed.id)
        {
            return self.act(Action::ReadLines(failed.id.clone()));
        }
        let lines = failed.and_then(|failed| self.view.lines.get(&failed.id).cloned().flatten());
        let end = ended_as(seen.map(|seen| &seen.state), lines);
        let end = match self.record.containers.get(&spec.name).map(|record| &record.slot) {
            Some(Slot::Unhealthy { why, .. }) => ended_for(why, end),
            Some(Slot::Waiting(_) | Slot::Starting | Slot::Running { .. } | Slot::Ended(_)) | None => end,
        };
        self.note_end(spec, &end);
        // Whatever an unhealthy one exits with, it has failed.
        if restart::restarts(self.pod.spec.restart_policy, end.is_failure()) {
            self.crashed(spec, end);
        } else {
            self.set_slot(spec, Slot::Ended(end));
        }
    }

    fn note_end(&mut self, spec: &Container, end: &Terminated) {
        let name = &spec.name;
        let note = match (end.exit_code, end.reason) {
            (code, EndReason::Unhealthy) => {
                Note::warning("Crashed", format!("container '{name}' was unhealthy and has been stopped (exit code {code})"))
            }
            (0, _) => Note::normal("Completed", format!("container '{name}' exited with 0")),
            (_, EndReason::Unknown) => Note::warning("Crashed", format!("container '{name}' is gone, nobody knows how it ended")),
            (code, reason) => {
                let lines = end.message.as_ref().map(|lines| format!(", last lines: {lines}")).unwrap_or_default();
                Note::warning("Crashed", format!("container '{name}' exited with {code} ({}){lines}", reason.as_str()))
            }
        };
        self.notes.push(note);
    }

    fn crashed(&mut self, spec: &Container, end: Terminated) {
        let (limit, now, jitter) = (self.limit(), self.now, self.jitter);
        let Some(record) = self.record.containers.get_mut(&spec.name) else { return };
        if let (Some(started), Some(finished)) = (end.started_at, end.finished_at)
            && restart::was_clean(&record.crashes, started, finished, now)
        {
            record.crashes = Streak::default();
        }
        let verdict = restart::after_crash(&mut record.crashes, limit, now, jitter);
        let (times, attempt) = (record.crashes.failures, record.attempt + 1);
        match verdict {
            Verdict::Again(wait) => {
                record.last = Some(end);
                record.next_attempt(WaitCause::Crash);
                if !wait.is_zero() {
                    let message = format!("container '{}': restart {attempt} in {} (crash {times} in a row)", spec.name, seconds(wait));
                    self.notes.push(Note::warning("BackOff", message));
                    self.wake_at(now + wait);
                }
            }
            Verdict::GiveUp => {
                let what = format!(
                    "container '{}' crashed {times} times in a row, last exit code {} ({})",
                    spec.name,
                    end.exit_code,
                    end.reason.as_str()
                );
                record.slot = Slot::Ended(end);
                self.give_up("CrashLimit", &what);
            }
        }
    }

    /// Sees to the image of a container that is to be created: found or pulled once for every attempt, since people remove images.
    pub(super) fn image(&mut self, spec: &Container) {
        let Some(record) = self.record.containers.get(&spec.name) else { return };
        let Slot::Waiting(_) = record.slot else { return };
        let name = spec.name.clone();
        if self.view.images.contains_key(&name) || self.view.app(&name, record.attempt).is_some() {
            return;
        }
        if self.view.pulls.contains_key(&name) {
            self.wake_at(self.now + PULL_LOOK);
        }
        if !self.is_due(self.record.containers[&name].due()) || self.view.busy.contains(&Key::Image(name.clone())) {
            return;
        }
        let pull = match spec.image_pull_policy {
            ImagePullPolicy::Always => true,
            ImagePullPolicy::IfNotPresent => self.view.absent.contains(&name),
            ImagePullPolicy::Never => false,
        };
        if pull {
            self.act(Action::Pull(name));
        } else {
            self.act(Action::FindImage(name));
        }
    }

    /// Removes what is no attempt any more: all but the last three ended ones, and whatever should not run.
    pub(super) fn prune(&mut self) {
        let mut surplus = Vec::new();
        for (name, record) in &self.record.containers {
            let mut old: Vec<_> = self.view.attempts(name).filter(|seen| seen.identity.attempt < record.attempt).collect();
            old.sort_by_key(|seen| std::cmp::Reverse(seen.identity.attempt));
            let mut kept = 0;
            for seen in old {
                let ended = matches!(seen.state, RunState::Exited { .. });
                kept += usize::from(ended);
                if !ended || kept > KEPT_ATTEMPTS {
                    surplus.push(seen.id.clone());
                }
            }
        }
        let strangers = self.view.containers.values().filter(|seen| match &seen.identity.container {
            Some(name) => self.spec_of(name).is_none(),
            None => seen.identity.attempt != self.record.sandbox.attempt,
        });
        surplus.extend(strangers.map(|seen| seen.id.clone()));
        surplus.into_iter().for_each(|id| self.act(Action::Remove(id)));
    }

    fn replace(&mut self, spec: &Container, cause: WaitCause) {
        if let Some(record) = self.record.containers.get_mut(&spec.name) {
            record.next_attempt(cause);
        }
    }

    pub(super) fn set_slot(&mut self, spec: &Container, slot: Slot) {
        if let Some(record) = self.record.containers.get_mut(&spec.name) {
            record.slot = slot;
        }
    }

    /// Counts a start; with an event where this node made it.
    fn count_start(&mut self, spec: &Container, made: Option<&ContainerId>) {
        if let Some(record) = self.record.containers.get_mut(&spec.name) {
            record.starts += 1;
        }
        if made.is_some() {
            self.notes.push(Note::normal("Started", format!("started container '{}'", spec.name)));
        }
    }
}

/// How a container ended that was stopped for its health.
fn ended_for(why: &str, end: Terminated) -> Terminated {
    let lines = end.message.as_ref().map(|lines| format!("; last lines: {lines}")).unwrap_or_default();
    Terminated { reason: EndReason::Unhealthy, message: Some(format!("{why}{lines}")), ..end }
}

/// How a container ended; `None` is one that vanished. Its exit code then is 137, as if it had been killed: 0 would be a success.
pub(super) fn ended_as(state: Option<&RunState>, lines: Option<String>) -> Terminated {
    match state {
        Some(RunState::Exited { code, oom, error, started, finished }) => {
            let reason = match (oom, code, started) {
                (true, _, _) => EndReason::OomKilled,
                (false, _, None) => EndReason::StartError,
                (false, 0, Some(_)) => EndReason::Completed,
                (false, _, Some(_)) => EndReason::Error,
            };
            let message = lines.or_else(|| error.clone().filter(|words| !words.is_empty()));
            Terminated { exit_code: *code, reason, message, started_at: *started, finished_at: *finished }
        }
        Some(RunState::Created | RunState::Running { .. } | RunState::Paused { .. } | RunState::Removing) | None => {
            Terminated { exit_code: 137, reason: EndReason::Unknown, message: lines, started_at: None, finished_at: None }
        }
    }
}

/// `8s`, or `0.9s` below ten seconds where it isn't whole.
pub(super) fn seconds(wait: std::time::Duration) -> String {
    if wait.as_secs() >= 10 { format!("{:.0}s", wait.as_secs_f64()) } else { format!("{:.1}s", wait.as_secs_f64()) }
}
