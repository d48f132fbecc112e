//! The cases that both engines keep.

use std::time::Duration;

use bytes::Bytes;
use cube_api::meta::{ClusterId, Uid};
use cube_api::pod::{HostPort, Protocol, PublishedPort};
use cube_server::follower::runtime::{
    ContainerId, ExecInput, ExecOutput, ExecRequest, LogRequest, RunState, RuntimeError, SandboxSpec, Scope, StopSignal,
};
use futures::{StreamExt, TryStreamExt};
use uuid::Uuid;

use crate::rig::{Does, Rig, name};

pub async fn a_repeated_create_finds_what_it_made(rig: Rig) {
    let spec = rig.sandbox_spec(Vec::new());
    let sandbox = rig.runtime.create_sandbox(&spec).await.unwrap();
    assert_eq!(rig.runtime.create_sandbox(&spec).await.unwrap(), sandbox);
    let spec = rig.spec(&sandbox, "app", Does::Runs);
    let app = rig.runtime.create_container(&spec).await.unwrap();
    assert_eq!(rig.runtime.create_container(&spec).await.unwrap(), app);

    let mut listed = rig.runtime.list_pod(&rig.scope, rig.uid).await.unwrap();
    listed.sort_by_key(|container| container.identity.container.clone());
    let identities: Vec<_> = listed.iter().map(|container| container.identity.clone()).collect();
    assert_eq!(identities, [rig.identity(None, 0), rig.identity(Some("app"), 0)]);
    assert_eq!(listed[1].sandbox, Some(sandbox));
}

pub async fn a_container_that_was_never_started_is_created_and_not_a_success(rig: Rig) {
    let sandbox = rig.runtime.create_sandbox(&rig.sandbox_spec(Vec::new())).await.unwrap();
    assert_eq!(rig.look(&sandbox).await.state, RunState::Created);
    // The app is created while its sandbox doesn't run yet: the two calls may overlap.
    let app = rig.runtime.create_container(&rig.spec(&sandbox, "app", Does::Runs)).await.unwrap();
    assert_eq!(rig.look(&app).await.state, RunState::Created);
}

pub async fn a_container_tells_its_exit_code(rig: Rig) {
    let id = rig.started(Does::PrintsAndExits(3)).await;
    assert_eq!(rig.ended(&id).await, (3, false));
    match rig.look(&id).await.state {
        RunState::Exited { error: None, started: Some(started), finished: Some(finished), .. } => assert!(started <= finished),
        other => panic!("{other:?}"),
    }
}

pub async fn a_repeated_start_is_fine(rig: Rig) {
    let id = rig.started(Does::Runs).await;
    let before = rig.look(&id).await;
    rig.runtime.start(&id).await.unwrap();
    assert_eq!(rig.look(&id).await, before);
}

pub async fn a_restarted_sandbox_has_another_identity(rig: Rig) {
    let sandbox = rig.sandbox().await;
    let before = rig.look(&sandbox).await.state;
    rig.runtime.signal(&sandbox, StopSignal::Stop).await.unwrap();
    rig.ended(&sandbox).await;
    rig.runtime.start(&sandbox).await.unwrap();
    let after = rig.look(&sandbox).await.state;
    assert!(matches!((&before, &after), (RunState::Running { since: a }, RunState::Running { since: b }) if a < b), "{before:?} {after:?}");
}

pub async fn a_container_does_not_start_in_a_sandbox_that_does_not_run(rig: Rig) {
    let sandbox = rig.runtime.create_sandbox(&rig.sandbox_spec(Vec::new())).await.unwrap();
    let app = rig.runtime.create_container(&rig.spec(&sandbox, "app", Does::Runs)).await.unwrap();
    assert!(matches!(rig.runtime.start(&app).await, Err(RuntimeError::Refused { .. })));
    let state = rig.look(&app).await.state;
    assert!(matches!(state, RunState::Exited { code: 128, error: Some(_), started: None, .. }), "{state:?}");
    rig.runtime.start(&sandbox).await.unwrap();
    rig.runtime.start(&app).await.unwrap();
    assert!(matches!(rig.look(&app).await.state, RunState::Running { .. }));
}

