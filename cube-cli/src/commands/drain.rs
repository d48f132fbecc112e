//! `cube drain`: asks for it, then shows what the leader does, step by step. The drain is the leader's: nothing here has to go on for it to.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args as ClapArgs;
use cube_api::client::{Client, ClientError, Watch};
use cube_api::duration;
use cube_api::error::ErrorCode;
use cube_api::meta::{Name, Revision, Uid};
use cube_api::node::{Drain, DrainStep, LeftPod, Node};
use cube_api::pod::{Phase, Pod};
use cube_api::routes::{DrainQuery, ListQuery, WatchEvent};
use cube_api::status;
use jiff::SignedDuration;
use tokio::time::Instant;

use crate::error::{CliError, Result};
use crate::output::node::left;
use crate::output::print;
use crate::target::parse_node;
use crate::wait::is_expired;

/// How long is waited for the place of a pod that has stopped, before it is told without: the leader finds one within milliseconds.
const PLACED_WITHIN: Duration = Duration::from_secs(2);
/// Between two looks for it.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The words of `cube drain`.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  cube drain n1                           empty n1, and wait for it
  cube drain n1 --reason 'new kernel'     and everybody sees why
  cube drain n1 --grace-period 5          nobody has longer than 5 s to stop
  cube drain n1 --force                   also what no other node takes, and what is not run again
  cube uncordon n1                        call it off, or let n1 take pods again afterwards

Each pod is stopped, and a new one of its name begins on another node when it has stopped, so it
never runs twice (also with onNodeLoss: wait). A pod that no other node takes runs on, and so does
one with restartPolicy Never, until it ends; each says why. What has finished stays where it is.

Ctrl-C and a timeout end the waiting only: the leader goes on. Exit code 0: nothing unfinished is
left on the node; 124: something is, after --timeout.")]
pub struct Args {
    /// The node
    #[arg(value_name = "NODE", value_parser = parse_node)]
    node: Name,
    /// The most seconds between the stop signal and the kill; a pod that has fewer keeps its own
    #[arg(long, alias = "grace-seconds", value_name = "SECONDS")]
    grace_period: Option<u32>,
    /// Stop pods too that no other node takes, and those that are not run again (restartPolicy Never)
    #[arg(long)]
    force: bool,
    /// What for; cube get node/NODE shows it
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// How long to wait, such as 90s or 5m
    #[arg(long, default_value = "5m", value_parser = duration::parse, value_name = "TIME")]
    timeout: SignedDuration,
    /// Ask for it, and don't wait
    #[arg(long)]
    no_wait: bool,
}

/// Drains a node.
pub async fn run(args: Args, client: &Client) -> Result<ExitCode> {
    let Args { node: name, grace_period: grace_seconds, force, reason, timeout, no_wait } = args;
    let node = client.drain(&name, &DrainQuery { reason, grace_seconds, force }).await?;
    if no_wait {
        print(&format!("node/{name} is being drained\n"))?;
        return Ok(ExitCode::SUCCESS);
    }
    print(&format!("node/{name} cordoned\n"))?;
    let limit = Duration::try_from(timeout).expect("a negative limit is refused by the command line");
    let mut progress = Progress::default();
    // Only waits: what was asked for is the leader's.
    tokio::select! {
        biased;
        _ = tokio::signal::ctrl_c() => {
            eprintln!("the drain goes on at the leader: cube get node/{name} shows how far it is, cube uncordon {name} calls it off");
            Ok(ExitCode::from(130))
        }
        followed = tokio::time::timeout(limit, progress.follow(node, client)) => match followed {
            Ok(ended) => ended.map(|()| ExitCode::SUCCESS),
            Err(_) => Err(progress.late(&name, limit)),
        },
    }
}

/// What was told so far.
#[derive(Default)]
struct Progress {
    left: BTreeMap<Uid, LeftPod>,
    /// Pods that are off the node, and of which the rest is to be told: each since when.
    off: Vec<(LeftPod, Instant)>,
}

