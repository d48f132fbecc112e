//! Reports to the leader: plain requests over one connection that is kept while it works.

use std::pin::Pin;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use cube_api::ApiError;
use cube_api::routes;
use cube_api::session::{Report, ReportAccepted};
use futures::future::BoxFuture;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;

use super::LeaderLink;
use super::agent::LinkError;
use super::dial::Dialer;
use cube_api::error::chain;

/// For a report to be answered, the connection included.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The longest answer that is read, in bytes.
const MAX_ANSWER: usize = 1024 * 1024;

/// The way to the leader.
pub struct HttpLink {
    dialer: Dialer,
    path: String,
    kept: Mutex<Option<Kept>>,
}

/// A connection that answered. Nothing drives it between two reports: the leader may close it then, and the next report finds out.
struct Kept {
    sender: SendRequest<Full<Bytes>>,
    connection: BoxFuture<'static, hyper::Result<()>>,
}

impl HttpLink {
    /// For the dialer's node.
    pub fn new(dialer: Dialer) -> Self {
        let path = routes::NODE_REPORT.replace("{name}", dialer.node().as_str());
        Self { dialer, path, kept: Mutex::default() }
    }

    fn unreachable(&self, problem: impl ToString) -> LinkError {
        LinkError::Unreachable { leader: self.dialer.leader().to_string(), problem: problem.to_string() }
    }

    /// Over the kept connection, or else over a new one: a report may arrive twice.
    async fn send(&self, body: &Bytes) -> Result<(StatusCode, Bytes), LinkError> {
        let kept = self.kept.lock().expect(UNPOISONED).take();
        if let Some(kept) = kept
            && let Ok(answer) = self.exchange(kept, body).await
        {
            return Ok(answer);
        }
        let stream = self.dialer.connect().await.map_err(|e| self.unreachable(chain(&e)))?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| self.unreachable(chain(&e)))?;
        self.exchange(Kept { sender, connection: Box::pin(connection) }, body).await.map_err(|problem| self.unreachable(problem))
    }

    async fn exchange(&self, mut kept: Kept, body: &Bytes) -> Result<(StatusCode, Bytes), String> {
        let mut request = Request::new(Full::new(body.clone()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.path.parse().expect("a route with a name in it");
        request.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
        self.dialer.sign(&mut request);
        let answer = async {
            let response = kept.sender.send_request(request).await.map_err(|e| chain(&e))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await.map_err(|e| e.to_string())?;
            Ok((status, body.to_bytes()))
        };
        let answer = drive(Pin::new(&mut kept.connection), answer).await?;
        if kept.sender.is_ready() {
            *self.kept.lock().expect(UNPOISONED) = Some(kept);
        }
        Ok(answer)
    }
}

const UNPOISONED: &str = "nothing panics while it is held";

/// Runs a connection until an answer has come over it.
async fn drive<T>(
    connection: Pin<&mut BoxFuture<'static, hyper::Result<()>>>,
    answer: impl Future<Output = Result<T, String>>,
) -> Result<T, String> {
    let mut answer = std::pin::pin!(answer);
    tokio::select! {
        biased;
        answer = &mut answer => answer,
        // A connection that ended has handed on all that it read.
        ended = connection => match tokio::time::timeout(Duration::from_secs(1), answer).await {
            Ok(answer) => answer,
            Err(_) => Err(ended.err().map_or_else(|| "the connection ended".to_owned(), |e| chain(&e))),
        },
    }
}

#[async_trait]
impl LeaderLink for HttpLink {
    async fn report(&self, report: &Report) -> Result<ReportAccepted, LinkError> {
        let body = Bytes::from(serde_json::to_vec(report).expect("plain data"));
        let mut may_learn = true;
        loop {
            let (status, answer) = match tokio::time::timeout(TIMEOUT, self.send(&body)).await {
                Ok(answer) => answer?,
                Err(_) => return Err(self.unreachable(format!("no answer within {} s", TIMEOUT.as_secs()))),
            };
            if status == StatusCode::OK {
                return serde_json::from_slice(&answer).map_err(|e| self.unreachable(format!("its answer can't be read: {e}")));
            }
            let Ok(refusal) = serde_json::from_slice::<ApiError>(&answer) else {
                return Err(self.unreachable(format!("it answered {status}: is it a cube leader?")));
            };
            if !(may_learn && self.dialer.learns_from(&refusal)) {
                return Err(refusal.into());
            }
            may_learn = false;
        }
    }

    /// A node that reports now and then has one socket, its session's; so does its leader for it.
    fn rest(&self) {
        drop(self.kept.lock().expect(UNPOISONED).take());
    }
}

#[cfg(test)]
mod tests;
