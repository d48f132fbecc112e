//! Backs the store up on schedule.

use std::time::Duration;

use cube_api::error::chain;

use super::Backups;
use crate::ambient::Ambient;
use crate::backoff::Backoff;
use crate::leader::store::Store;

/// Between two tries while it fails: a full disk or a folder that isn't mounted is somebody's to mend.
const AGAIN: Backoff = Backoff::new(Duration::from_secs(10), Duration::from_secs(600));

/// Runs until it is dropped. A restart changes nothing about when the next one is due: that is in the folder.
pub(super) async fn run(store: Store, ambient: Ambient, options: Backups) {
    let mut again = AGAIN;
    tokio::time::sleep(until_due(&store, &ambient, &options).await).await;
    loop {
        match store.back_up(options.folder.clone(), options.keep).await {
            Ok((path, contents)) => {
                tracing::info!(path = %path.display(), revision = %contents.revision, bytes = contents.bytes, "took a backup");
                again.reset();
                tokio::time::sleep(options.every).await;
            }
            Err(error) => {
                let wait = again.next(ambient.random());
                tracing::error!(error = chain(&error), again_in = ?wait, folder = %options.folder.display(), "there is no new backup");
                tokio::time::sleep(wait.min(options.every)).await;
            }
        }
    }
}

async fn until_due(store: &Store, ambient: &Ambient, options: &Backups) -> Duration {
    match store.last_backup(options.folder.clone()).await {
        Ok(Some(taken_at)) => {
            // One from the future, by a clock that was set back, was not taken longer ago than now.
            let age = Duration::try_from(ambient.now().duration_since(taken_at)).unwrap_or_default();
            options.every.saturating_sub(age)
        }
        // Also where the folder can't be read: then the backup says why it fails.
        Ok(None) | Err(_) => Duration::ZERO,
    }
}
