//! What a database does when its disk is full: it takes room out of its reserve, piece by piece, and says so until there is room again.

use std::error::Error;
use std::sync::Arc;

use rusqlite::{Connection, ErrorCode};

use crate::disk::Disk;
use crate::latest;

/// How often a write that found no room is tried again, each time with another piece of the reserve. What a node's report or a delete writes fits
/// into one; the second is for the case that somebody else took the first.
const PIECES_FOR_ONE: usize = 2;

/// The room of one database. Clones share it.
#[derive(Clone)]
pub struct Room {
    disk: Arc<dyn Disk>,
    short: latest::Sender<bool>,
}

impl Room {
    /// On this disk, of which nothing is known yet.
    pub fn new(disk: Arc<dyn Disk>) -> Self {
        Self { disk, short: latest::channel(false).0 }
    }

    /// The disk.
    pub fn disk(&self) -> &dyn Disk {
        &*self.disk
    }

    /// Whether the disk is full: some of the reserve is used, or there is no room for it.
    pub fn is_short(&self) -> bool {
        *self.short.borrow()
    }

    /// Tells each change of [`Room::is_short`].
    pub fn watch(&self) -> latest::Receiver<bool> {
        self.short.subscribe()
    }

    /// In a sentence, where the disk is and what to do.
    pub fn remedy(&self) -> String {
        let folder = self.disk.folder().display();
        format!("free room on the disk of {folder} (`df -h {folder}` and `docker system df` show what there is)")
    }

    /// Whether SQLite failed for lack of room. It says so itself of its own pages; what its shared memory file or a quota lacks is an I/O error
    /// like others, so the disk is tried then.
    pub fn is_lacking(&self, error: &rusqlite::Error) -> bool {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => true,
            Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen) => self.disk.is_full(),
            Some(_) | None => false,
        }
    }

    /// Whether that is the cause of an error, or the cause of its cause.
    pub fn is_cause(&self, error: &(dyn Error + 'static)) -> bool {
        let mut cause = Some(error);
        while let Some(error) = cause {
            if let Some(error) = error.downcast_ref() {
                return self.is_lacking(error);
            }
            cause = error.source();
        }
        false
    }

    /// Runs `work` once more, and again, if it lacked room: with a piece of the reserve each time. `work` must leave nothing half done when it fails.
    pub fn again<T, E>(&self, mut error: E, lacks: impl Fn(&E) -> bool, mut work: impl FnMut() -> Result<T, E>) -> Result<T, E> {
        for _ in 0..PIECES_FOR_ONE {
            if !lacks(&error) || !self.give_piece() {
                break;
            }
            match work() {
                Ok(done) => return Ok(done),
                Err(next) => error = next,
            }
        }
        Err(error)
    }

    /// As [`Room::again`], after a first try.
    pub fn with_reserve<T, E>(&self, lacks: impl Fn(&E) -> bool, mut work: impl FnMut() -> Result<T, E>) -> Result<T, E> {
        work().or_else(|error| self.again(error, lacks, work))
    }

    /// Before a try: pages that are in the database already needn't stay in the WAL, whose room the next commit then takes again.
    pub fn make_ready(&self, connection: &Connection) {
        if self.is_short()
            && let Err(error) = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
        {
            tracing::debug!(%error, "the WAL can't be brought into the database now");
        }
        self.limit_pages(connection);
    }

    /// Takes the disk's word for how large the database may get, where it has one.
    pub fn limit_pages(&self, connection: &Connection) {
        if let Some(pages) = self.disk.page_limit()
            && let Err(error) = connection.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))
        {
            tracing::warn!(%error, "the database's size can't be limited");
        }
    }

    /// Looks whether the reserve is whole or can be made so: that is when the disk is no longer full.
    pub fn look(&self) {
        match self.disk.take_reserve() {
            Ok(whole) => self.set(!whole),
            Err(error) => tracing::debug!(%error, "the disk's reserve can't be looked after"),
        }
    }

    /// The disk is full: gives a piece of the reserve free, if there is one.
    pub fn give_piece(&self) -> bool {
        self.set(true);
        self.disk.give_piece().unwrap_or_else(|error| {
            tracing::error!(%error, "the disk is full and its reserve can't be given free");
            false
        })
    }

    fn set(&self, short: bool) {
        let folder = self.disk.folder().display();
        match (self.short.send_replace(short), short) {
            (false, true) => tracing::error!("the disk of {folder} is full: {}", self.remedy()),
            (true, false) => tracing::info!("the disk of {folder} has room again"),
            (true, true) | (false, false) => {}
        }
    }
}
