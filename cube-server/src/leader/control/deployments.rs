//! Keeps deployments: makes, replaces and stops their pods, and rolls back what doesn't come up.
//!
//! The watch only says which deployments to look at: each look re-reads the deployment and all its pods, and the first one is at all of them. What
//! the loop remembers beside is how long it has watched, so that nothing is given up for time in which nobody looked, and since when a pod has been
//! shown as Terminating; a leader that starts anew lets both begin again.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use cube_api::Object;
use cube_api::meta::{Name, ResourceKind, Revision, Uid};
use cube_api::node::Node;
use jiff::Timestamp;
use tokio::time::Instant;

use super::{AGAIN_AFTER, log_failure};
use crate::ambient::{Ambient, WatchedClock};
use crate::leader::plan::deployment::{Planned, Seen, plan};
use crate::leader::store::{Change, Changed, Changes, PodRow, State, Store, StoreError};

/// Between two passes: what one pod's readiness changes is looked at with that of the pods that get ready beside it.
const SETTLES: Duration = Duration::from_millis(50);

/// From the commit that shows a ready pod as Terminating to the one that has its node stop it. Whoever follows the watch hears of the first within
/// milliseconds and one way of the network; a request that was sent before has the rest to be answered in.
pub const LEAVES_AFTER: Duration = Duration::from_secs(2);

/// A deployment that waits for a time is looked at so often, in case that a clock was set.
const AT_LEAST_EVERY: Duration = Duration::from_secs(60);

/// Runs until it is dropped.
pub(super) async fn run(store: Store, ambient: Ambient) {
    let mut deployments = Deployments::new(store, ambient);
    loop {
        let looked_at = deployments.store.read(|state| state.revision);
        deployments.all_are_due();
        if let Ok(changes) = deployments.store.watch(looked_at) {
            deployments.follow(changes).await;
        }
        // Left behind by the watch, or the store closes.
        tokio::time::sleep(AGAIN_AFTER).await;
    }
}

/// The loop, with what it remembers between two passes.
struct Deployments {
    store: Store,
    clock: WatchedClock,
    /// Since when time is known to have passed as the time of day says.
    watched_since: Timestamp,
    /// When to look at each of them again.
    due: BTreeMap<Name, Instant>,
    /// Since when pods have been shown as Terminating, for each deployment.
    leaving: BTreeMap<Name, BTreeMap<Uid, Instant>>,
}

/// What a pass looks at, as of one revision.
struct Snapshot {
    revision: Revision,
    deployment: Arc<Object>,
    pods: Vec<Arc<PodRow>>,
    drained: BTreeSet<Name>,
}

impl Deployments {
    fn new(store: Store, ambient: Ambient) -> Self {
        let mut clock = WatchedClock::new(ambient);
        let (watched_since, _) = clock.read();
        Self { store, clock, watched_since, due: BTreeMap::new(), leaving: BTreeMap::new() }
    }

    fn all_are_due(&mut self) {
        let now = Instant::now();
        self.due = self.store.read(|state| {
            let all = state.objects(ResourceKind::Deployment, Bound::Unbounded);
            all.map(|(name, _)| (name.clone(), now)).collect()
        });
        self.leaving.retain(|name, _| self.due.contains_key(name));
    }

