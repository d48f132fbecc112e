//! What is published after a commit: the state for readers and a ring of the newest changes for watchers.
//!
//! A watcher has a place in the ring, not a queue of its own: one that is slow costs no memory, and one that the ring has left behind is told
//! to list again.

use std::collections::{VecDeque, vec_deque};
use std::sync::{Arc, PoisonError, RwLock};

use cube_api::meta::Revision;
use cube_api::node::Node;
use cube_api::object::Object;
use cube_api::pod::{Container, ContainerState, ContainerStatus, Terminated};
use cube_api::{ApiError, ErrorCode};

use super::PodRow;
use super::metrics::{StoreMetrics, Watcher};
use super::state::{State, Write};
use crate::latest;

/// The changes that are kept. A cluster of 1,000 pods that all start makes some 5,000.
const RING: usize = 16_384;

/// What they may take of memory, in bytes: each keeps a whole pod, whose environment alone can have megabytes. A plain pod takes some 3 KB.
const RING_BYTES: usize = 64 << 20;

/// The changes that a watcher takes at once, so that it asks for the lock once for many.
const PIECE: usize = 64;

/// A committed change of one object, for watchers. `before` tells whether it was in a selector.
#[derive(Debug, Clone)]
pub struct Change {
    /// The revision that it got.
    pub revision: Revision,
    /// What changed.
    pub object: Changed,
}

/// The object of a change.
#[derive(Debug, Clone)]
pub enum Changed {
    /// A pod; `after` is none when it is gone.
    Pod {
        /// As it was.
        before: Option<Arc<PodRow>>,
        /// As it is.
        after: Option<Arc<PodRow>>,
    },
    /// A node.
    Node {
        /// As it was.
        before: Option<Arc<Node>>,
        /// As it is.
        after: Option<Arc<Node>>,
    },
    /// Any other resource; `after` is none when it is gone.
    Object {
        /// As it was.
        before: Option<Arc<Object>>,
        /// As it is.
        after: Option<Arc<Object>>,
    },
}

/// Every change after a revision, in order.
pub struct Changes {
    published: Arc<Published>,
    newest: latest::Receiver<Revision>,
    /// The newest revision that was taken out of the ring.
    place: Revision,
    taken: VecDeque<Change>,
    watcher: Watcher,
}

impl Changes {
    pub(super) fn after(
        from: Revision,
        published: Arc<Published>,
        newest: latest::Receiver<Revision>,
        metrics: &StoreMetrics,
    ) -> Result<Self, ApiError> {
        let inner = published.inner.read().unwrap_or_else(PoisonError::into_inner);
        if from > inner.state.revision {
            let message = format!("revision {from} hasn't happened: the newest is {}", inner.state.revision);
            return Err(ApiError::new(ErrorCode::BadRequest, message).hint("watch from the revision of a list"));
        }
        if from < inner.ring.floor {
            let message = format!("the changes after revision {from} are no longer kept: the oldest are those after {}", inner.ring.floor);
            return Err(ApiError::new(ErrorCode::Expired, message).hint("list again and watch from the list's revision"));
        }
        drop(inner);
        Ok(Self { published, newest, place: from, taken: VecDeque::new(), watcher: Watcher::new(metrics.clone()) })
    }

    /// The next change; `None` when the watcher fell too far behind (list again) or the store is closing. May be dropped and called again.
    pub async fn next(&mut self) -> Option<Change> {
        loop {
            if let Some(change) = self.taken.pop_front() {
                return Some(change);
            }
            // Marked as seen before the ring is looked at: a commit in between wakes the wait below at once.
            self.newest.borrow_and_update();
            self.take_piece()?;
            if self.taken.is_empty() {
                self.newest.changed().await.ok()?;
            }
        }
    }

    /// The next change if it has happened; `Some(None)` when the watcher fell too far behind.
    pub fn next_now(&mut self) -> Option<Option<Change>> {
        if self.taken.is_empty() && self.take_piece().is_none() {
            return Some(None);
        }
        self.taken.pop_front().map(Some)
    }

    /// Takes what comes next out of the ring, which may be nothing; `None` when the ring has gone past this watcher's place.
    fn take_piece(&mut self) -> Option<()> {
        let inner = self.published.inner.read().unwrap_or_else(PoisonError::into_inner);
        if self.place < inner.ring.floor {
            self.watcher.is_left_behind();
            return None;
        }
        self.taken.extend(inner.ring.after(self.place).take(PIECE).cloned());
        if let Some(last) = self.taken.back() {
            self.place = last.revision;
        }
        Some(())
    }
}

/// The newest changes, in order.
struct Ring {
    changes: VecDeque<Change>,
    /// About what the changes take of memory.
    bytes: usize,
    /// Every change after this revision is in the ring.
    floor: Revision,
}

/// The state that follows the commits, with the ring: under one lock, so that a watch from a list's revision misses nothing.
pub(super) struct Published {
    inner: RwLock<Inner>,
}

struct Inner {
    state: State,
    ring: Ring,
}

impl Published {
    pub(super) fn new(state: State) -> Self {
        let ring = Ring { changes: VecDeque::new(), bytes: 0, floor: state.revision };
        Self { inner: RwLock::new(Inner { state, ring }) }
    }

