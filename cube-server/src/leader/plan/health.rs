//! Which nodes are ready for pods, and which are lost.
//!
//! A node is **ready** with a session, if it says of itself that it can start pods. A node that is silent (has no session) is **not ready** after
//! a while, which changes nothing for its pods, and **lost** after a longer one: its pods are then replaced elsewhere, unless they wait for it.
//!
//! Nobody is lost
//! * in the grace after the leader's start: it could hear nobody before;
//! * while no node is connected: nobody is there to take the pods;
//! * while the **brake** holds: 55 % or more of at least 3 nodes fell silent at once, which is what a leader that is cut off sees. At once means
//!   within the time after which a node is lost, so that a partition counts as one however its connections time out. Nodes that are lost already
//!   don't count on either side. The brake is about the cluster, not about one node: while it holds, nobody is lost.
//!
//! So of 3 nodes of which 2 really die at once, the pods don't move by themselves. The nodes' conditions say why; the brake lets go when enough of
//! them are back, when other nodes join, or when a person declares one dead (`cube delete node/n2 --force`).
//!
//! Silence is what the caller watched go by, not a difference of times of day: a clock that jumps loses no node.

use std::time::Duration;

use cube_api::duration;
use cube_api::meta::Name;
use cube_api::node::NodeCondition;

/// What is known of a node.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// Which.
    pub name: &'a Name,
    /// As it stands.
    pub condition: &'a NodeCondition,
    /// Why the node itself says that it can't start pods.
    pub trouble: Option<&'a str>,
    /// Whether it has a session.
    pub connected: bool,
    /// For how long it has been silent.
    pub silent: Duration,
}

/// How long a silence may be.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Silent for so long: not ready.
    pub not_ready_after: Duration,
    /// Silent for so long: lost; none: never.
    pub lost_after: Option<Duration>,
    /// Nobody is lost before the leader has run for so long.
    pub start_grace: Duration,
}

/// The brake holds from this share of the nodes on, in percent...
const BRAKE_PERCENT: usize = 55;
/// ...where there are so many: of two nodes one is always half.
const BRAKE_LEAST_NODES: usize = 3;

/// The conditions that change. `running` is how long the leader has run.
pub fn conditions(nodes: &[Seen<'_>], running: Duration, limits: &Limits) -> Vec<(Name, NodeCondition)> {
    let brake = limits.lost_after.and_then(|lost_after| brake(nodes, lost_after));
    let changed = nodes.iter().filter_map(|seen| {
        let condition = condition(seen, running, limits, brake)?;
        (condition != *seen.condition).then(|| (seen.name.clone(), condition))
    });
    changed.collect()
}

/// Why nobody is lost now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Brake {
    /// So many of so many nodes fell silent at once.
    CutOff { silent: usize, nodes: usize },
    /// No node is connected.
    Nobody,
}

fn brake(nodes: &[Seen<'_>], at_once: Duration) -> Option<Brake> {
    if !nodes.iter().any(|seen| seen.connected) {
        return Some(Brake::Nobody);
    }
    let counted = nodes.iter().filter(|seen| seen.connected || !seen.condition.is_lost());
    let (all, mut silences) = (counted.clone().count(), counted.filter(|seen| !seen.connected).map(|seen| seen.silent).collect::<Vec<_>>());
    silences.sort();
    // The largest group in which no two fell silent farther apart than that.
    let together = |(index, first): (usize, &Duration)| silences[index..].iter().take_while(|later| **later - *first <= at_once).count();
    let silent = silences.iter().enumerate().map(together).max().unwrap_or(0);
    (all >= BRAKE_LEAST_NODES && silent * 100 >= all * BRAKE_PERCENT).then_some(Brake::CutOff { silent, nodes: all })
}

/// What the node should be; `None`: as it is, because a short silence says nothing.
fn condition(seen: &Seen<'_>, running: Duration, limits: &Limits, brake: Option<Brake>) -> Option<NodeCondition> {
    let not_ready = |reason: String| Some(NodeCondition::NotReady { reason });
    // The limits, not the silence so far: a sentence that changes each second would be written each second.
    let no_session = |limit: Duration| format!("no session for more than {}", duration::text(limit));
    let (over, lost_after) = match limits.lost_after {
        Some(lost_after) => (seen.silent >= lost_after && running >= limits.start_grace, lost_after),
        None => (false, Duration::MAX),
    };
    match seen.trouble {
        // Only a session ends it: what was replaced stays replaced.
        _ if !seen.connected && seen.condition.is_lost() => None,
        _ if !seen.connected && over => match brake {
            None => Some(NodeCondition::Lost { reason: format!("{}: its pods are replaced elsewhere", no_session(lost_after)) }),
            Some(brake) => not_ready(format!("{}; {}", no_session(lost_after), brake.sentence(seen.name))),
        },
        _ if !seen.connected && seen.silent >= limits.not_ready_after => not_ready(no_session(limits.not_ready_after)),
        Some(trouble) => not_ready(trouble.to_owned()),
        None if seen.connected => Some(NodeCondition::Ready),
        None => None,
    }
}

impl Brake {
    fn sentence(self, node: &Name) -> String {
        let why = match self {
            Self::CutOff { silent, nodes } => {
                format!("{silent} of {nodes} nodes fell silent at once: it may be the leader that is cut off")
            }
            Self::Nobody => "no node is connected that could take them".to_owned(),
        };
        format!("its pods stay, because {why} (if this machine is dead: cube delete node/{node} --force)")
    }
}

#[cfg(test)]
mod tests;
