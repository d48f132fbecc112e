//! `cube delete`.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args as ClapArgs;
use cube_api::client::Client;
use cube_api::cronjob::CronJob;
use cube_api::deployment::Deployment;
use cube_api::duration;
use cube_api::error::ErrorCode;
use cube_api::job::Job;
use cube_api::meta::{ResourceKind, ResourceRef, Uid};
use cube_api::routes::{DeleteNodeQuery, DeleteQuery, ListQuery};
use jiff::SignedDuration;

use super::manifests;
use crate::error::{CliError, Result};
use crate::output::{self, print};
use crate::target::{self, Target};
use crate::wait::{self, Live};

/// The words of `cube delete`.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  cube delete pod/my-pod             stop it, remove its containers, and wait until they are gone
  cube delete -f manifest.json       everything that a manifest names
  cube delete pod -l app=web         every pod with a label
  cube delete pod/my-pod --force     forget it now, though its node can't confirm
  cube delete node/n1                forget a node that is stopped and has no pods
  cube delete node/n1 --force        declare it dead: its pods are replaced on other nodes

Ctrl-C ends the waiting only: what was asked for goes on.")]
pub struct Args {
    /// TYPE/NAME..., TYPE NAME..., or TYPE with -l
    #[arg(value_name = "RESOURCE", required_unless_present_any = ["files", "selector"], conflicts_with = "files")]
    targets: Vec<String>,
    /// Everything that these manifests name; - for standard input
    #[arg(short = 'f', long = "filename", value_name = "FILE", conflicts_with = "selector")]
    files: Vec<PathBuf>,
    /// Every pod with these labels
    #[arg(short = 'l', long, value_name = "LABELS")]
    selector: Option<String>,
    /// Forget pods without their node's word that the containers are gone; of a node: declare it dead
    #[arg(long)]
    force: bool,
    /// Seconds between the stop signal and the kill, instead of the pod's own
    #[arg(long, value_name = "SECONDS")]
    grace_period: Option<u32>,
    /// Wait until the containers are gone
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    wait: bool,
    /// How long to wait, such as 90s or 5m; for ever when absent
    #[arg(long, value_parser = duration::parse, value_name = "TIME")]
    timeout: Option<SignedDuration>,
}

/// Deletes resources: asks for all of it first, then waits for all of it.
pub async fn run(args: Args, client: impl FnOnce() -> Result<Client>) -> Result<()> {
    let (references, client) = named(&args, client).await?;
    let query = DeleteQuery { grace_seconds: args.grace_period, force: args.force };
    let (mut leaving, mut owners) = (Vec::new(), Vec::new());
    let mut refusals = Vec::new();
    for reference in references {
        match reference.kind {
            ResourceKind::Pod => match client.delete_pod(&reference.name, &query).await {
                Ok(pod) if args.wait => leaving.push((pod.metadata.uid, reference)),
                Ok(_) => print(&format!("{reference} {}\n", if args.force { "deleted" } else { "is being deleted" }))?,
                Err(error) if error.code() == Some(ErrorCode::NotFound) => refusals.push(error),
                Err(error) => return Err(error.into()),
            },
            ResourceKind::Node => match client.delete_node(&reference.name, &DeleteNodeQuery { force: args.force }).await {
                Ok(_) => print(&format!("{reference} deleted\n"))?,
                Err(error) => return Err(error.into()),
            },
            ResourceKind::Volume => match client.delete_object(&reference, &query).await {
                Ok(_) => print(&format!("{reference} is being deleted\n"))?,
                Err(error) if error.code() == Some(ErrorCode::NotFound) => refusals.push(error),
                Err(error) => return Err(error.into()),
            },
            ResourceKind::Job | ResourceKind::CronJob | ResourceKind::Deployment => match client.delete_object(&reference, &query).await {
                Ok(object) if args.wait => owners.push((object.metadata().uid, reference)),
                Ok(_) => print(&format!("{reference} is being deleted\n"))?,
                Err(error) if error.code() == Some(ErrorCode::NotFound) => refusals.push(error),
                Err(error) => return Err(error.into()),
            },
            ResourceKind::Secret | ResourceKind::Config => match client.delete_object(&reference, &query).await {
                Ok(_) => print(&format!("{reference} deleted\n"))?,
                Err(error) if error.code() == Some(ErrorCode::NotFound) => refusals.push(error),
                Err(error) => return Err(error.into()),
            },
        }
    }
    until_gone(&client, leaving, owners, args.timeout).await?;
    match refusals.len() {
        0 => Ok(()),
        1 => Err(refusals.remove(0).into()),
        count => Err(CliError::failed(format!("{count} resources are not there")).details(refusals.iter().map(ToString::to_string))),
    }
}

