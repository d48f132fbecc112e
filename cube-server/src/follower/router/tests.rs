use std::time::Duration;

use bytes::Bytes;
use cube_api::stream::Outcome;

use super::*;

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
