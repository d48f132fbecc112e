//! The faults that people and engines make by hand, on real Docker with the built `cube` and `cube-server`.
//!
//! * `engine.rs`: an engine of the test's own, to stop and kill.
//! * `proxy.rs`: a socket between a node and its engine that holds calls and answers.
//! * `registry.rs`: a registry that answers what the test says.

#[allow(dead_code, reason = "the stories use the rest of it")]
#[path = "../stories/cluster.rs"]
mod cluster;
mod engine;
mod pods;
mod proxy;
mod registry;

mod by_hand;
mod daemon;
mod images;
mod killed;
mod output;
mod slow;
