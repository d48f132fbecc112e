//! Starts and stops a server: the only place that knows both roles.

use std::future::Future;
use std::io::IsTerminal;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use cube_api::address::{AddressError, LeaderAddress};
use cube_api::auth::{Keys, Token};
use cube_api::meta::Name;
use cube_api::node::{Capacity, NodeRole};
use cube_api::quantity::{Bytes, MilliCpu};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::Level;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::ambient::Ambient;
use crate::data_dir::{self, DataDir, DataDirError};
use crate::follower::dial::Dialer;
use crate::follower::ledger::{self, LEDGER};
use crate::follower::machine::{Load, Machine, ThisMachine};
use crate::follower::runtime::docker::{self, Docker};
use crate::follower::{self, AgentConfig};
use crate::hollow::Hollows;
use crate::leader::{self, control, store};
use crate::net::Network;
use crate::options::{CommonOptions, FollowerOptions, HollowOptions, LeaderOptions, Options, RoleOptions};
use crate::tasks::Tasks;
use crate::{hollow, reset, serve, upkeep};

/// How long an orderly stop may take. Pods run on whatever happens, so there is little to wait for.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// What a stop means for the pods of a server.
const PODS_RUN_ON: &str = "pods keep running";
/// What it means for those of hollow nodes.
const PODS_END: &str = "the hollow nodes and their pods are gone with this process";

/// Sends the log to stderr: `CUBE_LOG` chooses what (`info` when absent). Of the libraries only what they say up to `info`: in more detail, the one that
/// speaks to Docker shows whole bodies, with what pods are told in their environments.
pub fn start_log() {
    let chosen = EnvFilter::try_from_env("CUBE_LOG").unwrap_or_else(|_| EnvFilter::new("info,rusqlite_migration=warn"));
    let ours_in_detail = filter_fn(|of| *of.level() <= Level::INFO || of.target().starts_with("cube"));
    tracing_subscriber::fmt()
        .with_env_filter(chosen)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .finish()
        .with(ours_in_detail)
        .init();
}

/// Runs a role until SIGTERM or SIGINT, or a command to its end. A failure to start is an error; a task that panicked gives the exit code 1.
pub fn run(options: Options) -> anyhow::Result<ExitCode> {
    // Before the first file is made: the databases hold what pods are told in their environments.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    match options.role {
        RoleOptions::Leader(options) => in_runtime(async |tasks| start_and_stop(tasks, PODS_RUN_ON, run_leader(options, tasks)).await),
        RoleOptions::Follower(options) => in_runtime(async |tasks| start_and_stop(tasks, PODS_RUN_ON, run_follower(options, tasks)).await),
        RoleOptions::Hollow(options) => in_runtime(async |tasks| start_and_stop(tasks, PODS_END, run_hollow(options, tasks)).await),
        RoleOptions::Reset(options) => in_runtime(async |tasks| reset::run(options, tasks).await.map(|()| ExitCode::SUCCESS)),
        RoleOptions::Backup(options) => upkeep::back_up(&options).map(|()| ExitCode::SUCCESS),
        RoleOptions::Restore(options) => upkeep::restore(&options, &Ambient::system()).map(|()| ExitCode::SUCCESS),
    }
}

fn in_runtime(work: impl AsyncFnOnce(&Tasks) -> anyhow::Result<ExitCode>) -> anyhow::Result<ExitCode> {
    allow_many_files();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("can't start the async runtime")?;
    let ended = runtime.block_on(async {
        let tasks = Tasks::default();
        work(&tasks).await
    });
    // Blocking reads that are still under way end with the process.
    runtime.shutdown_background();
    ended
}

/// Takes as many open files as the system lets this process have. Most systems start one with 1,024, for the sake of old programs: a leader that
/// serves 4,096 connections would refuse some of them, and could not even open its database's files then.
fn allow_many_files() {
    let limits = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limits.maximum, ..limits }) {
        tracing::warn!(%error, limit = limits.current, "can't raise the limit of open files: fewer connections are served");
    }
}

