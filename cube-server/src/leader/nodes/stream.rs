//! A node's stream of frames as the API relays it. Holds one frame: a reader that stops, stops the node.

use axum::body::Body;
use cube_api::meta::Name;
use cube_api::stream::{Frame, FrameError, Outcome};
use futures::stream::{self, StreamExt};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::frames::{self, ReadError};

/// Frames of input on their way to HTTP/2. Each has up to 64 KiB.
const INPUT: usize = 4;

/// What a node sends. The last frame is always a [`Frame::Status`]: one that says so is made where the connection was lost. Dropping it
/// before its end resets the stream, which the node takes for a client that is gone.
pub struct NodeStream {
    node: Name,
    state: State,
    _permit: OwnedSemaphorePermit,
    _input: Option<DropGuard>,
}

enum State {
    Open(frames::Reader),
    Ended,
}

/// What is sent to a process. Dropping it means that no more input comes, and nothing else: the process lives as long as its [`NodeStream`].
pub struct NodeSink {
    frames: mpsc::Sender<Frame>,
}

/// The stream is over: nobody takes input any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the stream is over")]
pub struct Closed;

impl NodeStream {
    pub(super) fn new(node: Name, body: Body, permit: OwnedSemaphorePermit) -> Self {
        Self { node, state: State::Open(frames::Reader::new(body)), _permit: permit, _input: None }
    }

    pub(super) fn with_input(self, alive: DropGuard) -> Self {
        Self { _input: Some(alive), ..self }
    }

    /// The next frame; `None` after the status frame. `Err` is the last too: the node sent what is no frame. Can be dropped while it waits
    /// and called again.
    pub async fn next(&mut self) -> Option<Result<Frame, FrameError>> {
        let State::Open(reader) = &mut self.state else { return None };
        let read = reader.next().await;
        let (next, is_last) = match read {
            Ok(Some(frame)) => {
                let is_last = matches!(frame, Frame::Status(_));
                (Ok(frame), is_last)
            }
            Err(ReadError::NotFrames(error)) => (Err(error), true),
            Err(ReadError::Cut(_) | ReadError::MidFrame) | Ok(None) => {
                let message = format!("the connection to node {} was lost", self.node);
                (Ok(Frame::Status(Outcome::Failed(message))), true)
            }
        };
        if is_last {
            self.state = State::Ended;
        }
        Some(next)
    }
}

impl NodeSink {
    /// Sends a frame; waits while the process doesn't read.
    pub async fn send(&mut self, frame: Frame) -> Result<(), Closed> {
        self.frames.send(frame).await.map_err(|_| Closed)
    }
}

/// The input of an exec: what is sent, the request body that carries it, and what resets the body when dropped. A body that just ended
/// would look like a client that waits for the rest of the output.
pub(super) fn input() -> (NodeSink, Body, DropGuard) {
    let (sender, receiver) = mpsc::channel(INPUT);
    let dropped = CancellationToken::new();
    let alive = dropped.clone().drop_guard();
    let frames = ReceiverStream::new(receiver).map(Ok).chain(stream::pending());
    let body = frames::body_that_breaks(frames.take_until(dropped.clone().cancelled_owned()).chain(stream::iter([Err(Closed)])));
    (NodeSink { frames: sender }, body, alive)
}