    /// Looks at what is due and at what changes, until the watch ends.
    async fn follow(&mut self, mut changes: Changes) {
        loop {
            self.look().await;
            let next = self.due.values().min().copied();
            let is_due = async {
                match next {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            // Both are cancel-safe: a change that wasn't taken is taken the next time.
            let change = tokio::select! {
                biased;
                change = changes.next() => match change {
                    Some(change) => Some(change),
                    None => return,
                },
                () = is_due => None,
            };
            if let Some(change) = change {
                self.note(&change);
                tokio::time::sleep(SETTLES).await;
                while let Some(change) = changes.next_now() {
                    match change {
                        Some(change) => self.note(&change),
                        None => return,
                    }
                }
            }
        }
    }

    /// A change makes deployments due.
    fn note(&mut self, change: &Change) {
        let now = Instant::now();
        match &change.object {
            Changed::Pod { before, after } => {
                let owner = after.as_ref().or(before.as_ref()).and_then(|row| row.pod.metadata.owner.clone());
                if let Some(owner) = owner.filter(|owner| owner.kind == ResourceKind::Deployment) {
                    self.due.insert(owner.name.clone(), now);
                }
            }
            Changed::Object { before, after } => {
                if let Some(deployment) = after.as_ref().or(before.as_ref()).and_then(|object| object.deployment()) {
                    self.due.insert(deployment.metadata.name.clone(), now);
                }
            }
            Changed::Node { before, after } => {
                if is_drained(before.as_deref()) != is_drained(after.as_deref()) {
                    self.all_are_due();
                }
            }
        }
    }

    /// One pass over each deployment that is due.
    async fn look(&mut self) {
        let (now, set) = self.clock.read();
        if set.is_some() {
            self.watched_since = now;
        }
        let started = Instant::now();
        let due: Vec<_> = self.due.iter().filter(|(_, at)| **at <= started).map(|(name, _)| name.clone()).collect();
        for name in due {
            let again_in = match self.pass(&name, now).await {
                Ok(again_in) => again_in,
                Err(error) => {
                    log_failure("keeping a deployment", &error);
                    Some(AGAIN_AFTER)
                }
            };
            match again_in {
                Some(again_in) => drop(self.due.insert(name, started + again_in.min(AT_LEAST_EVERY))),
                None => drop(self.due.remove(&name)),
            }
        }
    }

    /// One pass over one deployment: when to look again without a change, if so.
    async fn pass(&mut self, name: &Name, now: Timestamp) -> Result<Option<Duration>, StoreError> {
        let found = self.store.read(|state| Snapshot::of(state, name).map(|snapshot| (snapshot, state.fence.is_some())));
        let Some((snapshot, is_fenced)) = found else {
            self.leaving.remove(name);
            return Ok(None);
        };
        // A leader that was restored doesn't know yet what runs.
        if is_fenced {
            return Ok(Some(AGAIN_AFTER));
        }
        let Some(deployment) = snapshot.deployment.deployment().filter(|deployment| deployment.metadata.deletion_requested_at.is_none())
        else {
            return Ok(None);
        };
        let (quiet, next_quiet) = self.quiet(name, &snapshot.pods);
        let Snapshot { revision, pods, drained, .. } = &snapshot;
        let seen = Seen { deployment, pods, drained, quiet: &quiet, watched_since: self.watched_since, now };
        let Planned { mut pass, again_at } = plan(&seen);
        let changes_pods = !(pass.create.is_empty() && pass.retire.is_empty() && pass.leave.is_empty());
        if changes_pods || !pass.events.is_empty() || pass.owner != *snapshot.deployment {
            if !pass.leave.is_empty() {
                pass.pods_as_of = Some(*revision);
            }
            for (kind, reason, message) in &pass.events {
                tracing::info!(deployment = %name, ?kind, reason, "{message}");
            }
            if !self.store.settle(pass).await? {
                // Something changed meanwhile.
                return Ok(Some(SETTLES));
            }
        }
        let again_in = again_at.map(|at| Duration::try_from(at.duration_since(now)).unwrap_or_default());
        Ok(again_in.into_iter().chain(next_quiet).min())
    }

    /// The pods that have been shown as Terminating for long enough, and when the next one will have been.
    fn quiet(&mut self, name: &Name, pods: &[Arc<PodRow>]) -> (BTreeSet<Uid>, Option<Duration>) {
        let now = Instant::now();
        let known = self.leaving.remove(name).unwrap_or_default();
        let shown = pods.iter().filter(|row| row.pod.metadata.deletion_requested_at.is_some() && row.retired.is_none());
        let shown: BTreeMap<_, _> =
            shown.map(|row| row.pod.metadata.uid).map(|uid| (uid, known.get(&uid).copied().unwrap_or(now))).collect();
        let quiet = shown.iter().filter(|(_, since)| now >= **since + LEAVES_AFTER).map(|(uid, _)| *uid).collect();
        let rest = shown.values().map(|since| (*since + LEAVES_AFTER).saturating_duration_since(now)).filter(|rest| !rest.is_zero()).min();
        if !shown.is_empty() {
            self.leaving.insert(name.clone(), shown);
        }
        (quiet, rest)
    }
}

impl Snapshot {
    fn of(state: &State, name: &Name) -> Option<Self> {
        let deployment = state.object(ResourceKind::Deployment, name)?.clone();
        let pods = state.owned_by(&deployment.metadata().uid).cloned().collect();
        let drained = state.nodes.values().filter(|node| is_drained(Some(node))).map(|node| node.name.clone()).collect();
        Some(Self { revision: state.revision, deployment, pods, drained })
    }
}

fn is_drained(node: Option<&Node>) -> bool {
    node.and_then(|node| node.cordon.as_ref()).is_some_and(|cordon| cordon.draining().is_some())
}
