//! The cube leader and follower.
//!
//! `leader` and `follower` never import each other: the leader's own node is a follower in the same process that speaks to it like any other.
//! ARCHITECTURE.md walks through the flow; `tests/arrows.rs` keeps the arrows between the modules.

pub mod ambient;
pub mod backoff;
pub mod blocking;
pub mod data_dir;
pub mod disk;
pub mod follower;
pub mod frames;
pub mod h2;
pub mod hollow;
pub mod latest;
pub mod leader;
pub mod net;
pub mod options;
pub mod query;
pub mod reset;
pub mod run;
pub mod serve;
pub mod sqlite;
pub mod tasks;
pub mod upkeep;
