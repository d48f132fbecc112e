//! Reading and forgetting events. They stay in SQLite: nobody decides by them.

use cube_api::event::{Event, EventKind};
use cube_api::meta::{Name, ResourceKind, ResourceRef, Revision};
use cube_api::routes::EventQuery;
use cube_api::{ApiError, ErrorCode};
use jiff::{SignedDuration, Timestamp};
use rusqlite::{Connection, Row, params};
use serde::de::Error as _;

use super::StoreError;
use super::rows::ReadError;

/// How long an event is kept.
const KEPT_FOR: SignedDuration = SignedDuration::from_hours(7 * 24);
/// How many are kept of one object.
const KEPT_OF_AN_OBJECT: usize = 200;
/// How many are kept of all objects together: some 40 MB.
const KEPT_IN_ALL: usize = 100_000;
/// After so many new ones the old ones are looked at, besides once an hour.
pub(super) const LOOKED_AT_AFTER: usize = 10_000;
/// How many are kept in any case when the disk is full: what happens then must be told.
const KEPT_ON_A_FULL_DISK: usize = 1_000;
/// Some 300 KB of rows: their deletion has to fit into what room there is.
const FORGOTTEN_AT_ONCE: usize = 1_000;
/// How many an answer has when the query doesn't say.
const DEFAULT_LIMIT: usize = 1_000;
/// The most that an answer has: some 3 MB.
const MAX_LIMIT: usize = 10_000;

/// A checked query.
pub(super) struct Wanted {
    object: Option<String>,
    after: Revision,
    limit: usize,
}

impl Wanted {
    pub(super) fn parse(query: EventQuery) -> Result<Self, ApiError> {
        let object = query.object.map(|text| reference(&text).map(|object| object.to_string())).transpose()?;
        let limit = query.limit.unwrap_or(DEFAULT_LIMIT).min(MAX_LIMIT);
        Ok(Self { object, after: query.from.unwrap_or_default(), limit })
    }
}

/// Reads `pod/web` as people type it.
fn reference(text: &str) -> Result<ResourceRef, ApiError> {
    let refused = |message: String| ApiError::new(ErrorCode::BadRequest, message).hint("write type/name, such as pod/my-pod or node/n1");
    let (kind, name) = text.split_once('/').ok_or_else(|| refused(format!("'{text}' is not an object")))?;
    let kind: ResourceKind = kind.parse().map_err(refused)?;
    let name = Name::new(name).map_err(|error| refused(format!("'{text}' is not an object: {error}")))?;
    Ok(ResourceRef { kind, name })
}

/// The newest `limit` of those that are wanted, in order of their revisions. That is the order in which the leader learnt of them: clocks of
/// several machines would not give an order that is safe.
pub(super) fn read(connection: &Connection, wanted: &Wanted) -> Result<Vec<Event>, StoreError> {
    const ALL: &str = "SELECT * FROM events WHERE revision > ?1 ORDER BY revision DESC LIMIT ?2";
    const OF_ONE: &str = "SELECT * FROM events WHERE revision > ?1 AND object = ?3 ORDER BY revision DESC LIMIT ?2";
    let failed = |source| StoreError::Sqlite { operation: "read events", source };
    // SQLite's integers end at 2^63: no revision is beyond.
    let (after, limit) = (wanted.after.0.min(i64::MAX as u64), wanted.limit);
    let mut statement = connection.prepare_cached(if wanted.object.is_some() { OF_ONE } else { ALL }).map_err(failed)?;
    let mut rows = match &wanted.object {
        Some(object) => statement.query(params![after, limit, object]),
        None => statement.query(params![after, limit]),
    }
    .map_err(failed)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next().map_err(failed)? {
        found.push(event_of(row).map_err(|error| error.in_a("event", row))?);
    }
    found.reverse();
    Ok(found)
}

/// Events that were last seen before this are forgotten.
pub(super) fn oldest_kept(now: Timestamp) -> Timestamp {
    now.checked_sub(KEPT_FOR).unwrap_or(Timestamp::MIN)
}

