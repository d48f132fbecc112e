//! `backup` and `restore` beside leaders that run, were stopped or were killed; and servers whose database can't be used.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

use cube_api::auth::Token;
use cube_api::client::Client;
use cube_api::manifest::{self, Resource};
use cube_api::meta::{Name, Revision};
use cube_api::routes::ListQuery;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tempfile::TempDir;

/// How long something may take that takes a fraction of it on an idle machine.
const LIMIT: Duration = Duration::from_secs(30);

fn cube_server(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cube-server"));
    command.args(arguments).env_clear().env("CUBE_LOG", "warn");
    command
}

fn run(arguments: &[&str]) -> Output {
    cube_server(arguments).output().expect("the program")
}

/// Its stdout, if it succeeded.
fn done(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// Its stderr, if it failed as commands do.
fn refused(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stderr).expect("text")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a temporary folder's name is text")
}

/// A leader without pods. Killed when it is dropped.
struct Leader {
    child: Child,
    client: Client,
    /// Open as long as the leader may write to it.
    _stdout: BufReader<ChildStdout>,
}

impl Leader {
    fn start(data: &Path, more: &[&str]) -> Self {
        let arguments = ["leader", "--no-pods", "--listen", "127.0.0.1:0", "--data-dir", text(data)];
        let mut child = cube_server(&[&arguments[..], more].concat()).stdout(Stdio::piped()).spawn().expect("the program");
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        stdout.read_line(&mut line).expect("its first line");
        let address = line.trim().strip_prefix("cube leader ready on http://").unwrap_or_else(|| panic!("not a greeting: {line:?}"));
        let token = Token::new(&fs::read_to_string(data.join("token")).expect("the token")).expect("not empty");
        let client = Client::new(address.parse().expect("an address"), token);
        Self { child, client, _stdout: stdout }
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    fn end(mut self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it is there");
        self.child.wait().expect("its end");
    }

    async fn apply(&self, pod: &str) {
        apply(&self.client, pod).await;
    }

    async fn pods(&self) -> (Vec<String>, Revision) {
        let list = self.client.pods(&ListQuery::default()).await.expect("a list");
        (list.items.iter().map(|pod| pod.metadata.name.to_string()).collect(), list.revision)
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

async fn apply(client: &Client, pod: &str) {
    let manifest = json!([{"type": "pod", "metadata": {"name": pod}, "spec": {"containers": [{"name": "c", "image": "app"}]}}]);
    let resources: Vec<Resource> = manifest::from_json(manifest.to_string().as_bytes()).expect("a manifest");
    client.apply(&resources, false).await.expect("an apply");
}

/// Every file of a folder with its bytes; not the lock, in which the last owner's process stands, and not the room for the day on which its disk
/// is full.
fn picture(folder: &Path) -> BTreeMap<OsString, Vec<u8>> {
    let files = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("a file")).filter(|file| {
        let name = file.file_name().into_string().expect("text");
        name != "lock" && !name.ends_with(".reserve")
    });
    files.map(|file| (file.file_name(), fs::read(file.path()).expect("its bytes"))).collect()
}

fn folders() -> (TempDir, TempDir) {
    (tempfile::tempdir().expect("a temporary folder"), tempfile::tempdir().expect("a temporary folder"))
}

#[tokio::test]
async fn what_was_acknowledged_before_a_backup_of_a_busy_leader_is_there_after_its_restore() {
    let (data, elsewhere) = folders();
    let (data, backup) = (data.path(), elsewhere.path().join("cube.db"));
    let leader = Leader::start(data, &[]);
    let client = leader.client.clone();
    let (tell, mut count) = tokio::sync::watch::channel(0_usize);
    let writes = tokio::spawn(async move {
        for number in 1.. {
            apply(&client, &format!("pod-{number}")).await;
            tell.send_replace(number);
        }
    });
    let acknowledged = *count.wait_for(|number| *number >= 20).await.expect("writes");
    let command = ["backup", "--data-dir", text(data), "--output", text(&backup)].map(str::to_owned);
    let said = tokio::task::spawn_blocking(move || done(&command.each_ref().map(String::as_str))).await.expect("a backup");
    let seen = *count.borrow();
    count.wait_for(|number| *number > seen).await.expect("the leader goes on");
    writes.abort();
    assert!(said.contains("cube.db: cluster ") && said.contains(" pods and 0 nodes"), "{said}");
    assert_eq!(fs::metadata(&backup).expect("the backup").permissions().mode() & 0o777, 0o600);
    let (_, last) = leader.pods().await;

    let pid = leader.pid();
    let error = refused(&["restore", "--data-dir", text(data), "--from", text(&backup)]);
    assert!(error.contains(&format!("process {pid}")) && error.contains("stop it first"), "{error}");
    leader.end(Signal::TERM);

    let said = done(&["restore", "--data-dir", text(data), "--from", text(&backup)]);
    assert!(said.contains("the leader will take the one in") && said.contains("leader.db.replaced-"), "{said}");
    let leader = Leader::start(data, &[]);
    let (pods, revision) = leader.pods().await;
    for number in 1..=acknowledged {
        assert!(pods.contains(&format!("pod-{number}")), "pod-{number} was acknowledged before the backup");
    }
    assert!(revision > last, "revision {revision} after {last}");
    leader.apply("after").await;
    assert!(leader.client.pod(&Name::new("after").expect("a name")).await.is_ok());
}

#[tokio::test]
async fn a_backup_of_a_stopped_or_killed_leader_changes_nothing_of_its_folder_and_overwrites_only_by_force() {
    let (data, elsewhere) = folders();
    let (data, backup) = (data.path(), elsewhere.path().join("cube.db"));
    let arguments = ["backup", "--data-dir", text(data), "--output", text(&backup), "--json"];
    for (pods, signal) in [(1, Signal::TERM), (2, Signal::KILL)] {
        let leader = Leader::start(data, &[]);
        leader.apply(&format!("pod-{pods}")).await;
        leader.end(signal);
        let before = picture(data);
        if pods == 2 {
            let kept = fs::read(&backup).expect("the first backup");
            let error = refused(&arguments);
            assert!(error.contains("is there already") && error.contains("--force"), "{error}");
            assert_eq!(fs::read(&backup).expect("the first backup"), kept);
        }
        let said: serde_json::Value = serde_json::from_str(&done(&[&arguments[..], &["--force"]].concat())).expect("JSON");
        assert_eq!((&said["pods"], &said["nodes"]), (&json!(pods), &json!(0)), "{said}");
        assert_eq!(said["bytes"], json!(fs::metadata(&backup).expect("the backup").len()));
        let after = picture(data);
        let names = |picture: &BTreeMap<OsString, Vec<u8>>| picture.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&after), names(&before));
        // The index of a WAL says who reads it: not what is in it.
        assert!(before.iter().all(|(name, bytes)| name == "leader.db-shm" || after[name] == *bytes));
        assert_eq!(picture(elsewhere.path()).len(), 1);
    }
}

