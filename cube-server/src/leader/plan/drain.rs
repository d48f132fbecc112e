//! What leaves a node that is drained, and what stays there and why.
//!
//! A pod never moves: it is stopped, and one of its name begins elsewhere. So what runs is only stopped
//! * while its node is connected: no other can say that it has stopped;
//! * if it may be run again: with restart policy `Never` its end is waited for;
//! * if another node would take it now, after all that wait for a node already: it must not be down for nothing;
//!
//! unless the drain has `force`, which leaves the first of these only. `onNodeLoss: wait` is no obstacle: the new pod begins when the node has said
//! that the old one is gone, so it never runs on two nodes.
//!
//! The pods of a deployment that can run beside each other are left to it, unless the drain has `force`: it makes others first, and keeps as many
//! available as it has to.
//!
//! At most [`AT_ONCE`] of a node stop at a time, in the order in which they were accepted. Nodes start some ten pods at a time, so of more than that
//! some would be down while they wait for others; and of what turns out badly on the other nodes (an image that isn't there) the rest is spared, for
//! a person has time to call it off.

use std::collections::BTreeMap;
use std::sync::Arc;

use cube_api::meta::{Name, Uid};
use cube_api::node::{Drain, DrainStep, LeftPod};
use cube_api::pod::{Pod, RestartPolicy, Strategy};

use super::fit::{Asked, unfit};
use super::schedule::Candidate;
use crate::leader::store::{DrainPass, PodRow};

/// So many pods of a node stop at a time. 110 of them, the most that a node has by default, which all use up their 30 s, are gone after 3.5 minutes:
/// within the 5 that `cube drain` waits.
pub const AT_ONCE: usize = 16;

/// A node that is drained.
#[derive(Debug, Clone, Copy)]
pub struct Draining<'a> {
    /// Which.
    pub node: &'a Name,
    /// How.
    pub drain: &'a Drain,
    /// Whether it has a session.
    pub connected: bool,
    /// What it runs or stops, in the order in which it was accepted.
    pub pods: &'a [Arc<PodRow>],
    /// Those of them that their deployment takes away, each when there is another in its place; and what keeps it there until then.
    pub moved: &'a BTreeMap<Uid, String>,
}

impl Draining<'_> {
    /// What keeps a pod that is its deployment's to take away; a drain by force doesn't wait for that.
    fn left_to_its_owner(&self, row: &PodRow) -> Option<&str> {
        self.moved.get(&row.pod.metadata.uid).filter(|_| !self.drain.force).map(String::as_str)
    }
}

/// Where pods can go.
#[derive(Debug, Clone)]
pub struct Elsewhere<'a> {
    /// Pods that wait for a node already.
    pub first: Vec<Asked<'a>>,
    /// Every node, the drained ones too: those refuse as cordoned.
    pub nodes: Vec<Candidate<'a>>,
    /// By which of them a pod gets that names none.
    pub strategy: Strategy,
    /// Whether nothing is placed now: the leader was restored from a backup.
    pub fenced: bool,
}

/// What is to be done about each node.
pub fn passes(draining: &[Draining<'_>], elsewhere: Elsewhere<'_>) -> Vec<DrainPass> {
    let Elsewhere { first, nodes, strategy, fenced } = elsewhere;
    let connected = draining.iter().filter(|node| node.connected);
    let going = connected.flat_map(|node| node.pods.iter().filter(|row| node.left_to_its_owner(row).is_none()));
    let going = going.filter(|row| row.retired.is_none() && is_run_again(row));
    let unfit = unfit(&first, &going.map(|row| asked(row)).collect::<Vec<_>>(), nodes, strategy);
    draining.iter().map(|node| pass(node, &Obstacles { unfit: &unfit, fenced })).collect()
}

/// As it is asked about.
pub fn asked(row: &PodRow) -> Asked<'_> {
    let Pod { metadata, spec, .. } = &row.pod;
    Asked { uid: metadata.uid, name: &metadata.name, spec }
}

/// What keeps pods where they are, beside their node.
struct Obstacles<'a> {
    unfit: &'a BTreeMap<Uid, Option<String>>,
    fenced: bool,
}

fn pass(node: &Draining<'_>, obstacles: &Obstacles<'_>) -> DrainPass {
    let mut places = AT_ONCE.saturating_sub(node.pods.iter().filter(|row| row.retired.is_some()).count());
    let left = node.pods.iter().map(|row| {
        let Pod { metadata, .. } = &row.pod;
        LeftPod { name: metadata.name.clone(), uid: metadata.uid, step: step(node, row, obstacles, &mut places) }
    });
    DrainPass { node: node.node.clone(), drain: node.drain.clone(), left: left.collect() }
}

fn step(node: &Draining<'_>, row: &PodRow, obstacles: &Obstacles<'_>, places: &mut usize) -> DrainStep {
    let within = |grace_seconds: u32| node.drain.grace_seconds.map_or(grace_seconds, |most| most.min(grace_seconds));
    if !node.connected {
        return DrainStep::Stays { reason: unreachable(node.node) };
    }
    // Whatever its end was asked for by: the drain gives nobody longer.
    if let Some(retired) = &row.retired {
        return DrainStep::Stopping { grace_seconds: within(retired.grace_seconds) };
    }
    if let Some(reason) = node.left_to_its_owner(row) {
        return DrainStep::Stays { reason: reason.to_owned() };
    }
    if let Some(reason) = obstacles.stop(row).filter(|_| !node.drain.force) {
        return DrainStep::Stays { reason };
    }
    if *places == 0 {
        return DrainStep::Queued;
    }
    *places -= 1;
    DrainStep::Stopping { grace_seconds: within(row.pod.spec.termination_grace_period_seconds) }
}

impl Obstacles<'_> {
    /// Why a pod should not be stopped, if so.
    fn stop(&self, row: &PodRow) -> Option<String> {
        if !is_run_again(row) {
            return Some("restartPolicy Never: it would not be run again, so its end is waited for".to_owned());
        }
        if self.fenced {
            return Some("the leader was restored from a backup and places nothing yet".to_owned());
        }
        let reason = self.unfit.get(&row.pod.metadata.uid)?.as_ref()?;
        Some(format!("no other node takes it: {reason}"))
    }
}

fn unreachable(node: &Name) -> String {
    format!(
        "node {node} isn't connected, so nobody can say that it has stopped; if that machine is dead, make sure that it is off, then: cube delete \
         node/{node} --force"
    )
}

/// Whether another takes its place that runs.
fn is_run_again(row: &PodRow) -> bool {
    match row.pod.spec.restart_policy {
        RestartPolicy::Always | RestartPolicy::OnFailure => true,
        RestartPolicy::Never => false,
    }
}

#[cfg(test)]
mod tests;
