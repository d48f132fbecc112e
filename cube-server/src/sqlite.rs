//! Opening a server's SQLite file: it is looked at before anything is written to it, so that one that is damaged, or of a newer version, stays byte
//! for byte what it was; then pragmas that are read back, and migrations.
//!
//! Knows nothing of what the tables mean: who opens a database brings its migrations and reads its rows.

pub mod room;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use include_dir::Dir;
use rusqlite::backup::{Backup, StepResult};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use rusqlite_migration::Migrations;

/// Why a database can't be used. Nothing was changed in it.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// SQLite can't open it: no rights, a full disk, a lock.
    #[error("can't open the database {path}")]
    Open {
        /// The file.
        path: PathBuf,
        /// SQLite's reason.
        source: rusqlite::Error,
    },
    /// It isn't what SQLite wrote: no database, or one with damaged pages.
    #[error("the database {path} is damaged: {problem}; nothing in it was changed")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What SQLite found, and where.
        problem: String,
    },
    /// Written by a newer cube-server.
    #[error("the database {path} has schema {found}, this cube-server knows schemas up to {known}; nothing in it was changed")]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: i64,
        /// The newest schema of this program.
        known: i64,
    },
    /// SQLite didn't take a setting that cube relies on.
    #[error("the database {path} has {pragma} = {found}, {wanted} is needed")]
    Pragma {
        /// The file.
        path: PathBuf,
        /// The setting.
        pragma: &'static str,
        /// Its value.
        found: String,
        /// The value that is needed.
        wanted: &'static str,
    },
    /// A migration failed.
    #[error("can't bring the database {path} to this version's schema")]
    Migrate {
        /// The file.
        path: PathBuf,
        /// The library's reason.
        source: rusqlite_migration::Error,
    },
}

/// That a database can't be used as it is, whoever tries: somebody has to do something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It isn't what was written.
    Damaged,
    /// A newer cube-server wrote it.
    Newer,
}

impl OpenError {
    /// Whether it is the database itself that is refused.
    pub fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Damaged { .. } => Some(Refusal::Damaged),
            Self::Newer { .. } => Some(Refusal::Newer),
            Self::Open { .. } | Self::Pragma { .. } | Self::Migrate { .. } => None,
        }
    }
}

/// How long a statement waits for another process's lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Each pragma with the value that reading it back must give. FULL: an acknowledged write survives a power loss.
///
/// A page is written into the WAL for each commit that changes it, and into the database once for each checkpoint: with SQLite's own, one each 1,000
/// pages, these were 6 % of a busy leader's CPU time. 4,096 are 16 MiB, which the next start may have to read. The cache grows to as much (for
/// SQLite's own 2 MiB), where a database is so large.
const PRAGMAS: [(&str, &str, &str); 7] = [
    ("journal_mode", "WAL", "wal"),
    ("synchronous", "FULL", "2"),
    ("foreign_keys", "ON", "1"),
    ("trusted_schema", "OFF", "0"),
    ("journal_size_limit", "67108864", "67108864"),
    ("wal_autocheckpoint", "4096", "4096"),
    ("cache_size", "-16384", "-16384"),
];

/// Opens (or makes) the database, brings it to the newest schema of `migrations` and lets `read` begin with it. What is refused, by `read` too, is
/// left as it was: `read` must work in a transaction that ends with its error, and may be called a second time. The caller holds a lock that keeps
/// other servers away.
///
/// The pages of every table are checked, but of those that are `logs`: of 1,000 pods that takes some 5 ms, of their 200,000 events some 400 ms more,
/// in which nobody is served. Whoever copies the database checks them.
pub fn open<T, E: From<OpenError>>(
    path: &Path,
    migrations: &'static Dir<'static>,
    logs: &[&str],
    read: impl Fn(&mut Connection) -> Result<T, E>,
) -> Result<(Connection, T), E> {
    let beside = Beside::of(path);
    let opened = open_carefully(path, migrations, logs, read);
    if opened.is_err() {
        beside.remove_what_is_new();
    }
    opened
}

/// Opens a database that [`open`] has made, for reading beside its writer.
pub fn open_read_only(path: &Path) -> Result<Connection, OpenError> {
    let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.execute_batch("PRAGMA trusted_schema = OFF").map_err(|source| trouble(path, source))?;
    Ok(connection)
}

