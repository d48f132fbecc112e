//! Gives pods a node.

use std::time::Duration;

use cube_api::Node;
use cube_api::pod::Phase;

use super::{AGAIN_AFTER, log_failure, news};
use crate::leader::plan::schedule::{Candidate, Predecessor, Unplaced, schedule};
use crate::leader::store::{Change, Changed, Placing, PodRow, State, Store};

/// Runs until it is dropped. No timer stands between a commit that matters and the pass that it causes.
pub(super) async fn run(store: Store, every: Duration) {
    loop {
        let (looked_at, placings) = store.read(|state| (state.revision, decide(state)));
        let at_most = if placings.is_empty() { every } else { write(&store, placings, every).await };
        news(&store, looked_at, at_most, matters).await;
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

fn decide(state: &State) -> Vec<Placing> {
    let pods: Vec<_> = state.unbound().map(|row| unplaced(state, row)).collect();
    if pods.is_empty() {
        return Vec::new();
    }
    schedule(&pods, state.nodes.values().map(|node| candidate(state, node)).collect())
}

fn candidate<'a>(state: &State, node: &'a Node) -> Candidate<'a> {
    Candidate::new(&node.name, &node.labels, node.condition.is_ready(), node.capacity, state.load(&node.name))
}

fn unplaced<'a>(state: &'a State, row: &'a PodRow) -> Unplaced<'a> {
    let metadata = &row.pod.metadata;
    let mut others = state.namesakes(&metadata.name).into_iter().filter(|other| other.pod.metadata.uid != metadata.uid);
    let predecessor = others.find_map(|other| Some(Predecessor { uid: other.pod.metadata.uid, node: other.pod.placement.node.as_ref()? }));
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
