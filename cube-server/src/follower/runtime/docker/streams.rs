//! Docker's long answers, each on a connection of its own: logs, events, and the raw connection of an exec.
//!
//! Nothing is spawned and nothing is read ahead: whoever polls the body also drives its connection, so a reader that stops stops Docker.

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_TYPE, HOST, UPGRADE};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use super::translate;
use crate::follower::runtime::{CALL_TIMEOUT, RuntimeError};

/// The longest error that is read, in bytes.
const MAX_ERROR: usize = 64 * 1024;

/// The longest line of JSON that is taken, in bytes: an event of a container with many labels has a few KiB.
const MAX_JSON_LINE: usize = 256 * 1024;

/// hyper's connection: it has to be polled for the body to move.
type Connection = Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>;

/// An answer's body together with its connection.
pub struct LongBody {
    operation: &'static str,
    /// None once it has ended; the body may still hold what came before.
    connection: Option<Connection>,
    body: Incoming,
}

impl LongBody {
    /// The next bytes; none at the end. Cancel-safe.
    pub async fn next(&mut self) -> Result<Option<Bytes>, RuntimeError> {
        let operation = self.operation;
        std::future::poll_fn(|context| self.poll_next(context)).await.map_err(|error| broken(operation, &error))
    }

    /// As [`LongBody::next`], but silence for longer than `limit` is an error.
    pub async fn next_within(&mut self, limit: Duration) -> Result<Option<Bytes>, RuntimeError> {
        let operation = self.operation;
        tokio::time::timeout(limit, self.next()).await.map_err(|_| silent(operation))?
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<hyper::Result<Option<Bytes>>> {
        loop {
            if let Some(connection) = &mut self.connection
                && connection.as_mut().poll(context).is_ready()
            {
                // A broken connection is told by the body, which knows whether it was complete.
                self.connection = None;
            }
            match Pin::new(&mut self.body).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => return Poll::Ready(Ok(Some(data))),
                    Err(_trailers) => {}
                },
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
                Poll::Ready(None) => return Poll::Ready(Ok(None)),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

/// A stream of lines of JSON.
pub struct JsonLines {
    body: LongBody,
    buffer: BytesMut,
}

impl JsonLines {
    /// Reads `body` as lines.
    pub fn new(body: LongBody) -> Self {
        Self { body, buffer: BytesMut::new() }
    }

    /// The next line; none at the end, also at one that came too early and at a line that is too long to be one of Docker's.
    pub async fn next(&mut self) -> Option<Bytes> {
        self.next_whole().await.ok().flatten()
    }

    /// The next line; none only at the end that Docker made. Cancel-safe.
    pub async fn next_whole(&mut self) -> Result<Option<Bytes>, RuntimeError> {
        loop {
            if let Some(end) = self.buffer.iter().position(|&byte| byte == b'\n') {
                return Ok(Some(self.buffer.split_to(end + 1).freeze()));
            }
            if self.buffer.len() > MAX_JSON_LINE {
                let operation = self.body.operation;
                return Err(RuntimeError::Unavailable { operation, problem: "an answer without an end of its line".to_owned() });
            }
            match self.body.next().await? {
                Some(chunk) => self.buffer.extend_from_slice(&chunk),
                None => return Ok(None),
            }
        }
    }
}

/// Opens a long answer: `target` is the path with its query.
pub async fn get(socket: &Path, operation: &'static str, target: &str) -> Result<LongBody, RuntimeError> {
    let opening = open(socket, operation, request(Method::GET, target, None));
    let opened = tokio::time::timeout(CALL_TIMEOUT, opening).await.map_err(|_| silent(operation))?;
    opened.map_err(|error| match error {
        NotOpened::Answered { status, message } => translate::refusal(operation, status, &message),
        NotOpened::Broken(error) => error,
    })
}

/// Why there is no long answer.
pub enum NotOpened {
    /// Docker answered something else.
    Answered {
        /// An HTTP status of 300 and above.
        status: u16,
        /// Docker's sentence.
        message: String,
    },
    /// It didn't answer.
    Broken(RuntimeError),
}

impl From<RuntimeError> for NotOpened {
    fn from(error: RuntimeError) -> Self {
        Self::Broken(error)
    }
}

/// Asks for something that goes on for long, perhaps with a header. How long the answer's beginning may take is the caller's to say.
pub async fn post(
    socket: &Path,
    operation: &'static str,
    target: &str,
    header: Option<(&'static str, String)>,
) -> Result<LongBody, NotOpened> {
    let request = request(Method::POST, target, None);
    let request = match header {
        Some((name, value)) => request.header(name, value),
        None => request,
    };
    open(socket, operation, request).await
}

async fn open(socket: &Path, operation: &'static str, request: http::request::Builder) -> Result<LongBody, NotOpened> {
    let (mut sender, mut connection) = connect(socket, operation).await?;
    let request = request.body(Full::default()).map_err(|error| broken(operation, &error))?;
    let answer = driven(&mut connection, sender.send_request(request)).await.map_err(|error| broken(operation, &error))?;
    let status = answer.status();
    let mut body = LongBody { operation, connection: Some(connection), body: answer.into_body() };
    if status.is_success() {
        return Ok(body);
    }
    let mut text = BytesMut::new();
    while text.len() < MAX_ERROR
        && let Some(chunk) = body.next().await?
    {
        text.extend_from_slice(&chunk);
    }
    Err(NotOpened::Answered { status: status.as_u16(), message: message(&text) })
}

/// Sends `body` and takes the connection over for raw bytes: what came with the answer's head, and the socket.
pub async fn upgrade(socket: &Path, operation: &'static str, target: &str, body: String) -> Result<(Bytes, UnixStream), RuntimeError> {
    let opening = async {
        let (mut sender, connection) = connect_upgradable(socket, operation).await?;
        let request = request(Method::POST, target, Some("tcp")).body(Full::from(body)).map_err(|error| broken(operation, &error))?;
        let upgraded = async move {
            let answer = sender.send_request(request).await.map_err(|error| broken(operation, &error))?;
            if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
                let status = answer.status();
                let text = Limited::new(answer.into_body(), MAX_ERROR).collect().await.map(|text| text.to_bytes()).unwrap_or_default();
                return Err(translate::refusal(operation, status.as_u16(), &message(&text)));
            }
            hyper::upgrade::on(answer).await.map_err(|error| broken(operation, &error))
        };
        // The connection's own failure also fails the request that waits on it.
        let (upgraded, _) = tokio::join!(upgraded, connection);
        let parts = upgraded?
            .downcast::<TokioIo<UnixStream>>()
            .map_err(|_| RuntimeError::Unavailable { operation, problem: "the connection is not the socket that was opened".to_owned() })?;
        Ok((parts.read_buf, parts.io.into_inner()))
    };
    tokio::time::timeout(CALL_TIMEOUT, opening).await.map_err(|_| silent(operation))?
}

async fn connect(socket: &Path, operation: &'static str) -> Result<(SendRequest<Full<Bytes>>, Connection), RuntimeError> {
    let stream = UnixStream::connect(socket).await.map_err(|error| broken(operation, &error))?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| broken(operation, &error))?;
    Ok((sender, Box::pin(connection)))
}

async fn connect_upgradable(socket: &Path, operation: &'static str) -> Result<(SendRequest<Full<Bytes>>, Connection), RuntimeError> {
    let stream = UnixStream::connect(socket).await.map_err(|error| broken(operation, &error))?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| broken(operation, &error))?;
    Ok((sender, Box::pin(connection.with_upgrades())))
}

fn request(method: Method, target: &str, upgrade: Option<&'static str>) -> http::request::Builder {
    let request = Request::builder().method(method).uri(target).header(HOST, "docker").header(CONTENT_TYPE, "application/json");
    match upgrade {
        Some(protocol) => request.header(CONNECTION, "Upgrade").header(UPGRADE, protocol),
        None => request,
    }
}

/// Waits for `answer` while the connection moves it. The connection ends only after the answer, or with an error that the answer tells.
async fn driven<T>(connection: &mut Connection, answer: impl Future<Output = T>) -> T {
    let mut answer = std::pin::pin!(answer);
    let mut ended = false;
    std::future::poll_fn(|context| {
        ended = ended || connection.as_mut().poll(context).is_ready();
        answer.as_mut().poll(context)
    })
    .await
}

/// The sentence in Docker's error answer.
fn message(body: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Told {
        message: String,
    }
    serde_json::from_slice(body).map_or_else(|_| String::from_utf8_lossy(body).into_owned(), |told: Told| told.message)
}

fn broken(operation: &'static str, error: &dyn std::error::Error) -> RuntimeError {
    RuntimeError::Unavailable { operation, problem: translate::chain(error) }
}

fn silent(operation: &'static str) -> RuntimeError {
    RuntimeError::Unavailable { operation, problem: "no answer in time".to_owned() }
}
