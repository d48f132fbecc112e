//! Pure decisions of the leader: where a pod goes, which node is ready, which is lost, what leaves a node that is drained,
//! what becomes of a deployment's pods, how long a restored leader waits, which pods of a job begin, when a cronjob's job is due.
//!
//! Plain borrowed inputs, `now` as an argument, a list of changes out: no async, no I/O, no clock, no randomness. The same input gives the same
//! output.

pub mod claims;
pub mod cron;
pub mod deployment;
pub mod drain;
pub mod fence;
pub mod fit;
pub mod health;
pub mod job;
pub mod schedule;
