//! The file of the server itself, so that the fuzzer need not instrument a whole server for it; what it takes from its parent stands here.

use bytes::Bytes;
use jiff::Timestamp;

pub const MAX_PIECE: usize = 16 * 1024;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    pub at: Option<Timestamp>,
    pub bytes: Bytes,
}

#[path = "../../../cube-server/src/follower/runtime/demux.rs"]
pub mod demux;
