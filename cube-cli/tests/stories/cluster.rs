//! A cluster of real processes for one story, and the ways to look at it and to hurt it.

use std::fmt::Display;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// The image that `scripts/images` makes: sh and the usual small programs.
pub const BUSYBOX: &str = "busybox:latest";

/// Long enough for a busy two-core machine that starts several pods at once.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Tries `probe` until it gives a value, at most so long; then fails with what it saw last.
#[track_caller]
pub fn wait_for<T>(what: &str, limit: Duration, mut probe: impl FnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    loop {
        match probe() {
            Ok(value) => return value,
            Err(last) if start.elapsed() > limit => panic!("waited {limit:?} for {what}; last seen: {last}"),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// A command's end, as text.
#[derive(Debug)]
pub struct Done {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Done {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        Self { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }

    /// The output of a command that must have succeeded.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self.stdout
    }

    /// The talk of a command that must have failed with this code.
    #[track_caller]
    pub fn fails_with(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self.stderr
    }
}

/// Runs a command to its end.
#[track_caller]
pub fn run(command: &mut Command) -> Done {
    Done::from(command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}")))
}

/// The `docker` client, to look from outside.
#[track_caller]
pub fn docker<const N: usize>(args: [&str; N]) -> String {
    docker_on(None, args)
}

/// The `docker` client on the engine behind a socket; none is the usual one.
#[track_caller]
pub fn docker_on<const N: usize>(socket: Option<&Path>, args: [&str; N]) -> String {
    run(docker_command(socket).args(args)).ok().trim().to_owned()
}

fn docker_command(socket: Option<&Path>) -> Command {
    let mut command = Command::new("docker");
    command.args(socket.map(|socket| format!("--host=unix://{}", socket.display())));
    command
}

/// The `cube-server` that was built beside `cube`.
pub fn server_binary() -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_cube")).with_file_name("cube-server");
    assert!(path.exists(), "{} is not built; run the tests of the whole workspace, as scripts/test does", path.display());
    path
}

/// A server process. Dropping it kills it.
pub struct Server {
    pub name: String,
    pub data_dir: PathBuf,
    /// How many sandboxes it keeps ready: none unless a story is about them, so that what is there is what its pods need.
    pub spares: u8,
    arguments: Vec<String>,
    child: Option<Child>,
    log: PathBuf,
}

impl Server {
    fn new(name: &str, root: &Path, arguments: Vec<String>) -> Self {
        let data_dir = root.join(name);
        let log = root.join(format!("{name}.log"));
        Self { name: name.to_owned(), data_dir, spares: 0, arguments, child: None, log }
    }

    /// Starts the process (again).
    pub fn start(&mut self) {
        let log = fs::OpenOptions::new().create(true).append(true).open(&self.log).expect("a log file");
        let mut command = Command::new(server_binary());
        command.args(&self.arguments).arg("--name").arg(&self.name).arg("--data-dir").arg(&self.data_dir);
        command.env("CUBE_SPARE_SANDBOXES", self.spares.to_string());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        self.child = Some(command.spawn().expect("cube-server starts"));
    }

    /// Waits for the line of a leader's standard output that tells its address.
    fn address(&mut self) -> String {
        let stdout = self.child.as_mut().and_then(|child| child.stdout.take()).expect("piped");
        let (found, address) = mpsc::channel();
        // The pipe is read to its end, so that the leader never blocks on it.
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if let Some((_, address)) = line.split_once("http://") {
                    let address = address.split_whitespace().next().unwrap_or_default().to_owned();
                    if found.send(address).is_err() {
                        continue;
                    }
                }
            }
        });
        address.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("the leader didn't say where it listens; its log:\n{}", self.log()))
    }

    /// What the process wrote to its log so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The process's id.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("it is ours");
            child.wait().expect("it was running");
        }
    }

    /// SIGTERM, then waits for its end; the exit code.
    pub fn terminate(&mut self) -> Option<i32> {
        let mut child = self.child.take().expect("it runs");
        run(Command::new("kill").arg("-TERM").arg(child.id().to_string())).ok();
        wait_for("an orderly stop", Duration::from_secs(15), || match child.try_wait().expect("it is ours") {
            Some(status) => Ok(status.code()),
            None => Err(self.log()),
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("---- log of {} ----\n{}", self.name, self.log());
        }
    }
}

