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
/// How many are kept of all objects together, at least: some 40 MB.
const KEPT_IN_ALL: usize = 100_000;
/// How many are kept of all objects together for each pod that there is: a pod's plain life has five. Else the lives of 150,000 pods would push
/// each other out, and each would cost its events' deletion beside their making.
const KEPT_FOR_EACH_POD: usize = 10;
/// After so many new ones the old ones are looked at, besides once an hour: few, because commits wait meanwhile (a deletion takes some 5 us).
pub(super) const LOOKED_AT_AFTER: usize = 1_000;
/// An object that has more than so many of those new ones may have more than are kept of one.
const MANY_OF_THE_NEW: usize = 20;
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
    // By the object, of which there are few: SQLite would go through all of them in the order of revisions, to save sorting these.
    const OF_ONE: &str = "SELECT * FROM events INDEXED BY events_same WHERE revision > ?1 AND object = ?3 ORDER BY revision DESC LIMIT ?2";
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

/// How many are kept in a cluster of so many pods.
pub(super) fn kept_in_all(pods: usize) -> usize {
    KEPT_IN_ALL.max(pods.saturating_mul(KEPT_FOR_EACH_POD))
}

/// Drops events that are too old, each object's over its number, and the oldest over the number of all. Looks at every event: some 100 ms.
pub(super) fn forget(connection: &Connection, oldest: Timestamp, most: usize) -> rusqlite::Result<usize> {
    const MANY: &str = "SELECT object FROM events GROUP BY object HAVING count(*) > ?1";
    let old = connection.execute("DELETE FROM events WHERE last_at < ?1", [oldest.as_microsecond()])?;
    let surplus = connection.execute(&surplus_of(MANY), [KEPT_OF_AN_OBJECT])?;
    Ok(old + surplus + forget_over(connection, most)?)
}

/// The same in between, at a cost that follows the events that are newer than `since`: the age is left for later, and so are objects with few new ones.
pub(super) fn forget_some(connection: &Connection, since: Revision, most: usize) -> rusqlite::Result<usize> {
    const MANY: &str = "SELECT object FROM events INDEXED BY events_by_revision WHERE revision > ?2 GROUP BY object HAVING count(*) > ?3";
    let surplus = connection.prepare_cached(&surplus_of(MANY))?.execute(params![KEPT_OF_AN_OBJECT, since.0, MANY_OF_THE_NEW])?;
    Ok(surplus + forget_over(connection, most)?)
}

/// Drops the oldest of some objects' events over their number, ?1.
fn surplus_of(objects: &str) -> String {
    format!(
        "DELETE FROM events WHERE id IN (SELECT id FROM
            (SELECT id, row_number() OVER (PARTITION BY object ORDER BY revision DESC) AS place FROM events WHERE object IN ({objects}))
            WHERE place > ?1)"
    )
}

/// Drops all but the newest so many. SQLite counts a table by its pages: 0.2 ms for 100,000 rows.
fn forget_over(connection: &Connection, most: usize) -> rusqlite::Result<usize> {
    const OLDEST: &str = "DELETE FROM events WHERE id IN (SELECT id FROM events ORDER BY revision LIMIT ?1)";
    let surplus = count(connection)?.saturating_sub(most as u64);
    if surplus == 0 { Ok(0) } else { connection.prepare_cached(OLDEST)?.execute([surplus]) }
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

    #[test]
    fn a_loud_object_is_bounded_before_the_hour_is_over_and_a_quiet_one_keeps_what_it_has() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let as_it_is = |_: &mut Connection| Ok::<_, crate::sqlite::OpenError>(());
        let (connection, ()) = crate::sqlite::open(&folder.path().join("leader.db"), &MIGRATIONS, &[], as_it_is).expect("a database");
        let insert = |object: &str, number: u64| {
            let sql = "INSERT INTO events VALUES (NULL, ?1, '', 'Normal', 'Created', ?2, 1, 0, 0, 'leader', ?2)";
            connection.execute(sql, params![object, number]).expect("a row");
        };
        (1..=300).for_each(|number| insert("pod/quiet", number));
        (301..=600).for_each(|number| insert("pod/loud", number));
        assert_eq!(forget_some(&connection, Revision(300), 10_000).expect("a statement"), 100);
        let kept = |object: &str| {
            let sql = "SELECT count(*), min(revision) FROM events WHERE object = ?1";
            connection.query_row(sql, [object], |row| Ok((row.get::<_, u64>(0)?, row.get::<_, u64>(1)?))).expect("a row")
        };
        assert_eq!((kept("pod/loud"), kept("pod/quiet")), ((200, 401), (300, 1)));
        assert_eq!(forget(&connection, Timestamp::MIN, 10_000).expect("a statement"), 100, "once an hour everybody is looked at");
        assert_eq!((kept("pod/loud"), kept("pod/quiet")), ((200, 401), (200, 101)));
    }

    #[test]
    fn a_large_cluster_keeps_the_lives_of_all_its_pods() {
        assert_eq!((kept_in_all(10), kept_in_all(150_000)), (100_000, 1_500_000));
    }
}
