//! Opening a server's SQLite file: pragmas that are read back, migrations, and a clear no to a database of a newer version.

use std::path::{Path, PathBuf};
use std::time::Duration;

use include_dir::Dir;
use rusqlite::{Connection, OpenFlags};
use rusqlite_migration::Migrations;

/// Why a database can't be used. Nothing was changed in it.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// SQLite can't open it: no rights, not a database, a full disk.
    #[error("can't open the database {path}")]
    Open {
        /// The file.
        path: PathBuf,
        /// SQLite's reason.
        source: rusqlite::Error,
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
    /// Written by a newer cube-server, or a migration failed.
    #[error("can't bring the database {path} to this version's schema")]
    Migrate {
        /// The file.
        path: PathBuf,
        /// The library's reason.
        source: rusqlite_migration::Error,
    },
}

/// How long a statement waits for another process's lock, such as a backup's.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Each pragma with the value that reading it back must give. FULL: an acknowledged write survives a power loss.
const PRAGMAS: [(&str, &str, &str); 5] = [
    ("journal_mode", "WAL", "wal"),
    ("synchronous", "FULL", "2"),
    ("foreign_keys", "ON", "1"),
    ("trusted_schema", "OFF", "0"),
    ("journal_size_limit", "67108864", "67108864"),
];

/// Opens (or makes) the database and brings it to the newest schema of `migrations`.
pub fn open(path: &Path, migrations: &'static Dir<'static>) -> Result<Connection, OpenError> {
    let failed = |source| OpenError::Open { path: path.to_owned(), source };
    let mut connection = Connection::open(path).map_err(failed)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(failed)?;
    for (pragma, value, wanted) in PRAGMAS {
        connection.execute_batch(&format!("PRAGMA {pragma} = {value}")).map_err(failed)?;
        let found = connection.query_row(&format!("PRAGMA {pragma}"), [], |row| row.get::<_, rusqlite::types::Value>(0)).map_err(failed)?;
        let found = match found {
            rusqlite::types::Value::Integer(number) => number.to_string(),
            rusqlite::types::Value::Text(text) => text,
            other => format!("{other:?}"),
        };
        if found != wanted {
            return Err(OpenError::Pragma { path: path.to_owned(), pragma, found, wanted });
        }
    }
    let migrate = |source| OpenError::Migrate { path: path.to_owned(), source };
    Migrations::from_directory(migrations).map_err(migrate)?.to_latest(&mut connection).map_err(migrate)?;
    Ok(connection)
}

/// Opens a database that [`open`] has made, for reading beside its writer.
pub fn open_read_only(path: &Path) -> Result<Connection, OpenError> {
    let failed = |source| OpenError::Open { path: path.to_owned(), source };
    let connection =
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX).map_err(failed)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(failed)?;
    connection.execute_batch("PRAGMA trusted_schema = OFF").map_err(failed)?;
    Ok(connection)
}

#[cfg(test)]
mod tests {
    use include_dir::include_dir;

    use super::*;

    static MIGRATIONS: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/../migrations/leader");

    fn in_a_folder() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("test.db");
        (folder, path)
    }

    #[test]
    fn a_database_is_made_once_and_read_beside_its_writer() {
        let (_folder, path) = in_a_folder();
        let writer = open(&path, &MIGRATIONS).expect("a new database");
        writer.execute("INSERT INTO node_sequences VALUES ('a', 1)", []).expect("a row");
        drop(open(&path, &MIGRATIONS).expect("the same database again"));
        let reader = open_read_only(&path).expect("a reader");
        let rows: i64 = reader.query_row("SELECT count(*) FROM node_sequences", [], |row| row.get(0)).expect("a count");
        assert_eq!(rows, 1);
        assert!(reader.execute("DELETE FROM node_sequences", []).is_err());
    }

    #[test]
    fn a_database_of_a_newer_version_is_refused_and_not_touched() {
        let (_folder, path) = in_a_folder();
        let writer = open(&path, &MIGRATIONS).expect("a new database");
        writer.pragma_update(None, "user_version", 99).expect("a version");
        let error = open(&path, &MIGRATIONS).expect_err("a newer schema");
        assert!(matches!(error, OpenError::Migrate { .. }), "{error}");
        let version: i64 = writer.query_row("PRAGMA user_version", [], |row| row.get(0)).expect("a version");
        assert_eq!(version, 99);
    }

    #[test]
    fn a_file_that_is_no_database_is_refused_and_not_touched() {
        let (_folder, path) = in_a_folder();
        let text = "not a database, but something that somebody may want to keep. ".repeat(40);
        std::fs::write(&path, &text).expect("a file");
        assert!(matches!(open(&path, &MIGRATIONS), Err(OpenError::Open { .. })));
        assert_eq!(std::fs::read_to_string(&path).expect("the file"), text);
    }
}
