//! `cube restart`.

use clap::Args as ClapArgs;
use cube_api::client::Client;
use cube_api::meta::Name;

use crate::error::Result;
use crate::output::print;
use crate::target::parse_pod;

/// The words of `cube restart`.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  cube restart pod/my-pod    restart its containers

A pod that was given up (CrashLimit, ImageLimit) is tried again.")]
pub struct Args {
    /// The pods
    #[arg(value_name = "POD", required = true, value_parser = parse_pod)]
    pods: Vec<Name>,
}

/// Restarts pods.
pub async fn run(args: Args, client: &Client) -> Result<()> {
    for name in &args.pods {
        client.restart_pod(name).await?;
        print(&format!("pod/{name} is being restarted\n"))?;
    }
    Ok(())
}
