//! The nouns and the wire of cube: what the `cube` command line, the leader and the followers say to each other.
//!
//! This crate knows no server and does no I/O, except in [`client`] (feature `client`). Every word here is used with the same meaning in the
//! code, in the command line and in the documents: ARCHITECTURE.md lists them.

pub mod address;
pub mod auth;
pub mod classic;
#[cfg(feature = "client")]
pub mod client;
pub mod config;
pub mod cron;
pub mod cronjob;
pub mod deployment;
pub mod duration;
pub mod error;
pub mod event;
pub mod job;
pub mod manifest;
pub mod meta;
pub mod node;
pub mod object;
pub mod pod;
pub mod quantity;
pub mod routes;
pub mod secret;
pub mod session;
pub mod sources;
pub mod status;
pub mod stream;
pub mod template;
pub mod volume;

pub use address::LeaderAddress;
pub use error::{ApiError, ErrorCode};
pub use event::Event;
pub use meta::{ClusterId, Labels, Metadata, Name, NodeId, ResourceKind, ResourceRef, Revision, Uid};
pub use node::Node;
pub use object::Object;
pub use pod::{Pod, PodSpec, PodStatus};
