//! `cube-server reset`: takes a node's containers, its volumes and its database off a machine. For a node that isn't to be one any more, or is to be another.
//!
//! Chooses whose, says what goes, asks, and removes: containers first, then files, so that a run that was stopped goes on in the next. Knows no
//! leader: that it forgets the node is said at the end, for a person to do.

use std::collections::BTreeMap;
use std::io::{self, BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use cube_api::meta::{ClusterId, Name, Uid};
use cube_api::session::Want;

use crate::data_dir::{self, DataDir, DataDirError, TOKEN};
use crate::follower::ledger::{self, KeptPod, LEDGER};
use crate::follower::reset::{self, Found, Graces, OfNode, Progress};
use crate::follower::runtime::docker::{self, Docker};
use crate::follower::runtime::{Runtime, Scope};
use crate::options::ResetOptions;
use crate::tasks::Tasks;

/// The leader's database in its data folder.
const LEADERS: &str = "leader.db";

/// Why nothing is removed.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// A server runs on the folder.
    #[error("a cube-server{} runs with the data folder {folder}: stop it first", .pid.map(|pid| format!(" (process {pid})")).unwrap_or_default())]
    Running {
        /// The folder.
        folder: PathBuf,
        /// Who runs there, as far as it wrote that down.
        pid: Option<u32>,
    },
    /// The folder doesn't say whose it is.
    #[error("{why}; choose one of those that have containers on this engine:\n{}", list(.there))]
    Choose {
        /// Why it can't be told.
        why: String,
        /// What there is.
        there: Vec<(Scope, usize)>,
    },
    /// The folder is another node's.
    #[error("the data folder is that of node '{folders}' and not of '{asked}': leave --name out, or give --cluster-id with it")]
    AnotherName {
        /// The folder's.
        folders: Name,
        /// As asked for.
        asked: Name,
    },
    /// Nobody can be asked.
    #[error("nobody can be asked whether all that may go: say so with --yes")]
    Unasked,
    /// Somebody was asked.
    #[error("nothing was removed")]
    Declined,
}

