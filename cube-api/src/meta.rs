//! Names, identities and the metadata that every resource carries.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize, Serializer};
use uuid::Uuid;

/// Why a text is not a [`Name`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The text is empty.
    #[error("a name is empty")]
    Empty,
    /// The text is longer than [`Name::MAX_LEN`].
    #[error("a name has {0} characters, at most 63 are allowed")]
    TooLong(usize),
    /// A character is not allowed in a DNS-1123 label, or not at its beginning or end.
    #[error("'{0}' is not a DNS label: lower-case letters, digits and '-', beginning and ending with a letter or digit")]
    NotALabel(String),
}

/// A DNS-1123 label (RFC 1123, section 2.1): 1 to 63 lower-case letters, digits and `-`, with a letter or digit at both ends.
/// Pods, containers and nodes are named so.
///
/// Clones share the text: a leader keeps the name of each of its pods and nodes in many places.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct Name(Arc<str>);

impl Name {
    /// The longest name, in characters.
    pub const MAX_LEN: usize = 63;

    /// Checks a text.
    pub fn new(text: impl Into<String>) -> Result<Self, NameError> {
        let text = text.into();
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text.len() > Self::MAX_LEN {
            return Err(NameError::TooLong(text.chars().count()));
        }
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let bytes = text.as_bytes();
        let edges = inner(bytes[0]) && inner(bytes[bytes.len() - 1]);
        if !edges || !bytes.iter().all(|&b| inner(b) || b == b'-') {
            return Err(NameError::NotALabel(text));
        }
        Ok(Self(text.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Name {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        Self::new(text)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> String {
        name.as_str().to_owned()
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl FromStr for Name {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::new(text)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

macro_rules! identity {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, uuid::Error> {
                Uuid::parse_str(text).map(Self)
            }
        }
    };
}

identity!(
    /// One life of a pod: what replaces a pod has the same name and another uid. A uid is bound to one node, once.
    Uid
);
identity!(
    /// One cluster, made when a leader first starts in an empty data folder. Followers refuse the assignments of another one.
    ClusterId
);
identity!(
    /// One life of a leader, made anew by every start: tells two leaders apart that were started on copies of one database and count the same
    /// epoch.
    LifeId
);
identity!(
    /// One follower's data folder, made when it first starts: tells a restarted node from a second machine of the same name.
    NodeId
);
identity!(
    /// One start of a node's process: tells a process from another one on a copy of its data folder.
    Instance
);

impl Uid {
    /// No pod's: where a node speaks of itself.
    pub const NONE: Self = Self(Uuid::nil());
}

/// The leader store's counter: every write gets the next one, none is used twice.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Revision(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Labels, in order of their keys.
pub type Labels = BTreeMap<String, String>;

/// Changes of labels, in order of their keys: the value that one is to have, or none where it is to be absent.
pub type LabelChanges = BTreeMap<String, Option<String>>;

fn none(labels: &Arc<Labels>) -> bool {
    labels.is_empty()
}

/// What the cluster keeps of every resource beside its spec. Written by the leader's store only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    /// Unique among the live resources of a type.
    pub name: Name,
    /// This life's identity.
    pub uid: Uid,
    /// Free key-value pairs to select by. Pods of one template share them.
    #[serde(default, skip_serializing_if = "none")]
    pub labels: Arc<Labels>,
    /// Moves by one with each change of the spec, across the pods that replace each other under one name.
    pub generation: u64,
    /// The revision of the newest write of any part of this resource.
    pub revision: Revision,
    /// When it was accepted, by the leader's clock.
    pub created_at: Timestamp,
    /// When its removal was asked for; it goes when its node confirmed that the containers are gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_requested_at: Option<Timestamp>,
    /// What made it; none for what people applied. Shared by all that it made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Arc<Owner>>,
}

/// What made a resource and looks after it: it goes when that goes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Owner {
    /// Its type.
    #[serde(rename = "type")]
    pub kind: ResourceKind,
    /// Its name.
    pub name: Name,
    /// Which life: another resource of its name is another owner.
    pub uid: Uid,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind, self.name)
    }
}

/// The types of resources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ResourceKind {
    /// One or more containers on one network namespace.
    Pod,
    /// A machine that runs pods.
    Node,
    /// Values that nobody is shown.
    Secret,
    /// Values that anybody may see.
    Config,
}

