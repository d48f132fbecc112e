//! The rows of the leader's database: reading all of them at the start, writing the changed ones.

use std::collections::BTreeSet;
use std::sync::Arc;

use cube_api::event::Event;
use cube_api::meta::{ClusterId, Labels, Metadata, Name, NodeId, Revision};
use cube_api::node::{Capacity, Node};
use cube_api::object::Object;
use cube_api::pod::{Placement, Pod, PodSpec, PodStatus};
use cube_api::session::Epoch;
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, TransactionBehavior, params};
use serde::Serialize;
use serde::de::{DeserializeOwned, Error as _};

use super::fence::Fence;
use super::state::{KeptNode, KeptPod, Machine, State, Write};
use super::templates::{FromTexts, Newest};
use super::{PodRow, StoreError, events};

/// What a database holds at the start of this life of the leader.
pub(super) struct Loaded {
    pub(super) cluster_id: ClusterId,
    pub(super) epoch: Epoch,
    pub(super) state: State,
}

/// Counts the epoch up (or makes the cluster) and reads everything but the events.
pub(super) fn load(connection: &mut Connection, new_cluster: ClusterId) -> Result<Loaded, StoreError> {
    let failed = |source| StoreError::Sqlite { operation: "read its state", source };
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
    let (cluster_id, epoch, revision, fence) = begin_life(&transaction, new_cluster)?;
    let mut state = State::default();
    (state.revision, state.fence) = (revision, fence);
    all(&transaction, "SELECT * FROM nodes", "node", node_of, |kept| {
        state.follow(&Write::Node { revision, before: None, after: Some(kept) });
    })?;
    let nodes: BTreeSet<_> = state.nodes.keys().cloned().collect();
    let (mut specs, mut labels) = (FromTexts::default(), Newest::default());
    all(
        &transaction,
        "SELECT * FROM pods",
        "pod",
        |row| pod_of(row, &nodes, &mut specs, &mut labels),
        |kept| {
            state.follow(&Write::Pod { revision, before: None, after: Some(kept) });
        },
    )?;
    all(&transaction, "SELECT * FROM objects", "object", object_of, |object| {
        state.follow(&Write::Object { revision, before: None, after: Some(Arc::new(object)) });
    })?;
    all(&transaction, "SELECT * FROM node_sequences", "node sequence", sequence_of, |write| state.follow(&write))?;
    transaction.commit().map_err(failed)?;
    Ok(Loaded { cluster_id, epoch, state })
}

/// What the meta row says at a start.
type Life = (ClusterId, Epoch, Revision, Option<Arc<Fence>>);

fn begin_life(transaction: &Transaction<'_>, new_cluster: ClusterId) -> Result<Life, StoreError> {
    let failed = |source| StoreError::Sqlite { operation: "count its epoch up", source };
    let known = transaction
        .query_row("UPDATE meta SET epoch = epoch + 1 RETURNING cluster_id, epoch, revision, fence", [], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, u64>(1)?, row.get::<_, u64>(2)?, row.get::<_, Option<String>>(3)?))
        })
        .optional()
        .map_err(failed)?;
    if let Some((cluster_id, epoch, revision, fence)) = known {
        let unreadable = |source| StoreError::Corrupt { what: "fence", which: "the meta row".to_owned(), source };
        let fence = fence.map(|text| serde_json::from_str(&text).map_err(unreadable)).transpose()?.map(Arc::new);
        return Ok((parsed("cluster id", &cluster_id)?, Epoch(epoch), Revision(revision), fence));
    }
    transaction
        .execute("INSERT INTO meta (id, cluster_id, epoch, revision) VALUES (1, ?1, 1, 0)", [new_cluster.to_string()])
        .map_err(failed)?;
    Ok((new_cluster, Epoch(1), Revision(0), None))
}

