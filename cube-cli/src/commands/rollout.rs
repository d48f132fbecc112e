//! `cube rollout` and `cube scale`: what people say of deployments beside their manifests.

use std::time::Duration;

use clap::{Args as ClapArgs, Subcommand};
use cube_api::client::Client;
use cube_api::deployment::{Deployment, RolloutState};
use cube_api::duration;
use cube_api::meta::Name;
use cube_api::routes::{RolloutAction, RolloutQuery, ScaleQuery};
use jiff::{SignedDuration, Timestamp};

use crate::error::{CliError, Result};
use crate::output::object::deployment::history;
use crate::output::print;
use crate::output::style::Style;
use crate::target::parse_deployment;
use crate::wait;

/// The words of `cube rollout`.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  cube rollout status deployment/web                  follow it; 1 if it is rolled back or stuck
  cube rollout history deployment/web                 the revisions, the wanted one last
  cube rollout undo deployment/web --to-revision 3    back to one of them
  cube rollout retry deployment/web                   try again what was rolled back
  cube rollout restart deployment/web                 new pods of the same template")]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Follow a rollout to its end
    Status {
        /// Which
        #[arg(value_name = "DEPLOYMENT", value_parser = parse_deployment)]
        name: Name,
        /// How long to wait, such as 90s or 5m; as long as it takes when absent
        #[arg(long, value_parser = duration::parse, value_name = "TIME")]
        timeout: Option<SignedDuration>,
    },
    /// Show the revisions that are kept
    History(Named),
    /// Go back to another revision
    Undo {
        /// Which
        #[arg(value_name = "DEPLOYMENT", value_parser = parse_deployment)]
        name: Name,
        /// The revision; without it the newest one before that was rolled out to its end
        #[arg(long, value_name = "NUMBER")]
        to_revision: Option<u64>,
    },
    /// Roll nothing out until it is resumed
    Pause(Named),
    /// Go on with what is paused
    Resume(Named),
    /// Replace every pod by a new one of the same template
    Restart(Named),
    /// Try a revision again that was rolled back
    Retry(Named),
}

#[derive(Debug, ClapArgs)]
struct Named {
    /// Which
    #[arg(value_name = "DEPLOYMENT", value_parser = parse_deployment)]
    name: Name,
}

/// The words of `cube scale`.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  cube scale deployment/web --replicas 5

An apply of a manifest without `replicas` leaves the number as it is.")]
pub struct ScaleArgs {
    /// Which
    #[arg(value_name = "DEPLOYMENT", value_parser = parse_deployment)]
    name: Name,
    /// How many pods there should be
    #[arg(long, value_name = "NUMBER")]
    replicas: u32,
}

/// Changes the number of pods.
pub async fn scale(args: ScaleArgs, client: &Client) -> Result<()> {
    let ScaleArgs { name, replicas } = args;
    client.scale(&name, &ScaleQuery { replicas }).await?;
    print(&format!("deployment/{name} scaled to {replicas}\n"))
}

/// Says or shows what is to become of a rollout.
pub async fn run(args: Args, client: &Client) -> Result<()> {
    let (name, action, to_revision) = match args.verb {
        Verb::Status { name, timeout } => return status(client, &name, timeout).await,
        Verb::History(Named { name }) => {
            let deployment = client.object::<Deployment>(&name).await?;
            return print(&history(&deployment, Timestamp::now()).text(Style::of_stdout()));
        }
        Verb::Undo { name, to_revision } => (name, RolloutAction::Undo, to_revision),
        Verb::Pause(Named { name }) => (name, RolloutAction::Pause, None),
        Verb::Resume(Named { name }) => (name, RolloutAction::Resume, None),
        Verb::Restart(Named { name }) => (name, RolloutAction::Restart, None),
        Verb::Retry(Named { name }) => (name, RolloutAction::Retry, None),
    };
    act(client, &name, action, to_revision).await
}

/// Replaces every pod of a deployment.
pub async fn restart(client: &Client, name: &Name) -> Result<()> {
    act(client, name, RolloutAction::Restart, None).await
}

