//! A Docker engine of a test's own, to stop and kill: never the machine's.
//!
//! It has a folder and a bridge for itself, makes no firewall rules, and takes both away with it, also after a failure.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::cluster::{BUSYBOX, Done, Sockets, run, wait_for};

/// What becomes of the containers when the daemon stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnStop {
    /// They are stopped with it: Docker's default.
    Stops,
    /// They run on (`--live-restore`).
    RunsOn,
}

/// An engine. Dropping it removes every trace of it.
pub struct Engine {
    on_stop: OnStop,
    bridge: String,
    daemon: Option<Child>,
    folder: TempDir,
}

impl Engine {
    /// A running engine with the image busybox.
    pub fn start(on_stop: OnStop) -> Self {
        let folder = tempfile::Builder::new().prefix("cube-engine-").tempdir().expect("a temp folder");
        // At most 15 bytes, and no other test process has this id.
        let bridge = format!("cube{}", std::process::id());
        run(Command::new("ip").args(["link", "add", &bridge, "type", "bridge"])).ok();
        let mut engine = Self { on_stop, bridge, daemon: None, folder };
        engine.up();
        let mut saved = Command::new("docker").args(["save", BUSYBOX]).stdout(Stdio::piped()).spawn().expect("docker starts");
        let archive = Stdio::from(saved.stdout.take().expect("piped"));
        let load = Command::new("docker").arg(engine.host()).args(["load", "--quiet"]).stdin(archive).stdout(Stdio::null()).status();
        let loaded = load.expect("docker starts");
        assert!(saved.wait().expect("it ends").success() && loaded.success(), "{BUSYBOX} is there: scripts/images makes it");
        engine
    }

    /// Where it listens.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("docker.sock")
    }

    /// Nodes and test on this engine.
    pub fn sockets(&self) -> Sockets {
        Sockets { nodes: Some(self.socket()), test: Some(self.socket()) }
    }

    /// Starts the daemon (again) and waits until it answers.
    pub fn up(&mut self) {
        self.spawn();
        wait_for("the engine to answer", Duration::from_secs(30), || {
            let asked = self.ask(&["version"]);
            if asked.code == Some(0) { Ok(()) } else { Err(format!("{}\n{}", asked.stderr, self.read_log())) }
        });
    }

    fn spawn(&mut self) {
        let folder = self.folder.path();
        // An empty configuration: the machine's own is not for this one.
        let config = folder.join("daemon.json");
        fs::write(&config, "{}").expect("written");
        let log = fs::OpenOptions::new().create(true).append(true).open(self.log()).expect("a log file");
        let flag = |name: &str, value: &Path| format!("--{name}={}", value.display());
        let mut command = Command::new("dockerd");
        command.arg(self.host()).arg(flag("config-file", &config));
        command.arg(flag("data-root", &folder.join("data"))).arg(flag("exec-root", &folder.join("exec")));
        command.arg(flag("pidfile", &folder.join("pid"))).arg(format!("--bridge={}", self.bridge));
        // vfs copies layers, which a busybox bears, and leaves no mounts behind.
        command.args(["--storage-driver=vfs", "--iptables=false", "--ip-masq=false"]);
        if self.on_stop == OnStop::RunsOn {
            command.arg("--live-restore");
        }
        let errors = log.try_clone().expect("a log file");
        self.daemon = Some(command.stdin(Stdio::null()).stdout(log).stderr(errors).spawn().expect("dockerd starts: is it installed?"));
    }

    fn host(&self) -> String {
        format!("--host=unix://{}", self.socket().display())
    }

    fn ask(&self, words: &[&str]) -> Done {
        run(Command::new("docker").arg(self.host()).args(words))
    }

    /// Stops the daemon in order.
    pub fn stop(&mut self) {
        let mut daemon = self.daemon.take().expect("it runs");
        kill_process(Pid::from_child(&daemon), Signal::TERM).expect("it is ours");
        wait_for("the daemon's end", Duration::from_secs(20), || match daemon.try_wait().expect("it is ours") {
            Some(_) => Ok(()),
            None => Err(self.read_log()),
        });
    }

    /// Kills the daemon; the containers' processes know nothing of it.
    pub fn kill(&mut self) {
        let mut daemon = self.daemon.take().expect("it runs");
        daemon.kill().expect("it is ours");
        daemon.wait().expect("it was running");
        self.end_containerd();
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    fn read_log(&self) -> String {
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// Ends what a killed daemon leaves of its containerd, and the file by which the next daemon would take that for one that runs.
    fn end_containerd(&self) {
        let file = self.folder.path().join("exec/containerd/containerd.pid");
        for process in self.processes().into_iter().filter(|process| process.words.starts_with("containerd\0")) {
            process.kill();
        }
        // It may be gone already.
        drop(fs::remove_file(file));
    }

    /// What runs with the engine's folder in its command line: the daemon, its containerd and the parents of its containers.
    fn processes(&self) -> Vec<Process> {
        let folder = self.folder.path().to_string_lossy().into_owned();
        let all = fs::read_dir("/proc").expect("readable").filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        all.filter_map(|id: i32| {
            let words = fs::read_to_string(format!("/proc/{id}/cmdline")).ok()?;
            words.contains(&folder).then_some(Process { id, words })
        })
        .collect()
    }
}

struct Process {
    id: i32,
    words: String,
}

impl Process {
    fn kill(&self) {
        kill(self.id);
    }

    /// With its children: a container's process knows nothing of its engine's folder.
    fn kill_family(&self) {
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.id)).unwrap_or_default();
        children.split_whitespace().filter_map(|id| id.parse().ok()).for_each(kill);
        self.kill();
    }
}

/// It may have ended by itself meanwhile.
fn kill(id: i32) {
    if let Some(id) = Pid::from_raw(id) {
        let _ = kill_process(id, Signal::KILL);
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- the engine's log ----\n{}", self.read_log());
        }
        // Only the daemon can end its containers in order, so one that is down comes up for it.
        if self.daemon.is_none() {
            self.spawn();
        }
        let patience = |mut done: Box<dyn FnMut() -> bool + '_>| {
            (0..100).any(|_| {
                std::thread::sleep(Duration::from_millis(100));
                done()
            })
        };
        if patience(Box::new(|| self.ask(&["version"]).code == Some(0))) {
            for id in self.ask(&["ps", "-a", "-q"]).stdout.lines() {
                self.ask(&["rm", "-f", id]);
            }
        }
        let mut daemon = self.daemon.take().expect("just started");
        let _ = kill_process(Pid::from_child(&daemon), Signal::TERM);
        if !patience(Box::new(|| daemon.try_wait().is_ok_and(|end| end.is_some()))) {
            drop(daemon.kill());
            drop(daemon.wait());
        }
        // What follows has nothing to do unless something went wrong before.
        self.processes().iter().for_each(Process::kill_family);
        let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
        let folder = self.folder.path().to_string_lossy();
        for mount in mounts.lines().filter_map(|line| line.split(' ').nth(1)).filter(|path| path.starts_with(&*folder)) {
            run(Command::new("umount").args(["--lazy", mount]));
        }
        run(Command::new("ip").args(["link", "delete", &self.bridge]));
    }
}
