//! A leader without pods of its own, and processes of hollow nodes: release builds, on a folder of a real disk and a free port.

use std::ffi::OsStr;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use hyper::{Method, StatusCode};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::sleep;

use crate::cluster::{SERVER, write_private};
use crate::http::{Address, Connection};

/// `statfs`'s type of a file system in memory: no commit on it costs anything.
const TMPFS: i64 = 0x0102_1994;

/// For the leader to serve.
const SERVING: Duration = Duration::from_secs(60);

/// What a hollow node has.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    /// Pods of the benchmark that fit.
    pub pods: usize,
}

impl Room {
    /// The cpu of one pod, in thousandths of a core.
    pub const CPU: usize = 100;
    /// Its memory, in MiB.
    pub const MEMORY: usize = 64;

    fn options(self) -> [String; 6] {
        let Self { pods } = self;
        let (cpu, memory) = (format!("{}m", pods * Self::CPU), format!("{}Mi", pods * Self::MEMORY));
        ["--cpu".into(), cpu, "--memory".into(), memory, "--max-pods".into(), pods.to_string()]
    }
}

/// The processes. They are killed when this is dropped.
pub struct Rig {
    hollows: Vec<Child>,
    leader: Child,
    address: SocketAddr,
    token: String,
    /// The last to be dropped.
    folder: TempDir,
}

impl Rig {
    /// Starts a leader in a folder below this one, and waits until it serves.
    pub async fn start(below: &Path) -> Result<Self> {
        let kind = rustix::fs::statfs(below).with_context(|| format!("{} can't be used", below.display()))?.f_type;
        ensure!(kind != TMPFS, "{} is in memory, where a commit costs nothing: name a folder on a disk with --folder", below.display());
        let folder = tempfile::Builder::new().prefix("cube-scale-").tempdir_in(below)?;
        let token = format!("{:032x}", rand::random::<u128>());
        write_private(&folder.path().join("token"), &token)?;
        // Free at the moment: another program may take it before the leader does, and then the leader says so.
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let leader = spawn_leader(folder.path(), address)?;
        let mut rig = Self { hollows: Vec::new(), leader, address, token, folder };
        rig.until_serving().await?;
        Ok(rig)
    }

    /// Starts a process of hollow nodes and waits until the leader has so many sessions in all.
    pub async fn join(&mut self, prefix: &str, nodes: usize, room: Room, sessions: usize, limit: Duration) -> Result<u32> {
        let (leader, count) = (self.address.to_string(), nodes.to_string());
        let options =
            ["--leader", &leader, "--nodes", &count, "--name-prefix", prefix].map(str::to_owned).into_iter().chain(room.options());
        let child = spawn(self.folder.path(), prefix, "hollow", options)?;
        let pid = child.id().context("a process that was just started")?;
        self.hollows.push(child);
        self.until_sessions(sessions, limit).await?;
        Ok(pid)
    }

    /// Waits until so many nodes have a session and are ready; from this call on.
    pub async fn until_sessions(&mut self, sessions: usize, limit: Duration) -> Result<Duration> {
        let began = Instant::now();
        loop {
            // All nodes that dial a restarted leader at once may be more strangers than it lets in from one address, which is this one's too.
            let (open, ready) = self.sessions().await.unwrap_or_default();
            if open == sessions && ready == sessions {
                return Ok(began.elapsed());
            }
            ensure!(
                began.elapsed() < limit,
                "{open} of {sessions} nodes have a session, {ready} are ready, after {limit:?}:\n{}",
                self.logs()
            );
            for hollow in &mut self.hollows {
                ensure!(hollow.try_wait()?.is_none(), "a process of hollow nodes has ended:\n{}", self.logs());
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// How many nodes have a session, and how many are ready.
    async fn sessions(&self) -> Result<(usize, usize)> {
        let text = self.connect().await?.text(Method::GET, "/metrics").await?;
        let metric = |name: &str| -> Result<usize> {
            let value =
                text.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("the leader has no metric '{name}'"))?;
            Ok(value.trim().parse()?)
        };
        Ok((metric("cube_sessions ")?, metric("cube_nodes{condition=\"Ready\"} ")?))
    }

    /// Kills the leader as a crash does and starts it again; from the kill until it serves.
    pub async fn crash_leader(&mut self) -> Result<Duration> {
        let began = Instant::now();
        self.leader.kill().await?;
        self.leader = spawn_leader(self.folder.path(), self.address)?;
        self.until_serving().await?;
        Ok(began.elapsed())
    }

    /// Kills a process of hollow nodes.
    pub async fn kill(&mut self, pid: u32) -> Result<()> {
        let at = self.hollows.iter().position(|child| child.id() == Some(pid)).context("no such process of hollow nodes")?;
        Ok(self.hollows.remove(at).kill().await?)
    }

    async fn until_serving(&mut self) -> Result<()> {
        let began = Instant::now();
        while began.elapsed() < SERVING {
            if let Ok(mut connection) = self.connect().await
                && connection.try_call(Method::GET, "/readyz", None).await.is_ok_and(|(status, _)| status == StatusCode::OK)
            {
                return Ok(());
            }
            ensure!(self.leader.try_wait()?.is_none(), "the leader ended:\n{}", self.logs());
            sleep(Duration::from_millis(1)).await;
        }
        bail!("the leader doesn't serve after {SERVING:?}:\n{}", self.logs())
    }

    /// A connection of its own.
    pub async fn connect(&self) -> Result<Connection> {
        Connection::open(&self.target()).await
    }

    /// Where to connect to.
    pub fn target(&self) -> Address {
        Address::Tcp(self.address, self.token.clone())
    }

    /// The leader's process.
    pub fn leader(&self) -> Result<u32> {
        self.leader.id().context("the leader has ended")
    }

    /// The end of what the processes logged.
    pub fn logs(&self) -> String {
        let files = std::fs::read_dir(self.folder.path()).into_iter().flatten().flatten().map(|file| file.path());
        let logs = files.filter(|path| path.extension().is_some_and(|end| end == "log"));
        logs.map(|path| {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            let last: Vec<&str> = text.lines().rev().take(20).collect();
            format!("{}:\n{}\n", path.display(), last.into_iter().rev().collect::<Vec<_>>().join("\n"))
        })
        .collect()
    }

    /// Kills everything and waits for its end.
    pub async fn stop(mut self) -> Result<()> {
        for child in self.hollows.iter_mut().chain([&mut self.leader]) {
            child.kill().await?;
        }
        Ok(())
    }
}

fn spawn_leader(folder: &Path, address: SocketAddr) -> Result<Child> {
    let data = folder.join("leader").display().to_string();
    spawn(folder, "leader", "leader", ["--no-pods", "--listen", &address.to_string(), "--data-dir", &data])
}

/// Its log goes on where it was.
fn spawn(folder: &Path, name: &str, role: &str, options: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<Child> {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(folder.join(format!("{name}.log")))?;
    Command::new(SERVER)
        .arg(role)
        .args(options)
        .arg("--token-file")
        .arg(folder.join("token"))
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("{SERVER} can't be started"))
}