fn list(there: &[(Scope, usize)]) -> String {
    let line = |(scope, count): &(Scope, usize)| format!("  --cluster-id {} --name {}   ({count} containers)", scope.cluster, scope.node);
    there.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Runs the command.
pub async fn run(options: ResetOptions, tasks: &Tasks) -> anyhow::Result<()> {
    let folder = options.data_dir.clone().unwrap_or_else(data_dir::default_path);
    let _lock = lock(&folder)?;
    let kept = ledger::look(&folder.join(LEDGER)).await?;
    let runtime: Arc<dyn Runtime> = Arc::new(Docker::connect(&options.docker.clone().unwrap_or_else(docker::default_socket), tasks)?);
    let there = runtime.scopes().await.context("nothing was removed")?;
    let leader = folder.join(LEADERS).exists();
    let own = match &kept {
        Some(kept) => {
            kept.membership.cluster.map_or(Folder::NoNode, |id| Folder::Node(id, kept.home.as_ref().map(|home| home.node.clone())))
        }
        None if leader && options.everything => Folder::NoNode,
        None => Folder::Silent,
    };
    let chosen = choose(own, &Asked { cluster: options.cluster_id, node: options.name.clone() }, &there)?;
    let plan = Plan {
        files: if chosen.is_foreign { Vec::new() } else { files(&folder, options.everything) },
        leader_stays: leader && !chosen.is_foreign && !options.everything,
        scope: chosen.scope,
        graces: graces(&options, kept.map(|kept| kept.pods).unwrap_or_default()),
        folder,
    };
    let there = match &plan.scope {
        Some(scope) => reset::find(runtime.as_ref(), scope, &plan.graces).await.context("nothing was removed")?,
        None => OfNode::default(),
    };
    if there.is_empty() && plan.files.is_empty() {
        println!("there is nothing to remove{}", if plan.leader_stays { "; --everything removes the leader's database too" } else { "" });
        return Ok(());
    }
    print!("{}", plan.told(&there));
    if !options.yes {
        ask()?;
    }
    if let Some(scope) = &plan.scope {
        reset::remove_all(&runtime, scope, &plan.graces, |progress| println!("{}", told(&progress))).await?;
    }
    data_dir::remove_files(&plan.folder, &plan.files)?;
    println!("done{}", plan.farewell());
    Ok(())
}

/// Holds the folder, so that no server starts on it meanwhile. A folder that isn't there isn't made.
fn lock(folder: &Path) -> anyhow::Result<Option<DataDir>> {
    if !folder.exists() {
        return Ok(None);
    }
    match DataDir::open(folder) {
        Ok(lock) => Ok(Some(lock)),
        Err(DataDirError::Locked { path, pid }) => Err(Refusal::Running { folder: path, pid }.into()),
        Err(other) => Err(other.into()),
    }
}

/// What the command line says of whose containers.
#[derive(Debug, Default)]
struct Asked {
    cluster: Option<ClusterId>,
    node: Option<Name>,
}

/// Whose containers, if any, and whether that is another node than the folder's: its files then stay.
#[derive(Debug, PartialEq)]
struct Chosen {
    scope: Option<Scope>,
    is_foreign: bool,
}

/// What the data folder says of itself.
#[derive(Debug, Clone, PartialEq)]
enum Folder {
    /// Nothing: it was removed, or another one is meant.
    Silent,
    /// Its node never joined a cluster, or it has none: no containers are its own.
    NoNode,
    /// Its cluster, and its node's name unless that was not noted.
    Node(ClusterId, Option<Name>),
}

fn choose(folder: Folder, asked: &Asked, there: &BTreeMap<Scope, usize>) -> Result<Chosen, Refusal> {
    let choose_from = |why: &str| {
        let there = there.iter().map(|(scope, count)| (scope.clone(), *count)).collect();
        Err(Refusal::Choose { why: why.to_owned(), there })
    };
    let own = |scope| Ok(Chosen { scope, is_foreign: false });
    match (folder, asked.cluster, asked.node.clone()) {
        (Folder::Node(cluster, name), asked, node) if asked.is_none_or(|asked| asked == cluster) => match (name, node) {
            (Some(name), Some(node)) if name != node && asked.is_none() => Err(Refusal::AnotherName { folders: name, asked: node }),
            (Some(name), Some(node)) => Ok(Chosen { is_foreign: name != node, scope: Some(Scope { cluster, node }) }),
            (Some(node), None) | (None, Some(node)) => own(Some(Scope { cluster, node })),
            (None, None) => choose_from("the data folder doesn't tell its node's name"),
        },
        (Folder::NoNode, None, None) => own(None),
        (Folder::Silent, None, None) if there.is_empty() => own(None),
        (Folder::Silent, None, None) => choose_from("the data folder doesn't tell whose containers are its own"),
        (Folder::Silent | Folder::NoNode | Folder::Node(..), cluster, node) => {
            let fits = |scope: &&Scope| {
                cluster.is_none_or(|cluster| cluster == scope.cluster) && node.as_ref().is_none_or(|node| *node == scope.node)
            };
            let mut fitting = there.keys().filter(fits);
            match (fitting.next(), fitting.next()) {
                (Some(_), Some(_)) => choose_from("that is more than one node"),
                (scope, _) => Ok(Chosen { scope: scope.cloned(), is_foreign: true }),
            }
        }
    }
}

fn graces(options: &ResetOptions, pods: BTreeMap<Uid, KeptPod>) -> Graces {
    let seconds = |seconds: u32| Duration::from_secs(seconds.into());
    let assigned = pods.into_iter().map(|(uid, pod)| {
        let grace = match pod.assigned.want {
            Want::Run { .. } => pod.assigned.spec.termination_grace_period_seconds,
            Want::Stop { grace_seconds, .. } => grace_seconds,
        };
        (uid, seconds(grace))
    });
    Graces { given: options.grace.map(seconds), assigned: assigned.collect() }
}

/// What goes.
struct Plan {
    folder: PathBuf,
    scope: Option<Scope>,
    graces: Graces,
    /// Of the data folder's files.
    files: Vec<&'static str>,
    /// Whether a leader's database is there that stays.
    leader_stays: bool,
}

impl Plan {
    fn told(&self, OfNode { pods, spares, volumes }: &OfNode) -> String {
        let mut text = "this goes:\n".to_owned();
        if let Some(Scope { cluster, node }) = &self.scope {
            let containers: usize = pods.values().map(|pod| pod.containers).sum();
            let names = pods.values().map(|pod| pod.pod.as_str()).collect::<Vec<_>>().join(", ");
            let names = if names.is_empty() { names } else { format!(" ({names})") };
            text.push_str(&format!("  of node {node} of cluster {cluster}: {containers} containers of {} pods{names}", pods.len()));
            match spares.len() {
                0 => {}
                1 => text.push_str(" and a sandbox that was kept ready"),
                count => text.push_str(&format!(" and {count} sandboxes that were kept ready")),
            }
            text.push('\n');
            if !volumes.kept.is_empty() {
                let names: Vec<_> = volumes.kept.iter().map(|kept| kept.name.as_str()).collect();
                text.push_str(&format!("  with ALL DATA of its named volumes: {}\n", names.join(", ")));
            }
        }
        for file in &self.files {
            text.push_str(&format!("  {}: {}\n", self.folder.join(file).display(), what(file)));
        }
        if self.leader_stays {
            text.push_str("the leader's database in this folder stays; --everything removes it and the token too\n");
        }
        text
    }

    fn farewell(&self) -> String {
        match &self.scope {
            Some(Scope { node, .. }) if !self.files.contains(&LEADERS) => {
                format!("; `cube delete node/{node} --force` makes its leader forget the node and the pods that are bound to it")
            }
            Some(_) | None => String::new(),
        }
    }
}

fn what(file: &str) -> &'static str {
    match file {
        LEDGER => "what the node was told and did",
        LEADERS => "the leader's database: every pod, node and event of its cluster",
        _ => "the cluster's token: nodes and clients that have it are no longer let in by a leader that makes a new one",
    }
}

