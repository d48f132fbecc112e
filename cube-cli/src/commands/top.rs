//! `cube top`: what the nodes' machines use now.

use clap::{Args as ClapArgs, Subcommand};
use cube_api::client::Client;
use cube_api::routes::ListQuery;

use crate::error::Result;
use crate::output::style::Style;
use crate::output::{node, print};

/// The words of `cube top`.
#[derive(Debug, ClapArgs)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

/// Of what.
#[derive(Debug, Subcommand)]
enum What {
    /// Of the nodes: cores, memory, disk and load in use by the whole machine, and the part of all it has
    #[command(visible_aliases = ["node", "no"])]
    Nodes,
}

/// Shows what is used.
pub async fn run(Args { what: What::Nodes }: Args, client: &Client) -> Result<()> {
    let nodes = client.nodes(&ListQuery::default()).await?.items;
    print(&node::top(&nodes).text(Style::of_stdout()))
}
