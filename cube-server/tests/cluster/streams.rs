//! Logs and exec from the client through the leader to the engine.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use cube_api::client::{ClientError, Frames};
use cube_api::pod::Phase;
use cube_api::routes::{ExecQuery, LogQuery};
use cube_api::stream::{Frame, Outcome};
use cube_server::ambient::Ambient;
use cube_server::follower::runtime::fake::{Fake, Script};
use cube_server::tasks::Tasks;

use crate::flood::Flood;
use crate::rig::{Cluster, Follower, Leader, name, soon, wait_for};

fn command(words: &[&str]) -> ExecQuery {
    ExecQuery { command: words.iter().map(|word| (*word).to_owned()).collect(), stdin: true, ..ExecQuery::default() }
}

/// What a stream brings until its end: the bytes of stdout, and how it ended.
async fn rest(frames: &mut Frames) -> (Vec<u8>, Result<Outcome, ClientError>) {
    let mut out = Vec::new();
    loop {
        match soon("a frame", frames.next()).await {
            Ok(Some(Frame::Stdout(bytes))) => out.extend_from_slice(&bytes),
            Ok(Some(Frame::Status(outcome))) => return (out, Ok(outcome)),
            Ok(Some(Frame::Stderr(_))) => {}
            Ok(Some(frame @ (Frame::Stdin(_) | Frame::StdinEnd | Frame::Resize(_)))) => panic!("from a server: {frame:?}"),
            Ok(None) => panic!("an end without a status"),
            Err(error) => return (out, Err(error)),
        }
    }
}

async fn cluster_with_pod() -> Cluster {
    let cluster = Cluster::start().await;
    cluster.leader.apply(&[("web", "app")]).await;
    cluster.leader.phase("web", Phase::Running).await;
    cluster
}

async fn no_execs(fake: &Fake) {
    wait_for("the end of the execs", async || match fake.live_execs() {
        0 => Ok(()),
        live => Err(live),
    })
    .await;
}

#[tokio::test]
async fn logs_come_whole_and_end_with_success() {
    let cluster = cluster_with_pod().await;
    let mut frames = cluster.leader.client.logs(&name("web"), &LogQuery::default()).await.expect("logs");
    let (out, end) = rest(&mut frames).await;
    assert_eq!((String::from_utf8_lossy(&out).as_ref(), end.ok()), ("[c] one\n[c] two\n", Some(Outcome::Success)));
    cluster.stop().await;
}

#[tokio::test]
async fn an_exec_gives_back_what_it_is_given_and_its_own_exit_code() {
    let cluster = cluster_with_pod().await;
    let client = &cluster.leader.client;
    let (mut sink, mut frames) = client.exec(&name("web"), &command(&["cat"])).await.expect("an exec");
    let sent: Vec<u8> = (0..100_000u32).flat_map(u32::to_be_bytes).collect();
    let (sending, received) = tokio::join!(
        async {
            for piece in sent.chunks(10_000) {
                sink.send(Frame::Stdin(Bytes::copy_from_slice(piece))).await.expect("it is taken");
            }
            sink.send(Frame::StdinEnd).await
        },
        rest(&mut frames)
    );
    sending.expect("it is taken");
    assert_eq!(received.1.ok(), Some(Outcome::Success));
    assert!(received.0 == sent, "{} bytes came back of {}", received.0.len(), sent.len());
    let (_sink, mut frames) = client.exec(&name("web"), &command(&["sh", "-c", "exit 42"])).await.expect("an exec");
    assert_eq!(rest(&mut frames).await.1.ok(), Some(Outcome::ExitCode(42)));
    no_execs(&cluster.follower.fake).await;
    cluster.stop().await;
}

#[tokio::test]
async fn an_exec_whose_client_is_gone_is_killed() {
    let cluster = cluster_with_pod().await;
    let exec = cluster.leader.client.exec(&name("web"), &command(&["sleep", "1000"])).await.expect("an exec");
    assert_eq!(cluster.follower.fake.live_execs(), 1);
    drop(exec);
    // Before a ping to the client would have found it gone, after 15 s.
    tokio::time::timeout(Duration::from_secs(5), no_execs(&cluster.follower.fake)).await.expect("the exec lives on");
    cluster.stop().await;
}

