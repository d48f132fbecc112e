//! The live sessions by node, and one request's way over them.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use cube_api::meta::Name;
use cube_api::{ApiError, ErrorCode};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper::rt::{Read, Write};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::stream::NodeStream;
use super::unavailable;
use crate::h2;
use crate::tasks::Tasks;

/// For a node to begin its answer. A node asks Docker first, and gives up on it after 60 s with a better message than ours.
const OPEN_TIMEOUT: Duration = Duration::from_secs(65);
/// For the rest of an error's body.
const ERROR_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest error that is read, in bytes.
const MAX_ERROR: usize = 64 * 1024;

/// The live sessions.
pub struct Sessions {
    tasks: Tasks,
    tickets: AtomicU64,
    live: Mutex<BTreeMap<Name, Session>>,
}

/// A connected node.
#[derive(Clone)]
struct Session {
    ticket: Ticket,
    client: SendRequest<Body>,
    bulk: Arc<Semaphore>,
    end: CancellationToken,
}

/// Orders the sessions of a node: a higher one is newer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(u64);

impl Sessions {
    /// None yet.
    pub fn new(tasks: Tasks) -> Self {
        Self { tasks, tickets: AtomicU64::new(0), live: Mutex::default() }
    }

    /// The next session's place in the order.
    pub fn ticket(&self) -> Ticket {
        Ticket(self.tickets.fetch_add(1, Ordering::Relaxed))
    }

    /// Whether a node has a session.
    pub fn is_live(&self, node: &Name) -> bool {
        self.live.lock().expect(UNPOISONED).contains_key(node)
    }

    /// The nodes that have one.
    pub fn names(&self) -> Vec<Name> {
        self.live.lock().expect(UNPOISONED).keys().cloned().collect()
    }

    /// Holds a session on a connection until it ends; `work` runs as long, unless it ends by itself.
    pub async fn run<I, W, F>(&self, node: &Name, ticket: Ticket, io: I, work: W)
    where
        I: Read + Write + Unpin + Send + 'static,
        W: FnOnce(SendRequest<Body>) -> F,
        F: Future<Output = ()>,
    {
        // Whatever way this function is left, the connection and its streams end with it.
        let end = self.tasks.stopping().child_token();
        let _end_at_return = end.clone().drop_guard();
        let (client, connection) = match h2::client(io, h2::Executor::new(&self.tasks, &end)).await {
            Ok(both) => both,
            Err(error) => return tracing::info!(%node, error = &error as &dyn std::error::Error, "the session failed at its start"),
        };
        let bulk = Arc::new(Semaphore::new(h2::MAX_BULK_STREAMS));
        let session = Session { ticket, client: client.clone(), bulk, end: end.clone() };
        let Some(_registered) = self.register(node, session) else {
            return tracing::info!(%node, "a session was dropped: a newer one of the same node is there already");
        };
        tracing::info!(%node, "the node is connected");
        tokio::select! {
            ended = connection => match ended {
                Ok(()) => tracing::info!(%node, "the node's session ended: it hung up or fell silent"),
                Err(error) => tracing::info!(%node, error = &error as &dyn std::error::Error, "the node's session broke"),
            },
            () = end.cancelled() => tracing::info!(%node, "the node's session was closed: a newer one took its place, or the leader stops"),
            () = work(client) => {}
        }
    }

    /// Makes it the node's session and ends the one before; `None` if that one is newer.
    fn register(&self, node: &Name, session: Session) -> Option<Registered<'_>> {
        let mut live = self.live.lock().expect(UNPOISONED);
        if let Some(other) = live.get(node) {
            if other.ticket > session.ticket {
                return None;
            }
            other.end.cancel();
        }
        let ticket = session.ticket;
        live.insert(node.clone(), session);
        Some(Registered { sessions: self, node: node.clone(), ticket })
    }

    /// Sends a request whose answer is a stream of frames.
    pub async fn open(&self, node: &Name, request: Request<Body>) -> Result<NodeStream, ApiError> {
        let session = self.live.lock().expect(UNPOISONED).get(node).cloned();
        let Some(mut session) = session else { return Err(unavailable(node, "is not connected")) };
        let Ok(permit) = session.bulk.try_acquire_owned() else {
            let message = format!("node {node} has {} streams of logs and exec open, the most at a time", h2::MAX_BULK_STREAMS);
            return Err(ApiError::new(ErrorCode::Busy, message).hint("end some of them, or try again later"));
        };
        let response = match tokio::time::timeout(OPEN_TIMEOUT, session.client.send_request(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => {
                tracing::debug!(%node, error = &error as &dyn std::error::Error, "a request to a node failed");
                return Err(unavailable(node, "was lost before it answered"));
            }
            Err(_) => return Err(unavailable(node, &format!("did not answer within {} s", OPEN_TIMEOUT.as_secs()))),
        };
        match response.status() {
            StatusCode::OK => Ok(NodeStream::new(node.clone(), Body::new(response.into_body()), permit)),
            _ => Err(refusal(node, response).await),
        }
    }
}

const UNPOISONED: &str = "nothing panics while it is held";

/// Takes a session out of the list at its end, unless a newer one is there already.
struct Registered<'a> {
    sessions: &'a Sessions,
    node: Name,
    ticket: Ticket,
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        let mut live = self.sessions.live.lock().expect(UNPOISONED);
        if live.get(&self.node).is_some_and(|session| session.ticket == self.ticket) {
            live.remove(&self.node);
        }
    }
}

/// What a node answered instead of what it was asked for.
pub async fn refusal(node: &Name, response: Response<Incoming>) -> ApiError {
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_ERROR).collect();
    let error = match tokio::time::timeout(ERROR_TIMEOUT, body).await {
        Ok(Ok(body)) => serde_json::from_slice(&body.to_bytes()).ok(),
        Ok(Err(_)) | Err(_) => None,
    };
    error.unwrap_or_else(|| unavailable(node, &format!("answered {status} without saying why")))
}
