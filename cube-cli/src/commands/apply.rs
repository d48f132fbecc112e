//! `cube apply`.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args as ClapArgs;
use cube_api::client::Client;
use cube_api::duration;
use cube_api::event::EventKind;
use cube_api::meta::{ResourceKind, Uid};
use cube_api::pod::{ContainerState, Phase, Pod, WaitReason};
use cube_api::routes::{AppliedItem, EventQuery};
use cube_api::status;
use jiff::SignedDuration;

use super::manifests;
use crate::error::{CliError, Result};
use crate::output::print;
use crate::wait::{self, Live};

/// The words of `cube apply`.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  cube apply manifest.json                 make it so
  cube apply manifest.json --wait          and wait until every pod is ready or has completed
  cube apply -f pods/ --dry-run            check every manifest of a folder; change nothing
  generate | cube apply -f -               read standard input

A manifest, in JSON or YAML:
  [{\"type\": \"pod\", \"metadata\": {\"name\": \"my-pod\"},
    \"spec\": {\"containers\": [{\"name\": \"web\", \"image\": \"nginx:latest\"}]}}]")]
pub struct Args {
    /// Files, folders, or - for standard input
    #[arg(value_name = "FILE", required_unless_present = "files")]
    positional: Vec<PathBuf>,
    /// The same
    #[arg(short = 'f', long = "filename", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Check, and say what would be done; change nothing
    #[arg(long)]
    dry_run: bool,
    /// Wait until every pod is ready or has completed
    #[arg(long, conflicts_with = "dry_run")]
    wait: bool,
    /// How long to wait, such as 90s or 5m
    #[arg(long, default_value = "5m", value_parser = duration::parse, value_name = "TIME")]
    timeout: SignedDuration,
}

/// Applies manifests.
pub async fn run(args: Args, client: impl FnOnce() -> Result<Client>) -> Result<()> {
    let Args { mut positional, files, dry_run, wait, timeout } = args;
    positional.extend(files);
    let resources = manifests::read(&positional)?;
    let client = client()?;
    let applied = client.apply(&resources, dry_run).await?;
    let note = if dry_run { " (dry run)" } else { "" };
    let lines = applied.items.iter().map(|item| format!("{} {}{note}\n", item.reference(), item.action.as_str()));
    print(&lines.collect::<String>())?;
    if wait { until_ready(&client, &applied.items, timeout).await } else { Ok(()) }
}

/// What a pod that is waited for has come to.
#[derive(Debug, PartialEq, Eq)]
enum Progress {
    /// Not yet; the word of the STATUS column, and why.
    OnTheWay(String),
    /// It is ready, or has completed.
    There(String),
    /// It won't; why.
    Lost(String),
}

fn judge(pod: Option<&Pod>) -> Progress {
    let Some(pod) = pod else { return Progress::Lost("was deleted".to_owned()) };
    let word = status::of_pod(pod);
    if pod.metadata.deletion_requested_at.is_some() {
        return Progress::Lost("is being deleted".to_owned());
    }
    match pod.status.phase {
        Phase::Failed => Progress::Lost(match &pod.status.message {
            Some(message) => format!("failed: {word}: {message}"),
            None => format!("failed: {word}"),
        }),
        Phase::Succeeded => Progress::There(word),
        Phase::Running if word == "Running" => match status::unready(pod) {
            None => Progress::There(word),
            Some(container) => Progress::OnTheWay(format!("{word}, not ready: {}", status::unready_because(container))),
        },
        Phase::Running | Phase::Pending => Progress::OnTheWay(match held_up_by(pod) {
            Some(why) => format!("{word}: {why}"),
            None => word,
        }),
    }
}

/// Why a pod waits, as far as that says more than its STATUS word. A pull's progress doesn't: it would be a line for each percent.
pub(super) fn held_up_by(pod: &Pod) -> Option<&str> {
    let container = pod.status.containers.iter().find_map(|container| match &container.state {
        ContainerState::Waiting(waiting) if waiting.reason != WaitReason::Pulling => waiting.message.as_deref(),
        ContainerState::Waiting(_) | ContainerState::Running(_) | ContainerState::Terminated(_) => None,
    });
    pod.placement.waiting_for.as_deref().or(container)
}

