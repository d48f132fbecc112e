//! Pure decisions of the leader: where a pod goes, which node is ready, which is lost, how long a restored leader waits.
//!
//! Plain borrowed inputs, `now` as an argument, a list of changes out: no async, no I/O, no clock, no randomness. The same input gives the same
//! output.

pub mod claims;
pub mod fence;
pub mod health;
pub mod schedule;
