//! The node agent: keeps what it is told in its ledger, runs it through Docker, restarts what crashes and reports.
//!
//! Its tasks: one per pod (`pods`), one that takes assignments (`assignments`), one that watches the engine (`observe`), one that reports
//! (`reporter`), one that writes the ledger (`ledger`), one that keeps sandboxes ready (`spares`), one per image that is being pulled (`images`), one per pod that
//! has probes (`probes`).

pub mod agent;
mod assignments;
pub mod dial;
mod exec;
mod images;
pub(crate) mod ledger;
pub mod link;
mod logs;
pub mod machine;
mod observe;
mod plan;
mod pods;
mod probes;
mod record;
mod reporter;
pub mod reserve;
pub mod reset;
mod restart;
pub mod router;
pub mod runtime;
pub mod session;
mod spares;
mod status;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use cube_api::node::Capacity;

pub use agent::{Agent, AgentConfig, LeaderLink};

use crate::ambient::Ambient;
use crate::tasks::Tasks;
use dial::Dialer;
use ledger::Ledger;
use link::HttpLink;
use runtime::Runtime;
use runtime::hollow::Hollow;

/// Starts a node: its agent, and the dialling that goes on until `tasks` end. Does not wait for Docker or the leader.
pub async fn start(
    config: AgentConfig,
    runtime: Arc<dyn Runtime>,
    dialer: Dialer,
    ambient: Ambient,
    tasks: &Tasks,
) -> anyhow::Result<Agent> {
    let link = HttpLink::new(dialer.clone());
    let agent = Agent::start(config, runtime, Arc::new(link), ambient, tasks).await?;
    session::start(agent.clone(), dialer, tasks.clone());
    Ok(agent)
}

/// Starts a hollow node: all of [`start`] but Docker and the ledger's file.
pub async fn start_hollow(
    config: AgentConfig,
    capacity: Capacity,
    dialer: Dialer,
    ambient: Ambient,
    tasks: &Tasks,
) -> anyhow::Result<Agent> {
    let link = HttpLink::new(dialer.clone());
    let runtime = Hollow::new(capacity, ambient.clone());
    let agent = Agent::start_with(Ledger::in_memory(&ambient), config, Arc::new(runtime), Arc::new(link), ambient, tasks).await?;
    session::start(agent.clone(), dialer, tasks.clone());
    Ok(agent)
}
