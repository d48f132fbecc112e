//! The classic task interface's verbs, and what shells ask.

use serde_json::{Value, json};
use snapbox::str;

use crate::leader::{Answer, Leader};
use crate::{ago, bare, cube, given_up, in_use, list, node, pod, pulling, refusal, running};

/// As the book prints it.
const TASK: &str = r#"{
    "ID": "a7aa1d44-08f6-443e-9378-f5884311019e", "State": 2,
    "Task": {
        "State": 1, "ID": "bb1d59ef-9fc1-4e4b-a44d-db571eeed203", "Name": "test-chapter-9.1", "Image": "timboring/echo-server:latest",
        "ExposedPorts": {"7777/tcp": {}}, "PortBindings": {"7777/tcp": "7777"}, "HealthCheck": "/health"
    }
}"#;
const ID: &str = "bb1d59ef-9fc1-4e4b-a44d-db571eeed203";

fn task() -> Value {
    json!({
        "ID": ID, "ContainerID": "", "Name": "test-chapter-9.1", "State": 0, "Image": "timboring/echo-server:latest", "CPU": 0.0, "Memory": 0,
        "Disk": 0, "ExposedPorts": {"7777/tcp": {}}, "PortBindings": {"7777/tcp": "7777"}, "RestartPolicy": "on-failure", "CreatedAt": ago(1),
        "UpdatedAt": ago(1), "StartsAt": null, "FinishedAt": null, "HealthCheck": "/health", "RestartCount": 0, "HostPorts": {},
    })
}

/// The pod of a task, beginning with these digits and made so many seconds ago.
fn pod_of_task(name: &str, number: u8, id: &str, seconds: i64, status: Value) -> Value {
    let mut pod = pod(name, number, 5, status);
    pod["metadata"]["labels"] = json!({"cube.io/task-id": id, "cube.io/task-name": format!("{name}.1")});
    pod["metadata"]["createdAt"] = json!(ago(seconds));
    pod["status"]["hostPorts"] = json!([]);
    pod
}

fn file(text: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("task.json");
    std::fs::write(&path, text).expect("written");
    (folder, path.display().to_string())
}

#[test]
fn a_tasks_file_is_posted_as_it_is() {
    let leader = Leader::start(|_, _| Answer::Json(201, task()));
    let (_folder, file) = file(TASK);
    cube(&leader.address, &["run", "-f", &file])
        .assert()
        .code(0)
        .stdout_eq("task bb1d59ef-9fc1-4e4b-a44d-db571eeed203 (test-chapter-9.1) Pending\n")
        .stderr_eq("");
    let [request] = leader.requests().try_into().expect("one");
    let posted: Value = serde_json::from_slice(&request.body).expect("JSON");
    assert_eq!((request.line.as_str(), posted), ("POST /tasks", serde_json::from_str(TASK).expect("JSON")));
}

#[test]
fn an_image_is_run_without_a_file() {
    let leader = Leader::start(|_, _| Answer::Json(201, task()));
    cube(&leader.address, &["run", "web", "--image", "busybox:1", "--", "sh", "-c", "echo hi"]).assert().code(0);
    let posted: Value = serde_json::from_slice(&leader.requests()[0].body).expect("JSON");
    assert_eq!(posted, json!({"name": "web", "image": "busybox:1", "command": ["sh", "-c", "echo hi"]}));
    cube(&leader.address, &["run", "web"]).assert().code(2);
    cube(&leader.address, &["run"]).assert().code(2);
    assert_eq!(leader.lines().len(), 1);
}

