//! Says which nodes are ready.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cube_api::meta::{Name, Revision};
use cube_api::node::NodeCondition;
use jiff::{SignedDuration, Timestamp};

use super::{AGAIN_AFTER, SessionView, log_failure, news};
use crate::ambient::Ambient;
use crate::leader::plan::health::{Seen, conditions};
use crate::leader::store::{Change, Changed, State, Store, StoreError};

/// The loop, with what it remembers between two passes.
pub(super) struct Nodes {
    store: Store,
    sessions: Arc<dyn SessionView>,
    ambient: Ambient,
    not_ready_after: SignedDuration,
    /// When the leader started.
    started: Timestamp,
    /// When each node was last seen with a session. In memory only: after a restart `started` stands for it.
    heard: BTreeMap<Name, Timestamp>,
}

impl Nodes {
    pub(super) fn new(store: Store, sessions: Arc<dyn SessionView>, ambient: Ambient, not_ready_after: Duration) -> Self {
        let not_ready_after = SignedDuration::try_from(not_ready_after).unwrap_or(SignedDuration::MAX);
        Self { store, sessions, started: ambient.now(), ambient, not_ready_after, heard: BTreeMap::new() }
    }

    /// Runs until it is dropped.
    pub(super) async fn run(mut self, every: Duration) {
        loop {
            let (looked_at, changed) = self.decide();
            let mut at_most = every;
            for (name, condition) in changed {
                match self.store.set_condition(name, condition).await {
                    // Refused: the node was deleted in the meantime.
                    Ok(()) | Err(StoreError::Refused(_)) => {}
                    Err(error) => {
                        log_failure("noting a node's condition", &error);
                        at_most = AGAIN_AFTER.min(every);
                    }
                }
            }
            news(&self.store, looked_at, at_most, matters).await;
        }
    }

    fn decide(&mut self) -> (Revision, Vec<(Name, NodeCondition)>) {
        let now = self.ambient.now();
        let live = self.sessions.live();
        self.heard.extend(live.keys().map(|name| (name.clone(), now)));
        self.store.read(|state| {
            self.heard.retain(|name, _| state.nodes.contains_key(name));
            let seen = state.nodes.keys().filter_map(|name| seen(state, name, live.contains_key(name), self.heard.get(name)));
            (state.revision, conditions(seen, self.started, now, self.not_ready_after))
        })
    }
}

fn seen<'a>(state: &'a State, name: &'a Name, connected: bool, heard: Option<&Timestamp>) -> Option<Seen<'a>> {
    let node = state.nodes.get(name)?;
    let last_heard = heard.map_or(node.seen_at, |heard| node.seen_at.max(*heard));
    Some(Seen { name, condition: &node.condition, trouble: state.trouble(name), connected, last_heard })
}

/// A node joined, or said something of itself: perhaps that it is in trouble.
fn matters(change: &Change) -> bool {
    match &change.object {
        Changed::Node { before: _, after } => after.is_some(),
        Changed::Pod { before: _, after: _ } => false,
    }
}
