//! What a deployment's pods should become: which are made, which are stopped, how far its rollout is, and when it is rolled back.
//!
//! Classify first (`sets.rs`), then judge the rollout by the sets (`progress.rs`), then change what is there within the bounds (`roll.rs`).
//! `why.rs` puts pods that aren't ready into words.
//!
//! What holds in each pass, whatever happened before:
//! * no pod is stopped that would leave fewer than `replicas - maxUnavailable` available, and none is made beyond `replicas + maxSurge`;
//! * pods of another revision that aren't available go before those that are, but never so many that pods that only just lost their readiness go
//!   for a revision that doesn't get ready either: a failing image leaves what runs alone;
//! * a ready pod is first shown as Terminating, and stopped by a later pass (`Seen::quiet`).

mod progress;
mod roll;
mod sets;
#[cfg(test)]
mod tests;
mod why;

use std::collections::BTreeSet;
use std::sync::Arc;

use cube_api::Object;
use cube_api::deployment::{Deployment, DeploymentSpec, StrategyKind};
use cube_api::meta::{Name, ResourceRef, Uid};
use jiff::Timestamp;

use self::progress::Judged;
use self::sets::Sets;
use crate::leader::store::{OwnerPass, PodRow};

/// What a pass looks at.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// The deployment.
    pub deployment: &'a Deployment,
    /// Its pods, those on their way out too, in the order in which they were made.
    pub pods: &'a [Arc<PodRow>],
    /// The nodes that are drained.
    pub drained: &'a BTreeSet<Name>,
    /// Pods that have been shown as Terminating for long enough: they may be stopped.
    pub quiet: &'a BTreeSet<Uid>,
    /// Since when the time that passes is known to have passed: what lies before the leader's start or a change of its clock counts for no deadline.
    pub watched_since: Timestamp,
    /// The time of day.
    pub now: Timestamp,
}

/// What a pass comes to.
#[derive(Debug, Clone)]
pub struct Planned {
    /// What is to be written, as far as it still holds.
    pub pass: OwnerPass,
    /// When to look again though nothing changed.
    pub again_at: Option<Timestamp>,
}

/// Decides one pass.
pub fn plan(seen: &Seen<'_>) -> Planned {
    let mut deployment = seen.deployment.clone();
    deployment.revise(seen.now, "apply");
    let mut events = Vec::new();
    let mut sets = Sets::of(seen, &deployment);
    let judged = progress::judge(seen, &mut deployment, &sets, &mut events);
    if judged == Judged::RolledBack {
        // Another revision is the one that all pods are to have: what was current is old now.
        sets = Sets::of(seen, &deployment);
        progress::begin(seen, &mut deployment, &sets, &mut events);
    }
    let changes = roll::changes(&deployment, &sets);
    progress::tell_counts(&mut deployment, &sets, seen.now);
    progress::trim(&mut deployment, &sets);
    let again_at = sets.again_at.into_iter().chain(progress::deadline(seen, &deployment)).min();
    let mut pass = OwnerPass::of(&Object::Deployment(Box::new(deployment)));
    pass.create = changes.create;
    pass.leave = changes.leave;
    pass.retire = changes.retire;
    events.extend(changes.events);
    pass.events = events;
    Planned { pass, again_at }
}

/// What is said of a pod on a drained node that its deployment moves. `pods` are all of the deployment.
pub fn why_it_is_not_moved<'a>(
    row: &PodRow,
    reference: &ResourceRef,
    pods: impl Iterator<Item = &'a PodRow>,
    drained: &BTreeSet<Name>,
) -> String {
    if row.pod.metadata.deletion_requested_at.is_some() {
        return format!("{reference} has taken it out of service, and stops it in a moment");
    }
    let is_misplaced = |row: &PodRow| row.pod.placement.node.as_ref().is_some_and(|node| drained.contains(node));
    let is_leaving = |row: &PodRow| row.retired.is_some() || row.pod.metadata.deletion_requested_at.is_some();
    let awaited = pods.filter(|row| !is_misplaced(row) && !is_leaving(row) && !row.pod.is_ready()).map(|row| &row.pod);
    // One that just begins has nothing to say: each of its steps would be a line for whoever watches the drain.
    match why::why_not(awaited.filter(|pod| why::account_of(pod).is_some())) {
        none if none.is_empty() => format!("{reference} takes it away once another is available in its place"),
        why => format!("{reference} takes it away once another is available in its place: {why}"),
    }
}

/// Whether the deployment itself replaces its pods on nodes that are drained: a new one begins elsewhere before the old one goes. Where it can't, because
/// it stops first or is held, the drain does what it does with any pod.
pub fn moves_its_pods(deployment: &Deployment) -> bool {
    let DeploymentSpec { strategy, paused, template, .. } = &deployment.spec;
    let template = deployment.target().map_or(template, |target| &target.template);
    match strategy.kind {
        StrategyKind::RollingUpdate => !paused && DeploymentSpec::stops_first(&template.spec).is_none(),
        StrategyKind::Recreate => false,
    }
}
