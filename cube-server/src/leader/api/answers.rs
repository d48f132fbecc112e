//! How the API refuses: errors as JSON with the request's id, and extractors that say no in the API's own words.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, MatchedPath, Path, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, Method, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use cube_api::manifest::MAX_BYTES;
use cube_api::meta::Name;
use cube_api::session::Report;
use cube_api::{ApiError, ErrorCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::Api;
use crate::leader::store::StoreError;

/// The header that names a request, for the log and the person who asks about it.
static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// From the headers of a request to the end of its body, and before that for a place among the large ones: 4 MiB over 1 Mbit/s take 34 s.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);

/// A body of up to so many bytes needs no place: 4,096 connections with one each are 256 MiB.
const SMALL_BODY: u64 = 64 * 1024;

/// The most larger bodies at a time, with all that is made of them until they are answered. Each has up to 4 MiB.
pub(super) const LARGE_BODIES: usize = 32;

/// The most reports of nodes at a time, from their first byte until the writer has taken them: some commits full of them. While 5,000 nodes start their pods,
/// reports come faster than they are written. One that waits at its node grows no older there, and says more when it comes; those that waited
/// here were most of the leader's memory.
pub(super) const REPORTS: usize = 128;

/// A report that didn't come in until then is made anew. Shorter, by what a commit may take, than the 15 s that a node waits for its answer.
const REPORT_TIMEOUT: Duration = Duration::from_secs(10);

/// How many of a kind may be read at a time, and how long the next one waits for its turn.
#[derive(Clone)]
pub(super) struct Places {
    free: Arc<Semaphore>,
    most: usize,
    wait: Duration,
    what: &'static str,
}

impl Places {
    pub(super) fn for_large_bodies() -> Self {
        Self { free: Arc::new(Semaphore::new(LARGE_BODIES)), most: LARGE_BODIES, wait: BODY_TIMEOUT, what: "large bodies" }
    }

    pub(super) fn for_reports() -> Self {
        Self { free: Arc::new(Semaphore::new(REPORTS)), most: REPORTS, wait: REPORT_TIMEOUT, what: "reports" }
    }

    async fn take(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        match tokio::time::timeout(self.wait, self.free.clone().acquire_owned()).await {
            Ok(place) => Ok(place.expect("it is never closed")),
            Err(_) => {
                let message = format!("the leader is reading {} {}, the most at a time", self.most, self.what);
                Err(ApiError::new(ErrorCode::Busy, message).hint("try again in a moment"))
            }
        }
    }
}

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
            StoreError::NoSpace { remedy } => {
                let message = "the leader's disk is full: nothing was changed, and nothing new is taken until there is room";
                ApiError::new(ErrorCode::NoSpace, message).hint(format!("on the leader's machine, {remedy}; deletes work meanwhile"))
            }
            StoreError::Closed => ApiError::new(ErrorCode::Unavailable, "the leader is stopping").hint("try again in a moment"),
            trouble @ (StoreError::Sqlite { .. } | StoreError::Corrupt { .. } | StoreError::Open(_)) => {
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

#[cfg(test)]
impl Places {
    pub(super) async fn take_all(&self) -> OwnedSemaphorePermit {
        self.free.clone().acquire_many_owned(self.most as u32).await.expect("it is never closed")
    }

    pub(super) fn are_free(&self) -> bool {
        self.free.available_permits() == self.most
    }
}

/// Gives every request an id, and every refusal its body.
pub(super) async fn identify(State(api): State<Api>, request: Request, next: Next) -> Response {
    let id = format!("{:016x}", api.ambient.random());
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let began = Instant::now();
    let mut response = next.run(request).await;
    if let Some(mut error) = response.extensions_mut().remove::<ApiError>() {
        tracing::debug!(request = id, %method, path, status = response.status().as_u16(), error = error.message, "refused");
        // Of a full disk the log says so once: it must not fill the disk further.
        if error.code.status().is_server_error() && error.code != ErrorCode::NoSpace {
            tracing::warn!(request = id, %method, path, error = error.message, "a request failed");
        }
        error.request_id.clone_from(&id);
        let allow = response.headers_mut().remove(header::ALLOW);
        response = (error.code.status(), Json(error)).into_response();
        if let Some(allow) = allow {
            response.headers_mut().insert(header::ALLOW, allow);
        }
    }
    api.metrics.answered(method.as_str(), route.as_deref(), response.status().as_u16(), began.elapsed());
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

/// A body of at most [`MAX_BYTES`], with its place among the large ones: keep that until what was read from it is done with.
pub(super) struct Whole(pub Bytes, pub Option<OwnedSemaphorePermit>);

impl FromRequest<Api> for Whole {
    type Rejection = Refusal;
    async fn from_request(request: Request, api: &Api) -> Result<Self, Refusal> {
        let (body, place) = whole(request.into_body(), api).await?;
        Ok(Self(body, place))
    }
}

async fn whole(body: Body, api: &Api) -> Result<(Bytes, Option<OwnedSemaphorePermit>), ApiError> {
    let too_large =
        || ApiError::new(ErrorCode::TooLarge, format!("the body is larger than {} MiB", MAX_BYTES >> 20)).hint("apply it in several parts");
    let size = http_body::Body::size_hint(&body);
    // Known before a byte is read: a client that waits for `100 Continue` needn't send it.
    if size.lower() > MAX_BYTES as u64 {
        return Err(too_large());
    }
    let is_large = size.upper().is_none_or(|upper| upper > SMALL_BODY);
    let place = if is_large { Some(api.large_bodies.take().await?) } else { None };
    match tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, MAX_BYTES).collect()).await {
        Ok(Ok(collected)) => Ok((collected.to_bytes(), place)),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(error)) => Err(ApiError::new(ErrorCode::BadRequest, format!("the body was cut short: {error}"))),
        Err(_) => {
            let message = format!("the body didn't arrive within {} s", BODY_TIMEOUT.as_secs());
            Err(ApiError::new(ErrorCode::BadRequest, message).hint("apply it in several parts"))
        }
    }
}

/// A JSON body of a known shape. Manifests have their own reader, with all errors at once.
pub(super) struct JsonBody<T>(pub T, pub Option<OwnedSemaphorePermit>);

impl<T: DeserializeOwned> FromRequest<Api> for JsonBody<T> {
    type Rejection = Refusal;
    async fn from_request(request: Request, api: &Api) -> Result<Self, Refusal> {
        let (body, place) = whole(request.into_body(), api).await?;
        let bad = |error: serde_json::Error| ApiError::new(ErrorCode::BadRequest, format!("the body can't be read: {error}"));
        Ok(Self(serde_json::from_slice(&body).map_err(bad)?, place))
    }
}

/// What a node reports, with its places: keep them until it is written.
pub(super) struct Reported(pub Report, pub (OwnedSemaphorePermit, Option<OwnedSemaphorePermit>));

impl FromRequest<Api> for Reported {
    type Rejection = Refusal;
    async fn from_request(request: Request, api: &Api) -> Result<Self, Refusal> {
        let place = api.reports.take().await?;
        let JsonBody(report, large) = JsonBody::from_request(request, api).await?;
        Ok(Self(report, (place, large)))
    }
}
