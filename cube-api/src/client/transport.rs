//! One request on one TCP connection: connect, send, read, each with a limit.
//!
//! It knows neither credentials nor routes. A connection is driven by whoever reads from it, so a caller that goes away leaves no task behind.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use rustix::net::sockopt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{ClientError, LeaderAddress};

/// Within it a leader that lives accepts: three SYN (at 0, 1 and 3 s) fit in.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// For the head of every answer, and for the body of those that are not streams.
pub(super) const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// The largest answer: about 100,000 pods.
const MAX_ANSWER: usize = 256 * 1024 * 1024;

/// A peer that vanished is noticed after 15 s + 3 x 5 s by the kernel, also on a stream that is silent for good reasons.
const KEEP_ALIVE_AFTER: Duration = Duration::from_secs(15);
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(5);
const KEEP_ALIVE_TRIES: u32 = 3;
/// The same for data that nobody acknowledges, in milliseconds.
const UNACKNOWLEDGED_MS: u32 = 30_000;

type Work = Pin<Box<dyn Future<Output = Result<(), hyper::Error>> + Send>>;

/// hyper's half of a connection. It moves only while somebody waits for what it brings.
struct Driver {
    leader: LeaderAddress,
    /// `None` once the connection is over.
    work: Option<Work>,
}

impl Driver {
    async fn drive<F: Future>(&mut self, waiting: F) -> F::Output {
        let mut waiting = pin!(waiting);
        poll_fn(|cx| {
            // Its error is not looked at: hyper gives the same one to whoever waits for the answer or the body.
            if self.work.as_mut().is_some_and(|work| work.as_mut().poll(cx).is_ready()) {
                self.work = None;
            }
            waiting.as_mut().poll(cx)
        })
        .await
    }

    /// As [`Self::drive`], for at most [`ANSWER_LIMIT`].
    async fn drive_briefly<T>(&mut self, waiting: impl Future<Output = Result<T, hyper::Error>>) -> Result<T, ClientError> {
        match timeout(ANSWER_LIMIT, self.drive(waiting)).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(self.broken(&error)),
            Err(_) => Err(ClientError::TimedOut { leader: self.leader.clone(), limit: ANSWER_LIMIT }),
        }
    }

    fn broken(&self, error: &hyper::Error) -> ClientError {
        let leader = self.leader.clone();
        let problem = match std::error::Error::source(error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        };
        if error.is_parse() { ClientError::Protocol { leader, problem } } else { ClientError::Lost { leader, problem } }
    }
}

/// An answer whose head has come; the body comes as it is asked for.
pub(super) struct Answer {
    response: Response<Incoming>,
    driver: Driver,
}

impl Answer {
    pub(super) fn status(&self) -> StatusCode {
        self.response.status()
    }

    pub(super) fn header(&self, name: http::HeaderName) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }

    /// The next piece of the body, however long it takes; `None` at its proper end.
    pub(super) async fn piece(&mut self) -> Result<Option<Bytes>, ClientError> {
        loop {
            match self.driver.drive(self.response.body_mut().frame()).await {
                None => return Ok(None),
                Some(Err(error)) => return Err(self.driver.broken(&error)),
                // Trailers carry nothing here.
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => return Ok(Some(data)),
                    Err(_trailers) => continue,
                },
            }
        }
    }

    /// The whole body, within [`ANSWER_LIMIT`].
    pub(super) async fn whole(mut self) -> Result<Bytes, ClientError> {
        let leader = self.driver.leader.clone();
        let read = async {
            let mut body = BytesMut::new();
            while let Some(piece) = self.piece().await? {
                if body.len() + piece.len() > MAX_ANSWER {
                    let problem = format!("an answer of more than {MAX_ANSWER} bytes");
                    return Err(ClientError::Protocol { leader: self.driver.leader.clone(), problem });
                }
                body.extend_from_slice(&piece);
            }
            Ok(body.freeze())
        };
        timeout(ANSWER_LIMIT, read).await.unwrap_or(Err(ClientError::TimedOut { leader, limit: ANSWER_LIMIT }))
    }

    /// The connection itself, after a 101.
    pub(super) async fn upgrade(self) -> Result<TokioIo<Upgraded>, ClientError> {
        let Self { response, mut driver } = self;
        driver.drive_briefly(hyper::upgrade::on(response)).await.map(TokioIo::new)
    }
}

/// Sends a request and waits for the head of its answer.
pub(super) async fn send(leader: &LeaderAddress, request: Request<Full<Bytes>>) -> Result<Answer, ClientError> {
    let stream = connect(leader).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| ClientError::Lost { leader: leader.clone(), problem: error.to_string() })?;
    let mut driver = Driver { leader: leader.clone(), work: Some(Box::pin(connection.with_upgrades())) };
    let response = driver.drive_briefly(sender.send_request(request)).await?;
    Ok(Answer { response, driver })
}

async fn connect(leader: &LeaderAddress) -> Result<TcpStream, ClientError> {
    let unreachable = |problem: io::Error| ClientError::Unreachable { leader: leader.clone(), problem };
    let stream = timeout(CONNECT_LIMIT, TcpStream::connect((leader.host(), leader.port())))
        .await
        .map_err(|_| unreachable(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {} s", CONNECT_LIMIT.as_secs()))))?
        .map_err(unreachable)?;
    set_options(&stream).map_err(unreachable)?;
    Ok(stream)
}

fn set_options(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEP_ALIVE_AFTER)?;
    sockopt::set_tcp_keepintvl(stream, KEEP_ALIVE_EVERY)?;
    sockopt::set_tcp_keepcnt(stream, KEEP_ALIVE_TRIES)?;
    sockopt::set_tcp_user_timeout(stream, UNACKNOWLEDGED_MS)?;
    Ok(())
}
