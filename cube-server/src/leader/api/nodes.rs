//! Handlers of nodes: what people ask about them, and what they say themselves.

use axum::extract::{FromRequest, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use cube_api::auth::Role;
use cube_api::routes::{CordonQuery, DeleteNodeQuery, DrainQuery, ListQuery, NodePatch};
use cube_api::session::{Announcement, ReportAccepted, UPGRADE, WELCOME_HEADER};
use cube_api::{ApiError, ErrorCode, Node};
use hyper::upgrade::OnUpgrade;

use super::answers::{Ask, JsonBody, Named, Refusal, Reported};
use super::lists::{self, Nodes};
use super::{Api, access};

pub(super) async fn list(State(api): State<Api>, Ask(query): Ask<ListQuery>) -> Result<Response, Refusal> {
    lists::answer(&api, Nodes, query)
}

pub(super) async fn get(State(api): State<Api>, Named(name): Named) -> Result<Json<Node>, Refusal> {
    let found = api.store.read(|state| state.nodes.get(&name).cloned());
    let absent = || ApiError::new(ErrorCode::NotFound, format!("node/{name} not found")).hint("'cube nodes' shows what there is");
    let node = found.ok_or_else(absent)?;
    Ok(Json(api.node_view(&node)))
}

pub(super) async fn delete(State(api): State<Api>, Named(name): Named, Ask(query): Ask<DeleteNodeQuery>) -> Result<Json<Node>, Refusal> {
    if api.nodes.live().contains_key(&name) {
        let message = format!("node/{name} is connected and would join again");
        let hint = format!("move its pods away with `cube drain {name}` and stop its cube-server first");
        return Err(ApiError::new(ErrorCode::Conflict, message).hint(hint).into());
    }
    Ok(Json(api.store.delete_node(name, query.force).await?))
}

pub(super) async fn patch(
    State(api): State<Api>,
    Named(name): Named,
    JsonBody(patch, _place): JsonBody<NodePatch>,
) -> Result<Json<Node>, Refusal> {
    Ok(Json(api.store.label_node(name, patch.labels).await?))
}

pub(super) async fn cordon(State(api): State<Api>, Named(name): Named, Ask(query): Ask<CordonQuery>) -> Result<Json<Node>, Refusal> {
    Ok(Json(api.store.cordon_node(name, query).await?))
}

pub(super) async fn uncordon(State(api): State<Api>, Named(name): Named) -> Result<Json<Node>, Refusal> {
    Ok(Json(api.store.uncordon_node(name).await?))
}

pub(super) async fn drain(State(api): State<Api>, Named(name): Named, Ask(query): Ask<DrainQuery>) -> Result<Json<Node>, Refusal> {
    Ok(Json(api.store.drain_node(name, query).await?))
}

pub(super) async fn report(
    State(api): State<Api>,
    Extension(role): Extension<Role>,
    Named(node): Named,
    Reported(report, places): Reported,
) -> Result<Json<ReportAccepted>, Refusal> {
    access::must_be(&role, &node)?;
    api.nodes.may_report(&node, report.node_id, report.instance)?;
    let usage = report.usage;
    let accepted = api.store.report(node.clone(), report, places).await?;
    api.nodes.note_usage(node, usage);
    Ok(Json(accepted))
}

/// Answers `101` and hands the connection to [`crate::leader::nodes::Nodes`], which is HTTP/2's client on it from then on.
pub(super) async fn session(State(api): State<Api>, Extension(role): Extension<Role>, mut request: Request) -> Result<Response, Refusal> {
    let asked = request.headers().get(header::UPGRADE).is_some_and(|value| value == UPGRADE);
    let upgrade = request.extensions_mut().remove::<OnUpgrade>().filter(|_| asked);
    let wrong = || ApiError::new(ErrorCode::BadRequest, format!("a session needs 'Connection: upgrade' and 'Upgrade: {UPGRADE}'"));
    let upgrade = upgrade.ok_or_else(wrong)?;
    let JsonBody(announcement, _) = JsonBody::<Announcement>::from_request(request, &api).await?;
    access::must_be(&role, &announcement.node)?;
    let welcome = api.nodes.accept(announcement, upgrade).await?;
    let welcome = serde_json::to_string(&welcome).expect("plain data");
    let headers = [
        (header::UPGRADE.as_str(), HeaderValue::from_static(UPGRADE)),
        (header::CONNECTION.as_str(), HeaderValue::from_static("upgrade")),
        (WELCOME_HEADER, HeaderValue::from_str(&welcome).expect("ids and numbers as JSON")),
    ];
    Ok((StatusCode::SWITCHING_PROTOCOLS, headers).into_response())
}
