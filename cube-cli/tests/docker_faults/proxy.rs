//! A socket between a node and its engine that holds calls or their answers where a test says so.
//!
//! One connection per call: the proxy asks the engine to close after its answer, so that it needs no framing. A call that is held stays the
//! engine's to hear also when the node that made it is dead: that is what a kill between "sent" and "done" looks like.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::cluster::{PATIENCE, Sockets};

/// The longest body of a call that is kept, in bytes: the pause image has a few KiB.
const MAX_BODY: usize = 1 << 20;

/// Which calls: the method, and a part of the path with its query.
#[derive(Debug, Clone)]
pub struct Calls {
    method: &'static str,
    part: String,
    skip: usize,
}

impl Calls {
    /// Calls of a method whose path contains `part`.
    pub fn new(method: &'static str, part: impl Into<String>) -> Self {
        Self { method, part: part.into(), skip: 0 }
    }

    /// Without the first so many.
    pub fn after(self, skip: usize) -> Self {
        Self { skip, ..self }
    }

    fn match_line(&self, line: &str) -> bool {
        line.split(' ').next() == Some(self.method) && line.contains(&self.part)
    }
}

/// Where a call is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// The engine hasn't heard of it.
    Before,
    /// The engine has done it and answered; the node hasn't heard of that.
    After,
}

/// What becomes of a call that was held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    LetThrough,
    Discard,
}

#[derive(Default)]
struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Default)]
struct GateState {
    arrived: usize,
    finished: usize,
    verdict: Option<Verdict>,
}

impl Gate {
    fn arrive_and_wait(&self) -> Verdict {
        self.change(|state| state.arrived += 1);
        self.wait_for(Duration::MAX, |state| state.verdict).expect("nobody waits for ever in a test")
    }

    fn is_open(&self) -> bool {
        self.state.lock().expect("nothing panics while it is held").verdict.is_some()
    }

    fn change(&self, change: impl FnOnce(&mut GateState)) {
        change(&mut self.state.lock().expect("nothing panics while it is held"));
        self.changed.notify_all();
    }

    fn wait_for<T>(&self, limit: Duration, probe: impl Fn(&GateState) -> Option<T>) -> Option<T> {
        let start = Instant::now();
        let mut state = self.state.lock().expect("nothing panics while it is held");
        loop {
            if let Some(found) = probe(&state) {
                return Some(found);
            }
            let left = limit.checked_sub(start.elapsed())?.min(PATIENCE);
            state = self.changed.wait_timeout(state, left).expect("nothing panics while it is held").0;
        }
    }
}

/// Calls that are held. Dropping it lets them through.
pub struct Held {
    calls: Calls,
    gate: Arc<Gate>,
}

impl Held {
    /// Waits until a call is there.
    #[track_caller]
    pub fn arrived(&self) {
        let arrived = self.gate.wait_for(PATIENCE, |state| (state.arrived > 0).then_some(()));
        assert!(arrived.is_some(), "no call came: {:?}", self.calls);
    }

    /// The held calls go on, to the engine or with its answer; waits until they are done.
    #[track_caller]
    pub fn let_through(&self) {
        self.end(Verdict::LetThrough);
    }

    /// The held calls, or their answers, are lost.
    #[track_caller]
    pub fn discard(&self) {
        self.end(Verdict::Discard);
    }

    #[track_caller]
    fn end(&self, verdict: Verdict) {
        self.gate.change(|state| state.verdict = Some(verdict));
        let done = self.gate.wait_for(PATIENCE, |state| (state.finished == state.arrived).then_some(()));
        assert!(done.is_some(), "the calls did not end: {:?}", self.calls);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.gate.change(|state| {
            state.verdict.get_or_insert(Verdict::LetThrough);
        });
    }
}

struct Rule {
    calls: Calls,
    fault: Fault,
}

enum Fault {
    /// The next call only, or every one until the gate opens.
    Hold { point: Point, once: bool, gate: Arc<Gate> },
    /// Every call.
    Delay(Duration),
}

type Rules = Arc<Mutex<Vec<Rule>>>;

/// The proxy. Its threads end with the test's process.
pub struct Proxy {
    rules: Rules,
    engine: Option<PathBuf>,
    folder: TempDir,
}

impl Proxy {
    /// A proxy in front of the usual engine.
    pub fn start() -> Self {
        Self::in_front_of(None)
    }

    /// A proxy in front of an engine.
    pub fn in_front_of(engine: Option<PathBuf>) -> Self {
        let folder = tempfile::Builder::new().prefix("cube-proxy-").tempdir().expect("a temp folder");
        let proxy = Self { rules: Rules::default(), engine, folder };
        let listener = UnixListener::bind(proxy.socket()).expect("a new socket");
        let (rules, engine) = (proxy.rules.clone(), proxy.engine.clone().unwrap_or_else(usual_engine));
        thread::spawn(move || {
            for client in listener.incoming() {
                let (rules, engine) = (rules.clone(), engine.clone());
                // A client that is killed breaks its connection: no error of the proxy's.
                thread::spawn(move || client.and_then(|client| serve(client, &engine, &rules)));
            }
        });
        proxy
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("docker.sock")
    }

    /// The nodes behind the proxy, the test in front of the engine itself.
    pub fn sockets(&self) -> Sockets {
        Sockets { nodes: Some(self.socket()), test: self.engine.clone() }
    }

    /// Holds the next of these calls.
    pub fn hold_next(&self, point: Point, calls: Calls) -> Held {
        self.hold(point, true, calls)
    }

