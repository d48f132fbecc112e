//! What the store answers when it doesn't do what it was asked.

use cube_api::ApiError;

use crate::sqlite::{self, Refusal};

/// Why the store didn't do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The request is refused; nothing was changed.
    #[error(transparent)]
    Refused(#[from] ApiError),
    /// SQLite failed; nothing was changed.
    #[error("the store failed to {operation}")]
    Sqlite {
        /// What it did.
        operation: &'static str,
        /// SQLite's reason.
        source: rusqlite::Error,
    },
    /// A row doesn't hold what was written.
    #[error("the store holds a {what} that can't be read: {which}")]
    Corrupt {
        /// Which kind of row.
        what: &'static str,
        /// Its key.
        which: String,
        /// Why not.
        source: serde_json::Error,
    },
    /// It can't be opened.
    #[error(transparent)]
    Open(#[from] sqlite::OpenError),
    /// The disk is full; nothing was changed.
    #[error("the leader's disk is full")]
    NoSpace {
        /// What to do, and where.
        remedy: String,
    },
    /// The write queue is full.
    #[error("the store has too many writes waiting")]
    Busy,
    /// The store is closing.
    #[error("the store is closed")]
    Closed,
}

impl StoreError {
    /// Whether it is the database itself that is refused.
    pub fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Open(error) => error.refusal(),
            Self::Corrupt { .. } => Some(Refusal::Damaged),
            Self::Sqlite { source, .. } => sqlite::is_damage(source).then_some(Refusal::Damaged),
            Self::Refused(_) | Self::NoSpace { .. } | Self::Busy | Self::Closed => None,
        }
    }
}
