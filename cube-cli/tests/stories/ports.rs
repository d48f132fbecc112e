//! Host ports: those that a node chooses, of two protocols and on one address; and what containers are told of their pod and node.

use std::net::UdpSocket;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::cluster::{BUSYBOX, Cluster, PATIENCE, docker, run, shell_pod, wait_for};

/// A web server on port 80 that tells its environment, published as `port` says.
fn server(name: &str, port: Value) -> Value {
    let mut manifest = shell_pod(name, "mkdir /www; env > /www/index.html; exec httpd -f -p 80 -h /www");
    manifest[0]["spec"]["containers"][0]["ports"] = json!([port]);
    manifest[0].clone()
}

/// The host port that the pod's status shows.
fn shown(cluster: &Cluster, pod: &str) -> u64 {
    wait_for("a host port", PATIENCE, || {
        let pod = cluster.pod(pod)?;
        pod["status"]["hostPorts"][0]["hostPort"].as_u64().ok_or_else(|| pod.to_string())
    })
}

/// What the server answers at an address of this machine.
fn fetched(address: &str) -> String {
    wait_for(&format!("an answer of {address}"), PATIENCE, || {
        let done = run(Command::new("curl").args(["-s", "--max-time", "2", &format!("http://{address}/")]));
        if done.code == Some(0) { Ok(done.stdout) } else { Err(format!("{done:?}")) }
    })
}

#[test]
fn a_free_port_is_shown_and_told_and_kept_over_restarts_and_no_two_pods_have_one() {
    let mut cluster = Cluster::start(0);
    let free = json!({ "containerPort": 80, "hostPort": 0 });
    let file = cluster.manifest(json!([server("one", free.clone()), server("two", free)]));
    cluster.cube(&["apply", &file, "--wait"]).ok();
    let (one, two) = (shown(&cluster, "one"), shown(&cluster, "two"));
    assert_ne!(one, two);
    for (pod, port) in [("one", one), ("two", two)] {
        let answer = fetched(&format!("127.0.0.1:{port}"));
        assert!(answer.contains(&format!("CUBE_HOST_PORT_80={port}\n")), "{pod} knows its port: {answer}");
        assert!(cluster.cube(&["get", &format!("pod/{pod}")]).ok().contains(&format!("{port}->80/tcp")));
        let table = cluster.cube(&["list", "pod", "-o", "wide"]).ok();
        let row = table.lines().find(|line| line.starts_with(pod)).expect("a row");
        assert!(row.contains(&format!("{port}->80/tcp")), "{table}");
    }
    // A pod that asks for the same port by number is told why it can't be placed.
    cluster.apply(json!([server("late", json!({ "containerPort": 80, "hostPort": one }))]));
    cluster.wait_for_status("late", "Unschedulable");

    // The container is killed, and is another one.
    let before = cluster.containers("one");
    docker(["kill", &before[0]]);
    let restarted = wait_for("a new container", PATIENCE, || {
        let now = cluster.containers("one");
        if now.len() == 1 && now != before { Ok(now) } else { Err(format!("{now:?}")) }
    });
    assert!(fetched(&format!("127.0.0.1:{one}")).contains(&format!("CUBE_HOST_PORT_80={one}\n")));
    // The server is killed, and what runs stays what it was.
    cluster.leader.kill();
    cluster.leader.start();
    cluster.wait_until_ready();
    cluster.wait_for_status("one", "Running");
    assert_eq!((shown(&cluster, "one"), shown(&cluster, "two"), cluster.containers("one")), (one, two, restarted.clone()));
    // The sandbox is lost, and the pod is made anew.
    let mode = docker(["inspect", "-f", "{{.HostConfig.NetworkMode}}", &restarted[0]]);
    docker(["kill", mode.strip_prefix("container:").expect("it joined the sandbox")]);
    wait_for("a new container", PATIENCE, || {
        let now = cluster.containers("one");
        if now.len() == 1 && now != restarted { Ok(()) } else { Err(format!("{now:?}")) }
    });
    assert!(fetched(&format!("127.0.0.1:{one}")).contains(&format!("CUBE_HOST_PORT_80={one}\n")));
    assert_eq!(shown(&cluster, "one"), one);
}

