//! The sandbox's part of a decision: one network namespace per pod, and the whole pod anew when it changes.

use cube_api::pod::{Part, Phase, RestartPolicy};
use jiff::Timestamp;

use super::volumes::holds_volumes;
use super::{Action, Note, Step};
use crate::follower::record::{PodEnd, SandboxIdentity, Slot, Stage};
use crate::follower::restart;
use crate::follower::runtime::{ContainerId, RunState};

/// The sandbox that app containers may join.
pub(super) struct Sandbox {
    /// Docker's id.
    pub id: ContainerId,
    /// Whether app containers may be started.
    pub up: bool,
}

impl Step<'_> {
    /// Brings the sandbox on its way; none while there is nothing to join.
    pub(super) fn sandbox(&mut self) -> Option<Sandbox> {
        let attempt = self.record.sandbox.attempt;
        let identity = self.record.sandbox.identity.clone();
        let Some(seen) = self.view.sandbox(attempt) else {
            // One can be joined before it is known, and init containers have done their part in that one alone.
            if identity.is_none() && self.record.initialized == 0 {
                return self.make_sandbox();
            }
            self.sandbox_changed("it was removed");
            return None;
        };
        let id = seen.id.clone();
        self.record.adopt_ports(&self.pod.spec, &seen.bindings);
        match (&seen.state, identity) {
            (RunState::Created, None) => {
                let up = self.view.started.contains(&id);
                if up {
                    self.act(Action::Inspect(id.clone()));
                } else if self.is_due(self.record.sandbox.due()) {
                    self.act(Action::StartSandbox(id.clone()));
                }
                Some(Sandbox { id, up })
            }
            (RunState::Running { since } | RunState::Paused { since }, None) => {
                self.record.sandbox.identity = Some(SandboxIdentity { id: id.0.clone(), since: *since });
                self.record.sandbox.problem = None;
                if let Some(ports) = &mut self.record.sandbox.ports {
                    (ports.refused, ports.refusals) = (None, 0);
                }
                Some(Sandbox { id, up: true })
            }
            (RunState::Running { since } | RunState::Paused { since }, Some(known)) if known.id == id.0 && known.since == *since => {
                self.end_sandbox_streak(*since);
                Some(Sandbox { id, up: true })
            }
            (RunState::Running { .. } | RunState::Paused { .. } | RunState::Created, Some(_)) => {
                self.sandbox_changed("it was restarted");
                None
            }
            (RunState::Exited { code, .. }, _) => {
                self.sandbox_changed(&format!("it ended with {code}"));
                None
            }
            (RunState::Removing, _) => {
                self.sandbox_changed("it is being removed");
                None
            }
        }
    }

    /// The sandboxes of earlier attempts hold the host ports: they go first. A spare can be joined before it has the pod's name: it is promised.
    fn make_sandbox(&mut self) -> Option<Sandbox> {
        let attempt = self.record.sandbox.attempt;
        let old: Vec<_> = self.view.containers.values().filter(|c| c.identity.container.is_none()).map(|c| c.id.clone()).collect();
        if !old.is_empty() {
            old.into_iter().for_each(|id| self.act(Action::Remove(id)));
            return None;
        }
        if self.view.spare_refused && self.record.sandbox.spare.is_some() {
            self.drop_spare();
            return None;
        }
        if !self.is_due(self.record.sandbox.due()) {
            return None;
        }
        if holds_volumes(&self.pod.spec) && !self.has_volumes() {
            return None;
        }
        let promised = self.record.sandbox.spare.clone().or_else(|| self.view.spare.clone());
        let Some(spare) = promised else {
            // Before each sandbox: while none was there, somebody else may have taken what the pod had.
            if self.pod.spec.published().any(|(_, port)| port.wants_free_host_port()) && self.view.ports_for != Some(attempt) {
                let after = self.record.sandbox.ports.as_ref().and_then(|ports| ports.refused);
                self.act(Action::ChoosePorts { after });
                return None;
            }
            self.act(Action::CreateSandbox { attempt });
            return None;
        };
        self.record.sandbox.spare = Some(spare.clone());
        self.act(Action::ClaimSandbox { attempt, spare: spare.clone() });
        Some(Sandbox { id: spare, up: false })
    }

    /// A promised spare that doesn't become the pod's sandbox goes: a claim of it that was not answered may still be carried out.
    pub(super) fn drop_spare(&mut self) {
        if let Some(spare) = self.record.sandbox.spare.clone() {
            self.act(Action::DropSpare(spare));
        }
    }

    fn end_sandbox_streak(&mut self, since: Timestamp) {
        let sandbox = &mut self.record.sandbox;
        let ends = [&mut sandbox.streak, &mut sandbox.lost].into_iter().filter_map(|streak| restart::runs(streak, since, self.now)).min();
        ends.into_iter().for_each(|at| self.wake_at(at));
    }

    pub(super) fn sandbox_changed(&mut self, how: &str) {
        // Sidecars may run twice whatever the pod's policy is.
        let once = self.record.containers.iter().filter(|(name, _)| !matches!(self.pod.spec.part(name), Some(Part::Sidecar { .. })));
        let ran = once.into_iter().any(|(_, container)| container.starts > 0 || container.slot == Slot::Starting);
        if ran && self.pod.spec.restart_policy == RestartPolicy::Never {
            let message = format!("its sandbox is lost ({how}), and its restartPolicy is Never");
            self.notes.push(Note::warning("SandboxChanged", message.clone()));
            let end = PodEnd { phase: Phase::Failed, reason: Some("SandboxChanged".to_owned()), message: Some(message) };
            self.record.stage = Stage::Finished { since: self.now, end };
            return;
        }
        self.notes.push(Note::warning("SandboxChanged", format!("its sandbox changed ({how}): all its containers are made anew")));
        // However often, and whatever the limit is: it is the engine that lost it. What the containers do in it has counts of its own.
        restart::after_crash(&mut self.record.sandbox.lost, 0, self.now, self.jitter);
        self.record.stage = Stage::Restarting { since: self.now, new_sandbox: true };
    }

    /// Whether a try is due; if not, sees to waking then.
    pub(super) fn is_due(&mut self, due: Option<Timestamp>) -> bool {
        match due {
            Some(at) if at > self.now => {
                self.wake_at(at);
                false
            }
            Some(_) | None => true,
        }
    }
}
