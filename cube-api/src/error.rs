//! Errors as the API answers them: a stable code, a sentence, what to do, and the request's id for the log.

use std::fmt;

use http::StatusCode;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What an API call that failed answers. Its HTTP status is [`ErrorCode::status`] of its code, and nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApiError {
    /// For programs: stable.
    pub code: ErrorCode,
    /// For people: lower case, no full stop, names the thing as they typed it.
    pub message: String,
    /// What to do next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Every single cause, where there are several (all the errors of a manifest).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<Problem>,
    /// The leader's log has the same id. Empty where the error never reached a leader.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub request_id: String,
    /// The leader's clock, with [`ErrorCode::CredentialExpired`]: a client whose clock is off mints its credential once more by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_time: Option<Timestamp>,
}

/// One thing that is wrong with a request or a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// The resource, as far as it could be told: `pod/my-pod`, or `resource 3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// Where in it: `spec.containers[0].image`. Empty for the whole.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// What was found and what is allowed.
    pub message: String,
    /// Line in the manifest's text, from 1, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// Column in that line, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<usize>,
}

impl fmt::Display for Problem {
    /// `manifest.json`-style prefixes are the caller's; this is `4:12: pod/web: spec.containers[0].image: ...`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let (Some(line), Some(column)) = (self.line, self.column) {
            write!(f, "{line}:{column}: ")?;
        }
        if let Some(resource) = &self.resource {
            write!(f, "{resource}: ")?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

/// The kinds of refusal. New ones may come; none changes its meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ErrorCode {
    /// The body or a parameter can't be read.
    BadRequest,
    /// It can be read, but says something that isn't allowed; `details` lists all of it.
    Invalid,
    /// No credential, or a wrong one.
    Unauthenticated,
    /// The credential is right but out of its time; `serverTime` tells the leader's clock.
    CredentialExpired,
    /// The credential's role may not do this.
    Forbidden,
    /// No such thing.
    NotFound,
    /// No such route.
    NoRoute,
    /// The route is there, not for this method; the `Allow` header has those that are.
    WrongMethod,
    /// The thing has changed or is there already.
    Conflict,
    /// The watch's revision is no longer kept: list again.
    Expired,
    /// The body is over the limit.
    TooLarge,
    /// A queue is full: try again later.
    Busy,
    /// The node that would answer isn't connected or didn't answer.
    NodeUnavailable,
    /// A defect or trouble of the leader's own; the log has the chain.
    Internal,
    /// The leader's disk is full: it takes deletes and what nodes report, and nothing new until there is room.
    NoSpace,
    /// The leader can't do it now (it is stopping).
    Unavailable,
}

impl ErrorCode {
    /// The HTTP status that goes with the code: the only place that chooses one.
    pub fn status(self) -> StatusCode {
        match self {
            Self::BadRequest => StatusCode::BAD_REQUEST,
            Self::Invalid => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Unauthenticated | Self::CredentialExpired => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::NotFound | Self::NoRoute => StatusCode::NOT_FOUND,
            Self::WrongMethod => StatusCode::METHOD_NOT_ALLOWED,
            Self::Conflict => StatusCode::CONFLICT,
            Self::Expired => StatusCode::GONE,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Busy => StatusCode::TOO_MANY_REQUESTS,
            Self::NodeUnavailable => StatusCode::BAD_GATEWAY,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::NoSpace => StatusCode::INSUFFICIENT_STORAGE,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

impl ApiError {
    /// An error without hint and details.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: None, details: Vec::new(), request_id: String::new(), server_time: None }
    }

    /// Adds what to do next.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// All the problems of a manifest or a request.
    pub fn invalid(message: impl Into<String>, details: Vec<Problem>) -> Self {
        Self { details, ..Self::new(ErrorCode::Invalid, message) }
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ApiError {}

/// An error and what caused it, in one line: `can't reach the leader at a:1: connection refused`.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
