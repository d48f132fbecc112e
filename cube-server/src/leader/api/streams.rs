//! Logs and exec: what is asked is checked, then frames are relayed between the client's websocket and the node's stream, one at a time.
//!
//! Each frame is taken only when the one before it has been handed on, so a reader that stops costs no memory. Nothing is decided here but
//! when a client counts as gone: by its silence here, and in `serve.rs` when it takes not a byte for ten minutes. Dropping the node's stream
//! tells the node.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::http::{HeaderMap, Uri, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use cube_api::meta::{Name, Uid};
use cube_api::routes::LogQuery;
use cube_api::stream::{Frame, FrameError, MAX_DATA, Outcome, SUBPROTOCOL};
use cube_api::{ApiError, ErrorCode};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt, stream};
use tokio::sync::oneshot;
use tokio::time::{Instant, MissedTickBehavior};

use super::answers::{Ask, Named, Refusal};
use super::{Api, pods};
use crate::leader::metrics::OpenStream;
use crate::leader::nodes::{NodeSink, NodeStream};
use crate::leader::store::PodRow;
use crate::query;

/// A client is asked so often whether it is there.
const PING_EVERY: Duration = Duration::from_secs(15);

/// A client that says nothing for three pings is gone.
const GONE_AFTER: Duration = Duration::from_secs(45);

/// From our `101` to the connection being handed over: it takes as long as the answer takes to be written.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(10);

/// What is read ahead of a websocket: people type. tungstenite's own 128 KiB would be 512 MiB for all connections.
const READ_BUFFER: usize = 16 * 1024;

/// What one websocket may hold of unsent frames: two of the largest. tungstenite's own default has no limit.
const WRITE_BUFFER: usize = 2 * (MAX_DATA + 16);

pub(super) async fn logs(
    State(api): State<Api>,
    Named(name): Named,
    Ask(query): Ask<LogQuery>,
    headers: HeaderMap,
    socket: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Refusal> {
    let row = pods::find(&api.store, &name)?;
    if let Some(container) = &query.container {
        known_container(&row, container)?;
    }
    let (node, uid) = whereabouts(&row)?;
    let socket = if headers.contains_key(header::UPGRADE) { Some(socket.map_err(not_a_websocket)?) } else { None };
    let frames = api.nodes.logs(&node, uid, &query).await?;
    Ok(match socket {
        Some(socket) => accept(&api, socket, "logs", move |socket| relay(socket, None, frames)),
        None => {
            let open = api.metrics.stream("logs");
            ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], Body::from_stream(plain(frames, open))).into_response()
        }
    })
}

