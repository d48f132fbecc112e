//! What a runtime keeps of files for pods. A pod's own volumes go with it; kept ones are a named volume's data and go only by that name's deletion.

use std::collections::BTreeMap;

use cube_api::meta::{Name, Revision, Uid};
use cube_api::quantity::Bytes;
use cube_api::sources::Hidden;

use super::Scope;

/// A pod's volumes, to be there before a container that has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodVolumes {
    /// Whose.
    pub scope: Scope,
    /// Which pod's.
    pub uid: Uid,
    /// Its name.
    pub pod: Name,
    /// No container of the pod was made yet: what is there of its own is a preparation that broke off, and is made anew.
    pub first: bool,
    /// By the engine's names of them.
    pub volumes: BTreeMap<String, VolumeKind>,
}

/// What a volume is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VolumeKind {
    /// An empty folder on the disk, which everybody in the pod may write to.
    Disk,
    /// The same in memory: it is empty again once no container that has it runs.
    Memory {
        /// The most that fits into it.
        size: Option<Bytes>,
    },
    /// These files, made once: the name of others is another one.
    Files(Vec<FileSpec>),
    /// A named volume's data.
    Kept(KeptVolume),
}

/// A file of a secret or a config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSpec {
    /// Below the volume's folder.
    pub path: String,
    /// Its permissions.
    pub mode: u16,
    /// What is in it.
    pub content: Hidden,
}

/// A life of a named volume. One that is deleted and made again under its name is another, with data of its own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeptVolume {
    /// The name that pods claim.
    pub name: Name,
    /// Which life.
    pub uid: Uid,
}

impl KeptVolume {
    /// The engine's name of it.
    pub fn volume_name(&self) -> String {
        format!("cube_volume_{}_{}", self.name, self.uid)
    }
}

/// The engine's name of a pod's own volume; `revision` is that of the values in it, so that a container never sees them change.
pub fn pod_volume_name(pod: &Name, uid: Uid, volume: &Name, revision: Option<Revision>) -> String {
    let revision = revision.map(|revision| format!("_{revision}")).unwrap_or_default();
    format!("cube_{pod}_{uid}_{volume}{revision}")
}

/// The volumes of a scope.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Volumes {
    /// The pods that have some of their own.
    pub pods: BTreeMap<Uid, Name>,
    /// The named ones.
    pub kept: Vec<KeptVolume>,
}

impl Volumes {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.pods.is_empty() && self.kept.is_empty()
    }
}

/// Where a container has files that aren't its image's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Which files.
    pub from: MountFrom,
    /// Where, in the container.
    pub path: String,
    /// Whether it may not write there.
    pub read_only: bool,
}

/// Whose files they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountFrom {
    /// A volume's, by the engine's name. It has to be there: an engine would make a nameless one of nobody's.
    Volume(String),
    /// The machine's.
    Host {
        /// Where, by the engine's names of files.
        path: String,
        /// Whether a folder is made if nothing is there.
        make: bool,
    },
}
