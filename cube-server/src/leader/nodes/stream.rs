//! Frames that come from a node behind their lengths, cut out without copying where a piece holds them whole.

use axum::body::Body;
use bytes::{Buf, Bytes, BytesMut};
use cube_api::stream::{Frame, FrameError, MAX_DATA, Outcome};
use http_body_util::BodyExt;
use tokio::sync::OwnedSemaphorePermit;

/// Cuts length-prefixed messages (channel byte and data, as a websocket carries them) out of pieces of any size.
#[derive(Default)]
pub struct Splitter {
    piece: Bytes,
    rest: BytesMut,
}

impl Splitter {
    /// Adds a piece; the ones before must have been taken out.
    pub fn feed(&mut self, piece: Bytes) {
        if self.rest.is_empty() && self.piece.is_empty() {
            self.piece = piece;
        } else {
            self.rest.extend_from_slice(&std::mem::take(&mut self.piece));
            self.rest.extend_from_slice(&piece);
        }
    }

    /// The next whole message.
    pub fn next_message(&mut self) -> Result<Option<Bytes>, FrameError> {
        let from_piece = self.rest.is_empty();
        let held: &[u8] = if from_piece { &self.piece } else { &self.rest };
        let Some(prefix) = held.first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_be_bytes(*prefix) as usize;
        if length > MAX_DATA + 1 {
            return Err(FrameError::TooLong(length));
        }
        if held.len() < 4 + length {
            return Ok(None);
        }
        if from_piece {
            self.piece.advance(4);
            Ok(Some(self.piece.split_to(length)))
        } else {
            self.rest.advance(4);
            Ok(Some(self.rest.split_to(length).freeze()))
        }
    }
}

/// A stream of a node. Dropping it resets the stream, so that the node ends what is behind it.
pub struct NodeStream {
    body: Body,
    splitter: Splitter,
    lost: String,
    ended: bool,
    _slot: OwnedSemaphorePermit,
}

impl NodeStream {
    /// `lost` is what to say when the stream ends without a status.
    pub(super) fn new(body: Body, lost: String, slot: OwnedSemaphorePermit) -> Self {
        Self { body, splitter: Splitter::default(), lost, ended: false, _slot: slot }
    }

    /// The next message, with its frame; `None` after the status. A stream that was cut gives a failed status.
    pub async fn next(&mut self) -> Option<(Bytes, Frame)> {
        if self.ended {
            return None;
        }
        let message = self.message().await;
        let decoded = message.and_then(|message| Frame::decode(message.clone()).ok().map(|frame| (message, frame)));
        let (message, frame) = decoded.unwrap_or_else(|| {
            let frame = Frame::Status(Outcome::Failed(self.lost.clone()));
            (frame.encode(), frame)
        });
        self.ended = matches!(frame, Frame::Status(_));
        Some((message, frame))
    }

    async fn message(&mut self) -> Option<Bytes> {
        loop {
            if let Some(message) = self.splitter.next_message().ok()? {
                return Some(message);
            }
            let piece = self.body.frame().await?.ok()?;
            if let Ok(data) = piece.into_data() {
                self.splitter.feed(data);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use tokio::sync::Semaphore;

    use super::*;

    proptest! {
        #[test]
        fn messages_come_out_whole_however_the_bytes_are_cut(texts in prop::collection::vec(".{0,40}", 1..8), cut in 1usize..16) {
            let all: Vec<u8> = texts.iter().flat_map(|text| Frame::Stdout(Bytes::from(text.clone())).encode_prefixed()).collect();
            let (mut splitter, mut found) = (Splitter::default(), Vec::new());
            for piece in all.chunks(cut) {
                splitter.feed(Bytes::copy_from_slice(piece));
                while let Some(message) = splitter.next_message().expect("valid") {
                    found.push(Frame::decode(message).expect("valid"));
                }
            }
            let wanted: Vec<_> = texts.into_iter().map(|text| Frame::Stdout(Bytes::from(text))).collect();
            prop_assert_eq!(found, wanted);
        }
    }

    #[tokio::test]
    async fn a_stream_that_is_cut_ends_with_a_failed_status() {
        let slot = Arc::new(Semaphore::new(1)).try_acquire_owned().expect("a place");
        let mut bytes = Frame::Stdout(Bytes::from_static(b"line\n")).encode_prefixed().to_vec();
        bytes.extend_from_slice(&[0, 0, 0]);
        let mut stream = NodeStream::new(Body::from(bytes), "the connection to node n1 was lost".to_owned(), slot);
        assert!(matches!(stream.next().await, Some((_, Frame::Stdout(_)))));
        let Some((_, Frame::Status(Outcome::Failed(why)))) = stream.next().await else { panic!("no status") };
        assert_eq!(why, "the connection to node n1 was lost");
        assert!(stream.next().await.is_none());
    }
}
