//! The named volume: data that outlive the pods that use them, on one node. It is made where the first pod that claims it is placed, and never moves.

use serde::{Deserialize, Serialize};

use crate::meta::{Metadata, Name, ResourceKind};
use crate::object::ObjectType;

/// A named volume as the leader keeps it. While `metadata.deletionRequestedAt` is set, its node removes the data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NamedVolume {
    /// Who it is. Its uid names its data on the node: one that is made again under the name begins empty.
    pub metadata: Metadata,
    /// Where its data are.
    pub node: Name,
    /// The pods that claim it, those on their way out too. Derived at the time of an answer about this one volume.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub used_by: Vec<Name>,
}

impl ObjectType for NamedVolume {
    const KIND: ResourceKind = ResourceKind::Volume;
    fn metadata(&self) -> &Metadata {
        &self.metadata
    }
}