pub async fn stop_ends_what_listens_and_kill_ends_what_does_not(rig: Rig) {
    let sandbox = rig.sandbox().await;
    let polite = rig.started_from(&rig.spec(&sandbox, "polite", Does::Runs)).await;
    let deaf = rig.started_from(&rig.spec(&sandbox, "deaf", Does::IgnoresStop)).await;
    // The shell sets its trap a moment after the start, and process 1 ignores what it has no handler for: ask again until it hears.
    crate::rig::wait_for("the polite one's end", async || {
        rig.runtime.signal(&polite, StopSignal::Stop).await.unwrap();
        let state = rig.look(&polite).await.state;
        if matches!(state, RunState::Exited { code: 143, .. }) { Ok(()) } else { Err(format!("{state:?}")) }
    })
    .await;
    rig.runtime.signal(&deaf, StopSignal::Stop).await.unwrap();
    assert!(matches!(rig.look(&deaf).await.state, RunState::Running { .. }));
    rig.runtime.signal(&deaf, StopSignal::Kill).await.unwrap();
    assert_eq!(rig.ended(&deaf).await, (137, false));
    rig.runtime.signal(&deaf, StopSignal::Kill).await.unwrap();
}

pub async fn removing_twice_is_fine_and_a_gone_container_is_none(rig: Rig) {
    let id = rig.started(Does::Runs).await;
    rig.runtime.remove(&id).await.unwrap();
    rig.runtime.remove(&id).await.unwrap();
    assert_eq!(rig.runtime.inspect(&id).await.unwrap(), None);
    rig.runtime.signal(&id, StopSignal::Stop).await.unwrap();
    assert!(matches!(rig.runtime.start(&id).await, Err(RuntimeError::Gone)));
    assert!(matches!(rig.runtime.logs(&id, &LogRequest::default()).await, Err(RuntimeError::Gone)));
}

pub async fn a_missing_image_is_none_and_its_container_an_image_error(rig: Rig) {
    let missing = "cube-test/never-made:1";
    assert_eq!(rig.runtime.image(missing).await.unwrap(), None);
    let sandbox = rig.runtime.create_sandbox(&rig.sandbox_spec(Vec::new())).await.unwrap();
    let mut spec = rig.spec(&sandbox, "app", Does::Runs);
    assert!(rig.runtime.image(&spec.image).await.unwrap().is_some());
    missing.clone_into(&mut spec.image);
    assert!(matches!(rig.runtime.create_container(&spec).await, Err(RuntimeError::Image { .. })));
}

pub async fn a_missing_program_is_refused_and_its_container_says_why(rig: Rig) {
    let sandbox = rig.sandbox().await;
    let id = rig.runtime.create_container(&rig.spec(&sandbox, "app", Does::NotThere)).await.unwrap();
    let words = "exec: \"nope\": executable file not found in $PATH";
    match rig.runtime.start(&id).await {
        Err(RuntimeError::Refused { problem, .. }) => assert!(problem.starts_with(words), "{problem}"),
        other => panic!("{other:?}"),
    }
    match rig.look(&id).await.state {
        RunState::Exited { code: 127, error: Some(error), started: None, .. } => assert!(error.starts_with(words), "{error}"),
        other => panic!("{other:?}"),
    }
}

pub async fn a_memory_limit_is_told(rig: Rig) {
    let id = rig.started(Does::EatsMemory).await;
    assert_eq!(rig.ended(&id).await, (137, true));
}

pub async fn logs_come_in_order_by_tail_and_since(rig: Rig) {
    let id = rig.started(Does::PrintsAndExits(0)).await;
    rig.ended(&id).await;
    let timed = LogRequest { times: true, ..LogRequest::default() };
    let all = log(&rig, &id, timed.clone()).await;
    let texts: Vec<_> = all.iter().map(|line| line.bytes.clone()).collect();
    assert_eq!(texts, ["one\n", "two\n", "three\n"].map(Bytes::from));
    assert!(all.iter().all(|line| line.at.is_some()));
    let untimed = log(&rig, &id, LogRequest::default()).await;
    assert!(untimed.iter().zip(&all).all(|(line, timed)| line.at.is_none() && line.bytes == timed.bytes) && untimed.len() == 3);
    let tail = log(&rig, &id, LogRequest { tail: Some(1), ..timed.clone() }).await;
    assert_eq!(tail, all[2..]);
    let since = log(&rig, &id, LogRequest { since: all[2].at, ..timed }).await;
    assert!(since.contains(&all[2]) && since.iter().all(|line| line.at >= all[2].at), "{since:?}");
}

