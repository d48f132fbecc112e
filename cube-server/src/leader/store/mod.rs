//! Every SQL statement of the leader, revisions and the watch.
//!
//! One writer commits what is waiting in one transaction (group commit); a write is acknowledged after the commit that holds it. Reads come from
//! a typed state in memory that follows the commits.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use cube_api::manifest::Resource;
use cube_api::meta::{ClusterId, Name, Revision, Uid};
use cube_api::node::{Node, NodeCondition};
use cube_api::pod::Pod;
use cube_api::routes::{Applied, DeleteQuery, EventQuery};
use cube_api::session::{Announcement, Assignment, Epoch, Report, ReportAccepted};
use cube_api::{ApiError, Event};

use crate::ambient::Ambient;
use crate::tasks::Tasks;

/// Handle on the store. Clones share it.
#[derive(Clone)]
pub struct Store {
    _inner: Arc<()>,
}

/// The state in memory, as of one revision.
pub struct State {
    /// The newest committed revision.
    pub revision: Revision,
    /// Every pod that is kept, retired ones too.
    pub pods: BTreeMap<Uid, Arc<PodRow>>,
    /// The live pod of each name.
    pub names: BTreeMap<Name, Uid>,
    /// Every node that ever joined and wasn't deleted.
    pub nodes: BTreeMap<Name, Arc<Node>>,
}

/// A pod as the leader keeps it.
#[derive(Debug, Clone, PartialEq)]
pub struct PodRow {
    /// What the API shows.
    pub pod: Pod,
    /// How often a restart was asked for.
    pub restarts: u64,
    /// Why it is to be stopped, once it is: deleted, or replaced under its name.
    pub retired: Option<Retired>,
}

/// Why and how a pod is to be stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retired {
    /// For the event: `deleted by the user`.
    pub reason: String,
    /// Seconds between the stop signal and SIGKILL.
    pub grace_seconds: u32,
    /// Whether a new pod has its name already (else the name is freed when this one is gone).
    pub replaced: bool,
}

/// A decision of the scheduler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placing {
    /// Bind the pod, if it is still unbound and not retired.
    Bind {
        /// Which pod.
        uid: Uid,
        /// Where.
        node: Name,
        /// Why there, for the event.
        reason: String,
    },
    /// Note why no node takes it.
    Wait {
        /// Which pod.
        uid: Uid,
        /// With counts.
        reason: String,
    },
}

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
    _inner: (),
}

impl Changes {
    /// The next change; `None` when the watcher fell too far behind (list again) or the store is closing.
    pub async fn next(&mut self) -> Option<Change> {
        unimplemented!()
    }
}

/// Why the store didn't do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The request is refused; nothing was changed.
    #[error(transparent)]
    Refused(#[from] ApiError),
    /// SQLite failed; nothing was changed.
    #[error("the store failed to {operation}")]
    Sqlite {
        /// What it did.
        operation: &'static str,
        /// SQLite's reason.
        source: rusqlite::Error,
    },
    /// A row doesn't hold what was written.
    #[error("the store holds a {what} that can't be read")]
    Corrupt {
        /// Which kind of row.
        what: &'static str,
        /// Why not.
        source: serde_json::Error,
    },
    /// The write queue is full.
    #[error("the store has too many writes waiting")]
    Busy,
    /// The store is closing.
    #[error("the store is closed")]
    Closed,
}

impl Store {
    /// Opens or makes the database, counts the epoch up and reads the state.
    pub async fn open(_path: &Path, _ambient: Ambient, _tasks: &Tasks) -> anyhow::Result<Self> {
        unimplemented!()
    }

    /// This cluster.
    pub fn cluster_id(&self) -> ClusterId {
        unimplemented!()
    }

    /// This life of the leader.
    pub fn epoch(&self) -> Epoch {
        unimplemented!()
    }

    /// Looks at the state. `look` must be short: writers wait for it.
    pub fn read<T>(&self, _look: impl FnOnce(&State) -> T) -> T {
        unimplemented!()
    }

    /// Waits until the newest revision is beyond `after`.
    pub async fn moved_beyond(&self, _after: Revision) -> Revision {
        unimplemented!()
    }

    /// Every change after `from`; `Err(Expired)` where those are no longer kept, `Err(BadRequest)` where `from` hasn't happened.
    pub fn watch(&self, _from: Revision) -> Result<Changes, ApiError> {
        unimplemented!()
    }

    /// The pod of a name as the API shows it: the live one, else a retired one on its way out.
    pub fn pod(&self, _name: &Name) -> Option<Arc<PodRow>> {
        unimplemented!()
    }

    /// The complete set of pods that are the node's, with the revision as generation.
    pub fn assignment(&self, _node: &Name) -> Assignment {
        unimplemented!()
    }

    /// Applies all resources, or none.
    pub async fn apply(&self, _resources: Vec<Resource>, _dry_run: bool) -> Result<Applied, StoreError> {
        unimplemented!()
    }

    /// Marks a pod for deletion; one that never had a node, or `force`, is gone at once. Repeating it is not an error while the pod is there.
    pub async fn delete_pod(&self, _name: Name, _query: DeleteQuery) -> Result<Pod, StoreError> {
        unimplemented!()
    }

    /// Asks for a restart of every container.
    pub async fn restart_pod(&self, _name: Name) -> Result<Pod, StoreError> {
        unimplemented!()
    }

    /// Writes the scheduler's decisions; those that no longer hold are left out.
    pub async fn place(&self, _placings: Vec<Placing>) -> Result<(), StoreError> {
        unimplemented!()
    }

    /// A node dials: keeps it, or refuses a second machine of its name (`session_live` tells whether the known one is connected) or another
    /// cluster's node.
    pub async fn join(&self, _announcement: Announcement, _session_live: bool) -> Result<(), StoreError> {
        unimplemented!()
    }

    /// Sets a node's condition, with an event if it changed.
    pub async fn set_condition(&self, _node: Name, _condition: NodeCondition) -> Result<(), StoreError> {
        unimplemented!()
    }

    /// Forgets a node; refused while pods are bound to it, unless `force`, which retires and forgets them too.
    pub async fn delete_node(&self, _name: Name, _force: bool) -> Result<Node, StoreError> {
        unimplemented!()
    }

    /// Takes a node's report: facts, statuses of its own pods only, events once each. A pod that was retired and is `stopped` goes.
    pub async fn report(&self, _node: Name, _report: Report) -> Result<ReportAccepted, StoreError> {
        unimplemented!()
    }

    /// Events, oldest first.
    pub async fn events(&self, _query: EventQuery) -> Result<Vec<Event>, StoreError> {
        unimplemented!()
    }

    /// Drops events over their age and number; how many.
    pub async fn collect_garbage(&self) -> Result<usize, StoreError> {
        unimplemented!()
    }
}
