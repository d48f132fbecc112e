//! Removes the data of named volumes that were deleted, and says so once nothing is left.
//!
//! The leader's assignment names them until the report that confirms it, so nothing of this is written down: a life of the node that ends in between is
//! told again.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cube_api::meta::Uid;
use tokio::sync::Notify;

use super::reporter::Reporter;
use super::runtime::{Runtime, Scope};
use crate::ambient::Ambient;
use crate::backoff::Backoff;

/// The waits after a failure: a foreign container may have the volume for long.
const RETRY: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));

/// What is to go. Clones share it.
#[derive(Clone, Default)]
pub struct Drops {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    wanted: Mutex<Option<(Scope, BTreeSet<Uid>)>>,
    poke: Notify,
}

impl Drops {
    /// These named volumes are to go, and no others any more.
    pub fn want(&self, scope: Scope, volumes: Vec<Uid>) {
        *self.shared.wanted.lock().expect("nothing panics while it is held") = Some((scope, volumes.into_iter().collect()));
        self.shared.poke.notify_one();
    }

    /// Removes them for as long as it is polled.
    pub async fn run(self, runtime: Arc<dyn Runtime>, reporter: Reporter, ambient: Ambient) {
        let mut backoff = RETRY;
        loop {
            let wanted = self.shared.wanted.lock().expect("nothing panics while it is held").clone();
            let (scope, volumes) = wanted.unzip();
            let mut failed = false;
            for volume in volumes.unwrap_or_default() {
                let Some(scope) = &scope else { continue };
                match runtime.remove_kept(scope, volume).await {
                    Ok(()) => reporter.dropped(volume),
                    Err(error) => {
                        tracing::warn!(%volume, error = cube_api::error::chain(&error), "a deleted volume can't be removed; trying again");
                        failed = true;
                    }
                }
            }
            if !failed {
                backoff.reset();
                self.shared.poke.notified().await;
                continue;
            }
            let wait = backoff.next(ambient.random());
            tokio::select! {
                biased;
                () = self.shared.poke.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }
}
