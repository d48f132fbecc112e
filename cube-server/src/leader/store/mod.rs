//! Every SQL statement of the leader, revisions and the watch.
//!
//! One writer commits what is waiting in one transaction (group commit); a write is acknowledged after the commit that holds it. Reads come from
//! a typed state in memory that follows the commits.
//!
//! The way of a write: a method of [`Store`] queues a decision (`apply.rs`, `create.rs`, `lifecycle.rs`, `objects.rs`, `owned.rs`, `jobs.rs`, `nodes.rs`, `cordon.rs`, `fence.rs`, `lost.rs`, `report.rs`:
//! plain functions over the draft of `draft.rs`) -> `writer.rs` runs what is queued, writes the rows (`rows.rs`), commits -> `watch.rs` publishes the state and the changes.
//! `backup.rs` and `restore.rs` work on the file. It knows neither HTTP nor how pods are placed.

mod apply;
mod avoid;
pub mod backup;
mod cordon;
mod create;
mod deployments;
mod draft;
mod error;
mod events;
mod fence;
mod jobs;
mod lanes;
mod lifecycle;
mod lost;
mod metrics;
mod nodes;
mod objects;
mod owned;
mod report;
pub mod restore;
mod rows;
mod space;
mod state;
mod templates;
#[cfg(test)]
mod tests;
mod volumes;
mod watch;
mod writer;

use std::collections::vec_deque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use cube_api::ApiError;
use cube_api::deployment::Deployment;
use cube_api::event::{Event, EventKind};
use cube_api::manifest::Resource;
use cube_api::meta::{ClusterId, LabelChanges, LifeId, Name, ResourceRef, Revision, Uid};
use cube_api::node::{Node, NodeCondition};
use cube_api::object::Object;
use cube_api::pod::{OnNodeLoss, Phase, Pod, PodSpec};
use cube_api::routes::{Applied, CordonQuery, DeleteQuery, DrainQuery, EventQuery, RolloutAction, RolloutQuery};
use cube_api::session::{Announcement, Assignment, Epoch, Report, ReportAccepted};
use include_dir::{Dir, include_dir};
use jiff::Timestamp;
use rusqlite::Connection;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

pub use self::cordon::DrainPass;
pub use self::create::Identity;
pub use self::error::StoreError;
pub use self::fence::Fence;
pub use self::metrics::StoreMetrics;
pub use self::owned::{NewPod, OwnerPass};
pub(crate) use self::state::asked_labels;
pub use self::state::{NodeLoad, Reserved, State};
pub use self::watch::{Change, Changed, Changes};

use self::backup::{BackupError, Contents};
use self::draft::Draft;
use self::lanes::{Entrance, Lane};
use self::rows::Loaded;
use self::space::Space;
use self::templates::Templates;
use self::watch::Published;
use self::writer::{Job, Outcome, Work, Writer};
use crate::ambient::Ambient;
use crate::disk::{self, Disk, FileSystem};
use crate::sqlite::room::Room;
use crate::tasks::Tasks;
use crate::{blocking, latest, sqlite};

/// The leader's database in its data folder.
pub const FILE: &str = "leader.db";

/// Tables that nobody decides by.
const LOGS: [&str; 1] = ["events"];

static MIGRATIONS: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/../migrations/leader");

/// Pages in memory, 24 MiB: with SQLite's 2 MiB a database of 200 MB is read again and again, page by page, from the system's cache, and a commit of
/// some thousand rows writes its pages twice. And 8 MiB of WAL before it is brought into the file: pages that change often are written there once.
const TUNING: &str = "PRAGMA cache_size = -24576; PRAGMA wal_autocheckpoint = 2048";

/// Handle on the store. Clones share it.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    cluster_id: ClusterId,
    epoch: Epoch,
    life: LifeId,
    ambient: Ambient,
    published: Arc<Published>,
    revision: latest::Receiver<Revision>,
    queue: Entrance,
    /// Reads events beside the writer. The lock is held by blocking threads only.
    reader: Arc<Mutex<Connection>>,
    path: PathBuf,
    room: Room,
    metrics: StoreMetrics,
}