/// Where Docker is; none is the usual engine. With a proxy between the two, these differ.
#[derive(Debug, Clone, Default)]
pub struct Sockets {
    /// What the nodes are given.
    pub nodes: Option<PathBuf>,
    /// Where the test looks and acts by hand.
    pub test: Option<PathBuf>,
}

impl Sockets {
    /// The nodes' flags.
    fn flags(&self) -> Vec<String> {
        self.nodes.iter().flat_map(|socket| ["--docker".to_owned(), format!("unix://{}", socket.display())]).collect()
    }
}

/// A leader, its followers, and a client's configuration.
pub struct Cluster {
    pub leader: Server,
    pub followers: Vec<Server>,
    pub address: String,
    sockets: Sockets,
    nodes: Vec<String>,
    root: TempDir,
}

impl Cluster {
    /// A leader that runs pods, and so many followers, all Ready.
    pub fn start(followers: usize) -> Self {
        let mut cluster = Self::leader_only(&[]);
        for _ in 0..followers {
            cluster.add_follower();
        }
        cluster.wait_until_ready();
        cluster
    }

    /// A leader with more flags.
    pub fn leader_only(flags: &[&str]) -> Self {
        Self::leader_on(Sockets::default(), flags)
    }

    /// A leader with more flags, whose cluster's nodes have a Docker of their own.
    pub fn leader_on(sockets: Sockets, flags: &[&str]) -> Self {
        let root = tempfile::Builder::new().prefix("cube-story-").tempdir().expect("a temp folder");
        let id = root.path().file_name().and_then(|name| name.to_str()).expect("utf-8").to_lowercase();
        let id: String = id.chars().filter(char::is_ascii_alphanumeric).collect();
        let leader_name = format!("{id}-0");
        let mut arguments: Vec<String> = ["leader", "--listen", "127.0.0.1:0"].map(str::to_owned).to_vec();
        arguments.extend(flags.iter().map(|&flag| flag.to_owned()));
        arguments.extend(sockets.flags());
        let mut leader = Server::new(&leader_name, root.path(), arguments);
        leader.start();
        let address = leader.address();
        // From now on at this address, so that a restarted leader is found again.
        leader.arguments[2].clone_from(&address);
        let cluster = Self { leader, followers: Vec::new(), address, sockets, nodes: vec![leader_name], root };
        cluster.write_config(&cluster.token());
        cluster
    }

    /// Starts one more follower.
    pub fn add_follower(&mut self) -> &mut Server {
        let name = format!("{}-{}", self.nodes[0].trim_end_matches("-0"), self.followers.len() + 1);
        let token_file = self.leader.data_dir.join("token").display().to_string();
        let mut arguments = ["follower", "--leader", &self.address, "--token-file", &token_file].map(str::to_owned).to_vec();
        arguments.extend(self.sockets.flags());
        let mut follower = Server::new(&name, self.root.path(), arguments);
        follower.start();
        self.nodes.push(name);
        self.followers.push(follower);
        self.followers.last_mut().expect("just pushed")
    }

    /// The token that the leader made.
    pub fn token(&self) -> String {
        fs::read_to_string(self.leader.data_dir.join("token")).expect("the leader made a token").trim().to_owned()
    }

    fn config(&self) -> PathBuf {
        self.root.path().join("config")
    }

    /// Configures the client with a password.
    pub fn write_config(&self, password: &str) {
        let text = serde_json::json!({ "leaderUrl": self.address, "password": password }).to_string();
        fs::write(self.config(), text).expect("written");
        run(Command::new("chmod").arg("600").arg(self.config())).ok();
    }

    /// A folder of this story.
    pub fn folder(&self) -> &Path {
        self.root.path()
    }

