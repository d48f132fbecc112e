//! The words of the command line. What each does is in `commands/`.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::commands::{
    apply, classic, completion, config, cordon, create, delete, drain, events, exec, get, label, list, logs, nodes, restart, rollout, top,
    trigger, wait,
};

/// Run pods on a cluster of Docker machines.
#[derive(Debug, Parser)]
#[command(
    name = "cube",
    version,
    max_term_width = 120,
    after_help = "Examples:
  cube config set --leader-url localhost:4242 --password-file FILE    once: which leader to ask

  cube apply manifest.json --wait    make what a manifest says so, and wait for it
  cube list pod                      what runs
  cube get pod/my-pod                one pod: its manifest, its status, its events
  cube logs pod/my-pod -f            what it writes
  cube exec pod/my-pod -- sh         a shell in it

Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 3 the cluster can't be reached,
124 timed out; exec: the command's own."
)]
pub struct Cli {
    /// The file with leaderUrl and password [default: ~/.cube/config]
    #[arg(long, global = true, env = "CUBE_CONFIG", value_name = "FILE", hide_env_values = true)]
    pub config: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make the resources of manifests so
    Apply(apply::Args),
    /// List the nodes of the cluster
    Nodes(nodes::Args),
    /// List the resources of a type
    #[command(visible_alias = "ls")]
    List(list::Args),
    /// Show one resource (manifest, status, events), or list a type
    Get(get::Args),
    /// Show one resource: the same page as get
    Describe(get::DescribeArgs),
    /// Remove resources from the cluster, and their containers from the nodes
    Delete(delete::Args),
    /// Print what a pod's containers write
    Logs(logs::Args),
    /// Run a command in a pod's container
    Exec(exec::Args),
    /// Restart every container of pods, and clear their limits
    Restart(restart::Args),
    /// Wait until pods are ready, are gone or have ended, jobs are complete or deployments available
    Wait(wait::Args),
    /// Make a job of a cronjob now
    Trigger(trigger::Args),
    /// Make a job of a cronjob under a name of your own
    Create(create::Args),
    /// Follow, undo, pause or restart the rollout of a deployment
    Rollout(rollout::Args),
    /// Change how many pods a deployment has
    Scale(rollout::ScaleArgs),
    /// Let nodes take no new pods; those that are there stay
    Cordon(cordon::Args),
    /// Let nodes take pods again; ends a drain
    Uncordon(cordon::UncordonArgs),
    /// Move the pods of a node to other nodes, and let it take no new ones
    Drain(drain::Args),
    /// Change the labels of a node
    Label(label::Args),
    /// Show what happened, oldest first
    Events(events::Args),
    /// Show what the nodes use now
    Top(top::Args),
    /// Run a task: the classic interface
    Run(classic::RunArgs),
    /// List every pod as a task: the classic interface
    Status,
    /// Stop tasks: the classic interface
    Stop(classic::StopArgs),
    /// List the nodes as workers: the classic interface
    Node,
    /// Print what makes a shell complete cube's words, and the names in the cluster
    Completion(completion::Args),
    /// Show the versions of this client and of the leader
    Version,
    /// Show which leader is asked and where that is written, or write it down
    Config(config::Args),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_words_are_consistent_and_no_example_is_wrapped() {
        let command = super::Cli::command();
        command.clone().debug_assert();
        for command in command.get_subcommands().chain([&command]) {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.lines().all(|line| line.chars().count() <= 100), "{help}");
        }
    }
}
