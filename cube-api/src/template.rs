//! The template of the pods that a job or a deployment makes.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::meta::Labels;
use crate::pod::PodSpec;

/// What the pods of one owner have in common.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodTemplate {
    /// Their labels.
    #[serde(default, skip_serializing_if = "TemplateMetadata::is_empty")]
    pub metadata: TemplateMetadata,
    /// What each of them should be. The pods share it.
    pub spec: Arc<PodSpec>,
}

/// The metadata that a template may carry: its pods' names are their owner's to make up.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TemplateMetadata {
    /// A map; a list of `"k=v"` or `"k"` is read as one.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
}

impl TemplateMetadata {
    fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }
}
