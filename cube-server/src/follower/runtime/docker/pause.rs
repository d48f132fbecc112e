//! The sandbox's image: the pause program that `build.rs` compiled, wrapped into the archive that `docker load` reads.
//!
//! Deterministic: the same program gives the same bytes and so the same image id on every node.

use std::sync::LazyLock;

use sha2::{Digest, Sha256};

use super::tar::{Entry, tar};

static PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/pause"));

/// The image's name. Its tag is the program's digest, so that a newer server never takes an older server's image for its own.
pub static IMAGE: LazyLock<String> = LazyLock::new(|| format!("cube/pause:{}", &digest(PROGRAM)[..12]));

/// The image as `docker load` reads it: a configuration, one layer, and a manifest that names both.
pub fn archive() -> Vec<u8> {
    let layer = archive_of(&[("pause", 0o755, PROGRAM)]);
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
    archive_of(&[(&config_name, 0o644, config.as_bytes()), ("layer.tar", 0o644, &layer), ("manifest.json", 0o644, manifest.as_bytes())])
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

fn archive_of(files: &[(&str, u32, &[u8])]) -> Vec<u8> {
    tar(files.iter().map(|(path, mode, content)| Entry { path, mode: *mode, content }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_archive_is_the_same_every_time() {
        assert_eq!(archive(), super::archive());
    }
}
