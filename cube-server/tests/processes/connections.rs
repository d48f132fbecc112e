//! Peers that connect and say nothing, stop in the middle, don't read, or vanish: what they cost, and that others are served meanwhile.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use cube_api::client::Client;
use cube_api::meta::Revision;
use cube_api::pod::Phase;
use cube_api::routes::{ExecQuery, ListQuery, LogQuery, WatchEvent};
use cube_api::stream::{Frame, Outcome};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;

use crate::rig::{Engine, Ground, Server, name, node_ready, phase, pod, resources, sleeper, wait_for};

/// What a server may grow by under any of it, a fraction of what it would have to keep for those who don't read.
const MOST_GROWTH_KIB: u64 = 56 * 1024;

/// This many connections of one address are served (`serve.rs`).
const MOST_OF_ONE_ADDRESS: usize = 1_024;

/// Another address of this machine than the one that well-behaved clients come from.
const STRANGER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

async fn connect_from(source: Ipv4Addr, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind((source, 0).into()).expect("an address of this machine");
    socket.connect(to).await.expect("a connection")
}

/// Whether the peer closes the connection without a word.
async fn is_closed(stream: &mut TcpStream) -> bool {
    matches!(stream.read(&mut [0]).await, Ok(0) | Err(_))
}

/// The leader serves a client as ever.
async fn serves(client: &Client, pod: &str) {
    client.apply(&resources(vec![sleeper(pod)]), false).await.expect("an apply that isn't refused");
    client.pod(&name(pod)).await.expect("it is there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_connections_of_one_address_than_it_gets_are_refused_and_others_are_served() {
    let limits = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limits.maximum, ..limits }).expect("as many files as may be");
    let ground = Ground::new();
    let mut leader = ground.leader("leader");
    // As most systems start a process: it has to ask for more itself.
    leader.start_with_few_files(MOST_OF_ONE_ADDRESS);
    leader.ready().await;
    let (client, memory) = (ground.client(leader.address), leader.memory());
    let mut flood = Vec::new();
    for number in 0..MOST_OF_ONE_ADDRESS {
        let mut stream = connect_from(STRANGER, leader.address).await;
        // Some say nothing, some stop in the middle of a header.
        if number % 2 == 0 {
            stream.write_all(b"GET /v1/pods HTTP/1.1\r\nhost: lea").await.expect("sent");
        }
        flood.push(stream);
    }
    for _ in 0..20 {
        assert!(is_closed(&mut connect_from(STRANGER, leader.address).await).await, "one too many is closed at once");
    }
    serves(&client, "meanwhile").await;
    assert!(leader.memory() < memory + MOST_GROWTH_KIB, "{} KiB after {memory} KiB", leader.memory());
    let log = leader.log();
    assert!(log.contains("the most that one address gets"), "{log}");
    drop(flood);
    wait_for("a connection of the address that had too many", async || {
        let mut stream = connect_from(STRANGER, leader.address).await;
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: leader\r\n\r\n").await.ok();
        let mut answer = [0; 12];
        match stream.read_exact(&mut answer).await {
            Ok(_) if answer == *b"HTTP/1.1 200" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    serves(&client, "afterwards").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watchers_that_do_not_read_cost_the_leader_no_memory_and_others_see_every_change() {
    const CHANGES: u64 = 200;
    let ground = Ground::new();
    let mut leader = ground.leader("leader");
    leader.start_ready().await;
    let (client, memory) = (ground.client(leader.address), leader.memory());
    let mut stalled = Vec::new();
    for _ in 0..20 {
        let socket = TcpSocket::new_v4().expect("a socket");
        // What the kernel keeps for them is no memory of the leader's, but it takes time to fill.
        socket.set_recv_buffer_size(4096).expect("a small window");
        let mut stream = socket.connect(leader.address).await.expect("a connection");
        let token = ground.token();
        let request =
            format!("GET /v1/pods?watch=true&from=0 HTTP/1.1\r\nhost: leader\r\nauthorization: Bearer {}\r\n\r\n", token.expose());
        stream.write_all(request.as_bytes()).await.expect("sent");
        stalled.push(stream);
    }
    let mut watch = client.watch_pods(None, Revision(0)).await.expect("a watch");
    let reader = tokio::spawn(async move {
        let mut last = Revision(0);
        loop {
            if let WatchEvent::Added(pod) | WatchEvent::Modified(pod) = watch.next().await.expect("a change") {
                assert!(pod.metadata.revision > last, "{} after {last}", pod.metadata.revision);
                last = pod.metadata.revision;
                let value = pod.spec.containers[0].env.value("VALUE");
                if value.is_some_and(|value| value.starts_with(&format!("{}x", CHANGES - 1))) {
                    return;
                }
            }
        }
    });
    // 30 KiB each: 6 MiB that would have to be kept for every stalled watcher, 120 MiB in all.
    for change in 0..CHANGES {
        let big = pod("big", &json!({}), &json!({"env": {"VALUE": format!("{change}{}", "x".repeat(30 * 1024))}}));
        client.apply(&resources(vec![big]), false).await.expect("an apply that isn't refused");
    }
    tokio::time::timeout(crate::rig::LIMIT, reader).await.expect("the watch that is read goes on").expect("in order");
    assert!(leader.memory() < memory + MOST_GROWTH_KIB, "{} KiB after {memory} KiB", leader.memory());
    drop(stalled);
    serves(&client, "afterwards").await;
}

/// A way to a leader whose ends can be left without a word: nothing is forwarded any more, and nothing closed.
struct Proxy {
    address: SocketAddr,
    stuck: watch::Sender<bool>,
}

impl Proxy {
    async fn to(leader: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let (stuck, seen) = watch::channel(false);
        tokio::spawn(async move {
            while let Ok((mut inner, _)) = listener.accept().await {
                let mut seen = seen.clone();
                tokio::spawn(async move {
                    let mut outer = TcpStream::connect(leader).await.expect("the leader listens");
                    tokio::select! {
                        biased;
                        () = becomes(&mut seen, true) => {}
                        _ = copy_bidirectional(&mut inner, &mut outer) => return,
                    }
                    // Both ends are held: for each, the other one has vanished.
                    becomes(&mut seen, false).await;
                });
            }
        });
        Self { address, stuck }
    }
}

async fn becomes(stuck: &mut watch::Receiver<bool>, wanted: bool) {
    stuck.wait_for(|stuck| *stuck == wanted).await.ok();
}

/// Takes frames until so many bytes of a log have come.
async fn read(frames: &mut cube_api::client::Frames, bytes: usize) {
    let mut taken = 0;
    while taken < bytes {
        match frames.next().await.expect("the stream goes on") {
            Some(Frame::Stdout(data)) => taken += data.len(),
            other => panic!("{other:?} after {taken} bytes"),
        }
    }
}

async fn exec_works(client: &Client, pod: &str) {
    let query = ExecQuery { command: vec!["echo".to_owned(), "here".to_owned()], ..ExecQuery::default() };
    let (_input, mut frames) = client.exec(&name(pod), &query).await.expect("an exec");
    let mut said = Vec::new();
    loop {
        match frames.next().await.expect("the stream goes on") {
            Some(Frame::Stdout(data)) => said.extend_from_slice(&data),
            Some(Frame::Status(Outcome::Success)) => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(said, b"here\n");
}

/// A leader and a follower that reaches it directly, with a pod that has written much.
async fn with_a_flood(ground: &Ground, engine: &Engine) -> (Server, Server, Client) {
    let mut leader = ground.leader("leader");
    leader.start_ready().await;
    let client = ground.client(leader.address);
    let mut follower = ground.follower(engine.node(), leader.address);
    follower.start();
    node_ready(&client, engine.node()).await;
    let flood = pod(
        "flood",
        &json!({}),
        &json!({"command": ["sh", "-c", "yes $(head -c 1000 /dev/zero | tr '\\0' x) | head -c 30000000; sleep 100000"]}),
    );
    client.apply(&resources(vec![flood]), false).await.expect("an apply that isn't refused");
    phase(&client, "flood", Phase::Running).await;
    (leader, follower, client)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_readers_that_stop_or_vanish_cost_no_memory_and_others_go_on() {
    let (ground, engine) = (Ground::new(), Engine::new());
    let (leader, mut follower, client) = with_a_flood(&ground, &engine).await;
    let proxy = Proxy::to(leader.address).await;
    let far = ground.client(proxy.address);
    let query = LogQuery { follow: true, ..LogQuery::default() };
    let memory = (leader.memory(), follower.memory());
    // Some are just not read from; of others nothing is heard any more, no answer to a ping either.
    let mut slow = Vec::new();
    for number in 0..20 {
        let of = if number % 2 == 0 { &client } else { &far };
        let mut frames = of.logs(&name("flood"), &query).await.expect("logs");
        read(&mut frames, 1).await;
        slow.push(frames);
    }
    proxy.stuck.send_replace(true);
    let mut healthy = client.logs(&name("flood"), &query).await.expect("logs");
    // As much for each of the others would be 80 MiB.
    read(&mut healthy, 4 * 1024 * 1024).await;
    exec_works(&client, "flood").await;
    serves(&client, "meanwhile").await;
    assert!(leader.memory() < memory.0 + MOST_GROWTH_KIB, "the leader: {} KiB after {} KiB", leader.memory(), memory.0);
    assert!(follower.memory() < memory.1 + MOST_GROWTH_KIB, "the follower: {} KiB after {} KiB", follower.memory(), memory.1);
    follower.kill();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_vanishes_without_a_word_is_noticed_and_comes_back_to_its_pods() {
    let (ground, engine) = (Ground::new(), Engine::new());
    let mut leader = ground.leader("leader");
    leader.start_ready().await;
    let client = ground.client(leader.address);
    let proxy = Proxy::to(leader.address).await;
    let mut follower = ground.follower(engine.node(), proxy.address);
    follower.start();
    node_ready(&client, engine.node()).await;
    client.apply(&resources(vec![sleeper("web")]), false).await.expect("an apply that isn't refused");
    phase(&client, "web", Phase::Running).await;
    let before = engine.running(&["web"]).await;
    proxy.stuck.send_replace(true);
    wait_for("the node, not ready", async || match client.node(&name(engine.node())).await {
        Ok(node) if node.condition.is_ready() => Err(format!("{node:?}")),
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    })
    .await;
    client.pods(&ListQuery::default()).await.expect("others are served");
    proxy.stuck.send_replace(false);
    node_ready(&client, engine.node()).await;
    assert_eq!(engine.running(&["web"]).await, before);
    assert_eq!(phase(&client, "web", Phase::Running).await.status.containers[0].restart_count, 0);
    exec_works(&client, "web").await;
    follower.kill();
}

/// A header that never ends, and nothing at all, are given up after 10 s (`serve.rs`): the places are free again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_and_half_open_connections_are_closed() {
    let ground = Ground::new();
    let mut leader = ground.leader("leader");
    leader.start_ready().await;
    let mut silent = TcpStream::connect(leader.address).await.expect("a connection");
    let mut half = TcpStream::connect(leader.address).await.expect("a connection");
    half.write_all(b"GET /healthz HTTP/1.1\r\nhost: lea").await.expect("sent");
    let both = async { (is_ended(&mut silent).await, is_ended(&mut half).await) };
    assert_eq!(tokio::time::timeout(Duration::from_secs(15), both).await.expect("they are closed"), (true, true));
}

/// Whether the connection ends, after whatever is said before.
async fn is_ended(stream: &mut TcpStream) -> bool {
    stream.read_to_end(&mut Vec::new()).await.is_ok_and(|said| said < 1024)
}
