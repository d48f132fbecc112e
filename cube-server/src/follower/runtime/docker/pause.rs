//! The sandbox's image: the pause program that `build.rs` compiled, wrapped into the archive that `docker load` reads.
//!
//! Deterministic: the same program gives the same bytes and so the same image id on every node.

use std::sync::LazyLock;

use sha2::{Digest, Sha256};

static PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/pause"));

/// The image's name. Its tag is the program's digest, so that a newer server never takes an older server's image for its own.
pub static IMAGE: LazyLock<String> = LazyLock::new(|| format!("cube/pause:{}", &digest(PROGRAM)[..12]));

/// Tar's unit.
const BLOCK: usize = 512;

/// The image as `docker load` reads it: a configuration, one layer, and a manifest that names both.
pub fn archive() -> Vec<u8> {
    let layer = tar(&[("pause", 0o755, PROGRAM)]);
    let config = serde_json::json!({
        "architecture": architecture(),
        "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "config": { "Entrypoint": ["/pause"], "User": "65535:65535" },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", digest(&layer))] },
    })
    .to_string();
    let config_name = format!("{}.json", digest(config.as_bytes()));
    let manifest = serde_json::json!([{ "Config": config_name, "RepoTags": [*IMAGE], "Layers": ["layer.tar"] }]).to_string();
    tar(&[(&config_name, 0o644, config.as_bytes()), ("layer.tar", 0o644, &layer), ("manifest.json", 0o644, manifest.as_bytes())])
}

/// The architecture in Docker's (Go's) words.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A tar file in the ustar format with these files (name of up to 100 bytes, mode, content), all owned by root and of time 0.
fn tar(files: &[(&str, u32, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, mode, content) in files {
        out.extend_from_slice(&header(name, *mode, content.len()));
        out.extend_from_slice(content);
        out.resize(out.len().next_multiple_of(BLOCK), 0);
    }
    out.resize(out.len() + 2 * BLOCK, 0);
    out
}

fn header(name: &str, mode: u32, size: usize) -> [u8; BLOCK] {
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
    put(156, "0");
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
    fn the_archive_is_the_same_every_time_and_its_headers_add_up() {
        let archive = archive();
        assert_eq!(archive, super::archive());
        assert_eq!(archive.len() % BLOCK, 0);
        let sum: u32 =
            archive[..BLOCK].iter().enumerate().map(|(at, &byte)| if (148..156).contains(&at) { 32 } else { u32::from(byte) }).sum();
        assert_eq!(&archive[148..154], format!("{sum:06o}").as_bytes());
    }
}
