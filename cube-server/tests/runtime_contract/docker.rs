//! What only a real engine can show: networks, terminals, bytes and processes.

use std::time::Duration;

use bytes::Bytes;
use cube_api::stream::TerminalSize;
use cube_server::follower::runtime::{ContainerId, ContainerSpec, ExecHandle, ExecInput, ExecOutput, ExecRequest, LogRequest};
use futures::TryStreamExt;

use crate::rig::{Does, Rig, wait_for};
use crate::shared::exec;

fn shell(rig: &Rig, sandbox: &ContainerId, container: &str, script: &str) -> ContainerSpec {
    let command = ["sh", "-c", script].map(str::to_owned).to_vec();
    ContainerSpec { command, ..rig.spec(sandbox, container, Does::Runs) }
}

#[tokio::test]
async fn a_port_bound_by_one_container_is_reached_by_another_on_localhost() {
    let rig = Rig::docker();
    let sandbox = rig.sandbox().await;
    rig.started_from(&shell(&rig, &sandbox, "server", "echo hello > /tmp/index.html; exec httpd -f -p 8080 -h /tmp")).await;
    let client = rig.started_from(&rig.spec(&sandbox, "client", Does::Runs)).await;
    wait_for("the answer", async || {
        let said = exec(&rig, &client, &["wget", "-q", "-O", "-", "http://127.0.0.1:8080/"], &[]).await;
        let hello = ExecOutput::Stdout(Bytes::from("hello\n"));
        if said == [hello, ExecOutput::Exited(0)] { Ok(()) } else { Err(format!("{said:?}")) }
    })
    .await;
    assert!(rig.look(&sandbox).await.ip.is_some());
}

#[tokio::test]
async fn terminal_output_that_begins_like_a_frame_is_delivered() {
    let rig = Rig::docker();
    let sandbox = rig.sandbox().await;
    // A header that claims 2 GiB. Bytes that are no UTF-8 would not do: Docker's log file is JSON and replaces them.
    let script = r"stty raw; printf '\001\000\000\000\177\177\177\177\nlast'";
    let id = rig.started_from(&ContainerSpec { tty: true, ..shell(&rig, &sandbox, "app", script) }).await;
    rig.ended(&id).await;
    for times in [false, true] {
        let request = LogRequest { times, ..LogRequest::default() };
        let lines = rig.runtime.logs(&id, &request).await.unwrap().try_concat().await.unwrap();
        let texts: Vec<_> = lines.iter().map(|line| &line.bytes[..]).collect();
        assert_eq!(texts, [&b"\x01\0\0\0\x7f\x7f\x7f\x7f\n"[..], b"last"]);
    }
}

#[tokio::test]
async fn a_line_of_a_mebibyte_on_standard_error_comes_in_pieces_and_whole() {
    let rig = Rig::docker();
    for tty in [false, true] {
        let sandbox = rig.sandbox().await;
        let container = if tty { "terminal" } else { "pipe" };
        let script = "head -c 1048576 /dev/zero | tr '\\0' x >&2; echo >&2";
        let id = rig.started_from(&ContainerSpec { tty, ..shell(&rig, &sandbox, container, script) }).await;
        rig.ended(&id).await;
        for times in [false, true] {
            let request = LogRequest { times, ..LogRequest::default() };
            let lines = rig.runtime.logs(&id, &request).await.unwrap().try_concat().await.unwrap();
            let letters = lines.iter().flat_map(|line| line.bytes.iter()).filter(|&&byte| byte == b'x').count();
            assert_eq!(letters, 1 << 20, "tty {tty}, times {times}");
            assert!(lines.iter().all(|line| line.bytes.len() <= 16 * 1024 + 2));
        }
    }
}

#[tokio::test]
async fn a_terminal_has_the_size_that_was_sent_first() {
    let rig = Rig::docker();
    let id = rig.started(Does::Runs).await;
    let mut handle = start(&rig, &id, "until size=$(stty size 2>/dev/null) && [ -n \"$size\" ]; do :; done; echo $size", true).await;
    handle.input.send(ExecInput::Resize(TerminalSize { width: 132, height: 43 })).await.unwrap();
    let mut text = String::new();
    while let Some(output) = handle.output.recv().await {
        match output {
            ExecOutput::Stdout(bytes) => text.push_str(&String::from_utf8_lossy(&bytes)),
            last => assert_eq!(last, ExecOutput::Exited(0)),
        }
    }
    assert_eq!(text.trim(), "43 132");
}

#[tokio::test]
async fn an_exec_keeps_its_outputs_apart_and_whole() {
    let rig = Rig::docker();
    let id = rig.started(Does::Runs).await;
    let said = exec(&rig, &id, &["sh", "-c", "head -c 3000000 /dev/zero; echo bad >&2"], &[]).await;
    let size: usize = said.iter().map(|output| if let ExecOutput::Stdout(bytes) = output { bytes.len() } else { 0 }).sum();
    assert_eq!((size, said.last()), (3_000_000, Some(&ExecOutput::Exited(0))));
    assert!(said.contains(&ExecOutput::Stderr(Bytes::from("bad\n"))));
}

#[tokio::test]
async fn the_processes_of_an_exec_end_with_its_client() {
    let rig = Rig::docker();
    let id = rig.started(Does::Runs).await;
    for (tty, seconds) in [(false, "1234"), (true, "4321")] {
        let handle = start(&rig, &id, &format!("trap '' HUP; sleep {seconds} & sleep {seconds}"), tty).await;
        let running =
            async || {
                let said = exec(&rig, &id, &["ps", "-o", "args"], &[]).await;
                let text: String =
                    said.iter()
                        .map(|output| {
                            if let ExecOutput::Stdout(bytes) = output { String::from_utf8_lossy(bytes).into_owned() } else { String::new() }
                        })
                        .collect();
                text.lines().filter(|line| *line == format!("sleep {seconds}")).count()
            };
        let count = async |wanted: usize| {
            wait_for("the number of processes", async || match running().await {
                count if count == wanted => Ok(()),
                count => Err(format!("{count} of {wanted}")),
            })
            .await;
        };
        count(2).await;
        drop(handle);
        count(0).await;
    }
}

#[tokio::test]
async fn a_reader_that_stops_stops_the_process_and_a_log_reader_may_leave() {
    let rig = Rig::docker();
    let id = rig.started(Does::Runs).await;
    let mut handle = start(&rig, &id, "yes", false).await;
    assert!(matches!(handle.output.recv().await, Some(ExecOutput::Stdout(_))));
    wait_for(
        "a full queue",
        async || if handle.output.len() == handle.output.max_capacity() { Ok(()) } else { Err("not full".to_owned()) },
    )
    .await;
    drop(handle);
    let logs = rig.runtime.logs(&id, &LogRequest { follow: true, ..LogRequest::default() }).await.unwrap();
    let waited = tokio::time::timeout(Duration::from_millis(50), logs.try_collect::<Vec<_>>()).await;
    assert!(waited.is_err(), "a followed log goes on while its container runs");
}

async fn start(rig: &Rig, id: &ContainerId, script: &str, tty: bool) -> ExecHandle {
    let command = ["sh", "-c", script].map(str::to_owned).to_vec();
    rig.runtime.exec(id, &ExecRequest { command, tty, stdin: true }).await.expect("the command starts")
}
