//! Starts and stops a server: the only place that knows both roles.

use std::future::Future;
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use cube_api::auth::{Keys, Token};
use cube_api::meta::Name;
use cube_api::node::NodeRole;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::ambient::Ambient;
use crate::data_dir::{self, DataDir, DataDirError};
use crate::follower::runtime::docker::Docker;
use crate::follower::{Agent, AgentConfig};
use crate::leader::control::Control;
use crate::leader::nodes::Nodes;
use crate::leader::store::Store;
use crate::options::{CommonOptions, FollowerOptions, LeaderOptions, Options, RoleOptions};
use crate::tasks::Tasks;
use crate::{follower, leader, serve};

/// How long an orderly stop may take. Pods run on whatever happens, so there is little to wait for.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// Sends the log to stderr: `CUBE_LOG` chooses what (`info` when absent).
pub fn start_log() {
    let filter = EnvFilter::try_from_env("CUBE_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal()).with_target(false).init();
}

/// Runs the role until SIGTERM or SIGINT. A failure to start is an error; a task that panicked gives the exit code 1.
pub fn run(options: Options) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("can't start the async runtime")?;
    let ended = runtime.block_on(async {
        let tasks = Tasks::default();
        // Also after a failed start: what was started is told to stop before the process ends.
        let started = match options.role {
            RoleOptions::Leader(options) => until_stopped(&tasks, run_leader(options, &tasks)).await,
            RoleOptions::Follower(options) => until_stopped(&tasks, run_follower(options, &tasks)).await,
        };
        if !tasks.shut_down(STOP_LIMIT).await {
            tracing::warn!("not everything stopped within {} s; ending anyway, the state is on disk", STOP_LIMIT.as_secs());
        }
        started.map(|()| if tasks.has_panicked() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    });
    // Blocking reads that are still under way end with the process.
    runtime.shutdown_background();
    ended
}

/// Starts a role, keeps what it returned (its lock) and waits for the signal to stop; a second signal ends the process at once.
async fn until_stopped<T>(tasks: &Tasks, start: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("can't listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("can't listen for SIGINT")?;
    let _held = start.await?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = tasks.stopping().cancelled() => return Ok(()),
    }
    tracing::info!("stopping; pods keep running");
    tasks.spawn_droppable("second signal", async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        std::process::exit(130);
    });
    Ok(())
}
