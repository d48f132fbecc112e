use std::time::Duration;

use bytes::Bytes;
use cube_api::pod::{Phase, RestartPolicy};
use cube_api::stream::Outcome;
use http::{Request, StatusCode};
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;

use super::*;
use crate::follower::testing::{Bench, pod};

const LIMIT: Duration = Duration::from_secs(10);

/// A running exec, and the process's ends of it.
fn exec() -> (Exec, mpsc::Receiver<Frame>, mpsc::Sender<Frame>) {
    let (input, to_process) = mpsc::channel(1);
    let (from_process, output) = mpsc::channel(1);
    (Exec { input, output }, to_process, from_process)
}

#[tokio::test]
async fn an_execs_frames_go_both_ways() {
    let tasks = Tasks::default();
    let (exec, mut to_process, from_process) = exec();
    let typed = [Frame::Stdin(Bytes::from_static(b"hello")), Frame::StdinEnd];
    let mut answer = frames::Reader::new(join(exec, frames::body(futures::stream::iter(typed.clone())), &tasks));
    for frame in typed {
        assert_eq!(tokio::time::timeout(LIMIT, to_process.recv()).await, Ok(Some(frame)));
    }
    from_process.send(Frame::Status(Outcome::ExitCode(3))).await.expect("open");
    drop(from_process);
    assert_eq!(answer.next().await.expect("a frame"), Some(Frame::Status(Outcome::ExitCode(3))));
    assert_eq!(answer.next().await.expect("the end"), None);
}

#[tokio::test]
async fn a_response_that_is_dropped_drops_both_ends_of_the_exec() {
    let tasks = Tasks::default();
    let (exec, mut to_process, from_process) = exec();
    let endless = frames::body(futures::stream::pending());
    drop(join(exec, endless, &tasks));
    assert_eq!(tokio::time::timeout(LIMIT, to_process.recv()).await, Ok(None));
    tokio::time::timeout(LIMIT, from_process.closed()).await.expect("the output is closed");
}

#[tokio::test]
async fn a_client_that_takes_no_output_can_still_interrupt() {
    let tasks = Tasks::default();
    let (exec, mut to_process, _from_process) = exec();
    let interrupt = Frame::Stdin(Bytes::from_static(b"\x03"));
    let input = frames::body(futures::stream::iter([interrupt.clone()]).chain(futures::stream::pending()));
    let answer = join(exec, input, &tasks);
    assert_eq!(tokio::time::timeout(LIMIT, to_process.recv()).await, Ok(Some(interrupt)));
    drop(answer);
    assert_eq!(tokio::time::timeout(LIMIT, to_process.recv()).await, Ok(None));
}

async fn put_assignment(bench: &Bench, body: Body) -> StatusCode {
    let request = Request::builder().method("PUT").uri(node::ASSIGNMENT).body(body).expect("a request");
    let router = router(bench.agent.clone(), Tasks::default());
    TowerToHyperService::new(router).call(request).await.expect("a router doesn't fail").status()
}

#[tokio::test(start_paused = true)]
async fn an_assignment_that_is_cut_or_stale_stops_nothing() {
    let bench = Bench::new().await;
    let web = pod(1, RestartPolicy::Always);
    let stale = bench.assignment(&[]);
    let whole = serde_json::to_vec(&bench.assignment(std::slice::from_ref(&web))).expect("plain data");
    assert_eq!(put_assignment(&bench, Body::from(whole)).await, StatusCode::OK);
    bench.phase(web.uid, Phase::Running).await;
    // Of the next one, which has no pods, all but the last byte; then a body that breaks off; then an older one, whole.
    let next = serde_json::to_vec(&bench.assignment(&[])).expect("plain data");
    assert_eq!(put_assignment(&bench, Body::from(next[..next.len() - 1].to_vec())).await, StatusCode::BAD_REQUEST);
    let pieces = [Ok(Bytes::from(next[..40].to_vec())), Err(std::io::Error::other("the connection broke"))];
    assert_eq!(put_assignment(&bench, Body::from_stream(futures::stream::iter(pieces))).await, StatusCode::BAD_REQUEST);
    assert_eq!(put_assignment(&bench, Body::from(serde_json::to_vec(&stale).expect("plain data"))).await, StatusCode::OK);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(bench.status(web.uid).map(|status| status.phase), Some(Phase::Running));
    let tally = bench.fake.tally(web.uid, Some(&web.spec.containers[0].name));
    assert_eq!((tally.starts, tally.live), (1, 1));
}
