//! Events: the life of a resource, each with a reason that a person can act on.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::meta::{ResourceRef, Revision, Uid};

/// Something that happened to a resource. Equal ones (same uid, reason and message) are kept once, with a count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// What it happened to.
    pub object: ResourceRef,
    /// Which life of it; nodes have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<Uid>,
    /// Whether a person should look.
    #[serde(rename = "type")]
    pub kind: EventKind,
    /// A word in CamelCase, stable: `Scheduled`, `Pulling`, `Pulled`, `Created`, `Started`, `Crashed`, `BackOff`, `CrashLimit`, ...
    pub reason: String,
    /// The whole sentence.
    pub message: String,
    /// How often it was seen.
    pub count: u32,
    /// First seen, by the clock of the source.
    pub first_at: Timestamp,
    /// Last seen, by the clock of the source.
    pub last_at: Timestamp,
    /// `leader`, or the name of the node that saw it.
    pub source: String,
    /// The revision of its newest write.
    pub revision: Revision,
}

/// How much an event matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum EventKind {
    /// As it should be.
    Normal,
    /// A person may want to act.
    Warning,
}
