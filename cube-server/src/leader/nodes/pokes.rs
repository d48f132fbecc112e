//! Who is to look whether its assignment is another one.
//!
//! One task follows the store's changes for all sessions and wakes those of the nodes that a change concerns. Each session following them by
//! itself would cost sessions x changes: 5,000 nodes that take 150,000 pods would look at some five thousand million.
//!
//! A node is woken at once, but in a burst: an assignment for each pod would be a request, a commit and a report for each. While many wait to be
//! placed, those that a node got are told together, at most [`TOGETHER`] after the first of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cube_api::meta::{Labels, Name};
use cube_api::node::Node;
use cube_api::object::Object;
use cube_api::pod::PodSpec;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio::time::error::Elapsed;

use crate::backoff::Waits;
use crate::leader::store::{Change, Changed, Changes, PodRow, Retired, State, Store, asked_labels};

/// How long nodes may be left alone with what they got in a burst: a bit longer each time, as a burst that has lasted goes on. Telling 5,000 nodes costs
/// two cores some seconds, in which less is placed.
const TOGETHER: Waits = Waits::new(Duration::from_secs(2), Duration::from_secs(8));

/// So many pods that wait to be placed, and that nobody has looked at, are a burst.
const BURST: usize = 512;

/// The sessions that want to be woken. Clones share them.
#[derive(Clone, Default)]
pub struct Pokes {
    /// A node has two for a moment, while a newer session takes the place of an older one.
    sessions: Arc<Mutex<BTreeMap<Name, Vec<Arc<Notify>>>>>,
}

/// A session's place among those that are woken.
pub struct Poke {
    pokes: Pokes,
    node: Name,
    wake: Arc<Notify>,
}

impl Pokes {
    /// Wakes the sessions of this node from now on, until what is returned is dropped.
    pub fn of(&self, node: &Name) -> Poke {
        let wake = Arc::new(Notify::new());
        self.with(|sessions| sessions.entry(node.clone()).or_default().push(wake.clone()));
        Poke { pokes: self.clone(), node: node.clone(), wake }
    }

    /// Follows the changes until it is dropped.
    pub async fn follow(self, store: Store) {
        loop {
            let mut changes = watch(&store).await;
            // What came before this watch, and after the one that fell behind, is looked at by everybody.
            self.poke_all();
            self.follow_while_it_keeps_up(&store, &mut changes).await;
            // A closed store ends each watch at once, for ever: let the server's end be seen.
            tokio::task::yield_now().await;
        }
    }

    async fn follow_while_it_keeps_up(&self, store: &Store, changes: &mut Changes) {
        let mut held = BTreeSet::new();
        let mut due = Instant::now();
        // How often nodes were told in this burst.
        let mut rounds = 0;
        loop {
            let next = match held.is_empty() {
                true => Ok(changes.next().await),
                false => tokio::time::timeout_at(due, changes.next()).await,
            };
            match next {
                Ok(Some(change)) if matches!(change.object, Changed::Object { .. }) => {
                    store.read(|state| concerned_by_object(state, &change)).iter().for_each(|node| self.poke(node));
                }
                Ok(Some(change)) => match concerned(&change) {
                    Some(node) if is_placing(&change) => {
                        if held.is_empty() {
                            due = Instant::now() + TOGETHER.after(rounds + 1);
                        }
                        held.insert(node.clone());
                    }
                    Some(node) => self.poke(node),
                    None => {}
                },
                // All look when the watch begins anew.
                Ok(None) => return,
                Err(Elapsed { .. }) => {}
            }
            if held.is_empty() {
                continue;
            }
            let is_burst = store.read(|state| state.fresh().len() >= BURST);
            if !is_burst || Instant::now() >= due {
                rounds = if is_burst { rounds + 1 } else { 0 };
                std::mem::take(&mut held).iter().for_each(|node| self.poke(node));
            }
        }
    }

    fn poke(&self, node: &Name) {
        self.with(|sessions| sessions.get(node).into_iter().flatten().for_each(|wake| wake.notify_one()));
    }

