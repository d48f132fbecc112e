//! An engine that only pretends: containers are entries in memory that run for ever. For hollow nodes, which show what a leader bears.
//!
//! A container whose `args` are `exit-after TIME [CODE]` ends after that time, by itself. Every image is there. Nothing is written and nothing can be
//! run in a container. One engine serves one node, so it doesn't ask whose a container is.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use cube_api::duration;
use cube_api::meta::Uid;
use cube_api::node::Capacity;
use cube_api::pod::HostPort;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use tokio::sync::Notify;

use super::{
    ContainerId, ContainerSpec, EngineInfo, ExecHandle, ExecRequest, Hint, Identity, LogBatch, LogRequest, Observed, PullProgress,
    RunState, Runtime, RuntimeError, SandboxSpec, Scope, StopSignal,
};
use crate::ambient::Ambient;
use crate::latest;

/// The word in `args` of a container that is to end by itself.
const EXIT_AFTER: &str = "exit-after";

/// The engine. Clones share it.
#[derive(Clone)]
pub struct Hollow {
    shared: Arc<Shared>,
}

struct Shared {
    capacity: Capacity,
    ambient: Ambient,
    containers: Mutex<BTreeMap<ContainerId, Kept>>,
    /// A container was started that ends by itself.
    started: Notify,
}

struct Kept {
    observed: Observed,
    exit: Option<Exit>,
}

/// How a container ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Exit {
    after: Duration,
    code: i64,
}

impl Hollow {
    /// One without containers, of a machine that has so much.
    pub fn new(capacity: Capacity, ambient: Ambient) -> Self {
        Self { shared: Arc::new(Shared { capacity, ambient, containers: Mutex::default(), started: Notify::new() }) }
    }

    fn containers(&self) -> MutexGuard<'_, BTreeMap<ContainerId, Kept>> {
        self.shared.containers.lock().expect("nothing panics while it is held")
    }

    fn create(&self, identity: &Identity, exit: Option<Exit>, new: impl FnOnce(ContainerId) -> Observed) -> ContainerId {
        let mut containers = self.containers();
        let of_pod = || containers.range(ids_of(identity.uid));
        if let Some((id, _)) = of_pod().find(|(_, kept)| kept.observed.identity == *identity) {
            return id.clone();
        }
        let id = id_of(identity.uid, of_pod().last().map_or(0, |(id, _)| number_of(id) + 1));
        containers.insert(id.clone(), Kept { observed: new(id.clone()), exit });
        id
    }

    /// The first container after `told` that ends by itself, and when.
    fn next_end(&self, told: &Option<(Timestamp, ContainerId)>) -> Option<(Timestamp, ContainerId)> {
        let containers = self.containers();
        let ends = containers.iter().filter_map(|(id, kept)| Some((kept.end()?, id.clone())));
        ends.filter(|end| told.as_ref().is_none_or(|told| end > told)).min()
    }

    async fn wait_for_end(&self, told: &Option<(Timestamp, ContainerId)>) -> (Timestamp, ContainerId) {
        loop {
            let started = self.shared.started.notified();
            let next = self.next_end(told);
            let wait = next.as_ref().map(|(at, _)| Duration::try_from(at.duration_since(self.shared.ambient.now())).unwrap_or_default());
            match (next, wait) {
                (Some(next), Some(Duration::ZERO)) => return next,
                (_, wait) => tokio::select! {
                    biased;
                    () = started => {}
                    () = tokio::time::sleep(wait.unwrap_or(Duration::MAX)) => {}
                },
            }
        }
    }
}

impl Kept {
    /// When it ends, or ended, by itself.
    fn end(&self) -> Option<Timestamp> {
        match (&self.observed.state, self.exit) {
            (RunState::Running { since }, Some(exit)) => since.checked_add(exit.after).ok(),
            (RunState::Running { .. } | RunState::Created | RunState::Paused { .. } | RunState::Exited { .. } | RunState::Removing, _) => {
                None
            }
        }
    }

