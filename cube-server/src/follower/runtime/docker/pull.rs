//! Pulls: Docker's answer to one goes on for as long as the pull does, and its error comes inside it.
//!
//! Asked for without bollard, which writes a login into its header in the usual base64 where Docker reads the one for URLs, so that a password with
//! a `?` or a `~` at the wrong place is no login at all, and Docker says nothing of it.

use std::collections::BTreeMap;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE;
use serde::Deserialize;

use super::streams::{self, JsonLines, NotOpened};
use super::translate;
use crate::follower::runtime::{Login, PULL_IDLE, Password, PullProgress, RuntimeError};
use crate::latest;

const OPERATION: &str = "pull the image";

/// Docker's header for a login.
const LOGIN: &str = "x-registry-auth";

/// Layers whose progress is counted; an image has at most 127.
const MAX_LAYERS: usize = 256;

/// A line of Docker's answer.
#[derive(Deserialize)]
struct Line {
    /// The layer.
    id: Option<String>,
    status: Option<String>,
    #[serde(rename = "progressDetail")]
    progress: Option<Progress>,
    /// That the pull failed, and why.
    error: Option<String>,
}

#[derive(Deserialize)]
struct Progress {
    current: Option<i64>,
    total: Option<i64>,
}

/// Pulls an image, until it is there or can't be had.
pub async fn pull(socket: &Path, image: &str, login: Option<&Login>, progress: &latest::Sender<PullProgress>) -> Result<(), RuntimeError> {
    let target = format!("/images/create?fromImage={}", super::escaped(&with_tag(image)));
    let header = login.map(|login| (LOGIN, header(login)));
    let opening = streams::post(socket, OPERATION, &target, header);
    // Docker says nothing before the registry's first answer: it is the registry that hangs.
    let body = match tokio::time::timeout(PULL_IDLE, opening).await {
        Ok(Ok(body)) => body,
        Ok(Err(NotOpened::Answered { message, .. })) => return Err(translate::pull_error(&message, login.is_some())),
        Ok(Err(NotOpened::Broken(error))) => return Err(error),
        Err(_) => return Err(RuntimeError::Image { problem: format!("the registry didn't answer in {} seconds", PULL_IDLE.as_secs()) }),
    };
    let (mut lines, mut layers) = (JsonLines::new(body), BTreeMap::new());
    loop {
        let line = tokio::time::timeout(PULL_IDLE, lines.next_whole()).await.map_err(|_| RuntimeError::Image {
            problem: format!("the pull of '{image}' made no progress for {} seconds", PULL_IDLE.as_secs()),
        })?;
        // Only the answer's end is a success; a connection that breaks is none.
        let Some(line) = line? else { return Ok(()) };
        match serde_json::from_slice::<Line>(&line) {
            Ok(Line { error: Some(problem), .. }) => {
                return Err(translate::pull_error(&problem, login.is_some()));
            }
            Ok(line) => note_progress(&mut layers, line, progress),
            // Of a newer Docker's words only those count that are known.
            Err(_) => {}
        }
    }
}

/// A login as Docker takes it.
fn header(login: &Login) -> String {
    let Login { registry, password } = login;
    let json = match password {
        Password::Of { user, password } => serde_json::json!({ "username": user, "password": password, "serveraddress": registry }),
        Password::Token(token) => serde_json::json!({ "identitytoken": token, "serveraddress": registry }),
    };
    URL_SAFE.encode(json.to_string())
}

/// The reference with a tag or digest: Docker's API would pull every tag of a bare name.
fn with_tag(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    if last.contains([':', '@']) { image.to_owned() } else { format!("{image}:latest") }
}

/// Adds one line of a pull to the sums over its layers.
fn note_progress(layers: &mut BTreeMap<String, PullProgress>, line: Line, progress: &latest::Sender<PullProgress>) {
    let (Some(layer), Some(Progress { current: Some(current), total: Some(total) })) = (line.id, line.progress) else {
        return;
    };
    // "Extracting" counts from 0 again: only what arrives is shown.
    if line.status.as_deref() != Some("Downloading") || layers.len() >= MAX_LAYERS {
        return;
    }
    let bytes = |count: i64| u64::try_from(count).unwrap_or(0);
    layers.insert(layer, PullProgress { current: bytes(current), total: bytes(total) });
    let sum = |part: fn(&PullProgress) -> u64| layers.values().map(part).sum();
    progress.send_replace(PullProgress { current: sum(|layer| layer.current), total: sum(|layer| layer.total) });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_name_means_its_latest_tag_and_never_all_of_them() {
        for (given, pulled) in [
            ("nginx", "nginx:latest"),
            ("localhost:5000/nginx", "localhost:5000/nginx:latest"),
            ("nginx:1", "nginx:1"),
            ("nginx@sha256:ab", "nginx@sha256:ab"),
        ] {
            assert_eq!(with_tag(given), pulled);
        }
    }

    #[test]
    fn a_login_is_in_the_base64_that_docker_reads() {
        let password = Password::Of { user: "robot".to_owned(), password: "??>>~~".to_owned() };
        let header = header(&Login { registry: "r.example.com".to_owned(), password });
        assert!(!header.contains(['+', '/']), "{header}");
        let json: serde_json::Value = serde_json::from_slice(&URL_SAFE.decode(header).expect("base64")).expect("json");
        assert_eq!(json, serde_json::json!({ "username": "robot", "password": "??>>~~", "serveraddress": "r.example.com" }));
    }

    /// Docker says nothing before the registry's first answer, and takes the request all the same.
    #[tokio::test(start_paused = true)]
    async fn a_registry_that_hangs_is_the_image_s_trouble_and_not_the_engine_s() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let socket = folder.path().join("docker.sock");
        let _silent = tokio::net::UnixListener::bind(&socket).expect("a socket");
        let refused = pull(&socket, "r.example.com/app:1", None, &latest::channel(PullProgress::default()).0).await.expect_err("no answer");
        assert!(!refused.is_engine_trouble());
        assert_eq!(refused.to_string(), "the registry didn't answer in 60 seconds");
    }
}
