//! HTTP/2 on a session's connection: the settings of both ends, which must fit each other, and what spawns for hyper.

use std::future::Future;
use std::io::Cursor;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::client::conn::http2::{Connection, SendRequest};
use hyper::rt::{Read, Write};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio_util::sync::CancellationToken;

use crate::tasks::Tasks;

/// Between two pings, also while nothing else is said.
const PING_EVERY: Duration = Duration::from_secs(3);
/// How long a ping may stay without answer: a silent peer is found in at most 8 s, below the 10 s after which a node is NotReady.
const PING_ANSWER: Duration = Duration::from_secs(5);
/// For the leader's first bytes, after it welcomed the node: as long as for any answer.
const PREFACE_TIMEOUT: Duration = PING_ANSWER;
/// With so many bytes a client begins (RFC 9113, section 3.4).
const PREFACE: usize = 24;
/// What may be on its way in one stream, in bytes. Loopback did 312 MB/s with it.
const STREAM_WINDOW: u32 = 64 * 1024;
/// What may be on its way in all streams, in bytes: 256 readers that stopped (64 KiB each) can just fill it, and [`MAX_STREAMS`] with bulk data
/// are fewer, so assignments and pings always get through.
const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;
/// Streams with bulk data (logs, exec) that a node has at a time.
pub const MAX_BULK_STREAMS: usize = 128;
/// All the streams that a node takes at a time: the bulk ones, and room for assignments.
const MAX_STREAMS: u32 = 256;

/// Runs hyper's futures as [`Tasks`], until they end, `end` fires or the server stops. When `end` fires, the connection and all its streams
/// are dropped, whoever still holds one.
#[derive(Clone)]
pub struct Executor {
    tasks: Tasks,
    end: CancellationToken,
}

impl Executor {
    /// For one connection.
    pub fn new(tasks: &Tasks, end: &CancellationToken) -> Self {
        Self { tasks: tasks.clone(), end: end.clone() }
    }
}

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Executor {
    fn execute(&self, future: F) {
        let end = self.end.clone();
        self.tasks.spawn_droppable("http2", async move {
            tokio::select! {
                biased;
                () = end.cancelled() => {}
                () = future => {}
            }
        });
    }
}

/// The leader's end: the client. The connection ends when the peer is gone or silent.
pub async fn client<I>(io: I, executor: Executor) -> hyper::Result<(SendRequest<Body>, Connection<I, Body, Executor>)>
where
    I: Read + Write + Unpin + Send + 'static,
{
    hyper::client::conn::http2::Builder::new(executor)
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_ANSWER)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .handshake(io)
        .await
}

/// How a session ended that wasn't closed.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The leader did not begin it.
    #[error("the leader did not begin to speak HTTP/2 within {} s", PREFACE_TIMEOUT.as_secs())]
    NotBegun,
    /// The connection broke.
    #[error(transparent)]
    Broke(#[from] hyper::Error),
}

/// The node's end: serves `router` until the leader is gone or silent.
pub async fn serve<I>(mut io: I, router: Router, executor: Executor) -> Result<(), ServeError>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    // hyper pings only from the client's preface on. A leader that is cut off before it would be waited for without end.
    let mut preface = [0; PREFACE];
    match tokio::time::timeout(PREFACE_TIMEOUT, io.read_exact(&mut preface)).await {
        Ok(Ok(_)) => {}
        // It hung up, which is no error.
        Ok(Err(_)) => return Ok(()),
        Err(_) => return Err(ServeError::NotBegun),
    }
    let (reads, writes) = tokio::io::split(io);
    let io = TokioIo::new(tokio::io::join(Cursor::new(preface).chain(reads), writes));
    let served = hyper::server::conn::http2::Builder::new(executor)
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_ANSWER)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(MAX_STREAMS)
        .serve_connection(io, TowerToHyperService::new(router))
        .await;
    Ok(served?)
}