/// What there is of the store at a moment, for [`crate::leader::metrics`].
#[derive(Debug, Clone, Copy)]
pub struct Figures {
    /// Writes that wait, and the most that may.
    pub queue: (usize, usize),
    /// Changes in the ring, and about their bytes.
    pub ring: (usize, usize),
    /// Bytes of the database and of its WAL.
    pub files: (u64, u64),
    /// Events that are kept.
    pub events: u64,
    /// Of the disk, where it can be told.
    pub disk: Option<disk::Space>,
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
    /// Whether its name is free for a new pod, or has one, already (else it is freed when this one is gone).
    pub replaced: bool,
}

impl PodRow {
    /// Whether its containers have ended for good.
    pub fn is_finished(&self) -> bool {
        match self.pod.status.phase {
            Phase::Pending | Phase::Running => false,
            Phase::Succeeded | Phase::Failed => true,
        }
    }

    /// Whether it waits for a node.
    pub fn is_unplaced(&self) -> bool {
        self.pod.placement.node.is_none() && !self.is_finished()
    }

    /// Whether its node has something to do with it yet: containers to run, or to stop and remove.
    pub fn uses_its_node(&self) -> bool {
        self.retired.is_some() || !self.is_finished()
    }

    /// The node where alone it may run, and may run now (`onNodeLoss: wait`): only that node's word, or that it is dead, frees its name.
    pub fn pinned_to(&self) -> Option<&Name> {
        match self.pod.spec.node_loss() {
            OnNodeLoss::Wait if !self.is_finished() => self.pod.placement.node.as_ref(),
            OnNodeLoss::Wait | OnNodeLoss::Replace => None,
        }
    }
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

impl Store {
    /// Opens or makes the database, counts the epoch up, reads the state and starts the writer, which ends with `tasks`: it finishes what is
    /// queued then.
    pub async fn open(path: &Path, ambient: Ambient, tasks: &Tasks) -> anyhow::Result<Self> {
        Self::open_on(path, Arc::new(FileSystem::of(path, space::RESERVE)), ambient, tasks).await
    }

