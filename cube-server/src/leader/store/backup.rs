//! A backup: one file that holds the leader's database as of one moment, checked before it has its name.
//!
//! Works on a database that a leader is writing and on one that nobody has open, and changes neither. What is written is written beside the wanted
//! file and renamed when it is whole and on the disk, so that a file with a backup's name is a backup. Knows no schedule and no command line.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use cube_api::meta::{ClusterId, Revision};
use cube_api::session::Epoch;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use rusqlite::{Connection, OptionalExtension};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::MIGRATIONS;
use crate::sqlite::{self, OpenError, SHM, WAL, beside};

/// What a leader's database holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Contents {
    /// Which cluster's.
    pub cluster_id: ClusterId,
    /// The leader's life that wrote it.
    pub epoch: Epoch,
    /// The last revision that a write got.
    pub revision: Revision,
    /// How many pods, retired ones too.
    pub pods: u64,
    /// How many nodes.
    pub nodes: u64,
    /// The file's size.
    pub bytes: u64,
}

/// Why there is no backup. Nothing is left behind, and what was there is as it was.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The source isn't there.
    #[error("there is no leader's database {path}")]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The target is there.
    #[error("{path} is there already")]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The source can't be used.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The source has no row about itself: no leader has finished its first start on it.
    #[error("the database {path} holds no cluster")]
    NoCluster {
        /// The file.
        path: PathBuf,
    },
    /// What was written isn't what it should be.
    #[error("the copy {path} is damaged: {problem}")]
    Unsound {
        /// The copy.
        path: PathBuf,
        /// What SQLite found.
        problem: String,
    },
    /// SQLite failed.
    #[error("can't {action} the database {path}")]
    Sqlite {
        /// What it did.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// SQLite's reason.
        source: rusqlite::Error,
    },
    /// A file can't be made, moved or brought to the disk.
    #[error("can't {action} {path}")]
    File {
        /// What was done.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

/// Copies the database `from` to the file `to`. One that is there is an error, unless it may be replaced.
pub fn take(from: &Path, to: &Path, replace: bool) -> Result<Contents, BackupError> {
    if !from.is_file() {
        return Err(BackupError::Missing { path: from.to_owned() });
    }
    if !replace && to.exists() {
        return Err(BackupError::Exists { path: to.to_owned() });
    }
    let draft = Draft::beside(to, &format!(".partial-{}", std::process::id()))?;
    draft.fill(from)?;
    let contents = draft.check()?;
    draft.publish(to, replace)?;
    Ok(contents)
}

/// What a database holds, that nobody need have open; an error if its pages aren't sound.
pub fn check(path: &Path) -> Result<Contents, BackupError> {
    if !path.is_file() {
        return Err(BackupError::Missing { path: path.to_owned() });
    }
    sqlite::look(path, &MIGRATIONS, |connection| sound_contents(path, connection))
}

/// What a database says that it holds, sound or not.
pub(super) fn contents(path: &Path) -> Result<Contents, BackupError> {
    sqlite::look(path, &MIGRATIONS, |connection| contents_of(path, connection))
}

fn sound_contents(path: &Path, connection: &Connection) -> Result<Contents, BackupError> {
    let failed = |source| BackupError::Sqlite { action: "check", path: path.to_owned(), source };
    match sqlite::unsound(connection) {
        Ok(None) => contents_of(path, connection),
        Ok(Some(problem)) => Err(BackupError::Unsound { path: path.to_owned(), problem }),
        Err(source) if sqlite::is_damage(&source) => Err(BackupError::Unsound { path: path.to_owned(), problem: source.to_string() }),
        Err(source) => Err(failed(source)),
    }
}

fn contents_of(path: &Path, connection: &Connection) -> Result<Contents, BackupError> {
    const SQL: &str = "SELECT cluster_id, epoch, revision, (SELECT count(*) FROM pods), (SELECT count(*) FROM nodes) FROM meta";
    let failed = |source| BackupError::Sqlite { action: "read", path: path.to_owned(), source };
    let no_cluster = || BackupError::NoCluster { path: path.to_owned() };
    let tables: u64 = connection
        .query_row("SELECT count(*) FROM sqlite_schema WHERE name IN ('meta', 'pods', 'nodes')", [], |row| row.get(0))
        .map_err(failed)?;
    if tables < 3 {
        return Err(no_cluster());
    }
    let read = |row: &rusqlite::Row<'_>| {
        let found = Contents {
            cluster_id: ClusterId(uuid::Uuid::nil()),
            epoch: Epoch(row.get(1)?),
            revision: Revision(row.get(2)?),
            pods: row.get(3)?,
            nodes: row.get(4)?,
            bytes: fs::metadata(path).map_or(0, |found| found.len()),
        };
        Ok((row.get::<_, String>(0)?, found))
    };
    let (cluster, found) = connection.query_row(SQL, [], read).optional().map_err(failed)?.ok_or_else(no_cluster)?;
    Ok(Contents { cluster_id: cluster.parse().map_err(|_| no_cluster())?, ..found })
}

