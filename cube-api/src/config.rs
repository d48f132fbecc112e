//! The config: values for pods that anybody may see.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::manifest::ManifestMetadata;
use crate::meta::{Metadata, ResourceKind};
use crate::object::ObjectType;

/// A config as the leader keeps it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Config {
    /// Who it is.
    pub metadata: Metadata,
    /// The values.
    #[serde(default)]
    pub data: BTreeMap<String, String>,
}

impl ObjectType for Config {
    const KIND: ResourceKind = ResourceKind::Config;
    fn metadata(&self) -> &Metadata {
        &self.metadata
    }
}

/// A config as it is written down.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfigManifest {
    /// Its name and labels.
    pub metadata: ManifestMetadata,
    /// The values.
    #[serde(default)]
    pub data: BTreeMap<String, String>,
}
