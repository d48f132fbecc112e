//! The classic task interface over HTTP: decode, ask the store as the other handlers do, encode. What a task and a worker are is
//! [`cube_api::classic`]'s to say; that a task is found by its ID, the beginning of it, or a name is `find.rs`'s.
//!
//! It keeps nothing and decides nothing: without this folder and its three lines in the router, cube is the same.

mod find;

use axum::Json;
use axum::body::Body;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use cube_api::classic::{self, Order, Request, TASK_ID, Task, Worker};
use cube_api::routes::DeleteQuery;
use cube_api::{ApiError, ErrorCode, Pod};
use futures::stream;
use uuid::Uuid;

use self::find::Page;
use super::Api;
use super::answers::{Refusal, Whole};
use crate::leader::store::Identity;

/// The word in a path that means a task.
pub(super) struct Reference(String);

impl<S: Send + Sync> FromRequestParts<S> for Reference {
    type Rejection = Refusal;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        let Path(text) = path.map_err(|rejection| ApiError::new(ErrorCode::BadRequest, rejection.body_text()))?;
        Ok(Self(text))
    }
}

/// Runs a task, answering `201` and the task; or stops one, answering `200` and the task as it was.
pub(super) async fn post(State(api): State<Api>, Whole(body, _place): Whole) -> Result<Response, Refusal> {
    let invalid = |problems| ApiError::invalid("the task has errors; nothing was changed", problems);
    match classic::read(&body).map_err(invalid)? {
        Order::Run(request) => {
            let pod = run(&api, &request).await?;
            Ok((StatusCode::CREATED, Json(Task::of(&pod))).into_response())
        }
        Order::Stop(id) => {
            let pod = stop(&api, &id.to_string()).await?;
            Ok(Json(Task::of(&pod)).into_response())
        }
    }
}

async fn run(api: &Api, request: &Request) -> Result<Pod, Refusal> {
    let id = request.id.unwrap_or_else(|| random_id(api));
    let named = request.pod_names(id).iter().map(|name| request.pod(name, id)).collect();
    let identity = request.id.map(|id| Identity { label: TASK_ID, value: id.to_string() });
    Ok(api.store.create_pod(named, identity).await?)
}

/// Random throughout, unlike a pod's uid, which begins with the time: its first 8 digits are what people type.
fn random_id(api: &Api) -> Uuid {
    let random = u128::from(api.ambient.random()) << 64 | u128::from(api.ambient.random());
    uuid::Builder::from_random_bytes(random.to_be_bytes()).into_uuid()
}

async fn stop(api: &Api, text: &str) -> Result<Pod, Refusal> {
    let name = find::task(&api.store, text)?.pod.metadata.name.clone();
    Ok(api.store.delete_pod(name, DeleteQuery::default()).await?)
}

/// Every pod as a task, in order of the pods' names: written while it is read, a page at a time, each as of its own moment.
pub(super) async fn list(State(api): State<Api>) -> Response {
    let pages = stream::unfold(Some((api, Page::first())), async |rest| {
        let (api, page) = rest?;
        let (rows, next) = page.read(&api.store);
        let mut piece = Vec::with_capacity(rows.len() * 512 + 2);
        for (place, row) in rows.iter().enumerate() {
            piece.push(if place == 0 && page.is_first() { b'[' } else { b',' });
            serde_json::to_writer(&mut piece, &Task::of(&row.pod)).expect("plain data");
        }
        if rows.is_empty() && page.is_first() {
            piece.push(b'[');
        }
        if next.is_none() {
            piece.push(b']');
        }
        Some((Ok::<_, std::convert::Infallible>(Bytes::from(piece)), next.map(|next| (api, next))))
    });
    ([(header::CONTENT_TYPE, "application/json")], Body::from_stream(pages)).into_response()
}

pub(super) async fn get(State(api): State<Api>, Reference(text): Reference) -> Result<Json<Task>, Refusal> {
    Ok(Json(Task::of(&find::task(&api.store, &text)?.pod)))
}

pub(super) async fn delete(State(api): State<Api>, Reference(text): Reference) -> Result<StatusCode, Refusal> {
    stop(&api, &text).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Every node as a worker, in order of their names.
pub(super) async fn workers(State(api): State<Api>) -> Json<Vec<Worker>> {
    let nodes: Vec<_> = api.store.read(|state| state.nodes.values().cloned().collect());
    Json(nodes.iter().map(|node| Worker::of(&api.node_view(node))).collect())
}
