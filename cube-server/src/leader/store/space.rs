//! What a full disk means for the store: who is told, and which room the database has within itself.

use cube_api::event::EventKind;
use cube_api::node::NodeRole;
use rusqlite::Connection;

use super::StoreError;
use super::draft::Draft;
use crate::sqlite::room::Room;

/// The reserve beside the database, in bytes: room for thousands of deletes and reports, each of some KiB.
pub(super) const RESERVE: u64 = 16 << 20;

/// Pages that the database should have free within itself while the disk is full: 1 MiB for what nodes report.
const FREE_PAGES: u32 = 256;

/// The writer's view of the disk.
pub(super) struct Space {
    pub(super) room: Room,
    /// What was noted of it: whether it is short.
    pub(super) told: bool,
}

impl Space {
    /// What whoever asked is told of SQLite's failure.
    pub(super) fn failure(&self, operation: &'static str, source: rusqlite::Error) -> StoreError {
        if self.room.is_lacking(&source) { no_space(&self.room) } else { StoreError::Sqlite { operation, source } }
    }
}

/// The refusal of what needs room.
pub(super) fn no_space(room: &Room) -> StoreError {
    StoreError::NoSpace { remedy: room.remedy() }
}

/// Whether reports can be written without the database's growing.
pub(super) fn has_free_pages(connection: &Connection) -> rusqlite::Result<bool> {
    connection.query_row("PRAGMA freelist_count", [], |row| row.get::<_, u32>(0)).map(|free| free >= FREE_PAGES)
}

/// An event of the leader's own node; a leader that runs no pods has only its log.
pub(super) fn tell(draft: &mut Draft<'_>, short: bool, remedy: &str) {
    let Some(node) = draft.state().nodes.values().find(|node| node.role == NodeRole::Leader).map(|node| node.name.clone()) else { return };
    match short {
        true => {
            let message = format!("the leader's disk is full: it takes deletes and what nodes report, nothing new; {remedy}");
            draft.node_event(&node, EventKind::Warning, "DiskFull", message);
        }
        false => draft.node_event(&node, EventKind::Normal, "DiskFreed", "the leader's disk has room again: it takes everything"),
    }
}
