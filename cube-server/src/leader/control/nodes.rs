//! Says which nodes are ready and which are lost.
//!
//! Silence is measured by a clock that only moves on, and only as far as this loop watched it pass: a leader that was stopped or starved for a
//! minute (or whose machine slept) heard nobody in it, which says nothing of the nodes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cube_api::meta::{Name, Revision};
use cube_api::node::{Node, NodeCondition, NodeRole};
use jiff::Timestamp;
use tokio::time::Instant;

use super::{AGAIN_AFTER, Options, SessionView, log_failure, news};
use crate::leader::plan::health::{Limits, Seen, conditions};
use crate::leader::store::{Change, Changed, Store, StoreError};

/// Of the time between two looks so much counts at most, or twice what should lie between them.
const LONGEST_GAP: Duration = Duration::from_secs(5);

/// The loop, with what it remembers between two passes.
pub(super) struct Nodes {
    store: Store,
    sessions: Arc<dyn SessionView>,
    every: Duration,
    limits: Limits,
    last_look: Instant,
    /// How long the loop has watched since the leader started.
    watched: Duration,
    /// In memory only: after a restart nobody was heard before.
    heard: BTreeMap<Name, Heard>,
}

/// When a node was last heard.
struct Heard {
    /// How long the loop had watched then.
    at: Duration,
    /// The node's own mark of it: it joined or reported since, if that is another one.
    seen_at: Timestamp,
}

/// What a pass came to.
struct Decided {
    looked_at: Revision,
    /// Each with the node's revision that was looked at.
    changed: Vec<(Name, Revision, NodeCondition)>,
}

impl Nodes {
    pub(super) fn new(store: Store, sessions: Arc<dyn SessionView>, options: &Options) -> Self {
        let Options { not_ready_after, lost_after, check_nodes_every: every, .. } = *options;
        let start_grace = lost_after.unwrap_or_default().saturating_mul(2);
        let limits = Limits { not_ready_after, lost_after, start_grace };
        Self { store, sessions, every, limits, last_look: Instant::now(), watched: Duration::ZERO, heard: BTreeMap::new() }
    }

    /// Runs until it is dropped.
    pub(super) async fn run(mut self) {
        loop {
            let Decided { looked_at, changed } = self.decide();
            let mut at_most = self.every;
            for (name, as_of, condition) in changed {
                match self.write(name, as_of, condition).await {
                    // Refused: the node was deleted in the meantime.
                    Ok(()) | Err(StoreError::Refused(_)) => {}
                    Err(error) => {
                        log_failure("noting a node's condition", &error);
                        at_most = AGAIN_AFTER.min(self.every);
                    }
                }
            }
            news(&self.store, looked_at, at_most, matters).await;
        }
    }

    async fn write(&self, name: Name, as_of: Revision, condition: NodeCondition) -> Result<(), StoreError> {
        match condition {
            NodeCondition::Lost { reason } => {
                tracing::warn!(node = %name, "the node is lost: {reason}");
                self.store.lose_node(name, as_of, reason).await
            }
            condition @ (NodeCondition::Ready | NodeCondition::NotReady { .. }) => self.store.set_condition(name, condition).await,
        }
    }

    fn decide(&mut self) -> Decided {
        let gap = self.last_look.elapsed();
        self.last_look += gap;
        self.watched += gap.min(LONGEST_GAP.max(self.every.saturating_mul(2)));
        let live = self.sessions.live();
        let Self { store, limits, watched, heard, .. } = self;
        let leaders_own = store.trouble();
        store.read(|state| {
            heard.retain(|name, _| state.nodes.contains_key(name));
            let seen = state.nodes.iter().map(|(name, node)| {
                let connected = live.contains_key(name);
                let silent = silence(heard, node, connected, *watched);
                // On one machine: what the leader lacks, its node lacks.
                let own = leaders_own.as_deref().filter(|_| node.role == NodeRole::Leader);
                Seen { name, condition: &node.condition, trouble: state.trouble(name).or(own), connected, silent }
            });
            let changed = conditions(&seen.collect::<Vec<_>>(), *watched, limits);
            let with_revision = |(name, condition)| {
                let revision = state.nodes.get(&name)?.revision;
                Some((name, revision, condition))
            };
            Decided { looked_at: state.revision, changed: changed.into_iter().filter_map(with_revision).collect() }
        })
    }
}

/// How long a node has been silent; notes that it was heard, if so.
fn silence(heard: &mut BTreeMap<Name, Heard>, node: &Node, connected: bool, watched: Duration) -> Duration {
    let last = heard.entry(node.name.clone()).or_insert(Heard { at: watched, seen_at: node.seen_at });
    if connected || last.seen_at != node.seen_at {
        *last = Heard { at: watched, seen_at: node.seen_at };
    }
    watched.saturating_sub(last.at)
}

/// A node joined, or said something of itself: perhaps that it is in trouble.
fn matters(change: &Change) -> bool {
    match &change.object {
        Changed::Node { before: _, after } => after.is_some(),
        Changed::Pod { before: _, after: _ } | Changed::Object { .. } => false,
    }
}
