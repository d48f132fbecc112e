//! The sessions of the nodes: each node's newest assignment to it, logs and exec from it.
//!
//! A session is one HTTP/2 connection on which the leader is the client. Its tasks: `session` (drives the connection), `push` (sends the newest
//! assignment) and `feed` (makes it from the store's changes). All three end with the connection. Knows no SQL and no route of the API.

mod assign;
mod stream;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use cube_api::meta::{Name, Uid};
use cube_api::routes::{ExecQuery, LogQuery, node};
use cube_api::session::Assignment;
use cube_api::stream::Frame;
use cube_api::{ApiError, ErrorCode};
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper::rt::{Read, Write};
use hyper_util::rt::TokioTimer;
use jiff::Timestamp;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

pub use stream::NodeStream;

use crate::ambient::Ambient;
use crate::error_chain::chain;
use crate::leader::control::SessionView;
use crate::leader::store::Store;
use crate::tasks::Tasks;

/// How often a silent connection is pinged, and how long the answer may take: a dead node is known after 8 s, within the 10 s of NotReady.
const PING_INTERVAL: Duration = Duration::from_secs(3);
const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// What a node has to answer a request's head.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Streams of logs and exec at a time on one session. Times [`STREAM_WINDOW`] it is 8 MiB, half of [`CONNECTION_WINDOW`]: readers that stall on
/// all of them leave assignments and pings their room.
const BULK_STREAMS: usize = 128;
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;
/// The most bytes of a node's answer that is not a stream.
const ANSWER_BYTES: usize = 64 * 1024;
/// Frames of a client on their way to the node: of at most 64 KiB each.
const INPUT_FRAMES: usize = 4;

type Sender = http2::SendRequest<Body>;

/// The sessions. Clones share them.
#[derive(Clone)]
pub struct Nodes {
    sessions: Arc<Mutex<BTreeMap<Name, Session>>>,
    ambient: Ambient,
    tasks: Tasks,
}

#[derive(Clone)]
struct Session {
    id: u64,
    sender: Sender,
    bulk: Arc<Semaphore>,
    closed: CancellationToken,
}

/// An exec on a node: frames to it, and the stream from it. Dropping both resets the stream: the node kills the process.
pub struct NodeExec {
    /// To the process; a process that doesn't read stops the sender.
    pub input: mpsc::Sender<Frame>,
    /// From the process.
    pub output: NodeStream,
}

impl SessionView for Nodes {
    fn live(&self) -> BTreeMap<Name, Timestamp> {
        Nodes::live(self)
    }
}

impl Nodes {
    /// No session yet.
    pub fn new(ambient: Ambient, tasks: Tasks) -> Self {
        Self { sessions: Arc::default(), ambient, tasks }
    }

