//! The secret: values for pods that nobody is shown. They are in manifests, in the leader's database and on the nodes of the pods that name them;
//! never in an answer, an event, a log or an error.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::manifest::ManifestMetadata;
use crate::meta::{Metadata, ResourceKind};
use crate::object::ObjectType;

/// The most bytes of all values of a secret or a config, as in Kubernetes.
pub const MAX_DATA_BYTES: usize = 1 << 20;

/// A secret as the leader keeps it, or, without its values, as it is shown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Secret {
    /// Who it is.
    pub metadata: Metadata,
    /// The values. Empty in answers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub data: BTreeMap<String, SecretValue>,
    /// In answers only: the bytes of each value.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sizes: BTreeMap<String, usize>,
}

impl Secret {
    /// Without the values.
    pub(crate) fn shown(&self) -> Self {
        let sizes = self.data.iter().map(|(key, value)| (key.clone(), value.0.len())).collect();
        Self { metadata: self.metadata.clone(), data: BTreeMap::new(), sizes }
    }
}

impl ObjectType for Secret {
    const KIND: ResourceKind = ResourceKind::Secret;
    fn metadata(&self) -> &Metadata {
        &self.metadata
    }
}

/// A secret as it is written down.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretManifest {
    /// Its name and labels.
    pub metadata: ManifestMetadata,
    /// Values in base64.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub data: BTreeMap<String, SecretValue>,
    /// Values as they are; of a key that is in `data` too, this one counts.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub string_data: BTreeMap<String, SecretText>,
}

impl SecretManifest {
    /// The values of both maps.
    pub fn values(self) -> BTreeMap<String, SecretValue> {
        let mut values = self.data;
        values.extend(self.string_data.into_iter().map(|(key, text)| (key, SecretValue(text.0.into_bytes()))));
        values
    }
}

/// Bytes that are not shown; base64 in JSON.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SecretValue(pub Vec<u8>);

/// A text that is not shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SecretText(pub String);

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{} bytes>", self.0.len())
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{} bytes>", self.0.len())
    }
}

impl TryFrom<String> for SecretValue {
    type Error = &'static str;
    /// The error doesn't show what was found.
    fn try_from(text: String) -> Result<Self, &'static str> {
        STANDARD.decode(text.trim_ascii()).map(Self).map_err(|_| "not base64; a value that isn't goes to `stringData`")
    }
}

impl From<SecretValue> for String {
    fn from(value: SecretValue) -> String {
        STANDARD.encode(value.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_printed_has_a_secrets_values() {
        let manifest: SecretManifest =
            serde_json::from_str(r#"{"metadata": {"name": "db"}, "data": {"a": "aHVudGVyMg=="}, "stringData": {"b": "hunter2"}}"#)
                .expect("a secret");
        assert_eq!(manifest.clone().values()["a"], SecretValue(b"hunter2".to_vec()));
        let shown = format!("{manifest:?} {:?}", manifest.clone().values());
        assert!(!shown.contains("hunter2") && !shown.contains("aHVudGVyMg"), "{shown}");
        let wrong = serde_json::from_str::<SecretValue>("\"hunter2!\"").expect_err("not base64").to_string();
        assert!(!wrong.contains("hunter2"), "{wrong}");
    }

    #[test]
    fn a_plain_text_counts_over_the_same_key_in_base64() {
        let manifest: SecretManifest =
            serde_json::from_str(r#"{"metadata": {"name": "db"}, "data": {"a": "eA=="}, "stringData": {"a": "y"}}"#).expect("a secret");
        assert_eq!(manifest.values(), BTreeMap::from([("a".to_owned(), SecretValue(b"y".to_vec()))]));
    }
}
