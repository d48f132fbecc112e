//! A pod's order: init containers one after the other, sidecars beside them, hooks at starts and stops, the deadline.

use cube_api::meta::Name;
use cube_api::pod::{Container, DEADLINE_EXCEEDED, Part, PodSpec};
use cube_api::session::AssignedPod;
use jiff::{SignedDuration, Timestamp};

use super::probes::is_started;
use super::sandbox::Sandbox;
use super::{Action, HookRun, Key, Note, Step};
use crate::follower::record::{PodRecord, Slot, Stage};
use crate::follower::runtime::{ContainerId, Observed, RunState};

/// Whether a container may be started: every init container before it has done its part.
pub fn is_turn(pod: &AssignedPod, record: &PodRecord, name: &Name) -> bool {
    let done = usize::try_from(record.initialized).unwrap_or(usize::MAX);
    match pod.spec.part(name) {
        Some(Part::Init { index }) => index == done,
        // It may have to be started again later.
        Some(Part::Sidecar { index }) => index <= done,
        Some(Part::App) | None => done >= pod.spec.init_containers.len(),
    }
}

/// Whether the hook that follows a container's start, if it has one, has succeeded for the process that runs.
pub(super) fn is_post_started(spec: &Container, record: &PodRecord) -> bool {
    let Some(record) = record.containers.get(&spec.name) else { return false };
    match record.slot {
        Slot::Running { since } | Slot::Unhealthy { since, .. } => {
            spec.lifecycle.post_start.is_none() || record.post_started == Some(since)
        }
        Slot::Waiting(_) | Slot::Starting | Slot::Ended(_) => false,
    }
}

/// `init container 'setup'`.
pub(super) fn titled(spec: &PodSpec, name: &Name) -> String {
    let what = match spec.part(name) {
        Some(Part::Init { .. }) => "init container",
        Some(Part::Sidecar { .. }) => "sidecar",
        Some(Part::App) | None => "container",
    };
    format!("{what} '{name}'")
}

// The order of starts.
impl Step<'_> {
    /// Brings the init containers on their way.
    pub(super) fn init_containers(&mut self, sandbox: &Sandbox) {
        let pod = self.pod;
        self.heed_running_apps(sandbox);
        for spec in &pod.spec.init_containers {
            self.container(spec, sandbox);
            if is_turn(pod, &self.record, &spec.name) && self.has_done_its_part(spec) {
                let done = pod.spec.init_containers.iter().take_while(|other| other.name != spec.name).count() + 1;
                self.record.initialized = self.record.initialized.max(u32::try_from(done).unwrap_or(u32::MAX));
            }
        }
    }

    /// After the ledger was lost: what runs beside them says that the init containers were done, also where nothing is left of those.
    fn heed_running_apps(&mut self, sandbox: &Sandbox) {
        let apps = self.pod.spec.containers.iter().filter_map(|spec| {
            let record = self.record.containers.get(&spec.name)?;
            self.view.app(&spec.name, record.attempt)
        });
        let mut here = apps.filter(|seen| seen.sandbox.as_ref().is_none_or(|id| *id == sandbox.id));
        let run = |seen: &Observed| match seen.state {
            RunState::Running { .. } | RunState::Paused { .. } => true,
            RunState::Created | RunState::Exited { .. } | RunState::Removing => false,
        };
        if here.any(run) {
            self.record.initialized = u32::try_from(self.pod.spec.init_containers.len()).unwrap_or(u32::MAX);
        }
    }

    /// Whether the next one may be started: this one has ended with 0, or has come up if it is a sidecar.
    fn has_done_its_part(&self, spec: &Container) -> bool {
        match self.record.containers.get(&spec.name).map(|record| &record.slot) {
            Some(Slot::Ended(end)) => !end.is_failure(),
            Some(Slot::Running { .. }) => spec.is_sidecar() && is_started(spec, &self.record),
            Some(Slot::Waiting(_) | Slot::Starting | Slot::Unhealthy { .. }) | None => false,
        }
    }
}

// The order of stops.
impl Step<'_> {
    /// Those of the running containers whose turn it is to stop: sidecars when nothing else runs, the last one first. When the grace is over, all.
    pub(super) fn next_to_stop(&self, live: &[ContainerId], deadline: Timestamp) -> Vec<ContainerId> {
        if self.now >= deadline {
            return live.to_vec();
        }
        let sidecar = |id: &ContainerId| match self.pod.spec.part(self.view.containers.get(id)?.identity.container.as_ref()?) {
            Some(Part::Sidecar { index }) => Some(index),
            Some(Part::Init { .. } | Part::App) | None => None,
        };
        let others: Vec<_> = live.iter().filter(|id| sidecar(id).is_none()).cloned().collect();
        if !others.is_empty() || self.view.is_making() {
            return others;
        }
        live.iter().max_by_key(|id| sidecar(id)).into_iter().cloned().collect()
    }
}

// Hooks.
impl Step<'_> {
    /// Runs the hook that follows a start; where it failed, begins to end the container. One that was frozen by hand does nothing, and that isn't held
    /// against it.
    pub(super) fn post_start(&mut self, spec: &Container, seen: &Observed, since: Timestamp) {
        let RunState::Running { .. } = seen.state else { return };
        if spec.lifecycle.post_start.is_none() || is_post_started(spec, &self.record) {
            return;
        }
        let Some(failed) = self.view.failed_hooks.get(&seen.id).filter(|failed| failed.since == since) else {
            let hook = self.hook_of(spec, &seen.id);
            return self.act(Action::PostStart { hook, since });
        };
        let grace_seconds = self.pod.spec.termination_grace_period_seconds;
        let why = format!("postStart hook failed: {}", failed.problem);
        self.notes.push(Note::warning("FailedPostStartHook", format!("{}: {why}; it is stopped", titled(&self.pod.spec, &spec.name))));
        self.set_slot(spec, Slot::Unhealthy { since, stop_since: self.now, grace_seconds, why });
        self.bring_down(&seen.id, self.now + SignedDuration::from_secs(grace_seconds.into()));
    }

    /// The hook that comes before a container's stop signal, if there is one that wasn't run.
    pub(super) fn pre_stop(&self, id: &ContainerId) -> Option<Action> {
        let spec = self.spec_of(self.view.containers.get(id)?.identity.container.as_ref()?)?;
        let is_due = spec.lifecycle.pre_stop.is_some() && !self.view.pre_stopped.contains(id);
        is_due.then(|| Action::PreStop(self.hook_of(spec, id)))
    }

    /// Whether a container's hook is what its stop waits for.
    pub(super) fn is_pre_stopping(&self, id: &ContainerId) -> bool {
        self.view.busy.contains(&Key::PreStop(id.clone()))
    }

    fn hook_of(&self, spec: &Container, id: &ContainerId) -> HookRun {
        let address = self.view.reached_at(&self.pod.spec, &self.record);
        HookRun { container: spec.name.clone(), id: id.clone(), address }
    }
}

// The deadline.
impl Step<'_> {
    /// Ends a pod that was active for as long as it may be.
    pub(super) fn heed_deadline(&mut self) {
        let Some(seconds) = self.pod.spec.active_deadline_seconds else { return };
        let (Stage::Live | Stage::Restarting { .. }) = self.record.stage else { return };
        let since = *self.record.active_since.get_or_insert(self.now);
        let deadline = since + SignedDuration::from_secs(seconds.into());
        if self.now < deadline {
            return self.wake_at(deadline);
        }
        self.give_up(DEADLINE_EXCEEDED, &format!("it was active for {seconds}s, its activeDeadlineSeconds"));
    }
}