/// A copy that isn't anybody's backup yet. Dropped, it is gone.
pub(super) struct Draft {
    path: PathBuf,
}

impl Draft {
    /// An empty file beside another one, for its owner only: a database holds what pods are told in their environments.
    pub(super) fn beside(file: &Path, suffix: &str) -> Result<Self, BackupError> {
        let path = beside(file, suffix);
        let failed = |source| BackupError::File { action: "write", path: path.clone(), source };
        // One of this name was left by a process that was killed.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            Ok(()) | Err(_) => {}
        }
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(failed)?;
        Ok(Self { path })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Copies a database into it, as one file without a WAL.
    pub(super) fn fill(&self, from: &Path) -> Result<(), BackupError> {
        let failed = |action, source| BackupError::Sqlite { action, path: self.path.clone(), source };
        let mut to = Connection::open(&self.path).map_err(|source| failed("write", source))?;
        // It is brought to the disk at the end, and a draft that is cut off is nobody's: no journal, no waiting.
        to.execute_batch("PRAGMA journal_mode = MEMORY; PRAGMA synchronous = OFF").map_err(|source| failed("write", source))?;
        sqlite::look(from, &MIGRATIONS, |source| {
            contents_of(from, source)?;
            sqlite::copy(source, &mut to).map_err(|source| failed("copy into", source))
        })?;
        to.execute_batch("PRAGMA journal_mode = DELETE").map_err(|source| failed("write", source))?;
        to.close().map_err(|(_, source)| failed("write", source))
    }

    pub(super) fn check(&self) -> Result<Contents, BackupError> {
        check(&self.path)
    }

    /// Brings it to the disk and gives it its name.
    pub(super) fn publish(self, to: &Path, replace: bool) -> Result<(), BackupError> {
        let failed = |action| move |source| BackupError::File { action, path: to.to_owned(), source };
        File::open(&self.path).and_then(|file| file.sync_all()).map_err(failed("bring to the disk"))?;
        let flags = if replace { RenameFlags::empty() } else { RenameFlags::NOREPLACE };
        match renameat_with(CWD, &self.path, CWD, to, flags) {
            Ok(()) => {}
            Err(Errno::EXIST) => return Err(BackupError::Exists { path: to.to_owned() }),
            // A file system that can't refuse by itself; that nothing is there was seen before.
            Err(Errno::INVAL | Errno::NOSYS) => fs::rename(&self.path, to).map_err(failed("name"))?,
            Err(error) => return Err(failed("name")(error.into())),
        }
        sync_folder_of(to)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // After it was published nothing has these names. A file that can't be removed is of no use to anybody, and harms nobody.
        for suffix in ["", "-journal", WAL, SHM] {
            drop(fs::remove_file(beside(&self.path, suffix)));
        }
    }
}

/// A name is on the disk when its folder is.
pub(super) fn sync_folder_of(path: &Path) -> Result<(), BackupError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let failed = |source| BackupError::File { action: "bring to the disk the folder", path: folder.to_owned(), source };
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)
}

/// A backup that was taken on schedule, as its name says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scheduled {
    /// The file.
    pub path: PathBuf,
    /// When it was taken.
    pub taken_at: Timestamp,
    /// The cluster's first digits.
    cluster: String,
}

/// A copy that wasn't written to for so long is nobody's: a whole one takes seconds.
const ABANDONED_AFTER: SignedDuration = SignedDuration::from_hours(1);

/// `20261121T032000Z`.
const TIME: &str = "%Y%m%dT%H%M%SZ";

fn first_digits(cluster: ClusterId) -> String {
    cluster.to_string().chars().take(8).collect()
}