/// Lets `read` look at a database that another process may be writing, or that a killed one left behind; its schema is not newer than `migrations`.
/// The database and its WAL stay as they are, and no new file stays beside them (but the index of a WAL that came without one).
pub fn look<T, E: From<OpenError>>(
    path: &Path,
    migrations: &'static Dir<'static>,
    read: impl FnOnce(&Connection) -> Result<T, E>,
) -> Result<T, E> {
    not_half_of_a_database(path)?;
    let beside = Beside::of(path);
    let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.execute_batch("PRAGMA query_only = ON; PRAGMA trusted_schema = OFF").map_err(|source| trouble(path, source))?;
    // Where there is no WAL, SQLite makes an empty one for reading, and takes it away at the end under a lock that a server which starts meanwhile
    // would hold: nothing of ours could do that as safely. Where there is one, it is data: it must not be brought into the file and deleted.
    checkpoint_on_close(path, &connection, !beside.had_wal)?;
    known_schema(path, migrations, &connection)?;
    read(&connection)
}

/// What `PRAGMA integrity_check` finds wrong; none if the database is sound.
pub fn unsound(connection: &Connection) -> rusqlite::Result<Option<String>> {
    complaints(connection, "PRAGMA integrity_check")
}

/// Copies a whole database, as of one moment, over what `to` has. Writers of `from` aren't held up.
pub fn copy(from: &Connection, to: &mut Connection) -> rusqlite::Result<()> {
    // The snapshot is taken by a statement, because that one waits for a lock that is held; the copy's own steps don't.
    let snapshot = from.unchecked_transaction()?;
    schema(&snapshot)?;
    // All pages in one step: a copy in pieces begins anew whenever another process writes between two of them.
    match Backup::new(&snapshot, to)?.step(-1)? {
        StepResult::Done => Ok(()),
        _ => Err(rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY), None)),
    }
}

/// Whether SQLite's reason is that the file isn't what it wrote.
pub fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

fn trouble(path: &Path, source: rusqlite::Error) -> OpenError {
    let path = path.to_owned();
    if is_damage(&source) { OpenError::Damaged { path, problem: source.to_string() } } else { OpenError::Open { path, source } }
}

fn connect(path: &Path, flags: OpenFlags) -> Result<Connection, OpenError> {
    let connection = Connection::open_with_flags(path, flags).map_err(|source| trouble(path, source))?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(|source| trouble(path, source))?;
    Ok(connection)
}

fn open_carefully<T, E: From<OpenError>>(
    path: &Path,
    migrations: &'static Dir<'static>,
    logs: &[&str],
    read: impl Fn(&mut Connection) -> Result<T, E>,
) -> Result<(Connection, T), E> {
    let (mut connection, schema) = open_checked(path, migrations, logs)?;
    let mode = pragma(&connection, "journal_mode").map_err(|source| trouble(path, source))?;
    if schema > 0 && (schema < newest(migrations) || mode != "wal") {
        // Both are written before the rows are read, and stand though `read` may then refuse them. So it is asked first, with a copy.
        let mut rehearsal = copy_in_memory(path, &connection)?;
        migrate(path, migrations, &mut rehearsal)?;
        read(&mut rehearsal)?;
    }
    set_pragmas(path, &connection)?;
    migrate(path, migrations, &mut connection)?;
    let value = read(&mut connection)?;
    checkpoint_on_close(path, &connection, true)?;
    Ok((connection, value))
}

/// A connection that has written nothing yet and leaves the WAL alone when it is closed, to a database that may be used; with its schema.
fn open_checked(path: &Path, migrations: &Dir<'_>, logs: &[&str]) -> Result<(Connection, i64), OpenError> {
    not_half_of_a_database(path)?;
    let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    checkpoint_on_close(path, &connection, false)?;
    let schema = known_schema(path, migrations, &connection)?;
    match damaged_table(&connection, logs).map_err(|source| trouble(path, source))? {
        None => Ok((connection, schema)),
        Some(problem) => Err(OpenError::Damaged { path: path.to_owned(), problem }),
    }
}

/// A file that is missing or empty beside a WAL that isn't: SQLite would make a new database there, and delete the WAL.
fn not_half_of_a_database(path: &Path) -> Result<(), OpenError> {
    let is_empty = |path: &Path| fs::metadata(path).map_or(true, |found| found.len() == 0);
    if !is_empty(path) || is_empty(&beside(path, WAL)) {
        return Ok(());
    }
    let problem = "the file is missing or empty, though there is a WAL of it".to_owned();
    Err(OpenError::Damaged { path: path.to_owned(), problem })
}

fn checkpoint_on_close(path: &Path, connection: &Connection, yes: bool) -> Result<(), OpenError> {
    let set = connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, !yes);
    set.map(drop).map_err(|source| trouble(path, source))
}

fn schema(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("PRAGMA user_version", [], |row| row.get(0))
}

