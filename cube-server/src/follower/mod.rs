//! The node agent: keeps what it is told in its ledger, runs it through Docker, restarts what crashes and reports.

pub mod agent;
pub mod runtime;

pub use agent::{Agent, AgentConfig, LeaderLink};
