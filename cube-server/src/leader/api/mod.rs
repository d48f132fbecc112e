//! The HTTP and websocket API: decode, authorise, store or relay, encode. It records intent and never decides; it knows no SQL and no plan.
//!
//! * `access.rs`: who may do what; the one layer that lets a request in.
//! * `answers.rs`: errors as JSON with the request's id; extractors that refuse in the API's own words.
//! * `pods.rs`, `nodes.rs`, `objects.rs`, `deployments.rs`: the handlers.
//! * `lists.rs`: lists in pages of one revision, and watches. `selector.rs`: label selectors.
//! * `classic/`: the classic task interface.
//! * `streams.rs`: logs and exec, relayed frame by frame.
//! * `health.rs`: whether the leader takes work, and its figures.

mod access;
mod answers;
mod classic;
mod deployments;
mod health;
mod lists;
mod nodes;
mod objects;
mod pods;
mod selector;
mod streams;
#[cfg(test)]
mod tests;

use axum::Router;
use axum::middleware;
use axum::routing::{get, post};
use cube_api::Node;
use cube_api::auth::Keys;
use cube_api::routes::{self, VersionInfo};

use self::answers::Places;
use super::metrics::Metrics;
use super::nodes::Nodes;
use super::store::Store;
use crate::ambient::Ambient;
use crate::serve::Connections;
use crate::tasks::Tasks;

/// What the handlers work with.
#[derive(Clone)]
pub struct Api {
    /// The cluster's state.
    store: Store,
    /// The followers' sessions.
    nodes: Nodes,
    /// What verifies credentials.
    keys: Keys,
    /// The clock that credentials are judged by, and the source of request ids.
    ambient: Ambient,
    /// Where logs and execs are relayed; ends watches when the server stops.
    tasks: Tasks,
    metrics: Metrics,
    /// For bodies that are no trifle.
    large_bodies: Places,
    /// For reports of nodes, whatever their size.
    reports: Places,
}

impl Api {
    /// Of this leader.
    pub fn new(store: Store, nodes: Nodes, keys: Keys, ambient: Ambient, tasks: Tasks) -> Self {
        let metrics = Metrics::new(&store);
        let (large_bodies, reports) = (Places::for_large_bodies(), Places::for_reports());
        Self { store, nodes, keys, ambient, tasks, metrics, large_bodies, reports }
    }

    /// Where the connections that lead here are counted.
    pub fn connections(&self) -> Connections {
        self.metrics.connections()
    }

    /// A node with what isn't the store's: what its pods reserve and what its machine uses, at the time of the answer.
    fn node_view(&self, node: &Node) -> Node {
        Node { usage: self.nodes.usage(&node.name), ..self.store.read(|state| state.node_view(node)) }
    }
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
        .route(routes::OBJECTS, get(objects::list).fallback(objects::other_method))
        .route(routes::OBJECT, get(objects::get).delete(objects::delete).fallback(objects::other_method))
        .route(routes::DEPLOYMENT_SCALE, post(deployments::scale))
        .route(routes::DEPLOYMENT_ROLLOUT, post(deployments::rollout))
        .route(routes::CRONJOB_TRIGGER, post(objects::trigger_cronjob))
        .route(routes::EVENTS, get(pods::events))
        .route(routes::NODES, get(nodes::list))
        .route(routes::NODE, get(nodes::get).patch(nodes::patch).delete(nodes::delete))
        .route(routes::NODE_CORDON, post(nodes::cordon).delete(nodes::uncordon))
        .route(routes::NODE_DRAIN, post(nodes::drain))
        .route(routes::NODE_REPORT, post(nodes::report))
        .route(routes::SESSION, post(nodes::session))
        .route(routes::TASKS, get(classic::list).post(classic::post))
        .route(routes::TASK, get(classic::get).delete(classic::delete))
        .route(routes::WORKERS, get(classic::workers))
        .route(routes::METRICS, get(health::metrics))
        .fallback(answers::no_route)
        .method_not_allowed_fallback(answers::wrong_method)
        .layer(middleware::from_fn_with_state(api.clone(), access::guard));
    Router::new()
        .route(routes::HEALTHZ, get(async || "ok"))
        .route(routes::READYZ, get(health::ready))
        .route(routes::VERSION, get(async || axum::Json(VersionInfo { version: env!("CARGO_PKG_VERSION").to_owned() })))
        .method_not_allowed_fallback(answers::wrong_method)
        .merge(guarded)
        .layer(middleware::from_fn_with_state(api.clone(), answers::identify))
        .with_state(api)
}
