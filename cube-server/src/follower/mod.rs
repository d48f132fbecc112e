//! The node agent: keeps what it is told in its ledger, runs it through Docker, restarts what crashes and reports.

pub mod agent;
pub mod link;
pub mod router;
pub mod runtime;
pub mod session;

pub use agent::{Agent, AgentConfig, LeaderLink};