/// Every row of a query, read in two steps, so that a row that can't be read is not taken for SQLite's failure. Each is taken before the next is
/// read: all of them at once, beside the state that they go to, would be the leader's largest moment.
fn all<T>(
    connection: &Connection,
    sql: &str,
    what: &'static str,
    mut read: impl FnMut(&Row<'_>) -> Result<T, ReadError>,
    mut take: impl FnMut(T),
) -> Result<(), StoreError> {
    let failed = |source| StoreError::Sqlite { operation: "read its state", source };
    let mut statement = connection.prepare(sql).map_err(failed)?;
    let mut rows = statement.query([]).map_err(failed)?;
    while let Some(row) = rows.next().map_err(failed)? {
        take(read(row).map_err(|error| error.in_a(what, row))?);
    }
    Ok(())
}

/// Why a row can't be read.
pub(super) enum ReadError {
    Sqlite(rusqlite::Error),
    Json(serde_json::Error),
}

impl From<rusqlite::Error> for ReadError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl From<serde_json::Error> for ReadError {
    fn from(error: serde_json::Error) -> Self {
        Self::Json(error)
    }
}

impl ReadError {
    /// With the row's first column, which is its key.
    pub(super) fn in_a(self, what: &'static str, row: &Row<'_>) -> StoreError {
        let which = match row.get::<_, Value>(0) {
            Ok(Value::Text(key)) => key,
            Ok(Value::Integer(key)) => key.to_string(),
            Ok(Value::Null | Value::Real(_) | Value::Blob(_)) | Err(_) => "one without a key".to_owned(),
        };
        match self {
            // Not the type that was written.
            Self::Sqlite(source) => StoreError::Corrupt { what, which, source: serde_json::Error::custom(source) },
            Self::Json(source) => StoreError::Corrupt { what, which, source },
        }
    }
}

/// A JSON column.
pub(super) fn json<T: DeserializeOwned>(row: &Row<'_>, column: &str) -> Result<T, ReadError> {
    Ok(serde_json::from_str(row.get_ref(column)?.as_str().map_err(rusqlite::Error::from)?)?)
}

fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(what: &'static str, text: &str) -> Result<T, StoreError> {
    text.parse().map_err(|error: T::Err| StoreError::Corrupt { what, which: text.to_owned(), source: serde_json::Error::custom(error) })
}

/// Names of nodes, specs and labels are shared, as they were before the restart.
fn pod_of(
    row: &Row<'_>,
    nodes: &BTreeSet<Name>,
    specs: &mut FromTexts<PodSpec>,
    labels: &mut Newest<Labels>,
) -> Result<KeptPod, ReadError> {
    let mut metadata: Metadata = json(row, "metadata")?;
    metadata.labels = labels.share(Arc::unwrap_or_clone(metadata.labels));
    let spec = specs.read(row.get_ref("spec")?.as_str().map_err(rusqlite::Error::from)?)?;
    let mut placement: Placement = json(row, "placement")?;
    placement.node = placement.node.map(|node| nodes.get(&node).cloned().unwrap_or(node));
    let mut status: PodStatus = json(row, "status")?;
    status.containers.shrink_to_fit();
    let pod = Pod { metadata, spec, placement, status };
    let retired = row.get::<_, Option<String>>("retired")?.map(|text| serde_json::from_str(&text)).transpose()?;
    let kept = PodRow { pod, restarts: row.get("restarts")?, retired };
    Ok(KeptPod { row: Arc::new(kept), report_sequence: row.get("report_sequence")? })
}

fn node_of(row: &Row<'_>) -> Result<KeptNode, ReadError> {
    let mut node: Node = json(row, "node")?;
    // From before nodes kept anything back: pods may have all of it, until the node joins again and says.
    if node.allocatable == Capacity::default() {
        node.allocatable = node.capacity;
    }
    Ok(KeptNode { node: Arc::new(node), machine: Machine { id: row.get("machine_id")?, trouble: row.get("trouble")? } })
}

fn object_of(row: &Row<'_>) -> Result<Object, ReadError> {
    json(row, "object")
}

fn sequence_of(row: &Row<'_>) -> Result<Write, ReadError> {
    let node_id: NodeId = row.get::<_, String>("node_id")?.parse().map_err(serde_json::Error::custom::<uuid::Error>)?;
    Ok(Write::EventsThrough { node_id, before: None, after: Some(row.get("events_through")?) })
}

/// Writes an operation's changes, in their order.
pub(super) fn write(connection: &Connection, writes: &[Write]) -> rusqlite::Result<()> {
    for change in writes {
        match change {
            Write::Pod { revision: _, before: None, after: Some(kept) } => insert_pod(connection, kept)?,
            Write::Pod { revision: _, before: Some(_), after: Some(kept) } => update_pod(connection, kept)?,
            Write::Pod { revision: _, before: Some(kept), after: None } => {
                delete(connection, "DELETE FROM pods WHERE uid = ?1", &kept.row.pod.metadata.uid.to_string())?;
            }
            Write::Node { revision: _, before: _, after: Some(kept) } => put_node(connection, kept)?,
            Write::Node { revision: _, before: Some(kept), after: None } => {
                delete(connection, "DELETE FROM nodes WHERE name = ?1", kept.node.name.as_str())?;
            }
            Write::Object { revision: _, before: _, after: Some(object) } => put_object(connection, object)?,
            Write::Object { revision: _, before: Some(object), after: None } => {
                delete(connection, "DELETE FROM objects WHERE uid = ?1", &object.metadata().uid.to_string())?;
            }
            Write::Pod { revision: _, before: None, after: None }
            | Write::Node { revision: _, before: None, after: None }
            | Write::Object { revision: _, before: None, after: None } => {}
            Write::EventsThrough { node_id, before: _, after: Some(through) } => put_sequence(connection, node_id, *through)?,
            Write::EventsThrough { node_id, before: _, after: None } => {
                delete(connection, "DELETE FROM node_sequences WHERE node_id = ?1", &node_id.to_string())?;
            }
            Write::Fence { before: _, after } => put_fence(connection, after.as_deref())?,
            Write::Event(event) => put_event(connection, event)?,
        }
    }
    Ok(())
}

/// Notes the newest revision, in the transaction of the writes that got it.
pub(super) fn put_revision(connection: &Connection, revision: Revision) -> rusqlite::Result<()> {
    connection.prepare_cached("UPDATE meta SET revision = ?1")?.execute([revision.0]).map(drop)
}

fn delete(connection: &Connection, sql: &str, key: &str) -> rusqlite::Result<()> {
    connection.prepare_cached(sql)?.execute([key]).map(drop)
}

fn text(value: &impl Serialize) -> rusqlite::Result<String> {
    serde_json::to_string(value).map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}

fn insert_pod(connection: &Connection, kept: &KeptPod) -> rusqlite::Result<()> {
    const SQL: &str = "INSERT INTO pods (uid, name, revision, node, restarts, report_sequence, retired, metadata, spec, placement, status)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";
    let PodRow { pod, restarts, retired } = &*kept.row;
    let row = params![
        pod.metadata.uid.to_string(),
        pod.metadata.name.as_str(),
        pod.metadata.revision.0,
        pod.placement.node.as_ref().map(Name::as_str),
        restarts,
        kept.report_sequence,
        retired.as_ref().map(text).transpose()?,
        text(&pod.metadata)?,
        text(&pod.spec)?,
        text(&pod.placement)?,
        text(&pod.status)?,
    ];
    connection.prepare_cached(SQL)?.execute(row).map(drop)
}

/// What may change of a pod: its name and its spec don't.
fn update_pod(connection: &Connection, kept: &KeptPod) -> rusqlite::Result<()> {
    const SQL: &str = "UPDATE pods SET revision = ?2, node = ?3, restarts = ?4, report_sequence = ?5, retired = ?6, metadata = ?7,
        placement = ?8, status = ?9 WHERE uid = ?1";
    let PodRow { pod, restarts, retired } = &*kept.row;
    let row = params![
        pod.metadata.uid.to_string(),
        pod.metadata.revision.0,
        pod.placement.node.as_ref().map(Name::as_str),
        restarts,
        kept.report_sequence,
        retired.as_ref().map(text).transpose()?,
        text(&pod.metadata)?,
        text(&pod.placement)?,
        text(&pod.status)?,
    ];
    match connection.prepare_cached(SQL)?.execute(row)? {
        1 => Ok(()),
        changed => Err(rusqlite::Error::StatementChangedRows(changed)),
    }
}

fn put_node(connection: &Connection, kept: &KeptNode) -> rusqlite::Result<()> {
    const SQL: &str = "INSERT INTO nodes (name, node_id, machine_id, revision, trouble, node) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
        ON CONFLICT (name) DO UPDATE SET node_id = excluded.node_id, machine_id = excluded.machine_id, revision = excluded.revision,
            trouble = excluded.trouble, node = excluded.node";
    let KeptNode { node, machine } = kept;
    let row = params![node.name.as_str(), node.node_id.to_string(), machine.id, node.revision.0, machine.trouble, text(&**node)?];
    connection.prepare_cached(SQL)?.execute(row).map(drop)
}

fn put_object(connection: &Connection, object: &Object) -> rusqlite::Result<()> {
    const SQL: &str = "INSERT INTO objects (uid, type, name, revision, object) VALUES (?1, ?2, ?3, ?4, ?5)
        ON CONFLICT (uid) DO UPDATE SET revision = excluded.revision, object = excluded.object";
    let metadata = object.metadata();
    let row = params![metadata.uid.to_string(), object.kind().as_str(), metadata.name.as_str(), metadata.revision.0, text(object)?];
    connection.prepare_cached(SQL)?.execute(row).map(drop)
}

fn put_sequence(connection: &Connection, node_id: &NodeId, through: u64) -> rusqlite::Result<()> {
    const SQL: &str = "INSERT INTO node_sequences (node_id, events_through) VALUES (?1, ?2)
        ON CONFLICT (node_id) DO UPDATE SET events_through = excluded.events_through";
    connection.prepare_cached(SQL)?.execute(params![node_id.to_string(), through]).map(drop)
}

fn put_fence(connection: &Connection, fence: Option<&Fence>) -> rusqlite::Result<()> {
    connection.execute("UPDATE meta SET fence = ?1", [fence.map(text).transpose()?]).map(drop)
}

fn put_event(connection: &Connection, event: &Event) -> rusqlite::Result<()> {
    const SQL: &str = "INSERT INTO events (object, uid, kind, reason, message, count, first_at, last_at, source, revision)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
        ON CONFLICT (object, uid, reason, message) DO UPDATE SET kind = excluded.kind, count = count + excluded.count,
            last_at = max(last_at, excluded.last_at), source = excluded.source, revision = excluded.revision";
    let row = params![
        event.object.to_string(),
        event.uid.map(|uid| uid.to_string()).unwrap_or_default(),
        events::kind_text(event.kind),
        event.reason,
        event.message,
        event.count,
        event.first_at.as_microsecond(),
        event.last_at.as_microsecond(),
        event.source,
        event.revision.0,
    ];
    connection.prepare_cached(SQL)?.execute(row).map(drop)
}
