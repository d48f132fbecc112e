//! Resources that are neither pods nor nodes: lists, pages, deletes; secrets by their sizes only.

use serde_json::{Value, json};
use snapbox::str;

use crate::leader::{Answer, Leader, Request};
use crate::{cube, list};

fn metadata(name: &str) -> Value {
    json!({"name": name, "uid": "00000000-0000-4000-8000-000000000001", "generation": 1, "revision": 7, "createdAt": "2026-01-01T00:00:00Z"})
}

fn secret() -> Value {
    json!({"type": "secret", "metadata": metadata("db"), "sizes": {"password": 7, "user": 4}})
}

fn config() -> Value {
    json!({"type": "config", "metadata": metadata("app"), "data": {"app.conf": "a = 1\nb = 2\n"}})
}

fn leader() -> Leader {
    Leader::start(|request: &Request, _| match request.line.as_str() {
        "GET /v1/secrets" => Answer::Json(200, list(7, &[secret()])),
        "GET /v1/secrets/db" | "DELETE /v1/secrets/db" => Answer::Json(200, secret()),
        "GET /v1/configs/app" => Answer::Json(200, config()),
        "POST /v1/apply" => Answer::Json(200, json!({"revision": 7, "items": [{"action": "configured", "object": secret()}]})),
        "GET /v1/events?object=secret%2Fdb" | "GET /v1/events?object=config%2Fapp" => Answer::Json(200, list(7, &[])),
        "GET /v1/configs/gone" => Answer::Json(404, json!({"code": "NotFound", "message": "config/gone not found"})),
        other => panic!("{other}"),
    })
}

#[test]
fn a_secret_is_applied_and_named_with_its_type() {
    let leader = leader();
    let manifest = r#"{"type": "secret", "metadata": {"name": "db"}, "stringData": {"password": "hunter2"}}"#;
    cube(&leader.address, &["apply", "-f", "-", "--wait"])
        .stdin(manifest)
        .assert()
        .code(0)
        .stdout_eq("secret/db configured\n")
        .stderr_eq("");
}

#[test]
fn secrets_are_listed_and_shown_by_their_sizes() {
    let leader = leader();
    cube(&leader.address, &["list", "secret"]).assert().code(0).stdout_eq(str![[r#"
NAME   DATA   AGE
db     2      [..]

"#]]);
    cube(&leader.address, &["get", "secret/db"]).assert().code(0).stdout_eq(str![[r#"
Name:        db
Created:     2026-01-01T00:00:00Z ([..] ago)

Data:
  password: 7 bytes
  user: 4 bytes

Events:
  <none>

"#]]);
    cube(&leader.address, &["get", "secret/db", "-o", "yaml"]).assert().code(0).stdout_eq(str![[r#"
type: secret
metadata:
  name: db
  uid: 00000000-0000-4000-8000-000000000001
  generation: 1
  revision: 7
  createdAt: "2026-01-01T00:00:00Z"
sizes:
  password: 7
  user: 4

"#]]);
}

#[test]
fn a_config_is_shown_with_its_values() {
    cube(&leader().address, &["get", "config", "app"]).assert().code(0).stdout_eq(str![[r#"
Name:        app
Created:     2026-01-01T00:00:00Z ([..] ago)

Data:
  app.conf:
    a = 1
    b = 2

Events:
  <none>

"#]]);
}

#[test]
fn a_secret_is_deleted_by_its_name() {
    let leader = leader();
    cube(&leader.address, &["delete", "secret/db"]).assert().code(0).stdout_eq("secret/db deleted\n").stderr_eq("");
    cube(&leader.address, &["delete", "secret", "-l", "a=b"]).assert().code(2).stdout_eq("").stderr_eq(str![[r#"
error: secrets are deleted by name only

"#]]);
    cube(&leader.address, &["get", "config/gone"]).assert().code(1).stdout_eq("").stderr_eq("error: config/gone not found\n");
}
