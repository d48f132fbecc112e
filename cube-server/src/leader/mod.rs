//! The control plane: API, scheduler, reconcile loops, one SQLite file.

pub mod api;
pub mod control;
pub mod nodes;
pub mod plan;
pub mod store;
