//! The values that a pod takes from secrets and configs, and the identities of its named volumes, as its node is told them.
//!
//! They travel beside a pod's spec, never in it: a spec is shown to whoever may read pods, and its change replaces the pod.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::meta::{Name, Revision, Uid};
use crate::pod::{Source, SourceKind};

/// What a pod's spec names and the leader has. What is named and not here isn't there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sources {
    /// By name, the secrets.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<Name, Arc<Values>>,
    /// By name, the configs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub configs: BTreeMap<Name, Arc<Values>>,
    /// By name, the lives of named volumes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<Name, Uid>,
}

impl Sources {
    /// Whether the pod takes nothing.
    pub fn is_empty(&self) -> bool {
        self.secrets.is_empty() && self.configs.is_empty() && self.volumes.is_empty()
    }

    /// The values of a secret or a config, if it is there.
    pub fn values(&self, source: &Source<'_>) -> Option<&Arc<Values>> {
        match source.kind {
            SourceKind::Secret => self.secrets.get(source.name),
            SourceKind::Config => self.configs.get(source.name),
        }
    }
}

/// What a secret or a config holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Values {
    /// The revision of its newest write: another one means that the values may be others.
    pub revision: Revision,
    /// By key.
    pub data: BTreeMap<String, Hidden>,
}

/// Bytes that nobody sees by accident: its `Debug` tells their number. Base64 on the wire.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hidden(pub Bytes);

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{} bytes>", self.0.len())
    }
}

impl Serialize for Hidden {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Hidden {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'_, str>::deserialize(deserializer)?;
        // The words of base64's own error quote a byte of what it read.
        let bytes = STANDARD.decode(text.as_bytes()).map_err(|_| de::Error::custom("a value is not base64"))?;
        Ok(Self(bytes.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hidden_value_is_told_by_its_length_only_and_read_back_whole() {
        let hidden = Hidden(Bytes::from_static(b"hunter2\n"));
        let values = Values { revision: Revision(7), data: BTreeMap::from([("password".to_owned(), hidden)]) };
        let name = Name::new("db").expect("a name");
        let sources = Sources { secrets: BTreeMap::from([(name, Arc::new(values))]), ..Sources::default() };
        let shown = format!("{sources:?} {sources:#?}");
        assert!(shown.contains("<8 bytes>") && !shown.contains("hunter") && !shown.contains("104, 117"), "{shown}");
        let text = serde_json::to_string(&sources).expect("plain data");
        assert_eq!(serde_json::from_str::<Sources>(&text).expect("what was written"), sources);
        let refused = serde_json::from_str::<Hidden>("\"hunter2!\"").expect_err("not base64").to_string();
        assert!(!refused.contains("hunter") && !refused.contains('!'), "{refused}");
    }
}
