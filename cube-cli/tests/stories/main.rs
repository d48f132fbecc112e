//! Stories: what a user does, with the built `cube` and `cube-server`, real SQLite files and the real Docker engine.
//!
//! Each story has a cluster of its own (its nodes' names are unique on the engine) and removes what it made, also after a failure.

mod classic;
mod cluster;
mod commands;
mod deployments;
mod faults;
mod images;
mod jobs;
mod kubernetes;
mod lifecycle;
mod nodes;
mod pods;
mod ports;
mod probes;
mod refusals;
mod registry;
mod reset;
mod security;
mod spares;
mod volumes;
