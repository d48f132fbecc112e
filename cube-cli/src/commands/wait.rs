//! `cube wait`.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use clap::Args as ClapArgs;
use cube_api::client::Client;
use cube_api::deployment::{ConditionKind, Deployment};
use cube_api::duration;
use cube_api::job::Job;
use cube_api::meta::{Name, ResourceKind, Uid};
use cube_api::object::ObjectType;
use cube_api::pod::{Phase, Pod};
use cube_api::routes::ListQuery;
use cube_api::status;
use jiff::SignedDuration;

use super::apply::{self, explained, held_up_by};
use crate::error::{CliError, Result};
use crate::output::print;
use crate::target::{self, Target};
use crate::wait::{self, Live};

/// The words of `cube wait`.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  cube wait pod/my-pod --for=ready                 until its containers run and their probes say so
  cube wait pod -l app=web --for=ready             every pod with a label
  cube wait pod/my-job --for=phase=Succeeded       until it has ended well
  cube wait pod/my-pod --for=delete --timeout 5m   until it is gone
  cube wait job/sum --for=complete                 until all of its pods have succeeded
  cube wait deployment/web --for=available         until enough of its pods are

What can't come any more isn't waited for: a pod that has failed will not be ready.
kubectl's --for=condition=Ready is the same as --for=ready; so are condition=Complete and
condition=Available.")]
pub struct Args {
    /// TYPE/NAME..., TYPE NAME..., or TYPE with -l
    #[arg(value_name = "RESOURCE", required_unless_present = "selector")]
    targets: Vec<String>,
    /// Every pod with these labels
    #[arg(short = 'l', long, value_name = "LABELS")]
    selector: Option<String>,
    /// What to wait for: ready, delete or phase=PHASE of pods, complete of jobs, available of deployments
    #[arg(long = "for", value_name = "WHAT", value_parser = Goal::from_str)]
    goal: Goal,
    /// How long to wait, such as 90s or 5m
    #[arg(long, default_value = "30s", value_parser = duration::parse, value_name = "TIME")]
    timeout: SignedDuration,
}

/// What is waited for of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Ready,
    Deleted,
    Phase(Phase),
}

/// What is waited for, of which type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Goal {
    Pod(Wanted),
    /// Of jobs.
    Complete,
    /// Of deployments.
    Available,
}

impl Goal {
    /// Whose it can be.
    fn kind(self) -> ResourceKind {
        match self {
            Self::Pod(_) => ResourceKind::Pod,
            Self::Complete => ResourceKind::Job,
            Self::Available => ResourceKind::Deployment,
        }
    }
}

impl FromStr for Goal {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let phases = [Phase::Pending, Phase::Running, Phase::Succeeded, Phase::Failed];
        let condition = text.split_once('=').filter(|(what, _)| *what == "condition").map_or(text, |(_, condition)| condition);
        match text.split_once('=') {
            _ if condition.eq_ignore_ascii_case("complete") => Ok(Self::Complete),
            _ if condition.eq_ignore_ascii_case("available") => Ok(Self::Available),
            None if text.eq_ignore_ascii_case("ready") => Ok(Self::Pod(Wanted::Ready)),
            None if text.eq_ignore_ascii_case("delete") => Ok(Self::Pod(Wanted::Deleted)),
            Some(("condition", condition)) if condition.eq_ignore_ascii_case("ready") => Ok(Self::Pod(Wanted::Ready)),
            Some(("phase", word)) if let Some(phase) = phases.into_iter().find(|phase| format!("{phase:?}").eq_ignore_ascii_case(word)) => {
                Ok(Self::Pod(Wanted::Phase(phase)))
            }
            _ => Err(format!(
                "'{text}' can't be waited for; there are ready, delete and phase=Pending|Running|Succeeded|Failed of pods, complete of jobs, available of deployments"
            )),
        }
    }
}

/// What a pod that is waited for has come to.
#[derive(Debug, PartialEq, Eq)]
enum Progress {
    /// What is waited for is so; the sentence's end.
    There(&'static str),
    /// Not yet; the word of the STATUS column, and why.
    OnTheWay(String),
    /// It won't be; why.
    Lost(String),
}

/// Those that are waited for yet.
struct Waiting {
    kind: ResourceKind,
    left: Vec<Name>,
    /// What each of them does, as it was last seen.
    late: Vec<String>,
}

/// The end of waiting: none is left, or this one won't get there.
type End = Result<Option<(Name, String)>>;

impl Waiting {
    /// Tells those that are there, and answers when it is over.
    fn look(&mut self, judge: impl Fn(&Name) -> Progress) -> Option<End> {
        let kind = self.kind;
        self.late.clear();
        for name in std::mem::take(&mut self.left) {
            match judge(&name) {
                Progress::There(word) => {
                    if let Err(error) = print(&format!("{kind}/{name} {word}\n")) {
                        return Some(Err(error));
                    }
                }
                Progress::OnTheWay(why) => {
                    self.late.push(format!("{kind}/{name}: {why}"));
                    self.left.push(name);
                }
                Progress::Lost(why) => return Some(Ok(Some((name, why)))),
            }
        }
        self.left.is_empty().then_some(Ok(None))
    }

