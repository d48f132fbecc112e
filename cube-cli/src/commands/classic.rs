//! `cube run`, `cube status`, `cube stop` and `cube node`: the verbs of the classic task interface.

use std::path::PathBuf;

use clap::Args as ClapArgs;
use cube_api::classic::{self, Order, Task};
use cube_api::client::Client;
use cube_api::routes::ListQuery;
use serde_json::{Value, json};

use super::manifests;
use crate::error::{CliError, Result};
use crate::output::style::Style;
use crate::output::{print, task};
use crate::wait::{self, Live};

/// The words of `cube run`.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  cube run -f task.json                       run the task of a file
  cube run web --image nginx:latest           run an image
  cube run once --image busybox -- echo hello run a command in it, in place of the image's own

A task, in JSON:
  {\"State\": 2, \"Task\": {\"Name\": \"web\", \"Image\": \"nginx:latest\", \"ExposedPorts\": {\"80/tcp\": {}},
    \"PortBindings\": {\"80/tcp\": \"8080\"}, \"HealthCheck\": \"/\", \"RestartPolicy\": \"always\"}}
A task is a pod: cube list pod, cube logs and all the others work on it too.")]
pub struct RunArgs {
    /// The task's file; - for standard input
    #[arg(short = 'f', long = "filename", value_name = "FILE", conflicts_with_all = ["name", "image", "command"])]
    file: Option<PathBuf>,
    /// What to call it
    #[arg(value_name = "NAME", required_unless_present = "file", requires = "image")]
    name: Option<String>,
    /// The image to run
    #[arg(long, value_name = "IMAGE", requires = "name")]
    image: Option<String>,
    /// The command, in place of the image's own
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// The words of `cube stop`.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  cube stop bb1d59ef     by the beginning of its ID, as cube status shows it
  cube stop web db       by their names

Ctrl-C ends the waiting only: what was asked for goes on.")]
pub struct StopArgs {
    /// IDs, their beginnings, or names
    #[arg(value_name = "TASK", required = true, value_parser = parse_reference)]
    tasks: Vec<String>,
    /// Wait until the containers are gone
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    wait: bool,
}

/// What no ID and no name has would be another path.
fn parse_reference(text: &str) -> std::result::Result<String, String> {
    let right = !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
    let is_step = text.chars().all(|c| c == '.');
    if right && !is_step { Ok(text.to_owned()) } else { Err(format!("'{text}' is neither an ID nor a name of a task")) }
}

/// Runs a task; a file may also stop one.
pub async fn run(args: RunArgs, client: impl FnOnce() -> Result<Client>) -> Result<()> {
    let (shown, text) = match (&args.file, args.name, args.image) {
        (Some(file), _, _) => manifests::text_of(file)?,
        (None, Some(name), Some(image)) => {
            ("the task".to_owned(), json!({"name": name, "image": image, "command": args.command}).to_string())
        }
        (None, _, _) => return Err(CliError::usage("what to run is not said").hint("name a file with -f, or a task and its --image")),
    };
    let order = classic::read(text.as_bytes()).map_err(|problems| {
        let details = problems.iter().map(|problem| manifests::located(&shown, problem));
        CliError::failed("the task has errors; nothing was run").details(details)
    })?;
    let body: Value = serde_json::from_str(&text).expect("it was read as JSON");
    let task = client()?.post_task(&body).await?;
    print(&match order {
        Order::Run(_) => format!("task {} ({}) {}\n", task.id, task.name, task.state.as_str()),
        Order::Stop(_) => format!("task {} ({}) is being stopped\n", task.id, task.name),
    })
}

/// Lists every pod as a task.
pub async fn status(client: &Client) -> Result<()> {
    let pods = client.pods(&ListQuery::default()).await?.items;
    print(&task::table(&pods, jiff::Timestamp::now()).text(Style::of_stdout()))
}

/// Stops tasks: asks for all of it first, then waits for all of it.
pub async fn stop(args: StopArgs, client: &Client) -> Result<()> {
    let mut leaving = Vec::new();
    for reference in &args.tasks {
        let task = client.task(reference).await?;
        client.stop_task(&task.id).await?;
        if args.wait {
            leaving.push(task);
        } else {
            print(&format!("task {} ({}) is being stopped\n", task.id, task.name))?;
        }
    }
    if leaving.is_empty() {
        return Ok(());
    }
    wait::until(client, |live: &Live| {
        let is_gone = |task: &mut Task| !live.values().any(|pod| Task::id_of(pod) == task.id);
        let gone: String = leaving.extract_if(.., is_gone).map(|task| format!("task {} ({}) stopped\n", task.id, task.name)).collect();
        match print(&gone) {
            Err(error) => Some(Err(error)),
            Ok(()) => leaving.is_empty().then_some(Ok(())),
        }
    })
    .await
}

/// Lists the nodes as workers.
pub async fn node(client: &Client) -> Result<()> {
    print(&task::workers(&client.workers().await?).text(Style::of_stdout()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_named_by_what_fits_into_a_path() {
        for right in ["bb1d59ef", "test-chapter-9.1", "A_b", "a..b"] {
            assert_eq!(parse_reference(right).as_deref(), Ok(right));
        }
        for wrong in ["", "a/b", "a b", "..", ".", "a?b", "a%2fb", "\u{e4}"] {
            assert!(parse_reference(wrong).is_err(), "{wrong}");
        }
    }
}
