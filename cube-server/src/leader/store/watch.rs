//! What is published after a commit: the state for readers and a ring of the newest changes for watchers.
//!
//! A watcher has a place in the ring, not a queue of its own: one that is slow costs no memory, and one that the ring has left behind is told
//! to list again.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError, RwLock};

use cube_api::meta::Revision;
use cube_api::node::Node;
use cube_api::{ApiError, ErrorCode};
use tokio::sync::watch as latest;

use super::PodRow;
use super::state::{State, Write};

/// The changes that are kept. A cluster of 1,000 pods that all start makes some 5,000.
const RING: usize = 16_384;

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
}

/// Every change after a revision, in order.
pub struct Changes {
    published: Arc<Published>,
    newest: latest::Receiver<Revision>,
    /// The newest revision that was taken out of the ring.
    place: Revision,
    taken: VecDeque<Change>,
}

impl Changes {
    pub(super) fn after(from: Revision, published: Arc<Published>, newest: latest::Receiver<Revision>) -> Result<Self, ApiError> {
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
        Ok(Self { published, newest, place: from, taken: VecDeque::new() })
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

    /// Takes what comes next out of the ring, which may be nothing; `None` when the ring has gone past this watcher's place.
    fn take_piece(&mut self) -> Option<()> {
        let inner = self.published.inner.read().unwrap_or_else(PoisonError::into_inner);
        if self.place < inner.ring.floor {
            return None;
        }
        let first = inner.ring.changes.partition_point(|change| change.revision <= self.place);
        self.taken.extend(inner.ring.changes.range(first..).take(PIECE).cloned());
        if let Some(last) = self.taken.back() {
            self.place = last.revision;
        }
        Some(())
    }
}

/// The newest changes, in order.
struct Ring {
    changes: VecDeque<Change>,
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
        let ring = Ring { changes: VecDeque::new(), floor: state.revision };
        Self { inner: RwLock::new(Inner { state, ring }) }
    }

    /// A reader that panicked has changed nothing, and the one writer ends the process when it panics: so a poisoned lock is read on.
    pub(super) fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.inner.read().unwrap_or_else(PoisonError::into_inner).state)
    }

    /// Follows a commit.
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
    fn push(&mut self, change: Change) {
        if self.changes.len() == RING
            && let Some(oldest) = self.changes.pop_front()
        {
            self.floor = oldest.revision;
        }
        self.changes.push_back(change);
    }
}

fn change_of(write: Write) -> Option<Change> {
    match write {
        Write::Pod { revision, before, after } => {
            Some(Change { revision, object: Changed::Pod { before: before.map(|kept| kept.row), after: after.map(|kept| kept.row) } })
        }
        Write::Node { revision, before, after } => {
            Some(Change { revision, object: Changed::Node { before: before.map(|kept| kept.node), after: after.map(|kept| kept.node) } })
        }
        Write::EventsThrough { .. } | Write::Event(_) => None,
    }
}
