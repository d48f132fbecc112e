//! The node's SQLite file: what it was told, what it did, what it has not yet reported. The only SQL of the follower.
//!
//! Writes wait in a bounded queue for one task, which commits all that is waiting in one transaction (a commit with FULL sync took 252 us); each is
//! answered after the commit that holds it. A hollow node keeps nothing on disk (`memory.rs`).

mod images;
mod memory;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cube_api::event::EventKind;
use cube_api::meta::{ClusterId, LifeId, Name, NodeId, Uid};
use cube_api::session::{AssignedPod, Epoch, Generation, NodeEvent};
use include_dir::{Dir, include_dir};
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::ambient::Ambient;
use crate::blocking;
use crate::disk::{Disk, FileSystem};
use crate::follower::plan::Note;
use crate::follower::record::PodRecord;
use crate::sqlite::room::Room;
use crate::sqlite::{self, Refusal};
use crate::tasks::Tasks;
use memory::Outbox;

static MIGRATIONS: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/../migrations/follower");

/// The ledger's file in the data folder.
pub const LEDGER: &str = "follower.db";

/// The most events that wait for the leader; beyond, the oldest go, and one event says how many.
pub const MAX_EVENTS: i64 = 10_000;

/// The reserve beside the ledger, in bytes: what a few hundred pods write to be stopped is below 1 MiB, the events of an absent leader are 4 MiB.
const RESERVE: u64 = 8 << 20;

/// How often the disk's room is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Writes that may wait; a node has at most a few hundred pods, each with one write at a time.
const QUEUE: usize = 1024;

/// Why the ledger didn't do it.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// It can't be opened.
    #[error(transparent)]
    Open(#[from] sqlite::OpenError),
    /// SQLite failed; nothing was changed.
    #[error("the node's ledger failed to {operation}")]
    Sqlite {
        /// What it did.
        operation: &'static str,
        /// SQLite's reason.
        source: rusqlite::Error,
    },
    /// A row doesn't hold what was written.
    #[error("the node's ledger holds a {what} that can't be read: {problem}")]
    Corrupt {
        /// Which.
        what: &'static str,
        /// Why not.
        problem: String,
    },
    /// The server is stopping.
    #[error("the node's ledger is closed")]
    Closed,
}

impl LedgerError {
    /// Whether it is the database itself that is refused.
    pub fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Open(error) => error.refusal(),
            Self::Corrupt { .. } => Some(Refusal::Damaged),
            Self::Sqlite { source, .. } => sqlite::is_damage(source).then_some(Refusal::Damaged),
            Self::Closed => None,
        }
    }
}

/// To which leader the node belongs, and how far it followed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Membership {
    /// Its cluster; none before its first session.
    pub cluster: Option<ClusterId>,
    /// The highest life of a leader that was obeyed.
    pub epoch: Epoch,
    /// Which leader it was that counted that epoch, as far as it said so.
    pub life: Option<LifeId>,
    /// The newest complete assignment; none before the first.
    pub generation: Option<Generation>,
}

/// Whose data folder it is: the name that its containers carry, and the machine that they run on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    /// The node's name.
    pub node: Name,
    /// The machine.
    pub machine_id: String,
    /// Its boot; empty where there is none.
    pub boot_id: String,
}

impl Home {
    /// Whether the folder was moved or copied to another machine since. Containers on one machine may have a machine's identity each; they
    /// share its boot.
    pub fn is_elsewhere(&self, now: &Self) -> bool {
        self.machine_id != now.machine_id && (self.boot_id.is_empty() || self.boot_id != now.boot_id)
    }
}

/// A pod as it is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct KeptPod {
    /// What was assigned.
    pub assigned: AssignedPod,
    /// Whether the newest assignment has it.
    pub current: bool,
    /// What became of it.
    pub record: PodRecord,
}

pub use images::OwnImage;

const UNPOISONED: &str = "nothing panics while it is held";

