//! The node agent: keeps what it is told in its ledger, runs it through Docker, restarts what crashes and reports.
//!
//! Its tasks: one per pod (`pods`), one that takes assignments (`assignments`), one that watches the engine (`observe`), one that reports
//! (`reporter`), one that writes the ledger (`ledger`), one per image that is being pulled (`images`).

pub mod agent;
mod assignments;
pub mod dial;
mod exec;
mod images;
mod ledger;
pub mod link;
mod logs;
mod observe;
mod plan;
mod pods;
mod record;
mod reporter;
mod restart;
pub mod router;
pub mod runtime;
pub mod session;
mod status;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use agent::{Agent, AgentConfig, LeaderLink};
