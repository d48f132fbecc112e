//! Which pods are made and which are stopped, within the bounds of the strategy.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use cube_api::deployment::{DEPLOYMENT_LABEL, Deployment, DeploymentSpec, REVISION_LABEL, StrategyKind, TemplateRevision, newest_good};
use cube_api::event::EventKind;
use cube_api::meta::Uid;

use super::sets::{Member, Sets};
use super::why::pods;
use crate::leader::store::NewPod;

/// So many pods are made in one pass, and stopped: some 10 us of a commit each. The change that they are wakes the next pass.
const AT_ONCE: usize = 256;

/// What a pass does to pods.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) create: Vec<NewPod>,
    /// Ready pods that are shown as Terminating from now on, and stopped later.
    pub(super) leave: Vec<(Uid, String)>,
    /// Pods that are told to stop.
    pub(super) retire: Vec<(Uid, String, Option<u32>)>,
    pub(super) events: Vec<(EventKind, &'static str, String)>,
}

/// How many pods there may be, and how many must be available.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bounds {
    /// How many there should be.
    pub(super) desired: usize,
    /// How many there may be.
    pub(super) most: usize,
    /// How many must be available.
    pub(super) available: usize,
    /// Whether pods on their way out count: their successors have to wait for what they hold.
    pub(super) leaving_count: bool,
}

impl Bounds {
    /// Of a rolling update to a revision.
    pub(super) fn of(spec: &DeploymentSpec, target: &TemplateRevision) -> Self {
        let replicas = spec.replicas();
        let bounds = spec.strategy.bounds();
        let stops_first = DeploymentSpec::stops_first(&target.template.spec).is_some();
        let surge = if stops_first { 0 } else { bounds.max_surge.rounded_up(replicas) };
        let unavailable = match bounds.max_unavailable.rounded_down(replicas) {
            // Of few pods a percentage may be none: without either nothing could ever be replaced.
            0 if surge == 0 => 1,
            some => some,
        };
        Self {
            desired: to_usize(replicas),
            most: to_usize(replicas.saturating_add(surge)),
            available: to_usize(replicas.saturating_sub(unavailable)),
            leaving_count: stops_first,
        }
    }
}

/// What to do now.
pub(super) fn changes(deployment: &Deployment, sets: &Sets<'_>) -> Changes {
    let mut changes = Changes::default();
    for row in sets.due.iter().take(AT_ONCE) {
        changes.retire.push((row.pod.metadata.uid, "it was taken out of service by its deployment".to_owned(), None));
    }
    for row in sets.spent.iter().take(AT_ONCE) {
        changes.retire.push((row.pod.metadata.uid, "it has finished, and its deployment has another in its place".to_owned(), None));
    }
    let Some(target) = deployment.target() else { return changes };
    let spec = &deployment.spec;
    if spec.paused {
        changes.hold(deployment, sets);
        return changes;
    }
    match spec.strategy.kind {
        StrategyKind::RollingUpdate => changes.roll(deployment, target, sets),
        StrategyKind::Recreate => changes.recreate(deployment, target, sets),
    }
    changes
}

impl Changes {
    fn roll(&mut self, deployment: &Deployment, target: &TemplateRevision, sets: &Sets<'_>) {
        let bounds = Bounds::of(&deployment.spec, target);
        let surplus = sets.current.len().saturating_sub(bounds.desired);
        let (surplus, current) = split(&sets.current, surplus);
        self.stop_surplus(&surplus, bounds.desired);

        let leaving = if bounds.leaving_count { sets.leaving.len() + surplus.len() } else { 0 };
        let total = current.len() + sets.old.len() + leaving;
        let missing = bounds.desired.saturating_sub(current.len());
        self.create(deployment, target, missing.min(bounds.most.saturating_sub(total)), current.len());

        // As Kubernetes counts: each new pod that isn't available keeps an old one, available or not. Old pods that only just lost their readiness
        // are not given up for a revision that doesn't get ready either.
        let available = count_available(&current);
        let removable = (sets.old.len() + available).saturating_sub(bounds.available);
        let old_available = count_available(&sets.old);
        let spare = (available + old_available).saturating_sub(bounds.available);
        let mut old: Vec<_> = sets.old.iter().collect();
        old.sort_by_key(|member| (member.is_available, member.is_ready, member.revision, Reverse(member.uid())));
        let unavailable = sets.old.len() - old_available;
        let go = removable.min(unavailable + spare).min(AT_ONCE);
        self.stop_old(old.into_iter().take(go), target);
    }

