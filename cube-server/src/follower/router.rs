//! What a node serves to its leader, over the session only.

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{DefaultBodyLimit, Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use cube_api::meta::Uid;
use cube_api::routes::node;
use cube_api::session::{Assignment, AssignmentAccepted};
use cube_api::stream::Frame;
use cube_api::{ApiError, ErrorCode};
use futures::StreamExt;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use super::Agent;
use super::agent::Exec;
use crate::tasks::Tasks;
use crate::{frames, query};

/// The longest assignment, in bytes: 1,000 pods with the largest specs that a manifest's limit lets through are below it.
const MAX_ASSIGNMENT: usize = 64 * 1024 * 1024;

#[derive(Clone)]
struct Served {
    agent: Agent,
    tasks: Tasks,
}

/// The routes of [`cube_api::routes::node`].
pub fn router(agent: Agent, tasks: Tasks) -> Router {
    Router::new()
        .route(node::ASSIGNMENT, put(assign).layer(DefaultBodyLimit::max(MAX_ASSIGNMENT)))
        .route(node::LOGS, get(logs))
        .route(node::EXEC, post(exec))
        .fallback(async || Refusal(ApiError::new(ErrorCode::NoRoute, "a node has no such route")))
        .with_state(Served { agent, tasks })
}

async fn assign(State(served): State<Served>, body: Result<Bytes, BytesRejection>) -> Result<axum::Json<AssignmentAccepted>, Refusal> {
    let body = body.map_err(|e| bad(&e.body_text()))?;
    let assignment: Assignment = serde_json::from_slice(&body).map_err(|e| bad(&format!("the assignment can't be read: {e}")))?;
    Ok(axum::Json(served.agent.assign(assignment).await.map_err(Refusal)?))
}

async fn logs(State(served): State<Served>, uid: Result<Path<Uid>, PathRejection>, RawQuery(text): RawQuery) -> Result<Body, Refusal> {
    let query = query::read_log(&text.unwrap_or_default()).map_err(Refusal)?;
    let log = served.agent.logs(read_uid(uid)?, query).await.map_err(Refusal)?;
    Ok(frames::body(log))
}

async fn exec(
    State(served): State<Served>,
    uid: Result<Path<Uid>, PathRejection>,
    RawQuery(text): RawQuery,
    body: Body,
) -> Result<Body, Refusal> {
    let query = query::read_exec(&text.unwrap_or_default()).map_err(Refusal)?;
    let exec = served.agent.exec(read_uid(uid)?, query).await.map_err(Refusal)?;
    Ok(join(exec, body, &served.tasks))
}

/// Joins a running exec with the request's and the response's body. When hyper drops the response's body (the leader reset the stream, or
/// the session ended), both ends of the exec go with it at once.
pub(super) fn join(exec: Exec, input: Body, tasks: &Tasks) -> Body {
    let gone = CancellationToken::new();
    let alive = gone.clone().drop_guard();
    let Exec { input: to_process, output } = exec;
    // A task of its own, so that a client that doesn't read the output can still send an interrupt.
    tasks.spawn_droppable("exec input", async move {
        tokio::select! {
            biased;
            () = gone.cancelled() => {}
            () = pass_input(frames::Reader::new(input), to_process) => {}
        }
    });
    frames::body(ReceiverStream::new(output).map(move |frame| {
        // Moved in: dropped with the body.
        let _alive = &alive;
        frame
    }))
}

async fn pass_input(mut input: frames::Reader, to_process: mpsc::Sender<Frame>) {
    loop {
        match input.next().await {
            Ok(Some(frame)) => {
                // An error: the process has ended; its output says how.
                if to_process.send(frame).await.is_err() {
                    return;
                }
            }
            Ok(None) => return,
            Err(error) => return tracing::debug!(error = &error as &dyn std::error::Error, "an exec's input ended early"),
        }
    }
}

fn read_uid(uid: Result<Path<Uid>, PathRejection>) -> Result<Uid, Refusal> {
    uid.map(|Path(uid)| uid).map_err(|e| bad(&e.body_text()))
}

fn bad(problem: &str) -> Refusal {
    Refusal(ApiError::new(ErrorCode::BadRequest, problem))
}

/// An error as the answer.
struct Refusal(ApiError);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0.code.status(), axum::Json(self.0)).into_response()
    }
}

#[cfg(test)]
mod tests;