async fn until_ready(client: &Client, items: &[AppliedItem], limit: SignedDuration) -> Result<()> {
    // What is there at once isn't waited for.
    let pods = items.iter().filter(|item| item.reference().kind == ResourceKind::Pod);
    let wanted: Vec<(Uid, String)> = pods.map(|item| (item.metadata().uid, item.reference().to_string())).collect();
    let mut shown = Shown::new();
    let limit = Duration::try_from(limit).expect("a negative limit is refused by the command line");
    let waiting = wait::until(client, |live: &Live| {
        let progress: Vec<Progress> = wanted.iter().map(|(uid, _)| judge(live.get(uid))).collect();
        shown.update(&wanted, &progress);
        let lost = wanted.iter().zip(&progress).find_map(|((_, name), progress)| match progress {
            Progress::Lost(why) => Some((name.clone(), why.clone())),
            Progress::OnTheWay(_) | Progress::There(_) => None,
        });
        match lost {
            Some(lost) => Some(Ok(Some(lost))),
            None => progress.iter().all(|progress| matches!(progress, Progress::There(_))).then_some(Ok(None)),
        }
    });
    match tokio::time::timeout(limit, waiting).await {
        Ok(Ok(None)) => Ok(()),
        Ok(Ok(Some((name, why)))) => Err(explained(client, &name, format!("{name} {why}")).await),
        Ok(Err(error)) => Err(error),
        Err(_) => {
            let late = shown.last.iter().filter(|(_, (done, _))| !done).map(|(name, (_, word))| format!("{name}: {word}"));
            let error = CliError::timed_out(format!("not every pod is ready after {limit:?}")).details(late);
            Err(error.hint("they stay applied; cube get TYPE/NAME says what keeps one waiting"))
        }
    }
}

/// An error with the last warning of the pod's life below it.
pub(super) async fn explained(client: &Client, name: &str, message: String) -> CliError {
    let error = CliError::failed(message).hint(format!("cube get {name} shows its events, cube logs {name} what it wrote"));
    let query = EventQuery { object: Some(name.to_owned()), ..EventQuery::default() };
    match client.events(&query).await {
        Ok(events) => {
            let warning = events.items.into_iter().rev().find(|event| event.kind == EventKind::Warning);
            error.details(warning.map(|event| format!("{}: {}", event.reason, event.message)))
        }
        // The pod's failure is what the user waits to hear; that its events can't be had now is not worth a second error.
        Err(_) => error,
    }
}

/// Progress on standard error: on a terminal one line per pod, rewritten; elsewhere a line for each change.
struct Shown {
    on_terminal: bool,
    lines: usize,
    /// By the pod's name: whether it is there, and the word for what it does.
    last: BTreeMap<String, (bool, String)>,
}

impl Shown {
    fn new() -> Self {
        Self { on_terminal: std::io::stderr().is_terminal(), lines: 0, last: BTreeMap::new() }
    }

    fn update(&mut self, wanted: &[(Uid, String)], progress: &[Progress]) {
        let mut text = String::new();
        let mut changed = false;
        for ((_, name), progress) in wanted.iter().zip(progress) {
            let now = match progress {
                Progress::There(word) => (true, word.clone()),
                Progress::OnTheWay(word) => (false, word.clone()),
                // The error that follows says it in full.
                Progress::Lost(_) => continue,
            };
            let differs = self.last.get(name) != Some(&now);
            changed |= differs;
            if differs || self.on_terminal {
                let erase = if self.on_terminal { "\u{1b}[2K" } else { "" };
                text.push_str(&format!("{erase}{name}: {}\n", now.1));
            }
            self.last.insert(name.clone(), now);
        }
        if changed {
            let up = if self.on_terminal && self.lines > 0 { format!("\u{1b}[{}A", self.lines) } else { String::new() };
            // Long reasons are cut at the terminal's edge: a wrapped line would be two to go up over.
            let (cut, wrap) = if self.on_terminal { ("\u{1b}[?7l", "\u{1b}[?7h") } else { ("", "") };
            eprint!("{up}{cut}{text}{wrap}");
            self.lines = text.lines().count();
        }
    }
}
