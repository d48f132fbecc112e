//! Why a call failed. None of it ever shows the token.

use std::io;
use std::time::Duration;

use super::LeaderAddress;
use crate::error::{ApiError, ErrorCode};

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No connection could be made.
    #[error("can't reach the leader at {leader}")]
    Unreachable {
        /// Who was asked.
        leader: LeaderAddress,
        /// What the system said.
        #[source]
        problem: io::Error,
    },
    /// It was connected, or being connected, and nothing came in time.
    #[error("the leader at {leader} did not answer within {} s", limit.as_secs())]
    TimedOut {
        /// Who was asked.
        leader: LeaderAddress,
        /// How long it was waited for.
        limit: Duration,
    },
    /// The connection broke after it had been made, before the answer or the stream was complete.
    #[error("the connection to the leader at {leader} was lost: {problem}")]
    Lost {
        /// Who was asked.
        leader: LeaderAddress,
        /// How it broke.
        problem: String,
    },
    /// The leader refused.
    #[error(transparent)]
    Api(Box<ApiError>),
    /// What answers is not a leader that this client understands.
    #[error("what answers at {leader} doesn't speak cube's protocol: {problem}")]
    Protocol {
        /// Who was asked.
        leader: LeaderAddress,
        /// What was wrong with the answer.
        problem: String,
    },
}

impl ClientError {
    /// What to do next, where there is something to say.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Unreachable { .. } | Self::TimedOut { .. } => {
                Some("check that the leader runs and that leaderUrl names it (cube config shows it)".to_owned())
            }
            Self::Lost { .. } => Some("the leader or the network went away; try again".to_owned()),
            Self::Protocol { .. } => Some("check that leaderUrl names a cube leader of the same version (cube version)".to_owned()),
            Self::Api(error) => error.hint.clone(),
        }
    }

    /// Whether the same call may succeed later without anybody changing it: nothing was heard, or the leader said so.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::TimedOut { .. } | Self::Lost { .. } => true,
            Self::Protocol { .. } => false,
            Self::Api(error) => matches!(error.code, ErrorCode::Busy | ErrorCode::Unavailable | ErrorCode::NodeUnavailable),
        }
    }

    /// The code of a refusal.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Api(error) => Some(error.code),
            Self::Unreachable { .. } | Self::TimedOut { .. } | Self::Lost { .. } | Self::Protocol { .. } => None,
        }
    }
}
