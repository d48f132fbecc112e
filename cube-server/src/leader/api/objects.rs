//! Handlers of the resources that are neither pods nor nodes: a type is a word of the path.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{Method, Uri};
use axum::response::Response;
use cube_api::meta::{Name, ResourceKind, ResourceRef};
use cube_api::routes::{DeleteQuery, ListQuery};
use cube_api::{ApiError, ErrorCode, Object};

use super::Api;
use super::answers::{self, Ask, Refusal};
use super::lists::{self, Objects};

/// The type of a path's word. Pods and nodes have routes of their own.
fn kind_of(types: &str) -> Result<ResourceKind, ApiError> {
    let absent = || ApiError::new(ErrorCode::NoRoute, format!("there is no route /v1/{types}"));
    ResourceKind::of_plural(types).filter(|kind| !matches!(kind, ResourceKind::Pod | ResourceKind::Node)).ok_or_else(absent)
}

fn reference(types: &str, name: &str) -> Result<ResourceRef, ApiError> {
    let kind = kind_of(types)?;
    let name = Name::new(name).map_err(|error| ApiError::new(ErrorCode::BadRequest, format!("{kind}/{name}: {error}")))?;
    Ok(ResourceRef { kind, name })
}

/// What isn't there is told as such, whatever it is asked with.
pub(super) async fn other_method(method: Method, uri: Uri) -> Refusal {
    let types = uri.path().split('/').nth(2).unwrap_or_default();
    match kind_of(types) {
        Ok(_) => answers::wrong_method(method, uri).await,
        Err(_) => answers::no_route(uri).await,
    }
}

pub(super) async fn list(State(api): State<Api>, Path(types): Path<String>, Ask(query): Ask<ListQuery>) -> Result<Response, Refusal> {
    lists::answer(&api, Objects(kind_of(&types)?), query)
}

pub(super) async fn get(State(api): State<Api>, Path((types, name)): Path<(String, String)>) -> Result<Json<Object>, Refusal> {
    let reference = reference(&types, &name)?;
    let absent = || {
        let hint = format!("'cube list {}' shows what there is", reference.kind);
        ApiError::new(ErrorCode::NotFound, format!("{reference} not found")).hint(hint)
    };
    let found = api.store.read(|state| state.object(reference.kind, &reference.name).cloned()).ok_or_else(absent)?;
    Ok(Json(found.shown()))
}

pub(super) async fn delete(
    State(api): State<Api>,
    Path((types, name)): Path<(String, String)>,
    Ask(query): Ask<DeleteQuery>,
) -> Result<Json<Object>, Refusal> {
    Ok(Json(api.store.delete_object(reference(&types, &name)?, query).await?.shown()))
}
