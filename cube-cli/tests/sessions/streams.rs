//! Logs and exec.

use bytes::Bytes;
use cube_api::stream::{Frame, Outcome};
use snapbox::str;
use tokio_tungstenite::tungstenite::Message;

use crate::leader::{Answer, Leader};
use crate::{cube, refusal};

fn stdout(text: &'static [u8]) -> Frame {
    Frame::Stdout(Bytes::from_static(text))
}

#[test]
fn logs_are_written_byte_for_byte() {
    let leader =
        Leader::start(|_, _| Answer::frames(vec![stdout(b"[main] one\n[ma"), stdout(b"in] t\xffwo"), Frame::Status(Outcome::Success)]));
    let output = cube(&leader.address, &["logs", "pod/web", "--tail", "2", "--timestamps", "-c", "main"]).output().unwrap();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(0), b"[main] one\n[main] t\xffwo".as_slice()));
    assert_eq!(leader.lines(), ["GET /v1/pods/web/logs?container=main&tail=2&timestamps=true"]);
}

#[test]
fn logs_that_are_cut_are_an_error() {
    let leader = Leader::start(|_, _| Answer::frames(vec![stdout(b"[main] one\n")]));
    cube(&leader.address, &["logs", "web", "-f"]).assert().code(1).stdout_eq("[main] one\n").stderr_eq(str![[r#"
error: the connection to the leader at 127.0.0.1:[..] was lost: closed before the end of the stream
hint: the leader or the network went away; try again

"#]]);
}

#[test]
fn an_error_before_the_stream_is_the_leaders_own() {
    let leader = Leader::start(|_, _| Answer::Json(404, refusal("NotFound", "pod/web has no container 'x'")));
    cube(&leader.address, &["logs", "web", "-c", "x"]).assert().code(1).stdout_eq("").stderr_eq("error: pod/web has no container 'x'\n");
    cube(&leader.address, &["exec", "web", "--", "sh"]).assert().code(1).stdout_eq("").stderr_eq("error: pod/web has no container 'x'\n");
}

#[test]
fn exec_keeps_output_errors_and_exit_code_apart() {
    let leader = Leader::start(|_, _| {
        let told = Frame::Stderr(Bytes::from_static(b"bad\n"));
        Answer::frames(vec![stdout(b"good\n"), told, Frame::Status(Outcome::ExitCode(7))])
    });
    let words = ["exec", "pod/web", "--container", "main", "--", "sh", "-c", "exit 7"];
    cube(&leader.address, &words).stdin("").assert().code(7).stdout_eq("good\n").stderr_eq("bad\n");
    assert_eq!(leader.lines(), ["GET /v1/pods/web/exec?container=main&command=sh&command=-c&command=exit+7&tty=false&stdin=true"]);
}

#[test]
fn exec_passes_standard_input_and_its_end() {
    let leader = Leader::start(|_, _| {
        Answer::Socket(Box::new(|socket| {
            loop {
                let Message::Binary(message) = socket.read().expect("the client sends its input") else { continue };
                let echo = match Frame::decode(message).expect("a frame") {
                    Frame::Stdin(bytes) => Frame::Stdout(bytes),
                    Frame::StdinEnd => break,
                    other => panic!("{other:?}"),
                };
                socket.send(Message::Binary(echo.encode())).expect("the client reads");
            }
            socket.send(Message::Binary(Frame::Status(Outcome::Success).encode())).expect("the client reads");
        }))
    });
    let input = "a line of input\n".repeat(20_000);
    cube(&leader.address, &["exec", "web", "--", "cat"]).stdin(input.as_str()).assert().code(0).stdout_eq(input.as_str()).stderr_eq("");
}

#[test]
fn exec_ends_with_its_command_although_its_input_stays_open() {
    let leader = Leader::start(|_, _| Answer::frames(vec![Frame::Status(Outcome::ExitCode(3))]));
    let mut cube = std::process::Command::new(env!("CARGO_BIN_EXE_cube"))
        .args(["exec", "-i", "web", "--", "false"])
        .env("CUBE_LEADER_URL", &leader.address)
        .env("CUBE_PASSWORD", crate::PASSWORD)
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let held_open = cube.stdin.take();
    assert_eq!(cube.wait().unwrap().code(), Some(3));
    drop(held_open);
}

#[test]
fn an_exec_that_is_cut_is_an_error_never_a_success() {
    let leader = Leader::start(|_, _| Answer::frames(vec![stdout(b"half")]));
    cube(&leader.address, &["exec", "web", "--", "true"]).stdin("").assert().code(1).stdout_eq("half").stderr_eq(str![[r#"
error: the connection to the leader at 127.0.0.1:[..] was lost: closed before the end of the stream
hint: the leader or the network went away; try again

"#]]);
}

#[test]
fn a_command_that_could_not_run_says_why() {
    let leader = Leader::start(|_, _| Answer::frames(vec![Frame::Status(Outcome::Failed("container main is not running".to_owned()))]));
    cube(&leader.address, &["exec", "web", "--", "true"]).stdin("").assert().code(1).stderr_eq("error: container main is not running\n");
}

#[test]
fn a_reader_that_stops_reading_ends_logs_quietly() {
    let leader = Leader::start(|_, _| {
        Answer::Socket(Box::new(|socket| {
            let frame = Frame::Stdout(Bytes::from(vec![b'x'; 32 * 1024])).encode();
            // Without end, until the client hangs up.
            while socket.send(Message::Binary(frame.clone())).is_ok() {}
        }))
    });
    let mut cube = std::process::Command::new(env!("CARGO_BIN_EXE_cube"))
        .args(["logs", "web"])
        .env("CUBE_LEADER_URL", &leader.address)
        .env("CUBE_PASSWORD", crate::PASSWORD)
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(cube.stdout.take());
    let output = cube.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr), (Some(0), Vec::new()));
}
