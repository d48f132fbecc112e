//! Bad input: one clear message (what, where, what to do), the right exit code, nothing changed.

use std::fs;
use std::process::Command;

use serde_json::json;

use crate::cluster::{Cluster, docker, run, server_binary, shell_pod};

#[test]
fn every_bad_manifest_is_refused_with_its_place_and_changes_nothing() {
    let cluster = Cluster::leader_only(&["--no-pods"]);
    let good = r#"{"type":"pod","metadata":{"name":"good"},"spec":{"containers":[{"name":"c","image":"busybox"}]}}"#;
    let pod = |name: &str, containers: &str| {
        format!(r#"[{good},{{"type":"pod","metadata":{{"name":"{name}"}},"spec":{{"containers":{containers}}}}}]"#)
    };
    let deep = format!("{}{}", "[".repeat(20_000), "]".repeat(20_000));
    let cases: Vec<(&str, String, &[&str])> = vec![
        ("not JSON", "{]".to_owned(), &["1:"]),
        ("truncated", format!("[{}", &good[..60]), &["1:"]),
        ("unknown type", good.replace("\"pod\"", "\"pood\""), &["pood", "pod"]),
        ("unknown field", pod("bad", r#"[{"name":"c","iamge":"busybox"}]"#), &["pod/bad", "spec.containers[0]", "iamge", "image"]),
        ("duplicate field", pod("bad", r#"[{"name":"c","image":"busybox","image":"nginx"}]"#), &["spec.containers[0].image", "twice"]),
        ("bad name", pod("Bad_Name", r#"[{"name":"c","image":"busybox"}]"#), &["Bad_Name", "metadata.name"]),
        (
            "two containers of a name",
            pod("bad", r#"[{"name":"c","image":"b"},{"name":"c","image":"b"}]"#),
            &["spec.containers[1].name", "c"],
        ),
        ("no containers", pod("bad", "[]"), &["pod/bad", "spec.containers"]),
        ("bad image", pod("bad", r#"[{"name":"c","image":"UPPER case"}]"#), &["spec.containers[0].image", "UPPER case"]),
        ("two of one name", format!("[{good},{good}]"), &["pod/good"]),
        ("too deep", deep, &["more than 64"]),
    ];
    for (what, text, parts) in cases {
        let file = cluster.manifest(&text);
        let refused = cluster.cube(&["apply", &file]).fails_with(1);
        for part in parts {
            assert!(refused.contains(part), "{what}: '{part}' is missing in:\n{refused}");
        }
        assert!(refused.contains(&file), "{what}: the file is named in:\n{refused}");
    }
    let large = cluster.folder().join("large.json");
    fs::write(&large, " ".repeat(100 << 20)).expect("written");
    let refused = cluster.cube(&["apply", large.to_str().expect("utf-8")]).fails_with(1);
    assert!(refused.contains("MiB"), "{refused}");
    assert_eq!(cluster.cube(&["list", "pod", "-o", "name"]).ok(), "");
}

#[test]
fn all_errors_of_a_manifest_come_at_once() {
    let cluster = Cluster::leader_only(&["--no-pods"]);
    let file = cluster.manifest(json!([
        { "type": "pod", "metadata": { "name": "One" }, "spec": { "containers": [{ "name": "c", "iamge": "b", "comand": [] }] } },
        { "type": "pod", "metadata": { "name": "two" }, "spec": { "containers": [{ "name": "c", "image": "b:", "env": { "": "x" } }], "restartPolicy": "Sometimes" } },
    ]));
    let refused = cluster.cube(&["apply", &file]).fails_with(1);
    for part in ["One", "iamge", "comand", "b:", "env", "Sometimes"] {
        assert!(refused.contains(part), "'{part}' is missing in:\n{refused}");
    }
}

/// `curl` with a method, and perhaps a credential; the status and the body.
fn curl(cluster: &Cluster, method: &str, path: &str, credential: Option<&str>) -> (String, String) {
    let mut command = Command::new("curl");
    command.args(["-s", "-X", method, "-w", "\n%{http_code}", "--max-time", "10", &format!("http://{}{path}", cluster.address)]);
    if let Some(credential) = credential {
        command.arg("-H").arg(format!("Authorization: Bearer {credential}"));
    }
    let output = run(&mut command).ok();
    let (body, status) = output.rsplit_once('\n').expect("the status is the last line");
    (status.to_owned(), body.to_owned())
}

#[test]
fn nothing_is_answered_without_a_credential_websockets_included() {
    let cluster = Cluster::leader_only(&["--no-pods"]);
    let routes = [
        ("POST", "/v1/apply"),
        ("GET", "/v1/pods"),
        ("GET", "/v1/pods/x"),
        ("DELETE", "/v1/pods/x"),
        ("POST", "/v1/pods/x/restart"),
        ("GET", "/v1/pods/x/logs"),
        ("GET", "/v1/pods/x/exec?command=sh"),
        ("GET", "/v1/nodes"),
        ("GET", "/v1/nodes/x"),
        ("DELETE", "/v1/nodes/x"),
        ("POST", "/v1/nodes/x/report"),
        ("GET", "/v1/events"),
        ("POST", "/v1/session"),
        ("GET", "/v1/anything"),
    ];
    for (method, path) in routes {
        for credential in [None, Some("wrong"), Some("eyJhbGciOiJub25lIn0.eyJyb2xlIjoiYWRtaW4ifQ.")] {
            let (status, body) = curl(&cluster, method, path, credential);
            assert_eq!(status, "401", "{method} {path} {credential:?}: {body}");
            assert!(body.contains("Unauthenticated"), "{body}");
        }
    }
    assert_eq!(curl(&cluster, "GET", "/v1/pods", Some(&cluster.token())).0, "200", "the raw token works for curl");
    for open in ["/healthz", "/readyz", "/version"] {
        assert_eq!(curl(&cluster, "GET", open, None).0, "200");
    }
    assert!(!cluster.leader.log().contains(&cluster.token()), "no credential in the log");
}

#[test]
fn a_wrong_password_a_silent_address_and_a_bad_config_each_say_what_to_do() {
    let cluster = Cluster::leader_only(&["--no-pods"]);
    cluster.write_config("not-the-token");
    let refused = cluster.cube(&["nodes"]).fails_with(1);
    assert!(refused.contains("credential") && refused.contains("password"), "{refused}");

    let mut command = cluster.command(&["nodes"]);
    let unreachable = run(command.env("CUBE_LEADER_URL", "127.0.0.1:1")).fails_with(3);
    assert!(unreachable.contains("127.0.0.1:1"), "{unreachable}");

    let mut command = cluster.command(&["nodes"]);
    let missing = run(command.env("CUBE_CONFIG", cluster.folder().join("nowhere"))).fails_with(2);
    assert!(missing.contains(r#"{"leaderUrl": "localhost:4242", "password": "XXX"}"#) && missing.contains("nowhere"), "{missing}");

    let broken = cluster.folder().join("broken");
    fs::write(&broken, "{\"leaderUrl\": 5}").expect("written");
    let mut command = cluster.command(&["nodes"]);
    let wrong = run(command.env("CUBE_CONFIG", &broken)).fails_with(2);
    assert!(wrong.contains("broken") && wrong.contains("leaderUrl") && wrong.contains("\"password\": \"XXX\""), "{wrong}");
}

#[test]
fn a_server_that_cannot_start_says_why_and_what_to_do() {
    let cluster = Cluster::leader_only(&["--no-pods"]);
    let server = |args: &[&str]| run(Command::new(server_binary()).args(args)).fails_with(1);
    let fresh = cluster.folder().join("fresh").display().to_string();
    let taken = server(&["leader", "--no-pods", "--listen", &cluster.address, "--data-dir", &fresh]);
    assert!(taken.contains(&cluster.address) && taken.contains("in use") && taken.contains("--listen"), "{taken}");

    let file = cluster.folder().join("file");
    fs::write(&file, "").expect("written");
    let below = file.join("below").display().to_string();
    let unusable = server(&["leader", "--no-pods", "--listen", "127.0.0.1:0", "--data-dir", &below]);
    assert!(unusable.contains(&below) && unusable.contains("--data-dir"), "{unusable}");

    let tokenless = server(&["follower", "--leader", &cluster.address, "--data-dir", &fresh]);
    assert!(tokenless.contains("--token-file"), "{tokenless}");

    let corrupt = cluster.folder().join("corrupt");
    fs::create_dir(&corrupt).expect("made");
    fs::write(corrupt.join("leader.db"), "this is not a database, whatever its name says".repeat(100)).expect("written");
    let refused = server(&["leader", "--no-pods", "--listen", "127.0.0.1:0", "--data-dir", &corrupt.display().to_string()]);
    assert!(refused.contains("leader.db"), "{refused}");
}

#[test]
fn a_node_without_docker_says_so_and_takes_no_pods() {
    let cluster = Cluster::leader_only(&["--docker", "unix:///nowhere/docker.sock"]);
    crate::cluster::wait_for("the reason", crate::cluster::PATIENCE, || {
        let table = cluster.cube(&["nodes", "-o", "wide"]).ok();
        if table.contains("NotReady") && table.contains("docker") { Ok(()) } else { Err(table) }
    });
    cluster.apply(shell_pod("waits", "true"));
    cluster.wait_for_status("waits", "Unschedulable");
    assert_eq!(docker(["ps", "-a", "-q", "--filter", &format!("label=io.cube.node={}", cluster.leader.name)]), "");
}
