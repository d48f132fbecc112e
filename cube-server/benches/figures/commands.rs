//! Whole commands, as a person runs them: `cube exec` and `cube logs` against Docker's own.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, BufReader};
use tokio::process::Command;
use tokio::time::sleep;

use crate::cluster::{Cluster, SERVER};
use crate::engine::Engine;
use crate::idle::Memory;
use crate::report::{Figure, Report};

/// How long a command may take.
const LIMIT: Duration = Duration::from_secs(120);

/// A line of the log that is read: a hundred bytes, as a server's lines are.
const LINE_BYTES: u64 = 100;

/// `true` in a running container, in turns.
pub async fn exec(engine: &Engine, rounds: usize) -> Result<Report> {
    let cluster = Cluster::start(engine).await?;
    let config = cluster.client_config()?;
    cluster.run_pod("pod-0", &["sleep", "3600"]).await?;
    let container = app_container(engine).await?;
    let (mut cube, mut docker) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let (took, _) = timed(with_socket(Command::new("docker").args(["exec", &container, "true"]), engine)).await?;
        docker.push(took.as_secs_f64() * 1000.0);
        let (took, _) = timed(Command::new(client()?).env("CUBE_CONFIG", &config).args(["exec", "pod/pod-0", "--", "true"])).await?;
        cube.push(took.as_secs_f64() * 1000.0);
    }
    cluster.stop().await?;
    let (cube, docker) = (Figure::of(&cube), Figure::of(&docker));
    let mut report = Report::default();
    report.measured("docker_exec_ms", "docker exec, true", "ms", docker);
    report.measured("cube_exec_ms", "cube exec, true", "ms", cube);
    report.number("cube_exec_over_docker_ms", "cube exec - docker exec (10 or less is the aim)", "ms", cube.median - docker.median);
    Ok(report)
}

/// A long log, in turns, with the server's memory before and at its highest.
pub async fn logs(engine: &Engine, megabytes: u64, rounds: usize) -> Result<Report> {
    let cluster = Cluster::start(engine).await?;
    let config = cluster.client_config()?;
    let lines = megabytes * 1_000_000 / LINE_BYTES;
    let line = "x".repeat(usize::try_from(LINE_BYTES - 1)?);
    // Docker keeps 50 MB of a pod's log: so that all of it is there, it is written by as many containers' worth of turns as fit.
    let script = format!("yes {line} | head -n {lines}; echo end; sleep 3600");
    cluster.run_pod("pod-0", &["sh", "-c", &script]).await?;
    let container = app_container(engine).await?;
    let mut ends = tail(engine, &container).await?;
    while !ends {
        sleep(Duration::from_millis(200)).await;
        ends = tail(engine, &container).await?;
    }
    let pid = cluster.pid().context("the leader has ended")?;
    let before = Memory::of(pid)?;
    let (mut cube, mut docker) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let (took, bytes) = timed(with_socket(Command::new("docker").args(["logs", &container]), engine)).await?;
        docker.push(megabytes_per_second(bytes, took));
        let (took, through_cube) = timed(Command::new(client()?).env("CUBE_CONFIG", &config).args(["logs", "pod/pod-0"])).await?;
        ensure!(through_cube >= bytes, "cube logs gave {through_cube} bytes, docker logs {bytes}");
        cube.push(megabytes_per_second(bytes, took));
    }
    let after = Memory::of(pid)?;
    cluster.stop().await?;
    let mut report = Report::default();
    let (cube, docker) = (Figure::of(&cube), Figure::of(&docker));
    report.measured("docker_logs_mb_per_s", "docker logs", "MB/s", docker);
    report.measured("cube_logs_mb_per_s", "cube logs", "MB/s", cube);
    report.number("cube_to_docker_logs", "cube logs / docker logs (1 or more is the aim)", "x", cube.median / docker.median);
    report.number("server_rss_before_mib", "leader with its node: memory before", "MiB", before.now_mib);
    report.number("server_rss_peak_mib", "leader with its node: memory at its highest", "MiB", after.peak_mib);
    Ok(report)
}

fn megabytes_per_second(bytes: u64, took: Duration) -> f64 {
    Duration::from_micros(bytes).as_secs_f64() / took.as_secs_f64()
}

async fn app_container(engine: &Engine) -> Result<String> {
    engine.containers(Some("io.cube.container=app")).await?.into_iter().next().context("the pod's container isn't there")
}

async fn tail(engine: &Engine, container: &str) -> Result<bool> {
    let output = with_socket(Command::new("docker").args(["logs", "--tail", "1", container]), engine).output().await?;
    Ok(output.stdout == b"end\n")
}

fn with_socket<'a>(command: &'a mut Command, engine: &Engine) -> &'a mut Command {
    command.env("DOCKER_HOST", format!("unix://{}", engine.socket().display()))
}

/// `cube`, which is built into the same folder.
fn client() -> Result<std::path::PathBuf> {
    let path = Path::new(SERVER).with_file_name("cube");
    ensure!(path.exists(), "{} is missing: scripts/bench builds it", path.display());
    Ok(path)
}

/// Runs a command to its end; how long it took and how many bytes it wrote.
async fn timed(command: &mut Command) -> Result<(Duration, u64)> {
    let began = Instant::now();
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
    let mut output = BufReader::new(child.stdout.take().context("its output is a pipe")?);
    let finish = async {
        let mut bytes = 0;
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match output.read(&mut buffer).await? {
                0 => break,
                read => bytes += u64::try_from(read)?,
            }
        }
        anyhow::Ok((child.wait().await?, bytes))
    };
    let (status, bytes) = tokio::time::timeout(LIMIT, finish).await.with_context(|| format!("it takes over {LIMIT:?}"))??;
    ensure!(status.success(), "{:?}: {status}", command.as_std().get_program());
    Ok((began.elapsed(), bytes))
}