    /// A reader that panicked has changed nothing, and the one writer ends the process when it panics: so a poisoned lock is read on.
    pub(super) fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.inner.read().unwrap_or_else(PoisonError::into_inner).state)
    }

    /// How many changes the ring has, and about what they take of memory.
    pub(super) fn ring(&self) -> (usize, usize) {
        let ring = &self.inner.read().unwrap_or_else(PoisonError::into_inner).ring;
        (ring.changes.len(), ring.bytes)
    }

    /// Looks at the state together with every change after a revision, oldest first; `None` where those are no longer kept.
    pub(super) fn read_since<T>(&self, from: Revision, look: impl FnOnce(&State, vec_deque::Iter<'_, Change>) -> T) -> Option<T> {
        let Inner { state, ring } = &*self.inner.read().unwrap_or_else(PoisonError::into_inner);
        (from >= ring.floor).then(|| look(state, ring.after(from)))
    }

    /// Follows a committed operation. Each by itself: readers wait meanwhile, and a commit may have the rows of many.
    pub(super) fn follow(&self, revision: Revision, writes: Vec<Write>) {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        for write in writes {
            inner.state.follow(&write);
            if let Some(change) = change_of(write) {
                inner.ring.push(change);
            }
        }
        inner.state.revision = revision;
    }
}

impl Ring {
    /// Those after a revision.
    fn after(&self, from: Revision) -> vec_deque::Iter<'_, Change> {
        self.changes.range(self.changes.partition_point(|change| change.revision <= from)..)
    }

    fn push(&mut self, change: Change) {
        self.bytes += bytes_of_change(&change);
        self.changes.push_back(change);
        while self.changes.len() > RING || self.bytes > RING_BYTES {
            let Some(oldest) = self.changes.pop_front() else { break };
            self.bytes -= bytes_of_change(&oldest);
            self.floor = oldest.revision;
        }
    }
}

/// What a row takes at least.
const PLAIN: usize = 2_048;

/// About what writes take of memory, and of the database.
pub(super) fn bytes_of(writes: &[Write]) -> usize {
    let bytes = writes.iter().map(|write| match write {
        Write::Pod { revision: _, before: _, after: Some(kept) } => bytes_of_pod(&kept.row),
        Write::Object { revision: _, before: _, after: Some(object) } => bytes_of_object(object),
        Write::Pod { after: None, .. }
        | Write::Object { after: None, .. }
        | Write::Node { .. }
        | Write::EventsThrough { .. }
        | Write::Fence { .. } => PLAIN,
        Write::Event(event) => PLAIN + event.message.len(),
    });
    bytes.sum()
}

/// About what a change takes of memory: its newest row (the one before it is the newest of an earlier change).
fn bytes_of_change(change: &Change) -> usize {
    match &change.object {
        Changed::Pod { before, after } => after.as_ref().or(before.as_ref()).map_or(PLAIN, |row| bytes_of_pod(row)),
        Changed::Object { before, after } => after.as_ref().or(before.as_ref()).map_or(PLAIN, |object| bytes_of_object(object)),
        Changed::Node { .. } => PLAIN,
    }
}

fn bytes_of_object(object: &Object) -> usize {
    let values = match object {
        Object::Secret(secret) => secret.data.values().map(|value| value.0.len()).sum::<usize>(),
        Object::Config(config) => config.data.values().map(String::len).sum(),
    };
    PLAIN + values
}

fn bytes_of_pod(PodRow { pod, .. }: &PodRow) -> usize {
    let words = |words: &[String]| words.iter().map(|word| size_of::<String>() + word.len()).sum::<usize>();
    let spec = pod.spec.containers.iter().map(|container| {
        let env = container.env.iter().map(|(name, value)| 2 * size_of::<String>() + name.len() + value.len()).sum::<usize>();
        size_of::<Container>() + words(&container.command) + words(&container.args) + env
    });
    // Last lines of ended containers.
    let message = |end: &Terminated| end.message.as_ref().map_or(0, String::len);
    let status = pod.status.containers.iter().map(|status| {
        let now = match &status.state {
            ContainerState::Terminated(end) => message(end),
            ContainerState::Waiting(_) | ContainerState::Running(_) => 0,
        };
        size_of::<ContainerStatus>() + now + status.last_termination.as_ref().map_or(0, message)
    });
    PLAIN + spec.sum::<usize>() + status.sum::<usize>()
}

fn change_of(write: Write) -> Option<Change> {
    match write {
        Write::Pod { revision, before, after } => {
            Some(Change { revision, object: Changed::Pod { before: before.map(|kept| kept.row), after: after.map(|kept| kept.row) } })
        }
        Write::Node { revision, before, after } => {
            Some(Change { revision, object: Changed::Node { before: before.map(|kept| kept.node), after: after.map(|kept| kept.node) } })
        }
        Write::Object { revision, before, after } => Some(Change { revision, object: Changed::Object { before, after } }),
        Write::EventsThrough { .. } | Write::Fence { .. } | Write::Event(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn changes_of_large_pods_are_forgotten_before_they_fill_the_memory() {
        let metadata =
            json!({"name": "web", "uid": uuid::Uuid::nil(), "generation": 1, "revision": 1, "createdAt": "2026-01-01T00:00:00Z"});
        let containers = json!([{"name": "c", "image": "nginx", "env": {"LARGE": "x".repeat(1 << 20)}}]);
        let pod = serde_json::from_value(json!({"metadata": metadata, "spec": {"containers": containers}})).expect("a pod");
        let row = Arc::new(PodRow { pod, restarts: 0, retired: None });
        let mut ring = Ring { changes: VecDeque::new(), bytes: 0, floor: Revision(0) };
        for revision in 1..=100 {
            ring.push(Change { revision: Revision(revision), object: Changed::Pod { before: None, after: Some(row.clone()) } });
        }
        assert_eq!(ring.changes.len(), 63, "64 of them are more than 64 MiB");
        assert_eq!((ring.floor, ring.changes.back().map(|change| change.revision)), (Revision(37), Some(Revision(100))));
        assert!(ring.bytes <= RING_BYTES);
    }
}
