//! Handlers of what people say of deployments beside their manifests.

use axum::Json;
use axum::extract::{Path, State};
use cube_api::deployment::Deployment;
use cube_api::meta::Name;
use cube_api::routes::{RolloutAction, RolloutQuery, ScaleQuery};
use cube_api::{ApiError, ErrorCode};

use super::Api;
use super::answers::{Ask, Named, Refusal};

pub(super) async fn scale(State(api): State<Api>, Named(name): Named, Ask(query): Ask<ScaleQuery>) -> Result<Json<Deployment>, Refusal> {
    Ok(Json(api.store.scale(name, query.replicas).await?))
}

pub(super) async fn rollout(
    State(api): State<Api>,
    Path((name, action)): Path<(String, RolloutAction)>,
    Ask(query): Ask<RolloutQuery>,
) -> Result<Json<Deployment>, Refusal> {
    let name = Name::new(name).map_err(|error| ApiError::new(ErrorCode::BadRequest, format!("deployment: {error}")))?;
    Ok(Json(api.store.rollout(name, action, query).await?))
}
