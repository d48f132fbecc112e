//! A file out of a container, as the one entry of the tar that Docker packs it into. It may have ended: Docker mounts its file system for that, which
//! takes 55 to 70 ms (5 to 16 ms where there is no such file).

use std::path::Path;

use bytes::{Buf, BytesMut};

use super::escaped;
use super::streams::{self, LongBody};
use crate::follower::runtime::{CALL_TIMEOUT, ContainerId, RuntimeError};

const READ_FILE: &str = "read a file of the container";

/// A tar's blocks.
const BLOCK: usize = 512;

/// A larger file is not read: it would only be thrown away but for its end, at the node's cost.
const MAX_FILE: u64 = 1024 * 1024;

/// The last bytes of a file; none where there is no such file.
pub async fn last_bytes(socket: &Path, id: &ContainerId, path: &str, most: usize) -> Result<Option<Vec<u8>>, RuntimeError> {
    let target = format!("/containers/{}/archive?path={}", escaped(&id.0), escaped(path));
    let body = match streams::get(socket, READ_FILE, &target).await {
        Ok(body) => body,
        // Docker refuses what isn't there, and a path through what is no folder.
        Err(RuntimeError::Gone | RuntimeError::Refused { .. } | RuntimeError::PortTaken { .. } | RuntimeError::Image { .. }) => {
            return Ok(None);
        }
        Err(trouble @ RuntimeError::Unavailable { .. }) => return Err(trouble),
    };
    let mut tar = Tar { body, read: BytesMut::new() };
    loop {
        let Some(header) = tar.take(BLOCK).await? else { return Ok(None) };
        match Entry::of(&header) {
            // Attributes of the entry that follows.
            Some(Entry { kind: b'x' | b'g', size }) if size <= MAX_FILE => {
                let padded = usize::try_from(size.next_multiple_of(BLOCK as u64)).unwrap_or(usize::MAX);
                if tar.take(padded).await?.is_none() {
                    return Ok(None);
                }
            }
            Some(Entry { kind: b'0' | 0, size }) if size <= MAX_FILE => {
                let file = tar.take(usize::try_from(size).unwrap_or(usize::MAX)).await?;
                return Ok(file.map(|file| file[file.len().saturating_sub(most)..].to_vec()));
            }
            Some(Entry { .. }) | None => return Ok(None),
        }
    }
}

/// A tar on its way.
struct Tar {
    body: LongBody,
    read: BytesMut,
}

impl Tar {
    /// The next so many bytes; none where it ends before.
    async fn take(&mut self, count: usize) -> Result<Option<Vec<u8>>, RuntimeError> {
        while self.read.len() < count {
            match self.body.next_within(CALL_TIMEOUT).await? {
                Some(chunk) => self.read.extend_from_slice(&chunk),
                None => return Ok(None),
            }
        }
        let taken = self.read[..count].to_vec();
        self.read.advance(count);
        Ok(Some(taken))
    }
}

/// What a header says of what follows it.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    /// The type flag: `0` or NUL is a file, `x` and `g` are attributes of others.
    kind: u8,
    /// In bytes.
    size: u64,
}

impl Entry {
    /// None for the empty block at a tar's end, and for what isn't a header.
    fn of(header: &[u8]) -> Option<Self> {
        let size = header.get(124..136)?;
        let digits: &[u8] = size.split(|byte| matches!(byte, 0 | b' ')).find(|digits| !digits.is_empty())?;
        let size = u64::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()?;
        Some(Self { kind: *header.get(156)?, size })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_tells_kind_and_size_and_what_is_none_is_not_taken_for_one() {
        let mut header = [0; BLOCK];
        assert_eq!(Entry::of(&header), None, "the end of a tar");
        header[124..136].copy_from_slice(b"00000000012\0");
        header[156] = b'0';
        assert_eq!(Entry::of(&header), Some(Entry { kind: b'0', size: 10 }));
        header[124..136].copy_from_slice(b"not a number");
        assert_eq!(Entry::of(&header), None);
        assert_eq!(Entry::of(&header[..100]), None);
    }
}