pub(super) async fn exec(
    State(api): State<Api>,
    Named(name): Named,
    uri: Uri,
    socket: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Refusal> {
    let mut query = query::read_exec(uri.query().unwrap_or_default())?;
    if query.command.is_empty() {
        return Err(ApiError::new(ErrorCode::BadRequest, "an exec needs a command").into());
    }
    let row = pods::find(&api.store, &name)?;
    query.container = Some(the_container(&row, query.container.take())?);
    let (node, uid) = whereabouts(&row)?;
    // Before the command runs: one that can't be answered isn't started.
    let socket = socket.map_err(not_a_websocket)?;
    let (input, output) = api.nodes.exec(&node, uid, &query).await?;
    Ok(accept(&api, socket, "exec", move |socket| relay(socket, Some(input), output)))
}

/// A node that sends what is no frame breaks the stream, in words that the client reads.
fn readable(frame: Result<Frame, FrameError>) -> Frame {
    frame.unwrap_or_else(|error| Frame::Status(Outcome::Failed(format!("the node sent what can't be read: {error}"))))
}

fn not_a_websocket(rejection: WebSocketUpgradeRejection) -> ApiError {
    ApiError::new(ErrorCode::BadRequest, format!("this is a websocket: {}", rejection.body_text()))
}

fn container_names(row: &PodRow) -> String {
    row.pod.spec.all_containers().map(|container| container.name.as_str()).collect::<Vec<_>>().join(", ")
}

fn known_container(row: &PodRow, name: &Name) -> Result<(), ApiError> {
    if row.pod.spec.container(name).is_some() {
        return Ok(());
    }
    let message = format!("pod/{} has no container '{name}'; it has: {}", row.pod.metadata.name, container_names(row));
    Err(ApiError::new(ErrorCode::NotFound, message))
}

/// The container that was named, or the only one beside the init containers.
fn the_container(row: &PodRow, named: Option<Name>) -> Result<Name, ApiError> {
    match (named, row.pod.spec.containers.as_slice()) {
        (Some(name), _) => known_container(row, &name).map(|()| name),
        (None, [only]) => Ok(only.name.clone()),
        (None, _) => {
            let message = format!("pod/{} has several containers: {}", row.pod.metadata.name, container_names(row));
            Err(ApiError::new(ErrorCode::BadRequest, message).hint("say which with --container"))
        }
    }
}

/// The node that has the pod.
fn whereabouts(row: &PodRow) -> Result<(Name, Uid), ApiError> {
    let nowhere = || {
        let waiting = row.pod.placement.waiting_for.as_deref().unwrap_or("it has just been accepted");
        ApiError::new(ErrorCode::Conflict, format!("pod/{} isn't on a node yet: {waiting}", row.pod.metadata.name))
    };
    Ok((row.pod.placement.node.clone().ok_or_else(nowhere)?, row.pod.metadata.uid))
}

/// Answers the upgrade. axum would run `serve` on a task of its own, which nobody waits for and whose panic nobody sees: that one only hands
/// the websocket over.
fn accept<F: Future<Output = ()> + Send>(
    api: &Api,
    socket: WebSocketUpgrade,
    kind: &'static str,
    serve: impl FnOnce(WebSocket) -> F + Send + 'static,
) -> Response {
    let (hand_over, handed_over) = oneshot::channel();
    let open = api.metrics.stream(kind);
    api.tasks.spawn_droppable(kind, async move {
        let _open = open;
        match tokio::time::timeout(UPGRADE_TIMEOUT, handed_over).await {
            Ok(Ok(socket)) => serve(socket).await,
            Ok(Err(_)) | Err(_) => tracing::debug!(kind, "the client hung up before its stream began"),
        }
    });
    socket
        .protocols([SUBPROTOCOL])
        .max_message_size(MAX_DATA + 1)
        .max_frame_size(MAX_DATA + 1)
        .read_buffer_size(READ_BUFFER)
        // Each frame goes out at once; the bound is for the answers to pings that come while a frame is stuck.
        .write_buffer_size(0)
        .max_write_buffer_size(WRITE_BUFFER)
        .on_upgrade(async move |socket| drop(hand_over.send(socket)))
}

/// Logs without a websocket, for curl: the lines alone. A log that was cut ends the body with an error, not with its end.
fn plain(frames: NodeStream, open: OpenStream) -> impl futures::Stream<Item = Result<Bytes, std::io::Error>> {
    stream::unfold(Some((frames, open)), async |frames| {
        let (mut frames, open) = frames?;
        loop {
            match readable(frames.next().await?) {
                Frame::Stdout(bytes) => return Some((Ok(bytes), Some((frames, open)))),
                Frame::Status(Outcome::Failed(problem)) => return Some((Err(std::io::Error::other(problem)), None)),
                Frame::Status(Outcome::Success | Outcome::ExitCode(_)) => return None,
                Frame::Stderr(_) | Frame::Stdin(_) | Frame::StdinEnd | Frame::Resize(_) => {}
            }
        }
    })
}

/// Relays until the last frame has been sent or the client is gone. Then both ends are dropped, which the node notices.
async fn relay(socket: WebSocket, to_node: Option<NodeSink>, from_node: NodeStream) {
    let (to_client, from_client) = socket.split();
    let client = Client::default();
    // Each is dropped with the other: nothing of either is of use alone.
    tokio::select! {
        biased;
        () = inward(from_client, to_node, &client) => {}
        () = outward(from_node, to_client, &client) => {}
    }
}

/// Signs of life of a client.
#[derive(Default)]
struct Client {
    /// Something came since the last ping.
    heard: AtomicBool,
    /// What came is waiting for the node: silence says nothing then.
    waits_for_node: AtomicBool,
}

/// Node to client, with pings between; ends after the last frame, or when the client takes no more.
async fn outward(mut frames: NodeStream, mut to_client: SplitSink<WebSocket, Message>, client: &Client) {
    let mut pings = tokio::time::interval_at(Instant::now() + PING_EVERY, PING_EVERY);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut silent = Duration::ZERO;
    loop {
        // Both are cancel-safe: a frame is taken whole or not at all.
        let (message, is_last) = tokio::select! {
            biased;
            // First, or frames without end would leave a client that is gone unnoticed.
            _ = pings.tick() => {
                let is_alive = client.heard.swap(false, Ordering::Relaxed) || client.waits_for_node.load(Ordering::Relaxed);
                silent = if is_alive { Duration::ZERO } else { silent + PING_EVERY };
                if silent >= GONE_AFTER {
                    return;
                }
                (Message::Ping(Bytes::new()), false)
            }
            next = frames.next() => {
                let Some(frame) = next.map(readable) else { return };
                (Message::Binary(frame.encode()), matches!(frame, Frame::Status(_)))
            }
        };
        // Whoever doesn't take it is gone; what else there was to say is of no use then.
        if to_client.send(message).await.is_err() {
            return;
        }
        if is_last {
            to_client.close().await.ok();
            return;
        }
    }
}

/// Client to node; ends when the client hangs up or breaks the protocol. Without a node's sink (logs) it only hears whether the client is there.
async fn inward(mut from_client: SplitStream<WebSocket>, mut to_node: Option<NodeSink>, client: &Client) {
    while let Some(Ok(message)) = from_client.next().await {
        client.heard.store(true, Ordering::Relaxed);
        let frame = match message {
            Message::Binary(bytes) => Frame::decode(bytes),
            Message::Close(_) => return,
            Message::Ping(_) | Message::Pong(_) | Message::Text(_) => continue,
        };
        let (Ok(frame @ (Frame::Stdin(_) | Frame::StdinEnd | Frame::Resize(_))), Some(node)) = (frame, &mut to_node) else {
            return;
        };
        client.waits_for_node.store(true, Ordering::Relaxed);
        // The node takes no more: the exit code, or the news that the connection broke, is on its way outward.
        if node.send(frame).await.is_err() {
            return std::future::pending().await;
        }
        client.waits_for_node.store(false, Ordering::Relaxed);
    }
}
