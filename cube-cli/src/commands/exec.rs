//! `cube exec`: a command in a container, with this process's streams and terminal as if it ran here.

use std::convert::Infallible;
use std::future::pending;
use std::io::{self, IsTerminal, Read, Write};
use std::process::ExitCode;

use bytes::Bytes;
use clap::Args as ClapArgs;
use cube_api::client::{Client, FrameSink, Frames};
use cube_api::meta::Name;
use cube_api::routes::ExecQuery;
use cube_api::stream::{Frame, Outcome};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::error::{CliError, Result};
use crate::target::parse_pod;
use crate::terminal::{self, RawMode};

/// Bytes of standard input in one frame.
const INPUT_CHUNK: usize = 16 * 1024;
/// Chunks that were read and not sent yet: enough to keep a pipe busy, and nothing more is read while the command doesn't take it.
const INPUT_QUEUE: usize = 4;

/// The words of `cube exec`.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  cube exec pod/my-pod -- sh                        a shell, where you sit at a terminal
  cube exec pod/my-pod --container web -- ls /      a command in one container
  cube exec pod/my-pod -- sh -c 'cat > f' < f       standard input is passed on

The exit code is the command's.")]
pub struct Args {
    /// The pod: pod/NAME or NAME
    #[arg(value_name = "POD", value_parser = parse_pod)]
    pod: Name,
    /// The container; may be left out where the pod has one only
    #[arg(short, long, value_name = "NAME")]
    container: Option<Name>,
    /// Pass standard input on [default: unless it is a terminal and standard output isn't]
    #[arg(short = 'i', long)]
    stdin: bool,
    /// Give the command a terminal [default: where standard input and output are terminals]
    #[arg(short, long)]
    tty: bool,
    /// The command and its arguments, after --
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Which streams the command gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Streams {
    stdin: bool,
    tty: bool,
}

/// What the flags ask for; without flags what suits the place: a person at a terminal gets one, a pipe is passed on.
fn choose(flag_stdin: bool, flag_tty: bool, stdin_is_terminal: bool, stdout_is_terminal: bool) -> Streams {
    match (flag_stdin, flag_tty) {
        (false, false) if stdin_is_terminal => Streams { stdin: stdout_is_terminal, tty: stdout_is_terminal },
        (false, false) => Streams { stdin: true, tty: false },
        (true, tty) => Streams { stdin: true, tty: tty && stdin_is_terminal },
        (false, true) => Streams { stdin: false, tty: true },
    }
}

/// Runs the command; the exit code is its own.
pub async fn run(args: Args, client: &Client) -> Result<ExitCode> {
    let stdin_is_terminal = io::stdin().is_terminal();
    let streams = choose(args.stdin, args.tty, stdin_is_terminal, terminal::is_interactive());
    if args.tty && !streams.tty {
        eprintln!("warning: standard input is not a terminal, so the command gets none");
    }
    let query = ExecQuery { container: args.container, command: args.command, tty: streams.tty, stdin: streams.stdin };
    let (sink, frames) = client.exec(&args.pod, &query).await?;
    let mut ends = Ends::listen()?;
    let raw = (streams.tty && streams.stdin && stdin_is_terminal).then(RawMode::enter).transpose();
    let _restored_on_every_way_out = raw.map_err(|error| CliError::io("can't set the terminal up", error))?;
    tokio::select! {
        outcome = output(frames) => exit_code(outcome?),
        never = input(sink, streams) => match never? {},
        number = ends.next() => Ok(ExitCode::from(128 + number)),
    }
}

/// An exit code has 8 bits here; what doesn't fit (none does today) is a failure rather than another code.
fn exit_code(outcome: Outcome) -> Result<ExitCode> {
    match outcome {
        Outcome::Success => Ok(ExitCode::SUCCESS),
        Outcome::ExitCode(code) => Ok(u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from)),
        Outcome::Failed(why) => Err(CliError::failed(why)),
    }
}