impl ResourceKind {
    /// All, in the order in which they are told.
    pub const ALL: [Self; 4] = [Self::Pod, Self::Node, Self::Secret, Self::Config];

    /// The word in manifests and references: `pod`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pod => "pod",
            Self::Node => "node",
            Self::Secret => "secret",
            Self::Config => "config",
        }
    }

    /// The word of the API's paths and for several: `pods`.
    pub fn plural(self) -> &'static str {
        match self {
            Self::Pod => "pods",
            Self::Node => "nodes",
            Self::Secret => "secrets",
            Self::Config => "configs",
        }
    }

    /// The short words that people type as well.
    fn short(self) -> &'static [&'static str] {
        match self {
            Self::Pod => &["po"],
            Self::Node => &["no"],
            Self::Secret | Self::Config => &[],
        }
    }

    /// The type of a path's or a person's word for several of it.
    pub fn of_plural(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.plural() == text)
    }
}

impl FromStr for ResourceKind {
    type Err = String;
    /// Reads a type as people type it: `pod`, `pods`, `po`, in any case. The error is a sentence.
    fn from_str(text: &str) -> Result<Self, String> {
        let word = text.to_ascii_lowercase();
        let is_it = |kind: &Self| kind.as_str() == word || kind.plural() == word || kind.short().contains(&word.as_str());
        let unknown = || format!("unknown resource type '{text}': the types are {}", Self::ALL.map(Self::as_str).join(", "));
        Self::ALL.into_iter().find(is_it).ok_or_else(unknown)
    }
}

impl fmt::Display for ResourceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A resource as people name it: `pod/my-pod`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResourceRef {
    /// Its type.
    #[serde(rename = "type")]
    pub kind: ResourceKind,
    /// Its name.
    pub name: Name,
}

impl fmt::Display for ResourceRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind, self.name)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_is_a_dns_label() {
        let longest = "x".repeat(63);
        for right in ["a", "0", "web-1", "a--b", longest.as_str()] {
            assert_eq!(Name::new(right).map(|name| name.to_string()), Ok(right.to_owned()));
        }
        for wrong in ["-a", "a-", "-", "A", "a_b", "a.b", "a b", " a", "a\n", "\u{e4}", "a/b", ".."] {
            assert_eq!(Name::new(wrong), Err(NameError::NotALabel(wrong.to_owned())));
        }
        assert_eq!(Name::new(""), Err(NameError::Empty));
        assert_eq!(Name::new("x".repeat(64)), Err(NameError::TooLong(64)));
    }

    #[test]
    fn a_name_from_the_wire_is_checked() {
        assert!(serde_json::from_str::<Name>("\"web\"").is_ok());
        assert!(serde_json::from_str::<Name>("\"../etc\"").is_err());
    }

    #[test]
    fn types_are_read_as_people_type_them() {
        for (text, kind) in
            [("pod", ResourceKind::Pod), ("Pods", ResourceKind::Pod), ("po", ResourceKind::Pod), ("NODES", ResourceKind::Node)]
        {
            assert_eq!(text.parse(), Ok(kind));
        }
        let unknown = "unknown resource type 'task': the types are pod, node, secret, config";
        assert_eq!("task".parse::<ResourceKind>(), Err(unknown.to_owned()));
    }

    proptest! {
        #[test]
        fn a_name_never_holds_what_a_path_or_a_shell_would_read(text in "\\PC{0,70}|[a-z0-9-]{0,70}") {
            if let Ok(name) = Name::new(text.clone()) {
                prop_assert_eq!(name.as_str(), &text);
                prop_assert!((1..=63).contains(&text.len()));
                prop_assert!(text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-')));
            }
        }
    }
}
