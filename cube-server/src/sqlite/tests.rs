//! On real files. A folder's picture has every byte of it: what is refused must leave the same one.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;

use include_dir::include_dir;
use tempfile::TempDir;

use super::*;

static MIGRATIONS: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/../migrations/leader");

fn in_a_folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("test.db");
    (folder, path)
}

fn open_it(path: &Path) -> Result<Connection, OpenError> {
    open(path, &MIGRATIONS, &["events"], |_| Ok(())).map(|(connection, ())| connection)
}

/// Every file of a folder, but the index of a WAL: SQLite marks its readers in it.
fn picture(folder: &TempDir) -> BTreeMap<OsString, Vec<u8>> {
    let files = fs::read_dir(folder.path()).expect("a folder").map(|entry| entry.expect("a file"));
    let read = files.map(|file| (file.file_name(), fs::read(file.path()).expect("its bytes")));
    read.map(|(name, bytes)| if name.to_string_lossy().ends_with(SHM) { (name, Vec::new()) } else { (name, bytes) }).collect()
}

/// What a killed server leaves: the database with a WAL that holds its last commits.
fn killed(change: impl FnOnce(&Connection)) -> (TempDir, PathBuf) {
    let (alive, path) = in_a_folder();
    let connection = open_it(&path).expect("a new database");
    change(&connection);
    let (folder, copy) = in_a_folder();
    for suffix in ["", WAL, SHM] {
        fs::copy(beside(&path, suffix), beside(&copy, suffix)).expect("it is there while the database is open");
    }
    drop((connection, alive));
    assert!(fs::metadata(beside(&copy, WAL)).expect("a WAL").len() > 0);
    (folder, copy)
}

/// What a server that was stopped leaves: one file.
fn stopped(change: impl FnOnce(&Connection)) -> (TempDir, PathBuf) {
    let (folder, path) = in_a_folder();
    let connection = open_it(&path).expect("a new database");
    change(&connection);
    connection.close().expect("an orderly end");
    assert_eq!(picture(&folder).len(), 1);
    (folder, path)
}

fn add_node(connection: &Connection) {
    connection.execute("INSERT INTO node_sequences VALUES ('a', 1)", []).expect("a row");
}

#[test]
fn a_database_is_made_once_and_read_beside_its_writer() {
    let (_folder, path) = in_a_folder();
    let writer = open_it(&path).expect("a new database");
    add_node(&writer);
    drop(open_it(&path).expect("the same database again"));
    let reader = open_read_only(&path).expect("a reader");
    let rows: i64 = reader.query_row("SELECT count(*) FROM node_sequences", [], |row| row.get(0)).expect("a count");
    assert_eq!(rows, 1);
    assert!(reader.execute("DELETE FROM node_sequences", []).is_err());
}

#[test]
fn a_database_of_a_newer_version_is_refused_with_both_schemas_and_stays_byte_for_byte() {
    let make_newer = |connection: &Connection| connection.pragma_update(None, "user_version", 99).expect("a version");
    for (folder, path) in [stopped(make_newer), killed(make_newer)] {
        let before = picture(&folder);
        let error = open_it(&path).expect_err("a newer schema");
        assert_eq!(error.refusal(), Some(Refusal::Newer));
        let known = newest(&MIGRATIONS);
        assert!(error.to_string().contains(&format!("has schema 99, this cube-server knows schemas up to {known}")), "{error}");
        assert!(picture(&folder) == before, "a file was changed");
    }
}

#[test]
fn a_damaged_database_is_refused_with_what_is_wrong_and_stays_byte_for_byte() {
    let fill = |connection: &Connection| {
        // The file has the pages: those of a WAL would hide their damage.
        const SQL: &str = "WITH RECURSIVE number(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < 2000)
            INSERT INTO node_sequences SELECT 'node ' || n, 1 FROM number;
            PRAGMA wal_checkpoint(TRUNCATE);
            INSERT INTO meta (id, cluster_id, epoch, revision) VALUES (1, 'a', 1, 1)";
        connection.execute_batch(SQL).expect("many rows");
    };
    for (folder, path) in [stopped(fill), killed(fill)] {
        let mut bytes = fs::read(&path).expect("the file");
        let middle = bytes.len() / 2 / 4096 * 4096;
        bytes[middle..middle + 4096].fill(0xA5);
        fs::write(&path, bytes).expect("written");
        let before = picture(&folder);
        let error = open_it(&path).expect_err("a damaged page");
        assert!(
            matches!(&error, OpenError::Damaged { problem, .. } if problem.contains("table node_sequences") && problem.contains("page")),
            "{error}"
        );
        assert!(picture(&folder) == before, "a file was changed");
    }
}

