//! A leader on a disk that is really full: a small tmpfs in a mount namespace of its own, so that it is gone with the test, whatever happens.

use std::fs::File;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use cube_api::auth::Token;
use cube_api::client::{Client, ClientError};
use cube_api::manifest::{self, Resource};
use cube_api::meta::Name;
use cube_api::routes::{DeleteQuery, ListQuery};
use cube_api::{ApiError, ErrorCode};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::Instant;

/// How long something may take that takes a fraction of it on an idle machine.
const LIMIT: Duration = Duration::from_secs(30);

/// A disk of 24 MiB. A process that waits holds its namespace.
struct Disk {
    holder: Child,
    mounted: PathBuf,
    _folder: TempDir,
}

impl Disk {
    async fn mount() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mounted = folder.path().to_owned();
        // Whoever isn't root may mount in a user namespace.
        let flags = if rustix::process::geteuid().is_root() { "-m" } else { "-rm" };
        let script = "mount -t tmpfs -o size=24m disk \"$0\" && echo mounted && exec cat";
        let mut holder = Command::new("unshare")
            .args([flags, "sh", "-c", script])
            .arg(&mounted)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("unshare is part of util-linux");
        let mut said = BufReader::new(holder.stdout.take().expect("piped"));
        let mut line = String::new();
        within("the mount", said.read_line(&mut line)).await.expect("the holder's word");
        assert_eq!(line, "mounted\n", "this test needs the right to mount in a namespace");
        Self { holder, mounted, _folder: folder }
    }

    fn holder(&self) -> u32 {
        self.holder.id().expect("it runs")
    }

    /// A file of the disk, seen from here.
    fn inside(&self, file: &str) -> PathBuf {
        let below = self.mounted.strip_prefix("/").expect("an absolute path");
        Path::new("/proc").join(self.holder().to_string()).join("root").join(below).join(file)
    }

    /// Writes until not a byte is left.
    fn fill(&self) {
        let mut filler = File::options().create(true).append(true).open(self.inside("filler")).expect("a file");
        for length in [64 << 10, 4 << 10, 1] {
            while filler.write_all(&vec![b'x'; length]).is_ok() {}
        }
    }

    fn free(&self) {
        std::fs::remove_file(self.inside("filler")).expect("the filler");
    }

    /// Starts a leader on it.
    async fn start_leader(&self) -> Leader {
        let namespaces = format!("/proc/{}/ns", self.holder());
        let mut command = Command::new("nsenter");
        command.arg(format!("--mount={namespaces}/mnt"));
        if !rustix::process::geteuid().is_root() {
            command.arg(format!("--user={namespaces}/user")).arg("--preserve-credentials");
        }
        command.arg(env!("CARGO_BIN_EXE_cube-server")).args(["leader", "--no-pods", "--listen", "127.0.0.1:0", "--data-dir"]);
        command.arg(self.mounted.join("data")).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut process = command.spawn().expect("nsenter is part of util-linux");
        let mut said = BufReader::new(process.stdout.take().expect("piped"));
        let mut line = String::new();
        within("the leader's first line", said.read_line(&mut line)).await.expect("the leader's word");
        let Some(address) = line.trim().strip_prefix("cube leader ready on http://") else {
            let mut log = String::new();
            process.stderr.take().expect("piped").read_to_string(&mut log).await.expect("its log");
            panic!("the leader didn't start: {line}{log}");
        };
        let mut token = String::new();
        File::open(self.inside("data/token")).and_then(|mut file| file.read_to_string(&mut token)).expect("the leader's token");
        let client = Client::new(address.parse().expect("an address"), Token::new(&token).expect("a token"));
        Leader { process, address: address.parse().expect("an address"), client, _said: said }
    }
}

struct Leader {
    process: Child,
    address: SocketAddr,
    client: Client,
    /// Open as long as it runs: it says more than the first line.
    _said: BufReader<ChildStdout>,
}

impl Leader {
    async fn kill(mut self) {
        self.process.kill().await.expect("it runs");
    }

