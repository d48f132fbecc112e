//! `cube restart`.

use clap::Args as ClapArgs;
use cube_api::client::Client;
use cube_api::meta::{Name, ResourceKind, ResourceRef};

use super::rollout;
use crate::error::Result;
use crate::output::print;
use crate::target::parse_reference;

/// The words of `cube restart`.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  cube restart pod/my-pod        restart its containers
  cube restart deployment/web    replace every pod by a new one, as cube rollout restart

A pod that was given up (CrashLimit, ImageLimit) is tried again.")]
pub struct Args {
    /// The pods and deployments; a name alone is a pod's
    #[arg(value_name = "RESOURCE", required = true, value_parser = restartable)]
    targets: Vec<ResourceRef>,
}

fn restartable(text: &str) -> std::result::Result<ResourceRef, String> {
    if !text.contains('/') {
        let name = Name::new(text).map_err(|error| error.to_string())?;
        return Ok(ResourceRef { kind: ResourceKind::Pod, name });
    }
    let reference = parse_reference(text)?;
    match reference.kind {
        ResourceKind::Pod | ResourceKind::Deployment => Ok(reference),
        kind => Err(format!("'{text}' is a {kind}, and only a pod or a deployment can do this")),
    }
}

/// Restarts pods, and replaces those of deployments.
pub async fn run(args: Args, client: &Client) -> Result<()> {
    for reference in &args.targets {
        if reference.kind == ResourceKind::Deployment {
            rollout::restart(client, &reference.name).await?;
        } else {
            client.restart_pod(&reference.name).await?;
            print(&format!("{reference} is being restarted\n"))?;
        }
    }
    Ok(())
}