    /// Ends it if it is time.
    fn settle(&mut self, now: Timestamp) -> &Observed {
        if let Some(end) = self.end().filter(|end| *end <= now) {
            self.finish(self.exit.map_or(0, |exit| exit.code), end);
        }
        &self.observed
    }

    fn finish(&mut self, code: i64, at: Timestamp) {
        if let RunState::Running { since } = self.observed.state {
            let (started, finished) = (Some(since), Some(at));
            self.observed.state = RunState::Exited { code, oom: false, error: None, started, finished };
        }
    }
}

/// As long as Docker's, and of a pod all in a row: the pod's uid and a number.
fn id_of(uid: Uid, number: u64) -> ContainerId {
    ContainerId(format!("{}{number:032x}", uid.0.simple()))
}

fn number_of(id: &ContainerId) -> u64 {
    u64::from_str_radix(&id.0[48..], 16).unwrap_or_default()
}

fn ids_of(uid: Uid) -> std::ops::RangeInclusive<ContainerId> {
    id_of(uid, 0)..=id_of(uid, u64::MAX)
}

/// As Docker's bridge gives them out; nobody answers there.
fn address_of(number: usize) -> IpAddr {
    let [.., high, low] = number.to_be_bytes();
    IpAddr::from([172, 17, high, low])
}

fn image_id(image: &str) -> String {
    let digest = Sha256::digest(image);
    let (high, low) = digest.split_at(16);
    let number = |half: &[u8]| half.iter().fold(0, |number: u128, byte| number << 8 | u128::from(*byte));
    format!("sha256:{:032x}{:032x}", number(high), number(low))
}

fn read_exit(args: &[String]) -> Result<Option<Exit>, RuntimeError> {
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let (after, code) = match words[..] {
        [EXIT_AFTER, after] => (after, "0"),
        [EXIT_AFTER, after, code] => (after, code),
        _ => return Ok(None),
    };
    match (duration::parse(after), code.parse::<u8>()) {
        (Ok(after), Ok(code)) => Ok(Some(Exit { after: after.unsigned_abs(), code: code.into() })),
        _ => {
            let problem = format!("a hollow container's args '{}' are not '{EXIT_AFTER} TIME [CODE]'", words.join(" "));
            Err(RuntimeError::Refused { operation: "create a container", problem })
        }
    }
}

fn refused(operation: &'static str) -> RuntimeError {
    RuntimeError::Refused { operation, problem: "this is a hollow node: its containers only pretend to run".to_owned() }
}

#[async_trait]
impl Runtime for Hollow {
    async fn info(&self) -> Result<EngineInfo, RuntimeError> {
        Ok(EngineInfo { version: "hollow".to_owned(), capacity: self.shared.capacity, data_root: None })
    }

    async fn scopes(&self) -> Result<BTreeMap<Scope, usize>, RuntimeError> {
        Ok(BTreeMap::new())
    }

    async fn list(&self, _: &Scope) -> Result<Vec<Observed>, RuntimeError> {
        let now = self.shared.ambient.now();
        Ok(self.containers().values_mut().map(|kept| kept.settle(now).clone()).collect())
    }

    async fn list_pod(&self, _: &Scope, uid: Uid) -> Result<Vec<Observed>, RuntimeError> {
        let now = self.shared.ambient.now();
        Ok(self.containers().range_mut(ids_of(uid)).map(|(_, kept)| kept.settle(now).clone()).collect())
    }

    async fn inspect(&self, id: &ContainerId) -> Result<Option<Observed>, RuntimeError> {
        let now = self.shared.ambient.now();
        Ok(self.containers().get_mut(id).map(|kept| kept.settle(now).clone()))
    }