    fn recreate(&mut self, deployment: &Deployment, target: &TemplateRevision, sets: &Sets<'_>) {
        let desired = to_usize(deployment.spec.replicas());
        let (surplus, current) = split(&sets.current, sets.current.len().saturating_sub(desired));
        self.stop_surplus(&surplus, desired);
        self.stop_old(sets.old.iter().take(AT_ONCE), target);
        if sets.old.is_empty() && sets.leaving.is_empty() {
            self.create(deployment, target, desired.saturating_sub(current.len()), current.len());
        }
    }

    /// Keeps the number, and no more: what is there stays as it is, and what is missing is made anew of the revision that last ran well.
    fn hold(&mut self, deployment: &Deployment, sets: &Sets<'_>) {
        let desired = to_usize(deployment.spec.replicas());
        let live: Vec<_> = sets.live().copied().collect();
        let (surplus, stay) = split(&live, live.len().saturating_sub(desired));
        self.stop_surplus(&surplus, desired);
        let newest = || deployment.history.iter().rev().find(|revision| live.iter().any(|member| member.revision == revision.number));
        // One that was never begun is not begun now.
        let Some(steady) = newest_good(&deployment.history).or_else(newest) else { return };
        self.create(deployment, steady, desired.saturating_sub(stay.len()), stay.len());
    }

    fn create(&mut self, deployment: &Deployment, revision: &TemplateRevision, count: usize, there: usize) {
        let count = count.min(AT_ONCE);
        if count == 0 {
            return;
        }
        let name = &deployment.metadata.name;
        let mut labels = revision.template.metadata.labels.clone();
        labels.insert(DEPLOYMENT_LABEL.to_owned(), name.to_string());
        labels.insert(REVISION_LABEL.to_owned(), revision.number.to_string());
        let new = NewPod {
            stem: format!("{name}-{}", revision.number),
            labels,
            spec: Arc::clone(&revision.template.spec),
            reason: format!("revision {}", revision.number),
        };
        self.create.extend(std::iter::repeat_n(new, count));
        let message =
            format!("{} of revision {} made: {} of {} there", pods(count), revision.number, there + count, deployment.spec.replicas());
        self.events.push((EventKind::Normal, "ScaledUp", message));
    }

    fn stop_surplus(&mut self, surplus: &[Member<'_>], desired: usize) {
        let reason = format!("{} wanted", pods(desired));
        for member in surplus {
            self.stop(member, format!("surplus: {reason}"));
        }
        if !surplus.is_empty() {
            self.events.push((EventKind::Normal, "ScaledDown", format!("{} stopped: {reason}", pods(surplus.len()))));
        }
    }

    fn stop_old<'a>(&mut self, old: impl Iterator<Item = &'a Member<'a>>, target: &TemplateRevision) {
        let mut told = BTreeMap::<String, usize>::new();
        for member in old {
            let reason = match &member.row.pod.placement.node {
                Some(node) if member.is_misplaced => format!("its node {node} is drained"),
                Some(_) | None => format!("revision {} takes the place of revision {}", target.number, member.revision),
            };
            *told.entry(reason.clone()).or_default() += 1;
            self.stop(member, reason);
        }
        for (reason, count) in told {
            self.events.push((EventKind::Normal, "ScaledDown", format!("{} stopped: {reason}", pods(count))));
        }
    }

    /// A pod that gets requests has to be seen leaving before it stops; any other stops at once.
    fn stop(&mut self, member: &Member<'_>, reason: String) {
        if member.is_ready { self.leave.push((member.uid(), reason)) } else { self.retire.push((member.uid(), reason, None)) }
    }
}

/// The so many that leave first, and the others.
fn split<'a>(members: &[Member<'a>], leave: usize) -> (Vec<Member<'a>>, Vec<Member<'a>>) {
    let mut members = members.to_vec();
    members.sort_by_key(Member::leaves_first);
    let stay = members.split_off(leave.min(members.len()));
    members.truncate(AT_ONCE);
    (members, stay)
}

fn count_available(members: &[Member<'_>]) -> usize {
    members.iter().filter(|member| member.is_available).count()
}

fn to_usize(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