/// Starts a role, waits for the signal to stop and stops its tasks; what the role returned (its lock) is held until they have ended: the next
/// process must not open a database that this one still writes. A second signal ends the process at once.
async fn start_and_stop<T>(tasks: &Tasks, consequence: &str, start: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::listen()?;
    // Also after a failed start: what was started is told to stop before the process ends.
    let held = until_stopped(tasks, consequence, start, &mut signals).await;
    let stopped = tokio::select! {
        biased;
        stopped = tasks.shut_down(STOP_LIMIT) => stopped,
        () = signals.next() => std::process::exit(130),
    };
    if !stopped {
        tracing::warn!("not everything stopped within {} s; ending anyway, the state is on disk", STOP_LIMIT.as_secs());
    }
    held.map(|_held| if tasks.has_panicked() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Starts a role and waits for the signal to stop.
async fn until_stopped<T>(
    tasks: &Tasks,
    consequence: &str,
    start: impl Future<Output = anyhow::Result<T>>,
    signals: &mut Signals,
) -> anyhow::Result<T> {
    let held = start.await?;
    tokio::select! {
        biased;
        () = signals.next() => tracing::info!("stopping; {consequence}"),
        () = tasks.stopping().cancelled() => {}
    }
    Ok(held)
}

/// The signals that stop a server.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// From now on they don't end the process by themselves.
    fn listen() -> anyhow::Result<Self> {
        let terminate = signal(SignalKind::terminate()).context("can't listen for SIGTERM")?;
        let interrupt = signal(SignalKind::interrupt()).context("can't listen for SIGINT")?;
        Ok(Self { terminate, interrupt })
    }

    /// The next of either.
    async fn next(&mut self) {
        tokio::select! {
            biased;
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

async fn run_leader(options: LeaderOptions, tasks: &Tasks) -> anyhow::Result<DataDir> {
    let ambient = Ambient::system();
    let (not_ready_after, lost_after) = options.silence_limits().map_err(anyhow::Error::msg)?;
    if !options.no_pods {
        check_reserve(&options.common)?;
    }
    let data_dir = open_data_dir(&options.common)?;
    // Before anything is written: a port in use changes nothing.
    let listener = serve::bind(&options.listen)?;
    let address = listener.local_addr().context("can't tell where the leader listens")?;
    let token = match given_token(&options.common)? {
        Some(token) => token,
        None => data_dir.own_token(&ambient)?,
    };
    let keys = Keys::new(&token);
    let (every, keep) = (options.backup_every, usize::from(options.backup_keep));
    let backups = options.backup_dir.clone().map(|folder| control::Backups { folder, every, keep });
    let loops = control::Options { not_ready_after, lost_after, strategy: options.strategy, backups, ..control::Options::default() };
    let config = leader::Config { database: data_dir.path().join(store::FILE), disk: None, keys: keys.clone(), loops };
    let started = leader::start(config, listener, ambient.clone(), tasks).await;
    started.map_err(|error| upkeep::with_leaders_remedy(error, data_dir.path(), options.backup_dir.as_deref()))?;
    if !options.no_pods {
        start_node(&options.common, NodeRole::Leader, &local(address).to_string(), keys, &data_dir, ambient, tasks).await?;
    }
    greet(address, &options.common, &data_dir);
    Ok(data_dir)
}

async fn run_follower(options: FollowerOptions, tasks: &Tasks) -> anyhow::Result<DataDir> {
    check_reserve(&options.common)?;
    let data_dir = open_data_dir(&options.common)?;
    let token = given_token(&options.common)?.ok_or(DataDirError::NoToken)?;
    start_node(&options.common, NodeRole::Follower, &options.leader, Keys::new(&token), &data_dir, Ambient::system(), tasks).await?;
    Ok(data_dir)
}

/// Refuses a reserve of more cpu or memory than this machine has. Which disk counts is Docker's to say: a node whose reserve is larger than that, or
/// than what Docker was given of the machine, is NotReady with the same words.
fn check_reserve(common: &CommonOptions) -> anyhow::Result<()> {
    let Ok(Load { cores, memory, .. }) = ThisMachine.load() else { return Ok(()) };
    let capacity = Capacity { cpu: MilliCpu(cores * 1_000), memory: Bytes(memory), disk: Bytes(u64::MAX), pods: common.max_pods };
    common.reserve().allocatable(&capacity).map(drop).map_err(anyhow::Error::msg)
}

async fn run_hollow(options: HollowOptions, tasks: &Tasks) -> anyhow::Result<()> {
    let leader = parse_leader(&options.leader)?;
    let token = read_given_token(options.token.as_deref(), options.token_file.as_deref())?.ok_or(DataDirError::NoToken)?;
    hollow::check_files(options.nodes, getrlimit(Resource::Nofile).current).map_err(anyhow::Error::msg)?;
    let hollows = Arc::new(Hollows::new(options, leader, Keys::new(&token), Ambient::system()));
    let all = tasks.clone();
    tasks.spawn_droppable("hollow nodes", async move {
        if let Err(error) = hollows.start(all.clone()).await {
            tracing::error!("{error:#}");
            all.stopping().cancel();
        }
    });
    Ok(())
}

fn parse_leader(text: &str) -> anyhow::Result<LeaderAddress> {
    text.parse().map_err(|error: AddressError| anyhow::anyhow!("{error}; {}", error.hint()))
}

/// Starts the node agent and its dialling: the leader's own node is started exactly so, over loopback.
async fn start_node(
    common: &CommonOptions,
    role: NodeRole,
    leader: &str,
    keys: Keys,
    data_dir: &DataDir,
    ambient: Ambient,
    tasks: &Tasks,
) -> anyhow::Result<()> {
    let leader = parse_leader(leader)?;
    let remedy = |error| upkeep::with_followers_remedy(error, data_dir.path());
    let node = node_name(common, data_dir).await.map_err(remedy)?;
    let runtime = Docker::connect(&common.docker.clone().unwrap_or_else(docker::default_socket), tasks)?;
    let dialer = Dialer::new(leader, node.clone(), keys, Network::system(), ambient.clone());
    let config = AgentConfig {
        node,
        role,
        labels: common.labels(),
        machine_id: machine_id(),
        boot_id: boot_id(),
        data_dir: data_dir.path().to_owned(),
        max_pods: common.max_pods,
        reserve: common.reserve(),
        machine: Some(Arc::new(ThisMachine)),
        network: Some(Network::system()),
        spare_sandboxes: common.spare_sandboxes.into(),
    };
    follower::start(config, Arc::new(runtime), dialer, ambient, tasks).await.map_err(remedy)?;
    Ok(())
}

fn open_data_dir(common: &CommonOptions) -> Result<DataDir, DataDirError> {
    DataDir::open(&common.data_dir.clone().unwrap_or_else(data_dir::default_path))
}

/// The token of the command line or its file, if there is one.
fn given_token(common: &CommonOptions) -> Result<Option<Token>, DataDirError> {
    read_given_token(common.token.as_deref(), common.token_file.as_deref())
}

fn read_given_token(token: Option<&str>, file: Option<&Path>) -> Result<Option<Token>, DataDirError> {
    match (token, file) {
        (Some(text), _) => Token::new(text).ok_or(DataDirError::EmptyToken).map(Some),
        (None, Some(file)) => data_dir::read_token(file).map(Some),
        (None, None) => Ok(None),
    }
}

/// The name that was given, or that the node had before (a machine that gets another name keeps its pods), or one made from the machine's: its
/// first label, in lower case.
async fn node_name(common: &CommonOptions, data_dir: &DataDir) -> anyhow::Result<Name> {
    if let Some(name) = &common.name {
        return Ok(name.clone());
    }
    if let Some(home) = ledger::look(&data_dir.path().join(LEDGER)).await?.and_then(|kept| kept.home) {
        return Ok(home.node);
    }
    let system = rustix::system::uname();
    let host = system.nodename().to_string_lossy().to_lowercase();
    let label = host.split('.').next().unwrap_or_default();
    Name::new(label).with_context(|| format!("this machine's name '{host}' can't be a node's name; give one with --name"))
}

/// systemd's identity of the machine; the host name where there is none.
fn machine_id() -> String {
    let id = std::fs::read_to_string("/etc/machine-id").unwrap_or_default();
    match id.trim() {
        "" => rustix::system::uname().nodename().to_string_lossy().into_owned(),
        id => id.to_owned(),
    }
}

/// The kernel's identity of this boot; empty where there is none.
fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// Where this machine reaches a listener: one on every address is reached on loopback.
fn local(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => (Ipv4Addr::LOCALHOST, v4.port()).into(),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => (Ipv6Addr::LOCALHOST, v6.port()).into(),
        specific => specific,
    }
}

/// Says on stdout how to go on. Shows where the token is, never the token: output ends up in logs.
fn greet(address: SocketAddr, common: &CommonOptions, data_dir: &DataDir) {
    println!("cube leader ready on http://{address}");
    let reached = local(address);
    let file = match (&common.token, &common.token_file) {
        (Some(_), _) => return,
        (None, Some(file)) => file.clone(),
        (None, None) => data_dir.token_path(),
    };
    let file = file.display();
    println!("configure the client:  cube config set --leader-url {reached} --password-file {file}");
    match address.ip().is_loopback() {
        true => println!(
            "join a node of this machine:  cube-server follower --leader {reached} --token-file {file} --name NAME --data-dir FOLDER"
        ),
        false => println!(
            "join a node:           cube-server follower --leader THIS-MACHINE:{} --token-file FILE  (a copy of {file})",
            address.port()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_data_folder_is_locked_until_the_last_task_has_ended() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (tasks, path) = (Tasks::default(), folder.path().to_owned());
        let (stopping, writers_folder) = (tasks.stopping().clone(), path.clone());
        let (tell, told) = tokio::sync::oneshot::channel();
        tasks.spawn("writer", async move {
            stopping.cancelled().await;
            // As the store's writer, which commits what is queued.
            tokio::time::sleep(Duration::from_secs(1)).await;
            tell.send(DataDir::open(&writers_folder).is_err()).expect("the test waits");
        });
        let start = async {
            let lock = DataDir::open(&path)?;
            tasks.stopping().cancel();
            anyhow::Ok(lock)
        };
        assert_eq!(start_and_stop(&tasks, PODS_RUN_ON, start).await.expect("an orderly end"), ExitCode::SUCCESS);
        assert!(told.await.expect("the writer ended"), "another process could have had the folder meanwhile");
        DataDir::open(&path).expect("it is free afterwards");
    }
}