    /// Every pod's name.
    async fn pods(&self) -> Vec<Name> {
        let list = self.client.pods(&ListQuery::default()).await.expect("a list");
        list.items.into_iter().map(|pod| pod.metadata.name).collect()
    }

    async fn apply(&self, number: usize, bytes: usize) -> Result<Name, ClientError> {
        self.client.apply(&pod(number, bytes), false).await.map(|applied| applied.items[0].metadata().name.clone())
    }

    async fn delete(&self, name: &Name) {
        self.client.delete_pod(name, &DeleteQuery::default()).await.expect("a delete on a full disk");
    }

    /// The status line of `/readyz`.
    async fn ready(&self) -> String {
        let mut stream = tokio::net::TcpStream::connect(self.address).await.expect("it listens");
        stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.expect("open");
        let mut answer = String::new();
        within("an answer", stream.read_to_string(&mut answer)).await.expect("an answer");
        answer.lines().next().unwrap_or_default().to_owned()
    }
}

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(LIMIT, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what} did not come within {} s", LIMIT.as_secs()),
    }
}

/// A pod with so many bytes of environment.
fn pod(number: usize, bytes: usize) -> Vec<Resource> {
    let container = serde_json::json!({"name": "c", "image": "nginx", "env": {"LARGE": "x".repeat(bytes)}});
    let pod = serde_json::json!([{"type": "pod", "metadata": {"name": format!("pod-{number}")}, "spec": {"containers": [container]}}]);
    manifest::from_json(pod.to_string().as_bytes()).expect("a manifest without errors")
}

fn refusal(answer: Result<Name, ClientError>) -> Box<ApiError> {
    match answer {
        Err(ClientError::Api(refusal)) => refusal,
        other => panic!("not a refusal: {other:?}"),
    }
}

#[tokio::test]
async fn a_leader_on_a_full_disk_serves_reads_and_deletes_over_kills_and_takes_work_again_when_there_is_room() {
    let disk = Disk::mount().await;
    let leader = disk.start_leader().await;
    assert_eq!(leader.ready().await, "HTTP/1.1 200 OK");
    let mut acknowledged = Vec::new();
    for number in 0..50 {
        acknowledged.push(leader.apply(number, 16).await.expect("there is room"));
    }
    disk.fill();
    let mut number = acknowledged.len();
    let error = loop {
        match leader.apply(number, 32 << 10).await {
            Ok(name) => acknowledged.push(name),
            refused => break refusal(refused),
        }
        number += 1;
        assert!(number < 2_000, "64 MiB fit on a full disk");
    };
    assert_eq!(error.code, ErrorCode::NoSpace, "{error:?}");
    let data = disk.mounted.join("data");
    assert!(error.hint.as_ref().is_some_and(|hint| hint.contains(&data.display().to_string())), "{error:?}");
    assert_eq!(leader.ready().await, "HTTP/1.1 503 Service Unavailable");
    // Whatever is free again is taken by others at once.
    disk.fill();
    leader.delete(&acknowledged.remove(0)).await;

    leader.kill().await;
    disk.fill();
    let leader = disk.start_leader().await;
    let mut expected = acknowledged.clone();
    expected.sort();
    assert_eq!(leader.pods().await, expected, "what was acknowledged, and nothing else");
    assert_eq!(leader.ready().await, "HTTP/1.1 503 Service Unavailable");
    assert_eq!(refusal(leader.apply(number, 16).await).code, ErrorCode::NoSpace);
    disk.fill();
    for _ in 0..20 {
        leader.delete(&acknowledged.remove(0)).await;
    }

    disk.free();
    let began = Instant::now();
    while leader.ready().await != "HTTP/1.1 200 OK" {
        assert!(began.elapsed() < LIMIT, "the leader doesn't see that there is room again");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    acknowledged.push(leader.apply(9_999, 32 << 10).await.expect("there is room again"));
    leader.kill().await;
    let leader = disk.start_leader().await;
    let mut expected = acknowledged;
    expected.sort();
    assert_eq!(leader.pods().await, expected);
    leader.kill().await;
}