/// Those that are there.
fn files(folder: &Path, everything: bool) -> Vec<&'static str> {
    let all = if everything { &[LEDGER, LEADERS, TOKEN][..] } else { &[LEDGER][..] };
    all.iter().copied().filter(|file| folder.join(file).exists()).collect()
}

fn told(progress: &Progress) -> String {
    match progress {
        Progress::Stopping(Found { pod, grace, .. }) => format!("{pod}: stopping, killed after {}s", grace.as_secs()),
        Progress::Removed(Found { pod, containers, .. }) => format!("{pod}: removed {containers} containers"),
    }
}

fn ask() -> anyhow::Result<()> {
    if !io::stdin().is_terminal() {
        return Err(Refusal::Unasked.into());
    }
    print!("go on? [y/N] ");
    io::stdout().flush().context("can't ask")?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).context("can't read the answer")?;
    match answer.trim().to_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Refusal::Declined.into()),
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn cluster(number: u128) -> ClusterId {
        ClusterId(Uuid::from_u128(number))
    }

    fn scope(of: u128, node: &str) -> Scope {
        Scope { cluster: cluster(of), node: Name::new(node).expect("a label") }
    }

    /// What is chosen on an engine with containers of n1 and n2 of cluster 1 and of n1 of cluster 2: the node, `foreign` or not, or the refusal.
    fn chosen(folder: Folder, asked_cluster: Option<u128>, asked_node: Option<&str>) -> String {
        let there = BTreeMap::from([(scope(1, "n1"), 3), (scope(1, "n2"), 2), (scope(2, "n1"), 1)]);
        let asked = Asked { cluster: asked_cluster.map(cluster), node: asked_node.map(|name| Name::new(name).expect("a label")) };
        match choose(folder, &asked, &there) {
            Ok(Chosen { scope: None, is_foreign }) => format!("none, foreign: {is_foreign}"),
            Ok(Chosen { scope: Some(Scope { cluster, node }), is_foreign }) => {
                format!("{}/{node}, foreign: {is_foreign}", cluster.0.as_u128())
            }
            Err(refusal) => refusal.to_string().lines().next().unwrap_or_default().to_owned(),
        }
    }

    #[test]
    fn what_goes_is_the_folders_own_node_or_what_was_named_and_never_a_guess() {
        let n1 = || Folder::Node(cluster(1), Some(Name::new("n1").expect("a label")));
        let nameless = || Folder::Node(cluster(1), None);
        let choice = "choose one of those that have containers on this engine:";
        let cases = [
            (n1(), None, None, "1/n1, foreign: false".to_owned()),
            (n1(), Some(1), None, "1/n1, foreign: false".to_owned()),
            (n1(), Some(1), Some("n1"), "1/n1, foreign: false".to_owned()),
            (n1(), Some(1), Some("n2"), "1/n2, foreign: true".to_owned()),
            (n1(), Some(2), None, "2/n1, foreign: true".to_owned()),
            (n1(), Some(3), None, "none, foreign: true".to_owned()),
            (
                n1(),
                None,
                Some("n2"),
                "the data folder is that of node 'n1' and not of 'n2': leave --name out, or give --cluster-id with it".to_owned(),
            ),
            (nameless(), None, Some("n2"), "1/n2, foreign: false".to_owned()),
            (nameless(), None, None, format!("the data folder doesn't tell its node's name; {choice}")),
            (Folder::NoNode, None, None, "none, foreign: false".to_owned()),
            (Folder::NoNode, Some(2), None, "2/n1, foreign: true".to_owned()),
            (Folder::Silent, None, None, format!("the data folder doesn't tell whose containers are its own; {choice}")),
            (Folder::Silent, Some(1), None, format!("that is more than one node; {choice}")),
            (Folder::Silent, Some(1), Some("n2"), "1/n2, foreign: true".to_owned()),
            (Folder::Silent, None, Some("n1"), format!("that is more than one node; {choice}")),
            (Folder::Silent, None, Some("n2"), "1/n2, foreign: true".to_owned()),
        ];
        for (folder, asked_cluster, asked_node, expected) in cases {
            assert_eq!(chosen(folder.clone(), asked_cluster, asked_node), expected, "{folder:?} {asked_cluster:?} {asked_node:?}");
        }
        assert_eq!(choose(Folder::Silent, &Asked::default(), &BTreeMap::new()).ok(), Some(Chosen { scope: None, is_foreign: false }));
    }
}
