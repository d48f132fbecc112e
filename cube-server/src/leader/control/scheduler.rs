//! Gives pods a node.

use std::sync::Arc;
use std::time::Duration;

use cube_api::meta::{Name, Revision};
use cube_api::pod::{Placement, Strategy};
use cube_api::{Node, Pod};
use tokio::time::Instant;

use super::{AGAIN_AFTER, log_failure, news};
use crate::leader::plan::fence::{self, Again, Waits};
use crate::leader::plan::schedule::{Candidate, Decided, Predecessor, Rules, Unplaced, hold, must_wait, schedule};
use crate::leader::store::{Change, Changed, Fence, NodeLoad, Placing, PodRow, State, Store};

/// Between two looks at a fence: nobody wakes the loop when its time is over.
const LOOK_AT_FENCE_EVERY: Duration = Duration::from_secs(1);

/// Runs until it is dropped. No timer stands between a commit that matters and the pass that it causes.
///
/// Whose turn it is by `round-robin` is the loop's own: after a restart of the leader the first node by name is next. Kept in the database it would
/// cost a write for each pass and tell nobody anything.
pub(super) async fn run(store: Store, every: Duration, waits: Waits, strategy: Strategy) {
    let (began, mut last_turn) = (Instant::now(), None);
    loop {
        let snapshot = store.read(Snapshot::of);
        let since_start = began.elapsed();
        let at_most = match &snapshot.awaited {
            Some(awaited) if fence::is_over(awaited, since_start, waits) => lift(&store, every).await,
            Some(_) => LOOK_AT_FENCE_EVERY.min(every),
            None => every,
        };
        let decided = snapshot.decide(since_start, waits, Rules { strategy, last_turn: last_turn.as_ref() });
        let Decided { placings, last_turn: turn } = decided;
        last_turn = turn;
        let at_most = if placings.is_empty() { at_most } else { write(&store, placings, at_most).await };
        news(&store, snapshot.revision, at_most, matters).await;
    }
}

/// How long to wait for news after it.
async fn lift(store: &Store, every: Duration) -> Duration {
    match store.lift_fence().await {
        Ok(()) => {
            tracing::info!("the wait after the restore is over: pods are placed");
            every
        }
        Err(error) => {
            log_failure("noting that the wait after a restore is over", &error);
            AGAIN_AFTER.min(every)
        }
    }
}

/// What a pass looks at, as of one revision. Taken out of the state, because commits wait for whoever reads there, and a pass over many pods and
/// nodes takes a while.
struct Snapshot {
    revision: Revision,
    /// Each with the pod of its name that it has to wait for.
    unbound: Vec<(Arc<PodRow>, Option<Old>)>,
    /// Empty where nothing is unbound.
    nodes: Vec<(Arc<Node>, Option<NodeLoad>)>,
    /// The nodes that a restored leader waits for; none where it wasn't restored, or waits no more.
    awaited: Option<Vec<Name>>,
}

/// A pod whose name another one has.
struct Old {
    row: Arc<PodRow>,
    on_lost_node: bool,
}

impl Snapshot {
    fn of(state: &State) -> Self {
        let unbound: Vec<_> = state.unbound().map(|row| (row.clone(), predecessor(state, row))).collect();
        let with_load = |node: &Arc<Node>| (node.clone(), state.load(&node.name).cloned());
        let nodes = if unbound.is_empty() { Vec::new() } else { state.nodes.values().map(with_load).collect() };
        // One that was deleted since doesn't come back.
        let known = |fence: &Arc<Fence>| fence.awaited.iter().filter(|name| state.nodes.contains_key(name)).cloned().collect();
        Self { revision: state.revision, unbound, nodes, awaited: state.fence.as_ref().map(known) }
    }

    fn decide(&self, since_start: Duration, waits: Waits, rules: Rules<'_>) -> Decided {
        let (mut placings, mut free) = (Vec::new(), Vec::new());
        for (row, predecessor) in &self.unbound {
            let pod = unplaced(row, predecessor.as_ref());
            let held = self.awaited.as_ref().and_then(|awaited| fence::holds(awaited, since_start, waits, Again::of(pod.spec)));
            match held {
                Some(reason) => placings.extend(hold(&pod, reason)),
                None => free.push(pod),
            }
        }
        let nodes = self.nodes.iter().map(|(node, load)| Candidate::new(node, load.as_ref())).collect();
        let decided = schedule(&free, nodes, rules);
        placings.extend(decided.placings);
        Decided { placings, ..decided }
    }
}

/// How long to wait for news after it.
async fn write(store: &Store, placings: Vec<Placing>, every: Duration) -> Duration {
    match store.place(placings).await {
        Ok(()) => every,
        Err(error) => {
            log_failure("placing pods", &error);
            AGAIN_AFTER.min(every)
        }
    }
}

fn predecessor(state: &State, row: &PodRow) -> Option<Old> {
    let metadata = &row.pod.metadata;
    let mut others = state.namesakes(&metadata.name).into_iter().filter(|other| other.pod.metadata.uid != metadata.uid);
    others.find_map(|other| {
        let on_lost_node = state.is_on_lost_node(other);
        let waits = other.pod.placement.node.is_some() && must_wait(&row.pod.spec, other, on_lost_node);
        waits.then(|| Old { row: other.clone(), on_lost_node })
    })
}

fn unplaced<'a>(row: &'a PodRow, predecessor: Option<&'a Old>) -> Unplaced<'a> {
    let metadata = &row.pod.metadata;
    let predecessor = predecessor.and_then(|Old { row, on_lost_node }| {
        let Pod { metadata, placement, .. } = &row.pod;
        Some(Predecessor { uid: metadata.uid, node: placement.node.as_ref()?, on_lost_node: *on_lost_node })
    });
    let Placement { waiting_for, avoids, .. } = &row.pod.placement;
    let (uid, name, spec) = (metadata.uid, &metadata.name, &row.pod.spec);
    Unplaced { uid, name, spec, waiting_for: waiting_for.as_deref(), avoids, predecessor }
}

/// Whether a change may let a pod be placed, or changes the reason why none is: a new pod, room on a node, a node that is otherwise than before.
fn matters(change: &Change) -> bool {
    match &change.object {
        Changed::Pod { before: None, after: Some(after) } => after.is_unplaced(),
        Changed::Pod { before: Some(before), after: Some(after) } => {
            // Taking room matters too: what was decided without knowing of it was not written, and is to be decided again.
            before.is_finished() != after.is_finished() || (after.is_unplaced() && !before.is_unplaced())
        }
        Changed::Pod { before: _, after: None } => true,
        Changed::Node { before: Some(before), after: Some(after) } => {
            let facts = |node: &Node| (node.condition.clone(), node.allocatable, node.labels.clone(), node.cordon.is_some());
            facts(before) != facts(after)
        }
        Changed::Node { before: _, after: _ } => true,
    }
}
