//! A server's data folder: made with mode 0700, locked by one process, home of the token that a leader makes for itself.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use cube_api::auth::Token;

use crate::ambient::Ambient;
use crate::disk;

/// Where a leader keeps the token that it made, in its data folder.
pub const TOKEN: &str = "token";

/// Why a data folder or a token can't be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// The folder can't be made or written to.
    #[error("can't use the data folder {path}; give one that this user may write to with --data-dir")]
    Unusable {
        /// The folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Another process has it.
    #[error("the data folder {path} is in use by another cube-server{}; give each its own with --data-dir", owner(.pid))]
    Locked {
        /// The folder.
        path: PathBuf,
        /// Who has it, as far as it wrote that down.
        pid: Option<u32>,
    },
    /// The token's file can't be read or written.
    #[error("can't {action} the token file {path}")]
    TokenFile {
        /// `read` or `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A file can't be removed.
    #[error("can't remove {path}")]
    NotRemoved {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The token is empty.
    #[error("the token is empty; a token is any text, such as the output of: head -c 32 /dev/urandom | base64")]
    EmptyToken,
    /// A follower was given none.
    #[error(
        "a follower needs the cluster's token: --token-file FILE, CUBE_TOKEN or --token; the leader keeps it in its data folder as 'token'"
    )]
    NoToken,
}

fn owner(pid: &Option<u32>) -> String {
    pid.map(|pid| format!(" (process {pid})")).unwrap_or_default()
}

/// A folder that this process alone uses, until it is dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    /// Held for its lock; the kernel lets go of it however the process ends.
    _lock: File,
}

impl DataDir {
    /// Makes the folder where it is missing and locks it.
    pub fn open(path: &Path) -> Result<Self, DataDirError> {
        let unusable = |source| DataDirError::Unusable { path: path.to_owned(), source };
        // One that is there keeps its mode: it may be a folder that others need. The files in it are 0600 by the process's umask.
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(unusable)?;
        let lock_path = path.join("lock");
        let mut lock =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&lock_path).map_err(unusable)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                let pid = lock.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
                return Err(DataDirError::Locked { path: path.to_owned(), pid });
            }
            Err(TryLockError::Error(source)) => return Err(unusable(source)),
        }
        // Who it is only helps the one who is refused: a full disk keeps nobody from its data.
        match write_pid(&mut lock) {
            Err(error) if disk::is_lack_of_room(&error) => {}
            written => written.map_err(unusable)?,
        }
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where a leader keeps the token that it made.
    pub fn token_path(&self) -> PathBuf {
        self.path.join(TOKEN)
    }

    /// The token that this folder keeps; made at the first call, from 256 bits of the system's randomness.
    pub fn own_token(&self, ambient: &Ambient) -> Result<Token, DataDirError> {
        let path = self.token_path();
        match read_token(&path) {
            Err(DataDirError::TokenFile { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        let secret: String = (0..4).map(|_| format!("{:016x}", ambient.random())).collect();
        let failed = |source| DataDirError::TokenFile { action: "write", path: path.clone(), source };
        // Written beside and renamed, so that a crash leaves no half token behind that would later count as one.
        let draft = self.path.join("token.new");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft).map_err(failed)?;
        writeln!(file, "{secret}").and_then(|()| file.sync_all()).map_err(failed)?;
        fs::rename(&draft, &path).map_err(failed)?;
        File::open(&self.path).and_then(|folder| folder.sync_all()).map_err(failed)?;
        read_token(&path)
    }
}

/// Written over the one before, whose room is there already.
fn write_pid(lock: &mut File) -> io::Result<()> {
    let text = format!("{}\n", std::process::id());
    lock.write_all(text.as_bytes())?;
    lock.set_len(text.len() as u64)
}

/// Reads a token's file.
pub fn read_token(path: &Path) -> Result<Token, DataDirError> {
    let text = fs::read_to_string(path).map_err(|source| DataDirError::TokenFile { action: "read", path: path.to_owned(), source })?;
    Token::new(&text).ok_or(DataDirError::EmptyToken)
}

/// Removes files, databases with what SQLite and [`disk`] have beside them, for good: gone after a power loss too.
pub fn remove_files(folder: &Path, names: &[&str]) -> Result<(), DataDirError> {
    if names.is_empty() {
        return Ok(());
    }
    for name in names {
        // The database last: what is beside it is nothing without it, and would be taken for a new one's.
        let beside = ["-wal", "-shm"].map(|suffix| folder.join(format!("{name}{suffix}")));
        let file = folder.join(name);
        for path in beside.into_iter().chain([disk::reserve_of(&file), file]) {
            match fs::remove_file(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(DataDirError::NotRemoved { path, source }),
            }
        }
    }
    let not_synced = |source| DataDirError::NotRemoved { path: folder.to_owned(), source };
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(not_synced)
}

/// Where a server keeps its state when nobody says: `/var/lib/cube` for root, else the user's state folder.
pub fn default_path() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/var/lib/cube");
    }
    dirs::state_dir().or_else(dirs::data_local_dir).unwrap_or_else(|| PathBuf::from(".")).join("cube")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_second_process_on_a_data_folder_is_refused_and_told_who_has_it() {
        let folder = tempfile::tempdir().expect("a temp folder");
        let first = DataDir::open(folder.path()).expect("the first gets it");
        let second = DataDir::open(folder.path()).expect_err("the second doesn't");
        assert!(second.to_string().contains(&format!("process {}", std::process::id())), "{second}");
        drop(first);
        DataDir::open(folder.path()).expect("it is free again");
    }

    #[test]
    fn a_made_token_is_strong_kept_and_readable_by_its_owner_only() {
        let folder = tempfile::tempdir().expect("a temp folder");
        let data_dir = DataDir::open(&folder.path().join("deep/inside")).expect("made with its parents");
        let token = data_dir.own_token(&Ambient::system()).expect("a token");
        assert_eq!(token.expose().len(), 64);
        assert_eq!(data_dir.own_token(&Ambient::system()).expect("the same"), token);
        let mode = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
        assert_eq!(mode(&data_dir.token_path()), 0o600);
        assert_eq!(mode(data_dir.path()), 0o700);
    }

    #[test]
    fn a_folder_that_is_there_keeps_its_mode() {
        let folder = tempfile::tempdir().expect("a temp folder");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("it is ours");
        DataDir::open(folder.path()).expect("it can be used");
        assert_eq!(fs::metadata(folder.path()).expect("it is there").permissions().mode() & 0o777, 0o755);
    }

    #[test]
    fn a_database_is_removed_with_all_that_is_beside_it_and_nothing_else() {
        let folder = tempfile::tempdir().expect("a temp folder");
        for name in ["follower.db", "follower.db-wal", "follower.db-shm", "follower.reserve", "leader.db", "leader.reserve", "token"] {
            fs::write(folder.path().join(name), "x").expect("written");
        }
        remove_files(folder.path(), &["follower.db"]).expect("they are ours");
        let mut left: Vec<_> = fs::read_dir(folder.path()).expect("a folder").map(|file| file.expect("a file").file_name()).collect();
        left.sort();
        assert_eq!(left, ["leader.db", "leader.reserve", "token"]);
    }

    #[test]
    fn a_folder_that_cannot_be_made_says_what_to_do() {
        let folder = tempfile::tempdir().expect("a temp folder");
        let file = folder.path().join("file");
        fs::write(&file, "").expect("written");
        let refused = DataDir::open(&file.join("below")).expect_err("a file is no folder");
        assert!(refused.to_string().contains("--data-dir"), "{refused}");
    }
}