pub async fn a_followed_log_ends_with_its_container(rig: Rig) {
    let id = rig.started(Does::PrintsAndExits(0)).await;
    let followed = log(&rig, &id, LogRequest { follow: true, ..LogRequest::default() }).await;
    assert_eq!(followed.len(), 3);
}

async fn log(rig: &Rig, id: &ContainerId, request: LogRequest) -> Vec<cube_server::follower::runtime::LogLine> {
    rig.runtime.logs(id, &request).await.unwrap().try_concat().await.unwrap()
}

pub async fn two_nodes_on_one_engine_do_not_see_each_other(rig: Rig) {
    let sandbox = rig.runtime.create_sandbox(&rig.sandbox_spec(Vec::new())).await.unwrap();
    let other = Scope { node: name("node-2"), ..rig.scope.clone() };
    assert_eq!(rig.runtime.list(&other).await.unwrap(), []);
    let mut spec = SandboxSpec { scope: other.clone(), ..rig.sandbox_spec(Vec::new()) };
    spec.identity.uid = Uid(Uuid::new_v4());
    let theirs = rig.runtime.create_sandbox(&spec).await.unwrap();
    let ids = async |scope| rig.runtime.list(scope).await.unwrap().into_iter().map(|found| found.id).collect::<Vec<_>>();
    assert_eq!((ids(&rig.scope).await, ids(&other).await), (vec![sandbox], vec![theirs]));
}

/// Free now, and below those that the system gives to connections: only a test that runs at this moment could take it.
fn free_port() -> u16 {
    let is_free =
        |port: &u16| std::net::TcpListener::bind(("0.0.0.0", *port)).is_ok() && std::net::UdpSocket::bind(("0.0.0.0", *port)).is_ok();
    std::iter::repeat_with(|| rand::random_range(10_000..30_000)).take(1_000).find(is_free).unwrap()
}

fn published(container_port: u16, host_port: u16, protocol: Protocol, host_ip: Option<&str>) -> PublishedPort {
    let host_ip = host_ip.map(|ip| ip.parse().unwrap());
    PublishedPort { container: name("app"), name: None, container_port, protocol, host_ip, host_port }
}

pub async fn a_host_port_is_free_until_something_has_it_on_that_address_and_protocol(rig: Rig) {
    let port = free_port();
    let sandbox = rig.runtime.create_sandbox(&rig.sandbox_spec(vec![published(80, port, Protocol::Udp, Some("127.0.0.2"))])).await.unwrap();
    let is_free = async |protocol, ip: Option<&str>| {
        rig.runtime.port_is_free(HostPort { port, protocol, ip: ip.map(|ip| ip.parse().unwrap()) }).await
    };
    assert!(is_free(Protocol::Udp, None).await, "not before the start");
    rig.runtime.start(&sandbox).await.unwrap();
    assert!(!is_free(Protocol::Udp, None).await, "every address is that one, too");
    assert!(!is_free(Protocol::Udp, Some("127.0.0.2")).await);
    assert!(is_free(Protocol::Udp, Some("127.0.0.1")).await, "another address");
    assert!(is_free(Protocol::Tcp, None).await, "another protocol");
}

pub async fn one_port_of_two_addresses_and_protocols_is_published_three_times(rig: Rig) {
    let port = free_port();
    let all = [(Protocol::Tcp, "127.0.0.1"), (Protocol::Tcp, "127.0.0.2"), (Protocol::Udp, "127.0.0.1")];
    for (number, (protocol, ip)) in (1..).zip(all) {
        let mut spec = rig.sandbox_spec(vec![published(80, port, protocol, Some(ip))]);
        spec.identity.uid = Uid(Uuid::from_u128(number));
        let sandbox = rig.runtime.create_sandbox(&spec).await.unwrap();
        rig.runtime.start(&sandbox).await.unwrap();
        assert!(rig.look(&sandbox).await.ip.is_some(), "a sandbox that runs has an address");
    }
}

