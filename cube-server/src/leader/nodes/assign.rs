//! Keeps a node's assignment the newest, as long as its session lives.
//!
//! Woken by the store's changes, not by time: a commit reaches the node at once. Only changes that its assignment is made of count; the
//! many writes of status don't.

use std::time::Duration;

use axum::body::Body;
use cube_api::ApiError;
use cube_api::meta::{Name, NodeId, Revision};
use cube_api::routes::node;
use cube_api::session::{AssignedPod, Assignment, AssignmentAccepted};
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use hyper::client::conn::http2::SendRequest;

use super::sessions::refusal;
use super::{unavailable, uri};
use crate::ambient::Ambient;
use crate::backoff::Backoff;
use crate::leader::store::{Change, Changed, Changes, PodRow, Store};

/// For a node to write an assignment to its ledger and say so.
const PUT_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest answer that is read, in bytes.
const MAX_ANSWER: usize = 64 * 1024;

/// Sends the node's assignment at once and whenever it changed. Drop it with the session.
///
/// Ends, and the session with it, when the node was deleted or is another data folder's now: without a row a node would stay connected, and
/// neither get pods nor be listed, until it happens to dial again.
pub async fn keep_assigned(store: Store, ambient: Ambient, node: Name, node_id: NodeId, client: SendRequest<Body>) {
    let mut delivery = Delivery::new(node.clone(), client);
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
    let mut changes = None;
    loop {
        // The watch begins before the assignment is made: what comes between is seen twice, never missed.
        let mut watched = match changes.take() {
            Some(watched) => watched,
            None => watch(&store).await,
        };
        if store.read(|state| state.nodes.get(&node).is_none_or(|known| known.node_id != node_id)) {
            return tracing::info!(%node, "the node was deleted: its session ends, so that it joins anew");
        }
        let assignment = store.assignment(&node);
        let made_at = Revision(assignment.generation.0);
        match delivery.deliver(assignment).await {
            Ok(()) => backoff.reset(),
            Err(error) => {
                let wait = backoff.next(ambient.random());
                tracing::warn!(%node, again_in = ?wait, "the node didn't take its assignment: {error}");
                tokio::time::sleep(wait).await;
                changes = Some(watched);
                continue;
            }
        }
        if wait_for_change(&mut watched, &node, made_at).await {
            changes = Some(watched);
        }
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

/// Waits for a change of the node's assignment that is newer than `seen`; `false` when the watch fell behind (or the store closes).
async fn wait_for_change(changes: &mut Changes, node: &Name, seen: Revision) -> bool {
    while let Some(change) = changes.next().await {
        if change.revision > seen && concerns(&change, node) {
            return true;
        }
    }
    // A closed store answers at once, for ever: let the end of the session be seen.
    tokio::task::yield_now().await;
    false
}

/// Whether a change may change the node's assignment, or whether there is one.
fn concerns(change: &Change, node: &Name) -> bool {
    match &change.object {
        Changed::Pod { before, after } => {
            let assigned = |row: &Option<std::sync::Arc<PodRow>>| row.clone().filter(|row| row.pod.placement.node.as_ref() == Some(node));
            match (assigned(before), assigned(after)) {
                (None, None) => false,
                (Some(_), None) | (None, Some(_)) => true,
                (Some(a), Some(b)) => (a.restarts, &a.retired, &a.pod.spec) != (b.restarts, &b.retired, &b.pod.spec),
            }
        }
        // What it says of itself changes nothing; that it was deleted, cordoned or not any more, or another data folder took it over, does.
        Changed::Node { before: Some(before), after } => {
            let told = |of: &cube_api::node::Node| (of.node_id, of.cordon.is_some());
            before.name == *node && after.as_ref().is_none_or(|after| told(after) != told(before))
        }
        Changed::Node { before: None, after: _ } => false,
    }
}

/// What the node has, and the way to it.
struct Delivery {
    node: Name,
    client: SendRequest<Body>,
    sent: Option<(Vec<AssignedPod>, bool)>,
}

impl Delivery {
    fn new(node: Name, client: SendRequest<Body>) -> Self {
        Self { node, client, sent: None }
    }

    /// Hands an assignment over, unless the node took the same set already.
    async fn deliver(&mut self, assignment: Assignment) -> Result<(), ApiError> {
        if self.sent.as_ref().is_some_and(|(pods, cordoned)| *pods == assignment.pods && *cordoned == assignment.cordoned) {
            return Ok(());
        }
        let accepted = match tokio::time::timeout(PUT_TIMEOUT, self.put(&assignment)).await {
            Ok(answer) => answer?,
            Err(_) => return Err(unavailable(&self.node, &format!("did not answer within {} s", PUT_TIMEOUT.as_secs()))),
        };
        if accepted.generation > assignment.generation {
            return Err(unavailable(&self.node, &format!("has generation {} already", accepted.generation.0)));
        }
        self.sent = Some((assignment.pods, assignment.cordoned));
        Ok(())
    }

    async fn put(&mut self, assignment: &Assignment) -> Result<AssignmentAccepted, ApiError> {
        let body = serde_json::to_vec(assignment).expect("plain data");
        let mut request = Request::new(Body::from(body));
        *request.method_mut() = Method::PUT;
        *request.uri_mut() = uri(node::ASSIGNMENT);
        request.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
        let lost = |error: &dyn std::error::Error| unavailable(&self.node, &format!("was lost before it answered: {error}"));
        let response = self.client.send_request(request).await.map_err(|e| lost(&e))?;
        if response.status() != StatusCode::OK {
            return Err(refusal(&self.node, response).await);
        }
        let answer = Limited::new(response.into_body(), MAX_ANSWER).collect().await.map_err(|e| lost(e.as_ref()))?;
        serde_json::from_slice(&answer.to_bytes()).map_err(|e| unavailable(&self.node, &format!("answered what can't be read: {e}")))
    }
}

#[cfg(test)]
mod tests;
