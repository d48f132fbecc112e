//! A leader that answers by a script: one thread per connection, one request per connection, as the client makes them.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use cube_api::stream::{Frame, SUBPROTOCOL};
use serde_json::Value;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::{Message, WebSocket};

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Request {
    /// `GET /v1/pods?watch=true`
    pub line: String,
    headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    /// A header's value; the name in lower case.
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }
}

/// What happens on the websocket.
type Conversation = Box<dyn FnOnce(&mut WebSocket<TcpStream>)>;

/// What is answered.
pub enum Answer {
    /// A status and a JSON body.
    Json(u16, Value),
    /// The lines of a watch, then the connection ends without a proper end.
    Cut(Vec<Value>),
    /// The lines of a watch, then silence until the client hangs up.
    Hold(Vec<Value>),
    /// A websocket.
    Socket(Conversation),
}

impl Answer {
    /// A websocket that sends these frames and is gone.
    pub fn frames(frames: Vec<Frame>) -> Self {
        Self::Socket(Box::new(move |socket| {
            for frame in frames {
                socket.send(Message::Binary(frame.encode())).expect("the client reads to the end");
            }
        }))
    }
}

/// The scripted leader.
pub struct Leader {
    pub address: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Leader {
    /// Serves on a free port until the test's process ends. The script gets each request and how many came before it.
    pub fn start(script: impl Fn(&Request, usize) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound").to_string();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (seen, script) = (requests.clone(), Arc::new(script));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (seen, script) = (seen.clone(), script.clone());
                std::thread::spawn(move || serve(stream.expect("accept"), &seen, &*script));
            }
        });
        Self { address, requests }
    }

    /// Everything that was asked so far.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().expect("no script panics").clone()
    }

    /// The lines of everything that was asked so far.
    pub fn lines(&self) -> Vec<String> {
        self.requests().into_iter().map(|request| request.line).collect()
    }
}

fn serve(mut stream: TcpStream, seen: &Mutex<Vec<Request>>, script: &dyn Fn(&Request, usize) -> Answer) {
    let request = read(&stream);
    let before = {
        let mut seen = seen.lock().expect("no script panics");
        seen.push(request.clone());
        seen.len() - 1
    };
    match script(&request, before) {
        Answer::Json(status, body) => {
            let body = body.to_string();
            write!(stream, "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len())
                .expect("the client reads the answer");
        }
        Answer::Cut(lines) => watch(&mut stream, &lines),
        Answer::Hold(lines) => {
            watch(&mut stream, &lines);
            let mut end = [0];
            assert_eq!(stream.read(&mut end).unwrap_or(0), 0, "a client says nothing more");
        }
        Answer::Socket(conversation) => {
            let accept = derive_accept_key(request.header("sec-websocket-key").as_bytes());
            write!(
                stream,
                "HTTP/1.1 101 X\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-protocol: {SUBPROTOCOL}\r\nsec-websocket-accept: {accept}\r\n\r\n"
            )
            .expect("the client reads the answer");
            conversation(&mut WebSocket::from_raw_socket(stream, Role::Server, None));
        }
    }
}

fn read(stream: &TcpStream) -> Request {
    let mut reader = BufReader::new(stream);
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).expect("the client sends a head");
        match line.trim_end() {
            "" => break,
            line => head.push(line.to_owned()),
        }
    }
    let line = head.first().map(|line| line.trim_end_matches(" HTTP/1.1").to_owned()).unwrap_or_default();
    let headers: Vec<_> =
        head.iter().skip(1).filter_map(|line| line.split_once(": ")).map(|(key, value)| (key.to_lowercase(), value.to_owned())).collect();
    let mut request = Request { line, headers, body: Vec::new() };
    request.body = vec![0; request.header("content-length").parse().unwrap_or(0)];
    reader.read_exact(&mut request.body).expect("the client sends its body");
    request
}

fn watch(stream: &mut TcpStream, lines: &[Value]) {
    write!(stream, "HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n").expect("the client reads the answer");
    for line in lines {
        let line = format!("{line}\n");
        write!(stream, "{:x}\r\n{line}\r\n", line.len()).expect("the client reads the answer");
    }
}