/// What was found when the ledger was opened.
#[derive(Debug)]
pub struct Opened {
    /// The data folder's identity.
    pub node_id: NodeId,
    /// How often the folder was opened: begins the sequences of pod reports.
    pub starts: u64,
    /// The leader.
    pub membership: Membership,
    /// Where it was used before; none where it is new, or was used by a version that didn't note it.
    pub home: Option<Home>,
    /// The pods.
    pub pods: BTreeMap<Uid, KeptPod>,
}

/// Handle on the ledger. Clones share it.
#[derive(Clone)]
pub struct Ledger {
    keeper: Keeper,
    room: Room,
}

/// Who keeps it.
#[derive(Clone)]
enum Keeper {
    /// The task that writes the file.
    File(mpsc::Sender<Box<dyn Job>>),
    /// Nobody, but for the events that wait.
    Memory(Arc<Mutex<Outbox>>),
}

type Work<T> = Box<dyn FnMut(&Transaction<'_>) -> rusqlite::Result<T> + Send>;

/// A write that waits.
trait Job: Send {
    fn run(&mut self, transaction: &Transaction<'_>) -> rusqlite::Result<()>;
    fn answer(self: Box<Self>, result: rusqlite::Result<()>);
}

struct Typed<T> {
    operation: &'static str,
    work: Work<T>,
    value: Option<T>,
    reply: oneshot::Sender<Result<T, LedgerError>>,
}

impl<T: Send> Job for Typed<T> {
    fn run(&mut self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        self.value = Some((self.work)(transaction)?);
        Ok(())
    }

    fn answer(self: Box<Self>, result: rusqlite::Result<()>) {
        let Self { operation, value, reply, .. } = *self;
        let result = match (result, value) {
            (Ok(()), Some(value)) => Ok(value),
            (Ok(()), None) => Err(LedgerError::Closed),
            (Err(source), _) => Err(LedgerError::Sqlite { operation, source }),
        };
        // Who asked may be gone: a pod's task that was told to end.
        drop(reply.send(result));
    }
}

/// What the ledger of a node that doesn't run says. Looking is no start.
#[derive(Debug)]
pub struct Found {
    /// The leader.
    pub membership: Membership,
    /// Where it was used; none where it wasn't, or by a version that didn't note it.
    pub home: Option<Home>,
    /// The pods.
    pub pods: BTreeMap<Uid, KeptPod>,
}

/// Reads a ledger whose node doesn't run; none where there is no such file.
pub async fn look(path: &Path) -> Result<Option<Found>, LedgerError> {
    let path = path.to_owned();
    blocking::run(move || {
        if !path.exists() {
            return Ok(None);
        }
        let found = sqlite::open(&path, &MIGRATIONS, &[], |connection| {
            let tx = connection.transaction().map_err(|source| LedgerError::Sqlite { operation: "read itself", source })?;
            read(&tx)
        });
        found.map(|(_, found)| Some(found))
    })
    .await
}

impl Ledger {
    /// Opens or makes the ledger and reads it.
    pub async fn open(path: &Path, ambient: &Ambient, tasks: &Tasks) -> Result<(Self, Opened), LedgerError> {
        Self::open_on(path, Arc::new(FileSystem::of(path, RESERVE)), ambient, tasks).await
    }

    /// As [`Ledger::open`], on this disk.
    pub async fn open_on(path: &Path, disk: Arc<dyn Disk>, ambient: &Ambient, tasks: &Tasks) -> Result<(Self, Opened), LedgerError> {
        let (path, new_id, room) = (path.to_owned(), NodeId(ambient.uuid()), Room::new(disk));
        let opening = room.clone();
        let (connection, opened) = blocking::run(move || {
            let lacks = |error: &LedgerError| opening.is_cause(error);
            let opened = opening.with_reserve(lacks, || {
                sqlite::open(&path, &MIGRATIONS, &[], |connection| {
                    opening.limit_pages(connection);
                    read_all(connection, new_id)
                })
            });
            opening.look();
            opened
        })
        .await?;
        let (queue, waiting) = mpsc::channel(QUEUE);
        tasks.spawn("ledger", write_all(connection, room.clone(), waiting, tasks.stopping().clone()));
        Ok((Self { keeper: Keeper::File(queue), room }, opened))
    }

    /// The room on the node's disk. Without any, what stops a pod is still written: that may be what makes room.
    pub fn room(&self) -> &Room {
        &self.room
    }

    /// Writes a cluster and a life of its leader, of which there is no assignment yet.
    pub async fn join(&self, cluster: ClusterId, epoch: Epoch, life: Option<LifeId>) -> Result<(), LedgerError> {
        self.write_for_next_start("join a cluster", move |tx| {
            set_meta(tx, "cluster_id", &cluster.to_string())?;
            set_meta(tx, "epoch", &epoch.0.to_string())?;
            tx.execute("DELETE FROM meta WHERE key IN ('life', 'generation')", [])?;
            life.map_or(Ok(()), |life| set_meta(tx, "life", &life.to_string()))
        })
        .await
    }

    /// Writes whose folder it is.
    pub async fn settle(&self, home: Home) -> Result<(), LedgerError> {
        self.write_for_next_start("write where it is used", move |tx| {
            set_meta(tx, "node", home.node.as_str())?;
            set_meta(tx, "machine_id", &home.machine_id)?;
            set_meta(tx, "boot_id", &home.boot_id)
        })
        .await
    }

    /// Writes a complete assignment. `pods` has every pod of which something else is wanted now.
    pub async fn assign(&self, epoch: Epoch, generation: Generation, pods: Vec<KeptPod>) -> Result<(), LedgerError> {
        self.write_for_next_start("write an assignment", move |tx| {
            set_meta(tx, "epoch", &epoch.0.to_string())?;
            set_meta(tx, "generation", &generation.0.to_string())?;
            keep_pods(tx, &pods)
        })
        .await
    }

    /// Writes pods that no assignment has, but whose containers were found.
    pub async fn keep(&self, pods: Vec<KeptPod>) -> Result<(), LedgerError> {
        self.write_for_next_start("keep pods", move |tx| keep_pods(tx, &pods)).await
    }

    /// Writes a pod's record and what happened to it, in order.
    pub async fn save(&self, uid: Uid, pod: Name, record: Option<PodRecord>, notes: Vec<Note>, at: Timestamp) -> Result<(), LedgerError> {
        if let Keeper::Memory(outbox) = &self.keeper {
            outbox.lock().expect(UNPOISONED).add(uid, &pod, notes, at);
            return Ok(());
        }
        self.write("write a pod's record", move |tx| {
            if let Some(record) = &record {
                tx.prepare_cached("UPDATE pods SET record = ?2 WHERE uid = ?1")?.execute(params![uid.to_string(), json(record)?])?;
            }
            for note in &notes {
                tx.prepare_cached("INSERT INTO outbox (uid, pod, kind, reason, message, at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?
                    .execute(params![uid.to_string(), pod.as_str(), json(&note.kind)?, note.reason, note.message, at.to_string()])?;
            }
            if notes.is_empty() { Ok(()) } else { drop_oldest_events(tx) }
        })
        .await
    }

    /// Forgets pods whose containers are gone and that the leader has let go of.
    pub async fn forget(&self, uids: Vec<Uid>) -> Result<(), LedgerError> {
        self.write_for_next_start("forget pods", move |tx| {
            for uid in &uids {
                tx.prepare_cached("DELETE FROM pods WHERE uid = ?1")?.execute([uid.to_string()])?;
            }
            Ok(())
        })
        .await
    }

    /// The oldest events that the leader has not accepted, at most so many.
    pub async fn events(&self, limit: usize) -> Result<Vec<NodeEvent>, LedgerError> {
        if let Keeper::Memory(outbox) = &self.keeper {
            return Ok(outbox.lock().expect(UNPOISONED).oldest(limit));
        }
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.write("read events", move |tx| {
            let mut rows =
                tx.prepare_cached("SELECT sequence, uid, pod, kind, reason, message, at FROM outbox ORDER BY sequence LIMIT ?1")?;
            rows.query_map([limit], read_event)?.collect()
        })
        .await
    }

    /// The leader has every event up to this sequence.
    pub async fn events_accepted(&self, through: u64) -> Result<(), LedgerError> {
        if let Keeper::Memory(outbox) = &self.keeper {
            outbox.lock().expect(UNPOISONED).accepted(through);
            return Ok(());
        }
        let through = i64::try_from(through).unwrap_or(i64::MAX);
        self.write("drop accepted events", move |tx| {
            tx.prepare_cached("DELETE FROM outbox WHERE sequence <= ?1")?.execute([through])?;
            Ok(())
        })
        .await
    }

    /// Writes what only the next start reads: in memory there is none.
    async fn write_for_next_start(
        &self,
        operation: &'static str,
        work: impl FnMut(&Transaction<'_>) -> rusqlite::Result<()> + Send + 'static,
    ) -> Result<(), LedgerError> {
        match &self.keeper {
            Keeper::File(_) => self.write(operation, work).await,
            Keeper::Memory(_) => Ok(()),
        }
    }

    async fn write<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl FnMut(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, LedgerError> {
        let Keeper::File(queue) = &self.keeper else { return Err(LedgerError::Closed) };
        let (reply, answer) = oneshot::channel();
        let job = Box::new(Typed { operation, work: Box::new(work), value: None, reply });
        queue.send(job).await.map_err(|_| LedgerError::Closed)?;
        answer.await.map_err(|_| LedgerError::Closed)?
    }
}

/// Commits what is waiting until the server stops and the queue is empty.
async fn write_all(connection: Connection, room: Room, mut waiting: mpsc::Receiver<Box<dyn Job>>, stopping: CancellationToken) {
    let connection = Arc::new(Mutex::new(connection));
    let mut look = tokio::time::interval_at(Instant::now() + LOOK_EVERY, LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let mut batch = Vec::new();
        tokio::select! {
            biased;
            _ = look.tick() => {}
            taken = waiting.recv_many(&mut batch, QUEUE) => if taken == 0 { return },
            () = stopping.cancelled() => return,
        }
        let (connection, room) = (connection.clone(), room.clone());
        blocking::run(move || {
            if batch.is_empty() {
                return room.look();
            }
            commit(&mut connection.lock().expect("only this task takes it, and a panic ended it"), &room, batch);
        })
        .await;
    }
}

/// All in one transaction; if that fails, each alone, so that one bad write does not take the others with it.
fn commit(connection: &mut Connection, room: &Room, mut batch: Vec<Box<dyn Job>>) {
    if batch.len() > 1 && transact(connection, room, &mut batch).is_ok() {
        return batch.into_iter().for_each(|job| job.answer(Ok(())));
    }
    for mut job in batch {
        let result = transact(connection, room, std::slice::from_mut(&mut job));
        job.answer(result);
    }
}

fn transact(connection: &mut Connection, room: &Room, jobs: &mut [Box<dyn Job>]) -> rusqlite::Result<()> {
    let lacks = |error: &rusqlite::Error| room.is_lacking(error);
    room.with_reserve(lacks, || {
        room.make_ready(connection);
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for job in &mut *jobs {
            job.run(&transaction)?;
        }
        transaction.commit()
    })
}

fn read_all(connection: &mut Connection, new_id: NodeId) -> Result<Opened, LedgerError> {
    let failed = |source| LedgerError::Sqlite { operation: "read itself", source };
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
    let node_id = meta(&tx, "node_id")?.unwrap_or(new_id);
    let starts = meta::<u64>(&tx, "starts")?.unwrap_or(0) + 1;
    let Found { membership, home, pods } = read(&tx)?;
    set_meta(&tx, "node_id", &node_id.to_string()).map_err(failed)?;
    set_meta(&tx, "starts", &starts.to_string()).map_err(failed)?;
    tx.commit().map_err(failed)?;
    Ok(Opened { node_id, starts, membership, home, pods })
}

fn read(tx: &Transaction<'_>) -> Result<Found, LedgerError> {
    let membership = Membership {
        cluster: meta(tx, "cluster_id")?,
        epoch: Epoch(meta(tx, "epoch")?.unwrap_or(0)),
        life: meta(tx, "life")?,
        generation: meta(tx, "generation")?.map(Generation),
    };
    let home = match (meta(tx, "node")?, meta(tx, "machine_id")?, meta(tx, "boot_id")?) {
        (Some(node), Some(machine_id), Some(boot_id)) => Some(Home { node, machine_id, boot_id }),
        _ => None,
    };
    Ok(Found { membership, home, pods: read_pods(tx)? })
}

fn read_pods(tx: &Transaction<'_>) -> Result<BTreeMap<Uid, KeptPod>, LedgerError> {
    let failed = |source| LedgerError::Sqlite { operation: "read its pods", source };
    let corrupt = |error: serde_json::Error| LedgerError::Corrupt { what: "pod", problem: error.to_string() };
    let mut statement = tx.prepare("SELECT assigned, current, record FROM pods").map_err(failed)?;
    let rows =
        statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, bool>(1)?, row.get::<_, String>(2)?))).map_err(failed)?;
    let mut pods = BTreeMap::new();
    for row in rows {
        let (assigned, current, record) = row.map_err(failed)?;
        let assigned: AssignedPod = serde_json::from_str(&assigned).map_err(corrupt)?;
        let record = serde_json::from_str(&record).map_err(corrupt)?;
        pods.insert(assigned.uid, KeptPod { assigned, current, record });
    }
    Ok(pods)
}

fn meta<T: std::str::FromStr>(tx: &Transaction<'_>, key: &'static str) -> Result<Option<T>, LedgerError>
where
    T::Err: std::fmt::Display,
{
    let value: Option<String> = tx
        .query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get(0))
        .optional()
        .map_err(|source| LedgerError::Sqlite { operation: "read itself", source })?;
    value.map(|text| text.parse().map_err(|error: T::Err| LedgerError::Corrupt { what: key, problem: error.to_string() })).transpose()
}

fn set_meta(tx: &Transaction<'_>, key: &str, value: &str) -> rusqlite::Result<()> {
    tx.prepare_cached("INSERT INTO meta (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = excluded.value")?
        .execute([key, value])?;
    Ok(())
}

/// What is wanted of pods; the record is written for new ones only, a pod's task owns it from then on.
fn keep_pods(tx: &Transaction<'_>, pods: &[KeptPod]) -> rusqlite::Result<()> {
    let mut keep = tx.prepare_cached(
        "INSERT INTO pods (uid, assigned, current, record) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (uid) DO UPDATE SET assigned = excluded.assigned, current = excluded.current",
    )?;
    for pod in pods {
        keep.execute(params![pod.assigned.uid.to_string(), json(&pod.assigned)?, pod.current, json(&pod.record)?])?;
    }
    Ok(())
}

fn json(value: &impl serde::Serialize) -> rusqlite::Result<String> {
    serde_json::to_string(value).map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}

/// Keeps the outbox bounded: the newest of the events that go becomes one that says how many went.
fn drop_oldest_events(tx: &Transaction<'_>) -> rusqlite::Result<()> {
    let count: i64 = tx.prepare_cached("SELECT count(*) FROM outbox")?.query_row([], |row| row.get(0))?;
    if count <= MAX_EVENTS {
        return Ok(());
    }
    let (last, dropped): (i64, i64) = tx
        .prepare_cached(
            "SELECT max(sequence), sum(max(dropped, 1)) FROM (SELECT sequence, dropped FROM outbox ORDER BY sequence LIMIT ?1)",
        )?
        .query_row([count - MAX_EVENTS + 1], |row| Ok((row.get(0)?, row.get(1)?)))?;
    tx.prepare_cached("DELETE FROM outbox WHERE sequence < ?1")?.execute([last])?;
    let message = format!("{dropped} older events of this node were dropped: the leader was away for too long");
    tx.prepare_cached("UPDATE outbox SET kind = ?2, reason = 'EventsDropped', message = ?3, dropped = ?4 WHERE sequence = ?1")?
        .execute(params![last, json(&EventKind::Warning)?, message, dropped])?;
    Ok(())
}

fn read_event(row: &rusqlite::Row<'_>) -> rusqlite::Result<NodeEvent> {
    Ok(NodeEvent {
        sequence: u64::try_from(row.get::<_, i64>(0)?).unwrap_or_default(),
        uid: column(row, 1, |text| text.parse())?,
        pod: column(row, 2, |text| text.parse())?,
        kind: column(row, 3, |text| serde_json::from_str(text))?,
        reason: row.get(4)?,
        message: row.get(5)?,
        at: column(row, 6, |text| text.parse())?,
    })
}

fn column<T, E>(row: &rusqlite::Row<'_>, index: usize, parse: impl Fn(&str) -> Result<T, E>) -> rusqlite::Result<T>
where
    E: std::error::Error + Send + Sync + 'static,
{
    let text: String = row.get(index)?;
    parse(&text).map_err(|error| rusqlite::Error::FromSqlConversionFailure(index, rusqlite::types::Type::Text, Box::new(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_outbox_is_bounded_and_says_what_it_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let (ambient, tasks) = (Ambient::system(), Tasks::default());
        let (ledger, _) = Ledger::open(&folder.path().join("follower.db"), &ambient, &tasks).await.unwrap();
        let notes = |count: usize| (0..count).map(|number| Note::normal("Started", format!("event {number}"))).collect::<Vec<_>>();
        let (uid, pod) = (Uid(uuid::Uuid::nil()), Name::new("web").unwrap());
        for count in [10_000, 5, 3] {
            ledger.save(uid, pod.clone(), None, notes(count), ambient.now()).await.unwrap();
        }
        let events = ledger.events(20_000).await.unwrap();
        assert_eq!(events.len(), 10_000);
        assert_eq!(events[0].reason, "EventsDropped");
        assert_eq!(events[0].message, "9 older events of this node were dropped: the leader was away for too long");
        assert_eq!((events[0].sequence, events[1].sequence, events[9_999].sequence), (9, 10, 10_008));
        ledger.events_accepted(10_000).await.unwrap();
        assert_eq!(ledger.events(20_000).await.unwrap().len(), 8);
    }

    #[tokio::test]
    async fn sequences_and_identity_survive_reopening() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("follower.db");
        let (ambient, tasks) = (Ambient::system(), Tasks::default());
        let (ledger, first) = Ledger::open(&path, &ambient, &tasks).await.unwrap();
        let life = LifeId(uuid::Uuid::from_u128(7));
        let (uid, pod) = (Uid(uuid::Uuid::nil()), Name::new("web").unwrap());
        ledger.save(uid, pod.clone(), None, vec![Note::normal("Started", "one")], ambient.now()).await.unwrap();
        ledger.events_accepted(1).await.unwrap();
        ledger.join(ClusterId(uuid::Uuid::nil()), Epoch(4), Some(life)).await.unwrap();
        let (ledger, second) = Ledger::open(&path, &ambient, &Tasks::default()).await.unwrap();
        assert_eq!((second.node_id, second.starts, second.membership.epoch), (first.node_id, first.starts + 1, Epoch(4)));
        assert_eq!(second.membership.life, Some(life));
        ledger.save(uid, pod, None, vec![Note::normal("Started", "two")], ambient.now()).await.unwrap();
        assert_eq!(ledger.events(10).await.unwrap()[0].sequence, 2);
    }
}
