//! `cube logs`.

use std::io::Write;

use clap::Args as ClapArgs;
use cube_api::client::Client;
use cube_api::duration;
use cube_api::meta::Name;
use cube_api::routes::LogQuery;
use cube_api::stream::{Frame, Outcome};
use jiff::Timestamp;

use crate::error::{CliError, Result};
use crate::target::parse_pod;

/// The words of `cube logs`.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  cube logs pod/my-pod                    all containers in time order, each line with a name
  cube logs pod/my-pod --container web    one container alone, as it wrote
  cube logs pod/my-pod -f --tail 20       the last 20 lines, then what comes
  cube logs pod/my-pod --previous         what the attempt before the last restart wrote")]
pub struct Args {
    /// The pod: pod/NAME or NAME
    #[arg(value_name = "POD", value_parser = parse_pod)]
    pod: Name,
    /// This container alone
    #[arg(short, long, value_name = "NAME")]
    container: Option<Name>,
    /// Go on with what comes, until the pod ends or Ctrl-C
    #[arg(short, long)]
    follow: bool,
    /// Only the last so many lines of each container
    #[arg(long, value_name = "LINES")]
    tail: Option<u64>,
    /// Only what is newer: a length of time (5m) or a time (2026-01-31T12:00:00Z)
    #[arg(long, value_name = "TIME", value_parser = parse_since)]
    since: Option<Timestamp>,
    /// Begin each line with its time
    #[arg(long)]
    timestamps: bool,
    /// Of the attempt before the last restart
    #[arg(short, long)]
    previous: bool,
}

fn parse_since(text: &str) -> std::result::Result<Timestamp, String> {
    if let Ok(time) = text.parse() {
        return Ok(time);
    }
    Timestamp::now().checked_sub(duration::parse(text)?).map_err(|_| format!("'{text}' is too long ago"))
}

/// Prints logs, byte for byte as they come.
pub async fn run(args: Args, client: &Client) -> Result<()> {
    let Args { pod, container, follow, tail, since, timestamps, previous } = args;
    let query = LogQuery { container, follow, tail, since, timestamps, previous };
    let mut frames = client.logs(&pod, &query).await?;
    let mut out = std::io::stdout().lock();
    let trouble = |error| CliError::io("can't write the logs", error);
    while let Some(frame) = frames.next().await? {
        match frame {
            Frame::Stdout(bytes) | Frame::Stderr(bytes) => out.write_all(&bytes).and_then(|()| out.flush()).map_err(trouble)?,
            Frame::Status(Outcome::Success) => {}
            Frame::Status(Outcome::ExitCode(code)) => return Err(CliError::failed(format!("the logs ended with code {code}"))),
            Frame::Status(Outcome::Failed(why)) => return Err(CliError::failed(format!("the logs of pod/{pod} ended early: {why}"))),
            Frame::Stdin(_) | Frame::StdinEnd | Frame::Resize(_) => {
                return Err(CliError::failed("the leader sent a frame that only a client sends"));
            }
        }
    }
    Ok(())
}
