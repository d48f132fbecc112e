//! Logs and exec: frames over a websocket, with bounded buffers.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE};
use http::{HeaderMap, HeaderValue, StatusCode};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error as WsError, Message};

use super::transport::Answer;
use super::{ClientError, LeaderAddress};
use crate::stream::{Frame, MAX_DATA, SUBPROTOCOL};

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// What waits to be written at most; the library's default has no limit.
const MAX_UNSENT: usize = 4 * (MAX_DATA + 1);

/// The headers that ask for a websocket, and the answer that proves that the server understood.
pub(super) fn handshake() -> (HeaderMap, String) {
    let key = STANDARD.encode(rand::random::<[u8; 16]>());
    let accept = derive_accept_key(key.as_bytes());
    let mut headers = HeaderMap::new();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    headers.insert(SEC_WEBSOCKET_KEY, HeaderValue::from_str(&key).expect("base64 is visible ASCII"));
    (headers, accept)
}

/// Takes the websocket out of the answer to [`handshake`].
pub(super) async fn open(leader: &LeaderAddress, answer: Answer, accept: &str) -> Result<(FrameSink, Frames), ClientError> {
    let problem = if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        Some(format!("{} instead of a websocket", answer.status()))
    } else if answer.header(SEC_WEBSOCKET_ACCEPT) != Some(accept) {
        Some("the websocket handshake is not completed".to_owned())
    } else if answer.header(SEC_WEBSOCKET_PROTOCOL) != Some(SUBPROTOCOL) {
        Some(format!("the websocket doesn't speak {SUBPROTOCOL}"))
    } else {
        None
    };
    if let Some(problem) = problem {
        return Err(ClientError::Protocol { leader: leader.clone(), problem });
    }
    let config = WebSocketConfig::default()
        .max_message_size(Some(MAX_DATA + 1))
        .max_frame_size(Some(MAX_DATA + 1))
        .write_buffer_size(0)
        .max_write_buffer_size(MAX_UNSENT);
    let socket: Socket = WebSocketStream::from_raw_socket(answer.upgrade().await?, Role::Client, Some(config)).await;
    let (sink, stream) = socket.split();
    Ok((FrameSink { leader: leader.clone(), sink }, Frames { leader: leader.clone(), stream, ended: false }))
}

/// What goes to the process. Dropping it does not close the connection; dropping both halves does.
pub struct FrameSink {
    leader: LeaderAddress,
    sink: SplitSink<Socket, Message>,
}

impl FrameSink {
    /// Sends a frame; waits while the process doesn't take what was sent before.
    pub async fn send(&mut self, frame: Frame) -> Result<(), ClientError> {
        let lost = |error: WsError| ClientError::Lost { leader: self.leader.clone(), problem: error.to_string() };
        self.sink.send(Message::Binary(frame.encode())).await.map_err(lost)
    }
}

/// What comes from the process or its logs.
pub struct Frames {
    leader: LeaderAddress,
    stream: SplitStream<Socket>,
    ended: bool,
}

impl Frames {
    /// The next frame; `None` after the status frame. A stream that ends without one was cut: [`ClientError::Lost`].
    pub async fn next(&mut self) -> Result<Option<Frame>, ClientError> {
        if self.ended {
            return Ok(None);
        }
        loop {
            match self.stream.next().await {
                Some(Ok(Message::Binary(message))) => return self.take(message).map(Some),
                // The library answers pings itself.
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Text(_) | Message::Frame(_))) => return Err(self.not_cube("a text where frames are binary")),
                Some(Ok(Message::Close(close))) => {
                    let reason = close.map(|close| close.reason.to_string()).filter(|reason| !reason.is_empty());
                    return Err(self.lost(reason.unwrap_or_else(|| "closed before the end of the stream".to_owned())));
                }
                Some(Err(WsError::Capacity(error))) => return Err(self.not_cube(&error.to_string())),
                Some(Err(WsError::Protocol(ProtocolError::ResetWithoutClosingHandshake))) | None => {
                    return Err(self.lost("closed before the end of the stream".to_owned()));
                }
                Some(Err(error)) => return Err(self.lost(error.to_string())),
            }
        }
    }

    fn take(&mut self, message: Bytes) -> Result<Frame, ClientError> {
        let frame = Frame::decode(message).map_err(|error| self.not_cube(&error.to_string()))?;
        self.ended = matches!(frame, Frame::Status(_));
        Ok(frame)
    }

    fn lost(&self, problem: String) -> ClientError {
        ClientError::Lost { leader: self.leader.clone(), problem }
    }

    fn not_cube(&self, problem: &str) -> ClientError {
        ClientError::Protocol { leader: self.leader.clone(), problem: problem.to_owned() }
    }
}
