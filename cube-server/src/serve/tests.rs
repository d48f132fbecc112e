use axum::routing::get;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::*;

const LIMIT: Duration = Duration::from_secs(60);

fn hello() -> Router {
    Router::new().route("/", get(async || "hello"))
}

fn connected() -> (DuplexStream, Tasks) {
    let (client, server) = tokio::io::duplex(64 * 1024);
    let tasks = Tasks::default();
    tasks.spawn("connection", serve_connection(server, hello(), tasks.stopping().clone()));
    (client, tasks)
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_says_nothing_or_half_a_header_is_cut_after_the_header_timeout() {
    for said in ["", "GET / HTTP/1.1\r\nHost:"] {
        let (mut client, _tasks) = connected();
        client.write_all(said.as_bytes()).await.expect("open");
        let began = Instant::now();
        tokio::time::timeout(LIMIT, client.read_to_end(&mut Vec::new())).await.expect("cut").expect("closed in order");
        assert!(began.elapsed() <= HEADER_TIMEOUT + Duration::from_secs(1), "after {:?}", began.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_kept_connection_is_cut_after_the_header_timeout() {
    let (mut client, _tasks) = connected();
    client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("open");
    let mut answer = Vec::new();
    let began = Instant::now();
    tokio::time::timeout(LIMIT, client.read_to_end(&mut answer)).await.expect("cut").expect("closed in order");
    assert!(answer.starts_with(b"HTTP/1.1 200"));
    assert!(began.elapsed() <= HEADER_TIMEOUT + Duration::from_secs(1), "after {:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_request_that_runs_for_ever_does_not_hold_up_a_stop() {
    let (mut client, server) = tokio::io::duplex(1024);
    let tasks = Tasks::default();
    let router = Router::new().route("/", get(std::future::pending::<&'static str>));
    tasks.spawn("connection", serve_connection(server, router, tasks.stopping().clone()));
    client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("open");
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert!(tasks.shut_down(DRAIN + Duration::from_secs(1)).await);
}

#[test]
fn connections_are_limited_in_all_and_by_peer_and_their_places_come_back() {
    let peers = Peers::new(3, 2);
    let (one, two): (IpAddr, IpAddr) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
    let first = peers.admit(one).expect("room");
    let _second = peers.admit(one).expect("room");
    assert_eq!(peers.admit(one).err(), Some(Full::Peer(2)));
    let _third = peers.admit(two).expect("room");
    assert_eq!(peers.admit(two).err(), Some(Full::Server(3)));
    drop(first);
    assert!(peers.admit(one).is_ok());
}

#[tokio::test]
async fn a_taken_port_is_said_with_the_address_and_a_remedy() {
    let taken = bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("bound").to_string();
    let error = bind(&address).expect_err("taken");
    assert!(matches!(error, BindError::InUse { .. }), "{error:?}");
    assert!(error.to_string().contains(&address) && error.to_string().contains("--listen"));
    assert!(matches!(bind("nonsense"), Err(BindError::Address { .. })));
}

#[tokio::test]
async fn requests_are_answered_until_the_server_stops() {
    let listener = bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    let tasks = Tasks::default();
    tasks.spawn("accept", serve(listener, hello(), tasks.clone()));
    let mut client = tokio::net::TcpStream::connect(address).await.expect("listening");
    client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.expect("open");
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.expect("an answer");
    assert!(answer.ends_with("hello"), "{answer}");
    assert!(tasks.shut_down(Duration::from_secs(5)).await);
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_connection_that_was_upgraded_is_handed_over_and_keeps_its_place() {
    let tasks = Tasks::default();
    let (mut client, server) = tokio::io::duplex(1024);
    let spawner = tasks.clone();
    let router = Router::new().route(
        "/",
        get(async move |mut request: axum::extract::Request| {
            let upgrade = hyper::upgrade::on(&mut request);
            spawner.spawn_droppable("upgraded", async move {
                let mut io = TokioIo::new(upgrade.await.expect("handed over"));
                let mut word = [0; 4];
                io.read_exact(&mut word).await.expect("four bytes");
                io.write_all(&word).await.expect("open");
            });
            (http::StatusCode::SWITCHING_PROTOCOLS, [("connection", "upgrade"), ("upgrade", "x")])
        }),
    );
    let peers = Peers::new(1, 1);
    let place = peers.admit([10, 0, 0, 1].into()).expect("room");
    tasks.spawn("connection", serve_connection(Placed { io: server, _place: place }, router, tasks.stopping().clone()));
    client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n").await.expect("open");
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        assert_ne!(client.read_buf(&mut answer).await.expect("open"), 0, "{}", String::from_utf8_lossy(&answer));
    }
    assert!(answer.starts_with(b"HTTP/1.1 101"));
    assert!(peers.admit([10, 0, 0, 2].into()).is_err(), "the upgraded connection still counts");
    client.write_all(b"ping").await.expect("open");
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).await.expect("closed in order");
    assert_eq!(rest, b"ping");
    assert!(peers.admit([10, 0, 0, 2].into()).is_ok());
}