fn newest(migrations: &Dir<'_>) -> i64 {
    i64::try_from(migrations.dirs().count()).unwrap_or(i64::MAX)
}

fn known_schema(path: &Path, migrations: &Dir<'_>, connection: &Connection) -> Result<i64, OpenError> {
    let (found, known) = (schema(connection).map_err(|source| trouble(path, source))?, newest(migrations));
    if found > known { Err(OpenError::Newer { path: path.to_owned(), found, known }) } else { Ok(found) }
}

/// What is wrong with the first table, or an index of it, that isn't as SQLite wrote it.
fn damaged_table(connection: &Connection, logs: &[&str]) -> rusqlite::Result<Option<String>> {
    let mut statement = connection.prepare("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")?;
    let tables: Vec<String> = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    for table in tables.iter().filter(|table| !logs.contains(&table.as_str())) {
        // The names are the migrations', or what stands in a database of the same schema: quoted, whatever it is.
        let quoted = table.replace('\'', "''");
        if let Some(problem) = complaints(connection, &format!("PRAGMA quick_check('{quoted}')"))? {
            return Ok(Some(format!("table {table}: {problem}")));
        }
    }
    Ok(None)
}

/// The first findings of one of SQLite's checks.
fn complaints(connection: &Connection, check: &str) -> rusqlite::Result<Option<String>> {
    const FINDINGS: usize = 3;
    let mut statement = connection.prepare(check)?;
    let mut found: Vec<String> = Vec::new();
    for finding in statement.query_map([], |row| row.get(0))?.take(FINDINGS) {
        match finding {
            Ok(finding) => found.push(finding),
            // It ends so at a page that it can't go on from; what it said of that page is better than that.
            Err(error) if is_damage(&error) && !found.is_empty() => break,
            Err(error) => return Err(error),
        }
    }
    let is_sound = found.len() == 1 && found[0] == "ok";
    Ok((!is_sound).then(|| found.join("; ").replace('\n', " ")))
}

fn copy_in_memory(path: &Path, connection: &Connection) -> Result<Connection, OpenError> {
    let mut memory = Connection::open_in_memory().map_err(|source| trouble(path, source))?;
    copy(connection, &mut memory).map_err(|source| trouble(path, source))?;
    Ok(memory)
}

fn migrate(path: &Path, migrations: &'static Dir<'static>, connection: &mut Connection) -> Result<(), OpenError> {
    let failed = |source| OpenError::Migrate { path: path.to_owned(), source };
    Migrations::from_directory(migrations).map_err(failed)?.to_latest(connection).map_err(failed)
}

fn set_pragmas(path: &Path, connection: &Connection) -> Result<(), OpenError> {
    for (name, value, wanted) in PRAGMAS {
        let set = connection.execute_batch(&format!("PRAGMA {name} = {value}")).and_then(|()| pragma(connection, name));
        let found = set.map_err(|source| trouble(path, source))?;
        if found != wanted {
            return Err(OpenError::Pragma { path: path.to_owned(), pragma: name, found, wanted });
        }
    }
    Ok(())
}

fn pragma(connection: &Connection, name: &str) -> rusqlite::Result<String> {
    use rusqlite::types::Value;
    connection.query_row(&format!("PRAGMA {name}"), [], |row| {
        Ok(match row.get::<_, Value>(0)? {
            Value::Integer(number) => number.to_string(),
            Value::Text(text) => text,
            Value::Null | Value::Real(_) | Value::Blob(_) => String::new(),
        })
    })
}

/// What SQLite names its log beside a database.
pub const WAL: &str = "-wal";
/// And the index of that log, which it can make anew.
pub const SHM: &str = "-shm";

/// A file that belongs to a database.
pub fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

/// Which files were there before a database was opened.
struct Beside<'a> {
    path: &'a Path,
    had_wal: bool,
    had_shm: bool,
}

impl<'a> Beside<'a> {
    fn of(path: &'a Path) -> Self {
        let holds_something = |path: PathBuf| fs::metadata(path).is_ok_and(|found| found.len() > 0);
        Self { path, had_wal: holds_something(beside(path, WAL)), had_shm: beside(path, SHM).exists() }
    }

    /// Only for who holds the folder's lock: nobody else has the database open. A file that can't be removed harms nobody.
    fn remove_what_is_new(&self) {
        let wal = beside(self.path, WAL);
        if !self.had_wal && fs::metadata(&wal).is_ok_and(|found| found.len() == 0) {
            drop(fs::remove_file(wal));
        }
        if !self.had_shm {
            drop(fs::remove_file(beside(self.path, SHM)));
        }
    }
}

#[cfg(test)]
mod tests;