/// Drops events that are too old, each object's over its number, and the oldest over the number of all.
pub(super) fn forget(connection: &Connection, oldest: Timestamp) -> rusqlite::Result<usize> {
    const SURPLUS: &str = "DELETE FROM events WHERE id IN (SELECT id FROM
        (SELECT id, row_number() OVER (PARTITION BY object ORDER BY revision DESC) AS place FROM events) WHERE place > ?1)";
    let old = connection.execute("DELETE FROM events WHERE last_at < ?1", [oldest.as_microsecond()])?;
    let surplus = connection.execute(SURPLUS, [KEPT_OF_AN_OBJECT])?;
    Ok(old + surplus + forget_over(connection, KEPT_IN_ALL)?)
}

/// Drops all but the newest so many.
fn forget_over(connection: &Connection, most: usize) -> rusqlite::Result<usize> {
    const OVER: &str = "DELETE FROM events WHERE revision <= (SELECT revision FROM events ORDER BY revision DESC LIMIT 1 OFFSET ?1)";
    connection.execute(OVER, [most])
}

/// Drops the oldest events, a piece at a time and never the newest: for room on a full disk.
pub(super) fn forget_oldest(connection: &Connection) -> rusqlite::Result<usize> {
    const OLDEST: &str = "DELETE FROM events WHERE id IN (SELECT id FROM events
        WHERE revision < (SELECT revision FROM events ORDER BY revision DESC LIMIT 1 OFFSET ?1) ORDER BY revision LIMIT ?2)";
    connection.execute(OLDEST, [KEPT_ON_A_FULL_DISK, FORGOTTEN_AT_ONCE])
}

/// How many there are.
pub(super) fn count(connection: &Connection) -> rusqlite::Result<u64> {
    connection.prepare_cached("SELECT count(*) FROM events")?.query_row([], |row| row.get(0))
}

/// The word of the `kind` column.
pub(super) fn kind_text(kind: EventKind) -> &'static str {
    match kind {
        EventKind::Normal => "Normal",
        EventKind::Warning => "Warning",
    }
}

fn event_of(row: &Row<'_>) -> Result<Event, ReadError> {
    let object: String = row.get("object")?;
    let uid: String = row.get("uid")?;
    let kind: String = row.get("kind")?;
    let uid = if uid.is_empty() { None } else { Some(uid.parse().map_err(serde_json::Error::custom::<uuid::Error>)?) };
    let kind = match kind.as_str() {
        "Normal" => EventKind::Normal,
        "Warning" => EventKind::Warning,
        other => return Err(ReadError::Json(serde_json::Error::custom(format!("'{other}' is no kind of event")))),
    };
    Ok(Event {
        object: reference(&object).map_err(serde_json::Error::custom)?,
        uid,
        kind,
        reason: row.get("reason")?,
        message: row.get("message")?,
        count: row.get("count")?,
        first_at: time(row, "first_at")?,
        last_at: time(row, "last_at")?,
        source: row.get("source")?,
        revision: Revision(row.get("revision")?),
    })
}

fn time(row: &Row<'_>, column: &str) -> Result<Timestamp, ReadError> {
    Ok(Timestamp::from_microsecond(row.get(column)?).map_err(serde_json::Error::custom)?)
}

#[cfg(test)]
mod tests {
    use include_dir::{Dir, include_dir};

    use super::*;

    static MIGRATIONS: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/../migrations/leader");

    #[test]
    fn of_too_many_events_the_newest_stay() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let as_it_is = |_: &mut Connection| Ok::<_, crate::sqlite::OpenError>(());
        let (connection, ()) = crate::sqlite::open(&folder.path().join("leader.db"), &MIGRATIONS, &[], as_it_is).expect("a database");
        for number in 1..=20 {
            let sql = "INSERT INTO events VALUES (NULL, 'pod/x' || ?1, '', 'Normal', 'Created', '', 1, 0, 0, 'leader', 100 + ?1)";
            connection.execute(sql, [number]).expect("a row");
        }
        assert_eq!(forget_over(&connection, 20).expect("a statement"), 0);
        assert_eq!(forget_over(&connection, 12).expect("a statement"), 8);
        let left: (u64, u64) =
            connection.query_row("SELECT count(*), min(revision) FROM events", [], |row| Ok((row.get(0)?, row.get(1)?))).expect("a row");
        assert_eq!(left, (12, 109));
        assert_eq!(count(&connection).expect("a statement"), 12);
    }
}
