//! `cube exec` where a person sits: a pseudo-terminal in the place of theirs.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use bytes::Bytes;
use cube_api::stream::{Frame, Outcome, TerminalSize};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use tokio_tungstenite::tungstenite::Message;

use crate::leader::{Answer, Leader};

const LIMIT: Duration = Duration::from_secs(10);

/// A shell far away that says `ready` and ends with 5 when `q` is typed, and what it was sent.
fn shell() -> (Leader, Receiver<Frame>) {
    let (sender, sent) = channel();
    let leader = Leader::start(move |_, _| {
        let sender = sender.clone();
        Answer::Socket(Box::new(move |socket| {
            let ready = Frame::Stdout(Bytes::from_static(b"ready"));
            socket.send(Message::Binary(ready.encode())).expect("the client reads");
            while let Ok(message) = socket.read() {
                let frame = Frame::decode(message.into_data()).expect("a frame");
                if frame == Frame::Stdin(Bytes::from_static(b"q")) {
                    socket.send(Message::Binary(Frame::Status(Outcome::ExitCode(5)).encode())).expect("the client reads");
                }
                sender.send(frame).expect("the test waits for it");
            }
        }))
    });
    (leader, sent)
}

/// `cube exec` at a terminal of 100 x 30 that has said `ready`; the person's end of it, and the program's.
fn sit_down(leader: &Leader) -> (Child, File, File) {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&ours).unwrap();
    unlockpt(&ours).unwrap();
    let name = ptsname(&ours, Vec::new()).unwrap();
    let theirs = File::from(rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap());
    tcsetwinsize(&theirs, Winsize { ws_row: 30, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_cube"))
        .args(["exec", "pod/web", "--", "sh"])
        .env("CUBE_LEADER_URL", &leader.address)
        .env("CUBE_PASSWORD", crate::PASSWORD)
        .stdin(theirs.try_clone().unwrap())
        .stdout(theirs.try_clone().unwrap())
        .spawn()
        .unwrap();
    let mut ours = File::from(ours);
    let mut said = [0; 5];
    ours.read_exact(&mut said).unwrap();
    assert_eq!(&said, b"ready");
    (child, ours, theirs)
}

fn is_cooked(terminal: &File) -> bool {
    tcgetattr(terminal).unwrap().local_modes.contains(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
}

#[test]
fn a_shell_gets_a_terminal_its_size_ctrl_c_and_the_exit_code() {
    let (leader, sent) = shell();
    let (mut child, mut ours, theirs) = sit_down(&leader);
    assert_eq!(leader.lines(), ["GET /v1/pods/web/exec?command=sh&tty=true&stdin=true"]);
    assert_eq!(sent.recv_timeout(LIMIT), Ok(Frame::Resize(TerminalSize { width: 100, height: 30 })));
    assert!(!is_cooked(&theirs));
    ours.write_all(b"\x03").unwrap();
    assert_eq!(sent.recv_timeout(LIMIT), Ok(Frame::Stdin(Bytes::from_static(b"\x03"))));
    tcsetwinsize(&theirs, Winsize { ws_row: 40, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
    kill_process(Pid::from_child(&child), Signal::WINCH).unwrap();
    assert_eq!(sent.recv_timeout(LIMIT), Ok(Frame::Resize(TerminalSize { width: 120, height: 40 })));
    ours.write_all(b"q").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(5));
    assert!(is_cooked(&theirs));
}

#[test]
fn a_shell_that_is_terminated_gives_the_terminal_back() {
    let (leader, sent) = shell();
    let (mut child, _ours, theirs) = sit_down(&leader);
    assert!(sent.recv_timeout(LIMIT).is_ok());
    assert!(!is_cooked(&theirs));
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(128 + 15));
    assert!(is_cooked(&theirs));
}
