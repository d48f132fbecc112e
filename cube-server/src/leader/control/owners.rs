//! Takes resources that own others to their end, once they are deleted.

use std::time::Duration;

use super::{AGAIN_AFTER, log_failure, news};
use crate::leader::store::{Change, Changed, Store};

/// Runs until it is dropped.
pub(super) async fn run(store: Store) {
    loop {
        let (looked_at, leaving) = store.leaving_objects();
        // The change that begins a delete is seen as any other, so nothing is to be looked at in between.
        let mut at_most = Duration::MAX;
        for reference in leaving {
            if let Err(error) = store.go_on_with_delete(reference).await {
                log_failure("going on with a delete", &error);
                at_most = AGAIN_AFTER;
            }
        }
        news(&store, looked_at, at_most, matters).await;
    }
}

/// Whether a delete begins, or something went that an owner may have waited for.
fn matters(change: &Change) -> bool {
    match &change.object {
        Changed::Pod { before, after } => after.is_none() && before.as_ref().is_some_and(|row| row.pod.metadata.owner.is_some()),
        Changed::Object { before, after: None } => before.as_ref().is_some_and(|object| object.metadata().owner.is_some()),
        Changed::Object { before: _, after: Some(after) } => after.metadata().deletion_requested_at.is_some(),
        Changed::Node { .. } => false,
    }
}
