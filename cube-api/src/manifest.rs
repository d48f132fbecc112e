//! Manifests: what people write, read and checked, with all errors at once.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error::Problem;
use crate::meta::{Labels, Name, ResourceRef, Revision, Uid};
use crate::pod::PodSpec;

/// The most bytes of a manifest or a request's body.
pub const MAX_BYTES: usize = 4 * 1024 * 1024;

/// One resource of a manifest, checked.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Resource {
    /// A pod.
    Pod(PodManifest),
}

impl Resource {
    /// The name people use for it.
    pub fn reference(&self) -> ResourceRef {
        match self {
            Self::Pod(pod) => ResourceRef { kind: crate::ResourceKind::Pod, name: pod.metadata.name.clone() },
        }
    }
}

/// A pod as it is written down.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PodManifest {
    /// Its name and labels.
    pub metadata: ManifestMetadata,
    /// What it should be.
    pub spec: PodSpec,
    // `status` and `placement` are allowed in the text, so that what `cube get -o yaml` printed can be applied; they are the cluster's to write.
}

/// The metadata that a manifest may carry.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ManifestMetadata {
    /// Unique among the resources of its type.
    pub name: Name,
    /// A map; a list of `"k=v"` or `"k"` is read as one.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// Apply only if the live resource has this uid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<Uid>,
    /// Apply only if the live resource is at this revision; otherwise a conflict (compare and set).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<Revision>,
    /// Read only: allowed so that what was printed can be applied.
    #[serde(default, skip_serializing)]
    pub generation: Option<u64>,
    /// Read only, as `generation`.
    #[serde(default, skip_serializing)]
    pub created_at: Option<Timestamp>,
    /// Read only, as `generation`.
    #[serde(default, skip_serializing)]
    pub deletion_requested_at: Option<Timestamp>,
}

/// Reads a manifest's text, JSON or YAML: one resource, or a list. The problems carry lines and columns.
pub fn parse(_text: &str) -> Result<Vec<Resource>, Vec<Problem>> {
    unimplemented!()
}

/// Reads a request's JSON body with the same rules as [`parse`].
pub fn from_json(_body: &[u8]) -> Result<Vec<Resource>, Vec<Problem>> {
    unimplemented!()
}
