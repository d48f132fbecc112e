//! Whether the leader takes work, and its figures.

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;

use super::Api;
use super::answers::Refusal;
use crate::leader::metrics;

/// Anybody may ask, so it names no folder.
pub(super) async fn ready(State(api): State<Api>) -> (StatusCode, &'static str) {
    match api.store.trouble() {
        None => (StatusCode::OK, "ok"),
        Some(_) => (StatusCode::SERVICE_UNAVAILABLE, "the leader's disk is full: it serves reads and deletes, and takes nothing new"),
    }
}

pub(super) async fn metrics(State(api): State<Api>) -> Result<impl IntoResponse, Refusal> {
    let text = api.metrics.text(&api.store, &api.nodes).await?;
    Ok(([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text))
}