    fn poke_all(&self) {
        self.with(|sessions| sessions.values().flatten().for_each(|wake| wake.notify_one()));
    }

    /// Nothing panics while it is held.
    fn with<T>(&self, look: impl FnOnce(&mut BTreeMap<Name, Vec<Arc<Notify>>>) -> T) -> T {
        look(&mut self.sessions.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Poke {
    /// Waits until something happened since it returned the last time, or since the beginning: one that comes while nobody waits is kept.
    pub async fn next(&self) {
        self.wake.notified().await;
    }
}

impl Drop for Poke {
    fn drop(&mut self) {
        self.pokes.with(|sessions| {
            let Some(of_node) = sessions.get_mut(&self.node) else { return };
            of_node.retain(|wake| !Arc::ptr_eq(wake, &self.wake));
            if of_node.is_empty() {
                sessions.remove(&self.node);
            }
        });
    }
}

/// A watch from now on. The store keeps the newest changes, so only one that just fell behind again is refused.
async fn watch(store: &Store) -> Changes {
    loop {
        let now = store.read(|state| state.revision);
        match store.watch(now) {
            Ok(changes) => return changes,
            Err(error) => {
                tracing::debug!(%error, "the watch begins again");
                store.moved_beyond(now).await;
            }
        }
    }
}

/// The node whose assignment a change may change, or for which it decides whether there is one. The many writes of status concern nobody.
fn concerned(change: &Change) -> Option<&Name> {
    match &change.object {
        // A pod never moves: before and after have one node, or one of them has none.
        Changed::Pod { before: Some(before), after: Some(after) } => {
            (assigned(before) != assigned(after)).then(|| node_of(after).or(node_of(before))).flatten()
        }
        Changed::Pod { before: Some(row), after: None } | Changed::Pod { before: None, after: Some(row) } => node_of(row),
        // What it says of itself changes nothing; that it was deleted, cordoned or not any more, or another data folder took it over, does.
        Changed::Node { before: Some(before), after } => {
            let told = |node: &Node| (node.node_id, node.cordon.is_some());
            after.as_ref().is_none_or(|after| told(after) != told(before)).then_some(&before.name)
        }
        Changed::Pod { before: None, after: None } | Changed::Node { before: None, after: _ } | Changed::Object { .. } => None,
    }
}

/// The nodes whose assignments have what a resource holds. Each pod is asked, which costs some milliseconds at 150,000 and happens when a person
/// changes a secret or a config.
fn concerned_by_object(state: &State, change: &Change) -> BTreeSet<Name> {
    let Changed::Object { before, after } = &change.object else { return BTreeSet::new() };
    let Some(object) = after.as_ref().or(before.as_ref()) else { return BTreeSet::new() };
    match &**object {
        Object::Secret(_) | Object::Config(_) => state.nodes_naming(object.kind(), &object.metadata().name),
        // Pods learn of theirs with their placing; its node has to remove what was deleted.
        Object::Volume(volume) => BTreeSet::from([volume.node.clone()]),
        Object::Job(_) | Object::CronJob(_) | Object::Deployment(_) => BTreeSet::new(),
    }
}

/// Whether a pod got its node by it: all that it means for that node is one more to run.
fn is_placing(change: &Change) -> bool {
    match &change.object {
        Changed::Pod { before: Some(before), after: Some(after) } => node_of(before).is_none() && node_of(after).is_some(),
        Changed::Pod { .. } | Changed::Node { .. } | Changed::Object { .. } => false,
    }
}

/// What an assignment has of a pod.
fn assigned(row: &PodRow) -> (Option<&Name>, u64, Option<&Retired>, &PodSpec, Labels) {
    (node_of(row), row.restarts, row.retired.as_ref(), &row.pod.spec, asked_labels(row))
}

fn node_of(row: &PodRow) -> Option<&Name> {
    row.pod.placement.node.as_ref()
}

#[cfg(test)]
mod tests;
