//! What a node serves to the leader over its session: its assignment, logs and exec. Knows no container; the agent does the work.

use std::convert::Infallible;

use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use cube_api::meta::{Name, Uid};
use cube_api::routes::{ExecQuery, LogQuery, node};
use cube_api::session::Assignment;
use cube_api::stream::{Decoder, Frame};
use cube_api::{ApiError, ErrorCode};
use futures::stream::{self, BoxStream, StreamExt};
use http_body_util::BodyExt;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::follower::agent::{Agent, Exec};
use crate::tasks::Tasks;

/// The most bytes of an assignment: 110 pods of the largest manifests are far below.
const ASSIGNMENT_BYTES: usize = 64 * 1024 * 1024;

/// An error as the leader reads it.
struct Refusal(ApiError);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0.code.status(), Json(self.0)).into_response()
    }
}

/// What the handlers work with.
#[derive(Clone)]
struct Node {
    agent: Agent,
    tasks: Tasks,
}

/// The node's routes. Input of execs is passed on in `tasks`.
pub fn router(agent: Agent, tasks: Tasks) -> Router {
    Router::new()
        .route(node::ASSIGNMENT, put(assign))
        .route(node::LOGS, get(logs))
        .route(node::EXEC, post(exec))
        .layer(DefaultBodyLimit::max(ASSIGNMENT_BYTES))
        .with_state(Node { agent, tasks })
}

async fn assign(State(Node { agent, .. }): State<Node>, body: Bytes) -> Result<Response, Refusal> {
    let assignment: Assignment = serde_json::from_slice(&body).map_err(|error| bad(format!("the assignment can't be read: {error}")))?;
    agent.assign(assignment).await.map(|accepted| Json(accepted).into_response()).map_err(Refusal)
}

async fn logs(State(Node { agent, .. }): State<Node>, Path(uid): Path<Uid>, Query(query): Query<LogQuery>) -> Result<Body, Refusal> {
    agent.logs(uid, query).await.map(logs_body).map_err(Refusal)
}

async fn exec(
    State(Node { agent, tasks }): State<Node>,
    Path(uid): Path<Uid>,
    Query(pairs): Query<Vec<(String, String)>>,
    body: Body,
) -> Result<Body, Refusal> {
    let query = exec_query(pairs).map_err(bad)?;
    agent.exec(uid, query).await.map(|exec| exec_body(body, exec, &tasks)).map_err(Refusal)
}

fn bad(message: String) -> Refusal {
    Refusal(ApiError::new(ErrorCode::BadRequest, message))
}

/// Reads the query that the leader writes: `command` once for each word.
fn exec_query(pairs: Vec<(String, String)>) -> Result<ExecQuery, String> {
    let mut query = ExecQuery::default();
    for (key, value) in pairs {
        match key.as_str() {
            "command" => query.command.push(value),
            "container" => query.container = Some(Name::new(value).map_err(|error| format!("container: {error}"))?),
            "tty" => query.tty = flag("tty", &value)?,
            "stdin" => query.stdin = flag("stdin", &value)?,
            unknown => return Err(format!("unknown parameter '{unknown}'")),
        }
    }
    Ok(query)
}

fn flag(name: &str, value: &str) -> Result<bool, String> {
    value.parse().map_err(|_| format!("{name} is true or false, not '{value}'"))
}

/// A frame is made only when the connection has room for it: a leader that doesn't read stops the log's reader.
fn logs_body(frames: BoxStream<'static, Frame>) -> Body {
    Body::from_stream(frames.map(|frame| Ok::<_, Infallible>(frame.encode_prefixed())))
}

