//! The resources that the leader keeps by itself: everything but pods, which nodes report of, and nodes. They share their storing, their routes and
//! their watch; what each of them is stands in a file of its own.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::cronjob::CronJob;
use crate::deployment::Deployment;
use crate::job::Job;
use crate::meta::{Metadata, ResourceKind, ResourceRef};
use crate::secret::Secret;
use crate::volume::NamedVolume;

/// A resource that is neither a pod nor a node, as the store keeps it and the API answers it ([`Object::shown`]).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Object {
    /// A secret.
    Secret(Secret),
    /// A config.
    Config(Config),
    /// A named volume.
    Volume(NamedVolume),
    /// A deployment.
    Deployment(Box<Deployment>),
    /// A job.
    Job(Box<Job>),
    /// A cronjob.
    CronJob(Box<CronJob>),
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
            Self::Volume(_) => ResourceKind::Volume,
            Self::Deployment(_) => ResourceKind::Deployment,
            Self::Job(_) => ResourceKind::Job,
            Self::CronJob(_) => ResourceKind::CronJob,
        }
    }

    /// Who it is.
    pub fn metadata(&self) -> &Metadata {
        match self {
            Self::Secret(secret) => &secret.metadata,
            Self::Config(config) => &config.metadata,
            Self::Volume(volume) => &volume.metadata,
            Self::Deployment(deployment) => &deployment.metadata,
            Self::Job(job) => &job.metadata,
            Self::CronJob(cronjob) => &cronjob.metadata,
        }
    }

    /// Who it is, to be changed by the store.
    pub fn metadata_mut(&mut self) -> &mut Metadata {
        match self {
            Self::Secret(secret) => &mut secret.metadata,
            Self::Config(config) => &mut config.metadata,
            Self::Volume(volume) => &mut volume.metadata,
            Self::Deployment(deployment) => &mut deployment.metadata,
            Self::Job(job) => &mut job.metadata,
            Self::CronJob(cronjob) => &mut cronjob.metadata,
        }
    }

    /// The name people use for it.
    pub fn reference(&self) -> ResourceRef {
        ResourceRef { kind: self.kind(), name: self.metadata().name.clone() }
    }

    /// Whether a loop looks after what it owns: such a resource is there until what it owns is gone.
    pub fn is_owner(&self) -> bool {
        match self {
            Self::Secret(_) | Self::Config(_) | Self::Volume(_) => false,
            Self::Job(_) | Self::CronJob(_) | Self::Deployment(_) => true,
        }
    }

    /// The job, if it is one.
    pub fn job(&self) -> Option<&Job> {
        match self {
            Self::Job(job) => Some(job),
            Self::Secret(_) | Self::Config(_) | Self::Volume(_) | Self::CronJob(_) | Self::Deployment(_) => None,
        }
    }

    /// The cronjob, if it is one.
    pub fn cronjob(&self) -> Option<&CronJob> {
        match self {
            Self::CronJob(cronjob) => Some(cronjob),
            Self::Secret(_) | Self::Config(_) | Self::Volume(_) | Self::Job(_) | Self::Deployment(_) => None,
        }
    }

    /// The deployment, if it is one.
    pub fn deployment(&self) -> Option<&Deployment> {
        match self {
            Self::Deployment(deployment) => Some(deployment),
            Self::Secret(_) | Self::Config(_) | Self::Volume(_) | Self::Job(_) | Self::CronJob(_) => None,
        }
    }

    /// As people and their programs may see it: without a secret's values.
    pub fn shown(&self) -> Self {
        match self {
            Self::Secret(secret) => Self::Secret(secret.shown()),
            Self::Config(_) | Self::Volume(_) | Self::Job(_) | Self::CronJob(_) | Self::Deployment(_) => self.clone(),
        }
    }
}
