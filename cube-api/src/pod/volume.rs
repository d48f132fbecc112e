//! What a manifest may say of a pod's files: volumes, where its containers have them, and what secrets and configs it names.
//!
//! Words and defaults are Kubernetes'; `config` is its ConfigMap.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::env::KeyRef;
use super::{Container, EnvVar, OnNodeLoss, PodSpec};
use crate::meta::Name;
use crate::quantity::Bytes;

/// Files that containers of a pod share. One source, as the manifest's check sees to: [`Volume::source`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Volume {
    /// Unique in the pod.
    pub name: Name,
    /// An empty folder that lives as long as the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub empty_dir: Option<EmptyDir>,
    /// A file or folder of the node itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_path: Option<HostPath>,
    /// A named volume, which outlives the pod and ties it to the node where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistent_volume_claim: Option<Claim>,
    /// The keys of a secret as files, read-only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<SecretFiles>,
    /// The keys of a config as files, read-only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<ConfigFiles>,
}

/// Where a volume's files come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VolumeSource<'a> {
    /// Nowhere: it begins empty.
    EmptyDir(&'a EmptyDir),
    /// The node.
    HostPath(&'a HostPath),
    /// A named volume.
    Claim(&'a Claim),
    /// A secret or a config.
    Files(Files<'a>),
}

impl Volume {
    /// Its source, the first where a peer sent several; none where it sent none.
    pub fn source(&self) -> Option<VolumeSource<'_>> {
        self.sources().next()
    }

    /// All that are given.
    pub(crate) fn sources(&self) -> impl Iterator<Item = VolumeSource<'_>> {
        let Self { name: _, empty_dir, host_path, persistent_volume_claim, secret, config } = self;
        let files = [secret.as_ref().map(SecretFiles::files), config.as_ref().map(ConfigFiles::files)];
        let others = [
            empty_dir.as_ref().map(VolumeSource::EmptyDir),
            host_path.as_ref().map(VolumeSource::HostPath),
            persistent_volume_claim.as_ref().map(VolumeSource::Claim),
        ];
        others.into_iter().flatten().chain(files.into_iter().flatten().map(VolumeSource::Files))
    }

    /// Whether its files are gone with the pod's sandbox: those that are in memory.
    pub fn is_memory(&self) -> bool {
        self.empty_dir.as_ref().is_some_and(|empty| empty.medium == Medium::Memory)
    }
}

/// An empty folder.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EmptyDir {
    /// What holds it.
    #[serde(default, skip_serializing_if = "Medium::is_disk")]
    pub medium: Medium,
    /// The most that fits into it. Only memory can be limited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_limit: Option<Bytes>,
}

/// What holds an empty folder.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Medium {
    /// The node's disk, where containers write.
    #[default]
    #[serde(rename = "")]
    Disk,
    /// The node's memory. What is written counts as the memory of the container that wrote it.
    Memory,
}

impl Medium {
    fn is_disk(&self) -> bool {
        *self == Self::Disk
    }
}

/// A file or folder of the node, which the node's server has to allow (`--allow-host-path`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostPath {
    /// Absolute, without `.`, `..` and repeated slashes.
    pub path: String,
    /// What has to be there.
    #[serde(default, rename = "type", skip_serializing_if = "HostPathType::is_anything")]
    pub kind: HostPathType,
}

impl HostPath {
    /// Whether it is one of these folders, or below one.
    pub fn is_below(&self, folders: &[String]) -> bool {
        folders.iter().any(|folder| Path::new(&self.path).starts_with(folder))
    }
}

/// What has to be at a [`HostPath`] before a container starts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum HostPathType {
    /// Anything, but something.
    #[default]
    #[serde(rename = "")]
    Anything,
    /// A folder.
    Directory,
    /// A folder, which is made if nothing is there.
    DirectoryOrCreate,
    /// A file.
    File,
    /// A Unix socket.
    Socket,
}

impl HostPathType {
    fn is_anything(&self) -> bool {
        *self == Self::Anything
    }
}

/// Which named volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Claim {
    /// Its name.
    pub claim_name: Name,
}

/// A secret's keys as files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretFiles {
    /// Which.
    pub secret_name: Name,
    /// Only these keys, each where it says; every key as a file of its name when absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub items: Vec<KeyToPath>,
    /// The files' permissions; 0644 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_mode: Option<FileMode>,
    /// Whether the pod goes on without it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub optional: bool,
}

/// A config's keys as files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfigFiles {
    /// Which.
    pub name: Name,
    /// Only these keys, each where it says; every key as a file of its name when absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub items: Vec<KeyToPath>,
    /// The files' permissions; 0644 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_mode: Option<FileMode>,
    /// Whether the pod goes on without it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub optional: bool,
}

impl SecretFiles {
    /// What it shares with a config's.
    pub fn files(&self) -> Files<'_> {
        let Self { secret_name: name, items, default_mode, optional } = self;
        Files { of: Source { kind: SourceKind::Secret, name }, items, mode: default_mode.unwrap_or_default(), optional: *optional }
    }
}

impl ConfigFiles {
    /// What it shares with a secret's.
    pub fn files(&self) -> Files<'_> {
        let Self { name, items, default_mode, optional } = self;
        Files { of: Source { kind: SourceKind::Config, name }, items, mode: default_mode.unwrap_or_default(), optional: *optional }
    }
}

/// Keys as files, whatever holds them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Files<'a> {
    /// What holds the keys.
    pub of: Source<'a>,
    /// Which keys, or all where it is empty.
    pub items: &'a [KeyToPath],
    /// The permissions of files that have none of their own.
    pub mode: FileMode,
    /// Whether the pod goes on without.
    pub optional: bool,
}

