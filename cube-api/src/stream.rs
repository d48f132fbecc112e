//! Frames of exec and logs: Kubernetes' `v5.channel.k8s.io`.
//!
//! Over a websocket one binary message is one frame: a channel byte, then bytes. Over a session's HTTP/2 bodies, which keep no message borders,
//! each frame goes behind its length (4 bytes, big-endian, counting the channel byte): [`Frame::encode_prefixed`] and [`Decoder`].
//! A stream that ends without a status frame was cut: that is an error, never success.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

/// The websocket subprotocol.
pub const SUBPROTOCOL: &str = "v5.channel.k8s.io";

/// The most data in one frame that is accepted, in bytes. Docker's own chunks are 32 KiB at most.
pub const MAX_DATA: usize = 64 * 1024;

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const STATUS: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Client to process.
    Stdin(Bytes),
    /// The client's standard input has ended; what follows may only be [`Frame::Resize`].
    StdinEnd,
    /// Process to client; log lines too.
    Stdout(Bytes),
    /// Process to client.
    Stderr(Bytes),
    /// The end, with its cause: the last frame.
    Status(Outcome),
    /// The client's terminal has this size now.
    Resize(TerminalSize),
}

/// A terminal's size in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct TerminalSize {
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

/// How a stream ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The command exited with 0, or the logs are complete.
    Success,
    /// The command exited with this code.
    ExitCode(i32),
    /// It couldn't be run or was cut short; the sentence says why.
    Failed(String),
}

/// Why bytes are not a frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// No channel byte.
    #[error("a frame without a channel")]
    Empty,
    /// Over [`MAX_DATA`].
    #[error("a frame of {0} bytes, at most {MAX_DATA} are allowed")]
    TooLong(usize),
    /// A channel that the protocol doesn't have.
    #[error("channel {0} is not known")]
    UnknownChannel(u8),
    /// The payload of a status or resize frame, or of a close, is not what it should be.
    #[error("channel {channel}: {problem}")]
    BadPayload {
        /// The channel.
        channel: u8,
        /// What is wrong.
        problem: String,
    },
}

impl Frame {
    /// The frame as a websocket message.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        self.put(&mut out);
        out.freeze()
    }

    /// The frame behind its length, for a stream of bytes.
    pub fn encode_prefixed(&self) -> Bytes {
        let mut out = BytesMut::new();
        out.put_u32(0);
        self.put(&mut out);
        let length = u32::try_from(out.len() - 4).expect("a frame is far below 4 GiB");
        out[..4].copy_from_slice(&length.to_be_bytes());
        out.freeze()
    }

    fn put(&self, out: &mut BytesMut) {
        let mut data = |channel: u8, bytes: &[u8]| {
            out.reserve(1 + bytes.len());
            out.put_u8(channel);
            out.put_slice(bytes);
        };
        match self {
            Self::Stdin(bytes) => data(STDIN, bytes),
            Self::StdinEnd => data(CLOSE, &[STDIN]),
            Self::Stdout(bytes) => data(STDOUT, bytes),
            Self::Stderr(bytes) => data(STDERR, bytes),
            Self::Status(outcome) => data(STATUS, &serde_json::to_vec(&StatusJson::from(outcome)).expect("plain data")),
            Self::Resize(size) => data(RESIZE, &serde_json::to_vec(size).expect("plain data")),
        }
    }

    /// Reads a websocket message, or a frame whose length was read.
    pub fn decode(mut message: Bytes) -> Result<Self, FrameError> {
        if message.is_empty() {
            return Err(FrameError::Empty);
        }
        let channel = message.get_u8();
        if message.len() > MAX_DATA {
            return Err(FrameError::TooLong(message.len()));
        }
        let bad = |problem: String| FrameError::BadPayload { channel, problem };
        match channel {
            STDIN => Ok(Self::Stdin(message)),
            STDOUT => Ok(Self::Stdout(message)),
            STDERR => Ok(Self::Stderr(message)),
            STATUS => {
                serde_json::from_slice::<StatusJson>(&message).map_err(|e| bad(e.to_string()))?.outcome().map(Self::Status).map_err(bad)
            }
            RESIZE => serde_json::from_slice(&message).map(Self::Resize).map_err(|e| bad(e.to_string())),
            CLOSE if message[..] == [STDIN] => Ok(Self::StdinEnd),
            CLOSE => Err(bad("only standard input can be closed".to_owned())),
            unknown => Err(FrameError::UnknownChannel(unknown)),
        }
    }
}

