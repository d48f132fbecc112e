//! A disk that a test fills and frees: SQLite's limit of pages stands for it, on a real file.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::{Disk, Space};

/// Pages in a piece of the reserve: 1 MiB.
const PIECE: u32 = 256;
/// Pieces of the reserve.
pub const PIECES: u32 = 8;

/// A disk with room for so many pages of the database, some of which are the reserve.
pub struct Scripted {
    folder: PathBuf,
    limit: AtomicU32,
    pieces: AtomicU32,
    has_room: AtomicBool,
}

impl Scripted {
    /// With room, as long as nobody says otherwise.
    pub fn new() -> Arc<Self> {
        let (limit, pieces) = (AtomicU32::new(1 << 20), AtomicU32::new(PIECES));
        Arc::new(Self { folder: PathBuf::from("/the/data/folder"), limit, pieces, has_room: AtomicBool::new(true) })
    }

    /// Nothing more than so many pages.
    pub fn fill(&self, pages: u32) {
        self.limit.store(pages, Ordering::SeqCst);
        self.has_room.store(false, Ordering::SeqCst);
    }

    /// Nothing of the reserve is left either.
    pub fn use_up(&self) {
        self.pieces.store(0, Ordering::SeqCst);
    }

    /// There is room again.
    pub fn free(&self) {
        self.limit.store(1 << 20, Ordering::SeqCst);
        self.has_room.store(true, Ordering::SeqCst);
    }

    /// What is left of the reserve.
    pub fn pieces(&self) -> u32 {
        self.pieces.load(Ordering::SeqCst)
    }
}

impl Disk for Scripted {
    fn folder(&self) -> &Path {
        &self.folder
    }

    fn space(&self) -> io::Result<Space> {
        Ok(Space::default())
    }

    fn is_full(&self) -> bool {
        false
    }

    fn take_reserve(&self) -> io::Result<bool> {
        if self.has_room.load(Ordering::SeqCst) {
            self.pieces.store(PIECES, Ordering::SeqCst);
        }
        Ok(self.pieces() == PIECES)
    }

    fn give_piece(&self) -> io::Result<bool> {
        if self.pieces() == 0 {
            return Ok(false);
        }
        self.pieces.fetch_sub(1, Ordering::SeqCst);
        self.limit.fetch_add(PIECE, Ordering::SeqCst);
        Ok(true)
    }

    fn page_limit(&self) -> Option<u32> {
        Some(self.limit.load(Ordering::SeqCst))
    }
}
