//! Somebody who watches the pods, comes back after every lost connection from the last revision seen, and keeps a copy of what was told.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use cube_api::meta::{Name, Revision, Uid};
use cube_api::routes::{self, List, WatchEvent};
use cube_api::{ErrorCode, Pod};
use http::Method;

use crate::client::{Client, Failure};
use crate::trace::Trace;

/// The copy. Clones share it.
#[derive(Clone, Default)]
pub struct Mirror {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    pods: BTreeMap<Uid, (Name, Revision)>,
    seen: Revision,
    events: u64,
    resumed: u64,
    complaints: Vec<String>,
}

impl Mirror {
    /// The pods that were told of, with the revision of the newest change.
    pub fn pods(&self) -> BTreeMap<Uid, (Name, Revision)> {
        self.inner().pods.clone()
    }

    /// Everything up to here was told.
    pub fn seen(&self) -> Revision {
        self.inner().seen
    }

    /// Events that came, and how often the watch was resumed.
    pub fn counts(&self) -> (u64, u64) {
        let inner = self.inner();
        (inner.events, inner.resumed)
    }

    pub fn complaints(&self) -> Vec<String> {
        std::mem::take(&mut self.inner().complaints)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("nothing panics while it is held")
    }

    fn begin(&self, list: List<Pod>) {
        let mut inner = self.inner();
        if list.revision < inner.seen {
            let seen = inner.seen;
            inner.complaints.push(format!("a list of revision {} came after revision {seen} was seen", list.revision));
        }
        inner.seen = list.revision;
        inner.pods = list.items.into_iter().map(|pod| (pod.metadata.uid, (pod.metadata.name, pod.metadata.revision))).collect();
    }

    fn take(&self, event: WatchEvent<Pod>) {
        let mut inner = self.inner();
        inner.events += 1;
        let seen = inner.seen;
        let (revision, is_later) = match &event {
            WatchEvent::Added(pod) | WatchEvent::Modified(pod) | WatchEvent::Deleted(pod) => {
                (pod.metadata.revision, pod.metadata.revision > seen)
            }
            WatchEvent::Bookmark(bookmark) => (bookmark.revision, bookmark.revision >= seen),
        };
        if !is_later {
            inner.complaints.push(format!("a watch gave revision {revision} after {seen}"));
        }
        inner.seen = revision.max(seen);
        match event {
            WatchEvent::Added(pod) => {
                if inner.pods.insert(pod.metadata.uid, (pod.metadata.name.clone(), revision)).is_some() {
                    inner.complaints.push(format!("a watch added pod {} twice, at revision {revision}", pod.metadata.name));
                }
            }
            WatchEvent::Modified(pod) => {
                if inner.pods.insert(pod.metadata.uid, (pod.metadata.name.clone(), revision)).is_none() {
                    inner.complaints.push(format!("a watch changed pod {} before it added it, at revision {revision}", pod.metadata.name));
                }
            }
            WatchEvent::Deleted(pod) => {
                if inner.pods.remove(&pod.metadata.uid).is_none() {
                    inner.complaints.push(format!("a watch deleted pod {} that it never added, at revision {revision}", pod.metadata.name));
                }
            }
            WatchEvent::Bookmark(_) => {}
        }
    }
}

/// Watches for ever.
pub async fn run(client: Client, mirror: Mirror, trace: Trace) {
    let mut listed = false;
    loop {
        if !listed {
            match client.call::<List<Pod>>(Method::GET, routes::PODS, Bytes::new()).await {
                Ok(list) => {
                    trace.note("watcher", format_args!("lists at revision {}", list.revision));
                    mirror.begin(list);
                    listed = true;
                }
                Err(_) => pause().await,
            }
            continue;
        }
        match client.watch(mirror.seen()).await {
            Ok(mut watch) => {
                mirror.inner().resumed += 1;
                while let Some(event) = watch.next().await {
                    mirror.take(event);
                }
            }
            Err(Failure::Refused(error)) if error.code == ErrorCode::Expired => listed = false,
            Err(Failure::Refused(error)) if error.code == ErrorCode::BadRequest => {
                mirror.inner().complaints.push(format!("a revision that was seen is not known any more: {error}"));
                listed = false;
            }
            Err(Failure::Refused(_) | Failure::Unknown(_)) => {}
        }
        pause().await;
    }
}

async fn pause() {
    tokio::time::sleep(Duration::from_millis(500)).await;
}
