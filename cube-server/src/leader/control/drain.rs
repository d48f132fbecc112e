//! Moves the pods of nodes that are drained.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use cube_api::meta::{Name, ResourceKind, Revision, Uid};
use cube_api::node::{Drain, Node};
use cube_api::pod::Strategy;
use cube_api::status;

use super::{AGAIN_AFTER, SessionView, log_failure, news};
use crate::leader::plan::deployment::{moves_its_pods, why_it_is_not_moved};
use crate::leader::plan::drain::{Draining, Elsewhere, asked, passes};
use crate::leader::plan::schedule::Candidate;
use crate::leader::store::{Change, Changed, DrainPass, NodeLoad, PodRow, State, Store};

/// Between two passes: what one pod's end changes for the others is looked at with that of the pods that end beside it, and a cluster where something
/// changes all the time isn't looked at all the time.
const SETTLES: Duration = Duration::from_millis(100);

/// Runs until it is dropped. `every` is between two looks while a drain goes on: that a session ended wakes nobody.
pub(super) async fn run(store: Store, sessions: Arc<dyn SessionView>, every: Duration, strategy: Strategy) {
    loop {
        let snapshot = store.read(Snapshot::of);
        if snapshot.draining.is_empty() {
            // The change that begins one is seen as any other, so nothing is to be looked at in between.
            news(&store, snapshot.revision, Duration::MAX, begins).await;
            continue;
        }
        let mut at_most = every;
        for pass in snapshot.decide(&*sessions, strategy) {
            if let Err(error) = store.go_on_with_drain(pass).await {
                log_failure("going on with a drain", &error);
                at_most = AGAIN_AFTER;
            }
        }
        tokio::time::sleep(SETTLES).await;
        news(&store, snapshot.revision, at_most, matters).await;
    }
}

/// What a pass looks at, as of one revision. Taken out of the state, because commits wait for whoever reads there.
struct Snapshot {
    revision: Revision,
    draining: Vec<Leaving>,
    /// Pods without a node whose room is spoken for: nobody looked at them yet, or they wait for one of their name to stop. What waits because no
    /// node takes it is in nobody's way. Empty where nothing is drained, as the nodes are.
    first: Vec<Arc<PodRow>>,
    nodes: Vec<(Arc<Node>, Option<Arc<NodeLoad>>)>,
    fenced: bool,
}

/// A node that is drained, with what it runs or stops.
struct Leaving {
    node: Arc<Node>,
    drain: Drain,
    pods: Vec<Arc<PodRow>>,
    /// Those of them that the deployment loop takes away, and what keeps each of them there.
    moved: BTreeMap<Uid, String>,
}

impl Snapshot {
    fn of(state: &State) -> Self {
        let drained = state.nodes.values().filter(|node| is_draining(Some(node))).map(|node| node.name.clone()).collect();
        let draining: Vec<_> = state.nodes.values().filter_map(|node| Leaving::of(state, node, &drained)).collect();
        let (revision, fenced) = (state.revision, state.fence.is_some());
        if draining.is_empty() {
            return Self { revision, draining, first: Vec::new(), nodes: Vec::new(), fenced };
        }
        let is_spoken_for =
            |row: &&Arc<PodRow>| row.pod.placement.waiting_for.is_none() || state.namesakes(&row.pod.metadata.name).len() > 1;
        let first = state.unbound().filter(is_spoken_for).cloned().collect();
        let nodes = state.nodes.values().map(|node| (node.clone(), state.load(&node.name).cloned())).collect();
        Self { revision, draining, first, nodes, fenced }
    }

    fn decide(&self, sessions: &dyn SessionView, strategy: Strategy) -> Vec<DrainPass> {
        let live: BTreeSet<_> = sessions.live().into_keys().collect();
        let draining = self.draining.iter().map(|Leaving { node, drain, pods, moved }| {
            let connected = live.contains(&node.name) && !node.condition.is_lost();
            Draining { node: &node.name, drain, connected, pods, moved }
        });
        let first = self.first.iter().map(|row| asked(row)).collect();
        let nodes = self.nodes.iter().map(|(node, load)| Candidate::new(node, load.as_deref())).collect();
        passes(&draining.collect::<Vec<_>>(), Elsewhere { first, nodes, strategy, fenced: self.fenced })
    }
}

impl Leaving {
    fn of(state: &State, node: &Arc<Node>, drained: &BTreeSet<Name>) -> Option<Self> {
        let drain = node.cordon.as_ref()?.draining()?.clone();
        let bound = state.load(&node.name).into_iter().flat_map(|load| &load.bound);
        let pods: Vec<_> = bound.filter_map(|uid| state.pods.get(uid)).filter(|row| row.uses_its_node()).cloned().collect();
        let moved = pods.iter().filter_map(|row| Some((row.pod.metadata.uid, why_left_to_its_owner(state, row, drained)?))).collect();
        Some(Self { node: node.clone(), drain, pods, moved })
    }
}

/// What keeps a pod there that the deployment loop takes away, or has begun to; none of any other.
fn why_left_to_its_owner(state: &State, row: &PodRow, drained: &BTreeSet<Name>) -> Option<String> {
    let owner = row.pod.metadata.owner.as_ref().filter(|owner| owner.kind == ResourceKind::Deployment)?;
    let object = state.object(owner.kind, &owner.name)?;
    let deployment = object.deployment()?;
    if row.pod.metadata.deletion_requested_at.is_none() && !moves_its_pods(deployment) {
        return None;
    }
    let pods = state.owned_by(&owner.uid).map(|row| &**row);
    Some(why_it_is_not_moved(row, &object.reference(), pods, drained))
}

/// Whether a drain begins.
fn begins(change: &Change) -> bool {
    match &change.object {
        Changed::Node { before: _, after } => is_draining(after.as_ref()),
        Changed::Pod { before: _, after: _ } | Changed::Object { .. } => false,
    }
}

fn is_draining(node: Option<&Arc<Node>>) -> bool {
    node.and_then(|node| node.cordon.as_ref()).is_some_and(|cordon| cordon.draining().is_some())
}

/// Whether a change may let a pod go, or changes what is said of one that stays: room, a node, or a pod of a drained node that begins or ends.
fn matters(change: &Change) -> bool {
    match &change.object {
        Changed::Pod { before: Some(before), after: Some(after) } => {
            let facts = |row: &PodRow| (row.is_finished(), row.retired.clone(), row.pod.placement.node.clone());
            facts(before) != facts(after) || (after.pod.metadata.owner.is_some() && awaited(before) != awaited(after))
        }
        Changed::Pod { before: _, after: _ } => true,
        Changed::Node { before: Some(before), after: Some(after) } => {
            let facts = |node: &Node| {
                let Node { condition, allocatable, allows, labels, cordon, seen_at, .. } = node;
                (condition.clone(), *allocatable, allows.clone(), labels.clone(), cordon.clone(), *seen_at)
            };
            facts(before) != facts(after)
        }
        Changed::Node { before: _, after: _ } => true,
        Changed::Object { .. } => false,
    }
}

/// What may change what is said of a pod in whose place a deployment makes this one.
fn awaited(row: &PodRow) -> (bool, Option<&str>, String) {
    (row.pod.is_ready(), row.pod.placement.waiting_for.as_deref(), status::of_pod(&row.pod))
}
