//! A node's newest assignment: made anew when a commit concerns the node, sent until the node has it.

use std::time::Duration;

use axum::body::Body;
use cube_api::ApiError;
use cube_api::meta::{Name, Revision};
use cube_api::routes::node;
use cube_api::session::{Assignment, AssignmentAccepted};
use http::Method;
use tokio::sync::watch;

use super::{Sender, answer_bytes, call, internal};
use crate::ambient::Ambient;
use crate::leader::store::{Change, Changed, PodRow, Store};

/// Between tries of an assignment that the node did not take.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Before the state is read whole again, after the store said that this watcher is too far behind.
const LAG_PAUSE: Duration = Duration::from_millis(50);

/// Keeps `newest` at the node's assignment. Cost follows the changes of this node: others are only looked at.
pub(super) async fn feed(store: Store, node: Name, newest: watch::Sender<Assignment>) {
    loop {
        let mut known = publish(&store, &node, &newest);
        if let Ok(mut changes) = store.watch(known) {
            while let Some(change) = changes.next().await {
                // Changes up to `known` are in what was published: a batch of them costs one assignment.
                if change.revision > known && concerns(&change, &node) {
                    known = publish(&store, &node, &newest);
                }
            }
        }
        tokio::time::sleep(LAG_PAUSE).await;
    }
}

fn publish(store: &Store, node: &Name, newest: &watch::Sender<Assignment>) -> Revision {
    let assignment = store.assignment(node);
    let revision = Revision(assignment.generation.0);
    newest.send_if_modified(|sent| {
        let differs = sent.pods != assignment.pods;
        if differs {
            *sent = assignment;
        }
        differs
    });
    revision
}

/// Whether a change may alter the node's assignment: statuses, the most frequent changes, never do.
fn concerns(change: &Change, node: &Name) -> bool {
    let Changed::Pod { before, after } = &change.object else { return false };
    let ours = |row: &PodRow| row.pod.placement.node.as_ref() == Some(node);
    let either = before.as_deref().is_some_and(ours) || after.as_deref().is_some_and(ours);
    let same = match (before.as_deref(), after.as_deref()) {
        (Some(before), Some(after)) => {
            ours(before) == ours(after)
                && before.restarts == after.restarts
                && before.retired == after.retired
                && before.pod.spec == after.pod.spec
        }
        (None, _) | (_, None) => false,
    };
    either && !same
}

/// Sends each assignment, the first at once; a newer one takes the place of one that is being retried. Ends when the feed does.
pub(super) async fn push(sender: Sender, node: &Name, mut newest: watch::Receiver<Assignment>, ambient: &Ambient) {
    let mut pause = FIRST_PAUSE;
    loop {
        let assignment = newest.borrow_and_update().clone();
        let wait = match send(sender.clone(), node, &assignment).await {
            Ok(accepted) => {
                if accepted.generation > assignment.generation {
                    tracing::warn!(%node, sent = assignment.generation.0, has = accepted.generation.0, "the node has a newer assignment");
                }
                pause = FIRST_PAUSE;
                None
            }
            Err(error) => {
                tracing::warn!(%node, %error, "the node did not take its assignment");
                pause = (pause * 2).min(LONGEST_PAUSE);
                Some(pause.mul_f64(0.8 + 0.4 * (ambient.random() % 1000) as f64 / 1000.0))
            }
        };
        // Cancel-safe: `changed` only marks a value as seen when it returns.
        let changed = match wait {
            None => newest.changed().await,
            Some(wait) => tokio::time::timeout(wait, newest.changed()).await.unwrap_or(Ok(())),
        };
        if changed.is_err() {
            return;
        }
    }
}

async fn send(sender: Sender, to: &Name, assignment: &Assignment) -> Result<AssignmentAccepted, ApiError> {
    let body = serde_json::to_vec(assignment).map_err(|error| internal(format!("an assignment can't be written: {error}")))?;
    let answer = call(sender, to, Method::PUT, node::ASSIGNMENT, Body::from(body)).await?;
    let bytes = answer_bytes(answer).await;
    let accepted = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    accepted.ok_or_else(|| super::unavailable(to, "did not say which assignment it has"))
}
