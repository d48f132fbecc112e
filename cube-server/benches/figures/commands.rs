//! Whole commands, as a person runs them: `cube exec` and `cube logs` against Docker's own.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
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
const LINE_BYTES: usize = 100;

/// 60 MB, so that every file of the rotation (10 MiB x 5, with Docker's own 70 bytes a line) is full: a log of 200 MB doesn't exist, it is read
/// several times instead.
const LINES: usize = 600_000;

/// `true` in a running container, in turns.
pub async fn exec(engine: &Engine, rounds: usize) -> Result<Report> {
    let cluster = Cluster::start(engine).await?;
    let config = cluster.client_config()?;
    cluster.run_pod("pod-0", &["sleep", "3600"]).await?;
    let container = app_container(engine).await?;
    let (mut cube, mut docker) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let (took, _) = timed(with_socket(command("docker", &["exec", &container, "true"]), engine)).await?;
        docker.push(took.as_secs_f64() * 1000.0);
        let (took, _) = timed(with_config(command(client()?, &["exec", "pod/pod-0", "--", "true"]), &config)).await?;
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
    let line = "x".repeat(LINE_BYTES - 1);
    cluster.run_pod("pod-0", &["sh", "-c", &format!("yes {line} | head -n {LINES}; echo end; sleep 3600")]).await?;
    let container = app_container(engine).await?;
    until_written(engine, &container).await?;
    let pid = cluster.pid().context("the leader has ended")?;
    let before = Memory::of(pid)?;
    let wanted = megabytes * 1_000_000;
    let (mut cube, mut docker) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        docker.push(read_all(wanted, || with_socket(command("docker", &["logs", &container]), engine)).await?);
        let client = client()?;
        cube.push(read_all(wanted, || with_config(command(&client, &["logs", "pod/pod-0", "--container", "app"]), &config)).await?);
    }
    let after = Memory::of(pid)?;
    cluster.stop().await?;
    let (cube, docker) = (Figure::of(&cube), Figure::of(&docker));
    let mut report = Report::default();
    report.measured("docker_logs_mb_per_s", "docker logs", "MB/s", docker);
    report.measured("cube_logs_mb_per_s", "cube logs", "MB/s", cube);
    report.number("cube_to_docker_logs", "cube logs / docker logs (1 or more is the aim)", "x", cube.median / docker.median);
    report.number("server_rss_before_mib", "leader with its node: memory before", "MiB", before.now_mib);
    report.number("server_rss_peak_mib", "leader with its node: memory at its highest", "MiB", after.peak_mib);
    Ok(report)
}

async fn until_written(engine: &Engine, container: &str) -> Result<()> {
    let began = Instant::now();
    while began.elapsed() < LIMIT {
        let output = with_socket(command("docker", &["logs", "--tail", "1", container]), engine).output().await?;
        if output.stdout.ends_with(b"end\n") {
            return Ok(());
        }
        sleep(Duration::from_millis(200)).await;
    }
    bail!("the log isn't written after {LIMIT:?}")
}

/// Reads the whole log again and again until so many bytes have come; megabytes per second.
async fn read_all(wanted: u64, command: impl Fn() -> Command) -> Result<f64> {
    let (mut read, mut took) = (0, Duration::ZERO);
    while read < wanted {
        let (once, bytes) = timed(command()).await?;
        // Docker drops the oldest file when one is full, at about 10 MB: less than two of the five files is a log cut short.
        ensure!(bytes > 20_000_000, "a log of {LINES} lines gave {bytes} bytes only");
        (read, took) = (read + bytes, took + once);
    }
    Ok(Duration::from_micros(read).as_secs_f64() / took.as_secs_f64())
}

async fn app_container(engine: &Engine) -> Result<String> {
    engine.containers(Some("io.cube.container=app")).await?.into_iter().next().context("the pod's container isn't there")
}

fn command(program: impl AsRef<OsStr>, words: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(words).stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
    command
}

fn with_socket(mut command: Command, engine: &Engine) -> Command {
    command.env("DOCKER_HOST", format!("unix://{}", engine.socket().display()));
    command
}

fn with_config(mut command: Command, config: &Path) -> Command {
    command.env("CUBE_CONFIG", config);
    command
}

/// `cube`, which is built into the same folder.
fn client() -> Result<PathBuf> {
    let path = Path::new(SERVER).with_file_name("cube");
    ensure!(path.exists(), "{} is missing: scripts/bench builds it", path.display());
    Ok(path)
}

/// Runs a command to its end; how long it took and how many bytes it wrote.
async fn timed(mut command: Command) -> Result<(Duration, u64)> {
    let began = Instant::now();
    let mut child = command.spawn()?;
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
