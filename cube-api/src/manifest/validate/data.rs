//! The rules of secrets and configs: what their keys may be, and how much they hold.

use super::{Checks, Finding, Path, excerpt};
use crate::config::ConfigManifest;
use crate::secret::{MAX_DATA_BYTES, SecretManifest};

/// Kubernetes' longest key: it may become a file's name.
const MAX_KEY: usize = 253;

/// All that is wrong with a secret. Says nothing of its values.
pub(in crate::manifest) fn secret(secret: &SecretManifest) -> Vec<Finding> {
    let mut checks = Checks::default();
    checks.labels(&Path::default().key("metadata").key("labels"), &secret.metadata.labels);
    checks.keys(&Path::default().key("data"), secret.data.keys());
    checks.keys(&Path::default().key("stringData"), secret.string_data.keys());
    let bytes = secret.data.values().map(|value| value.0.len()).chain(secret.string_data.values().map(|text| text.0.len()));
    checks.size(Path::default(), bytes.sum());
    checks.findings
}

/// All that is wrong with a config.
pub(in crate::manifest) fn config(config: &ConfigManifest) -> Vec<Finding> {
    let mut checks = Checks::default();
    checks.labels(&Path::default().key("metadata").key("labels"), &config.metadata.labels);
    checks.keys(&Path::default().key("data"), config.data.keys());
    checks.size(Path::default().key("data"), config.data.values().map(String::len).sum());
    checks.findings
}

impl Checks {
    fn keys<'a>(&mut self, path: &Path, keys: impl Iterator<Item = &'a String>) {
        for key in keys {
            let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
            // Each may be a file's name.
            let right = (1..=MAX_KEY).contains(&key.len()) && key.bytes().all(allowed) && key != "." && !key.starts_with("..");
            self.check(
                right,
                || path.key(key),
                || format!("`{}` is no key: 1 to {MAX_KEY} letters, digits, '-', '_' and '.', and not beginning with '..'", excerpt(key)),
            );
        }
    }

    fn size(&mut self, path: Path, bytes: usize) {
        self.check(
            bytes <= MAX_DATA_BYTES,
            || path,
            || format!("{bytes} bytes in all values; at most {MAX_DATA_BYTES} (1 MiB) are allowed"),
        );
    }
}
