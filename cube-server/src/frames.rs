//! Frames of logs and exec in HTTP bodies, written and read with back-pressure: neither side holds more than one batch and one unfinished frame.

use std::convert::Infallible;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use cube_api::stream::{Decoder, Frame, FrameError, MAX_DATA};
use futures::stream::{self, Stream, StreamExt};
use futures::{FutureExt, TryStreamExt};
use http_body_util::BodyExt;

/// Frames that are ready together travel together, up to about so many bytes. A log line has about 100 bytes: one HTTP/2 frame and one
/// websocket message for each would cost more than the line itself.
const BATCH: usize = 32 * 1024;

/// Why frames can't be read on.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The connection broke, or the sender gave up.
    #[error("the stream was cut")]
    Cut(#[source] axum::Error),
    /// It ended in the middle of a frame.
    #[error("the stream ended in the middle of a frame")]
    MidFrame,
    /// What came is not a frame.
    #[error("the stream doesn't hold frames")]
    NotFrames(#[from] FrameError),
}

/// A body of length-prefixed frames. Neighbours of one output channel are merged while they are ready; a frame is never held back to wait for
/// another.
pub fn body(frames: impl Stream<Item = Frame> + Send + 'static) -> Body {
    Body::from_stream(batches(frames).map(Ok::<_, Infallible>))
}

/// As [`body`], of frames that may break off: an error resets the stream.
pub fn body_that_breaks<E>(frames: impl Stream<Item = Result<Frame, E>> + Send + 'static) -> Body
where
    E: Into<axum::BoxError> + 'static,
{
    Body::from_stream(frames.map_ok(|frame| frame.encode_prefixed()))
}

fn batches(frames: impl Stream<Item = Frame> + Send + 'static) -> impl Stream<Item = Bytes> + Send {
    stream::unfold(Box::pin(frames.fuse()), |mut frames| async move {
        let mut batch = Batch::default();
        batch.push(frames.next().await?);
        while batch.bytes < BATCH {
            // Polled with no one to wake: the `await` above asks again and registers.
            match frames.next().now_or_never() {
                Some(Some(frame)) => batch.push(frame),
                Some(None) | None => break,
            }
        }
        Some((batch.finish(), frames))
    })
}

/// Frames that go out as one piece.
#[derive(Default)]
struct Batch {
    done: BytesMut,
    open: Option<(Output, BytesMut)>,
    bytes: usize,
}

/// A channel whose frames may be merged: both are plain bytes in order.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Output {
    Stdout,
    Stderr,
}

impl Output {
    fn frame(self, data: Bytes) -> Frame {
        match self {
            Self::Stdout => Frame::Stdout(data),
            Self::Stderr => Frame::Stderr(data),
        }
    }
}

impl Batch {
    fn push(&mut self, frame: Frame) {
        match frame {
            Frame::Stdout(data) => self.push_output(Output::Stdout, &data),
            Frame::Stderr(data) => self.push_output(Output::Stderr, &data),
            other @ (Frame::Stdin(_) | Frame::StdinEnd | Frame::Status(_) | Frame::Resize(_)) => {
                self.close();
                self.put(&other);
            }
        }
    }

    fn push_output(&mut self, output: Output, data: &[u8]) {
        self.bytes += data.len();
        match &mut self.open {
            Some((open, bytes)) if *open == output && bytes.len() + data.len() <= MAX_DATA => bytes.extend_from_slice(data),
            Some(_) | None => {
                self.close();
                self.open = Some((output, BytesMut::from(data)));
            }
        }
    }

    fn close(&mut self) {
        if let Some((output, data)) = self.open.take() {
            self.put(&output.frame(data.freeze()));
        }
    }

    fn put(&mut self, frame: &Frame) {
        self.done.extend_from_slice(&frame.encode_prefixed());
    }

    fn finish(mut self) -> Bytes {
        self.close();
        self.done.freeze()
    }
}

/// Takes the frames out of a body.
pub struct Reader {
    body: Body,
    decoder: Decoder,
}

impl Reader {
    /// Of this body, from its beginning.
    pub fn new(body: Body) -> Self {
        Self { body, decoder: Decoder::default() }
    }

    /// The next frame; `None` at the body's end. Can be dropped while it waits and called again. After an error there is nothing more to read.
    pub async fn next(&mut self) -> Result<Option<Frame>, ReadError> {
        loop {
            if let Some(frame) = self.decoder.next_frame()? {
                return Ok(Some(frame));
            }
            match self.body.frame().await {
                Some(Ok(piece)) => {
                    if let Some(data) = piece.data_ref() {
                        self.decoder.feed(data);
                    }
                }
                Some(Err(error)) => return Err(ReadError::Cut(error)),
                None if self.decoder.is_mid_frame() => return Err(ReadError::MidFrame),
                None => return Ok(None),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use cube_api::stream::Outcome;

    use super::*;

    fn stdout(text: &'static str) -> Frame {
        Frame::Stdout(Bytes::from_static(text.as_bytes()))
    }

    async fn read_all(mut reader: Reader) -> Vec<Frame> {
        let mut frames = Vec::new();
        while let Some(frame) = reader.next().await.expect("whole frames") {
            frames.push(frame);
        }
        frames
    }

    #[tokio::test]
    async fn neighbours_of_one_channel_are_merged_and_order_is_kept() {
        let frames =
            vec![stdout("a\n"), stdout("b\n"), Frame::Stderr(Bytes::from_static(b"c")), stdout("d"), Frame::Status(Outcome::ExitCode(3))];
        let read = read_all(Reader::new(body(stream::iter(frames)))).await;
        let wanted = [stdout("a\nb\n"), Frame::Stderr(Bytes::from_static(b"c")), stdout("d"), Frame::Status(Outcome::ExitCode(3))];
        assert_eq!(read, wanted);
    }

    #[tokio::test]
    async fn a_frame_is_not_held_back_for_the_next_one() {
        let (sender, receiver) = tokio::sync::mpsc::channel(8);
        let mut reader = Reader::new(body(tokio_stream::wrappers::ReceiverStream::new(receiver)));
        sender.send(stdout("first")).await.expect("open");
        assert_eq!(reader.next().await.expect("a frame"), Some(stdout("first")));
        sender.send(stdout("second")).await.expect("open");
        assert_eq!(reader.next().await.expect("a frame"), Some(stdout("second")));
    }

    #[tokio::test]
    async fn no_merged_frame_is_over_the_limit_that_readers_accept() {
        let big = Frame::Stdout(Bytes::from(vec![7; MAX_DATA]));
        let frames = vec![stdout("x"), big.clone(), big.clone(), stdout("y")];
        assert_eq!(read_all(Reader::new(body(stream::iter(frames)))).await, [stdout("x"), big.clone(), big, stdout("y")]);
    }

    #[tokio::test]
    async fn a_body_that_ends_within_a_frame_is_an_error() {
        let whole = stdout("abc").encode_prefixed();
        let mut reader = Reader::new(Body::from(whole.slice(..whole.len() - 1)));
        assert!(matches!(reader.next().await, Err(ReadError::MidFrame)));
    }
}