#[test]
fn backup_and_restore_of_nothing_change_nothing_and_say_what_to_give() {
    let (data, elsewhere) = folders();
    let to = elsewhere.path().join("cube.db");
    let error = refused(&["backup", "--data-dir", text(data.path()), "--output", text(&to)]);
    assert!(error.contains("there is no leader's database") && error.contains("--data-dir"), "{error}");
    assert!(picture(data.path()).is_empty() && picture(elsewhere.path()).is_empty());

    let (none, missing) = (data.path().join("none"), elsewhere.path().join("missing.db"));
    let error = refused(&["restore", "--data-dir", text(&none), "--from", text(&missing)]);
    assert!(error.contains("nothing was restored") && error.contains("missing.db"), "{error}");
    fs::write(&missing, "no backup".repeat(1_000)).expect("a file");
    let error = refused(&["restore", "--data-dir", text(&none), "--from", text(&missing)]);
    assert!(error.contains("nothing was restored") && error.contains("is damaged"), "{error}");
    assert!(!none.exists());
}

#[tokio::test]
async fn backups_are_taken_on_schedule_and_the_oldest_go() {
    let (data, folder) = folders();
    let (data, folder) = (data.path(), folder.path().join("backups"));
    let leader = Leader::start(data, &["--backup-dir", text(&folder), "--backup-every", "1s", "--backup-keep", "2"]);
    leader.apply("web").await;
    let names = || -> Vec<_> { if folder.exists() { picture(&folder).into_keys().collect() } else { Vec::new() } };
    let began = Instant::now();
    let first = loop {
        match names().first() {
            Some(name) if name.to_string_lossy().ends_with(".db") => break name.clone(),
            Some(_) | None => assert!(began.elapsed() < LIMIT, "there is no backup"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    while names().contains(&first) {
        assert!(began.elapsed() < LIMIT, "the oldest stays: {:?}", names());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    leader.end(Signal::KILL);
    let newest = folder.join(names().into_iter().rfind(|name| name.to_string_lossy().ends_with(".db")).expect("a backup"));
    let said = done(&["restore", "--data-dir", text(data), "--from", text(&newest)]);
    assert!(said.contains("with 1 pod and 0 nodes"), "{said}");
}

#[tokio::test]
async fn a_leader_refuses_a_damaged_or_newer_database_untouched_and_names_the_remedy() {
    let (data, backups) = folders();
    let (data, backups) = (data.path(), backups.path());
    let leader = Leader::start(data, &[]);
    leader.apply("web").await;
    leader.end(Signal::TERM);
    let backup = backups.join("cube-0192f3a4-20261121T032000Z-r1.db");
    done(&["backup", "--data-dir", text(data), "--output", text(&backup)]);
    let start = ["leader", "--no-pods", "--listen", "127.0.0.1:0", "--data-dir", text(data), "--backup-dir", text(backups)];
    let database = data.join("leader.db");
    let sound = fs::read(&database).expect("the database");

    let mut newer = sound.clone();
    // The schema's number in the header of an SQLite file.
    newer[60..64].copy_from_slice(&99_u32.to_be_bytes());
    let mut damaged = sound.clone();
    damaged[4096..].fill(0xA5);
    let mut row = sound.clone();
    const SPEC: &[u8] = b"\"image\":\"app\"";
    let places: Vec<_> = row.windows(SPEC.len()).enumerate().filter(|(_, bytes)| *bytes == SPEC).map(|(at, _)| at).collect();
    assert!(!places.is_empty(), "the pod's spec");
    places.into_iter().for_each(|at| row[at] = b'?');
    for (bytes, words) in
        [(newer, "has schema 99, this cube-server knows schemas up to "), (damaged, "is damaged"), (row, "a pod that can't be read")]
    {
        fs::write(&database, &bytes).expect("written");
        let before = picture(data);
        let error = refused(&start);
        let remedy = format!("cube-server restore --data-dir {} --from {}", text(data), text(&backup));
        assert!(error.contains(words) && error.contains(&remedy), "{error}");
        assert!(picture(data) == before, "a file was changed: {words}");
    }
    done(&["restore", "--data-dir", text(data), "--from", text(&backup)]);
    let leader = Leader::start(data, &[]);
    assert_eq!(leader.pods().await.0, ["web"]);
}

#[test]
fn a_follower_refuses_a_damaged_ledger_untouched_and_names_the_remedy() {
    let (data, sockets) = folders();
    let ledger = data.path().join("follower.db");
    fs::write(&ledger, "no ledger".repeat(1_000)).expect("a file");
    let before = picture(data.path());
    let docker = format!("unix://{}/none.sock", text(sockets.path()));
    let arguments =
        ["follower", "--leader", "127.0.0.1:1", "--token", "t", "--name", "n1", "--docker", &docker, "--data-dir", text(data.path())];
    let error = refused(&arguments);
    assert!(error.contains("is damaged") && error.contains(&format!("move {}* away", text(&ledger))), "{error}");
    assert!(picture(data.path()) == before, "a file was changed");
}
