//! `cube apply`.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args as ClapArgs;
use cube_api::client::Client;
use cube_api::deployment::Deployment;
use cube_api::duration;
use cube_api::event::EventKind;
use cube_api::job::{Job, JobConditionKind};
use cube_api::meta::{ResourceKind, Uid};
use cube_api::pod::{ContainerState, Phase, Pod, WaitReason};
use cube_api::routes::{AppliedItem, EventQuery};
use cube_api::status;
use jiff::SignedDuration;

use super::{manifests, rollout};
use crate::error::{CliError, Result};
use crate::output::print;
use crate::wait::{self, Live};

/// The words of `cube apply`.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  cube apply manifest.json                 make it so
  cube apply manifest.json --wait          and wait until all of it is ready or has completed
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
    /// Wait until pods are ready or have completed, jobs are complete and deployments rolled out
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

/// What a resource that is waited for has come to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Not yet; the word of the STATUS column, and why.
    OnTheWay(String),
    /// It is ready, rolled out, or has completed.
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
    let container = pod.status.all_containers().find_map(|container| match &container.state {
        ContainerState::Waiting(waiting) if waiting.reason != WaitReason::Pulling => waiting.message.as_deref(),
        ContainerState::Waiting(_) | ContainerState::Running(_) | ContainerState::Terminated(_) => None,
    });
    pod.placement.waiting_for.as_deref().or(container)
}

/// What a job has come to.
pub(super) fn judge_job(job: Option<&Job>) -> Progress {
    let Some(job) = job else { return Progress::Lost("was deleted".to_owned()) };
    if job.metadata.deletion_requested_at.is_some() {
        return Progress::Lost("is being deleted".to_owned());
    }
    let (word, status) = (job.state(), &job.status);
    match status.end() {
        Some(end) => match end.kind {
            JobConditionKind::Failed => Progress::Lost(format!("failed: {}: {}", end.reason, end.message)),
            JobConditionKind::Complete | JobConditionKind::Suspended => Progress::There(word.to_owned()),
        },
        None => Progress::OnTheWay(format!("{word}, {}/{} succeeded, {} failed", status.succeeded, job.spec.completions(), status.failed)),
    }
}

fn judge_deployment(deployment: Option<&Deployment>) -> Progress {
    let Some(deployment) = deployment else { return Progress::Lost("was deleted".to_owned()) };
    if deployment.metadata.deletion_requested_at.is_some() {
        return Progress::Lost("is being deleted".to_owned());
    }
    match rollout::judge(deployment) {
        rollout::Progress::OnTheWay(text) => Progress::OnTheWay(text),
        rollout::Progress::Done(text) => Progress::There(text),
        rollout::Progress::Failed(why) => Progress::Lost(format!("is {why}")),
    }
}

/// Why it isn't waited on.
enum Over {
    /// This one won't get there, and why.
    Lost(String, String),
    /// The leader couldn't be asked.
    Failed(CliError),
}

/// Those of a type that are waited for, and their names.
fn of_type(items: &[AppliedItem], kind: ResourceKind) -> Vec<(Uid, String)> {
    let those = items.iter().filter(|item| item.reference().kind == kind);
    those.map(|item| (item.metadata().uid, item.reference().to_string())).collect()
}