pub async fn a_taken_host_port_is_refused(rig: Rig) {
    let free = free_port();
    let port = published(80, free, Protocol::Tcp, None);
    let first = rig.runtime.create_sandbox(&rig.sandbox_spec(vec![port.clone()])).await.unwrap();
    rig.runtime.start(&first).await.unwrap();
    let mut spec = rig.sandbox_spec(vec![port]);
    spec.identity.uid = Uid(Uuid::new_v4());
    let second = rig.runtime.create_sandbox(&spec).await.unwrap();
    match rig.runtime.start(&second).await {
        Err(RuntimeError::PortTaken { port, problem }) => {
            assert_eq!(port, free);
            assert_eq!(problem, format!("Bind for 0.0.0.0:{free} failed: port is already allocated"));
        }
        other => panic!("{other:?}"),
    }
    let state = rig.look(&second).await.state;
    assert!(matches!(state, RunState::Exited { code: 128, error: Some(_), started: None, .. }), "{state:?}");
}

pub async fn a_foreign_container_with_our_name_is_left_alone_and_named(rig: Rig) {
    let ours = rig.sandbox_spec(Vec::new());
    // Another cluster's sandbox of the same identity has the same name: to us it is a stranger's.
    let stranger = Scope { cluster: ClusterId(Uuid::new_v4()), ..rig.scope.clone() };
    let theirs = rig.runtime.create_sandbox(&SandboxSpec { scope: stranger, ..ours.clone() }).await.unwrap();
    let refused = rig.runtime.create_sandbox(&ours).await;
    let kept = rig.runtime.inspect(&theirs).await.unwrap();
    rig.runtime.remove(&theirs).await.unwrap();
    assert!(kept.is_some());
    match refused {
        Err(RuntimeError::Refused { problem, .. }) => assert!(problem.contains(&format!("cube_web__{}_0", rig.uid)), "{problem}"),
        other => panic!("{other:?}"),
    }
}

pub async fn an_end_is_hinted(rig: Rig) {
    let id = rig.started(Does::Runs).await;
    let mut hints = rig.runtime.hints(&rig.scope).await.unwrap();
    rig.runtime.signal(&id, StopSignal::Kill).await.unwrap();
    let hint = tokio::time::timeout(Duration::from_secs(20), hints.next()).await.expect("a hint comes");
    assert_eq!(hint.expect("the stream goes on").uid, rig.uid);
}

pub async fn an_exec_tells_its_exit_code(rig: Rig) {
    let id = rig.started(Does::Runs).await;
    for (command, code) in [(vec!["true"], 0), (vec!["false"], 1), (vec!["sh", "-c", "exit 42"], 42)] {
        assert_eq!(exec(&rig, &id, &command, &[]).await, vec![ExecOutput::Exited(code)], "{command:?}");
    }
}

pub async fn the_end_of_input_ends_cat(rig: Rig) {
    let id = rig.started(Does::Runs).await;
    let said = exec(&rig, &id, &["cat"], &[ExecInput::Stdin(Bytes::from("hello")), ExecInput::StdinEnd]).await;
    assert_eq!(said, vec![ExecOutput::Stdout(Bytes::from("hello")), ExecOutput::Exited(0)]);
}

pub async fn a_missing_exec_program_fails(rig: Rig) {
    let id = rig.started(Does::Runs).await;
    match &exec(&rig, &id, &["nope"], &[]).await[..] {
        [ExecOutput::Stderr(words), ExecOutput::Exited(126 | 127)] => {
            assert!(String::from_utf8_lossy(words).contains("executable file not found"), "{words:?}");
        }
        other => panic!("{other:?}"),
    }
}

/// Runs a command without a terminal and gives what it said.
pub async fn exec(rig: &Rig, id: &ContainerId, command: &[&str], inputs: &[ExecInput]) -> Vec<ExecOutput> {
    let command = command.iter().map(|&word| word.to_owned()).collect();
    let request = ExecRequest { command, tty: false, stdin: !inputs.is_empty() };
    let mut handle = rig.runtime.exec(id, &request).await.unwrap();
    for input in inputs {
        handle.input.send(input.clone()).await.unwrap();
    }
    let all = async {
        let mut said = Vec::new();
        while let Some(output) = handle.output.recv().await {
            said.push(output);
        }
        said
    };
    tokio::time::timeout(Duration::from_secs(20), all).await.expect("the command ends")
}
