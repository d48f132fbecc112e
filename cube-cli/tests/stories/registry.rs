//! A real registry (Debian's docker-registry) on 127.0.0.1, from where the engine takes images without TLS.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

use tempfile::TempDir;

use crate::cluster::{BUSYBOX, PATIENCE, docker, run};

/// Who may pull and push, where not everybody may.
pub const USER: &str = "robot";
/// With bytes that are other letters in the base64 for URLs than in the usual one.
pub const PASSWORD: &str = "se?cr>et~p?a?s?s~~~";

/// The registry. Dropping it ends it and removes the images that were pushed from the engine.
pub struct Registry {
    pub address: String,
    child: Child,
    /// Names on the engine that go with it.
    names: Vec<String>,
    root: TempDir,
}

impl Registry {
    /// One that gives everything to everybody.
    pub fn open() -> Self {
        Self::start("")
    }

    /// One that knows only [`USER`] with [`PASSWORD`].
    pub fn secured() -> Self {
        Self::start("auth:\n  htpasswd:\n    realm: cube\n    path: ROOT/htpasswd\n")
    }

    fn start(auth: &str) -> Self {
        let root = tempfile::Builder::new().prefix("cube-registry-").tempdir().expect("a temp folder");
        let folder = root.path().display().to_string();
        let hash = run(Command::new("perl").args(["-e", r#"print crypt($ARGV[0], q{$2y$05$}."abcdefghijklmnopqrstuu")"#, PASSWORD])).ok();
        fs::write(root.path().join("htpasswd"), format!("{USER}:{hash}\n")).expect("written");
        let config = format!(
            "version: 0.1\nlog: {{level: info}}\nstorage:\n  filesystem: {{rootdirectory: {folder}/data}}\nhttp:\n  addr: 127.0.0.1:0\n{}",
            auth.replace("ROOT", &folder)
        );
        let file = root.path().join("config.yml");
        fs::write(&file, config).expect("written");
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("docker-registry starts: Debian's package docker-registry");
        let stderr = child.stderr.take().expect("piped");
        let (found, address) = mpsc::channel();
        // Read to its end, so that the registry never blocks on it.
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if let Some((_, rest)) = line.split_once("listening on ") {
                    let address: String = rest.chars().take_while(|c| c.is_ascii_digit() || ".:".contains(*c)).collect();
                    // Only the first is waited for.
                    let _gone = found.send(address);
                }
            }
        });
        let address = address.recv_timeout(PATIENCE).expect("the registry says where it listens");
        Self { address, child, names: Vec::new(), root }
    }

    /// Pushes an image that says `mark` in the variable MARK; its name. The engine doesn't have it afterwards.
    pub fn push(&mut self, repository: &str, tag: &str, mark: &str) -> String {
        let name = self.name(repository, tag);
        let mut build = Command::new("docker")
            .args(["build", "-q", "-t", &name, "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("docker");
        // Of one content there would be one image, which a test beside this one may be removing.
        let file = format!("FROM {BUSYBOX}\nENV MARK={mark}\nLABEL registry={}\n", self.address);
        build.stdin.take().expect("piped").write_all(file.as_bytes()).expect("docker reads");
        assert!(build.wait().expect("it ends").success(), "the image {name} can't be made");
        let config = self.root.path().join("push");
        fs::create_dir_all(&config).expect("a folder");
        fs::write(config.join("config.json"), config_json(&self.address, USER, PASSWORD)).expect("written");
        run(Command::new("docker").arg("--config").arg(&config).args(["push", "-q", &name])).ok();
        docker(["rmi", &name]);
        name
    }

    /// What an image is called; it is removed from the engine with the registry.
    pub fn name(&mut self, repository: &str, tag: &str) -> String {
        let name = format!("{}/{repository}:{tag}", self.address);
        self.names.push(name.clone());
        name
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // Not there any more is fine.
        let _ended = self.child.kill().and_then(|()| self.child.wait());
        for name in &self.names {
            run(Command::new("docker").args(["rmi", "-f", name]));
        }
    }
}

/// A Docker `config.json` with one login.
pub fn config_json(registry: &str, user: &str, password: &str) -> String {
    let auth = run(Command::new("sh").args(["-c", r#"printf %s "$0" | base64 -w0"#, &format!("{user}:{password}")])).ok();
    serde_json::json!({ "auths": { registry: { "auth": auth } } }).to_string()
}
