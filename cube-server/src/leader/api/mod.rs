//! The HTTP and websocket API: decode, authorise, store or relay, encode. It records intent and never decides; it knows no SQL and no plan.
//!
//! * `access.rs`: who may do what; the one layer that lets a request in.
//! * `answers.rs`: errors as JSON with the request's id; extractors that refuse in the API's own words.
//! * `pods.rs`, `nodes.rs`: the handlers.
//! * `lists.rs`: lists in pages of one revision, and watches. `selector.rs`: label selectors.
//! * `streams.rs`: logs and exec, relayed frame by frame.

mod access;
mod answers;
mod lists;
mod nodes;
mod pods;
mod selector;
mod streams;
#[cfg(test)]
mod tests;

use axum::Router;
use axum::middleware;
use axum::routing::{get, post};
use cube_api::auth::Keys;
use cube_api::routes::{self, VersionInfo};
use tokio_util::sync::CancellationToken;

use super::nodes::Nodes;
use super::store::Store;
use crate::ambient::Ambient;

/// What the handlers work with.
#[derive(Clone)]
pub struct Api {
    /// The cluster's state.
    pub store: Store,
    /// The followers' sessions.
    pub nodes: Nodes,
    /// What verifies credentials.
    pub keys: Keys,
    /// The clock that credentials are judged by, and the source of request ids.
    pub ambient: Ambient,
    /// Ends watches, logs and execs when the server stops.
    pub stopping: CancellationToken,
}

/// Every route. All but health and version are behind `access::guard`, those that don't exist too.
pub fn router(api: Api) -> Router {
    let guarded = Router::new()
        .route(routes::APPLY, post(pods::apply))
        .route(routes::PODS, get(pods::list))
        .route(routes::POD, get(pods::get).delete(pods::delete))
        .route(routes::POD_RESTART, post(pods::restart))
        .route(routes::POD_LOGS, get(streams::logs))
        .route(routes::POD_EXEC, get(streams::exec))
        .route(routes::EVENTS, get(pods::events))
        .route(routes::NODES, get(nodes::list))
        .route(routes::NODE, get(nodes::get).delete(nodes::delete))
        .route(routes::NODE_REPORT, post(nodes::report))
        .route(routes::SESSION, post(nodes::session))
        .fallback(answers::no_route)
        .method_not_allowed_fallback(answers::wrong_method)
        .layer(middleware::from_fn_with_state(api.clone(), access::guard));
    Router::new()
        .route(routes::HEALTHZ, get(async || "ok"))
        .route(routes::READYZ, get(async || "ok"))
        .route(routes::VERSION, get(async || axum::Json(VersionInfo { version: env!("CARGO_PKG_VERSION").to_owned() })))
        .method_not_allowed_fallback(answers::wrong_method)
        .merge(guarded)
        .layer(middleware::from_fn_with_state(api.clone(), answers::identify))
        .with_state(api)
}
