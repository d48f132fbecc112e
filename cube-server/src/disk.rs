//! The disk below a data folder: how much room it has, and a reserve for the day on which it has none.
//!
//! On a full disk SQLite can't even delete. So a file beside the database holds room that is really allocated; when a write fails, a piece of it
//! is given free, which the write then takes. Pieces, because whatever filled the disk takes all that it finds: what the database took into its
//! own files stays its own. Knows no SQL; [`crate::sqlite::room`] says when the reserve is needed.

#[cfg(any(test, feature = "fake"))]
pub mod scripted;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate, statvfs};

/// A reserve has so many pieces.
const PIECES: u64 = 8;
/// A reserve is at most such a part of its disk.
const PART: u64 = 8;
/// What [`Disk::is_full`] tries to write: a few of SQLite's pages, and the 32 KiB by which its shared memory file grows.
const TRIAL: u64 = 64 * 1024;
/// What is written at a time where the file system can't allocate.
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// Bytes of a disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Space {
    /// That this user may still write.
    pub free: u64,
    /// All of it.
    pub all: u64,
}

/// What a database needs to know of the disk that it is on. A simulation has its own.
pub trait Disk: Send + Sync + 'static {
    /// The folder, for people.
    fn folder(&self) -> &Path;
    /// How much room there is.
    fn space(&self) -> io::Result<Space>;
    /// Whether not even a few pages can be written. Asked after an error that may have had that cause, or another.
    fn is_full(&self) -> bool;
    /// Takes the reserve, or what is missing of it, unless the disk would then have less free than the reserve again; whether it is whole.
    fn take_reserve(&self) -> io::Result<bool>;
    /// Gives a piece of the reserve free; `false` if nothing is left of it.
    fn give_piece(&self) -> io::Result<bool>;
    /// The most pages that the database may have, where that is what stands for a full disk.
    fn page_limit(&self) -> Option<u32> {
        None
    }
}

/// A real one.
pub struct FileSystem {
    folder: PathBuf,
    reserve: PathBuf,
    most: u64,
}

/// Whether a disk with so much free has room for the rest of a reserve and for as much again: one that is nearly full needs it more than we do.
fn leaves_as_much_again(free: u64, held: u64, whole: u64) -> bool {
    free >= (whole - held) + whole
}

impl FileSystem {
    /// The disk of a database, with a reserve of at most so many bytes beside it.
    pub fn of(database: &Path, most: u64) -> Self {
        let folder = database.parent().map(Path::to_owned).unwrap_or_default();
        Self { folder, reserve: reserve_of(database), most }
    }

    /// Bytes of one piece; a small disk has small ones.
    fn piece(&self, space: Space) -> u64 {
        let piece = (self.most.min(space.all / PART) / PIECES) & !(TRIAL - 1);
        piece.max(TRIAL)
    }

    fn held(&self) -> io::Result<u64> {
        match fs::metadata(&self.reserve) {
            Ok(metadata) => Ok(metadata.len()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(error),
        }
    }
}

impl Disk for FileSystem {
    fn folder(&self) -> &Path {
        &self.folder
    }

    fn space(&self) -> io::Result<Space> {
        space(&self.folder)
    }

    fn is_full(&self) -> bool {
        let trial = self.reserve.with_extension("trial");
        let written = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&trial).and_then(|mut file| {
            allocate(&mut file, 0, TRIAL)?;
            file.sync_all()
        });
        // It stays only where nothing can be removed either, and is taken for nothing else.
        drop(fs::remove_file(&trial));
        written.is_err_and(|error| is_lack_of_room(&error))
    }

    fn take_reserve(&self) -> io::Result<bool> {
        let (held, space) = (self.held()?, self.space()?);
        let whole = self.piece(space) * PIECES;
        if held >= whole {
            return Ok(true);
        }
        if !leaves_as_much_again(space.free, held, whole) {
            return Ok(false);
        }
        let mut file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&self.reserve)?;
        match allocate(&mut file, held, whole).and_then(|()| file.sync_all()) {
            Ok(()) => Ok(true),
            // A quota, or somebody was faster.
            Err(error) if is_lack_of_room(&error) => file.set_len(held).map(|()| false),
            Err(error) => Err(error),
        }
    }

    fn give_piece(&self) -> io::Result<bool> {
        let held = self.held()?;
        if held == 0 {
            return Ok(false);
        }
        let file = OpenOptions::new().write(true).open(&self.reserve)?;
        file.set_len(held.saturating_sub(self.piece(self.space()?)))?;
        // Journalling file systems have the blocks free only after that.
        file.sync_all()?;
        Ok(true)
    }
}

/// How much room the disk of a folder has.
pub fn space(folder: &Path) -> io::Result<Space> {
    let found = statvfs(folder)?;
    Ok(Space { free: found.f_bavail.saturating_mul(found.f_frsize), all: found.f_blocks.saturating_mul(found.f_frsize) })
}

/// Where a database has its reserve: `leader.reserve` beside `leader.db`.
pub fn reserve_of(database: &Path) -> PathBuf {
    database.with_extension("reserve")
}

/// Whether an error says that there is no room: on the disk, or for this user.
pub fn is_lack_of_room(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Makes a file `end` bytes long, all of which are its own.
fn allocate(file: &mut File, begin: u64, end: u64) -> io::Result<()> {
    match fallocate(&*file, FallocateFlags::empty(), begin, end - begin) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
            io::Seek::seek(file, io::SeekFrom::Start(begin))?;
            for at in (begin..end).step_by(ZEROS.len()) {
                let length = (end - at).min(ZEROS.len() as u64);
                file.write_all(&ZEROS[..usize::try_from(length).unwrap_or(ZEROS.len())])?;
            }
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    const MOST: u64 = 1 << 20;

    #[test]
    fn a_reserve_is_really_allocated_given_in_pieces_and_taken_back() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let disk = FileSystem::of(&folder.path().join("leader.db"), MOST);
        assert!(disk.take_reserve().expect("a folder of ours"), "the disk has room");
        let reserve = folder.path().join("leader.reserve");
        let metadata = fs::metadata(&reserve).expect("it is there");
        assert_eq!((metadata.len(), metadata.blocks() * 512 >= MOST, metadata.mode() & 0o777), (MOST, true, 0o600));
        let mut pieces = 0;
        while disk.give_piece().expect("a folder of ours") {
            pieces += 1;
            assert_eq!(fs::metadata(&reserve).expect("it is there").len(), MOST - pieces * (MOST / PIECES));
        }
        assert_eq!(pieces, PIECES);
        assert!(disk.take_reserve().expect("a folder of ours"));
        assert_eq!(fs::metadata(&reserve).expect("it is there").len(), MOST);
    }

    #[test]
    fn a_disk_without_twice_the_reserve_keeps_what_it_has() {
        assert!(leaves_as_much_again(32, 0, 16) && leaves_as_much_again(16, 16, 16));
        assert!(!leaves_as_much_again(31, 0, 16) && !leaves_as_much_again(15, 16, 16) && !leaves_as_much_again(0, 4, 16));
    }

    #[test]
    fn a_small_disk_has_a_small_reserve() {
        let disk = FileSystem::of(Path::new("/nowhere/leader.db"), 16 << 20);
        let all = |all| disk.piece(Space { free: 0, all }) * PIECES;
        assert_eq!((all(24 << 20), all(1 << 40), all(0)), (3 << 20, 16 << 20, TRIAL * PIECES));
    }
}