async fn act(client: &Client, name: &Name, action: RolloutAction, to_revision: Option<u64>) -> Result<()> {
    let deployment = client.rollout(name, action, &RolloutQuery { to_revision }).await?;
    let number = deployment.wanted().map_or(0, |wanted| wanted.number);
    let done = match action {
        RolloutAction::Undo => format!("goes back to revision {number}"),
        RolloutAction::Pause => "is paused".to_owned(),
        RolloutAction::Resume => "is resumed".to_owned(),
        RolloutAction::Restart => format!("is being restarted, as revision {number}"),
        RolloutAction::Retry => format!("tries revision {number} again"),
    };
    print(&format!("deployment/{name} {done}\n"))
}

/// What a rollout has come to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// How far it is.
    OnTheWay(String),
    /// It is through.
    Done(String),
    /// It won't be, and why.
    Failed(String),
}

pub(super) fn judge(deployment: &Deployment) -> Progress {
    let (status, desired) = (&deployment.status, deployment.spec.replicas());
    let rollout = status.rollout.as_ref().filter(|_| status.observed_generation >= deployment.metadata.generation);
    let Some(rollout) = rollout else { return Progress::OnTheWay("not looked at yet".to_owned()) };
    let revision = rollout.revision;
    if let Some((number, failure)) = deployment.wanted().and_then(|wanted| Some((wanted.number, wanted.verdict.failure()?))) {
        return Progress::Failed(format!("rolled back to revision {revision}: revision {number} {failure}"));
    }
    let old = status.replicas.saturating_sub(status.updated_replicas);
    let counts = format!(
        "revision {revision}: {} of {desired} made, {} available, {old} old left",
        status.updated_replicas, status.available_replicas
    );
    match &rollout.state {
        RolloutState::Stalled { reason, .. } => Progress::Failed(format!("stuck: revision {revision} {reason}")),
        RolloutState::Paused { .. } => {
            Progress::OnTheWay(format!("{counts}; paused until: cube rollout resume deployment/{}", deployment.metadata.name))
        }
        RolloutState::Progressing { .. } => Progress::OnTheWay(counts),
        RolloutState::Complete { .. } => {
            let is_through = (status.updated_replicas, status.replicas, status.available_replicas) == (desired, desired, desired);
            match is_through {
                true => Progress::Done(format!("revision {revision} is rolled out: {desired} available")),
                // It was; then it was scaled, or pods of it ended.
                false => Progress::OnTheWay(counts),
            }
        }
    }
}

async fn status(client: &Client, name: &Name, limit: Option<SignedDuration>) -> Result<()> {
    let mut told = String::new();
    let following = follow(client, name, &mut told);
    let Some(limit) = limit else { return following.await };
    let limit = Duration::try_from(limit).expect("a negative limit is refused by the command line");
    match tokio::time::timeout(limit, following).await {
        Ok(ended) => ended,
        Err(_) => Err(CliError::timed_out(format!("deployment/{name} is not rolled out after {limit:?}"))
            .details([told])
            .hint(format!("the rollout goes on; cube get deployment/{name} shows what holds it up"))),
    }
}

/// Tells each step until it is through. `told` is the newest.
async fn follow(client: &Client, name: &Name, told: &mut String) -> Result<()> {
    let mut look = |deployment: &Deployment| match judge(deployment) {
        Progress::OnTheWay(text) => {
            if *told != text {
                eprintln!("deployment/{name}: {text}");
                *told = text;
            }
            None
        }
        Progress::Done(text) => Some(print(&format!("deployment/{name}: {text}\n"))),
        Progress::Failed(text) => {
            let hint = format!("cube get deployment/{name} shows its events; cube rollout retry deployment/{name} tries it again");
            Some(Err(CliError::failed(format!("deployment/{name} {text}")).hint(hint)))
        }
    };
    let gone = || CliError::failed(format!("deployment/{name} was deleted"));
    let uid = client.object::<Deployment>(name).await?.metadata.uid;
    wait::until_objects::<Deployment, _>(client, |live| match live.get(&uid) {
        Some(deployment) => look(deployment),
        None => Some(Err(gone())),
    })
    .await
}
