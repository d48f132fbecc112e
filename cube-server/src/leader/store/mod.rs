//! Every SQL statement of the leader, revisions and the watch.
//!
//! One writer commits what is waiting in one transaction (group commit); a write is acknowledged after the commit that holds it. Reads come from
//! a typed state in memory that follows the commits.
//!
//! The way of a write: a method of [`Store`] queues a decision (`apply.rs`, `lifecycle.rs`, `nodes.rs`, `report.rs`: plain functions over the
//! draft of `draft.rs`) -> `writer.rs` runs what is queued, writes the rows (`rows.rs`), commits -> `watch.rs` publishes the state and the changes.
//! It knows neither HTTP nor how pods are placed.

mod apply;
mod draft;
mod events;
mod lifecycle;
mod nodes;
mod report;
mod rows;
mod state;
#[cfg(test)]
mod tests;
mod watch;
mod writer;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use cube_api::ApiError;
use cube_api::event::Event;
use cube_api::manifest::Resource;
use cube_api::meta::{ClusterId, Name, Revision, Uid};
use cube_api::node::{Node, NodeCondition};
use cube_api::pod::Pod;
use cube_api::routes::{Applied, DeleteQuery, EventQuery};
use cube_api::session::{Announcement, Assignment, Epoch, Report, ReportAccepted};
use include_dir::{Dir, include_dir};
use rusqlite::Connection;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch as latest};

pub use self::state::{HostPort, NodeLoad, State, reserved};
pub use self::watch::{Change, Changed, Changes};

use self::draft::Draft;
use self::watch::Published;
use self::writer::{Job, Outcome, Work, Writer};
use crate::ambient::Ambient;
use crate::tasks::Tasks;
use crate::{blocking, sqlite};

static MIGRATIONS: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/../migrations/leader");

/// The most writes that wait. At some 250 us per commit of up to 256 writes, a full queue is a matter of milliseconds.
const QUEUE: usize = 1_024;

