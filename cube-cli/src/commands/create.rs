//! `cube create job`: kubectl's words for `cube trigger`.

use clap::{Args as ClapArgs, Subcommand};
use cube_api::client::Client;
use cube_api::meta::Name;

use super::trigger;
use crate::error::Result;
use crate::target::parse_cronjob;

/// The words of `cube create`.
#[derive(Debug, ClapArgs)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

/// What can be created without a manifest.
#[derive(Debug, Subcommand)]
enum What {
    /// A job by a cronjob's template, now
    #[command(after_help = "Examples:
  cube create job once --from=cronjob/report

Everything else is made of manifests: cube apply FILE.")]
    Job {
        /// The job's name
        #[arg(value_name = "NAME")]
        name: Name,
        /// The cronjob
        #[arg(long, value_name = "CRONJOB", value_parser = parse_cronjob)]
        from: Name,
    },
}

/// Makes the job.
pub async fn run(args: Args, client: &Client) -> Result<()> {
    let What::Job { name, from } = args.what;
    trigger::make(&from, Some(name), client).await
}
