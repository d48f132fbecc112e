//! Servers that are stopped, or not let in.

use std::time::{Duration, Instant};

use cube_api::client::ClientError;
use cube_api::routes::ListQuery;
use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::rig::{Ground, resources, sleeper, wait_for};

/// A request whose body never comes: it holds an orderly stop up for as long as a request may.
async fn half_a_request(address: std::net::SocketAddr, ground: &Ground) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    let token = ground.token();
    let head = format!(
        "POST /v1/apply HTTP/1.1\r\nhost: leader\r\nauthorization: Bearer {}\r\nexpect: 100-continue\r\ncontent-length: 1000\r\n\r\n[",
        token.expose()
    );
    stream.write_all(head.as_bytes()).await.expect("sent");
    // The answer says that the request is being read.
    let mut begun = [0; 12];
    stream.read_exact(&mut begun).await.expect("an answer");
    assert_eq!(&begun, b"HTTP/1.1 100");
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_server_on_a_data_folder_is_refused_and_told_who_has_it() {
    let ground = Ground::new();
    let mut leader = ground.leader("one");
    leader.start_ready().await;
    let mut follower = ground.follower("two", leader.address);
    follower.start();
    wait_for("the follower's lock", async || {
        let lock = std::fs::read_to_string(follower.folder.join("lock")).unwrap_or_default();
        if lock.trim() == follower.pid().to_string() { Ok(()) } else { Err(lock) }
    })
    .await;
    for (mut second, first) in [(ground.leader("one"), &leader), (ground.follower("two", leader.address), &follower)] {
        let (status, said) = second.refuses_to_start().await;
        assert_eq!(status.code(), Some(1));
        assert!(said.contains(&format!("is in use by another cube-server (process {})", first.pid())), "{said}");
        assert!(said.contains("--data-dir"), "{said}");
    }
    ground.client(leader.address).pods(&ListQuery::default()).await.expect("the first one serves on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_terminated_under_load_answers_or_hangs_up_keeps_what_it_acknowledged_and_exits_in_time() {
    let ground = Ground::new();
    let mut leader = ground.leader("leader");
    leader.start_ready().await;
    let client = ground.client(leader.address);
    let mut watch = client.watch_pods(None, cube_api::meta::Revision(0)).await.expect("a watch");
    let mut writers = JoinSet::new();
    for writer in 0..4 {
        let client = client.clone();
        writers.spawn(async move {
            let mut acknowledged = Vec::new();
            for number in 0.. {
                let name = format!("w{writer}-{number}");
                match client.apply(&resources(vec![sleeper(&name)]), false).await {
                    Ok(_) => acknowledged.push(name),
                    Err(ClientError::Unreachable { .. } | ClientError::Lost { .. }) => break,
                    Err(error) if error.is_retryable() => {}
                    Err(error) => panic!("neither an answer nor a clean end: {error:?}"),
                }
            }
            acknowledged
        });
    }
    for _ in 0..50 {
        watch.next().await.expect("changes");
    }
    let _held = half_a_request(leader.address, &ground).await;
    leader.signal(Signal::TERM);
    let began = Instant::now();
    let status = leader.ended().await;
    assert_eq!(status.code(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(11), "it took {:?}", began.elapsed());
    let log = leader.log();
    assert!(!log.contains("not everything stopped"), "{log}");
    let acknowledged: Vec<_> = writers.join_all().await.concat();
    assert!(acknowledged.len() >= 20, "{acknowledged:?}");
    leader.start_ready().await;
    let listed = client.pods(&ListQuery::default()).await.expect("a list").items;
    for name in acknowledged {
        assert!(listed.iter().any(|pod| pod.metadata.name.as_str() == name), "{name} was acknowledged and is lost");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_ends_a_server_at_once() {
    for signals in [[Signal::TERM, Signal::INT], [Signal::INT, Signal::TERM]] {
        let ground = Ground::new();
        let mut leader = ground.leader("leader");
        leader.start_ready().await;
        let _held = half_a_request(leader.address, &ground).await;
        leader.signal(signals[0]);
        wait_for("the first signal to be taken", async || if leader.log().contains("stopping") { Ok(()) } else { Err(leader.log()) }).await;
        let began = Instant::now();
        leader.signal(signals[1]);
        assert_eq!(leader.ended().await.code(), Some(130));
        assert!(
            began.elapsed() < Duration::from_secs(3),
            "the request that is under way would hold it up for 5 s, it took {:?}",
            began.elapsed()
        );
    }
}
