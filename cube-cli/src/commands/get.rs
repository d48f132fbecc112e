//! `cube get` and `cube describe`: one resource as a page or an object, or a list as kubectl's `get pods`.

use clap::Args as ClapArgs;
use cube_api::client::Client;
use cube_api::config::Config;
use cube_api::cronjob::{CRONJOB_LABEL, CronJob};
use cube_api::deployment::{DEPLOYMENT_LABEL, Deployment};
use cube_api::event::Event;
use cube_api::job::{JOB_LABEL, Job};
use cube_api::meta::{ResourceKind, ResourceRef};
use cube_api::routes::{EventQuery, ListQuery};
use cube_api::secret::Secret;
use cube_api::volume::NamedVolume;
use jiff::Timestamp;
use serde::Serialize;

use super::list::{self, Options};
use crate::error::{CliError, Result};
use crate::output::object::{Owned, Shown};
use crate::output::style::Style;
use crate::output::table::Table;
use crate::output::{self, Format, Typed, page, print};
use crate::target::{self, Target};

/// The words of `cube get`.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  cube get pod/my-pod            its status, its containers, its manifest and its events
  cube get pod/my-pod -o yaml    the whole object
  cube get pods -o wide          a list, as cube list pod")]
pub struct Args {
    /// TYPE/NAME, TYPE NAME, or TYPE for all of it
    #[arg(value_name = "RESOURCE", required = true)]
    targets: Vec<String>,
    #[command(flatten)]
    options: Options,
}

/// The words of `cube describe`.
#[derive(Debug, ClapArgs)]
pub struct DescribeArgs {
    /// TYPE/NAME or TYPE NAME
    #[arg(value_name = "RESOURCE", required = true)]
    targets: Vec<String>,
}

/// Shows resources, or lists a type.
pub async fn run(args: Args, client: impl FnOnce() -> Result<Client>) -> Result<()> {
    let Args { targets, options } = args;
    match target::parse(&targets)? {
        Target::All(kind) => list::all(kind, &options, &client()?).await,
        Target::These(_) if options.watch || options.selector.is_some() => {
            Err(CliError::usage("-w and -l are for a whole type").hint("such as: cube get pods -w"))
        }
        Target::These(references) => each(&references, options.output, &client()?).await,
    }
}

/// Shows resources as pages.
pub async fn describe(args: DescribeArgs, client: impl FnOnce() -> Result<Client>) -> Result<()> {
    match target::parse(&args.targets)? {
        Target::All(kind) => Err(CliError::usage("describe is for single resources").hint(format!("name one, such as {kind}/NAME"))),
        Target::These(references) => each(&references, None, &client()?).await,
    }
}

async fn each(references: &[ResourceRef], format: Option<Format>, client: &Client) -> Result<()> {
    for (index, reference) in references.iter().enumerate() {
        match format {
            None if index > 0 => print("\n\n")?,
            Some(Format::Yaml) if index > 0 => print("---\n")?,
            None | Some(_) => {}
        }
        print(&one(reference, format, client).await?)?;
    }
    Ok(())
}

async fn one(reference: &ResourceRef, format: Option<Format>, client: &Client) -> Result<String> {
    let now = Timestamp::now;
    match reference.kind {
        ResourceKind::Pod => {
            let pod = client.pod(&reference.name).await?;
            match format {
                Some(format) => Ok(object(reference, &pod, format, |wide| output::pod::table([&pod], wide, now()))),
                None => Ok(page::pod(&pod, &events(reference, client).await?, now(), Style::of_stdout())),
            }
        }
        ResourceKind::Node => {
            let node = client.node(&reference.name).await?;
            match format {
                Some(format) => Ok(object(reference, &node, format, |wide| output::node::table([&node], wide, now()))),
                None => Ok(output::node::page(&node, &events(reference, client).await?, now(), Style::of_stdout())),
            }
        }
        ResourceKind::Secret => of_type::<Secret>(reference, format, client).await,
        ResourceKind::Config => of_type::<Config>(reference, format, client).await,
        ResourceKind::Volume => of_type::<NamedVolume>(reference, format, client).await,
        ResourceKind::Job => of_type::<Job>(reference, format, client).await,
        ResourceKind::CronJob => of_type::<CronJob>(reference, format, client).await,
        ResourceKind::Deployment => of_type::<Deployment>(reference, format, client).await,
    }
}

async fn of_type<T: Shown>(reference: &ResourceRef, format: Option<Format>, client: &Client) -> Result<String> {
    let found = client.object::<T>(&reference.name).await?;
    match format {
        Some(format) => Ok(object(reference, &found, format, |wide| T::rows([&found], wide, Timestamp::now()))),
        None => {
            let (owned, events) = (owned(reference, client).await?, events(reference, client).await?);
            Ok(output::object::page(&found, owned, &events, Timestamp::now(), Style::of_stdout()))
        }
    }
}

/// What a resource has made and looks after, if there is something.
async fn owned(reference: &ResourceRef, client: &Client) -> Result<Option<Owned>> {
    let labelled = |label: &str| ListQuery { selector: Some(format!("{label}={}", reference.name)), ..ListQuery::default() };
    let now = Timestamp::now();
    let (heading, count, table) = match reference.kind {
        ResourceKind::Job => {
            let pods = client.pods(&labelled(JOB_LABEL)).await?.items;
            ("Pods", pods.len(), output::pod::table(&pods, false, now))
        }
        ResourceKind::Deployment => {
            let pods = client.pods(&labelled(DEPLOYMENT_LABEL)).await?.items;
            ("Pods", pods.len(), output::pod::table(&pods, true, now))
        }
        ResourceKind::CronJob => {
            let jobs = client.objects::<Job>(&labelled(CRONJOB_LABEL)).await?.items;
            ("Jobs", jobs.len(), Job::rows(&jobs, false, now))
        }
        ResourceKind::Pod | ResourceKind::Node | ResourceKind::Secret | ResourceKind::Config | ResourceKind::Volume => return Ok(None),
    };
    Ok((count > 0).then_some((heading, table)))
}

fn object<T: Serialize>(reference: &ResourceRef, object: &T, format: Format, table: impl Fn(bool) -> Table) -> String {
    match format {
        Format::Wide => table(true).text(Style::of_stdout()),
        Format::Json => output::json(&Typed::new(reference.kind, object)),
        Format::Yaml => output::yaml(&Typed::new(reference.kind, object)),
        Format::Name => output::names([reference.clone()]),
    }
}

async fn events(reference: &ResourceRef, client: &Client) -> Result<Vec<Event>> {
    let query = EventQuery { object: Some(reference.to_string()), ..EventQuery::default() };
    Ok(client.events(&query).await?.items)
}