/// Writes what the command writes, until it ends.
async fn output(mut frames: Frames) -> Result<Outcome> {
    let trouble = |error| CliError::io("can't write the command's output", error);
    while let Some(frame) = frames.next().await? {
        match frame {
            Frame::Stdout(bytes) => write(&mut io::stdout().lock(), &bytes).map_err(trouble)?,
            Frame::Stderr(bytes) => write(&mut io::stderr().lock(), &bytes).map_err(trouble)?,
            Frame::Status(outcome) => return Ok(outcome),
            Frame::Stdin(_) | Frame::StdinEnd | Frame::Resize(_) => {
                return Err(CliError::failed("the leader sent a frame that only a client sends"));
            }
        }
    }
    Err(CliError::failed("the command's end was not told"))
}

fn write(out: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    out.write_all(bytes)?;
    out.flush()
}

/// Sends what is typed and the terminal's size. Beside [`output`], never in turns with it: a command that waits for its output to be read
/// takes no input. When nothing can be sent any more, `output` hears why.
async fn input(mut sink: FrameSink, streams: Streams) -> Result<Infallible> {
    let mut resized = signal(SignalKind::window_change()).map_err(|error| CliError::io("can't listen for signals", error))?;
    let mut typed = streams.stdin.then(read_stdin).transpose()?;
    let mut sent = match terminal::size().filter(|_| streams.tty) {
        Some(size) => sink.send(Frame::Resize(size)).await,
        None => Ok(()),
    };
    while sent.is_ok() {
        // Both arms only wait (`recv` of a channel and of a signal lose nothing when dropped); the sending is outside.
        let frame = tokio::select! {
            chunk = next_chunk(&mut typed) => chunk.map_or(Frame::StdinEnd, Frame::Stdin),
            _ = resized.recv(), if streams.tty => match terminal::size() {
                Some(size) => Frame::Resize(size),
                None => continue,
            },
        };
        if frame == Frame::StdinEnd {
            typed = None;
        }
        sent = sink.send(frame).await;
    }
    pending().await
}

/// The next chunk; `None` at the end of the input; never where there is no input (any more).
async fn next_chunk(typed: &mut Option<mpsc::Receiver<Bytes>>) -> Option<Bytes> {
    match typed {
        Some(typed) => typed.recv().await,
        None => pending().await,
    }
}

/// Reads standard input on a thread of its own: a read of a terminal can't be called off, and a thread, unlike a blocking task of the runtime,
/// doesn't keep the process from ending.
fn read_stdin() -> Result<mpsc::Receiver<Bytes>> {
    let (sender, receiver) = mpsc::channel(INPUT_QUEUE);
    let read = move || {
        let mut buffer = vec![0; INPUT_CHUNK];
        loop {
            match io::stdin().lock().read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // A terminal that is gone is the end of the input, as for a local command.
                Ok(0) | Err(_) => return,
                Ok(count) if sender.blocking_send(Bytes::copy_from_slice(&buffer[..count])).is_err() => return,
                Ok(_) => {}
            }
        }
    };
    std::thread::Builder::new().name("stdin".to_owned()).spawn(read).map_err(|error| CliError::io("can't read standard input", error))?;
    Ok(receiver)
}

/// The signals that end this process: heard, so that the terminal is restored first.
struct Ends {
    hangup: Signal,
    interrupt: Signal,
    quit: Signal,
    terminate: Signal,
}

impl Ends {
    fn listen() -> Result<Self> {
        let listen = |kind| signal(kind).map_err(|error| CliError::io("can't listen for signals", error));
        Ok(Self {
            hangup: listen(SignalKind::hangup())?,
            interrupt: listen(SignalKind::interrupt())?,
            quit: listen(SignalKind::quit())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    /// The number of the one that came.
    async fn next(&mut self) -> u8 {
        tokio::select! {
            _ = self.hangup.recv() => 1,
            _ = self.interrupt.recv() => 2,
            _ = self.quit.recv() => 3,
            _ = self.terminate.recv() => 15,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_at_a_terminal_gets_one_and_a_pipe_is_passed_on() {
        let streams = |stdin, tty| Streams { stdin, tty };
        assert_eq!(choose(false, false, true, true), streams(true, true));
        assert_eq!(choose(false, false, true, false), streams(false, false));
        assert_eq!(choose(false, false, false, false), streams(true, false));
        assert_eq!(choose(true, false, true, true), streams(true, false));
        assert_eq!(choose(true, true, true, true), streams(true, true));
        assert_eq!(choose(true, true, false, false), streams(true, false));
        assert_eq!(choose(false, true, false, false), streams(false, true));
    }
}
