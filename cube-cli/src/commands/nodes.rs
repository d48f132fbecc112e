//! `cube nodes`.

use clap::Args as ClapArgs;
use cube_api::client::Client;
use cube_api::meta::ResourceKind;

use super::list::{self, Options};
use crate::error::Result;

/// The words of `cube nodes`.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  cube nodes            name, status, type, age, pods; CPU, MEMORY: reserved by pods, of what they
                        may reserve; CPU%, MEMORY%: in use by the whole machine, of all it has
  cube nodes -o wide    also disk space, versions, labels and why a node isn't ready
  cube get node/n1      all of one: what it has, keeps back, gives to pods and uses")]
pub struct Args {
    #[command(flatten)]
    options: Options,
}

/// Lists the nodes.
pub async fn run(args: Args, client: &Client) -> Result<()> {
    list::all(ResourceKind::Node, &args.options, client).await
}
