//! A pod's volumes in a decision: there before each container that has them, gone before the pod counts as stopped.

use cube_api::pod::{PodSpec, VolumeSource};

use super::{Action, Key, Step};

impl Step<'_> {
    /// Whether a container may be made; sees to the volumes if not. They are looked after anew for each: people remove volumes, and secrets get
    /// other values, which a container has from its creation on.
    pub(super) fn has_volumes(&mut self) -> bool {
        if !needs_volumes(&self.pod.spec) || self.view.prepared.as_ref() == Some(&self.pod.sources) {
            return true;
        }
        // One that is being made has the volumes as they are now, and isn't known of yet.
        let is_making = self.view.busy.iter().any(|key| matches!(key, Key::App(_)));
        if !is_making && self.is_due(self.record.sandbox.due()) {
            let seen = self.view.containers.values().any(|seen| seen.identity.container.is_some());
            let first = !seen && self.record.containers.values().all(|container| container.attempt == 0 && container.starts == 0);
            self.act(Action::PrepareVolumes { first });
        }
        false
    }

    /// Whether no volume of the pod's own is left; sees to it if not. Its containers are gone.
    pub(super) fn has_dropped_volumes(&mut self) -> bool {
        // Of what nobody assigned only the containers are known: it may have had any.
        let may_have = needs_volumes(&self.pod.spec) || self.pod.spec.containers.is_empty();
        if !may_have || self.view.volumes_gone {
            return true;
        }
        self.act(Action::DropVolumes);
        false
    }
}

/// Whether it has volumes that the engine keeps: all but files of the node.
pub fn needs_volumes(spec: &PodSpec) -> bool {
    spec.volumes.iter().any(|volume| match volume.source() {
        Some(VolumeSource::EmptyDir(_) | VolumeSource::Claim(_) | VolumeSource::Files(_)) => true,
        Some(VolumeSource::HostPath(_)) | None => false,
    })
}

/// Whether its sandbox has to hold volumes: those in memory, which would be empty again whenever its last container restarts.
pub fn holds_volumes(spec: &PodSpec) -> bool {
    spec.volumes.iter().any(cube_api::pod::Volume::is_memory)
}
