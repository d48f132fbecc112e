//! Stopping: signal, wait, kill, each from the time in the record, so that a process that was killed in between goes on where it was.

use jiff::{SignedDuration, Timestamp};

use super::containers::ended_as;
use super::{Action, Key, Note, Signalled, Step};
use crate::follower::record::{PodEnd, Slot, Stage, WaitCause};
use crate::follower::runtime::{ContainerId, RunState, StopSignal};

/// A container that runs so long after it was killed is killed again: somebody may have started or frozen it by hand in between.
pub(super) const KILL_AGAIN: SignedDuration = SignedDuration::from_secs(10);

impl Step<'_> {
    pub(super) fn restarting(&mut self, since: Timestamp, new_sandbox: bool) {
        if !self.halted(since, self.pod.spec.termination_grace_period_seconds) {
            return;
        }
        for container in &self.pod.spec.containers {
            let newest = self.view.attempts(&container.name).map(|seen| seen.identity.attempt).max();
            let Some(record) = self.record.containers.get_mut(&container.name) else { continue };
            // What ended before the sandbox changed stays ended.
            if new_sandbox && matches!(record.slot, Slot::Ended(_)) {
                continue;
            }
            let made = match &record.slot {
                Slot::Waiting(_) => newest.is_some_and(|attempt| attempt >= record.attempt),
                Slot::Starting | Slot::Running { .. } | Slot::Unhealthy { .. } => true,
                Slot::Ended(end) => {
                    record.last = Some(end.clone());
                    true
                }
            };
            if made {
                record.next_attempt(WaitCause::Turn);
                record.attempt = record.attempt.max(newest.map_or(0, |attempt| attempt + 1));
            } else {
                record.slot = Slot::Waiting(WaitCause::Turn);
            }
        }
        // One that is on its way out (a given-up pod's is removed) is none to start in: its end would look like a crash.
        let usable = self.view.sandbox(self.record.sandbox.attempt).is_some_and(|seen| !self.view.busy.contains(&Key::Id(seen.id.clone())));
        if new_sandbox || !usable {
            self.record.sandbox.attempt += 1;
            self.record.sandbox.identity = None;
        }
        self.record.stage = Stage::Live;
        self.live();
    }

    pub(super) fn finished(&mut self, since: Timestamp) {
        if self.halted(since, self.pod.spec.termination_grace_period_seconds) {
            let sandboxes: Vec<_> =
                self.view.containers.values().filter(|c| c.identity.container.is_none()).map(|c| c.id.clone()).collect();
            sandboxes.into_iter().for_each(|id| self.act(Action::Remove(id)));
            self.drop_spare();
            self.prune();
        }
    }

    pub(super) fn stopping(&mut self, since: Timestamp, grace_seconds: u32, end: Option<PodEnd>) {
        if !self.halted(since, grace_seconds) {
            return;
        }
        let all: Vec<_> = self.view.containers.keys().cloned().collect();
        self.drop_spare();
        if all.is_empty() && self.record.sandbox.spare.is_none() && self.view.is_settled() {
            self.notes.push(Note::normal("Stopped", "its containers are gone"));
            self.record.stage = Stage::Stopped { end };
        }
        all.into_iter().for_each(|id| self.act(Action::Remove(id)));
    }

    /// A pod that had stopped has containers after all: one that an earlier life of the node asked for, and that the engine made late.
    pub(super) fn stopped(&mut self, end: Option<PodEnd>) {
        if self.view.containers.is_empty() {
            return;
        }
        self.notes.push(Note::warning("Stopping", "the engine made containers of it late: removing them"));
        self.record.stage =
            Stage::Stopping { since: self.now, grace_seconds: self.pod.spec.termination_grace_period_seconds, end: end.clone() };
        self.stopping(self.now, self.pod.spec.termination_grace_period_seconds, end);
    }

    /// Whether no app container runs or is being made; brings those that run on their way out.
    fn halted(&mut self, since: Timestamp, grace_seconds: u32) -> bool {
        self.keep_ends();
        let deadline = since + SignedDuration::from_secs(grace_seconds.into());
        let live: Vec<_> = self.view.live_apps().map(|seen| seen.id.clone()).collect();
        live.iter().for_each(|id| self.bring_down(id, deadline));
        let unclear: Vec<_> = self.view.started.iter().cloned().collect();
        unclear.iter().for_each(|id| self.act(Action::Inspect(id.clone())));
        // After trouble something may run that was not seen: the list comes first.
        live.is_empty() && unclear.is_empty() && !self.view.is_making() && self.view.trouble.is_none()
    }

    /// Signals a container that runs: once to stop, and from the deadline on to be killed.
    pub(super) fn bring_down(&mut self, id: &ContainerId, deadline: Timestamp) {
        let overdue = self.now >= deadline;
        match (overdue, self.view.signalled.get(id)) {
            (false, None) => self.act(Action::Signal(id.clone(), StopSignal::Stop)),
            (false, Some(_)) => {}
            (true, Some(Signalled { signal: StopSignal::Kill, at })) if self.now < *at + KILL_AGAIN => self.wake_at(*at + KILL_AGAIN),
            (true, Some(_) | None) => self.act(Action::Signal(id.clone(), StopSignal::Kill)),
        }
        if !overdue {
            self.wake_at(deadline);
        }
    }

    /// Notes how containers ended while the pod is being stopped: that is no crash.
    fn keep_ends(&mut self) {
        let restarting = matches!(self.record.stage, Stage::Restarting { .. });
        for (name, record) in &mut self.record.containers {
            let begun = match record.slot {
                Slot::Running { .. } | Slot::Unhealthy { .. } => false,
                Slot::Starting => true,
                Slot::Waiting(_) | Slot::Ended(_) => continue,
            };
            let state = self.view.app(name, record.attempt).map(|seen| &seen.state);
            // Nobody saw it run, but it did.
            if let (true, Some(RunState::Exited { started: Some(_), .. })) = (begun, state) {
                record.starts += 1;
            }
            match state {
                Some(RunState::Running { .. } | RunState::Paused { .. } | RunState::Created | RunState::Removing) => {}
                state @ (Some(RunState::Exited { .. }) | None) if restarting => {
                    record.last = Some(ended_as(state, None));
                    record.next_attempt(WaitCause::Turn);
                }
                state @ (Some(RunState::Exited { .. }) | None) => record.slot = Slot::Ended(ended_as(state, None)),
            }
        }
    }
}
