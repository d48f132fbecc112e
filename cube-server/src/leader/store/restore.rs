//! Brings a backup back, so that nobody takes the past for the present.
//!
//! A backup's leader would count on from where the backup was taken, and others have seen it further: it would give revisions a second time, and be an
//! older life to followers that obeyed a later one. So both counters are moved to where no life of this cluster has been, and the leader begins
//! behind a fence (`fence.rs`).
//!
//! The database that was there is never deleted. From the first rename to the last there is a marker beside it, with which no leader starts: else
//! one that is started after a crash in between would find an empty folder, or the new database beside the old one's WAL.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use cube_api::meta::{Name, Revision};
use cube_api::session::Epoch;
use jiff::Timestamp;
use rusqlite::Connection;

use super::MIGRATIONS;
use super::backup::{self, BackupError, Contents, Draft, sync_folder_of};
use super::fence::Fence;
use crate::sqlite::{self, OpenError, SHM, WAL, beside};

/// How far the revision moves, at least: beyond what a leader writes between a backup and its end. At 1,000 writes a second that is 11 days.
const REVISIONS: u64 = 1_000_000_000;
/// How far the epoch moves, at least: it counts the leader's starts.
const EPOCHS: u64 = 1_000_000;

/// The file beside a database that is being replaced.
const MARKER: &str = ".restoring";

/// What a restore did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// What the backup holds.
    pub backup: Contents,
    /// What the database holds now.
    pub now: Contents,
    /// Where the database that was there is kept, if there was one.
    pub replaced: Option<PathBuf>,
}

/// Why nothing was restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The backup can't be used, or its copy not be written. Nothing was changed.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// The copy couldn't be brought to where no life of the cluster has been. Nothing was changed.
    #[error("can't move the counters of the copy {path} forward")]
    MoveForward {
        /// The copy.
        path: PathBuf,
        /// SQLite's reason.
        source: rusqlite::Error,
    },
    /// A rename failed half-way.
    #[error("can't move {path} aside; no leader starts here before the restore is run again")]
    CutOff {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

/// Whether a restore of this database was cut off between its renames.
pub(super) fn was_cut_off(database: &Path) -> bool {
    beside(database, MARKER).exists()
}

/// Replaces the database by a backup, which [`backup::check`] has looked at. The caller holds the data folder's lock.
pub fn restore(from: &Path, backup: Contents, database: &Path, now: Timestamp) -> Result<Restored, RestoreError> {
    let draft = Draft::beside(database, ".copying")?;
    draft.fill(from)?;
    let marker = beside(database, MARKER);
    // Of another cluster, or none that can be read: then the clock has to do.
    let present = [database, &marker].into_iter().filter_map(|file| backup::contents(file).ok());
    let known: Vec<_> = present.filter(|present| present.cluster_id == backup.cluster_id).chain([backup]).collect();
    move_forward(draft.path(), &known, now)?;
    let contents = draft.check()?;
    draft.publish(&marker, true)?;
    let replaced = put_aside(database, now)?;
    fs::rename(&marker, database).map_err(|source| RestoreError::CutOff { path: marker, source })?;
    sync_folder_of(database)?;
    Ok(Restored { backup, now: contents, replaced })
}

/// Beyond what the backup and the present database (or one of a restore that was cut off) know. Also beyond the clock, at one epoch a second and one
/// revision a millisecond: a backup that is restored a second time, on a new disk, doesn't know of the first restore.
fn move_forward(path: &Path, known: &[Contents], now: Timestamp) -> Result<(), RestoreError> {
    let highest = |of: fn(&Contents) -> u64| known.iter().map(of).max().unwrap_or(0);
    let clock = |time: i64| u64::try_from(time).unwrap_or(0);
    let epoch = Epoch((highest(|contents| contents.epoch.0) + EPOCHS).max(clock(now.as_second())));
    let revision = Revision((highest(|contents| contents.revision.0) + REVISIONS).max(clock(now.as_millisecond())));
    let read = |connection: &mut Connection| write_counters(connection, epoch, revision).map_err(Failed::Sqlite);
    let moved = sqlite::open(path, &MIGRATIONS, &[], read).and_then(|(connection, ())| {
        connection.execute_batch("PRAGMA journal_mode = DELETE").map_err(Failed::Sqlite)?;
        connection.close().map_err(|(_, error)| Failed::Sqlite(error))
    });
    moved.map_err(|failed| match failed {
        Failed::Open(error) => RestoreError::Backup(error.into()),
        Failed::Sqlite(source) => RestoreError::MoveForward { path: path.to_owned(), source },
    })
}

enum Failed {
    Open(OpenError),
    Sqlite(rusqlite::Error),
}

impl From<OpenError> for Failed {
    fn from(error: OpenError) -> Self {
        Self::Open(error)
    }
}

fn write_counters(connection: &mut Connection, epoch: Epoch, revision: Revision) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    let names: Vec<String> = transaction.prepare("SELECT name FROM nodes")?.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    let awaited = names.iter().filter_map(|name| Name::new(name).ok()).collect();
    let fence = serde_json::to_string(&Fence { awaited }).map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
    transaction.execute("UPDATE meta SET epoch = ?1, revision = ?2, fence = ?3", rusqlite::params![epoch.0, revision.0, fence])?;
    transaction.commit()
}

/// Moves a database with its WAL to another name, under which SQLite opens it as it was.
fn put_aside(database: &Path, now: Timestamp) -> Result<Option<PathBuf>, RestoreError> {
    let time = now.strftime("%Y%m%dT%H%M%SZ");
    let free = |suffix: &String| [WAL, ""].iter().all(|file| !beside(&beside(database, suffix), file).exists());
    let names = std::iter::once(format!(".replaced-{time}")).chain((2..).map(|number| format!(".replaced-{time}-{number}")));
    let mut free = names.filter(free);
    let aside = beside(database, &free.next().unwrap_or_default());
    let mut moved = false;
    for suffix in [WAL, SHM, ""] {
        let file = beside(database, suffix);
        match fs::rename(&file, beside(&aside, suffix)) {
            Ok(()) => moved |= suffix != SHM,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(RestoreError::CutOff { path: file, source }),
        }
    }
    Ok(moved.then_some(aside))
}
