//! Where the leader is, and the follower's own requests to it: reports, over one kept connection.

use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
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
use jiff::SignedDuration;
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
    kept: Mutex<Option<Sender>>,
    /// How far the leader's clock is ahead of this machine's, in seconds; learnt from a refusal.
    ahead: AtomicI64,
}

type Sender = SendRequest<Full<Bytes>>;

impl HttpLink {
    /// Connects at the first report.
    pub fn new(leader: Address, node: Name, keys: Keys, ambient: Ambient, tasks: Tasks) -> Self {
        Self { leader, node, keys, ambient, tasks, kept: Mutex::new(None), ahead: AtomicI64::new(0) }
    }

    fn unreachable(&self, problem: impl Into<String>) -> LinkError {
        LinkError::Unreachable { leader: self.leader.to_string(), problem: problem.into() }
    }

    async fn connect(&self) -> Result<Sender, LinkError> {
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

    /// Sends on the kept connection, or on a new one. A kept one fails where the leader closes it, being idle, just now; a report is safe to
    /// repeat, so that is no failure yet.
    async fn send(&self, body: Bytes) -> Result<Response<Incoming>, LinkError> {
        // Taken out, so that no lock is held while waiting; a failed one is not put back.
        let kept = self.kept.lock().await.take().filter(|sender| !sender.is_closed());
        if let Some(sender) = kept {
            match self.send_on(sender, body.clone()).await {
                Ok(answer) => return Ok(answer),
                Err(error) => tracing::debug!(%error, "the kept connection for reports failed: trying a new one"),
            }
        }
        self.send_on(self.connect().await?, body).await
    }

    async fn send_on(&self, mut sender: Sender, body: Bytes) -> Result<Response<Incoming>, LinkError> {
        let now = self.ambient.now();
        let leaders_now = now.checked_add(SignedDuration::from_secs(self.ahead.load(Ordering::Relaxed))).unwrap_or(now);
        let credential = self.keys.mint(&Role::Node(self.node.clone()), leaders_now);
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

    async fn attempt(&self, body: Bytes) -> Result<ReportAccepted, LinkError> {
        let answer = self.send(body).await?;
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
            match self.attempt(body.clone()).await {
                Err(LinkError::Refused(ApiError { code: ErrorCode::CredentialExpired, server_time: Some(time), .. })) => {
                    self.ahead.store(time.duration_since(self.ambient.now()).as_secs(), Ordering::Relaxed);
                    self.attempt(body).await
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
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;

    use axum::extract::State;
    use axum::http::HeaderMap;
    use axum::routing::post;
    use axum::{Json, Router};
    use cube_api::auth::Token;
    use cube_api::meta::{ClusterId, NodeId};
    use cube_api::node::Capacity;
    use cube_api::session::NodeFacts;
    use jiff::Timestamp;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use uuid::Uuid;

    use super::*;
    use crate::serve::{self, Limits};

    fn keys() -> Keys {
        Keys::new(&Token::new("secret").expect("not blank"))
    }

    fn link(listener: &TcpListener, tasks: &Tasks) -> HttpLink {
        let address = Address::parse(&listener.local_addr().expect("it is bound").to_string()).expect("an address");
        HttpLink::new(address, Name::new("n1").expect("a name"), keys(), Ambient::system(), tasks.clone())
    }

    fn report() -> Report {
        let facts = NodeFacts { version: String::new(), engine: String::new(), trouble: None, capacity: Capacity::default() };
        Report { node_id: NodeId(Uuid::nil()), cluster_id: ClusterId(Uuid::nil()), facts, pods: Vec::new(), events: Vec::new() }
    }

    /// A leader whose clock is an hour ahead.
    async fn accept(State(asked): State<Arc<AtomicUsize>>, headers: HeaderMap) -> Result<Json<ReportAccepted>, (http::StatusCode, String)> {
        asked.fetch_add(1, Ordering::Relaxed);
        let now = Timestamp::now() + SignedDuration::from_hours(1);
        let credential = headers["authorization"].to_str().expect("ASCII").trim_start_matches("Bearer ").to_owned();
        if keys().verify(&credential, now).is_ok() {
            return Ok(Json(ReportAccepted { events_through: 0 }));
        }
        let error = ApiError { server_time: Some(now), ..ApiError::new(ErrorCode::CredentialExpired, "out of its time") };
        Err((error.code.status(), serde_json::to_string(&error).expect("plain data")))
    }

    #[tokio::test]
    async fn a_clock_that_is_off_costs_one_refusal_and_not_one_for_each_report() {
        let (tasks, asked) = (Tasks::default(), Arc::<AtomicUsize>::default());
        let listener = serve::bind("127.0.0.1:0").await.expect("a free port");
        let link = link(&listener, &tasks);
        let router = Router::new().route(NODE_REPORT, post(accept)).with_state(Arc::clone(&asked));
        tasks.spawn("leader", serve::serve(listener, router, Limits::default(), tasks.clone()));
        for _ in 0..3 {
            link.report(&report()).await.expect("a report that is taken");
        }
        assert_eq!(asked.load(Ordering::Relaxed), 4);
        assert!(tasks.shut_down(Duration::from_secs(10)).await);
    }

    /// Reads a whole request.
    async fn request(stream: &mut TcpStream) {
        let mut read = Vec::new();
        while !read.ends_with(b"\"events\":[]}") {
            let more = stream.read_buf(&mut read).await.expect("a request");
            assert_ne!(more, 0, "the follower hung up");
        }
    }

    #[tokio::test]
    async fn a_kept_connection_that_the_leader_closes_is_no_failure_and_a_new_one_is() {
        let tasks = Tasks::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let link = link(&listener, &tasks);
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 19\r\n\r\n{\"eventsThrough\":0}";
        // Each connection answers so many requests, then hangs up in the middle of the next one.
        let leader = async {
            for answered in [1, 1, 0] {
                let (mut stream, _) = listener.accept().await.expect("a connection");
                for _ in 0..answered {
                    request(&mut stream).await;
                    stream.write_all(answer).await.expect("it is open");
                }
                request(&mut stream).await;
            }
        };
        let follower = async {
            link.report(&report()).await.expect("a new connection");
            link.report(&report()).await.expect("another one, as the kept one was closed");
            link.report(&report()).await.expect_err("a new one that was closed too");
        };
        tokio::time::timeout(Duration::from_secs(10), async { tokio::join!(leader, follower) }).await.expect("an end");
    }

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
