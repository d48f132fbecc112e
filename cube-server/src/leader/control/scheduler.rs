//! Gives pods a node.

use std::sync::Arc;
use std::time::Duration;

use cube_api::Node;
use cube_api::meta::Revision;
use cube_api::pod::Phase;

use super::{AGAIN_AFTER, log_failure, news};
use crate::leader::plan::schedule::{Candidate, Predecessor, Unplaced, schedule};
use crate::leader::store::{Change, Changed, NodeLoad, Placing, PodRow, State, Store};

/// Runs until it is dropped. No timer stands between a commit that matters and the pass that it causes.
pub(super) async fn run(store: Store, every: Duration) {
    loop {
        let snapshot = store.read(Snapshot::of);
        let placings = snapshot.decide();
        let at_most = if placings.is_empty() { every } else { write(&store, placings, every).await };
        news(&store, snapshot.revision, at_most, matters).await;
    }
}

/// What a pass looks at, as of one revision. Taken out of the state, because commits wait for whoever reads there, and a pass over many pods and
/// nodes takes a while.
struct Snapshot {
    revision: Revision,
    /// Each with the pod of its name that has containers on a node still.
    unbound: Vec<(Arc<PodRow>, Option<Arc<PodRow>>)>,
    /// Empty where nothing is unbound.
    nodes: Vec<(Arc<Node>, Option<NodeLoad>)>,
}

impl Snapshot {
    fn of(state: &State) -> Self {
        let unbound: Vec<_> = state.unbound().map(|row| (row.clone(), predecessor(state, row).cloned())).collect();
        let with_load = |node: &Arc<Node>| (node.clone(), state.load(&node.name).cloned());
        let nodes = if unbound.is_empty() { Vec::new() } else { state.nodes.values().map(with_load).collect() };
        Self { revision: state.revision, unbound, nodes }
    }

    fn decide(&self) -> Vec<Placing> {
        let pods: Vec<_> = self.unbound.iter().map(|(row, predecessor)| unplaced(row, predecessor.as_deref())).collect();
        schedule(&pods, self.nodes.iter().map(|(node, load)| candidate(node, load.as_ref())).collect())
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

fn candidate<'a>(node: &'a Node, load: Option<&NodeLoad>) -> Candidate<'a> {
    Candidate::new(&node.name, &node.labels, node.condition.is_ready(), node.capacity, load)
}

fn predecessor<'a>(state: &'a State, row: &PodRow) -> Option<&'a Arc<PodRow>> {
    let metadata = &row.pod.metadata;
    let mut others = state.namesakes(&metadata.name).into_iter().filter(|other| other.pod.metadata.uid != metadata.uid);
    others.find(|other| other.pod.placement.node.is_some())
}

fn unplaced<'a>(row: &'a PodRow, predecessor: Option<&'a PodRow>) -> Unplaced<'a> {
    let metadata = &row.pod.metadata;
    let predecessor = predecessor.and_then(|old| Some(Predecessor { uid: old.pod.metadata.uid, node: old.pod.placement.node.as_ref()? }));
    let waiting_for = row.pod.placement.waiting_for.as_deref();
    Unplaced { uid: metadata.uid, name: &metadata.name, spec: &row.pod.spec, waiting_for, predecessor }
}

/// Whether a change may let a pod be placed, or changes the reason why none is: a new pod, room on a node, a node that is otherwise than before.
fn matters(change: &Change) -> bool {
    let finished = |row: &PodRow| match row.pod.status.phase {
        Phase::Succeeded | Phase::Failed => true,
        Phase::Pending | Phase::Running => false,
    };
    match &change.object {
        Changed::Pod { before: None, after: Some(after) } => after.pod.placement.node.is_none(),
        Changed::Pod { before: Some(before), after: Some(after) } => !finished(before) && finished(after),
        Changed::Pod { before: _, after: None } => true,
        Changed::Node { before: Some(before), after: Some(after) } => {
            before.condition != after.condition || before.capacity != after.capacity || before.labels != after.labels
        }
        Changed::Node { before: _, after: _ } => true,
    }
}
