//! Making a pod that must not take another one's place, as an apply would: under the first of its names that is free.

use std::sync::Arc;

use cube_api::manifest::PodManifest;
use cube_api::pod::Pod;
use cube_api::{ApiError, ErrorCode};

use super::draft::Draft;
use super::lanes::Lane;
use super::{PodRow, Store, StoreError, apply};

/// A label that no two pods may have with one value, and the value that the new pod has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The label's key.
    pub label: &'static str,
    /// Its value.
    pub value: String,
}

impl Store {
    /// Makes a pod under the first of several names, each with what is asked for under it. With an identity that a pod has already nothing is made:
    /// it is answered if it is as asked for, so that a request may be repeated, and else refused.
    pub async fn create_pod(&self, named: Vec<PodManifest>, identity: Option<Identity>) -> Result<Pod, StoreError> {
        self.has_room()?;
        self.write(Lane::People, "create a pod", move |draft| create(draft, named, identity.as_ref())).await
    }
}

fn create(draft: &mut Draft<'_>, named: Vec<PodManifest>, identity: Option<&Identity>) -> Result<Pod, ApiError> {
    if let Some(there) = identity.and_then(|identity| holder(draft, identity)) {
        return repeated(&there, &named);
    }
    let free = named.iter().position(|manifest| draft.state().standing(&manifest.metadata.name).is_none());
    let tried = named.iter().map(|manifest| format!("pod/{}", manifest.metadata.name)).collect::<Vec<_>>().join(" and ");
    match free.and_then(|free| named.into_iter().nth(free)) {
        Some(manifest) => Ok(apply::create(draft, manifest, None).pod.clone()),
        None => Err(ApiError::new(ErrorCode::Conflict, format!("{tried} are there already")).hint("choose another name")),
    }
}

/// Looks at every pod, 15 ms for 150,000: only for those who chose an identity themselves, and it can't be another's between the look and the write.
fn holder(draft: &Draft<'_>, identity: &Identity) -> Option<Arc<PodRow>> {
    let has = |row: &&Arc<PodRow>| row.pod.metadata.labels.get(identity.label) == Some(&identity.value);
    // Of one that is being replaced, the newest.
    draft.state().pods.values().rev().find(has).cloned()
}

fn repeated(there: &PodRow, named: &[PodManifest]) -> Result<Pod, ApiError> {
    let metadata = &there.pod.metadata;
    let is_same = named.iter().any(|manifest| manifest.metadata.name == metadata.name && manifest.spec == *there.pod.spec);
    let refused = |what: &str, hint: &str| {
        let message = format!("it is there already, as pod/{}, {what}", metadata.name);
        Err(ApiError::new(ErrorCode::Conflict, message).hint(hint))
    };
    match (&there.retired, is_same) {
        (None, true) => Ok(there.pod.clone()),
        (None, false) => refused("and asked for otherwise", "stop it first, or ask under another ID"),
        (Some(_), _) => refused("and is being stopped", "try again when it is gone, or ask under another ID"),
    }
}