#[test]
fn every_error_of_a_tasks_file_is_told_with_its_place_and_nothing_is_asked() {
    let leader = Leader::start(|_, _| panic!("nothing is asked"));
    let (_folder, path) = file(
        "{\"State\": 2,\n \"Task\": {\"Name\": \"web\", \"Image\": \"nginx\",\n \"PortBinding\": {}, \"RestartPolicy\": \"sometimes\"}}",
    );
    let found = cube(&leader.address, &["run", "-f", &path]).assert().code(1).stdout_eq("");
    let told = String::from_utf8_lossy(&found.get_output().stderr).replace(&path, "task.json");
    snapbox::assert_data_eq!(
        told,
        str![[r#"
error: the task has errors; nothing was run
  task.json:3:2: Task.PortBinding: unknown field `PortBinding`; did you mean `PortBindings`?
  task.json:3:21: Task.RestartPolicy: `sometimes` is no restart policy: no, always, unless-stopped, on-failure, or nothing (on-failure) is expected

"#]]
    );
}

#[test]
fn success_is_never_printed_for_a_refusal_or_silence() {
    let (_folder, file) = file(TASK);
    for (status, code) in [(500, "Internal"), (409, "Conflict"), (429, "Busy"), (401, "Unauthenticated")] {
        let leader = Leader::start(move |_, _| Answer::Json(status, refusal(code, "no, for a reason")));
        for words in [vec!["run", "-f", &file], vec!["stop", "bb1d"], vec!["status"], vec!["node"]] {
            let found = cube(&leader.address, &words).assert().code(1).stdout_eq("");
            assert!(String::from_utf8_lossy(&found.get_output().stderr).contains("no, for a reason"), "{words:?}");
        }
    }
    let leader = Leader::start(|_, _| Answer::Json(200, json!("what is no task")));
    cube(&leader.address, &["run", "-f", &file]).assert().code(1).stdout_eq("");
    cube("127.0.0.1:1", &["run", "-f", &file]).assert().code(3).stdout_eq("");
    cube("127.0.0.1:1", &["stop", "bb1d"]).assert().code(3).stdout_eq("");
}

#[test]
fn tasks_are_listed_with_ids_that_can_be_typed() {
    let digits = "bb1d59ef-9fc1-4e4b-a44d-db571eeed204";
    let leader = Leader::start(move |_, _| {
        let pods = [
            pod_of_task("crashed", 1, "aa1d59ef-9fc1-4e4b-a44d-db571eeed203", 3_700, given_up()),
            pod_of_task("one", 2, ID, 125, running()),
            pod_of_task("two", 3, digits, 5, pulling()),
        ];
        Answer::Json(200, list(7, &pods))
    });
    cube(&leader.address, &["status"])
        .assert()
        .code(0)
        .stdout_eq(str![[r#"
ID                                     NAME        CREATED             STATE       CONTAINERNAME   IMAGE       PORTS
aa1d59ef                               crashed.1   About an hour ago   Failed      main            busybox:1   <none>
bb1d59ef-9fc1-4e4b-a44d-db571eeed203   one.1       2 minutes ago       Running     main            busybox:1   <none>
bb1d59ef-9fc1-4e4b-a44d-db571eeed204   two.1       5 seconds ago       Scheduled   main            busybox:1   <none>

"#]])
        .stderr_eq("");
    assert_eq!(leader.lines(), ["GET /v1/pods"]);
}

#[test]
fn stop_waits_until_the_task_is_gone() {
    let leader = Leader::start(|request, _| match request.line.as_str() {
        "GET /tasks/bb1d" => Answer::Json(200, task()),
        line if line.starts_with("DELETE /tasks/") => Answer::Json(204, json!(null)),
        "GET /v1/pods" => Answer::Json(200, list(7, &[pod_of_task("one", 2, ID, 125, running())])),
        _ => Answer::Hold(vec![json!({"type": "deleted", "object": pod_of_task("one", 2, ID, 125, running())})]),
    });
    cube(&leader.address, &["stop", "bb1d"])
        .assert()
        .code(0)
        .stdout_eq("task bb1d59ef-9fc1-4e4b-a44d-db571eeed203 (test-chapter-9.1) stopped\n")
        .stderr_eq("");
    assert_eq!(leader.lines(), ["GET /tasks/bb1d", &format!("DELETE /tasks/{ID}"), "GET /v1/pods", "GET /v1/pods?watch=true&from=7"]);
}

#[test]
fn a_word_that_means_several_tasks_stops_none() {
    let leader = Leader::start(|_, _| {
        let mut answer = refusal("Invalid", "'bb1d' means 2 tasks");
        answer["details"] = json!([{"resource": format!("task {ID}"), "message": "one.1, as pod/one"}]);
        answer["hint"] = json!("type more of the ID, or the pod's name");
        Answer::Json(422, answer)
    });
    cube(&leader.address, &["stop", "bb1d"]).assert().code(1).stdout_eq("").stderr_eq(str![[r#"
error: 'bb1d' means 2 tasks
  task bb1d59ef-9fc1-4e4b-a44d-db571eeed203: one.1, as pod/one
hint: type more of the ID, or the pod's name

"#]]);
    assert_eq!(leader.lines(), ["GET /tasks/bb1d"]);
    cube(&leader.address, &["stop", "../v1"]).assert().code(2);
}

#[test]
fn nodes_are_listed_as_workers() {
    let worker = |name: &str, role: &str| {
        json!({
            "Name": name, "Role": role, "Status": "Ready", "Cores": 2.0, "Memory": 8_323_596_288_u64, "Disk": 107_374_182_400_u64,
            "CPUAllocated": 0.25, "MemoryAllocated": 0, "DiskAllocated": 0, "CPUUsed": null, "MemoryUsed": null, "DiskUsed": null,
            "LoadAverage": [0.52, 0.58, 0.59], "TaskCount": 3,
        })
    };
    let leader = Leader::start(move |_, _| Answer::Json(200, json!([worker("alpha", "manager"), worker("beta", "worker")])));
    cube(&leader.address, &["node"]).assert().code(0).stderr_eq("").stdout_eq(str![[r#"
NAME    MEMORY (MiB)   DISK (GiB)   ROLE      TASKS
alpha   7938           100          manager   3
beta    7938           100          worker    3

"#]]);
    assert_eq!(leader.lines(), ["GET /workers"]);
}

#[test]
fn top_shows_what_the_machines_use() {
    let leader = Leader::start(|_, _| {
        let mut busy = in_use(node("alpha", "Leader", json!({"status": "Ready"})));
        busy["usage"]["load"] = json!([52, 108, 1_209]);
        Answer::Json(200, list(7, &[busy, node("beta", "Follower", json!({"status": "Ready"}))]))
    });
    cube(&leader.address, &["top", "nodes"]).assert().code(0).stderr_eq("").stdout_eq(str![[r#"
NAME    CPU    CPU%   MEMORY   MEMORY%   DISK   DISK%   LOAD
alpha   0.46   23%    1907Mi   25%       40Gi   40%     0.52 1.08 12.09
beta    -      -      -        -         -      -       -

"#]]);
}

/// What a shell asks with these words typed, the last of them perhaps in part.
fn completions(leader: &str, words: &[&str]) -> String {
    let mut asked = vec!["--", "cube"];
    asked.extend(words);
    let command = bare(&asked).env("CUBE_LEADER_URL", leader).env("CUBE_PASSWORD", crate::PASSWORD).env("CUBE_COMPLETE", "bash");
    let index = words.len().to_string();
    let command = command.env("_CLAP_COMPLETE_INDEX", index).env("_CLAP_COMPLETE_COMP_TYPE", "9").env("_CLAP_IFS", "\n");
    let output = command.assert().code(0).stderr_eq("").get_output().clone();
    let mut lines: Vec<String> = String::from_utf8_lossy(&output.stdout).lines().map(|line| line.trim_end().to_owned()).collect();
    // Where a name may stand, an option may too.
    lines.retain(|line| !line.starts_with("--"));
    lines.sort();
    lines.join(" ")
}

#[test]
fn shells_complete_words_and_the_names_in_the_cluster() {
    let leader = Leader::start(|request, _| match request.line.as_str() {
        "GET /v1/pods?limit=500" => {
            Answer::Json(200, list(7, &[pod("db", 1, 5, running()), pod("web", 2, 7, running()), pod_of_task("wiki", 3, ID, 9, running())]))
        }
        "GET /v1/nodes?limit=500" => Answer::Json(200, list(7, &[node("alpha", "Leader", json!({"status": "Ready"}))])),
        other => panic!("{other}"),
    });
    let completed = |words: &[&str]| completions(&leader.address, words);
    assert_eq!(completed(&["comp"]), "completion");
    assert_eq!(completed(&["completion", ""]), "bash fish zsh");
    assert_eq!(completed(&["get", "pod/w"]), "pod/web pod/wiki");
    assert_eq!(completed(&["get", "pod", "w"]), "web wiki");
    assert_eq!(completed(&["get", "pods/d"]), "pods/db");
    assert_eq!(completed(&["get", "po"]), "pod pod/");
    assert_eq!(completed(&["delete", "node/"]), "node/alpha");
    assert_eq!(completed(&["logs", "w"]), "web wiki");
    assert_eq!(completed(&["exec", "pod/wi"]), "pod/wiki");
    assert_eq!(completed(&["drain", ""]), "alpha");
    assert_eq!(completed(&["stop", "bb1"]), "bb1d59ef");
    assert_eq!(completed(&["stop", "wi"]), "wiki.1");
}

#[test]
fn a_leader_that_does_not_answer_completes_nothing_and_soon() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = silent.local_addr().expect("bound").to_string();
    assert_eq!(completions(&address, &["logs", "w"]), "");
    assert_eq!(completions("127.0.0.1:1", &["logs", "w"]), "");
    let refused = Leader::start(|_, _| Answer::Json(401, refusal("Unauthenticated", "no")));
    assert_eq!(completions(&refused.address, &["stop", ""]), "");
}

#[test]
fn each_shell_gets_a_script_that_asks_cube() {
    for (shell, sign) in [("bash", "complete -o"), ("zsh", "#compdef cube"), ("fish", "complete --keep-order --exclusive --command cube")] {
        let output = bare(&["completion", shell]).assert().code(0).stderr_eq("").get_output().clone();
        let script = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(script.contains(sign) && script.contains("CUBE_COMPLETE"), "{shell}: {script}");
    }
    bare(&["completion", "tcsh"]).assert().code(2);
}