/// Takes frames out of a stream of bytes that comes in pieces of any size. Holds at most one unfinished frame beyond the piece it was fed.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: BytesMut,
}

impl Decoder {
    /// Adds a piece.
    pub fn feed(&mut self, piece: &[u8]) {
        self.buffer.extend_from_slice(piece);
    }

    /// The next whole frame, if there is one. An error ends the stream: what follows can't be trusted.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        let Some(prefix) = self.buffer.first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_be_bytes(*prefix) as usize;
        if length > MAX_DATA + 1 {
            return Err(FrameError::TooLong(length));
        }
        if self.buffer.len() < 4 + length {
            return Ok(None);
        }
        self.buffer.advance(4);
        Frame::decode(self.buffer.split_to(length).freeze()).map(Some)
    }

    /// Whether bytes of an unfinished frame are left: a stream that ends now was cut.
    pub fn is_mid_frame(&self) -> bool {
        !self.buffer.is_empty()
    }
}

/// Kubernetes' `metav1.Status`, as far as the exec protocol uses it.
#[derive(Debug, Serialize, Deserialize)]
struct StatusJson {
    #[serde(default)]
    metadata: serde_json::Map<String, serde_json::Value>,
    status: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    message: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    reason: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    details: Option<StatusDetails>,
}

#[derive(Debug, Serialize, Deserialize)]
struct StatusDetails {
    #[serde(default)]
    causes: Vec<StatusCause>,
}

#[derive(Debug, Serialize, Deserialize)]
struct StatusCause {
    reason: String,
    message: String,
}

const NON_ZERO: &str = "NonZeroExitCode";
const EXIT_CODE: &str = "ExitCode";

impl From<&Outcome> for StatusJson {
    fn from(outcome: &Outcome) -> Self {
        let plain = |status: &str| Self {
            metadata: serde_json::Map::new(),
            status: status.to_owned(),
            message: String::new(),
            reason: String::new(),
            details: None,
        };
        match outcome {
            Outcome::Success => plain("Success"),
            Outcome::ExitCode(code) => Self {
                message: format!("command terminated with non-zero exit code: exit status {code}"),
                reason: NON_ZERO.to_owned(),
                details: Some(StatusDetails { causes: vec![StatusCause { reason: EXIT_CODE.to_owned(), message: code.to_string() }] }),
                ..plain("Failure")
            },
            Outcome::Failed(message) => Self { message: message.clone(), reason: "InternalError".to_owned(), ..plain("Failure") },
        }
    }
}

