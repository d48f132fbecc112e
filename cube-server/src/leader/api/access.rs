//! Who may do what: one table by action, not by HTTP method (an exec over a websocket is a GET), and the layer that asks it before the body is read.

use axum::extract::{MatchedPath, Request, State};
use axum::http::{Method, header};
use axum::middleware::Next;
use axum::response::Response;
use cube_api::auth::{CredentialError, Role};
use cube_api::meta::Name;
use cube_api::{ApiError, ErrorCode, routes};

use super::Api;
use super::answers::Refusal;
use crate::serve::Connection;

/// What a request does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// Looks, at nothing secret.
    Read,
    /// Changes what should be.
    Change,
    /// Runs a command in a container.
    Exec,
    /// Speaks as a node; the handler checks that it is the right one.
    BeNode,
}

/// The action of a route; none where there is no such route.
pub(super) fn action(method: &Method, route: &str) -> Option<Action> {
    match (method.as_str(), route) {
        ("GET", routes::PODS | routes::POD | routes::POD_LOGS | routes::EVENTS | routes::NODES | routes::NODE | routes::METRICS)
        // A secret's values aren't in any answer.
        | ("GET", routes::OBJECTS | routes::OBJECT)
        | ("GET", routes::TASKS | routes::TASK | routes::WORKERS) => Some(Action::Read),
        (
            "POST",
            routes::APPLY
            | routes::POD_RESTART
            | routes::DEPLOYMENT_SCALE
            | routes::DEPLOYMENT_ROLLOUT
            | routes::CRONJOB_TRIGGER
            | routes::NODE_CORDON
            | routes::NODE_DRAIN
            | routes::TASKS,
        )
        | ("PATCH", routes::NODE)
        | ("DELETE", routes::POD | routes::NODE | routes::NODE_CORDON | routes::OBJECT | routes::TASK) => Some(Action::Change),
        ("GET", routes::POD_EXEC) => Some(Action::Exec),
        ("POST", routes::NODE_REPORT | routes::SESSION) => Some(Action::BeNode),
        _ => None,
    }
}

/// Whether a role may. What isn't in the table of actions only an admin may ask for, and is told that it doesn't exist.
pub(super) fn allows(role: &Role, action: Option<Action>) -> bool {
    match (role, action) {
        (Role::Admin, None | Some(Action::Read | Action::Change | Action::Exec)) => true,
        (Role::Read, Some(Action::Read)) => true,
        (Role::Node(_), Some(Action::BeNode)) => true,
        (Role::Admin, Some(Action::BeNode)) => false,
        (Role::Read, None | Some(Action::Change | Action::Exec | Action::BeNode)) => false,
        (Role::Node(_), None | Some(Action::Read | Action::Change | Action::Exec)) => false,
    }
}

/// Lets a request in with its [`Role`] as an extension, or refuses it; the body hasn't been read then.
pub(super) async fn guard(State(api): State<Api>, mut request: Request, next: Next) -> Result<Response, Refusal> {
    let role = role_of(&api, &request)?;
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned()).unwrap_or_default();
    if !allows(&role, action(request.method(), &route)) {
        let message = format!("this credential's role may not {} {}", request.method(), request.uri().path());
        return Err(ApiError::new(ErrorCode::Forbidden, message).into());
    }
    if let (Role::Node(_), Some(connection)) = (&role, request.extensions().get::<Connection>()) {
        connection.is_a_nodes();
    }
    request.extensions_mut().insert(role);
    Ok(next.run(request).await)
}

fn role_of(api: &Api, request: &Request) -> Result<Role, ApiError> {
    let bearer = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    let missing = || {
        ApiError::new(ErrorCode::Unauthenticated, "no credential was sent")
            .hint("send 'Authorization: Bearer <token>'; the cube command does it with the password of ~/.cube/config")
    };
    let now = api.ambient.now();
    api.keys.verify(bearer.ok_or_else(missing)?, now).map_err(|error| match error {
        CredentialError::Wrong => ApiError::new(ErrorCode::Unauthenticated, "the credential is not this cluster's")
            .hint("the password must be the cluster's token: the leader keeps it in its data folder as 'token'"),
        CredentialError::OutOfTime => ApiError {
            server_time: Some(now),
            ..ApiError::new(ErrorCode::CredentialExpired, "the credential is out of its time").hint("set this machine's clock right")
        },
    })
}

/// Refuses a node that speaks for another one.
pub(super) fn must_be(role: &Role, node: &Name) -> Result<(), ApiError> {
    match role {
        Role::Node(own) if own == node => Ok(()),
        Role::Node(own) => {
            Err(ApiError::new(ErrorCode::Forbidden, format!("the credential of node '{own}' can't speak for node '{node}'")))
        }
        Role::Admin | Role::Read => Err(ApiError::new(ErrorCode::Forbidden, "only a node's own credential can speak for a node")),
    }
}