/// Handle on the store. Clones share it.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    cluster_id: ClusterId,
    epoch: Epoch,
    ambient: Ambient,
    published: Arc<Published>,
    revision: latest::Receiver<Revision>,
    queue: mpsc::Sender<Work>,
    /// Reads events beside the writer. The lock is held by blocking threads only.
    reader: Arc<Mutex<Connection>>,
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Note that its predecessor under the name has to stop first: nothing that a person need act on.
    Hold {
        /// Which pod.
        uid: Uid,
        /// Which predecessor, and where it is.
        reason: String,
    },
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
    /// Opens or makes the database, counts the epoch up, reads the state and starts the writer, which ends with `tasks`: it finishes what is
    /// queued then.
    pub async fn open(path: &Path, ambient: Ambient, tasks: &Tasks) -> anyhow::Result<Self> {
        let file = path.to_owned();
        let new_cluster = ClusterId(ambient.uuid());
        let (connection, reader, loaded) = blocking::run(move || {
            let mut connection = sqlite::open(&file, &MIGRATIONS)?;
            let loaded = rows::load(&mut connection, new_cluster)?;
            let reader = sqlite::open_read_only(&file)?;
            anyhow::Ok((connection, reader, loaded))
        })
        .await
        .context("can't open the leader's store")?;

        let (cluster_id, epoch) = (loaded.cluster_id, loaded.epoch);
        let (queue, waiting) = mpsc::channel(QUEUE);
        let (moved, revision) = latest::channel(loaded.state.revision);
        let published = Arc::new(Published::new(loaded.state.clone()));
        let writer = Writer::new(connection, loaded.state, ambient.clone(), cluster_id, published.clone(), moved);
        tasks.spawn("store writer", writer.run(waiting, tasks.stopping().clone()));
        let inner = Inner { cluster_id, epoch, ambient, published, revision, queue, reader: Arc::new(Mutex::new(reader)) };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// This cluster.
    pub fn cluster_id(&self) -> ClusterId {
        self.inner.cluster_id
    }

    /// This life of the leader.
    pub fn epoch(&self) -> Epoch {
        self.inner.epoch
    }

    /// Looks at the state. `look` must be short: writers wait for it.
    pub fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        self.inner.published.read(look)
    }

    /// Waits until the newest revision is beyond `after`. Waits for ever once the store is closed: nothing moves then.
    pub async fn moved_beyond(&self, after: Revision) -> Revision {
        let mut revision = self.inner.revision.clone();
        let reached = revision.wait_for(|newest| *newest > after).await.map(|newest| *newest);
        match reached {
            Ok(newest) => newest,
            Err(_) => std::future::pending().await,
        }
    }

    /// Every change after `from`; `Err(Expired)` where those are no longer kept, `Err(BadRequest)` where `from` hasn't happened.
    pub fn watch(&self, from: Revision) -> Result<Changes, ApiError> {
        Changes::after(from, self.inner.published.clone(), self.inner.revision.clone())
    }

    /// The pod of a name as the API shows it: the live one, else a retired one on its way out.
    pub fn pod(&self, name: &Name) -> Option<Arc<PodRow>> {
        self.read(|state| state.standing(name).cloned())
    }

    /// The complete set of pods that are the node's, with the revision as generation.
    pub fn assignment(&self, node: &Name) -> Assignment {
        self.read(|state| state.assignment(node, self.inner.cluster_id, self.inner.epoch))
    }

    /// Applies all resources, or none.
    pub async fn apply(&self, resources: Vec<Resource>, dry_run: bool) -> Result<Applied, StoreError> {
        self.decide("apply", move |draft| {
            let applied = apply::apply(draft, resources)?;
            if !dry_run {
                return Ok(Outcome::Keep(applied));
            }
            Ok(Outcome::Discard(apply::as_dry_run(applied, draft)))
        })
        .await
    }

    /// Marks a pod for deletion; one that never had a node, or `force`, is gone at once. Repeating it is not an error while the pod is there.
    pub async fn delete_pod(&self, name: Name, query: DeleteQuery) -> Result<Pod, StoreError> {
        self.write("delete a pod", move |draft| lifecycle::delete(draft, &name, &query)).await
    }

    /// Asks for a restart of every container.
    pub async fn restart_pod(&self, name: Name) -> Result<Pod, StoreError> {
        self.write("restart a pod", move |draft| lifecycle::restart(draft, &name)).await
    }

    /// Writes the scheduler's decisions; those that no longer hold are left out.
    pub async fn place(&self, placings: Vec<Placing>) -> Result<(), StoreError> {
        self.write("place pods", move |draft| {
            lifecycle::place(draft, placings);
            Ok(())
        })
        .await
    }

    /// A node dials: keeps it, or refuses a second machine of its name (`session_live` tells whether the known one is connected) or another
    /// cluster's node.
    pub async fn join(&self, announcement: Announcement, session_live: bool) -> Result<(), StoreError> {
        self.write("let a node join", move |draft| nodes::join(draft, announcement, session_live)).await
    }

    /// Sets a node's condition, with an event if it changed.
    pub async fn set_condition(&self, node: Name, condition: NodeCondition) -> Result<(), StoreError> {
        self.write("set a node's condition", move |draft| nodes::set_condition(draft, &node, condition)).await
    }

    /// Forgets a node; refused while it is Ready or pods are bound to it, unless `force`, which forgets those pods too.
    pub async fn delete_node(&self, name: Name, force: bool) -> Result<Node, StoreError> {
        self.write("delete a node", move |draft| nodes::delete(draft, &name, force)).await
    }

    /// Takes a node's report: facts, statuses of its own pods only, events once each. A pod that was retired and is `stopped` goes.
    pub async fn report(&self, node: Name, report: Report) -> Result<ReportAccepted, StoreError> {
        self.write("take a node's report", move |draft| report::take(draft, &node, report)).await
    }

    /// Events, in the order in which the leader learnt of their newest occurrence, oldest first.
    pub async fn events(&self, query: EventQuery) -> Result<Vec<Event>, StoreError> {
        let wanted = events::Wanted::parse(query)?;
        let reader = self.inner.reader.clone();
        blocking::run(move || {
            // A panic of another reader can't have left a read-only connection half changed.
            let connection = reader.lock().unwrap_or_else(PoisonError::into_inner);
            events::read(&connection, &wanted)
        })
        .await
    }

    /// Drops events over their age (7 days) and number (200 for each object); how many.
    pub async fn collect_garbage(&self) -> Result<usize, StoreError> {
        let (answer, answered) = oneshot::channel();
        let oldest = events::oldest_kept(self.inner.ambient.now());
        self.enqueue(Work::CollectGarbage { oldest, answer })?;
        answered.await.map_err(|_| StoreError::Closed)?
    }

    async fn write<T: Send + 'static>(
        &self,
        operation: &'static str,
        decide: impl FnOnce(&mut Draft<'_>) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.decide(operation, move |draft| decide(draft).map(Outcome::Keep)).await
    }

    async fn decide<T: Send + 'static>(
        &self,
        operation: &'static str,
        decide: impl FnOnce(&mut Draft<'_>) -> Result<Outcome<T>, ApiError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        self.enqueue(Work::Decide(Job::new(operation, decide, answer)))?;
        answered.await.map_err(|_| StoreError::Closed)?
    }

    fn enqueue(&self, work: Work) -> Result<(), StoreError> {
        self.inner.queue.try_send(work).map_err(|refused| match refused {
            mpsc::error::TrySendError::Full(_) => StoreError::Busy,
            mpsc::error::TrySendError::Closed(_) => StoreError::Closed,
        })
    }
}
