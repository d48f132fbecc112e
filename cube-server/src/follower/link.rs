//! Where the leader is, and the follower's own requests to it: reports, over one kept connection.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use cube_api::auth::{Keys, Role};
use cube_api::meta::Name;
use cube_api::routes::{DEFAULT_PORT, NODE_REPORT};
use cube_api::session::{Report, ReportAccepted};
use cube_api::{ApiError, ErrorCode};
use http::{Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::Mutex;

use crate::ambient::Ambient;
use crate::error_chain::chain;
use crate::follower::agent::{LeaderLink, LinkError};
use crate::tasks::Tasks;

/// How long a TCP connection may take to come up.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the leader may take to commit and answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// The most bytes of the leader's answer.
const ANSWER_BYTES: usize = 64 * 1024;

/// The leader's `HOST:PORT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address(String);

impl Address {
    /// Reads `HOST`, `HOST:PORT`, `[::1]:PORT` or a bare IPv6 address, with or without `http://`. The error is a sentence.
    pub fn parse(text: &str) -> Result<Self, String> {
        let bare = text.trim().trim_start_matches("http://").trim_end_matches('/');
        let wrong = || format!("'{text}' is not the leader's HOST:PORT");
        if bare.is_empty() || bare.contains(['/', ' ', '@']) {
            return Err(wrong());
        }
        if bare.parse::<std::net::Ipv6Addr>().is_ok() {
            return Ok(Self(format!("[{bare}]:{DEFAULT_PORT}")));
        }
        match bare.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => {
                let number: u16 = port.parse().map_err(|_| wrong())?;
                if host.is_empty() || number == 0 { Err(wrong()) } else { Ok(Self(format!("{host}:{number}"))) }
            }
            Some(_) | None => Ok(Self(format!("{bare}:{DEFAULT_PORT}"))),
        }
    }

    /// Connects, without Nagle's delay. The error is a sentence.
    pub async fn connect(&self) -> Result<TcpStream, String> {
        let connecting = TcpStream::connect(&self.0);
        let stream = match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
            Ok(connected) => connected.map_err(|error| error.to_string())?,
            Err(_) => return Err(format!("no connection within {}s", CONNECT_TIMEOUT.as_secs())),
        };
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        Ok(stream)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Reports over HTTP. One at a time: the agent has one reporter.
pub struct HttpLink {
    leader: Address,
    node: Name,
    keys: Keys,
    ambient: Ambient,
    tasks: Tasks,
    kept: Mutex<Option<SendRequest<Full<Bytes>>>>,
}

impl HttpLink {
    /// Connects at the first report.
    pub fn new(leader: Address, node: Name, keys: Keys, ambient: Ambient, tasks: Tasks) -> Self {
        Self { leader, node, keys, ambient, tasks, kept: Mutex::new(None) }
    }

    fn unreachable(&self, problem: impl Into<String>) -> LinkError {
        LinkError::Unreachable { leader: self.leader.to_string(), problem: problem.into() }
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, LinkError> {
        let stream = self.leader.connect().await.map_err(|problem| self.unreachable(problem))?;
        let handshake = http1::handshake(TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(|error| self.unreachable(chain(&error)))?;
        self.tasks.spawn_droppable("report connection", async move {
            if let Err(error) = connection.await {
                tracing::debug!(error = %chain(&error), "the connection for reports ended");
            }
        });
        Ok(sender)
    }

    async fn send(&self, body: Bytes, now: jiff::Timestamp) -> Result<Response<Incoming>, LinkError> {
        // Taken out, so that no lock is held while waiting; a failed one is not put back.
        let kept = self.kept.lock().await.take().filter(|sender| !sender.is_closed());
        let mut sender = match kept {
            Some(sender) => sender,
            None => self.connect().await?,
        };
        let credential = self.keys.mint(&Role::Node(self.node.clone()), now);
        let request = Request::post(NODE_REPORT.replace("{name}", self.node.as_str()))
            .header("host", self.leader.to_string())
            .header("authorization", format!("Bearer {credential}"))
            .header("content-type", "application/json")
            .body(Full::new(body))
            .map_err(|error| self.unreachable(error.to_string()))?;
        sender.ready().await.map_err(|error| self.unreachable(chain(&error)))?;
        let answer = sender.send_request(request).await.map_err(|error| self.unreachable(chain(&error)))?;
        *self.kept.lock().await = Some(sender);
        Ok(answer)
    }

    async fn attempt(&self, body: Bytes, now: jiff::Timestamp) -> Result<ReportAccepted, LinkError> {
        let answer = self.send(body, now).await?;
        let status = answer.status();
        let read = Limited::new(answer.into_body(), ANSWER_BYTES).collect().await;
        let bytes = read.map_err(|error| self.unreachable(error.to_string()))?.to_bytes();
        if status.is_success() {
            return serde_json::from_slice(&bytes).map_err(|error| self.unreachable(format!("its answer can't be read: {error}")));
        }
        match serde_json::from_slice::<ApiError>(&bytes) {
            Ok(error) => Err(LinkError::Refused(error)),
            Err(_) => Err(self.unreachable(format!("it answered {status} without saying why"))),
        }
    }
}

#[async_trait]
impl LeaderLink for HttpLink {
    async fn report(&self, report: &Report) -> Result<ReportAccepted, LinkError> {
        let body = serde_json::to_vec(report).map(Bytes::from).map_err(|error| self.unreachable(error.to_string()))?;
        let trying = async {
            match self.attempt(body.clone(), self.ambient.now()).await {
                Err(LinkError::Refused(ApiError { code: ErrorCode::CredentialExpired, server_time: Some(time), .. })) => {
                    self.attempt(body, time).await
                }
                other => other,
            }
        };
        let answered = tokio::time::timeout(ANSWER_TIMEOUT, trying).await;
        answered.unwrap_or_else(|_| Err(self.unreachable(format!("no answer within {}s", ANSWER_TIMEOUT.as_secs()))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_as_people_type_it() {
        for (typed, read) in [
            ("leader", "leader:4242"),
            ("leader:80", "leader:80"),
            ("http://10.0.0.1:4242/", "10.0.0.1:4242"),
            ("::1", "[::1]:4242"),
            ("[::1]", "[::1]:4242"),
            ("[::1]:80", "[::1]:80"),
        ] {
            assert_eq!(Address::parse(typed).map(|address| address.to_string()), Ok(read.to_owned()), "{typed}");
        }
        for wrong in ["", ":4242", "leader:", "leader:0", "leader:99999", "https://leader", "a b"] {
            assert!(Address::parse(wrong).is_err(), "{wrong}");
        }
    }
}