#[test]
fn a_file_that_is_no_database_is_refused_and_not_touched() {
    let (folder, path) = in_a_folder();
    let text = "not a database, but something that somebody may want to keep. ".repeat(40);
    fs::write(&path, &text).expect("a file");
    let before = picture(&folder);
    let error = open_it(&path).expect_err("a text");
    assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
    assert!(picture(&folder) == before, "a file was changed");
}

#[test]
fn a_wal_whose_database_is_gone_or_empty_is_not_thrown_away() {
    for empty in [false, true] {
        let (folder, path) = killed(add_node);
        fs::remove_file(&path).expect("removed");
        if empty {
            fs::write(&path, "").expect("an empty file");
        }
        let before = picture(&folder);
        assert_eq!(open_it(&path).expect_err("half of a database").refusal(), Some(Refusal::Damaged));
        assert_eq!(look(&path, &MIGRATIONS, |_| Ok::<_, OpenError>(())).expect_err("half of it").refusal(), Some(Refusal::Damaged));
        assert!(picture(&folder) == before, "a file was changed");
    }
}

#[test]
fn what_the_reader_of_the_rows_refuses_stays_byte_for_byte_though_it_is_of_an_older_schema_or_a_plain_file() {
    let refuse = |connection: &mut Connection| {
        let transaction = connection.transaction().expect("a transaction");
        transaction.execute("UPDATE node_sequences SET events_through = 7", []).expect("a change");
        Err::<(), _>(OpenError::Damaged { path: PathBuf::new(), problem: "a row".to_owned() })
    };
    let older = |connection: &Connection| {
        add_node(connection);
        let back = "CREATE INDEX events_by_object ON events (object, revision); CREATE INDEX events_by_age ON events (last_at);
                    ALTER TABLE meta DROP COLUMN fence; DROP TABLE objects; PRAGMA user_version = 1";
        connection.execute_batch(back).expect("the first schema");
    };
    let plain = |connection: &Connection| connection.execute_batch("PRAGMA journal_mode = DELETE").expect("one file");
    for (folder, path) in [stopped(add_node), killed(add_node), stopped(older), killed(older), stopped(plain)] {
        let before = picture(&folder);
        assert!(open(&path, &MIGRATIONS, &[], refuse).is_err());
        assert!(picture(&folder) == before, "a file was changed");
        let kept = open_it(&path).expect("nothing else is wrong with it");
        assert_eq!(schema(&kept).expect("a number"), newest(&MIGRATIONS));
    }
}

#[test]
fn a_look_changes_nothing_whether_the_server_is_stopped_killed_or_running() {
    let count =
        |connection: &Connection| Ok(connection.query_row("SELECT count(*) FROM node_sequences", [], |row| row.get(0)).expect("a count"));
    for (folder, path) in [stopped(add_node), killed(add_node)] {
        let before = picture(&folder);
        assert_eq!(look::<i64, OpenError>(&path, &MIGRATIONS, count).expect("a look"), 1);
        assert!(picture(&folder) == before, "a file was changed");
    }
    let (folder, path) = in_a_folder();
    let writer = open_it(&path).expect("a database");
    add_node(&writer);
    let before = picture(&folder);
    assert_eq!(look::<i64, OpenError>(&path, &MIGRATIONS, count).expect("a look"), 1);
    assert!(picture(&folder) == before, "a file was changed");
    writer.execute("DELETE FROM node_sequences", []).expect("the writer goes on");
}

#[test]
fn files_beside_a_database_have_its_mode() {
    let (_folder, path) = stopped(add_node);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("it is ours");
    look::<_, OpenError>(&path, &MIGRATIONS, |connection| {
        schema(connection).expect("a number");
        for suffix in [WAL, SHM] {
            let mode = fs::metadata(beside(&path, suffix)).expect("it is open").permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{suffix}");
        }
        Ok(())
    })
    .expect("a look");
}
