//! The node agent: keeps what it is told in its ledger, runs it through Docker, restarts what crashes and reports.
//!
//! Its tasks: one per pod (`pods`), one that takes assignments (`assignments`), one that watches the engine (`observe`), one that reports
//! (`reporter`), one that writes the ledger (`ledger`), one per image that is being pulled (`images`).

pub mod agent;
mod assignments;
mod exec;
mod images;
mod ledger;
mod logs;
mod observe;
mod plan;
mod pods;
mod record;
mod reporter;
mod restart;
pub mod runtime;
mod status;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use agent::{Agent, AgentConfig, LeaderLink};

/// An error with its causes, for the log.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
