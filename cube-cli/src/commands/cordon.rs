//! `cube cordon` and `cube uncordon`.

use clap::Args as ClapArgs;
use cube_api::client::Client;
use cube_api::meta::Name;
use cube_api::routes::CordonQuery;

use crate::error::Result;
use crate::output::print;
use crate::target::parse_node;

/// The words of `cube cordon`.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  cube cordon n1                          no new pods on n1; what runs there runs on
  cube cordon n1 --reason 'disk swap'     and everybody sees why

cube drain moves the pods that are there, too. A node stays cordoned over every restart, its own and
the leader's.")]
pub struct Args {
    /// The nodes
    #[arg(value_name = "NODE", required = true, value_parser = parse_node)]
    nodes: Vec<Name>,
    /// What for; cube get node/NODE shows it
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

/// The words of `cube uncordon`.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  cube uncordon n1    pods again on n1; those that wait for room are placed at once

A drain that goes on is called off: what was stopping already begins anew, on whichever node, and
the rest runs on.")]
pub struct UncordonArgs {
    /// The nodes
    #[arg(value_name = "NODE", required = true, value_parser = parse_node)]
    nodes: Vec<Name>,
}

/// Cordons nodes.
pub async fn run(args: Args, client: &Client) -> Result<()> {
    let query = CordonQuery { reason: args.reason };
    for name in &args.nodes {
        client.cordon(name, &query).await?;
        print(&format!("node/{name} cordoned\n"))?;
    }
    Ok(())
}

/// Uncordons nodes.
pub async fn undo(args: UncordonArgs, client: &Client) -> Result<()> {
    for name in &args.nodes {
        client.uncordon(name).await?;
        print(&format!("node/{name} uncordoned\n"))?;
    }
    Ok(())
}