    /// The nodes that are connected, with when they were last heard: now, as a connection whose pings aren't answered is closed.
    pub fn live(&self) -> BTreeMap<Name, Timestamp> {
        let now = self.ambient.now();
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner).keys().map(|name| (name.clone(), now)).collect()
    }

    /// Whether the node has a session.
    pub fn is_live(&self, node: &Name) -> bool {
        self.session(node).is_some()
    }

    /// Takes over an upgraded connection of a node that has joined; ends with it. A session that the node has already is closed.
    pub async fn run_session(&self, name: Name, io: impl Read + Write + Unpin + Send + 'static, store: Store) {
        let (to_push, assignments) = watch::channel(store.assignment(&name));
        let feed = assign::feed(store, name.clone(), to_push);
        self.run(name, io, assignments, feed).await;
    }

    async fn run(
        &self,
        name: Name,
        io: impl Read + Write + Unpin + Send + 'static,
        assignments: watch::Receiver<Assignment>,
        feed: impl Future<Output = ()>,
    ) {
        let handshake = http2::Builder::new(self.tasks.clone())
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .handshake(io);
        let (sender, connection) = match tokio::time::timeout(CALL_TIMEOUT, handshake).await {
            Ok(Ok(both)) => both,
            Ok(Err(error)) => return tracing::warn!(node = %name, error = %chain(&error), "a session could not begin"),
            Err(_) => return tracing::warn!(node = %name, "a session could not begin: the node said nothing"),
        };
        let session = Session {
            id: self.ambient.random(),
            sender: sender.clone(),
            bulk: Arc::new(Semaphore::new(BULK_STREAMS)),
            closed: CancellationToken::new(),
        };
        self.enter(&name, session.clone());
        tracing::info!(node = %name, "connected");
        tokio::select! {
            () = session.closed.cancelled() => tracing::warn!(node = %name, "closed the older session: the node has dialled again"),
            () = self.tasks.stopping().cancelled() => {}
            ended = connection => match ended {
                Ok(()) => tracing::info!(node = %name, "disconnected"),
                Err(error) => tracing::warn!(node = %name, error = %chain(&error), "the session broke"),
            },
            () = assign::push(sender, &name, assignments, &self.ambient) => {}
            () = feed => {}
        }
        self.leave(&name, session.id);
    }

    fn enter(&self, name: &Name, session: Session) {
        let older = self.sessions.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone(), session);
        if let Some(older) = older {
            older.closed.cancel();
        }
    }

    fn leave(&self, name: &Name, id: u64) {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        if sessions.get(name).is_some_and(|session| session.id == id) {
            sessions.remove(name);
        }
    }

    fn session(&self, node: &Name) -> Option<Session> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner).get(node).cloned()
    }

    /// Opens a pod's logs on its node.
    pub async fn logs(&self, node: &Name, uid: Uid, query: &LogQuery) -> Result<NodeStream, ApiError> {
        let query = serde_urlencoded::to_string(query).map_err(|error| internal(format!("a query can't be written: {error}")))?;
        self.open(node, Method::GET, format!("{}?{query}", node::LOGS.replace("{uid}", &uid.to_string())), Body::empty()).await
    }

    /// Starts a command on a pod's node.
    pub async fn exec(&self, node: &Name, uid: Uid, query: &ExecQuery) -> Result<NodeExec, ApiError> {
        let mut pairs: Vec<(&str, &str)> = query.command.iter().map(|word| ("command", word.as_str())).collect();
        pairs.extend(query.container.as_ref().map(|container| ("container", container.as_str())));
        pairs.extend([("tty", if query.tty { "true" } else { "false" }), ("stdin", if query.stdin { "true" } else { "false" })]);
        let query = serde_urlencoded::to_string(pairs).map_err(|error| internal(format!("a query can't be written: {error}")))?;
        let (input, frames) = mpsc::channel::<Frame>(INPUT_FRAMES);
        let frames = ReceiverStream::new(frames).map(|frame| Ok::<Bytes, std::convert::Infallible>(frame.encode_prefixed()));
        let path = format!("{}?{query}", node::EXEC.replace("{uid}", &uid.to_string()));
        let output = self.open(node, Method::POST, path, Body::from_stream(frames)).await?;
        Ok(NodeExec { input, output })
    }

    async fn open(&self, node: &Name, method: Method, path: String, body: Body) -> Result<NodeStream, ApiError> {
        let session = self.session(node).ok_or_else(|| unavailable(node, "is not connected"))?;
        let slot = Arc::clone(&session.bulk).try_acquire_owned().map_err(|_| {
            ApiError::new(ErrorCode::Busy, format!("node {node} has {BULK_STREAMS} logs and execs open already")).hint("close some of them")
        })?;
        let answer = call(session.sender, node, method, &path, body).await?;
        Ok(NodeStream::new(Body::new(answer.into_body()), format!("the connection to node {node} was lost"), slot))
    }
}

/// Sends a request to a node; an answer that isn't a success becomes the node's own error.
async fn call(mut sender: Sender, node: &Name, method: Method, path: &str, body: Body) -> Result<Response<Incoming>, ApiError> {
    let request = Request::builder().method(method).uri(format!("http://node{path}")).header("content-type", "application/json").body(body);
    let request = request.map_err(|error| internal(format!("a request to node {node} can't be made: {error}")))?;
    let sending = async {
        sender.ready().await?;
        sender.send_request(request).await
    };
    let answer = match tokio::time::timeout(CALL_TIMEOUT, sending).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => {
            tracing::warn!(%node, error = %chain(&error), "a request to the node failed");
            return Err(unavailable(node, "has lost its connection"));
        }
        Err(_) => return Err(unavailable(node, "did not answer within 10s")),
    };
    if answer.status().is_success() {
        return Ok(answer);
    }
    let status = answer.status();
    let refused = answer_bytes(answer).await.and_then(|bytes| serde_json::from_slice::<ApiError>(&bytes).ok());
    Err(refused.unwrap_or_else(|| unavailable(node, &format!("answered {status} without saying why"))))
}

/// The whole answer, if it came in time and is not over [`ANSWER_BYTES`].
async fn answer_bytes(answer: Response<Incoming>) -> Option<Bytes> {
    let reading = Limited::new(answer.into_body(), ANSWER_BYTES).collect();
    Some(tokio::time::timeout(CALL_TIMEOUT, reading).await.ok()?.ok()?.to_bytes())
}

fn unavailable(node: &Name, what: &str) -> ApiError {
    ApiError::new(ErrorCode::NodeUnavailable, format!("node {node} {what}")).hint("see its condition with: cube nodes")
}

fn internal(message: String) -> ApiError {
    ApiError::new(ErrorCode::Internal, message)
}
