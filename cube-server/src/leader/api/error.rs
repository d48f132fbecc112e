//! What becomes of an error on its way to the caller: the one place that turns the store's into the API's.

use axum::response::{IntoResponse, Response};
use cube_api::{ApiError, ErrorCode};

use crate::leader::store::StoreError;
use crate::serve::chain;

/// An error as the answer to a request. The outermost layer writes it, with the request's id.
#[derive(Debug)]
pub struct Refusal(pub ApiError);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = self.0.code.status().into_response();
        response.extensions_mut().insert(self.0);
        response
    }
}

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Self {
        Self(error)
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self(match error {
            StoreError::Refused(refused) => refused,
            StoreError::Busy => ApiError::new(ErrorCode::Busy, "the leader has too many writes waiting").hint("try again in a second"),
            StoreError::Closed => ApiError::new(ErrorCode::Unavailable, "the leader is stopping").hint("try again in a few seconds"),
            StoreError::Sqlite { .. } | StoreError::Corrupt { .. } => {
                tracing::error!(error = %chain(&error), "the store failed");
                ApiError::new(ErrorCode::Internal, "the leader's store failed")
                    .hint("the leader's log has the cause under this request's id")
            }
        })
    }
}