async fn until_ready(client: &Client, items: &[AppliedItem], limit: SignedDuration) -> Result<()> {
    // What is there at once isn't waited for.
    let [pods, jobs, deployments] = [ResourceKind::Pod, ResourceKind::Job, ResourceKind::Deployment].map(|kind| of_type(items, kind));
    let shown = RefCell::new(Shown::new());
    let look = |wanted: &[(Uid, String)], judge: &dyn Fn(&Uid) -> Progress| {
        let progress: Vec<Progress> = wanted.iter().map(|(uid, _)| judge(uid)).collect();
        shown.borrow_mut().update(wanted, &progress);
        let lost = wanted.iter().zip(&progress).find_map(|((_, name), progress)| match progress {
            Progress::Lost(why) => Some((name.clone(), why.clone())),
            Progress::OnTheWay(_) | Progress::There(_) => None,
        });
        match lost {
            Some(lost) => Some(Ok(Some(lost))),
            None => progress.iter().all(|progress| matches!(progress, Progress::There(_))).then_some(Ok(None)),
        }
    };
    let all = async {
        tokio::try_join!(
            ended(&pods, wait::until(client, |live: &Live| look(&pods, &|uid| judge(live.get(uid))))),
            ended(&jobs, wait::until_objects::<Job, _>(client, |live| look(&jobs, &|uid| judge_job(live.get(uid))))),
            ended(
                &deployments,
                wait::until_objects::<Deployment, _>(client, |live| look(&deployments, &|uid| judge_deployment(live.get(uid))))
            ),
        )
    };
    let limit = Duration::try_from(limit).expect("a negative limit is refused by the command line");
    match tokio::time::timeout(limit, all).await {
        Ok(Ok(((), (), ()))) => Ok(()),
        Ok(Err(Over::Lost(name, why))) => Err(explained(client, &name, format!("{name} {why}")).await),
        Ok(Err(Over::Failed(error))) => Err(error),
        Err(_) => {
            let shown = shown.borrow();
            let late = shown.last.iter().filter(|(_, (done, _))| !done).map(|(name, (_, word))| format!("{name}: {word}"));
            let error = CliError::timed_out(format!("not everything is ready after {limit:?}")).details(late);
            Err(error.hint("all stays applied; cube get TYPE/NAME says what keeps one waiting"))
        }
    }
}

/// The end of waiting for those of one type; where there are none, the leader isn't asked.
async fn ended(wanted: &[(Uid, String)], waiting: impl Future<Output = Result<Option<(String, String)>>>) -> std::result::Result<(), Over> {
    if wanted.is_empty() {
        return Ok(());
    }
    match waiting.await {
        Ok(None) => Ok(()),
        Ok(Some((name, why))) => Err(Over::Lost(name, why)),
        Err(error) => Err(Over::Failed(error)),
    }
}

/// An error with what to do: of a pod also the last warning of its life below it; the reasons of the others say it all.
pub(super) async fn explained(client: &Client, name: &str, message: String) -> CliError {
    if name.starts_with("deployment/") {
        return CliError::failed(message).hint(format!("cube get {name} shows its events; cube rollout retry {name} tries it again"));
    }
    if name.starts_with("job/") {
        return CliError::failed(message).hint(format!("cube get {name} shows its pods and events"));
    }
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

/// Progress on standard error: on a terminal one line per resource, rewritten; elsewhere a line for each change.
struct Shown {
    on_terminal: bool,
    lines: usize,
    /// By the resource's name: whether it is there, and the word for what it does.
    last: BTreeMap<String, (bool, String)>,
}

impl Shown {
    fn new() -> Self {
        Self { on_terminal: std::io::stderr().is_terminal(), lines: 0, last: BTreeMap::new() }
    }

    fn update(&mut self, wanted: &[(Uid, String)], progress: &[Progress]) {
        let mut changed = String::new();
        for ((_, name), progress) in wanted.iter().zip(progress) {
            let now = match progress {
                Progress::There(word) => (true, word.clone()),
                Progress::OnTheWay(word) => (false, word.clone()),
                // The error that follows says it in full.
                Progress::Lost(_) => continue,
            };
            if self.last.get(name) != Some(&now) {
                changed.push_str(&format!("{name}: {}\n", now.1));
                self.last.insert(name.clone(), now);
            }
        }
        if changed.is_empty() {
            return;
        }
        if !self.on_terminal {
            return eprint!("{changed}");
        }
        let text: String = self.last.iter().map(|(name, (_, word))| format!("\u{1b}[2K{name}: {word}\n")).collect();
        let up = if self.lines > 0 { format!("\u{1b}[{}A", self.lines) } else { String::new() };
        // Long reasons are cut at the terminal's edge: a wrapped line would be two to go up over.
        eprint!("{up}\u{1b}[?7l{text}\u{1b}[?7h");
        self.lines = self.last.len();
    }
}