/// Joins an exec with the request's body. Input has a task of its own: the answer is polled only while the client takes output, and one that doesn't
/// must still be able to interrupt the process. The task ends with the answer: a stream that the leader resets drops it, and with it the exec.
fn exec_body(request: Body, exec: Exec, tasks: &Tasks) -> Body {
    let Exec { input, output } = exec;
    let ended = CancellationToken::new();
    let (until_ended, client_gone) = (ended.clone(), ended.clone().drop_guard());
    tasks.spawn_droppable("exec input", async move {
        // The leader keeps its half open until it has the status: an end before it means that the client is gone.
        let _client_gone = client_gone;
        tokio::select! {
            () = pump(request, input) => {}
            () = until_ended.cancelled() => {}
        }
    });
    let answer_dropped = ended.clone().drop_guard();
    let frames = stream::unfold((output, ended, answer_dropped), |(mut output, ended, answer_dropped)| async move {
        // Cancel-safe: `recv` loses nothing. What came before the client went is still told.
        let frame = tokio::select! {
            biased;
            frame = output.recv() => frame?,
            () = ended.cancelled() => return None,
        };
        Some((Ok::<_, Infallible>(frame.encode_prefixed()), (output, ended, answer_dropped)))
    });
    Body::from_stream(frames)
}

/// Passes the client's frames on until the client is gone. A process that has closed its input is no reason to end.
async fn pump(mut body: Body, input: mpsc::Sender<Frame>) {
    let mut decoder = Decoder::default();
    while let Some(Ok(piece)) = body.frame().await {
        let Ok(data) = piece.into_data() else { continue };
        decoder.feed(&data);
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => {
                    if input.send(frame).await.is_err() {
                        tracing::debug!("input for a command that has ended");
                    }
                }
                Ok(None) => break,
                Err(error) => return tracing::warn!(%error, "the leader sent a frame that can't be read"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cube_api::stream::Outcome;

    #[tokio::test]
    async fn an_exec_whose_client_is_gone_is_dropped() {
        let (input, mut process_in) = mpsc::channel(1);
        let (process_out, output) = mpsc::channel(1);
        let body =
            exec_body(Body::from(Frame::Stdin(Bytes::from_static(b"hi")).encode_prefixed()), Exec { input, output }, &Tasks::default());
        let collected = body.collect().await.expect("a body that can't fail").to_bytes();
        assert!(collected.is_empty());
        assert_eq!(process_in.recv().await, Some(Frame::Stdin(Bytes::from_static(b"hi"))));
        assert_eq!(process_in.recv().await, None);
        assert!(process_out.is_closed());
    }

    #[tokio::test]
    async fn an_exec_ends_with_its_status_while_the_client_is_there() {
        let (input, _process_in) = mpsc::channel(1);
        let (process_out, output) = mpsc::channel(2);
        let body = exec_body(Body::from_stream(stream::pending::<Result<Bytes, Infallible>>()), Exec { input, output }, &Tasks::default());
        let status = Frame::Status(Outcome::ExitCode(3));
        process_out.send(status.clone()).await.expect("room");
        drop(process_out);
        assert_eq!(body.collect().await.expect("a body that can't fail").to_bytes(), status.encode_prefixed());
    }

    #[tokio::test]
    async fn a_client_that_takes_no_output_can_still_interrupt() {
        let (input, mut process_in) = mpsc::channel(1);
        let (_process_out, output) = mpsc::channel(1);
        let interrupt = Frame::Stdin(Bytes::from_static(b"\x03"));
        let sent = stream::iter([Ok::<_, Infallible>(interrupt.encode_prefixed())]).chain(stream::pending());
        let body = exec_body(Body::from_stream(sent), Exec { input, output }, &Tasks::default());
        let arrived = tokio::time::timeout(std::time::Duration::from_secs(10), process_in.recv()).await;
        assert_eq!(arrived, Ok(Some(interrupt)));
        drop(body);
        assert_eq!(process_in.recv().await, None);
    }

    #[test]
    fn the_words_of_a_command_keep_their_order() {
        let pairs = [("command", "sh"), ("tty", "true"), ("command", "-c"), ("command", "")];
        let query = exec_query(pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec()).expect("valid");
        assert_eq!((query.command, query.tty, query.stdin), (vec!["sh".to_owned(), "-c".to_owned(), String::new()], true, false));
        for (key, value) in [("comand", "sh"), ("tty", "yes"), ("stdin", ""), ("container", "No_Name")] {
            assert!(exec_query(vec![(key.to_owned(), value.to_owned())]).is_err(), "{key}={value}");
        }
    }
}