    async fn end(&mut self, goal: Goal, client: &Client) -> End {
        match goal {
            Goal::Pod(wanted) => wait::until(client, |live: &Live| self.look(|name| judge(wanted, newest(live, name)))).await,
            Goal::Complete => wait::until_objects::<Job, _>(client, |live| self.look(|name| judge_job(of_name(live, name)))).await,
            Goal::Available => {
                wait::until_objects::<Deployment, _>(client, |live| self.look(|name| judge_deployment(of_name(live, name)))).await
            }
        }
    }
}

/// Waits for pods, jobs or deployments.
pub async fn run(args: Args, client: &Client) -> Result<()> {
    let kind = args.goal.kind();
    let mut waiting = Waiting { kind, left: named(&args, client).await?, late: Vec::new() };
    let limit = Duration::try_from(args.timeout).expect("a negative limit is refused by the command line");
    match tokio::time::timeout(limit, waiting.end(args.goal, client)).await {
        Ok(Ok(None)) => Ok(()),
        Ok(Ok(Some((name, why)))) => Err(explained(client, &format!("{kind}/{name}"), format!("{kind}/{name} {why}")).await),
        Ok(Err(error)) => Err(error),
        Err(_) => {
            let error = CliError::timed_out(format!("it is not so after {limit:?}")).details(waiting.late);
            Err(error.hint(format!("cube get {kind}/NAME says what keeps one waiting")))
        }
    }
}

async fn named(args: &Args, client: &Client) -> Result<Vec<Name>> {
    let wanted = args.goal.kind();
    let target = if args.targets.is_empty() { Target::All(ResourceKind::Pod) } else { target::parse(&args.targets)? };
    match (target, &args.selector) {
        (Target::These(references), None) => references
            .into_iter()
            .map(|reference| match reference.kind == wanted {
                true => Ok(reference.name),
                false => Err(CliError::usage(format!("{reference} is no {wanted}, and only {} are waited for so", wanted.plural()))),
            })
            .collect(),
        (Target::These(_), Some(_)) => Err(CliError::usage("names and -l exclude each other")),
        (Target::All(kind), _) if kind != wanted || kind != ResourceKind::Pod => {
            Err(CliError::usage("only pods are selected").hint(format!("name what is waited for: {wanted}/NAME")))
        }
        (Target::All(_), None) => Err(CliError::usage("which pod to wait for is not said").hint("name it (pod/NAME), or select with -l")),
        (Target::All(_), Some(selector)) => {
            let pods = client.pods(&ListQuery { selector: Some(selector.clone()), ..ListQuery::default() }).await?;
            let names: Vec<Name> = pods.items.into_iter().map(|pod| pod.metadata.name).collect();
            match names.is_empty() && args.goal != Goal::Pod(Wanted::Deleted) {
                true => Err(CliError::failed(format!("no pods match {selector}"))),
                false => Ok(names),
            }
        }
    }
}

/// The pod of this name: while one takes the place of another, both are there.
fn newest<'a>(live: &'a Live, name: &Name) -> Option<&'a Pod> {
    live.values().filter(|pod| pod.metadata.name == *name).max_by_key(|pod| pod.metadata.created_at)
}

fn judge(wanted: Wanted, pod: Option<&Pod>) -> Progress {
    let Some(pod) = pod else {
        return match wanted {
            Wanted::Deleted => Progress::There("is gone"),
            Wanted::Ready | Wanted::Phase(_) => Progress::Lost("is not there".to_owned()),
        };
    };
    let phase = pod.status.phase;
    let is_there = match wanted {
        Wanted::Deleted => false,
        Wanted::Ready => pod.is_ready(),
        Wanted::Phase(wanted) => phase == wanted,
    };
    let is_past = match (wanted, phase) {
        (Wanted::Deleted, _) | (_, Phase::Pending) => false,
        (Wanted::Ready | Wanted::Phase(_), Phase::Succeeded | Phase::Failed) => true,
        (Wanted::Phase(wanted), Phase::Running) => wanted == Phase::Pending,
        (Wanted::Ready, Phase::Running) => false,
    };
    let word = status::of_pod(pod);
    match (is_there, is_past) {
        (true, _) => Progress::There(match wanted {
            Wanted::Ready => "is ready",
            Wanted::Deleted | Wanted::Phase(Phase::Pending) => "is pending",
            Wanted::Phase(Phase::Running) => "runs",
            Wanted::Phase(Phase::Succeeded) => "has succeeded",
            Wanted::Phase(Phase::Failed) => "has failed",
        }),
        (false, true) => Progress::Lost(match &pod.status.message {
            Some(message) => format!("is {phase:?}: {word}: {message}"),
            None => format!("is {phase:?}: {word}"),
        }),
        (false, false) => {
            let unready = status::unready(pod).map(|container| format!("not ready: {}", status::unready_because(container)));
            Progress::OnTheWay(match held_up_by(pod).map(str::to_owned).or(unready) {
                Some(why) => format!("{word}: {why}"),
                None => word,
            })
        }
    }
}

