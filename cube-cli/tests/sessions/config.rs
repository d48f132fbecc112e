//! Configuration, credentials, and a leader that isn't there.

use std::os::unix::fs::PermissionsExt;

use serde_json::json;
use snapbox::str;

use crate::leader::{Answer, Leader};
use crate::{PASSWORD, ago, bare, cube, list, refusal};

#[test]
fn a_missing_configuration_says_how_to_write_it() {
    bare(&["--config", "absent.json", "nodes"]).assert().code(2).stdout_eq("").stderr_eq(str![[r#"
error: there is no configuration at absent.json
  absent.json should say, with your leader's address and token:
    {"leaderUrl": "localhost:4242", "password": "XXX"}
hint: write it with 'cube config set --leader-url localhost:4242 --password-file FILE', or set CUBE_LEADER_URL and CUBE_PASSWORD

"#]]);
}

#[test]
fn an_unknown_field_of_the_configuration_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config"), r#"{"leaderURL": "localhost:4242", "password": "XXX"}"#).unwrap();
    bare(&["--config", "config", "nodes"]).current_dir(folder.path()).assert().code(2).stdout_eq("").stderr_eq(str![[r#"
error: config: unknown field `leaderURL`, expected `leaderUrl` or `password` at line 1 column 12
  config should say, with your leader's address and token:
    {"leaderUrl": "localhost:4242", "password": "XXX"}
hint: write it with 'cube config set --leader-url localhost:4242 --password-file FILE', or set CUBE_LEADER_URL and CUBE_PASSWORD

"#]]);
}

#[test]
fn a_password_that_others_can_read_is_warned_about() {
    let leader = Leader::start(|_, _| Answer::Json(200, list(1, &[])));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config");
    std::fs::write(&path, json!({"leaderUrl": leader.address, "password": PASSWORD}).to_string()).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    bare(&["--config", "config", "list", "pod"]).current_dir(folder.path()).assert().code(0).stdout_eq("").stderr_eq(str![[r#"
warning: others can read the password in config (mode 0644): chmod 600 config
no pods found

"#]]);
}

#[test]
fn what_config_set_writes_is_what_config_shows_without_the_password() {
    let folder = tempfile::tempdir().unwrap();
    let set = ["--config", "config", "config", "set", "--leader-url", "http://example:4243/", "--password-file", "-"];
    bare(&set)
        .current_dir(folder.path())
        .stdin(PASSWORD)
        .assert()
        .code(0)
        .stdout_eq(str![[r#"
config written

"#]])
        .stderr_eq("");
    bare(&["--config", "config", "config"])
        .current_dir(folder.path())
        .assert()
        .code(0)
        .stdout_eq(str![[r#"
KEY         VALUE          FROM
leaderUrl   example:4243   config
password    (hidden)       config

"#]])
        .stderr_eq("");
}

#[test]
fn the_environment_overrides_the_file() {
    cube("[::1]:1", &["config"])
        .assert()
        .code(0)
        .stdout_eq(str![[r#"
KEY         VALUE      FROM
leaderUrl   [::1]:1    CUBE_LEADER_URL
password    (hidden)   CUBE_PASSWORD

"#]])
        .stderr_eq("");
}

#[test]
fn an_address_with_https_is_refused() {
    cube("https://example:4242", &["nodes"]).assert().code(2).stdout_eq("").stderr_eq(str![[r#"
error: CUBE_LEADER_URL: 'https://example:4242' asks for https, and TLS is not in this version
hint: write host:port, such as localhost:4242 or [::1]:4242

"#]]);
}

#[test]
fn a_leader_that_is_not_there_is_exit_code_3() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    cube(&port.to_string(), &["nodes"]).assert().code(3).stdout_eq("").stderr_eq(str![[r#"
error: can't reach the leader at 127.0.0.1:[..]: Connection refused (os error 111)
hint: check that the leader runs and that leaderUrl names it (cube config shows it)

"#]]);
}

#[test]
fn a_wrong_token_is_said_and_never_sent_or_shown() {
    let leader = Leader::start(|_, _| Answer::Json(401, refusal("Unauthenticated", "the credential is not this cluster's")));
    cube(&leader.address, &["nodes"]).assert().code(1).stdout_eq("").stderr_eq(str![[r#"
error: the credential is not this cluster's
hint: the password must be the cluster's token; cube config shows where it comes from

"#]]);
    let requests = leader.requests();
    let credential = requests[0].header("authorization");
    assert!(credential.starts_with("Bearer ") && !credential.contains(PASSWORD), "{credential}");
}

#[test]
fn a_clock_that_is_off_mints_once_more_by_the_leaders() {
    let leader = Leader::start(|_, before| match before {
        0 => Answer::Json(401, json!({"code": "CredentialExpired", "message": "out of its time", "serverTime": ago(7200)})),
        _ => Answer::Json(200, list(1, &[])),
    });
    cube(&leader.address, &["list", "pod"]).assert().code(0).stdout_eq("");
    let requests = leader.requests();
    assert_eq!(requests.len(), 2);
    assert_ne!(requests[0].header("authorization"), requests[1].header("authorization"));
}

#[test]
fn a_clock_that_stays_off_is_an_error_after_the_second_try() {
    let leader = Leader::start(|_, _| {
        Answer::Json(401, json!({"code": "CredentialExpired", "message": "out of its time", "serverTime": ago(7200)}))
    });
    cube(&leader.address, &["list", "pod"]).assert().code(1).stdout_eq("");
    assert_eq!(leader.requests().len(), 2);
}

#[test]
fn what_is_no_leader_is_named() {
    let leader = Leader::start(|_, _| Answer::Json(502, json!("bad gateway")));
    cube(&leader.address, &["nodes"]).assert().code(1).stdout_eq("").stderr_eq(str![[r#"
error: what answers at 127.0.0.1:[..] doesn't speak cube's protocol: it answered 502 Bad Gateway without saying why
hint: check that leaderUrl names a cube leader of the same version (cube version)

"#]]);
}

#[test]
fn version_shows_the_client_and_the_leader() {
    let leader = Leader::start(|_, _| Answer::Json(200, json!({"version": "9.9.9"})));
    cube(&leader.address, &["version"])
        .assert()
        .code(0)
        .stdout_eq(str![[r#"
client   0.1.0
leader   9.9.9

"#]])
        .stderr_eq("");
}

#[test]
fn a_typo_is_answered_with_what_was_meant() {
    bare(&["lst"]).assert().code(2).stdout_eq("").stderr_eq(str![[r#"
error: unrecognized subcommand 'lst'

  tip: some similar subcommands exist: 'stop', 'ls', 'list'

Usage: cube [OPTIONS] <COMMAND>

For more information, try '--help'.

"#]]);
}
