//! Tar files as Docker reads them: deterministic, owned by root, of time 0.

/// Tar's unit.
const BLOCK: usize = 512;

/// The longest name of a header; longer ones are told in an entry before (GNU's way, which Go's reader knows).
const MAX_NAME: usize = 100;

/// What a tar file has of one path.
pub struct Entry<'a> {
    /// Where; a folder's ends with a slash.
    pub path: &'a str,
    /// Its permissions.
    pub mode: u32,
    /// What is in it; nothing in a folder.
    pub content: &'a [u8],
}

/// A tar file in the ustar format with these entries.
pub fn tar<'a>(entries: impl IntoIterator<Item = Entry<'a>>) -> Vec<u8> {
    let mut out = Vec::new();
    for Entry { path, mode, content } in entries {
        if path.len() > MAX_NAME {
            let long = [path.as_bytes(), b"\0"].concat();
            put(&mut out, header("././@LongLink", b'L', 0, long.len()), &long);
        }
        let kind = if path.ends_with('/') { b'5' } else { b'0' };
        put(&mut out, header(&path[..path.floor_char_boundary(MAX_NAME)], kind, mode, content.len()), content);
    }
    out.resize(out.len() + 2 * BLOCK, 0);
    out
}

fn put(out: &mut Vec<u8>, header: [u8; BLOCK], content: &[u8]) {
    out.extend_from_slice(&header);
    out.extend_from_slice(content);
    out.resize(out.len().next_multiple_of(BLOCK), 0);
}

fn header(name: &str, kind: u8, mode: u32, size: usize) -> [u8; BLOCK] {
    let mut header = [0; BLOCK];
    let mut put = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, &format!("{mode:07o}"));
    put(108, "0000000");
    put(116, "0000000");
    put(124, &format!("{size:011o}"));
    put(136, "00000000000");
    // The checksum counts its own field as blanks.
    put(148, "        ");
    put(156, char::from(kind).encode_utf8(&mut [0; 4]));
    put(257, "ustar");
    put(263, "00");
    let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_add_up_and_a_long_name_is_told_before() {
        let long = "a".repeat(150);
        let archive = tar([Entry { path: &long, mode: 0o400, content: b"x" }]);
        assert_eq!(archive.len(), BLOCK * 6);
        assert_eq!((archive[156], &archive[BLOCK..BLOCK + 150]), (b'L', long.as_bytes()));
        for header in [&archive[..BLOCK], &archive[2 * BLOCK..3 * BLOCK]] {
            let sum: u32 = header.iter().enumerate().map(|(at, &byte)| if (148..156).contains(&at) { 32 } else { u32::from(byte) }).sum();
            assert_eq!(&header[148..154], format!("{sum:06o}").as_bytes());
        }
    }
}
