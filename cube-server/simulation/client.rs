//! A user's program on the simulated network: requests that may fail in every way, and a watch.
//!
//! Not `cube_api::client`, which is bound to the machine's network and clock.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use cube_api::auth::{Keys, Role};
use cube_api::meta::Revision;
use cube_api::routes::{self, WatchEvent};
use cube_api::{ApiError, ErrorCode, Pod};
use cube_server::ambient::Ambient;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use jiff::SignedDuration;
use serde::de::DeserializeOwned;
use turmoil::net::TcpStream;

use crate::machine;

/// For a connection and an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// A watch says something every 10 s.
const SILENCE: Duration = Duration::from_secs(15);

/// Why there is no answer.
#[derive(Debug)]
pub enum Failure {
    /// The leader said no. Nothing was changed.
    Refused(Box<ApiError>),
    /// It may or may not have been done.
    Unknown(String),
}

impl Failure {
    /// Whether the same request may be taken later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Refused(error) => {
                let status = error.code.status();
                status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS || error.code == ErrorCode::CredentialExpired
            }
            Self::Unknown(_) => true,
        }
    }

    pub fn describe(&self) -> String {
        match self {
            Self::Refused(error) => format!("refused: {error}"),
            Self::Unknown(problem) => format!("no answer: {problem}"),
        }
    }
}

/// Asks the leader.
#[derive(Clone)]
pub struct Client {
    keys: Keys,
    ambient: Ambient,
    /// The leader's clock minus ours, learnt from a refusal.
    ahead: Rc<Cell<SignedDuration>>,
}

impl Client {
    pub fn new(ambient: Ambient) -> Self {
        Self { keys: Keys::new(&machine::token()), ambient, ahead: Rc::default() }
    }

    /// A request and its answer, each on a connection of its own.
    pub async fn call<T: DeserializeOwned>(&self, method: Method, path: &str, body: Bytes) -> Result<T, Failure> {
        let whole = async {
            let response = self.send(method, path, body).await?;
            let status = response.status();
            let body = response.into_body().collect().await.map_err(|error| Failure::Unknown(error.to_string()))?.to_bytes();
            if status == StatusCode::OK {
                return serde_json::from_slice(&body).map_err(|error| Failure::Unknown(format!("an answer that can't be read: {error}")));
            }
            Err(self.refusal(&body))
        };
        tokio::time::timeout(PATIENCE, whole).await.unwrap_or_else(|_| Err(Failure::Unknown("it took too long".to_owned())))
    }

    /// Every change of the pods after a revision.
    pub async fn watch(&self, from: Revision) -> Result<Watch, Failure> {
        let path = format!("{}?watch=true&from={from}", routes::PODS);
        let open = self.send(Method::GET, &path, Bytes::new());
        let response =
            tokio::time::timeout(PATIENCE, open).await.unwrap_or_else(|_| Err(Failure::Unknown("it took too long".to_owned())))?;
        if response.status() == StatusCode::OK {
            return Ok(Watch { body: response.into_body(), buffer: BytesMut::new() });
        }
        let body = response.into_body().collect().await.map_err(|error| Failure::Unknown(error.to_string()))?.to_bytes();
        Err(self.refusal(&body))
    }

    fn refusal(&self, body: &Bytes) -> Failure {
        match serde_json::from_slice::<ApiError>(body) {
            Ok(error) => {
                if let (ErrorCode::CredentialExpired, Some(leaders)) = (error.code, error.server_time) {
                    self.ahead.set(leaders.duration_since(self.ambient.now()));
                }
                Failure::Refused(Box::new(error))
            }
            Err(error) => Failure::Unknown(format!("a refusal without words: {error}")),
        }
    }

    async fn send(&self, method: Method, path: &str, body: Bytes) -> Result<http::Response<Incoming>, Failure> {
        let leader = machine::leader_address();
        let unknown = |problem: &dyn std::error::Error| Failure::Unknown(problem.to_string());
        let stream = TcpStream::connect((leader.host(), leader.port())).await.map_err(|error| unknown(&error))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| unknown(&error))?;
        // Its error reaches whoever waits for the answer.
        tokio::task::spawn_local(async move { drop(connection.await) });
        let credential = self.keys.mint(&Role::Admin, self.ambient.now() + self.ahead.get());
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, leader.to_string())
            .header(header::AUTHORIZATION, format!("Bearer {credential}"))
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .expect("routes and names are URIs");
        sender.send_request(request).await.map_err(|error| unknown(&error))
    }
}

/// A watch's lines.
pub struct Watch {
    body: Incoming,
    buffer: BytesMut,
}

impl Watch {
    /// The next event; none when the connection is over or silent.
    pub async fn next(&mut self) -> Option<WatchEvent<Pod>> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(end + 1);
                return Some(serde_json::from_slice(&line).expect("a line of a watch is an event"));
            }
            let frame = tokio::time::timeout(SILENCE, self.body.frame()).await.ok()??.ok()?;
            if let Ok(data) = frame.into_data() {
                self.buffer.extend_from_slice(&data);
            }
        }
    }
}