fn of_name<'a, T: ObjectType>(live: &'a BTreeMap<Uid, T>, name: &Name) -> Option<&'a T> {
    live.values().find(|object| object.metadata().name == *name)
}

fn judge_job(job: Option<&Job>) -> Progress {
    if job.is_none() {
        return Progress::Lost("is not there".to_owned());
    }
    match apply::judge_job(job) {
        apply::Progress::There(_) => Progress::There("is complete"),
        apply::Progress::OnTheWay(why) => Progress::OnTheWay(why),
        apply::Progress::Lost(why) => Progress::Lost(why),
    }
}

fn judge_deployment(deployment: Option<&Deployment>) -> Progress {
    let Some(deployment) = deployment else { return Progress::Lost("is not there".to_owned()) };
    let status = &deployment.status;
    let available = status.conditions.iter().find(|condition| condition.kind == ConditionKind::Available);
    if deployment.metadata.deletion_requested_at.is_some() {
        return Progress::Lost("is being deleted".to_owned());
    }
    match available.filter(|_| status.observed_generation >= deployment.metadata.generation) {
        Some(condition) if condition.status => Progress::There("is available"),
        // Also what is stuck becomes available when its pods do.
        Some(condition) => Progress::OnTheWay(format!("{}: {}", condition.reason, condition.message)),
        None => Progress::OnTheWay("not looked at yet".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(phase: &str, ready: bool) -> Pod {
        let text = format!(
            r#"{{"metadata": {{"name": "web", "uid": "018f3b2a-7b1c-7000-8000-000000000001", "generation": 1, "revision": 1,
                "createdAt": "2026-01-01T00:00:00Z"}},
                "spec": {{"containers": [{{"name": "app", "image": "nginx"}}]}}, "placement": {{"node": "n1"}},
                "status": {{"phase": "{phase}", "containers": [{{"name": "app", "image": "nginx", "restartCount": 0, "started": true,
                  "ready": {ready}, "state": {{"running": {{"startedAt": "2026-01-01T00:00:00Z"}}}}}}]}}}}"#
        );
        serde_json::from_str(&text).expect("a pod")
    }

    #[test]
    fn what_can_be_waited_for_is_read_as_kubectl_says_it() {
        for (text, goal) in [
            ("ready", Goal::Pod(Wanted::Ready)),
            ("condition=Ready", Goal::Pod(Wanted::Ready)),
            ("delete", Goal::Pod(Wanted::Deleted)),
            ("phase=succeeded", Goal::Pod(Wanted::Phase(Phase::Succeeded))),
            ("complete", Goal::Complete),
            ("condition=Complete", Goal::Complete),
            ("condition=available", Goal::Available),
        ] {
            assert_eq!(text.parse(), Ok(goal));
        }
        for wrong in ["", "condition=PodScheduled", "phase=", "phase", "deleted", "phase=complete"] {
            assert!(wrong.parse::<Goal>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_cannot_come_any_more_is_not_waited_for() {
        let judge = |wanted, phase, ready| judge(wanted, Some(&pod(phase, ready)));
        assert_eq!(judge(Wanted::Ready, "Running", true), Progress::There("is ready"));
        let waits = "Running: not ready: its node does not say yet that it is";
        assert_eq!(judge(Wanted::Ready, "Running", false), Progress::OnTheWay(waits.to_owned()));
        assert!(matches!(judge(Wanted::Ready, "Failed", false), Progress::Lost(_)));
        assert!(matches!(judge(Wanted::Phase(Phase::Succeeded), "Failed", false), Progress::Lost(_)));
        assert!(matches!(judge(Wanted::Phase(Phase::Succeeded), "Running", true), Progress::OnTheWay(_)));
        assert!(matches!(judge(Wanted::Deleted, "Failed", true), Progress::OnTheWay(_)));
        assert_eq!(super::judge(Wanted::Deleted, None), Progress::There("is gone"));
        assert!(matches!(super::judge(Wanted::Ready, None), Progress::Lost(_)));
    }
}
