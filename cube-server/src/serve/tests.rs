use axum::routing::get;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::*;

const LIMIT: Duration = Duration::from_secs(60);

fn hello() -> Router {
    Router::new().route("/", get(async || "hello"))
}

fn routes(router: Router) -> Known {
    Known::new(router, &Connection::of_a_stranger().place)
}

fn connected() -> (DuplexStream, Tasks) {
    let (client, server) = tokio::io::duplex(64 * 1024);
    let tasks = Tasks::default();
    tasks.spawn("connection", serve_connection(server, routes(hello()), tasks.stopping().clone()));
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
    tasks.spawn("connection", serve_connection(server, routes(router), tasks.stopping().clone()));
    client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("open");
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert!(tasks.shut_down(DRAIN + Duration::from_secs(1)).await);
}

#[test]
fn connections_are_limited_in_all_and_by_peer_and_their_places_come_back() {
    let peers = Peers::new(3, 2, 1);
    let (one, two): (IpAddr, IpAddr) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
    let first = peers.admit(one).expect("room");
    let _second = peers.admit(one).expect("room");
    assert_eq!(peers.admit(one).err(), Some(Full::Peer(2)));
    let _third = peers.admit(two).expect("room");
    assert_eq!(peers.admit(two).err(), Some(Full::Server(3)));
    drop(first);
    assert!(peers.admit(one).is_ok());
}

#[test]
fn a_nodes_connection_leaves_the_strangers_count_as_long_as_there_are_not_too_many() {
    let peers = Peers::new(2, 1, 1);
    let nat: IpAddr = [10, 0, 0, 1].into();
    let node = peers.admit(nat).expect("room");
    node.is_a_nodes();
    node.is_a_nodes();
    let second = peers.admit(nat).expect("the node's doesn't count");
    second.is_a_nodes();
    assert_eq!(peers.admit(nat).err(), Some(Full::Peer(1)), "one node too many counts as a stranger");
    drop(node);
    second.is_a_nodes();
    let third = peers.admit(nat).expect("now it is a node's");
    drop((second, third));
    let open = peers.open.lock().expect("nobody panicked");
    assert_eq!((open.strangers, open.of_nodes, open.by_peer.len()), (0, 0, 0));
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
    tasks.spawn("accept", serve(listener, hello(), tasks.clone(), Connections::default()));
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
    let peers = Peers::new(1, 1, 1);
    let place = peers.admit([10, 0, 0, 1].into()).expect("room");
    let connections = Connections::default();
    let place = Arc::new(Counted::new(place, &connections));
    let routes = Known::new(router, &place);
    tasks.spawn("connection", serve_connection(Placed::new(server, place), routes, tasks.stopping().clone()));
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

#[tokio::test(start_paused = true)]
async fn a_reader_that_takes_nothing_for_ten_minutes_is_cut_and_its_place_comes_back() {
    let (mut client, server) = tokio::io::duplex(64 * 1024);
    let (tasks, peers, connections) = (Tasks::default(), Peers::new(1, 1, 1), Connections::default());
    let endless = || axum::body::Body::from_stream(futures::stream::repeat_with(|| Ok::<_, io::Error>("x".repeat(1024))));
    let place = Arc::new(Counted::new(peers.admit([10, 0, 0, 1].into()).expect("room"), &connections));
    let router = Router::new().route("/", get(async move || endless()));
    let routes = Known::new(router, &place);
    tasks.spawn("connection", serve_connection(Placed::new(server, place), routes, tasks.stopping().clone()));
    client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("open");
    // One that reads a little now and then is there.
    let mut little = vec![0; 64 * 1024];
    for _ in 0..4 {
        tokio::time::sleep(STALLED - Duration::from_secs(10)).await;
        client.read_exact(&mut little).await.expect("open");
    }
    assert_eq!((connections.open.get(), peers.admit([10, 0, 0, 2].into()).is_err()), (1, true));
    tokio::time::sleep(STALLED + Duration::from_secs(10)).await;
    assert_eq!(connections.open.get(), 0);
    assert!(peers.admit([10, 0, 0, 2].into()).is_ok());
}

#[tokio::test]
async fn a_head_that_is_too_long_is_refused() {
    let (mut client, _tasks) = connected();
    let long = format!("GET /?{} HTTP/1.1\r\nHost: x\r\n", "x".repeat(MAX_HEAD));
    // It may be cut in the middle of it.
    drop(client.write_all(long.as_bytes()).await);
    let mut answer = Vec::new();
    tokio::time::timeout(LIMIT, client.read_to_end(&mut answer)).await.expect("cut").expect("closed in order");
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(answer.starts_with("HTTP/1.1 414") || answer.starts_with("HTTP/1.1 431"), "{answer}");
}

#[tokio::test]
async fn connections_that_are_open_or_refused_are_counted() {
    let listener = bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    let (tasks, connections) = (Tasks::default(), Connections::default());
    tasks.spawn("accept", serve(listener, hello(), tasks.clone(), connections.clone()));
    let mut clients = Vec::new();
    for _ in 0..=MAX_PER_PEER {
        clients.push(tokio::net::TcpStream::connect(address).await.expect("listening"));
    }
    // The one too many is closed without a word.
    let refused = clients.last_mut().expect("many");
    assert_eq!(refused.read(&mut [0; 1]).await.unwrap_or(0), 0);
    assert_eq!((connections.open.get(), connections.refused.get()), (MAX_PER_PEER as i64, 1));
    clients.truncate(1);
    let closed = async {
        while connections.open.get() > 1 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, closed).await.expect("closed connections are no longer counted");
    tokio::net::TcpStream::connect(address).await.expect("listening").write_all(b"x").await.expect("it is let in");
    assert!(tasks.shut_down(DRAIN + Duration::from_secs(1)).await);
}

#[test]
fn a_server_that_is_out_of_open_files_says_how_to_get_more() {
    let said = not_accepted(&io::Error::from(Errno::MFILE));
    assert!(said.contains("open files that this process may have are in use") && said.contains("LimitNOFILE="), "{said}");
    assert!(!not_accepted(&io::Error::from(Errno::CONNABORTED)).contains("LimitNOFILE="));
}