impl StatusJson {
    fn outcome(self) -> Result<Outcome, String> {
        match self.status.as_str() {
            "Success" => Ok(Outcome::Success),
            "Failure" if self.reason == NON_ZERO => {
                let causes = self.details.map(|details| details.causes).unwrap_or_default();
                let code = causes.iter().find(|cause| cause.reason == EXIT_CODE).and_then(|cause| cause.message.parse().ok());
                code.map(Outcome::ExitCode).ok_or_else(|| "a non-zero exit without its code".to_owned())
            }
            "Failure" => Ok(Outcome::Failed(self.message)),
            other => Err(format!("'{other}' is neither Success nor Failure")),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn frames_are_those_of_kubernetes() {
        for (frame, bytes) in [
            (Frame::Stdin(Bytes::from_static(b"ls\n")), b"\x00ls\n".as_slice()),
            (Frame::StdinEnd, b"\xff\x00"),
            (Frame::Stdout(Bytes::new()), b"\x01"),
            (Frame::Stderr(Bytes::from_static(b"no")), b"\x02no"),
            (Frame::Status(Outcome::Success), b"\x03{\"metadata\":{},\"status\":\"Success\"}"),
            (
                Frame::Status(Outcome::ExitCode(3)),
                b"\x03{\"metadata\":{},\"status\":\"Failure\",\"message\":\"command terminated with non-zero exit code: exit status 3\",\
                  \"reason\":\"NonZeroExitCode\",\"details\":{\"causes\":[{\"reason\":\"ExitCode\",\"message\":\"3\"}]}}",
            ),
            (Frame::Resize(TerminalSize { width: 80, height: 24 }), b"\x04{\"Width\":80,\"Height\":24}"),
        ] {
            assert_eq!(frame.encode(), bytes, "{frame:?}");
            assert_eq!(Frame::decode(Bytes::copy_from_slice(bytes)), Ok(frame));
        }
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        let decode = |bytes: &'static [u8]| Frame::decode(Bytes::from_static(bytes));
        assert_eq!(decode(b""), Err(FrameError::Empty));
        assert_eq!(decode(b"\x05x"), Err(FrameError::UnknownChannel(5)));
        for bytes in [b"\xff".as_slice(), b"\xff\x01", b"\xff\x00\x00", b"\x03", b"\x03{}", b"\x04{\"Width\":70000,\"Height\":1}", b"\x04"]
        {
            assert!(matches!(decode(bytes), Err(FrameError::BadPayload { .. })), "{bytes:?}");
        }
        assert!(matches!(decode(b"\x03{\"status\":\"Maybe\"}"), Err(FrameError::BadPayload { .. })));
        let codeless = b"\x03{\"status\":\"Failure\",\"reason\":\"NonZeroExitCode\"}";
        assert!(matches!(decode(codeless), Err(FrameError::BadPayload { .. })), "an exit code that is lost is never 0");
    }

    #[test]
    fn a_frame_over_the_limit_is_refused_by_its_length_alone() {
        let largest = Frame::Stdout(Bytes::from(vec![7; MAX_DATA]));
        assert_eq!(Frame::decode(largest.encode()), Ok(largest));
        let larger = Frame::Stdout(Bytes::from(vec![7; MAX_DATA + 1]));
        assert_eq!(Frame::decode(larger.encode()), Err(FrameError::TooLong(MAX_DATA + 1)));
        let mut decoder = Decoder::default();
        decoder.feed(&u32::MAX.to_be_bytes());
        assert_eq!(decoder.next_frame(), Err(FrameError::TooLong(u32::MAX as usize)));
    }

    #[test]
    fn a_stream_that_ends_inside_a_frame_is_known_to_be_cut() {
        let bytes = Frame::Stdout(Bytes::from_static(b"abc")).encode_prefixed();
        for cut in 1..bytes.len() {
            let mut decoder = Decoder::default();
            decoder.feed(&bytes[..cut]);
            assert_eq!(decoder.next_frame(), Ok(None));
            assert!(decoder.is_mid_frame());
        }
    }

    fn any_frame() -> impl Strategy<Value = Frame> {
        let data = prop::collection::vec(any::<u8>(), 0..200).prop_map(Bytes::from);
        prop_oneof![
            data.clone().prop_map(Frame::Stdin),
            Just(Frame::StdinEnd),
            data.clone().prop_map(Frame::Stdout),
            data.prop_map(Frame::Stderr),
            Just(Frame::Status(Outcome::Success)),
            any::<i32>().prop_map(|code| Frame::Status(Outcome::ExitCode(code))),
            ".*".prop_map(|why| Frame::Status(Outcome::Failed(why))),
            any::<(u16, u16)>().prop_map(|(width, height)| Frame::Resize(TerminalSize { width, height })),
        ]
    }

    proptest! {
        #[test]
        fn frames_come_out_as_they_went_in_however_the_stream_is_cut(
            frames in prop::collection::vec(any_frame(), 0..12),
            cuts in prop::collection::vec(1usize..64, 1..40),
        ) {
            let stream: Vec<u8> = frames.iter().flat_map(Frame::encode_prefixed).collect();
            let (mut decoder, mut read, mut rest) = (Decoder::default(), Vec::new(), stream.as_slice());
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (piece, after) = rest.split_at((*cut).min(rest.len()));
                decoder.feed(piece);
                while let Some(frame) = decoder.next_frame().expect("our own frames") {
                    read.push(frame);
                }
                rest = after;
            }
            prop_assert_eq!(read, frames);
            prop_assert!(!decoder.is_mid_frame());
        }

        #[test]
        fn garbage_never_panics_and_never_is_held_beyond_one_frame(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..100), 0..20)) {
            let mut decoder = Decoder::default();
            for piece in &pieces {
                decoder.feed(piece);
                while let Ok(Some(_)) = decoder.next_frame() {}
            }
            let all: Vec<u8> = pieces.concat();
            prop_assert!(Frame::decode(Bytes::from(all.clone())).is_ok() || Frame::decode(Bytes::from(all)).is_err());
        }
    }
}
