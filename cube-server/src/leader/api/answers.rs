//! How the API refuses: errors as JSON with the request's id, and extractors that say no in the API's own words.

use axum::Json;
use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Path, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, Method, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use cube_api::manifest::MAX_BYTES;
use cube_api::meta::Name;
use cube_api::{ApiError, ErrorCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;

use super::Api;
use crate::leader::store::StoreError;

/// The header that names a request, for the log and the person who asks about it.
static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// An [`ApiError`] as a response. [`identify`] writes its body, because only it knows the request's id.
#[derive(Debug)]
pub(super) struct Refusal(ApiError);

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Self {
        Self(error)
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        let busy = "the leader has too many writes waiting";
        Self(match error {
            StoreError::Refused(refusal) => refusal,
            StoreError::Busy => ApiError::new(ErrorCode::Busy, busy).hint("try again in a moment"),
            StoreError::Closed => ApiError::new(ErrorCode::Unavailable, "the leader is stopping").hint("try again in a moment"),
            trouble @ (StoreError::Sqlite { .. } | StoreError::Corrupt { .. }) => {
                let chain = format!("{:#}", anyhow::Error::new(trouble));
                tracing::error!(error = chain, "the store failed a request");
                ApiError::new(ErrorCode::Internal, "the leader's store failed; nothing was changed")
                    .hint("the leader's log has the cause under the request's id")
            }
        })
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = self.0.code.status().into_response();
        response.extensions_mut().insert(self.0);
        response
    }
}

/// Gives every request an id, and every refusal its body.
pub(super) async fn identify(State(api): State<Api>, request: Request, next: Next) -> Response {
    let id = format!("{:016x}", api.ambient.random());
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let mut response = next.run(request).await;
    if let Some(mut error) = response.extensions_mut().remove::<ApiError>() {
        tracing::debug!(request = id, %method, path, status = response.status().as_u16(), error = error.message, "refused");
        if error.code.status().is_server_error() {
            tracing::warn!(request = id, %method, path, error = error.message, "a request failed");
        }
        error.request_id.clone_from(&id);
        let allow = response.headers_mut().remove(header::ALLOW);
        response = (error.code.status(), Json(error)).into_response();
        if let Some(allow) = allow {
            response.headers_mut().insert(header::ALLOW, allow);
        }
    }
    response.headers_mut().insert(REQUEST_ID.clone(), HeaderValue::from_str(&id).expect("hexadecimal digits"));
    response
}

/// No such path.
pub(super) async fn no_route(uri: Uri) -> Refusal {
    ApiError::new(ErrorCode::NoRoute, format!("there is no route {}", uri.path())).into()
}

/// The path is there, the method isn't. axum adds the `Allow` header.
pub(super) async fn wrong_method(method: Method, uri: Uri) -> Refusal {
    ApiError::new(ErrorCode::WrongMethod, format!("{} can't be asked with {method}", uri.path())).into()
}

/// A query, every parameter of which is known.
pub(super) struct Ask<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Ask<T> {
    type Rejection = Refusal;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let query = axum::extract::Query::try_from_uri(&parts.uri);
        let bad = |rejection: axum::extract::rejection::QueryRejection| {
            let problem = std::error::Error::source(&rejection).map_or_else(|| rejection.body_text(), ToString::to_string);
            ApiError::new(ErrorCode::BadRequest, format!("the query can't be read: {problem}"))
        };
        Ok(Self(query.map_err(bad)?.0))
    }
}

/// The name in a path.
pub(super) struct Named(pub Name);

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = Refusal;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let bad = |problem: String| ApiError::new(ErrorCode::BadRequest, problem);
        let Path(text) = Path::<String>::from_request_parts(parts, state).await.map_err(|rejection| bad(rejection.body_text()))?;
        Ok(Self(Name::new(text).map_err(|error| bad(error.to_string()))?))
    }
}

/// A body of at most [`MAX_BYTES`].
pub(super) struct Whole(pub Bytes);

impl<S: Send + Sync> FromRequest<S> for Whole {
    type Rejection = Refusal;
    async fn from_request(request: Request, _: &S) -> Result<Self, Refusal> {
        whole(request.into_body()).await.map(Self).map_err(Refusal)
    }
}

async fn whole(body: Body) -> Result<Bytes, ApiError> {
    let too_large =
        || ApiError::new(ErrorCode::TooLarge, format!("the body is larger than {} MiB", MAX_BYTES >> 20)).hint("apply it in several parts");
    // Known before a byte is read: a client that waits for `100 Continue` needn't send it.
    if http_body::Body::size_hint(&body).lower() > MAX_BYTES as u64 {
        return Err(too_large());
    }
    match Limited::new(body, MAX_BYTES).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(too_large()),
        Err(error) => Err(ApiError::new(ErrorCode::BadRequest, format!("the body was cut short: {error}"))),
    }
}

/// A JSON body of a known shape. Manifests have their own reader, with all errors at once.
pub(super) struct JsonBody<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for JsonBody<T> {
    type Rejection = Refusal;
    async fn from_request(request: Request, _: &S) -> Result<Self, Refusal> {
        let body = whole(request.into_body()).await?;
        let bad = |error: serde_json::Error| ApiError::new(ErrorCode::BadRequest, format!("the body can't be read: {error}"));
        Ok(Self(serde_json::from_slice(&body).map_err(bad)?))
    }
}
