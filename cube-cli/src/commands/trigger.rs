//! `cube trigger`.

use clap::Args as ClapArgs;
use cube_api::client::Client;
use cube_api::meta::Name;
use cube_api::routes::TriggerQuery;

use crate::error::Result;
use crate::output::print;
use crate::target::parse_cronjob;

/// The words of `cube trigger`.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  cube trigger cronjob/report              a job by its template, now
  cube trigger cronjob/report --job once   the same, under this name

Neither the schedule nor its concurrency policy is asked.")]
pub struct Args {
    /// The cronjob
    #[arg(value_name = "CRONJOB", value_parser = parse_cronjob)]
    cronjob: Name,
    /// The job's name; one is made up when absent
    #[arg(long, value_name = "NAME")]
    job: Option<Name>,
}

/// Makes the job.
pub async fn run(args: Args, client: &Client) -> Result<()> {
    make(&args.cronjob, args.job, client).await
}

/// Makes a job of a cronjob, and says its name.
pub async fn make(cronjob: &Name, job: Option<Name>, client: &Client) -> Result<()> {
    let made = client.trigger_cronjob(cronjob, &TriggerQuery { job }).await?;
    print(&format!("job/{} created\n", made.metadata.name))
}
