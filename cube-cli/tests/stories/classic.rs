//! The classic task interface: the book's task, its commands and its requests.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};

use crate::cluster::{BUSYBOX, Cluster, PATIENCE, wait_for};

/// The image that `scripts/images` makes of nginx: it listens on 80 and answers `/`.
const NGINX: &str = "nginx:latest";

const ID: &str = "bb1d59ef-9fc1-4e4b-a44d-db571eeed203";

/// The book's task, with an image that is there.
fn task(name: &str, host_port: &str, health: &str) -> Value {
    json!({
        "ID": "a7aa1d44-08f6-443e-9378-f5884311019e", "State": 2,
        "Task": {
            "State": 1, "ID": ID, "Name": name, "Image": NGINX, "ExposedPorts": {"80/tcp": {}},
            "PortBindings": {"80/tcp": host_port}, "HealthCheck": health,
        }
    })
}

/// A port that nobody has just now.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port()
}

/// A request as a script sends it; the status and the body. HTTP/1.0, so that the body ends with the connection.
fn request(address: &str, method: &str, path: &str, token: Option<&str>, body: &str) -> Result<(u16, String), String> {
    let mut stream = TcpStream::connect(address).map_err(|error| error.to_string())?;
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    let credential = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    let head = format!("{method} {path} HTTP/1.0\r\nHost: {address}\r\n{credential}Content-Length: {}\r\n\r\n", body.len());
    let mut answer = String::new();
    stream.write_all((head + body).as_bytes()).and_then(|()| stream.read_to_string(&mut answer)).map_err(|error| error.to_string())?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| format!("no answer: {answer}"))?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(|| format!("no status: {head}"))?;
    Ok((status, body.to_owned()))
}

/// The row of a task in `cube status`, in words.
fn row(cluster: &Cluster, name: &str) -> Result<Vec<String>, String> {
    let table = cluster.cube(&["status"]).ok();
    let row = table.lines().find(|line| line.split_whitespace().nth(1) == Some(name)).ok_or_else(|| format!("no {name} in:\n{table}"))?;
    Ok(row.split_whitespace().map(str::to_owned).collect())
}

fn wait_until_running(cluster: &Cluster, name: &str) -> Vec<String> {
    wait_for(&format!("task {name} to run"), PATIENCE, || {
        let row = row(cluster, name)?;
        if row.iter().any(|word| word == "Running") { Ok(row) } else { Err(row.join(" ")) }
    })
}

#[test]
fn the_books_task_is_run_reached_through_its_port_and_stopped() {
    let cluster = Cluster::start(1);
    let port = free_port();
    let file = cluster.manifest(task("test-chapter-9.1", &port.to_string(), "/"));
    let said = cluster.cube(&["run", "-f", &file]).ok();
    assert!(said.starts_with(&format!("task {ID} (test-chapter-9.1) ")), "{said}");
    let row = wait_until_running(&cluster, "test-chapter-9.1");
    assert_eq!((row[0].as_str(), row.contains(&"ago".to_owned())), ("bb1d59ef", true), "{row:?}");
    assert!(row.contains(&"test-chapter-9-1".to_owned()) && row.contains(&NGINX.to_owned()), "{row:?}");
    assert!(row.last().is_some_and(|ports| ports.ends_with(&format!(":{port}->80/tcp"))), "{row:?}");
    let answer = wait_for("the application", PATIENCE, || request(&format!("127.0.0.1:{port}"), "GET", "/", None, ""));
    assert_eq!(answer.0, 200, "{answer:?}");
    let workers = cluster.cube(&["node"]).ok();
    let tasks: Vec<&str> = workers.lines().skip(1).filter_map(|line| line.split_whitespace().last()).collect();
    assert!(workers.starts_with("NAME") && workers.contains("manager") && workers.contains("worker"), "{workers}");
    assert!(tasks == ["1", "0"] || tasks == ["0", "1"], "{workers}");
    assert_eq!(cluster.cube(&["stop", "bb1d"]).ok(), format!("task {ID} (test-chapter-9.1) stopped\n"));
    assert_eq!(cluster.containers("test-chapter-9-1"), Vec::<String>::new());
    assert!(request(&format!("127.0.0.1:{port}"), "GET", "/", None, "").is_err(), "nobody listens there any more");
    cluster.cube(&["stop", "bb1d"]).fails_with(1);
}

