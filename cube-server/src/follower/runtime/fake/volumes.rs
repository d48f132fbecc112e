//! The scripted engine's volumes: whose they are and what was put into them. What processes write isn't known here.

use std::collections::BTreeMap;

use cube_api::meta::{Name, Uid};

use super::Fake;
use super::world::{Moment, World};
use crate::follower::runtime::{Mount, MountFrom, PodVolumes, RuntimeError, Scope, VolumeKind, Volumes};

/// A volume on the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Whose; none: somebody else's.
    pub scope: Option<Scope>,
    /// The pod, of one that is no named volume's.
    pub pod: Option<(Uid, Name)>,
    /// What it was made as.
    pub kind: VolumeKind,
    /// How often one of its name was made.
    pub made: u32,
}

impl Fake {
    /// Every volume, whoever's, by name.
    pub fn stored(&self) -> BTreeMap<String, Stored> {
        self.settled().0.stored.clone()
    }

    /// Puts a volume there that carries no labels of ours.
    pub fn add_foreign_volume(&self, name: &str) {
        let volume = Stored { scope: None, pod: None, kind: VolumeKind::Disk, made: 1 };
        self.settled().0.stored.insert(name.to_owned(), volume);
    }
}

impl World {
    pub(super) fn prepare_volumes(&mut self, wanted: &PodVolumes, at: Moment) -> Result<(), RuntimeError> {
        for (name, kind) in &wanted.volumes {
            let anew = match kind {
                VolumeKind::Disk => wanted.first,
                VolumeKind::Files(_) => true,
                VolumeKind::Memory { .. } | VolumeKind::Kept(_) => false,
            };
            let made = match self.stored.get(name) {
                Some(there) if there.scope.as_ref() != Some(&wanted.scope) => {
                    let problem = format!("a volume named '{name}' exists that is not this node's: remove it");
                    return Err(RuntimeError::Refused { operation: "make a volume", problem });
                }
                Some(there) if anew && !self.is_mounted(name) => there.made + 1,
                Some(_) => continue,
                None => 1,
            };
            let pod = match kind {
                VolumeKind::Disk | VolumeKind::Memory { .. } | VolumeKind::Files(_) => Some((wanted.uid, wanted.pod.clone())),
                VolumeKind::Kept(_) => None,
            };
            let volume = Stored { scope: Some(wanted.scope.clone()), pod, kind: kind.clone(), made };
            self.stored.insert(name.clone(), volume);
            self.changed(at);
        }
        Ok(())
    }

    pub(super) fn volumes(&self, scope: &Scope) -> Volumes {
        let mut volumes = Volumes::default();
        for volume in self.stored.values().filter(|volume| volume.scope.as_ref() == Some(scope)) {
            match (&volume.kind, &volume.pod) {
                (VolumeKind::Kept(kept), _) => volumes.kept.push(kept.clone()),
                (VolumeKind::Disk | VolumeKind::Memory { .. } | VolumeKind::Files(_), pod) => volumes.pods.extend(pod.clone()),
            }
        }
        volumes.kept.sort();
        volumes
    }

    pub(super) fn remove_volumes(&mut self, which: impl Fn(&Stored) -> bool, at: Moment) -> Result<(), RuntimeError> {
        let wanted: Vec<_> = self.stored.iter().filter(|(_, volume)| which(volume)).map(|(name, _)| name.clone()).collect();
        for name in wanted {
            if self.is_mounted(&name) {
                let problem = format!("remove {name}: volume is in use");
                return Err(RuntimeError::Refused { operation: "remove a volume", problem });
            }
            self.stored.remove(&name);
            self.changed(at);
        }
        Ok(())
    }

    /// A container that was made with a volume has it until it is removed. An engine would make one that isn't there, without labels.
    pub(super) fn mount(&mut self, mounts: &[Mount], holds: &[String]) -> Vec<String> {
        let named = mounts.iter().filter_map(|mount| match &mount.from {
            MountFrom::Volume(name) => Some(name),
            MountFrom::Host { .. } => None,
        });
        let names: Vec<_> = named.chain(holds).cloned().collect();
        for name in &names {
            self.stored.entry(name.clone()).or_insert(Stored { scope: None, pod: None, kind: VolumeKind::Disk, made: 1 });
        }
        names
    }

    fn is_mounted(&self, name: &String) -> bool {
        self.containers.values().any(|container| container.volumes.contains(name))
    }
}