async fn named(args: &Args, client: impl FnOnce() -> Result<Client>) -> Result<(Vec<ResourceRef>, Client)> {
    if !args.files.is_empty() {
        let references = manifests::read(&args.files)?.iter().map(|resource| resource.reference()).collect();
        return Ok((references, client()?));
    }
    let target = if args.targets.is_empty() { Target::All(ResourceKind::Pod) } else { target::parse(&args.targets)? };
    match (target, &args.selector) {
        (Target::These(references), None) => Ok((references, client()?)),
        (Target::These(_), Some(_)) => Err(CliError::usage("names and -l exclude each other")),
        (Target::All(ResourceKind::Pod), Some(selector)) => {
            let client = client()?;
            let pods = client.pods(&ListQuery { selector: Some(selector.clone()), ..ListQuery::default() }).await?;
            if pods.items.is_empty() {
                eprintln!("no pods match {selector}");
            }
            Ok((pods.items.iter().map(output::pod::reference).collect(), client))
        }
        (Target::All(kind), Some(_)) => Err(CliError::usage(format!("{} are deleted by name only", kind.plural()))),
        (Target::All(kind), None) => {
            Err(CliError::usage(format!("which {kind} to delete is not said")).hint(format!("name it ({kind}/NAME), or select with -l")))
        }
    }
}

type Leaving = Vec<(Uid, ResourceRef)>;

async fn until_gone(client: &Client, pods: Leaving, owners: Leaving, limit: Option<SignedDuration>) -> Result<()> {
    let mut left: BTreeSet<ResourceRef> = pods.iter().chain(&owners).map(|(_, reference)| reference.clone()).collect();
    let waiting = async {
        pods_gone(client, pods, &mut left).await?;
        // One after the other: those that are gone when it is their turn aren't waited for.
        for (uid, reference) in owners {
            match reference.kind {
                ResourceKind::Job => wait::until_gone::<Job>(client, uid).await?,
                ResourceKind::CronJob => wait::until_gone::<CronJob>(client, uid).await?,
                ResourceKind::Deployment => wait::until_gone::<Deployment>(client, uid).await?,
                ResourceKind::Pod | ResourceKind::Node | ResourceKind::Secret | ResourceKind::Config | ResourceKind::Volume => {}
            }
            left.remove(&reference);
            print(&format!("{reference} deleted\n"))?;
        }
        Ok(())
    };
    let Some(limit) = limit else { return waiting.await };
    let limit = Duration::try_from(limit).expect("a negative limit is refused by the command line");
    let waited = tokio::time::timeout(limit, waiting).await;
    waited.unwrap_or_else(|_| {
        let left = left.iter().map(|reference| format!("{reference}: Terminating"));
        let error = CliError::timed_out(format!("not everything is gone after {limit:?}")).details(left);
        Err(error.hint("the deletion goes on; if a pod's node is gone for good, --force forgets the pod"))
    })
}

async fn pods_gone(client: &Client, mut pods: Leaving, left: &mut BTreeSet<ResourceRef>) -> Result<()> {
    if pods.is_empty() {
        return Ok(());
    }
    let look = |live: &Live| {
        let gone: Vec<_> = pods.extract_if(.., |(uid, _)| !live.contains_key(uid)).map(|(_, reference)| reference).collect();
        left.retain(|reference| !gone.contains(reference));
        match print(&gone.iter().map(|reference| format!("{reference} deleted\n")).collect::<String>()) {
            Err(error) => Some(Err(error)),
            Ok(()) => pods.is_empty().then_some(Ok(())),
        }
    };
    wait::until(client, look).await
}
