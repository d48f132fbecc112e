//! What must be told nobody: the cluster's token, credentials made from it, and what pods are told in their environments.

use cube_api::auth::{Keys, Role, Token};
use cube_api::client::Client;
use cube_api::pod::Phase;
use cube_api::routes::{DeleteQuery, EventQuery, ExecQuery, ListQuery, LogQuery};
use jiff::{Timestamp, ToSpan};
use serde_json::{Value, json};

use crate::rig::{Engine, Ground, Server, exchange, name, node_ready, phase, pod, resources, wait_for};

/// In a pod's environment and in the words of a command. `cube get` shows the first, by design; nothing else may.
const SECRET: &str = "a-secret-that-only-the-pod-should-be-told";

/// Everything that was said, with where.
#[derive(Default)]
struct Said(Vec<(String, String)>);

impl Said {
    fn add(&mut self, place: impl Into<String>, text: impl Into<String>) {
        self.0.push((place.into(), text.into()));
    }

    fn nowhere(&self, what: &str, secret: &str) {
        for (place, text) in &self.0 {
            let Some(at) = text.find(secret) else { continue };
            let line = text[..at].lines().count().saturating_sub(1);
            panic!("{what} is in {place}: {}", text.lines().nth(line).unwrap_or_default().replace(secret, "<it>"));
        }
    }
}

/// A request as curl would send it; the answer's head and body.
async fn ask(leader: &Server, method: &str, path: &str, credential: &str, body: &str) -> String {
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: leader\r\nauthorization: Bearer {credential}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
    );
    let answer = exchange(leader.address, format!("{head}{body}").as_bytes()).await.expect("an answer");
    String::from_utf8_lossy(&answer).into_owned()
}

fn command_line(server: &Server) -> String {
    String::from_utf8_lossy(&std::fs::read(format!("/proc/{}/cmdline", server.pid())).expect("it runs")).replace('\0', " ")
}

/// A pod that runs, is looked at, executed in, replaced, and one that crashes; every answer that shows no spec is kept.
async fn work(client: &Client, said: &mut Said) {
    let env = json!({"command": ["sleep", "100000"], "env": {"PASSWORD": SECRET}});
    let crash = json!({"command": ["sh", "-c", "exit 3"], "env": {"PASSWORD": SECRET}});
    let no_image = json!({"image": "127.0.0.1:1/none:x", "env": {"PASSWORD": SECRET}});
    let pods = vec![pod("web", &json!({}), &env), pod("crash", &json!({}), &crash), pod("no-image", &json!({}), &no_image)];
    client.apply(&resources(pods), false).await.expect("an apply that isn't refused");
    phase(client, "web", Phase::Running).await;
    let command = ["sh", "-c", &format!("true {SECRET}")].map(str::to_owned).to_vec();
    let (_input, mut frames) = client.exec(&name("web"), &ExecQuery { command, ..ExecQuery::default() }).await.expect("an exec");
    while frames.next().await.expect("the stream goes on").is_some() {}
    let missing = ExecQuery { command: vec![format!("/no/{SECRET}")], ..ExecQuery::default() };
    let (_input, mut frames) = client.exec(&name("web"), &missing).await.expect("an exec");
    while frames.next().await.expect("the stream goes on").is_some() {}
    wait_for("the events of a crash and of a missing image", async || {
        let events = serde_json::to_value(client.events(&EventQuery::default()).await.expect("events")).expect("plain data");
        let warned = |pod: &str| {
            events["items"]
                .as_array()
                .is_some_and(|items| items.iter().any(|event| event["object"]["name"] == pod && event["type"] == "Warning"))
        };
        if warned("crash") && warned("no-image") { Ok(()) } else { Err(events) }
    })
    .await;
    let mut frames = client.logs(&name("crash"), &LogQuery::default()).await.expect("logs");
    while let Some(frame) = frames.next().await.expect("the stream goes on") {
        said.add("a log", format!("{frame:?}"));
    }
    client.delete_pod(&name("web"), &DeleteQuery::default()).await.expect("a delete that isn't refused");
}

/// Manifests that are wrong beside a secret, or in it.
fn bad_manifests() -> Vec<String> {
    let with = |container: Value| json!([pod("bad", &json!({}), &container)]).to_string();
    vec![
        with(json!({"env": {"PASSWORD": [SECRET]}})),
        with(json!({"env": {"PASSWORD": {"value": SECRET}}})),
        with(json!({"env": [{"name": "PASSWORD", "value": [SECRET]}]})),
        with(json!({"env": [{"name": "PASSWORD", "value": SECRET}, {"name": "PASSWORD", "value": SECRET}]})),
        with(json!({"env": [format!("PASSWORD={SECRET}")]})),
        with(json!({"env": format!("PASSWORD={SECRET}")})),
        with(json!({"env": {"PASSWORD": SECRET}, "image": 7, "iamge": "x"})),
        format!("[{{\"type\": \"pod\", \"spec\": {{\"env\": \"{SECRET}\""),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_token_no_credential_and_no_secret_of_a_pod_is_logged_or_told() {
    let (ground, engine) = (Ground::new(), Engine::new());
    let mut leader = ground.leader("leader").with_log("trace");
    leader.start_ready().await;
    let (client, keys) = (ground.client(leader.address), Keys::new(&ground.token()));
    let mut follower = ground.follower(engine.node(), leader.address).with_log("trace");
    follower.start();
    node_ready(&client, engine.node()).await;
    let mut said = Said::default();
    work(&client, &mut said).await;
    let token = ground.token().expose().to_owned();
    for body in bad_manifests() {
        said.add("the answer to a bad manifest", ask(&leader, "POST", "/v1/apply", &token, &body).await);
    }
    let (now, stranger) = (Timestamp::now(), Keys::new(&Token::new("another cluster's").expect("not blank")));
    let expired = keys.mint(&Role::Admin, now - 1.hour());
    let credentials =
        [token.clone(), expired.clone(), stranger.mint(&Role::Admin, now), token[1..].to_owned(), keys.mint(&Role::Read, now)];
    for credential in &credentials {
        for (method, path) in [("GET", "/v1/nodes"), ("DELETE", "/v1/pods/none"), ("POST", "/v1/session"), ("GET", "/v1/none")] {
            said.add(format!("the answer to {method} {path}"), ask(&leader, method, path, credential, "").await);
        }
    }
    assert!(leader.log().contains("DEBUG refused"), "the log says more than usual: {}", leader.log());
    let events = client.events(&EventQuery::default()).await.expect("events");
    assert!(!events.items.is_empty());
    said.add("the events", serde_json::to_string(&events).expect("plain data"));
    let nodes = client.nodes(&ListQuery::default()).await.expect("nodes");
    said.add("the nodes", serde_json::to_string(&nodes).expect("plain data"));
    for (server, of) in [(&leader, "leader"), (&follower, "follower")] {
        said.add(format!("the log of the {of}"), server.log());
        said.add(format!("the command line of the {of}"), command_line(server));
    }
    said.nowhere("the token", &token);
    // Everything in the answers of curl and in the logs that is a JWT begins so.
    said.nowhere("a credential", expired.split('.').next().expect("a header"));
    said.nowhere("a pod's secret", SECRET);
    follower.kill();
}
