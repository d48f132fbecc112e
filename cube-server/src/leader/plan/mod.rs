//! Pure decisions of the leader: where a pod goes, which node is ready.
//!
//! Plain borrowed inputs, `now` as an argument, a list of changes out: no async, no I/O, no clock, no randomness. The same input gives the same
//! output.

pub mod health;
pub mod schedule;
