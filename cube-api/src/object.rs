//! The resources that the leader keeps by itself: everything but pods, which nodes report of, and nodes. They share their storing, their routes and
//! their watch; what each of them is stands in a file of its own.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::meta::{Metadata, ResourceKind, ResourceRef};
use crate::secret::Secret;

/// A resource that is neither a pod nor a node, as the store keeps it and the API answers it ([`Object::shown`]).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Object {
    /// A secret.
    Secret(Secret),
    /// A config.
    Config(Config),
}

/// One type of such resources.
pub trait ObjectType: Serialize + DeserializeOwned + Send + 'static {
    /// Which.
    const KIND: ResourceKind;
    /// Who it is.
    fn metadata(&self) -> &Metadata;
}

impl Object {
    /// Its type.
    pub fn kind(&self) -> ResourceKind {
        match self {
            Self::Secret(_) => ResourceKind::Secret,
            Self::Config(_) => ResourceKind::Config,
        }
    }

    /// Who it is.
    pub fn metadata(&self) -> &Metadata {
        match self {
            Self::Secret(secret) => &secret.metadata,
            Self::Config(config) => &config.metadata,
        }
    }

    /// Who it is, to be changed by the store.
    pub fn metadata_mut(&mut self) -> &mut Metadata {
        match self {
            Self::Secret(secret) => &mut secret.metadata,
            Self::Config(config) => &mut config.metadata,
        }
    }

    /// The name people use for it.
    pub fn reference(&self) -> ResourceRef {
        ResourceRef { kind: self.kind(), name: self.metadata().name.clone() }
    }

    /// Whether a loop looks after what it owns: such a resource is there until what it owns is gone.
    pub fn is_owner(&self) -> bool {
        match self {
            Self::Secret(_) | Self::Config(_) => false,
        }
    }

    /// As people and their programs may see it: without a secret's values.
    pub fn shown(&self) -> Self {
        match self {
            Self::Secret(secret) => Self::Secret(secret.shown()),
            Self::Config(_) => self.clone(),
        }
    }
}