/// `cube-0192f3a4-20261121T032000Z-r123.db`, which [`scheduled`] finds again.
fn file_name(cluster: ClusterId, taken_at: Timestamp, revision: Revision) -> String {
    format!("cube-{}-{}-r{revision}.db", first_digits(cluster), taken_at.strftime(TIME))
}

fn parse_name(path: PathBuf) -> Option<Scheduled> {
    let name = path.file_name()?.to_str()?.strip_prefix("cube-")?.strip_suffix(".db")?;
    let [cluster, time, revision] = name.split('-').collect::<Vec<_>>().try_into().ok()?;
    let is_hex = cluster.len() == 8 && cluster.chars().all(|digit| digit.is_ascii_hexdigit());
    let is_revision = revision.strip_prefix('r')?.parse::<u64>().is_ok();
    let taken_at = DateTime::strptime(TIME, time).ok()?.to_zoned(TimeZone::UTC).ok()?.timestamp();
    let cluster = cluster.to_owned();
    (is_hex && is_revision).then_some(Scheduled { path, taken_at, cluster })
}

/// The backups that were taken on schedule into a folder, of any cluster or one, oldest first.
pub fn scheduled(folder: &Path, of: Option<ClusterId>) -> Result<Vec<Scheduled>, BackupError> {
    let failed = |source| BackupError::File { action: "list the backups in", path: folder.to_owned(), source };
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        found.extend(parse_name(entry.map_err(failed)?.path()));
    }
    if let Some(cluster) = of {
        found.retain(|backup| backup.cluster == first_digits(cluster));
    }
    found.sort_by(|a, b| (a.taken_at, &a.path).cmp(&(b.taken_at, &b.path)));
    Ok(found)
}

/// Takes a backup into a folder, then deletes the oldest of this cluster's over `keep`.
pub(super) fn take_scheduled(
    from: &Path,
    cluster: ClusterId,
    folder: &Path,
    keep: usize,
    now: Timestamp,
) -> Result<(PathBuf, Contents), BackupError> {
    let unusable = |source| BackupError::File { action: "make the folder", path: folder.to_owned(), source };
    fs::DirBuilder::new().recursive(true).create(folder).map_err(unusable)?;
    // Leaders on several machines may share the folder, and have one process id.
    let partial = format!("cube-{cluster}.partial-");
    delete_abandoned(folder, &partial, now)?;
    let draft = Draft::beside(&folder.join(&partial), &std::process::id().to_string())?;
    draft.fill(from)?;
    let contents = draft.check()?;
    let path = folder.join(file_name(contents.cluster_id, now, contents.revision));
    draft.publish(&path, false)?;
    delete_oldest(folder, &path, contents.cluster_id, keep)?;
    Ok((path, contents))
}

/// Copies that a leader of this cluster was killed over: each start has another process id, so nobody else would ever remove them. One that is being
/// written was touched a moment ago.
fn delete_abandoned(folder: &Path, partial: &str, now: Timestamp) -> Result<(), BackupError> {
    let failed = |source| BackupError::File { action: "list the backups in", path: folder.to_owned(), source };
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let is_partial = entry.file_name().to_str().is_some_and(|name| name.starts_with(partial));
        let touched = entry.metadata().and_then(|found| found.modified()).ok().and_then(|time| Timestamp::try_from(time).ok());
        if is_partial && touched.is_some_and(|touched| now.duration_since(touched) > ABANDONED_AFTER) {
            let path = entry.path();
            fs::remove_file(&path).map_err(|source| BackupError::File { action: "delete", path, source })?;
        }
    }
    Ok(())
}

/// A name tells little: two clusters may begin alike. What isn't surely a backup of this one stays.
fn delete_oldest(folder: &Path, newest: &Path, cluster: ClusterId, keep: usize) -> Result<(), BackupError> {
    let mut found = scheduled(folder, Some(cluster))?;
    // The one that was just taken counts, but is never deleted: a clock that was set back makes it look old.
    found.retain(|backup| backup.path != newest);
    let surplus = (found.len() + 1).saturating_sub(keep.max(1));
    for old in found.into_iter().take(surplus) {
        if contents(&old.path).is_ok_and(|contents| contents.cluster_id == cluster) {
            fs::remove_file(&old.path).map_err(|source| BackupError::File { action: "delete", path: old.path, source })?;
        }
    }
    Ok(())
}
