//! Keeps a session with the leader: dials for ever, then serves [`super::router`] on the connection until it ends.
//!
//! A change of cause is logged once, in a sentence that says what to do; the tries between are silent.

use std::error::Error;
use std::time::Duration;

use axum::Router;
use bytes::Bytes;
use cube_api::ApiError;
use cube_api::routes;
use cube_api::session::{Announcement, UPGRADE, WELCOME_HEADER, Welcome};
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Agent;
use super::dial::{DialError, Dialer};
use super::router::router;
use crate::backoff::Backoff;
use crate::h2;
use crate::tasks::Tasks;
use cube_api::error::chain;

/// The first wait: a leader that just restarts is found again within about a second.
const FIRST_WAIT: Duration = Duration::from_millis(200);
/// The longest wait: a leader that was away for an hour has its nodes back 12 s after it returns.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// A session that lasted so long was a healthy one: the next failure is a new story.
const HEALTHY: Duration = Duration::from_secs(5);
/// For the leader to answer an announcement, after the connection is there.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest refusal that is read, in bytes.
const MAX_REFUSAL: usize = 64 * 1024;

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// This node can't say what it runs.
    #[error("this node can't announce itself")]
    NotReady(#[source] ApiError),
    /// No connection.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The connection broke before the leader answered.
    #[error("the leader hung up before it answered")]
    HungUp(#[source] hyper::Error),
    /// Nothing came.
    #[error("the leader did not answer within {} s", ANSWER_TIMEOUT.as_secs())]
    Silent,
    /// The leader refuses this node.
    #[error("the leader refuses this node")]
    Refused(#[source] ApiError),
    /// This node refuses the leader: another cluster's, or an old one.
    #[error("this node refuses the leader")]
    Foreign(#[source] ApiError),
    /// What answers there is no leader.
    #[error("what listens there answered {0}, as no cube leader does: check the address and the versions")]
    NotALeader(String),
}

/// Starts dialling. Ends with `tasks`.
pub fn start(agent: Agent, dialer: Dialer, tasks: Tasks) {
    let router = router(agent.clone(), tasks.clone());
    tasks.clone().spawn_droppable("session", async move {
        keep(agent, dialer, router, tasks).await;
    });
}

async fn keep(agent: Agent, dialer: Dialer, router: Router, tasks: Tasks) {
    let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
    let mut last_cause = None;
    loop {
        match join(&agent, &dialer).await {
            Ok(upgraded) => {
                tracing::info!(leader = %dialer.leader(), "joined the leader");
                last_cause = None;
                let began = Instant::now();
                let end = tasks.stopping().child_token();
                // The streams of a session end with it, whoever still writes to one.
                let _end_with_it = end.clone().drop_guard();
                match serve(upgraded, router.clone(), &tasks, &end).await {
                    Ok(()) => {
                        tracing::warn!(leader = %dialer.leader(), "the session ended: the leader hung up or fell silent; dialling again")
                    }
                    Err(error) => tracing::warn!(leader = %dialer.leader(), "the session broke: {}; dialling again", chain(&error)),
                }
                if began.elapsed() >= HEALTHY {
                    backoff.reset();
                }
            }
            Err(error) => {
                let cause = describe(&error);
                if last_cause.as_ref() != Some(&cause) {
                    tracing::warn!(leader = %dialer.leader(), data_dir = %agent.data_dir().display(), "no session: {cause}; trying again until it works, pods keep running");
                    last_cause = Some(cause);
                }
            }
        }
        tokio::time::sleep(backoff.next(dialer.random())).await;
    }
}

async fn serve(upgraded: Upgraded, router: Router, tasks: &Tasks, end: &CancellationToken) -> Result<(), h2::ServeError> {
    h2::serve(TokioIo::new(upgraded), router, h2::Executor::new(tasks, end)).await
}

/// The cause with its chain and, from a leader, what to do.
fn describe(error: &SessionError) -> String {
    let hint = match error {
        SessionError::Refused(refusal) | SessionError::Foreign(refusal) | SessionError::NotReady(refusal) => refusal.hint.as_deref(),
        SessionError::Dial(_) | SessionError::HungUp(_) | SessionError::Silent | SessionError::NotALeader(_) => None,
    };
    let chain = chain(error as &dyn Error);
    hint.map_or(chain.clone(), |hint| format!("{chain} ({hint})"))
}

/// One try: dial, announce, be welcomed.
async fn join(agent: &Agent, dialer: &Dialer) -> Result<Upgraded, SessionError> {
    let announcement = agent.announcement().await.map_err(SessionError::NotReady)?;
    let (welcome, upgraded) = match announce(dialer, &announcement).await {
        // Refused for the time only: once more, by the leader's clock.
        Err(SessionError::Refused(refusal)) if dialer.learns_from(&refusal) => announce(dialer, &announcement).await?,
        answered => answered?,
    };
    agent.welcome(&welcome).await.map_err(SessionError::Foreign)?;
    Ok(upgraded)
}

/// Announces the node; the leader's welcome, and the connection that is a session from then on.
pub async fn announce(dialer: &Dialer, announcement: &Announcement) -> Result<(Welcome, Upgraded), SessionError> {
    let stream = dialer.connect().await?;
    let body = Bytes::from(serde_json::to_vec(announcement).expect("plain data"));
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = http::Uri::from_static(routes::SESSION);
    let headers = request.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static(UPGRADE));
    dialer.sign(&mut request);
    match tokio::time::timeout(ANSWER_TIMEOUT, exchange(stream, request)).await {
        Ok(answer) => answer,
        Err(_) => Err(SessionError::Silent),
    }
}

/// Sends the announcement and takes the connection over if it is answered with a welcome.
async fn exchange<I>(io: I, request: Request<Full<Bytes>>) -> Result<(Welcome, Upgraded), SessionError>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(io)).await.map_err(SessionError::HungUp)?;
    let answer = async move {
        let response = sender.send_request(request).await.map_err(SessionError::HungUp)?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(refusal(response).await);
        }
        let welcome = response.headers().get(WELCOME_HEADER).and_then(|value| serde_json::from_slice(value.as_bytes()).ok());
        let welcome = welcome.ok_or_else(|| SessionError::NotALeader("101 without a welcome".to_owned()))?;
        Ok((welcome, hyper::upgrade::on(response).await.map_err(SessionError::HungUp)?))
    };
    // The connection ends when the answer drops its sender, or hands itself over to it. What broke it, the answer says.
    let (answer, _ended) = tokio::join!(answer, connection.with_upgrades());
    answer
}

async fn refusal(response: Response<Incoming>) -> SessionError {
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_REFUSAL).collect().await;
    let refusal = body.ok().and_then(|body| serde_json::from_slice(&body.to_bytes()).ok());
    refusal.map_or_else(|| SessionError::NotALeader(status.to_string()), SessionError::Refused)
}

#[cfg(test)]
mod tests;
