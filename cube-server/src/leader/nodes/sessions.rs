//! The live sessions by node, and one request's way over them.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use cube_api::meta::{Instance, Name, NodeId};
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
use crate::leader::plan::claims::{Claim, Verdict, judge};
use crate::tasks::Tasks;

/// For a node to begin its answer. A node asks Docker first, and gives up on it after 60 s with a better message than ours.
const OPEN_TIMEOUT: Duration = Duration::from_secs(65);
/// For the rest of an error's body.
const ERROR_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest error that is read, in bytes.
const MAX_ERROR: usize = 64 * 1024;

/// The processes that a session remembers to have superseded or refused. Each was one of the same data folder while the session lived.
const MAX_REMEMBERED: usize = 16;

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
    /// Earlier processes of the node, refused as long as this session lives; the newest last.
    superseded: Vec<Instance>,
    /// Processes that were refused, and that was said.
    refused: Vec<Instance>,
    client: SendRequest<Body>,
    bulk: Arc<Semaphore>,
    end: CancellationToken,
}

/// A session to be: whose it is, and its place in the order.
#[derive(Debug, Clone)]
pub struct Ticket {
    /// A higher one is newer.
    number: u64,
    claim: Claim,
}

impl Sessions {
    /// None yet.
    pub fn new(tasks: Tasks) -> Self {
        Self { tasks, tickets: AtomicU64::new(0), live: Mutex::default() }
    }

    /// The next session's place in the order.
    pub fn ticket(&self, claim: Claim) -> Ticket {
        Ticket { number: self.tickets.fetch_add(1, Ordering::Relaxed), claim }
    }

    /// How many sessions were granted.
    pub fn granted(&self) -> u64 {
        self.tickets.load(Ordering::Relaxed)
    }

    /// Whether a node has a session.
    pub fn is_live(&self, node: &Name) -> bool {
        self.live.lock().expect(UNPOISONED).contains_key(node)
    }

    /// The nodes that have one.
    pub fn names(&self) -> Vec<Name> {
        self.live.lock().expect(UNPOISONED).keys().cloned().collect()
    }

    /// Whether a process may have the node's session, as of now.
    pub fn judge(&self, node: &Name, newcomer: &Claim) -> Verdict {
        let live = self.live.lock().expect(UNPOISONED);
        let session = live.get(node);
        judge(newcomer, session.map(|session| &session.ticket.claim), session.map_or(&[], |session| &session.superseded))
    }

    /// Notes that a process was refused the node's session; whether that is news.
    pub fn note_refused(&self, node: &Name, refused: &Claim) -> bool {
        let mut live = self.live.lock().expect(UNPOISONED);
        match (live.get_mut(node), refused.instance) {
            (Some(session), Some(instance)) if !session.refused.contains(&instance) => {
                remember(&mut session.refused, instance);
                true
            }
            (Some(_) | None, _) => false,
        }
    }

    /// Whether another process of the same data folder has the node's session.
    pub fn is_held_by_another(&self, node: &Name, node_id: NodeId, instance: Instance) -> bool {
        let live = self.live.lock().expect(UNPOISONED);
        let holder = live.get(node).map(|session| &session.ticket.claim).filter(|claim| claim.node_id == node_id);
        holder.and_then(|claim| claim.instance).is_some_and(|holder| holder != instance)
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
        let (superseded, refused) = (Vec::new(), Vec::new());
        let session = Session { ticket, superseded, refused, client: client.clone(), bulk, end: end.clone() };
        let Some(_registered) = self.register(node, session) else {
            return tracing::info!(%node, "a session was dropped: one that goes before it is there already");
        };
        tracing::info!(%node, "the node is connected");
        tokio::select! {
            biased;
            () = end.cancelled() => tracing::info!(%node, "the node's session was closed: a newer one took its place, or the leader stops"),
            ended = connection => match ended {
                Ok(()) => tracing::info!(%node, "the node's session ended: it hung up or fell silent"),
                Err(error) => tracing::info!(%node, error = &error as &dyn std::error::Error, "the node's session broke"),
            },
            () = work(client) => {}
        }
    }

    /// Makes it the node's session and ends the one before; `None` if that one is newer, or came in between and is not to be disturbed.
    fn register(&self, node: &Name, mut session: Session) -> Option<Registered<'_>> {
        let mut live = self.live.lock().expect(UNPOISONED);
        if let Some(other) = live.get(node) {
            let (newcomer, holder) = (&session.ticket.claim, &other.ticket.claim);
            let may = match judge(newcomer, Some(holder), &other.superseded) {
                Verdict::Newest => true,
                Verdict::CopyElsewhere | Verdict::Superseded => false,
            };
            if other.ticket.number > session.ticket.number || !may {
                return None;
            }
            if holder.node_id == newcomer.node_id {
                session.superseded.clone_from(&other.superseded);
                session.refused.clone_from(&other.refused);
            }
            if let Some(instance) = holder.instance.filter(|instance| newcomer.instance != Some(*instance)) {
                remember(&mut session.superseded, instance);
            }
            other.end.cancel();
        }
        let number = session.ticket.number;
        live.insert(node.clone(), session);
        Some(Registered { sessions: self, node: node.clone(), number })
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
    number: u64,
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        let mut live = self.sessions.live.lock().expect(UNPOISONED);
        if live.get(&self.node).is_some_and(|session| session.ticket.number == self.number) {
            live.remove(&self.node);
        }
    }
}

fn remember(instances: &mut Vec<Instance>, instance: Instance) {
    instances.push(instance);
    let surplus = instances.len().saturating_sub(MAX_REMEMBERED);
    instances.drain(..surplus);
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