    /// Holds every one of these calls.
    pub fn hold_all(&self, point: Point, calls: Calls) -> Held {
        self.hold(point, false, calls)
    }

    fn hold(&self, point: Point, once: bool, calls: Calls) -> Held {
        let gate = Arc::<Gate>::default();
        self.add(Rule { calls: calls.clone(), fault: Fault::Hold { point, once, gate: gate.clone() } });
        Held { calls, gate }
    }

    /// Every one of these calls takes so much longer.
    pub fn delay(&self, calls: Calls, delay: Duration) {
        self.add(Rule { calls, fault: Fault::Delay(delay) });
    }

    fn add(&self, rule: Rule) {
        self.rules.lock().expect("nothing panics while it is held").push(rule);
    }
}

fn usual_engine() -> PathBuf {
    let host = std::env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty());
    host.as_deref().and_then(|host| host.strip_prefix("unix://")).unwrap_or("/var/run/docker.sock").into()
}

/// What to do with a call whose request line this is.
fn applies(rules: &Rules, line: &str) -> (Duration, Option<(Point, Arc<Gate>)>) {
    let mut rules = rules.lock().expect("nothing panics while it is held");
    let mut delay = Duration::ZERO;
    let mut found = None;
    for (index, rule) in rules.iter_mut().enumerate().filter(|(_, rule)| rule.calls.match_line(line)) {
        match &rule.fault {
            Fault::Delay(_) | Fault::Hold { .. } if rule.calls.skip > 0 => rule.calls.skip -= 1,
            Fault::Delay(length) => delay += *length,
            // Calls that come later are none that were held.
            Fault::Hold { gate, .. } if gate.is_open() => {}
            Fault::Hold { point, once, gate } if found.is_none() => found = Some((index, *once, *point, gate.clone())),
            Fault::Hold { .. } => {}
        }
    }
    let hold = found.map(|(index, once, point, gate)| {
        if once {
            rules.remove(index);
        }
        (point, gate)
    });
    (delay, hold)
}

fn serve(mut client: UnixStream, engine: &Path, rules: &Rules) -> io::Result<()> {
    let Some(call) = Call::read(&mut client)? else { return Ok(()) };
    let (delay, hold) = applies(rules, &call.line);
    thread::sleep(delay);
    match hold {
        Some((point, gate)) => {
            let passed = held(client, engine, &call, point, &gate);
            gate.change(|state| state.finished += 1);
            passed
        }
        None => pass(client, engine, &call),
    }
}

fn held(mut client: UnixStream, engine: &Path, call: &Call, point: Point, gate: &Gate) -> io::Result<()> {
    match point {
        Point::Before => match gate.arrive_and_wait() {
            Verdict::LetThrough => pass(client, engine, call),
            Verdict::Discard => Ok(()),
        },
        Point::After => {
            let mut upstream = UnixStream::connect(engine)?;
            upstream.write_all(&call.bytes)?;
            let mut answer = Vec::new();
            upstream.read_to_end(&mut answer)?;
            match gate.arrive_and_wait() {
                Verdict::LetThrough => client.write_all(&answer),
                Verdict::Discard => Ok(()),
            }
        }
    }
}

/// Carries a call to the engine, also for a client that is gone, and everything back.
fn pass(mut client: UnixStream, engine: &Path, call: &Call) -> io::Result<()> {
    let mut upstream = UnixStream::connect(engine)?;
    upstream.write_all(&call.bytes)?;
    let (mut from_client, mut to_engine) = (client.try_clone()?, upstream.try_clone()?);
    // What follows the call: an exec's input, or the news that the client has hung up.
    thread::spawn(move || {
        drop(io::copy(&mut from_client, &mut to_engine));
        to_engine.shutdown(Shutdown::Write)
    });
    let copied = io::copy(&mut upstream, &mut client);
    // The other thread may have been first.
    drop(client.shutdown(Shutdown::Both));
    drop(upstream.shutdown(Shutdown::Both));
    copied.map(|_| ())
}

/// A call with its body, as it goes to the engine.
struct Call {
    line: String,
    bytes: Vec<u8>,
}

impl Call {
    fn read(client: &mut UnixStream) -> io::Result<Option<Self>> {
        let mut bytes = Vec::new();
        let mut chunk = [0; 16 * 1024];
        let head = loop {
            if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            match client.read(&mut chunk)? {
                0 => return Ok(None),
                read => bytes.extend_from_slice(&chunk[..read]),
            }
        };
        let text = String::from_utf8_lossy(&bytes[..head]).into_owned();
        let field = |line: &str, name: &str| {
            line.split_once(':').filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_owned())
        };
        let length: usize = text.lines().find_map(|line| field(line, "content-length")).and_then(|value| value.parse().ok()).unwrap_or(0);
        assert!(length <= MAX_BODY, "a body of {length} bytes");
        while bytes.len() < head + length {
            match client.read(&mut chunk)? {
                0 => return Ok(None),
                read => bytes.extend_from_slice(&chunk[..read]),
            }
        }
        let line = text.lines().next().unwrap_or_default().to_owned();
        let upgrade = text.lines().any(|line| field(line, "upgrade").is_some());
        if !upgrade {
            let kept = text.trim_end().lines().filter(|line| field(line, "connection").is_none());
            let mut closing = kept.collect::<Vec<_>>().join("\r\n");
            closing.push_str("\r\nConnection: close\r\n\r\n");
            bytes.splice(..head, closing.into_bytes());
        }
        Ok(Some(Self { line, bytes }))
    }
}
