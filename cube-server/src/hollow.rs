//! `cube-server hollow`: many followers in one process whose containers only pretend to run, to find out what a leader bears.
//!
//! Real are the dialling, the sessions, the assignments, the agents with a task for each pod, the reports and the events, over sockets. Pretended are
//! the containers, and nothing is kept on disk: with the process, its nodes are gone.

use std::sync::Arc;

use cube_api::LeaderAddress;
use cube_api::auth::Keys;
use cube_api::meta::Name;
use cube_api::node::{Capacity, NodeRole};

use crate::ambient::Ambient;
use crate::follower::dial::Dialer;
use crate::follower::reserve::Reserve;
use crate::follower::{self, AgentConfig};
use crate::net::Network;
use crate::options::HollowOptions;
use crate::tasks::Tasks;

/// File descriptors of a node at its busiest: its session and the connection that it reports over.
const FILES_OF_NODE: u64 = 2;
/// File descriptors of the process itself.
const FILES_OF_PROCESS: u64 = 64;

/// Whether so many nodes fit into the limit of open files; the error says what to do.
pub fn check_files(nodes: u32, limit: Option<u64>) -> Result<(), String> {
    let needed = u64::from(nodes) * FILES_OF_NODE + FILES_OF_PROCESS;
    match limit {
        Some(limit) if limit < needed => Err(format!(
            "{nodes} hollow nodes need {needed} open files, and this process may have {limit}: raise the hard limit (`ulimit -Hn`), or start \
             fewer nodes in each of several processes, with a --name-prefix of their own"
        )),
        Some(_) | None => Ok(()),
    }
}

/// What the nodes have in common.
pub struct Hollows {
    options: HollowOptions,
    leader: LeaderAddress,
    keys: Keys,
    ambient: Ambient,
}

impl Hollows {
    /// None of them is started yet.
    pub fn new(options: HollowOptions, leader: LeaderAddress, keys: Keys, ambient: Ambient) -> Self {
        Self { options, leader, keys, ambient }
    }

    /// Starts one node after the other, so that a leader isn't dialled by all of them in one instant.
    pub async fn start(self: Arc<Self>, tasks: Tasks) -> anyhow::Result<()> {
        let quiet = tasks.quiet();
        for number in 1..=self.options.nodes {
            // The first one's log stands for all: what ails one ails the others, and 5,000 would say it at once.
            self.start_one(number, if number == 1 { &tasks } else { &quiet }).await?;
            tokio::time::sleep(self.options.join_every).await;
        }
        let HollowOptions { nodes, name_prefix, .. } = &self.options;
        tracing::info!("{nodes} hollow nodes were started, {name_prefix}-1 to {name_prefix}-{nodes}; this log is that of the first");
        Ok(())
    }

    async fn start_one(&self, number: u32, tasks: &Tasks) -> anyhow::Result<()> {
        let HollowOptions { name_prefix, labels, cpu, memory, disk, max_pods, .. } = &self.options;
        let node = Name::new(format!("{name_prefix}-{number}"))?;
        let dialer = Dialer::new(self.leader.clone(), node.clone(), self.keys.clone(), Network::system(), self.ambient.clone());
        let config = AgentConfig {
            // A later process takes the names over as one on the same machine does whose data folder is new.
            machine_id: format!("hollow-{node}"),
            node,
            role: NodeRole::Follower,
            labels: labels.iter().cloned().collect(),
            boot_id: String::new(),
            data_dir: "(none: a hollow node)".into(),
            max_pods: *max_pods,
            reserve: Reserve::NOTHING,
            spare_sandboxes: 0,
            machine: None,
            network: None,
        };
        let capacity = Capacity { cpu: *cpu, memory: *memory, disk: *disk, pods: 0 };
        follower::start_hollow(config, capacity, dialer, self.ambient.clone(), tasks).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_few_open_files_are_said_with_a_remedy_before_anything_is_started() {
        assert_eq!(check_files(5_000, None), Ok(()));
        assert_eq!(check_files(5_000, Some(10_064)), Ok(()));
        let refused = check_files(5_000, Some(4_096)).expect_err("too few");
        assert!(
            refused.contains("need 10064 open files") && refused.contains("may have 4096") && refused.contains("ulimit -Hn"),
            "{refused}"
        );
    }
}
