use std::convert::Infallible;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicUsize};

use axum::Router;
use axum::routing::{get, post};
use bytes::Bytes;
use cube_api::stream::{Frame, Outcome};
use futures::stream::{self, StreamExt};
use hyper_util::rt::TokioIo;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{frames, h2};

const LIMIT: Duration = Duration::from_secs(10);

async fn wait_for(what: &str, probe: impl Fn() -> bool) {
    let began = Instant::now();
    while !probe() {
        assert!(began.elapsed() < LIMIT, "waited for {what} in vain");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn name(text: &str) -> Name {
    text.parse().expect("a name")
}

/// Of one data folder on one machine.
fn claim(instance: Option<u128>) -> Claim {
    let instance = instance.map(|number| Instance(uuid::Uuid::from_u128(number)));
    Claim { node_id: NodeId(uuid::Uuid::from_u128(1)), instance, machine_id: "m".to_owned(), boot_id: "b".to_owned() }
}

fn uid() -> Uid {
    Uid(uuid::Uuid::from_u128(7))
}

/// Sessions, and nodes that serve test routers to them over connections in memory.
struct Wire {
    sessions: Arc<Sessions>,
    tasks: Tasks,
}

impl Wire {
    fn new() -> Self {
        let tasks = Tasks::default();
        Self { sessions: Arc::new(Sessions::new(tasks.clone())), tasks }
    }

    fn lead(&self, node: &str, ticket: sessions::Ticket, io: tokio::io::DuplexStream) {
        let (sessions, node) = (self.sessions.clone(), name(node));
        self.tasks.spawn_droppable("session", async move {
            sessions.run(&node, ticket, TokioIo::new(io), |_client| std::future::pending()).await;
        });
    }

    /// Connects a node; what ends it from its own side.
    async fn connect(&self, node: &str, router: Router) -> CancellationToken {
        let (leaders, nodes) = tokio::io::duplex(64 * 1024);
        let end = CancellationToken::new();
        let (tasks, ended) = (self.tasks.clone(), end.clone());
        self.tasks.spawn_droppable("node", async move {
            tokio::select! {
                () = ended.cancelled() => {}
                // How it ends is for the test to see from the other side.
                _ = h2::serve(nodes, router, h2::Executor::new(&tasks, &ended)) => {}
            }
        });
        self.lead(node, self.sessions.ticket(claim(None)), leaders);
        wait_for("the session", || self.sessions.is_live(&name(node))).await;
        end
    }

    async fn logs(&self, node: &str) -> Result<NodeStream, ApiError> {
        let request = request(Method::GET, node::LOGS, uid(), "", Body::empty());
        tokio::time::timeout(LIMIT, self.sessions.open(&name(node), request)).await.expect("an answer in time")
    }
}

async fn next(stream: &mut NodeStream) -> Option<Frame> {
    tokio::time::timeout(LIMIT, stream.next()).await.expect("a frame in time").map(|frame| frame.expect("a frame"))
}

fn stdout(text: &'static str) -> Frame {
    Frame::Stdout(Bytes::from_static(text.as_bytes()))
}

fn lost() -> Option<Frame> {
    Some(Frame::Status(Outcome::Failed("the connection to node n1 was lost".to_owned())))
}

#[tokio::test]
async fn logs_come_through_to_their_status() {
    let frames = || stream::iter([stdout("a\n"), stdout("b\n"), Frame::Status(Outcome::Success)]);
    let wire = Wire::new();
    wire.connect("n1", Router::new().route(node::LOGS, get(async move || frames::body(frames())))).await;
    let mut stream = wire.logs("n1").await.expect("a stream");
    assert_eq!(next(&mut stream).await, Some(stdout("a\nb\n")));
    assert_eq!(next(&mut stream).await, Some(Frame::Status(Outcome::Success)));
    assert_eq!(next(&mut stream).await, None);
}

#[tokio::test]
async fn a_stream_without_status_or_of_a_lost_node_ends_as_failed() {
    let wire = Wire::new();
    let truncated = async || frames::body(stream::iter([stdout("a")]));
    let endless = async || frames::body(stream::iter([stdout("b")]).chain(stream::pending()));
    let routes = Router::new().route(node::LOGS, get(truncated)).route(node::EXEC, get(endless));
    let end = wire.connect("n1", routes).await;
    let mut stream = wire.logs("n1").await.expect("a stream");
    assert_eq!(next(&mut stream).await, Some(stdout("a")));
    assert_eq!(next(&mut stream).await, lost());
    assert_eq!(next(&mut stream).await, None);

    let request = request(Method::GET, node::EXEC, uid(), "", Body::empty());
    let mut stream = wire.sessions.open(&name("n1"), request).await.expect("a stream");
    assert_eq!(next(&mut stream).await, Some(stdout("b")));
    end.cancel();
    assert_eq!(next(&mut stream).await, lost());
    wait_for("the session's end", || !wire.sessions.is_live(&name("n1"))).await;
}

#[tokio::test]
async fn a_nodes_refusal_is_passed_on_and_a_missing_node_is_named() {
    let wire = Wire::new();
    let refuse = async || {
        let error = ApiError::new(ErrorCode::NotFound, "no such container").hint("try another");
        (error.code.status(), axum::Json(error))
    };
    wire.connect("n1", Router::new().route(node::LOGS, get(refuse))).await;
    let error = wire.logs("n1").await.err().expect("refused");
    assert_eq!(
        (error.code, error.message.as_str(), error.hint.as_deref()),
        (ErrorCode::NotFound, "no such container", Some("try another"))
    );
    let error = wire.logs("n2").await.err().expect("refused");
    assert_eq!((error.code, error.message.as_str()), (ErrorCode::NodeUnavailable, "node n2 is not connected"));
}

/// Echoes input as output until it ends, and notes when it is dropped.
fn echo(dropped: Arc<AtomicBool>) -> Router {
    struct Note(Arc<AtomicBool>);
    impl Drop for Note {
        fn drop(&mut self) {
            self.0.store(true, SeqCst);
        }
    }
    let exec = async move |body: Body| {
        let state = (frames::Reader::new(body), Note(dropped.clone()));
        frames::body(stream::unfold(state, async |(mut reader, note)| match reader.next().await {
            Ok(Some(Frame::Stdin(bytes))) => Some((Frame::Stdout(bytes), (reader, note))),
            Ok(Some(_)) => Some((Frame::Status(Outcome::ExitCode(7)), (reader, note))),
            Ok(None) | Err(_) => None,
        }))
    };
    Router::new().route(node::EXEC, post(exec))
}

async fn exec(wire: &Wire) -> (NodeSink, NodeStream) {
    let (sink, body, alive) = super::stream::input();
    let stream = wire.sessions.open(&name("n1"), request(Method::POST, node::EXEC, uid(), "command=cat", body)).await.expect("a stream");
    (sink, stream.with_input(alive))
}

#[tokio::test]
async fn exec_goes_both_ways_and_ends_with_its_code() {
    let wire = Wire::new();
    wire.connect("n1", echo(Arc::default())).await;
    let (mut sink, mut stream) = exec(&wire).await;
    for text in ["hello", "again"] {
        sink.send(Frame::Stdin(Bytes::from_static(text.as_bytes()))).await.expect("open");
        assert_eq!(next(&mut stream).await, Some(stdout(text)));
    }
    sink.send(Frame::StdinEnd).await.expect("open");
    assert_eq!(next(&mut stream).await, Some(Frame::Status(Outcome::ExitCode(7))));
}

#[tokio::test]
async fn a_client_that_is_gone_resets_the_nodes_stream() {
    let (wire, dropped) = (Wire::new(), Arc::new(AtomicBool::new(false)));
    wire.connect("n1", echo(dropped.clone())).await;
    let (mut sink, mut stream) = exec(&wire).await;
    sink.send(Frame::Stdin(Bytes::from_static(b"x"))).await.expect("open");
    assert_eq!(next(&mut stream).await, Some(stdout("x")));
    drop((sink, stream));
    wait_for("the reset", || dropped.load(SeqCst)).await;
}

#[tokio::test]
async fn a_reader_that_stops_stops_the_node_and_no_other_stream() {
    let wire = Wire::new();
    let sent = Arc::new(AtomicUsize::new(0));
    let counted = sent.clone();
    let endless = async move || {
        let counted = counted.clone();
        frames::body(stream::repeat_with(move || {
            counted.fetch_add(32 * 1024, SeqCst);
            Frame::Stdout(Bytes::from(vec![b'x'; 32 * 1024]))
        }))
    };
    let short = async || Body::from_stream(stream::iter([Ok::<_, Infallible>(Frame::Status(Outcome::Success).encode_prefixed())]));
    wire.connect("n1", Router::new().route(node::LOGS, get(endless)).route(node::EXEC, get(short))).await;
    let mut stopped = wire.logs("n1").await.expect("a stream");
    next(&mut stopped).await.expect("a frame");
    for _ in 0..100 {
        let request = request(Method::GET, node::EXEC, uid(), "", Body::empty());
        let mut other = wire.sessions.open(&name("n1"), request).await.expect("a stream");
        assert_eq!(next(&mut other).await, Some(Frame::Status(Outcome::Success)));
    }
    let sent = sent.load(SeqCst);
    assert!(sent <= 2 * 1024 * 1024, "{sent} bytes were made for a reader that stopped");
}

#[tokio::test]
async fn the_newest_session_wins_and_the_older_ends() {
    let wire = Wire::new();
    let says = |word: &'static str| {
        Router::new().route(node::LOGS, get(async move || frames::body(stream::iter([stdout(word)]).chain(stream::pending()))))
    };
    let overtaken = wire.sessions.ticket(claim(None));
    wire.connect("n1", says("old")).await;
    let mut old = wire.logs("n1").await.expect("a stream");
    assert_eq!(next(&mut old).await, Some(stdout("old")));
    wire.connect("n1", says("new")).await;
    assert_eq!(next(&mut old).await, lost());
    let mut new = wire.logs("n1").await.expect("a stream");
    assert_eq!(next(&mut new).await, Some(stdout("new")));

    let (late, _node) = tokio::io::duplex(1024);
    tokio::time::timeout(LIMIT, wire.sessions.run(&name("n1"), overtaken, TokioIo::new(late), |_| std::future::pending()))
        .await
        .expect("an overtaken session ends at once");
    assert!(wire.sessions.is_live(&name("n1")));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_falls_silent_loses_its_session_before_it_is_not_ready() {
    let wire = Wire::new();
    let (leaders, _silent) = tokio::io::duplex(64 * 1024);
    wire.lead("n1", wire.sessions.ticket(claim(None)), leaders);
    wait_for("the session", || wire.sessions.is_live(&name("n1"))).await;
    let began = Instant::now();
    wait_for("the session's end", || !wire.sessions.is_live(&name("n1"))).await;
    assert!(began.elapsed() < Duration::from_secs(9), "after {:?}", began.elapsed());
}

#[tokio::test]
async fn bulk_streams_are_limited_and_come_back() {
    let wire = Wire::new();
    let endless = async || frames::body(stream::iter([stdout("x")]).chain(stream::pending()));
    wire.connect("n1", Router::new().route(node::LOGS, get(endless))).await;
    let mut open = Vec::new();
    for _ in 0..h2::MAX_BULK_STREAMS {
        open.push(wire.logs("n1").await.expect("room"));
    }
    assert_eq!(wire.logs("n1").await.err().map(|e| e.code), Some(ErrorCode::Busy));
    open.pop();
    assert!(wire.logs("n1").await.is_ok());
}

/// Both were let in while nobody was connected, and now one is.
#[tokio::test]
async fn a_copy_that_comes_second_does_not_end_the_session_that_came_first() {
    let wire = Wire::new();
    let copy = Claim { machine_id: "m2".to_owned(), ..claim(Some(2)) };
    let (leaders, _node) = tokio::io::duplex(64 * 1024);
    wire.lead("n1", wire.sessions.ticket(claim(Some(1))), leaders);
    wait_for("the session", || wire.sessions.is_live(&name("n1"))).await;
    let (late, _copys) = tokio::io::duplex(1024);
    let node = name("n1");
    let second = wire.sessions.run(&node, wire.sessions.ticket(copy.clone()), TokioIo::new(late), |_| std::future::pending());
    tokio::time::timeout(LIMIT, second).await.expect("it ends at once");
    assert!(wire.sessions.is_held_by_another(&name("n1"), copy.node_id, Instance(uuid::Uuid::from_u128(2))));
    assert!(!wire.sessions.is_held_by_another(&name("n1"), copy.node_id, Instance(uuid::Uuid::from_u128(1))));
}