/// A resource that holds values by key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Source<'a> {
    /// Of which type.
    pub kind: SourceKind,
    /// Its name.
    pub name: &'a Name,
}

impl fmt::Display for Source<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            SourceKind::Secret => "secret",
            SourceKind::Config => "config",
        };
        write!(f, "{kind}/{}", self.name)
    }
}

/// The types of resources that hold values by key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SourceKind {
    /// A secret, whose values are shown to nobody.
    Secret,
    /// A config.
    Config,
}

/// One key as a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyToPath {
    /// Which key.
    pub key: String,
    /// Where, below the volume's folder.
    pub path: String,
    /// The file's permissions; the volume's when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<FileMode>,
}

/// A file's permissions, below 01000: `0644` in octal, or as Kubernetes' JSON has them in decimal (`420`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileMode(pub u16);

impl Default for FileMode {
    fn default() -> Self {
        Self(0o644)
    }
}

impl fmt::Display for FileMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0{:03o}", self.0)
    }
}

impl FromStr for FileMode {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let digits = |text: &str, radix| text.bytes().all(|b| b.is_ascii_digit()).then(|| u16::from_str_radix(text, radix).ok()).flatten();
        // A zero in front means octal, as in YAML 1.1, which Kubernetes reads, and in every shell.
        let mode = match text.strip_prefix("0o").or_else(|| text.strip_prefix('0')) {
            Some("") => Some(0),
            Some(octal) => digits(octal, 8),
            None => digits(text, 10),
        };
        let refusal = || format!("`{text}` is no file mode: octal from 0 to 0777, such as 0644, or the same in decimal (420)");
        mode.filter(|mode| *mode <= 0o777).map(Self).ok_or_else(refusal)
    }
}

impl Serialize for FileMode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for FileMode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = FileMode;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a file mode such as 0644")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<FileMode, E> {
                text.parse().map_err(E::custom)
            }
        }
        // As a text: a manifest's `0644` keeps its zero then.
        deserializer.deserialize_str(Visitor)
    }
}

/// Where a container has a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VolumeMount {
    /// Which of the pod's volumes.
    pub name: Name,
    /// Where, in the container: absolute, without `.`, `..` and repeated slashes.
    pub mount_path: String,
    /// Whether the container may not write into it. Files of secrets and configs never can be written.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub read_only: bool,
}

/// All keys of a secret or a config as a container's environment, the last where two have one; `env` goes before both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EnvFrom {
    /// Before each key.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub prefix: String,
    /// A secret's keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SourceRef>,
    /// A config's keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_ref: Option<SourceRef>,
}

impl EnvFrom {
    /// What holds the keys, and whether the pod goes on without; none where a peer sent none.
    pub fn source(&self) -> Option<(Source<'_>, bool)> {
        let secret = self.secret_ref.as_ref().map(|found| (Source { kind: SourceKind::Secret, name: &found.name }, found.optional));
        let config = self.config_ref.as_ref().map(|found| (Source { kind: SourceKind::Config, name: &found.name }, found.optional));
        secret.or(config)
    }
}

/// A secret or a config, by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceRef {
    /// Which.
    pub name: Name,
    /// Whether the pod goes on without it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub optional: bool,
}

impl Container {
    /// What its environment takes from secrets and configs.
    fn wanted(&self) -> impl Iterator<Item = Wanted<'_>> {
        let from = self.env_from.iter().filter_map(EnvFrom::source).map(|(of, optional)| Wanted { of, keys: Vec::new(), optional });
        let variables = self.env.iter().filter_map(|EnvVar { value_from, .. }| {
            let (of, KeyRef { key, optional, .. }) = value_from.as_ref()?.key_ref()?;
            Some(Wanted { of, keys: vec![key.as_str()], optional: *optional })
        });
        from.chain(variables)
    }
}

/// That a pod takes values from a secret or a config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted<'a> {
    /// Of which.
    pub of: Source<'a>,
    /// Keys that have to be there; where it is empty, the resource has to.
    pub keys: Vec<&'a str>,
    /// Whether the pod goes on without.
    pub optional: bool,
}

impl PodSpec {
    /// What becomes of it when its node is lost. Where its data are on that node it waits, also by a template that leaves it open.
    pub fn node_loss(&self) -> OnNodeLoss {
        if self.claims().next().is_some() { OnNodeLoss::Wait } else { self.on_node_loss }
    }

    /// What it takes from secrets and configs, in the order of the manifest; one may be in it several times.
    pub fn wanted(&self) -> impl Iterator<Item = Wanted<'_>> {
        let files = self.volumes.iter().filter_map(|volume| match volume.source() {
            Some(VolumeSource::Files(Files { of, items, optional, .. })) => {
                Some(Wanted { of, keys: items.iter().map(|item| item.key.as_str()).collect(), optional })
            }
            Some(VolumeSource::EmptyDir(_) | VolumeSource::HostPath(_) | VolumeSource::Claim(_)) | None => None,
        });
        files.chain(self.containers.iter().flat_map(Container::wanted))
    }

    /// The named volumes that it needs.
    pub fn claims(&self) -> impl Iterator<Item = &Name> {
        self.volumes.iter().filter_map(|volume| match volume.source() {
            Some(VolumeSource::Claim(claim)) => Some(&claim.claim_name),
            Some(VolumeSource::EmptyDir(_) | VolumeSource::HostPath(_) | VolumeSource::Files(_)) | None => None,
        })
    }

    /// The files and folders of its node that it needs.
    pub fn host_paths(&self) -> impl Iterator<Item = &HostPath> {
        self.volumes.iter().filter_map(|volume| match volume.source() {
            Some(VolumeSource::HostPath(path)) => Some(path),
            Some(VolumeSource::EmptyDir(_) | VolumeSource::Claim(_) | VolumeSource::Files(_)) | None => None,
        })
    }
}
