//! Starts and stops a server: the only place that knows both roles.

use std::future::Future;
use std::io::IsTerminal;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use cube_api::address::{AddressError, LeaderAddress};
use cube_api::auth::{Keys, Token};
use cube_api::meta::Name;
use cube_api::node::NodeRole;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::ambient::Ambient;
use crate::data_dir::{self, DataDir, DataDirError};
use crate::follower::link::HttpLink;
use crate::follower::runtime::docker::{self, Docker};
use crate::follower::session;
use crate::follower::{Agent, AgentConfig};
use crate::leader::api::{self, Api};
use crate::leader::control;
use crate::leader::nodes::Nodes;
use crate::leader::store::Store;
use crate::options::{CommonOptions, FollowerOptions, LeaderOptions, Options, RoleOptions};
use crate::serve;
use crate::tasks::Tasks;

/// How long an orderly stop may take. Pods run on whatever happens, so there is little to wait for.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// Sends the log to stderr: `CUBE_LOG` chooses what (`info` when absent).
pub fn start_log() {
    let filter = EnvFilter::try_from_env("CUBE_LOG").unwrap_or_else(|_| EnvFilter::new("info,rusqlite_migration=warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
}

/// Runs the role until SIGTERM or SIGINT. A failure to start is an error; a task that panicked gives the exit code 1.
pub fn run(options: Options) -> anyhow::Result<ExitCode> {
    // Before the first file is made: the databases hold what pods are told in their environments.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("can't start the async runtime")?;
    let ended = runtime.block_on(async {
        let tasks = Tasks::default();
        match options.role {
            RoleOptions::Leader(options) => start_and_stop(&tasks, run_leader(options, &tasks)).await,
            RoleOptions::Follower(options) => start_and_stop(&tasks, run_follower(options, &tasks)).await,
        }
    });
    // Blocking reads that are still under way end with the process.
    runtime.shutdown_background();
    ended
}

/// Starts a role, waits for the signal to stop and stops its tasks; what the role returned (its lock) is held until they have ended: the next
/// process must not open a database that this one still writes.
async fn start_and_stop<T>(tasks: &Tasks, start: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<ExitCode> {
    // Also after a failed start: what was started is told to stop before the process ends.
    let held = until_stopped(tasks, start).await;
    if !tasks.shut_down(STOP_LIMIT).await {
        tracing::warn!("not everything stopped within {} s; ending anyway, the state is on disk", STOP_LIMIT.as_secs());
    }
    held.map(|_held| if tasks.has_panicked() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Starts a role and waits for the signal to stop; a second signal ends the process at once.
async fn until_stopped<T>(tasks: &Tasks, start: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let mut terminate = signal(SignalKind::terminate()).context("can't listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("can't listen for SIGINT")?;
    let held = start.await?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = tasks.stopping().cancelled() => return Ok(held),
    }
    tracing::info!("stopping; pods keep running");
    tasks.spawn_droppable("second signal", async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        std::process::exit(130);
    });
    Ok(held)
}

async fn run_leader(options: LeaderOptions, tasks: &Tasks) -> anyhow::Result<DataDir> {
    let ambient = Ambient::system();
    let data_dir = open_data_dir(&options.common)?;
    // Before anything is written: a port in use changes nothing.
    let listener = serve::bind(&options.listen)?;
    let address = listener.local_addr().context("can't tell where the leader listens")?;
    let token = match given_token(&options.common)? {
        Some(token) => token,
        None => data_dir.own_token(&ambient)?,
    };
    let keys = Keys::new(&token);
    let store = Store::open(&data_dir.path().join("leader.db"), ambient.clone(), tasks).await?;
    let nodes = Nodes::new(store.clone(), ambient.clone(), tasks.clone());
    control::start(&store, Arc::new(nodes.clone()), &ambient, tasks, control::Options::default());
    let api = Api { store, nodes, keys: keys.clone(), ambient: ambient.clone(), stopping: tasks.stopping().clone() };
    tasks.spawn("api", serve::serve(listener, api::router(api), tasks.clone()));
    if !options.no_pods {
        start_node(&options.common, NodeRole::Leader, &local(address).to_string(), keys, &data_dir, ambient, tasks).await?;
    }
    greet(address, &options.common, &data_dir);
    Ok(data_dir)
}

async fn run_follower(options: FollowerOptions, tasks: &Tasks) -> anyhow::Result<DataDir> {
    let data_dir = open_data_dir(&options.common)?;
    let token = given_token(&options.common)?.ok_or(DataDirError::NoToken)?;
    start_node(&options.common, NodeRole::Follower, &options.leader, Keys::new(&token), &data_dir, Ambient::system(), tasks).await?;
    Ok(data_dir)
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
    let leader: LeaderAddress = leader.parse().map_err(|error: AddressError| anyhow::anyhow!("{error}; {}", error.hint()))?;
    let node = node_name(common)?;
    let runtime = Docker::connect(&common.docker.clone().unwrap_or_else(docker::default_socket), tasks)?;
    let link = HttpLink::new(leader.clone(), node.clone(), keys.clone(), ambient.clone());
    let config = AgentConfig {
        node,
        role,
        labels: common.labels(),
        machine_id: machine_id(),
        data_dir: data_dir.path().to_owned(),
        max_pods: common.max_pods,
    };
    let agent = Agent::start(config, Arc::new(runtime), Arc::new(link), ambient.clone(), tasks).await?;
    session::start(agent, leader, keys, ambient, tasks.clone());
    Ok(())
}

fn open_data_dir(common: &CommonOptions) -> Result<DataDir, DataDirError> {
    DataDir::open(&common.data_dir.clone().unwrap_or_else(data_dir::default_path))
}

/// The token of the command line or its file, if there is one.
fn given_token(common: &CommonOptions) -> Result<Option<Token>, DataDirError> {
    match (&common.token, &common.token_file) {
        (Some(text), _) => Token::new(text).ok_or(DataDirError::EmptyToken).map(Some),
        (None, Some(file)) => data_dir::read_token(file).map(Some),
        (None, None) => Ok(None),
    }
}

/// The name that was given, or one made from the machine's: its first label, in lower case.
fn node_name(common: &CommonOptions) -> anyhow::Result<Name> {
    if let Some(name) = &common.name {
        return Ok(name.clone());
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
        assert_eq!(start_and_stop(&tasks, start).await.expect("an orderly end"), ExitCode::SUCCESS);
        assert!(told.await.expect("the writer ended"), "another process could have had the folder meanwhile");
        DataDir::open(&path).expect("it is free afterwards");
    }
}
