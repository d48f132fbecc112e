//! `cube events`.

use std::time::Duration;

use clap::Args as ClapArgs;
use cube_api::client::Client;
use cube_api::meta::ResourceRef;
use cube_api::routes::EventQuery;
use jiff::Timestamp;
use tokio::time::{MissedTickBehavior, interval};

use crate::error::Result;
use crate::output::style::Style;
use crate::output::{event, print};
use crate::target::parse_reference;

/// How often `-w` asks: the API has no watch of events, and a person doesn't read faster.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// The words of `cube events`.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  cube events                what happened in the cluster, oldest first
  cube events pod/my-pod -w  what happens to one pod, as it happens")]
pub struct Args {
    /// Of this one alone: TYPE/NAME
    #[arg(value_name = "RESOURCE", value_parser = parse_reference)]
    object: Option<ResourceRef>,
    /// Go on with what happens, until Ctrl-C
    #[arg(short, long)]
    watch: bool,
}

/// Shows events.
pub async fn run(args: Args, client: &Client) -> Result<()> {
    let with_object = args.object.is_none();
    let mut query = EventQuery { object: args.object.map(|object| object.to_string()), ..EventQuery::default() };
    let list = client.events(&query).await?;
    if list.items.is_empty() {
        eprintln!("no events found");
    }
    let table = event::table(&list.items, with_object, Timestamp::now());
    let widths = table.widths();
    if !list.items.is_empty() || args.watch {
        print(&table.text(Style::of_stdout()))?;
    }
    if !args.watch {
        return Ok(());
    }
    query.from = Some(list.revision);
    let mut ticks = interval(ASK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let list = client.events(&query).await?;
        print(&event::table(&list.items, with_object, Timestamp::now()).rows_text(&widths, Style::of_stdout()))?;
        query.from = Some(list.revision);
    }
}
