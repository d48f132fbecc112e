//! `cube nodes`.

use clap::Args as ClapArgs;
use cube_api::client::Client;
use cube_api::meta::ResourceKind;

use super::list::{self, Options};
use crate::error::Result;

/// The words of `cube nodes`.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  cube nodes            name, status, type, age, pods, cpu and memory (reserved/all)
  cube nodes -o wide    also versions, labels and why a node isn't ready")]
pub struct Args {
    #[command(flatten)]
    options: Options,
}

/// Lists the nodes.
pub async fn run(args: Args, client: &Client) -> Result<()> {
    list::all(ResourceKind::Node, &args.options, client).await
}
