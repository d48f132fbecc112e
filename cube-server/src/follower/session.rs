//! Dials the leader until it answers, then serves it over the connection, for ever. Knows no container and no pod.

use std::time::Duration;

use axum::Router;
use cube_api::auth::{Keys, Role};
use cube_api::routes::SESSION;
use cube_api::session::{Announcement, UPGRADE, WELCOME_HEADER, Welcome};
use cube_api::{ApiError, ErrorCode};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper::rt::{Read, Write};
use hyper::server::conn::http2;
use hyper::upgrade::Upgraded;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use jiff::SignedDuration;
use tokio::time::Instant;

use crate::ambient::Ambient;
use crate::error_chain::chain;
use crate::follower::agent::Agent;
use crate::follower::link::Address;
use crate::follower::router;
use crate::tasks::Tasks;

/// From the first retry to the last: a leader that restarts has its nodes back within a second, one that is away isn't stormed.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// A session that lasted so long was a good one: the next retry is a first one.
const GOOD_SESSION: Duration = Duration::from_secs(30);
/// What the leader has to answer the announcement.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// A silent leader is noticed after 8 s, as the leader notices a silent node.
const PING_INTERVAL: Duration = Duration::from_secs(3);
const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// 128 logs and execs, and room for assignments.
const STREAMS: u32 = 256;
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;
const ANSWER_BYTES: usize = 64 * 1024;

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// No connection, or none that speaks HTTP.
    #[error("can't reach the leader at {leader}: {problem}; trying on")]
    Unreachable {
        /// Its address.
        leader: String,
        /// What happened.
        problem: String,
    },
    /// The leader said no.
    #[error("the leader refuses this node: {0}")]
    Refused(ApiError),
    /// The node said no.
    #[error("this node refuses the leader: {0}")]
    NotOurs(ApiError),
}

/// What the dial loop is made of.
pub struct Dialler {
    /// Where the leader is.
    pub leader: Address,
    /// Mints the credentials.
    pub keys: Keys,
    /// The clock and the dice.
    pub ambient: Ambient,
    /// Who owns what is started.
    pub tasks: Tasks,
}

impl Dialler {
    /// Dials until the tasks stop.
    pub async fn run(self, agent: Agent) {
        let stopping = self.tasks.stopping().clone();
        tokio::select! {
            () = stopping.cancelled() => {}
            () = self.dial_for_ever(agent) => {}
        }
    }

    async fn dial_for_ever(&self, agent: Agent) {
        let (mut pause, mut offset, mut told) = (FIRST_PAUSE, SignedDuration::ZERO, String::new());
        loop {
            let begin = Instant::now();
            match self.session(&agent, &mut offset).await {
                Ok(()) => told.clear(),
                Err(error) => {
                    let cause = error.to_string();
                    if cause != told {
                        tracing::warn!("{cause}");
                        told = cause;
                    }
                }
            }
            pause = if begin.elapsed() >= GOOD_SESSION { FIRST_PAUSE } else { pause };
            tokio::time::sleep(pause.mul_f64(0.8 + 0.4 * (self.ambient.random() % 1000) as f64 / 1000.0)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// One session, to its end. `offset` is what the leader's clock is ahead of ours, once it was told.
    async fn session(&self, agent: &Agent, offset: &mut SignedDuration) -> Result<(), DialError> {
        let announcement = agent.announcement().await;
        let dialled = dial(&self.leader, &self.credential(&announcement, *offset), &announcement, &self.tasks).await;
        let (welcome, io) = match dialled {
            Err(DialError::Refused(ApiError { code: ErrorCode::CredentialExpired, server_time: Some(time), .. })) => {
                *offset = time.duration_since(self.ambient.now());
                tracing::warn!("this machine's clock is {}s off the leader's", offset.as_secs());
                dial(&self.leader, &self.credential(&announcement, *offset), &announcement, &self.tasks).await?
            }
            other => other?,
        };
        agent.welcome(&welcome).await.map_err(DialError::NotOurs)?;
        tracing::info!(leader = %self.leader, "connected to the leader");
        serve(io, router::router(agent.clone(), self.tasks.clone()), &self.tasks).await;
        tracing::warn!(leader = %self.leader, "the session has ended: dialling again");
        Ok(())
    }

    fn credential(&self, announcement: &Announcement, offset: SignedDuration) -> String {
        let now = self.ambient.now();
        self.keys.mint(&Role::Node(announcement.node.clone()), now.checked_add(offset).unwrap_or(now))
    }
}

/// Announces the node and takes the leader's answer.
pub async fn dial(
    leader: &Address,
    credential: &str,
    announcement: &Announcement,
    tasks: &Tasks,
) -> Result<(Welcome, Upgraded), DialError> {
    let unreachable = |problem: String| DialError::Unreachable { leader: leader.to_string(), problem };
    let stream = leader.connect().await.map_err(unreachable)?;
    let dialling = announce(TokioIo::new(stream), leader, credential, announcement, tasks);
    let answered = tokio::time::timeout(ANSWER_TIMEOUT, dialling).await;
    answered.unwrap_or_else(|_| Err(unreachable(format!("no answer within {}s", ANSWER_TIMEOUT.as_secs()))))
}

async fn announce(
    io: impl Read + Write + Unpin + Send + 'static,
    leader: &Address,
    credential: &str,
    announcement: &Announcement,
    tasks: &Tasks,
) -> Result<(Welcome, Upgraded), DialError> {
    let unreachable = |problem: String| DialError::Unreachable { leader: leader.to_string(), problem };
    let (mut sender, connection) = http1::handshake(io).await.map_err(|error| unreachable(chain(&error)))?;
    tasks.spawn_droppable("dial", async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(error = %chain(&error), "dialling failed");
        }
    });
    let body = serde_json::to_vec(announcement).map_err(|error| unreachable(error.to_string()))?;
    let request = Request::post(SESSION)
        .header("host", leader.to_string())
        .header("authorization", format!("Bearer {credential}"))
        .header("content-type", "application/json")
        .header("connection", "upgrade")
        .header("upgrade", UPGRADE)
        .body(Full::new(bytes::Bytes::from(body)))
        .map_err(|error| unreachable(error.to_string()))?;
    let answer = sender.send_request(request).await.map_err(|error| unreachable(chain(&error)))?;
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        let welcome = answer.headers().get(WELCOME_HEADER).and_then(|text| serde_json::from_slice(text.as_bytes()).ok());
        let welcome = welcome.ok_or_else(|| unreachable("it did not say which cluster it leads".to_owned()))?;
        let upgraded = hyper::upgrade::on(answer).await.map_err(|error| unreachable(chain(&error)))?;
        return Ok((welcome, upgraded));
    }
    let status = answer.status();
    let read = Limited::new(answer.into_body(), ANSWER_BYTES).collect().await;
    let bytes = read.map_err(|error| unreachable(error.to_string()))?.to_bytes();
    match serde_json::from_slice(&bytes) {
        Ok(error) => Err(DialError::Refused(error)),
        Err(_) => Err(unreachable(format!("it answered {status}: is this a cube leader?"))),
    }
}

/// Serves the leader until the connection ends.
pub async fn serve(io: impl Read + Write + Unpin + Send + 'static, router: Router, tasks: &Tasks) {
    let serving = http2::Builder::new(tasks.clone())
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(STREAMS)
        .serve_connection(io, TowerToHyperService::new(router));
    if let Err(error) = serving.await {
        tracing::debug!(error = %chain(&error), "the session broke");
    }
}
