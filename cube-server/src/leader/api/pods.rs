//! Handlers of pods and events.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use cube_api::meta::Name;
use cube_api::routes::{Applied, ApplyQuery, DeleteQuery, EventQuery, List, ListQuery};
use cube_api::{ApiError, ErrorCode, Event, Pod, manifest};

use super::Api;
use super::answers::{Ask, Named, Refusal, Whole};
use super::lists::{self, Pods};
use crate::blocking;
use crate::leader::store::{PodRow, Store};

/// A manifest of up to so many bytes is read where the request is: that takes some 10 ms. One of 4 MiB takes 0.7 s, and would hold up others.
const READ_AT_ONCE: usize = 64 * 1024;

pub(super) async fn apply(
    State(api): State<Api>,
    Ask(query): Ask<ApplyQuery>,
    Whole(body, _place): Whole,
) -> Result<Json<Applied>, Refusal> {
    let invalid = |problems| ApiError::invalid("the manifest has errors; nothing was changed", problems);
    let read =
        if body.len() <= READ_AT_ONCE { manifest::from_json(&body) } else { blocking::run(move || manifest::from_json(&body)).await };
    let resources = read.map_err(invalid)?;
    Ok(Json(api.store.apply(resources, query.dry_run).await?))
}

pub(super) async fn list(State(api): State<Api>, Ask(query): Ask<ListQuery>) -> Result<Response, Refusal> {
    lists::answer(&api, Pods, query)
}

pub(super) async fn get(State(api): State<Api>, Named(name): Named) -> Result<Json<Pod>, Refusal> {
    Ok(Json(find(&api.store, &name)?.pod.clone()))
}

pub(super) async fn delete(State(api): State<Api>, Named(name): Named, Ask(query): Ask<DeleteQuery>) -> Result<Json<Pod>, Refusal> {
    Ok(Json(api.store.delete_pod(name, query).await?))
}

pub(super) async fn restart(State(api): State<Api>, Named(name): Named) -> Result<Json<Pod>, Refusal> {
    Ok(Json(api.store.restart_pod(name).await?))
}

pub(super) async fn events(State(api): State<Api>, Ask(query): Ask<EventQuery>) -> Result<Json<List<Event>>, Refusal> {
    // Read before the events: everything up to it is in them, so that asking again from it misses none.
    let revision = api.store.read(|state| state.revision);
    let items = api.store.events(query).await?;
    Ok(Json(List { revision, continue_from: None, items }))
}

/// The pod of a name, or the refusal that says how to find out what there is.
pub(super) fn find(store: &Store, name: &Name) -> Result<Arc<PodRow>, ApiError> {
    let absent = || ApiError::new(ErrorCode::NotFound, format!("pod/{name} not found")).hint("'cube list pod' shows what there is");
    store.pod(name).ok_or_else(absent)
}
