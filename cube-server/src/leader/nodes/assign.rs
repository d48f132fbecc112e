//! Keeps a node's assignment the newest, as long as its session lives.
//!
//! Woken by the store's changes ([`super::pokes`]), not by time: a commit reaches the node at once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use cube_api::ApiError;
use cube_api::meta::{Labels, Name, NodeId, Revision, Uid};
use cube_api::routes::node;
use cube_api::session::{AssignedPod, Assignment, AssignmentAccepted, Generation, Unchanged, Want};
use cube_api::sources::{Sources, Values};
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use hyper::client::conn::http2::SendRequest;
use serde::Serialize;

use super::pokes::Poke;
use super::sessions::refusal;
use super::{unavailable, uri};
use crate::ambient::Ambient;
use crate::backoff::Backoff;
use crate::leader::store::Store;

/// For a node to write an assignment to its ledger and say so.
const PUT_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest answer that is read, in bytes.
const MAX_ANSWER: usize = 64 * 1024;

/// Sends the node's assignment at once and whenever it changed. Drop it with the session.
///
/// Ends, and the session with it, when the node was deleted or is another data folder's now: without a row a node would stay connected, and
/// neither get pods nor be listed, until it happens to dial again.
pub async fn keep_assigned(store: Store, ambient: Ambient, poke: Poke, node: Name, node_id: NodeId, client: SendRequest<Body>) {
    let mut delivery = Delivery::new(node.clone(), client);
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
    loop {
        // A change that comes after these looks is a poke that waits below: it is seen, perhaps twice, never missed.
        if store.read(|state| state.nodes.get(&node).is_none_or(|known| known.node_id != node_id)) {
            return tracing::info!(%node, "the node was deleted: its session ends, so that it joins anew");
        }
        match delivery.deliver(store.assignment(&node)).await {
            Ok(()) => backoff.reset(),
            Err(error) => {
                let wait = backoff.next(ambient.random());
                tracing::warn!(%node, again_in = ?wait, "the node didn't take its assignment: {error}");
                tokio::time::sleep(wait).await;
                continue;
            }
        }
        poke.next().await;
    }
}

/// What the node has, and the way to it.
struct Delivery {
    node: Name,
    client: SendRequest<Body>,
    /// What it took last; none if that isn't known.
    sent: Option<Sent>,
}

/// An assignment that a node took.
struct Sent {
    told: Told,
    generation: Generation,
    takes_unchanged: bool,
}

/// What an assignment says of its pods, whether more may come, and which volumes go.
#[derive(PartialEq, Eq)]
struct Told {
    pods: BTreeMap<Uid, (Want, Versions, Labels)>,
    cordoned: bool,
    drop_volumes: Vec<Uid>,
}

/// Of the values that a pod takes, by secret (true) and name; and of its named volumes.
type Versions = (Vec<(bool, Name, Revision)>, Vec<Uid>);

impl Told {
    /// Specs belong to the uids, and values to their revisions: kept as well, they would be a copy of the cluster.
    fn by<Spec>(assignment: &Assignment<Spec>) -> Self {
        let of = |pod: &AssignedPod<Spec>| (pod.want.clone(), versions(pod.sources.as_deref()), pod.labels.clone());
        let pods = assignment.pods.iter().map(|pod| (pod.uid, of(pod))).collect();
        Self { pods, cordoned: assignment.cordoned, drop_volumes: assignment.drop_volumes.clone() }
    }
}

impl Sent {
    /// The same assignment to a node that has this one: what it knows of a pod isn't said again.
    fn followed_by<Spec>(&self, next: &Told, mut assignment: Assignment<Spec>) -> Assignment<Spec> {
        if self.takes_unchanged {
            let is_known = |pod: &mut AssignedPod<Spec>| self.told.pods.get(&pod.uid) == next.pods.get(&pod.uid);
            let pods = assignment.pods.extract_if(.., is_known).map(|pod| pod.uid).collect();
            assignment.unchanged = Some(Unchanged { since: self.generation, pods });
        }
        assignment
    }
}

fn versions(sources: Option<&Sources>) -> Versions {
    let Some(Sources { secrets, configs, volumes }) = sources else { return Versions::default() };
    let of = |is_secret: bool, values: &BTreeMap<Name, Arc<Values>>| -> Vec<_> {
        values.iter().map(|(name, values)| (is_secret, name.clone(), values.revision)).collect()
    };
    ([of(true, secrets), of(false, configs)].concat(), volumes.values().copied().collect())
}

impl Delivery {
    fn new(node: Name, client: SendRequest<Body>) -> Self {
        Self { node, client, sent: None }
    }

    /// Hands an assignment over, unless the node took the same set already. What a node didn't take, or may have taken, is followed by all.
    async fn deliver(&mut self, assignment: Assignment<impl Serialize>) -> Result<(), ApiError> {
        let told = Told::by(&assignment);
        let generation = assignment.generation;
        let assignment = match self.sent.take() {
            Some(sent) if sent.told == told => {
                self.sent = Some(sent);
                return Ok(());
            }
            Some(sent) => sent.followed_by(&told, assignment),
            None => assignment,
        };
        let accepted = match tokio::time::timeout(PUT_TIMEOUT, self.put(&assignment)).await {
            Ok(answer) => answer?,
            Err(_) => return Err(unavailable(&self.node, &format!("did not answer within {} s", PUT_TIMEOUT.as_secs()))),
        };
        if accepted.generation > generation {
            return Err(unavailable(&self.node, &format!("has generation {} already", accepted.generation.0)));
        }
        self.sent = Some(Sent { told, generation, takes_unchanged: accepted.takes_unchanged });
        Ok(())
    }

    async fn put(&mut self, assignment: &Assignment<impl Serialize>) -> Result<AssignmentAccepted, ApiError> {
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