#[tokio::test]
async fn a_stream_that_is_cut_has_failed_and_never_succeeds() {
    let cluster = cluster_with_pod().await;
    let client = &cluster.leader.client;
    let (_sink, mut exec) = client.exec(&name("web"), &command(&["sleep", "1000"])).await.expect("an exec");
    let mut logs = client.logs(&name("web"), &LogQuery { follow: true, ..LogQuery::default() }).await.expect("logs");
    cluster.gate.cut(false);
    for frames in [&mut exec, &mut logs] {
        let (_, end) = rest(frames).await;
        assert!(matches!(&end, Ok(Outcome::Failed(why)) if why.contains("n1")), "{end:?}");
    }
    no_execs(&cluster.follower.fake).await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_leader_that_stops_cuts_its_streams_and_never_ends_them_well() {
    let Cluster { leader, follower, .. } = cluster_with_pod().await;
    let (_sink, mut exec) = leader.client.exec(&name("web"), &command(&["sleep", "1000"])).await.expect("an exec");
    leader.stop().await;
    let (_, end) = rest(&mut exec).await;
    assert!(matches!(end, Err(ClientError::Lost { .. }) | Ok(Outcome::Failed(_))), "{end:?}");
    no_execs(&follower.fake).await;
    follower.stop().await;
}

#[tokio::test]
async fn readers_that_stop_reading_hold_up_neither_assignments_nor_the_session() {
    let (gates, tasks) = (Tasks::default(), Tasks::default());
    let leader = Leader::start().await;
    let gate = leader.gate(&gates).await;
    let fake = Fake::new(Ambient::system(), &tasks);
    fake.script("app", Script::default());
    let flood = Arc::new(Flood::new(fake.clone()));
    let follower = Follower::start_on("n1", "machine-1", &gate, fake, flood.clone(), tasks).await;
    leader.ready("n1").await;
    leader.apply(&[("web", "app")]).await;
    leader.phase("web", Phase::Running).await;
    let query = LogQuery { container: Some(name("c")), follow: true, ..LogQuery::default() };
    let mut stalled = Vec::new();
    for _ in 0..20 {
        stalled.push(leader.client.logs(&name("web"), &query).await.expect("logs"));
    }
    // Nobody reads: what was taken from the engine stops growing.
    let taken = wait_for("the end of the flood", async || {
        let begin = flood.taken.load(Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(300)).await;
        let now = flood.taken.load(Ordering::Relaxed);
        if now == begin && now > 0 { Ok(now) } else { Err(now) }
    })
    .await;
    // Sockets' buffers (on Linux up to 10 MiB of a pair) and the stream's window; 4 MiB for each reader were measured.
    assert!(taken * Flood::LINE < 20 * 16 * 1024 * 1024, "{taken} lines were taken for nobody");
    leader.apply(&[("later", "app")]).await;
    leader.phase("later", Phase::Running).await;
    let (_sink, mut exec) = leader.client.exec(&name("later"), &command(&["true"])).await.expect("an exec");
    assert_eq!(rest(&mut exec).await.1.ok(), Some(Outcome::Success));
    // Longer than an unanswered ping would leave the session.
    let until = tokio::time::Instant::now() + Duration::from_secs(9);
    wait_for("nine seconds of the session", async || {
        assert!(leader.nodes.live().contains_key(&name("n1")), "the session has ended");
        if tokio::time::Instant::now() > until { Ok(()) } else { Err(()) }
    })
    .await;
    let Ok(Some(Frame::Stdout(_))) = soon("a frame", stalled[0].next()).await else { panic!("the log doesn't go on") };
    drop(stalled);
    follower.stop().await;
    leader.stop().await;
}

#[tokio::test]
async fn a_leader_that_stops_has_ended_its_streams() {
    let cluster = cluster_with_pod().await;
    let follow = LogQuery { follow: true, ..LogQuery::default() };
    let mut logs = cluster.leader.client.logs(&name("web"), &follow).await.expect("logs");
    soon("a frame", logs.next()).await.expect("a frame");
    assert!(cluster.leader.connections.open.get() >= 2, "the session and the stream");
    cluster.leader.stop().await;
    assert_eq!(cluster.leader.connections.open.get(), 0, "nothing goes on after the stop");
    assert!(
        soon("the end", async {
            while matches!(logs.next().await, Ok(Some(Frame::Stdout(_)))) {}
            Ok::<_, ()>(())
        })
        .await
        .is_ok()
    );
    cluster.follower.stop().await;
}