impl Progress {
    /// Tells each step as it happens, from the node as it was when the drain was asked for to the end.
    async fn follow(&mut self, mut node: Node, client: &Client) -> Result<()> {
        let (name, mut from) = (node.name.clone(), node.revision);
        'listed: loop {
            let mut watch = match client.watch_nodes(None, from).await {
                Err(error) if is_expired(&error) => {
                    (node, from) = listed(&name, client).await?;
                    continue 'listed;
                }
                opened => opened?,
            };
            loop {
                let is_over = self.look(&node)?;
                self.tell_places(client).await?;
                if is_over && self.off.is_empty() {
                    return print(&format!("node/{name} drained; it takes no pods until: cube uncordon {name}\n"));
                }
                match self.next(&mut watch).await {
                    None => {}
                    Some(Err(error)) if is_expired(&error) => {
                        (node, from) = listed(&name, client).await?;
                        continue 'listed;
                    }
                    Some(Err(error)) => return Err(error.into()),
                    Some(Ok(WatchEvent::Added(changed) | WatchEvent::Modified(changed))) if changed.name == name => node = changed,
                    Some(Ok(WatchEvent::Deleted(gone))) if gone.name == name => return Err(deleted(&name)),
                    Some(Ok(WatchEvent::Added(_) | WatchEvent::Modified(_) | WatchEvent::Deleted(_) | WatchEvent::Bookmark(_))) => {}
                }
            }
        }
    }

    /// The next change; none when it is time to look for the places of pods again. A watch may be dropped while it waits.
    async fn next(&self, watch: &mut Watch<Node>) -> Option<std::result::Result<WatchEvent<Node>, ClientError>> {
        if self.off.is_empty() {
            return Some(watch.next().await);
        }
        tokio::time::timeout(LOOK_EVERY, watch.next()).await.ok()
    }

    /// Tells what is new of the pods that are left; whether the drain is over.
    fn look(&mut self, node: &Node) -> Result<bool> {
        let Some(Drain { left: now, finished_at, .. }) = node.cordon.as_ref().and_then(|cordon| cordon.drain.as_ref()) else {
            let name = &node.name;
            return Err(CliError::failed(format!("the drain of node/{name} was called off: it was uncordoned"))
                .details(self.left.values().map(left)));
        };
        let before = std::mem::take(&mut self.left);
        let mut lines = String::new();
        for pod in now {
            let is_news = match pod.step {
                DrainStep::Queued => false,
                DrainStep::Stays { .. } | DrainStep::Stopping { .. } => before.get(&pod.uid) != Some(pod),
            };
            if is_news {
                lines.push_str(&format!("{}\n", left(pod)));
            }
            self.left.insert(pod.uid, pod.clone());
        }
        let off = before.into_values().filter(|pod| !self.left.contains_key(&pod.uid));
        self.off.extend(off.map(|pod| (pod, Instant::now())));
        print(&lines)?;
        Ok(finished_at.is_some())
    }

    /// Tells where the pods are that took the places of those that are off, as far as that is known.
    async fn tell_places(&mut self, client: &Client) -> Result<()> {
        for (pod, since) in std::mem::take(&mut self.off) {
            let now = match client.pod(&pod.name).await {
                Ok(now) => Some(now),
                Err(error) if error.code() == Some(ErrorCode::NotFound) => None,
                // The leader is being restarted, perhaps; the watch gives up when that takes too long.
                Err(error) if error.is_retryable() => {
                    self.off.push((pod, since));
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            match became(pod.uid, now.as_ref(), since.elapsed() >= PLACED_WITHIN) {
                Some(what) => print(&format!("pod/{}: {what}\n", pod.name))?,
                None => self.off.push((pod, since)),
            }
        }
        Ok(())
    }

    fn late(&self, name: &Name, limit: Duration) -> CliError {
        let hint = format!(
            "the leader goes on with it; cube drain {name} waits on, with --force also what stays is stopped; cube uncordon {name} calls it off"
        );
        CliError::timed_out(format!("node/{name} isn't drained after {limit:?}")).details(self.left.values().map(left)).hint(hint)
    }
}

/// The node, and the revision to watch from.
async fn listed(name: &Name, client: &Client) -> Result<(Node, Revision)> {
    let list = client.nodes(&ListQuery::default()).await?;
    let node = list.items.into_iter().find(|node| node.name == *name).ok_or_else(|| deleted(name))?;
    Ok((node, list.revision))
}

fn deleted(name: &Name) -> CliError {
    CliError::failed(format!("node/{name} was deleted"))
}

/// What became of a pod that is off its node, by the pod of its name now; none when that isn't decided, unless it is `late`.
fn became(old: Uid, now: Option<&Pod>, late: bool) -> Option<String> {
    let Some(pod) = now else { return Some("stopped; deleted".to_owned()) };
    if pod.metadata.uid == old {
        return Some(format!("finished: {}", status::of_pod(pod)));
    }
    match (&pod.placement.node, pod.status.phase) {
        (Some(node), _) => Some(format!("stopped; placed on {node}")),
        (None, Phase::Failed | Phase::Succeeded) => {
            let restart = format!("cube restart pod/{} runs it again", pod.metadata.name);
            Some(format!("stopped; {}: {restart}", status::of_pod(pod)))
        }
        (None, Phase::Pending | Phase::Running) => {
            let why = pod.placement.waiting_for.as_deref().unwrap_or("the leader hasn't looked for a node yet");
            late.then(|| format!("stopped; waits for a node: {why}"))
        }
    }
}
