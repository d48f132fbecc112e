//! Any bytes as the frames of exec and logs: never a panic, the same frames however the bytes are cut, and what is read is written the same.
#![no_main]

use bytes::Bytes;
use cube_api::stream::{Decoder, Frame, FrameError, MAX_DATA};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, &[u8])| {
    let (piece, bytes) = input;
    let whole = frames(bytes, bytes.len().max(1));
    assert_eq!(whole, frames(bytes, usize::from(piece) + 1), "the cuts made a difference");
    for frame in whole.iter().flatten() {
        is_written_as_read(frame);
    }
    // A websocket message is one frame.
    if let Ok(frame) = Frame::decode(Bytes::copy_from_slice(bytes)) {
        is_written_as_read(&frame);
    }
});

/// Every frame up to the first error, which is the last, and whether the end was in the middle of one.
fn frames(bytes: &[u8], piece: usize) -> Vec<Result<Frame, FrameError>> {
    let mut decoder = Decoder::default();
    let mut found = Vec::new();
    for piece in bytes.chunks(piece) {
        decoder.feed(piece);
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => found.push(Ok(frame)),
                Ok(None) => break,
                Err(error) => {
                    found.push(Err(error));
                    return found;
                }
            }
        }
    }
    found
}

fn is_written_as_read(frame: &Frame) {
    let written = frame.encode();
    assert!(written.len() <= MAX_DATA + 1 || matches!(frame, Frame::Status(_)));
    assert_eq!(Frame::decode(written).as_ref(), Ok(frame));
    let mut decoder = Decoder::default();
    decoder.feed(&frame.encode_prefixed());
    assert_eq!(decoder.next_frame(), Ok(Some(frame.clone())));
    assert!(!decoder.is_mid_frame());
}