    /// As [`Store::open`], on this disk.
    pub async fn open_on(path: &Path, disk: Arc<dyn Disk>, ambient: Ambient, tasks: &Tasks) -> anyhow::Result<Self> {
        if restore::was_cut_off(path) {
            anyhow::bail!("a restore of {} was cut off before its end: run it again, with the same backup", path.display());
        }
        let new_cluster = ClusterId(ambient.uuid());
        let (file, room) = (path.to_owned(), Room::new(disk));
        let opening = room.clone();
        let (connection, reader, loaded) =
            blocking::run(move || open_with_reserve(&file, &opening, new_cluster)).await.context("can't open the leader's store")?;

        let (cluster_id, epoch) = (loaded.cluster_id, loaded.epoch);
        let (queue, waiting) = lanes::open();
        let (moved, revision) = latest::channel(loaded.state.revision);
        let published = Arc::new(Published::new(loaded.state.clone()));
        let metrics = StoreMetrics::default();
        let writer = Writer {
            connection,
            events_bounded_at: loaded.state.revision,
            state: loaded.state,
            ambient: ambient.clone(),
            cluster_id,
            published: published.clone(),
            moved,
            space: Space { room: room.clone(), told: false },
            metrics: metrics.clone(),
            templates: Templates::default(),
            new_events: 0,
        };
        tasks.spawn("store writer", writer.run(waiting, tasks.stopping().clone()));
        let life = LifeId(ambient.uuid());
        let reader = Arc::new(Mutex::new(reader));
        let path = path.to_owned();
        let inner = Inner { cluster_id, epoch, life, ambient, published, revision, queue, reader, path, room, metrics };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// This cluster.
    pub fn cluster_id(&self) -> ClusterId {
        self.inner.cluster_id
    }

    /// The place of this life of the leader among the lives of its database.
    pub fn epoch(&self) -> Epoch {
        self.inner.epoch
    }

    /// This life of the leader.
    pub fn life(&self) -> LifeId {
        self.inner.life
    }

    /// Looks at the state together with every change after a revision, oldest first; `None` where those are no longer kept. `look` must be short.
    pub fn read_since<T>(&self, from: Revision, look: impl FnOnce(&State, vec_deque::Iter<'_, Change>) -> T) -> Option<T> {
        self.inner.published.read_since(from, look)
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
        Changes::after(from, self.inner.published.clone(), self.inner.revision.clone(), &self.inner.metrics)
    }

    /// The pod of a name as the API shows it ([`State::shown`]).
    pub fn pod(&self, name: &Name) -> Option<Arc<PodRow>> {
        self.read(|state| state.shown(name).cloned())
    }

    /// The complete set of pods that are the node's, with the revision as generation.
    pub fn assignment(&self, node: &Name) -> Assignment<Arc<PodSpec>> {
        self.read(|state| state.assignment(node, self.inner.cluster_id, self.inner.epoch))
    }

    /// Why nothing new is taken, while the disk is full.
    pub fn trouble(&self) -> Option<String> {
        let room = &self.inner.room;
        room.is_short().then(|| format!("the leader's disk is full: {}", room.remedy()))
    }

    /// What the store counts.
    pub fn metrics(&self) -> &StoreMetrics {
        &self.inner.metrics
    }

    /// What there is now.
    pub async fn figures(&self) -> Result<Figures, StoreError> {
        let inner = self.inner.clone();
        blocking::run(move || {
            let bytes = |path: &Path| std::fs::metadata(path).map_or(0, |metadata| metadata.len());
            let failed = |source| StoreError::Sqlite { operation: "count its events", source };
            Ok(Figures {
                queue: inner.queue.figures(),
                ring: inner.published.ring(),
                files: (bytes(&inner.path), bytes(&inner.path.with_extension("db-wal"))),
                events: events::count(&inner.reader.lock().unwrap_or_else(PoisonError::into_inner)).map_err(failed)?,
                disk: inner.room.disk().space().ok(),
            })
        })
        .await
    }

    /// Applies all resources, or none.
    pub async fn apply(&self, resources: Vec<Resource>, dry_run: bool) -> Result<Applied, StoreError> {
        if !dry_run {
            self.has_room()?;
        }
        let lane = if resources.len() <= lanes::FEW { Lane::People } else { Lane::Bulk };
        self.decide(lane, "apply", move |draft| {
            let applied = apply::apply(draft, resources)?;
            if !dry_run {
                return Ok(Outcome::Keep(applied));
            }
            Ok(Outcome::Discard(apply::as_dry_run(applied, draft)))
        })
        .await
    }

    /// Marks a pod for deletion; one that never had a node, or `force`, is gone at once. Repeating it is not an error while the pod is there.
    /// `force` is refused for one that must not run twice and may still run ([`PodRow::pinned_to`]).
    pub async fn delete_pod(&self, name: Name, query: DeleteQuery) -> Result<Pod, StoreError> {
        self.write(Lane::People, "delete a pod", move |draft| lifecycle::delete(draft, &name, &query)).await
    }

    /// As [`Store::delete_pod`], of a resource that is neither pod nor node. One that owns pods is marked, and goes when they are gone.
    pub async fn delete_object(&self, reference: ResourceRef, query: DeleteQuery) -> Result<Object, StoreError> {
        self.write(Lane::People, "delete a resource", move |draft| objects::delete(draft, &reference, &query)).await
    }

    /// Changes how many pods a deployment has.
    pub async fn scale(&self, name: Name, replicas: u32) -> Result<Deployment, StoreError> {
        self.write(Lane::People, "scale a deployment", move |draft| deployments::scale(draft, &name, replicas)).await
    }

    /// Notes what a person wants of a deployment's rollout.
    pub async fn rollout(&self, name: Name, action: RolloutAction, query: RolloutQuery) -> Result<Deployment, StoreError> {
        self.has_room()?;
        self.write(Lane::People, "change a rollout", move |draft| deployments::rollout(draft, &name, action, query)).await
    }

    /// Writes what a loop decided of a resource that owns others, if that still is as it was looked at; whether it was.
    pub async fn settle(&self, pass: OwnerPass) -> Result<bool, StoreError> {
        self.write(Lane::Loops, "settle what a resource owns", move |draft| Ok(owned::settle(draft, pass))).await
    }

    /// The resources that are being deleted and are there for what they own.
    pub fn leaving_objects(&self) -> (Revision, Vec<ResourceRef>) {
        self.read(|state| (state.revision, owned::leaving(state)))
    }

    /// Goes on with the delete of a resource that owns others.
    pub async fn go_on_with_delete(&self, reference: ResourceRef) -> Result<(), StoreError> {
        self.write(Lane::Loops, "go on with a delete", move |draft| {
            owned::go_on_with_delete(draft, &reference);
            Ok(())
        })
        .await
    }

    /// Makes a job by a cronjob's template, whatever its schedule says; without a name, under one that is made up.
    pub async fn trigger_cronjob(&self, cronjob: Name, name: Option<Name>) -> Result<Object, StoreError> {
        self.has_room()?;
        self.write(Lane::People, "trigger a cronjob", move |draft| jobs::trigger(draft, &cronjob, name)).await
    }

    /// Asks for a restart of every container.
    pub async fn restart_pod(&self, name: Name) -> Result<Pod, StoreError> {
        self.has_room()?;
        self.write(Lane::People, "restart a pod", move |draft| lifecycle::restart(draft, &name)).await
    }

    /// Writes the scheduler's decisions; those that no longer hold are left out.
    pub async fn place(&self, placings: Vec<Placing>) -> Result<(), StoreError> {
        self.write(Lane::Loops, "place pods", move |draft| {
            lifecycle::place(draft, placings);
            Ok(())
        })
        .await
    }

    /// A node dials: keeps it, or refuses a second machine of its name (`session_live` tells whether the known one is connected) or another
    /// cluster's node.
    pub async fn join(&self, announcement: Announcement, session_live: bool) -> Result<(), StoreError> {
        self.write(Lane::Nodes, "let a node join", move |draft| {
            let (node, held, is_known) = (announcement.node.clone(), announcement.pods.clone(), announcement.cluster_id.is_some());
            nodes::join(draft, announcement, session_live)?;
            fence::joined(draft, &node, held, is_known);
            Ok(())
        })
        .await
    }

    /// Ends what a restore began: pods may be placed again.
    pub async fn lift_fence(&self) -> Result<(), StoreError> {
        self.write(Lane::Loops, "end the wait after a restore", |draft| {
            draft.put_fence(None);
            Ok(())
        })
        .await
    }

    /// Notes what a person should know of a node.
    pub async fn warn_of_node(&self, node: Name, reason: &'static str, message: String) -> Result<(), StoreError> {
        self.write(Lane::Nodes, "note an event of a node", move |draft| {
            draft.node_event(&node, EventKind::Warning, reason, message);
            Ok(())
        })
        .await
    }

    /// Sets a node's condition, with an event if it changed.
    pub async fn set_condition(&self, node: Name, condition: NodeCondition) -> Result<(), StoreError> {
        self.write(Lane::Loops, "set a node's condition", move |draft| nodes::set_condition(draft, &node, condition)).await
    }

    /// Marks a node lost and replaces its pods, those that wait for it excepted; nothing, if the node has changed since `as_of`.
    pub async fn lose_node(&self, node: Name, as_of: Revision, reason: String) -> Result<(), StoreError> {
        self.write(Lane::Loops, "mark a node lost", move |draft| {
            lost::lose(draft, &node, as_of, reason);
            Ok(())
        })
        .await
    }

    /// Lets a node take no new pods. Repeating it is no change.
    pub async fn cordon_node(&self, name: Name, query: CordonQuery) -> Result<Node, StoreError> {
        self.has_room()?;
        self.write(Lane::People, "cordon a node", move |draft| cordon::cordon(draft, &name, query)).await
    }

    /// Lets a node take pods again; a drain is over by that.
    pub async fn uncordon_node(&self, name: Name) -> Result<Node, StoreError> {
        self.write(Lane::People, "uncordon a node", move |draft| cordon::uncordon(draft, &name)).await
    }

    /// Notes that a node's pods are to go; the drain loop moves them.
    pub async fn drain_node(&self, name: Name, query: DrainQuery) -> Result<Node, StoreError> {
        self.has_room()?;
        self.write(Lane::People, "drain a node", move |draft| cordon::drain(draft, &name, query)).await
    }

    /// Writes the drain loop's decisions about a node; those that no longer hold are left out.
    pub async fn go_on_with_drain(&self, pass: DrainPass) -> Result<(), StoreError> {
        self.write(Lane::Loops, "go on with a drain", move |draft| {
            cordon::go_on(draft, pass);
            Ok(())
        })
        .await
    }

    /// Changes a node's labels, over what it announces.
    pub async fn label_node(&self, name: Name, changes: LabelChanges) -> Result<Node, StoreError> {
        self.has_room()?;
        self.write(Lane::People, "label a node", move |draft| cordon::label(draft, &name, changes)).await
    }

    /// Forgets a node; refused while it is Ready or has unfinished pods, unless `force`, which replaces those pods elsewhere.
    pub async fn delete_node(&self, name: Name, force: bool) -> Result<Node, StoreError> {
        self.write(Lane::People, "delete a node", move |draft| nodes::delete(draft, &name, force)).await
    }

    /// Takes a node's report: facts, statuses of its own pods only, events once each. A pod that was retired and is `stopped` goes.
    /// `place` is kept while the report is in memory: one whose sender has hung up still waits for the writer.
    pub async fn report(&self, node: Name, report: Report, place: impl Send + 'static) -> Result<ReportAccepted, StoreError> {
        let take = move |draft: &mut Draft<'_>| {
            let _place = place;
            report::take(draft, &node, report)
        };
        self.write(Lane::Nodes, "take a node's report", take).await
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
        self.enqueue(Lane::Loops, Work::CollectGarbage { oldest, answer })?;
        answered.await.map_err(|_| StoreError::Closed)?
    }

    /// Backs the database up into a folder, beside its writer, and deletes the oldest such backups of this cluster over `keep`.
    pub async fn back_up(&self, folder: PathBuf, keep: usize) -> Result<(PathBuf, Contents), BackupError> {
        let Inner { path, cluster_id, ambient, .. } = &*self.inner;
        let (path, cluster_id, now) = (path.clone(), *cluster_id, ambient.now());
        blocking::run(move || backup::take_scheduled(&path, cluster_id, &folder, keep, now)).await
    }

    /// When the newest backup in a folder was taken; none if it has none of this cluster.
    pub async fn last_backup(&self, folder: PathBuf) -> Result<Option<Timestamp>, BackupError> {
        let cluster_id = self.inner.cluster_id;
        let found = blocking::run(move || backup::scheduled(&folder, Some(cluster_id))).await?;
        Ok(found.last().map(|newest| newest.taken_at))
    }

    /// Refuses what people ask for that makes the database grow, while the disk is full: what makes room, and what was promised before, goes on.
    fn has_room(&self) -> Result<(), StoreError> {
        if !self.inner.room.is_short() {
            return Ok(());
        }
        self.inner.metrics.no_space.inc();
        Err(space::no_space(&self.inner.room))
    }

    async fn write<T: Send + 'static>(
        &self,
        lane: Lane,
        operation: &'static str,
        decide: impl FnOnce(&mut Draft<'_>) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.decide(lane, operation, move |draft| decide(draft).map(Outcome::Keep)).await
    }

    async fn decide<T: Send + 'static>(
        &self,
        lane: Lane,
        operation: &'static str,
        decide: impl FnOnce(&mut Draft<'_>) -> Result<Outcome<T>, ApiError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        self.enqueue(lane, Work::Decide(Job::new(operation, decide, answer)))?;
        answered.await.map_err(|_| StoreError::Closed)?
    }

    fn enqueue(&self, lane: Lane, work: Work) -> Result<(), StoreError> {
        let entered = self.inner.queue.enter(lane, work);
        if let Err(StoreError::Busy) = &entered {
            self.inner.metrics.busy.inc();
        }
        entered
    }
}

/// A full disk must not keep a leader from serving what it has: counting the epoch up takes room out of the reserve, if need be.
fn open_with_reserve(path: &Path, room: &Room, new_cluster: ClusterId) -> anyhow::Result<(Connection, Connection, Loaded)> {
    let lacks = |error: &anyhow::Error| room.is_cause(error.as_ref());
    let opened = room.with_reserve(lacks, || {
        let read = |connection: &mut Connection| {
            room.limit_pages(connection);
            rows::load(connection, new_cluster)
        };
        let (connection, loaded) = sqlite::open::<_, StoreError>(path, &MIGRATIONS, &LOGS, read)?;
        connection.execute_batch(TUNING)?;
        Ok((connection, sqlite::open_read_only(path)?, loaded))
    })?;
    // Only now: what the start needed was not to be had out of it.
    room.look();
    Ok(opened)
}