#[test]
fn a_port_that_is_not_bound_gets_a_free_one_which_is_shown_everywhere() {
    let cluster = Cluster::start(0);
    let task = json!({"Task": {"Name": "free", "Image": NGINX, "ExposedPorts": {"80/tcp": {}}}});
    let file = cluster.manifest(task);
    cluster.cube(&["run", "-f", &file]).ok();
    let row = wait_until_running(&cluster, "free");
    let shown = row.last().and_then(|ports| ports.strip_suffix("->80/tcp")?.rsplit_once(':')).map(|(_, port)| port.to_owned());
    let port = shown.unwrap_or_else(|| panic!("no port in {row:?}"));
    let (_, body) = request(&cluster.address, "GET", "/tasks/free", Some(&cluster.token()), "").expect("an answer");
    let task: Value = serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}"));
    assert_eq!((&task["HostPorts"]["80/tcp"][0]["HostPort"], &task["PortBindings"]), (&json!(port), &json!({})), "{task}");
    let page = cluster.cube(&["get", "pod/free"]).ok();
    assert!(page.contains(&port), "{port} is not in\n{page}");
    let answer = wait_for("the application", PATIENCE, || request(&format!("127.0.0.1:{port}"), "GET", "/", None, ""));
    assert_eq!(answer.0, 200, "{answer:?}");
}

#[test]
fn a_task_whose_health_check_fails_is_restarted_with_a_count() {
    let cluster = Cluster::start(0);
    let file = cluster.manifest(task("sick", &free_port().to_string(), "/no-such-page"));
    cluster.cube(&["run", "-f", &file]).ok();
    let token = cluster.token();
    // Three failures in a row, ten seconds apart, and the time to stop it.
    wait_for("a restart", Duration::from_secs(120), || {
        let (_, body) = request(&cluster.address, "GET", "/tasks/sick", Some(&token), "")?;
        let task: Value = serde_json::from_str(&body).map_err(|error| format!("{error}: {body}"))?;
        if task["RestartCount"].as_u64() > Some(0) { Ok(()) } else { Err(body) }
    });
    let page = cluster.cube(&["get", "pod/sick"]).ok();
    assert!(page.contains("Unhealthy") && page.contains("404"), "the page says why:\n{page}");
    cluster.cube(&["delete", "pod/sick", "--grace-period", "1"]).ok();
}

#[test]
fn scripts_work_with_plain_requests_and_the_token() {
    let cluster = Cluster::start(0);
    let token = cluster.token();
    let ask = |method: &str, path: &str, body: &str| request(&cluster.address, method, path, Some(&token), body).expect("an answer");
    let read =
        |(status, body): (u16, String)| (status, serde_json::from_str::<Value>(&body).unwrap_or_else(|error| panic!("{error}: {body}")));
    for (method, path) in [("GET", "/tasks"), ("POST", "/tasks"), ("DELETE", "/tasks/x"), ("GET", "/workers"), ("GET", "/metrics")] {
        let (status, _) = request(&cluster.address, method, path, None, "").expect("an answer");
        assert_eq!(status, 401, "{method} {path}");
    }
    let (status, created) =
        read(ask("POST", "/tasks", &json!({"name": "echo", "image": BUSYBOX, "command": ["sleep", "1000"]}).to_string()));
    assert_eq!((status, &created["Name"], &created["State"]), (201, &json!("echo"), &json!(0)), "{created}");
    let id = created["ID"].as_str().expect("an ID").to_owned();
    let running = wait_for("the task to run", PATIENCE, || match read(ask("GET", &format!("/tasks/{id}"), "")) {
        (200, task) if task["State"] == json!(2) => Ok(task),
        other => Err(format!("{other:?}")),
    });
    let container = running["ContainerID"].as_str().expect("a container");
    assert_eq!(cluster.containers("echo"), [container.to_owned()]);
    assert_eq!(read(ask("GET", "/tasks", "")).1.as_array().map(Vec::len), Some(1));
    let (_, workers) = read(ask("GET", "/workers", ""));
    assert_eq!((&workers[0]["TaskCount"], workers[0]["Memory"].as_u64() > Some(1 << 28)), (&json!(1), true), "{workers}");
    let uses = wait_for("the machine's use", PATIENCE, || match read(ask("GET", "/workers", "")).1[0].clone() {
        worker if worker["LoadAverage"].is_array() => Ok(worker),
        worker => Err(worker.to_string()),
    });
    assert!(uses["MemoryUsed"].as_u64() > Some(0) && uses["DiskUsed"].as_u64() > Some(0), "{uses}");
    let (_, metrics) = ask("GET", "/metrics", "");
    for figure in ["cube_pods{phase=\"Running\"} 1", "cube_container_restarts 0", "cube_node_memory_used_bytes{node=\"", "cube_node_load{"]
    {
        assert!(metrics.contains(figure), "{figure} is missing in:\n{metrics}");
    }
    let (status, refused) = read(ask("POST", "/tasks", "{\"Task\": {\"Name\": \"x\", \"Imag\": \"y\"}}"));
    let details = refused["details"].as_array().expect("what is wrong");
    assert!(status == 422 && details.iter().any(|problem| problem["path"] == json!("Task.Imag")), "{status} {refused}");
    assert_eq!(ask("DELETE", &format!("/tasks/{id}"), ""), (204, String::new()));
    wait_for("the end of the task", Duration::from_secs(60), || match ask("GET", &format!("/tasks/{id}"), "") {
        (404, _) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert_eq!(cluster.containers("echo"), Vec::<String>::new());
}