#[test]
fn one_port_is_published_on_two_addresses_and_for_both_protocols() {
    let cluster = Cluster::start(0);
    let first = json!({ "containerPort": 80, "hostIP": "127.0.0.1" });
    let file = cluster.manifest(json!([server("first", first)]));
    cluster.cube(&["apply", &file, "--wait"]).ok();
    let port = shown(&cluster, "first");
    let second = json!({ "containerPort": 80, "hostPort": port, "hostIP": "127.0.0.2" });
    let mut echo = shell_pod("echo", "while true; do nc -u -l -p 53 -e cat; done");
    echo[0]["spec"]["containers"][0]["ports"] =
        json!([{ "containerPort": 53, "hostPort": port, "hostIP": "127.0.0.1", "protocol": "UDP", "name": "dns" }]);
    let file = cluster.manifest(json!([server("second", second), echo[0]]));
    cluster.cube(&["apply", &file, "--wait"]).ok();
    for (address, pod) in [("127.0.0.1", "first"), ("127.0.0.2", "second")] {
        let uid = cluster.pod(pod).expect("it is there")["status"]["podIP"].as_str().expect("an address").to_owned();
        assert!(fetched(&format!("{address}:{port}")).contains("CUBE_HOST_PORT_80="), "{pod} at {uid}");
    }
    let table = cluster.cube(&["list", "pod", "-o", "wide"]).ok();
    for shown in [format!("127.0.0.1:{port}->80/tcp"), format!("127.0.0.2:{port}->80/tcp"), format!("127.0.0.1:{port}->53/udp")] {
        assert!(table.contains(&shown), "{shown} is not in:\n{table}");
    }
    let names = cluster.cube(&["exec", "pod/echo", "--", "sh", "-c", "echo $CUBE_HOST_PORT_53_UDP $CUBE_HOST_PORT_DNS"]).ok();
    assert_eq!(names, format!("{port} {port}\n"));
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket.set_read_timeout(Some(Duration::from_millis(500))).expect("set");
    wait_for("the echo", PATIENCE, || {
        socket.send_to(b"hello", format!("127.0.0.1:{port}")).map_err(|error| error.to_string())?;
        let mut answer = [0; 16];
        let length = socket.recv(&mut answer).map_err(|error| error.to_string())?;
        if &answer[..length] == b"hello" { Ok(()) } else { Err(format!("{:?}", &answer[..length])) }
    });
}

#[test]
fn containers_are_told_of_their_pod_and_node() {
    let cluster = Cluster::start(0);
    let field = |name: &str, path: &str| json!({ "name": name, "valueFrom": { "fieldRef": { "fieldPath": path } } });
    let amount = |name: &str, resource: &str, divisor: &str| json!({ "name": name, "valueFrom": { "resourceFieldRef": { "resource": resource, "divisor": divisor } } });
    let manifest = json!([{ "type": "pod", "metadata": { "name": "told", "labels": { "app.example.com/tier": "front" } }, "spec": {
        "terminationGracePeriodSeconds": 1,
        "containers": [{ "name": "main", "image": BUSYBOX, "command": ["sh", "-c", "echo \"$(URL)\"; sleep 1000"],
            "resources": { "requests": { "cpu": "250m" }, "limits": { "memory": "64Mi" } },
            "env": [field("POD", "metadata.name"), field("ID", "metadata.uid"), field("TIER", "metadata.labels['app.example.com/tier']"),
                field("NODE", "spec.nodeName"), field("IP", "status.podIP"), field("HOST", "status.hostIP"),
                amount("CPU", "requests.cpu", "1m"), amount("CORES", "requests.cpu", "1"), amount("MEMORY", "limits.memory", "1Mi"),
                { "name": "URL", "value": "http://$(IP):80/$(POD)/$$(POD)/$(NOT_THERE)" }] }] } }]);
    let file = cluster.manifest(&manifest);
    cluster.cube(&["apply", &file, "--wait"]).ok();
    let pod = cluster.pod("told").expect("it is there");
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let (uid, ip, node) = (text(&pod["metadata"]["uid"]), text(&pod["status"]["podIP"]), text(&pod["placement"]["node"]));
    let env = cluster.cube(&["exec", "pod/told", "--", "env"]).ok();
    let nodes: Value = serde_json::from_str(&cluster.cube(&["nodes", "-o", "json"]).ok()).expect("json");
    let host = text(&nodes["items"][0]["address"]);
    let url = format!("http://{ip}:80/told/$(POD)/$(NOT_THERE)");
    for line in [
        "POD=told",
        "TIER=front",
        "CPU=250",
        "CORES=1",
        "MEMORY=64",
        &format!("ID={uid}"),
        &format!("IP={ip}"),
        &format!("NODE={node}"),
        &format!("HOST={host}"),
        &format!("URL={url}"),
    ] {
        assert!(env.lines().any(|told| told == line), "{line} is not in:\n{env}");
    }
    assert_eq!(cluster.cube(&["logs", "pod/told", "--container", "main"]).ok(), format!("{url}\n"));
    assert!(cluster.cube(&["nodes", "-o", "wide"]).ok().contains(&host));
    // What is printed is what was applied: nothing changes.
    assert_eq!(cluster.cube(&["apply", &file]).ok().trim(), "pod/told unchanged");
}