    /// The `cube` client of this cluster, to run with `args`.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cube"));
        command.args(args).env("CUBE_CONFIG", self.config()).env_remove("CUBE_LEADER_URL").env_remove("CUBE_PASSWORD");
        command
    }

    /// Runs `cube` to its end.
    #[track_caller]
    pub fn cube(&self, args: &[&str]) -> Done {
        run(&mut self.command(args))
    }

    /// Writes a manifest to a file.
    pub fn manifest(&self, text: impl Display) -> String {
        let file = self.root.path().join(format!("manifest-{}.json", self.root.path().read_dir().expect("it is there").count()));
        fs::write(&file, text.to_string()).expect("written");
        file.display().to_string()
    }

    /// Applies a manifest.
    #[track_caller]
    pub fn apply(&self, manifest: Value) {
        let file = self.manifest(manifest);
        self.cube(&["apply", &file]).ok();
    }

    /// A pod as the API shows it.
    pub fn pod(&self, name: &str) -> Result<Value, String> {
        let done = self.cube(&["get", &format!("pod/{name}"), "-o", "json"]);
        match done.code {
            Some(0) => serde_json::from_str(&done.stdout).map_err(|error| format!("{error}: {}", done.stdout)),
            _ => Err(done.stderr),
        }
    }

    /// The STATUS column of a pod.
    pub fn status(&self, name: &str) -> Result<String, String> {
        let done = self.cube(&["list", "pod"]);
        let table = if done.code == Some(0) { done.stdout } else { return Err(done.stderr) };
        let row = table.lines().find(|line| line.split_whitespace().next() == Some(name));
        let row = row.ok_or_else(|| format!("no {name} in:\n{table}"))?;
        Ok(row.split_whitespace().nth(2).unwrap_or_default().to_owned())
    }

    /// Waits until the STATUS column of a pod says so.
    #[track_caller]
    pub fn wait_for_status(&self, name: &str, wanted: &str) {
        wait_for(&format!("pod/{name} to be {wanted}"), PATIENCE, || {
            let status = self.status(name)?;
            if status == wanted { Ok(()) } else { Err(format!("{status}\n{}", self.cube(&["get", &format!("pod/{name}")]).stdout)) }
        });
    }

    /// Waits until every node that was started is Ready.
    #[track_caller]
    pub fn wait_until_ready(&self) {
        wait_for("every node to be Ready", PATIENCE, || {
            let done = self.cube(&["nodes"]);
            let table = if done.code == Some(0) { done.stdout } else { return Err(done.stderr) };
            let ready = table.lines().filter(|line| line.split_whitespace().nth(1) == Some("Ready")).count();
            if ready == self.nodes.len() { Ok(()) } else { Err(table) }
        });
    }

    /// The `docker` client on the nodes' engine.
    #[track_caller]
    pub fn docker<const N: usize>(&self, args: [&str; N]) -> String {
        docker_on(self.sockets.test.as_deref(), args)
    }

    /// Docker's ids of a pod's running app containers, by their names.
    pub fn containers(&self, pod: &str) -> Vec<String> {
        let filter = format!("label=io.cube.pod.name={pod}");
        let format = "{{.Label \"io.cube.node\"}} {{.Label \"io.cube.container\"}} {{.ID}}";
        let listed = self.docker(["ps", "--no-trunc", "--filter", &filter, "--format", format]);
        let mut ids: Vec<String> = listed
            .lines()
            .filter(|line| self.nodes.iter().any(|node| line.split(' ').next() == Some(node)))
            .filter_map(|line| line.split(' ').nth(2).filter(|_| line.split(' ').nth(1) != Some("")).map(str::to_owned))
            .collect();
        ids.sort();
        ids
    }

    /// Every container on the engine that carries the name of one of this cluster's nodes.
    pub fn all_containers(&self) -> Vec<String> {
        let of = |node: &String| self.listing(node).ok();
        self.nodes.iter().flat_map(|node| of(node).lines().map(str::to_owned).collect::<Vec<_>>()).collect()
    }

    fn listing(&self, node: &str) -> Done {
        let filter = format!("label=io.cube.node={node}");
        run(docker_command(self.sockets.test.as_deref()).args(["ps", "-a", "-q", "--no-trunc", "--filter", &filter]))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.leader.kill();
        self.followers.iter_mut().for_each(Server::kill);
        // An engine of the test's own may be down: it removes what it has with itself.
        for container in self.nodes.iter().flat_map(|node| self.listing(node).stdout.lines().map(str::to_owned).collect::<Vec<_>>()) {
            run(docker_command(self.sockets.test.as_deref()).args(["rm", "-f", &container]));
        }
        for node in &self.nodes {
            let filter = format!("label=io.cube.node={node}");
            let listed = run(docker_command(self.sockets.test.as_deref()).args(["volume", "ls", "-q", "--filter", &filter])).stdout;
            for volume in listed.lines() {
                run(docker_command(self.sockets.test.as_deref()).args(["volume", "rm", volume]));
            }
        }
    }
}

/// A pod's manifest with one busybox container `main` that runs a shell script.
pub fn shell_pod(name: &str, script: &str) -> Value {
    serde_json::json!([{ "type": "pod", "metadata": { "name": name }, "spec": {
        "terminationGracePeriodSeconds": 1,
        "containers": [{ "name": "main", "image": BUSYBOX, "command": ["sh", "-c", script] }] } }])
}
