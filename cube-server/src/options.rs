//! The command line of `cube-server`. Each flag is also a `CUBE_*` variable.

use std::path::PathBuf;

use clap::builder::BoolishValueParser;
use clap::{Args, Parser, Subcommand};
use cube_api::meta::{Labels, Name};

/// A container cluster on machines with Docker: a leader (control plane, and a node) and any number of followers (nodes).
#[derive(Debug, Parser)]
#[command(name = "cube-server", version, after_help = EXAMPLES)]
pub struct Options {
    /// What to run as.
    #[command(subcommand)]
    pub role: RoleOptions,
}

const EXAMPLES: &str = "Examples:
  cube-server leader                          a whole cluster on this machine
  cube-server leader --listen 0.0.0.0:4242    also for followers on other machines
  cube-server follower --leader 10.0.0.1:4242 --token-file token

A leader without a token makes one, keeps it in its data folder, and says how nodes join
and how the client, cube, is set up. The log goes to stderr; CUBE_LOG=debug says more.";

/// The two roles.
#[derive(Debug, Subcommand)]
pub enum RoleOptions {
    /// Run the control plane, and pods on this machine
    Leader(LeaderOptions),
    /// Run pods for a leader
    Follower(FollowerOptions),
}

/// Flags of the leader.
#[derive(Debug, Args)]
pub struct LeaderOptions {
    /// Where to listen; 0.0.0.0:4242 lets other machines in, port 0 takes a free one
    #[arg(long, env = "CUBE_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:4242")]
    pub listen: String,
    /// Run no pods on this machine
    #[arg(long, env = "CUBE_NO_PODS", value_parser = BoolishValueParser::new())]
    pub no_pods: bool,
    /// What both roles take.
    #[command(flatten)]
    pub common: CommonOptions,
}

/// Flags of a follower.
#[derive(Debug, Args)]
pub struct FollowerOptions {
    /// The leader's host and port; the port is 4242 unless given
    #[arg(long, env = "CUBE_LEADER", value_name = "HOST:PORT")]
    pub leader: String,
    /// What both roles take.
    #[command(flatten)]
    pub common: CommonOptions,
}

/// Flags of both roles.
#[derive(Debug, Args)]
pub struct CommonOptions {
    /// The cluster's secret; better given as CUBE_TOKEN or --token-file: other users of a machine see its command lines
    #[arg(long, env = "CUBE_TOKEN", value_name = "TOKEN", hide_env_values = true, conflicts_with = "token_file")]
    pub token: Option<String>,
    /// A file that holds the cluster's secret
    #[arg(long, env = "CUBE_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Where this server keeps its state [default: /var/lib/cube for root, else the user's state folder]
    #[arg(long, env = "CUBE_DATA_DIR", value_name = "FOLDER")]
    pub data_dir: Option<PathBuf>,
    /// This node's name in the cluster [default: the machine's host name]
    #[arg(long, env = "CUBE_NAME", value_name = "NAME")]
    pub name: Option<Name>,
    /// Docker's socket [default: DOCKER_HOST, else unix:///var/run/docker.sock]
    #[arg(long, env = "CUBE_DOCKER", value_name = "unix:///SOCKET")]
    pub docker: Option<String>,
    /// A label of this node for pods to select by; may be repeated
    #[arg(long = "label", env = "CUBE_LABELS", value_name = "KEY=VALUE", value_delimiter = ',', value_parser = label)]
    pub labels: Vec<(String, String)>,
    /// The most pods that this node takes (110 is Kubernetes' default)
    #[arg(long, env = "CUBE_MAX_PODS", value_name = "N", default_value_t = 110)]
    pub max_pods: u32,
}

impl CommonOptions {
    /// The labels as a map; a repeated key keeps the last value, as repeated flags do.
    pub fn labels(&self) -> Labels {
        self.labels.iter().cloned().collect()
    }
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        Some(_) | None => Err(format!("'{text}' is not KEY=VALUE")),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_words_are_consistent_and_no_example_is_wrapped() {
        let mut command = Options::command();
        command.build();
        command.clone().debug_assert();
        let help = command.get_after_help().expect("there are examples").to_string();
        assert!(help.lines().all(|line| line.len() <= 100), "{help}");
        assert!(command.render_help().to_string().starts_with("A container cluster"));
    }
}