    async fn hints(&self, _: &Scope) -> Result<BoxStream<'static, Hint>, RuntimeError> {
        let ends = stream::unfold((self.clone(), None), |(engine, told)| async move {
            let (at, id) = engine.wait_for_end(&told).await;
            let uid = engine.containers().get(&id).map_or(Uid::NONE, |kept| kept.observed.identity.uid);
            Some((Hint { uid }, (engine, Some((at, id)))))
        });
        Ok(ends.boxed())
    }

    async fn image(&self, image: &str) -> Result<Option<String>, RuntimeError> {
        Ok(Some(image_id(image)))
    }

    async fn pull(&self, image: &str, _: latest::Sender<PullProgress>) -> Result<String, RuntimeError> {
        Ok(image_id(image))
    }

    async fn port_is_free(&self, _port: HostPort) -> bool {
        true
    }

    async fn create_sandbox(&self, spec: &SandboxSpec) -> Result<ContainerId, RuntimeError> {
        let (identity, state) = (spec.identity.clone(), RunState::Created);
        let (ip, image_id) = (Some(address_of(self.containers().len())), image_id("pause"));
        // A hollow node loses its ledger only with its containers, so nothing is ever found out from them.
        let bindings = Vec::new();
        Ok(self.create(&spec.identity, None, |id| Observed { id, identity, sandbox: None, image_id, tty: false, ip, bindings, state }))
    }

    async fn create_container(&self, spec: &ContainerSpec) -> Result<ContainerId, RuntimeError> {
        let exit = read_exit(&spec.args)?;
        let (identity, sandbox, image_id) = (spec.identity.clone(), Some(spec.sandbox.clone()), image_id(&spec.image));
        let new =
            |id| Observed { id, identity, sandbox, image_id, tty: spec.tty, ip: None, bindings: Vec::new(), state: RunState::Created };
        Ok(self.create(&spec.identity, exit, new))
    }

    async fn start(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let now = self.shared.ambient.now();
        let mut containers = self.containers();
        let kept = containers.get_mut(id).ok_or(RuntimeError::Gone)?;
        match kept.observed.state {
            RunState::Created | RunState::Exited { .. } => kept.observed.state = RunState::Running { since: now },
            RunState::Running { .. } | RunState::Paused { .. } | RunState::Removing => {}
        }
        if kept.exit.is_some() {
            self.shared.started.notify_one();
        }
        Ok(())
    }

    async fn signal(&self, id: &ContainerId, signal: StopSignal) -> Result<(), RuntimeError> {
        let code = match signal {
            StopSignal::Stop => 128 + 15,
            StopSignal::Kill => 128 + 9,
        };
        let now = self.shared.ambient.now();
        if let Some(kept) = self.containers().get_mut(id) {
            kept.settle(now);
            kept.finish(code, now);
        }
        Ok(())
    }

    async fn remove(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        self.containers().remove(id);
        Ok(())
    }

    async fn logs(&self, _: &ContainerId, _: &LogRequest) -> Result<BoxStream<'static, LogBatch>, RuntimeError> {
        Err(refused("read its log"))
    }

    async fn exec(&self, _: &ContainerId, _: &ExecRequest) -> Result<ExecHandle, RuntimeError> {
        Err(refused("run a command"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_as_long_as_dockers_and_each_pods_are_in_a_row() {
        let uid = Uid(uuid::Uuid::from_u128(7));
        assert_eq!(id_of(uid, 3).0.len(), 64);
        assert_eq!(number_of(&id_of(uid, 3)), 3);
        assert!(ids_of(uid).contains(&id_of(uid, 3)) && !ids_of(Uid(uuid::Uuid::from_u128(8))).contains(&id_of(uid, 3)));
        let of_nothing = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(image_id(""), of_nothing);
    }

    #[test]
    fn a_container_ends_by_itself_only_where_its_args_say_so() {
        let read = |words: &[&str]| read_exit(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
        let after = |seconds, code| Some(Exit { after: Duration::from_secs(seconds), code });
        assert_eq!(read(&["exit-after", "30s"]).expect("read"), after(30, 0));
        assert_eq!(read(&["exit-after", "1m30s", "7"]).expect("read"), after(90, 7));
        for other in [&[][..], &["serve"], &["--", "exit-after", "30s"]] {
            assert_eq!(read(other).expect("an ordinary container"), None);
        }
        for wrong in [&["exit-after", "soon"][..], &["exit-after", "1s", "256"], &["exit-after", "-1s"]] {
            assert!(read(wrong).expect_err("a refusal").to_string().contains("are not 'exit-after TIME [CODE]'"));
        }
    }
}
