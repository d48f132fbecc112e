//! Logins for registries, out of a Docker `config.json` or out of a secret, and which of them are for an image. No calls but one: to read a file.
//!
//! The rules of matching are Kubernetes': a login is for `HOST[:PORT][/PATH]`, where parts of the host may be `*`.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cube_api::sources::Hidden;
use serde::Deserialize;

use crate::follower::runtime::{Login, Password};

/// Kubernetes' name of the key that holds a `config.json` in a secret.
pub const DOCKER_CONFIG: &str = ".dockerconfigjson";

/// The longest file that is read: thousands of registries.
const MAX_FILE: u64 = 1 << 20;

/// Docker's own registry, by the name that images of it have.
const HUB: &str = "docker.io";

/// Logins in the order in which they are tried.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Logins(Vec<(Place, Login)>);

/// What a login is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    /// `HOST[:PORT]`, where the whole of a part between dots may be `*`.
    host: String,
    /// `team/app`, or nothing.
    path: String,
}

/// Why logins can't be read. Nothing of what is in them is told.
#[derive(Debug, thiserror::Error)]
pub enum LoginsError {
    /// The file can't be read.
    #[error("{}: {problem}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        problem: String,
    },
    /// It is no `config.json` of Docker's.
    #[error("it is not a Docker config.json: {problem}")]
    NotConfig {
        /// What is wrong, without a word of what is in it.
        problem: String,
    },
    /// A registry's entry says nothing that can be used.
    #[error("the entry of registry '{registry}' {problem}")]
    Entry {
        /// Which.
        registry: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// A secret has neither of the two forms.
    #[error("it has neither the key '{DOCKER_CONFIG}' nor the three keys registry, username and password")]
    NoLogin,
}

/// A Docker `config.json`, as far as it concerns logins.
#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
    #[serde(default, rename = "credsStore")]
    helper: Option<String>,
    #[serde(default, rename = "credHelpers")]
    helpers: BTreeMap<String, String>,
}

#[derive(Deserialize, Default)]
struct Entry {
    #[serde(default)]
    auth: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    identitytoken: String,
}

/// Reads a node's file, which nobody else may read.
///
/// # Errors
/// If it can't be read, if others can read it, or if it is no `config.json`.
pub fn read_file(path: &Path) -> Result<Logins, LoginsError> {
    let failed = |problem: String| LoginsError::File { path: path.to_owned(), problem };
    let io_failed = |error: io::Error| failed(error.to_string());
    let file = fs::File::open(path).map_err(io_failed)?;
    let mode = file.metadata().map_err(io_failed)?.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(failed(format!("others can read it (mode {mode:04o}), and it holds passwords: chmod 600 {}", path.display())));
    }
    let mut text = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut text).map_err(io_failed)?;
    if text.len() as u64 > MAX_FILE {
        return Err(failed(format!("it is longer than {MAX_FILE} bytes")));
    }
    of_config(&text).map_err(|error| failed(error.to_string()))
}

/// The logins of a `config.json`.
///
/// # Errors
/// If it is none, or if an entry says nothing that can be used: passwords that a helper keeps, for one.
pub fn of_config(text: &[u8]) -> Result<Logins, LoginsError> {
    // serde's own words may quote what is there.
    let wrong = |error: serde_json::Error| LoginsError::NotConfig { problem: format!("line {}, column {}", error.line(), error.column()) };
    let Config { auths, helper, helpers } = serde_json::from_slice(text).map_err(wrong)?;
    let mut logins = Vec::new();
    for (registry, entry) in auths {
        let has_helper = helper.is_some() || helpers.contains_key(&registry);
        let password = password(&entry).map_err(|problem| match problem {
            NO_PASSWORD if has_helper => LoginsError::Entry { registry: registry.clone(), problem: KEPT_BY_HELPER },
            problem => LoginsError::Entry { registry: registry.clone(), problem },
        })?;
        logins.push((Place::of(&registry), password));
    }
    Ok(Logins::in_order(logins))
}

/// The logins of a secret: Kubernetes' [`DOCKER_CONFIG`], or the keys `registry`, `username` and `password`.
///
/// # Errors
/// If it has neither, or if what it has says nothing that can be used.
pub fn of_secret(data: &BTreeMap<String, Hidden>) -> Result<Logins, LoginsError> {
    if let Some(Hidden(config)) = data.get(DOCKER_CONFIG) {
        return of_config(config);
    }
    let text = |key: &str| data.get(key).and_then(|value| std::str::from_utf8(&value.0).ok()).map(str::trim_end).map(str::to_owned);
    match (text("registry"), text("username"), text("password")) {
        (Some(registry), Some(user), Some(password)) => Ok(Logins::in_order(vec![(Place::of(&registry), Password::Of { user, password })])),
        (None | Some(_), None | Some(_), None | Some(_)) => Err(LoginsError::NoLogin),
    }
}

const NO_PASSWORD: &str = "has neither auth, nor username and password, nor identitytoken";
const KEPT_BY_HELPER: &str = "has its password in a credential helper, which cube doesn't run: write it as auth (base64 of USER:PASSWORD)";
const NO_BASE64: &str = "has an auth that is not the base64 of USER:PASSWORD";

fn password(entry: &Entry) -> Result<Password, &'static str> {
    let Entry { auth, username, password, identitytoken } = entry;
    if !identitytoken.is_empty() {
        return Ok(Password::Token(identitytoken.clone()));
    }
    if !username.is_empty() {
        return Ok(Password::Of { user: username.clone(), password: password.clone() });
    }
    if auth.is_empty() {
        return Err(NO_PASSWORD);
    }
    let text = STANDARD.decode(auth).ok().and_then(|bytes| String::from_utf8(bytes).ok()).ok_or(NO_BASE64)?;
    let (user, password) = text.split_once(':').ok_or(NO_BASE64)?;
    Ok(Password::Of { user: user.to_owned(), password: password.trim_end_matches('\0').to_owned() })
}

impl Logins {
    fn in_order(found: Vec<(Place, Password)>) -> Self {
        let login = |(place, password): (Place, Password)| {
            let registry = place.host.clone();
            (place, Login { registry, password })
        };
        let mut logins: Vec<_> = found.into_iter().map(login).collect();
        // What is said of a folder goes before what is said of its whole registry, and that before what is said of many.
        logins.sort_by_key(|(place, _)| (std::cmp::Reverse(place.path.len()), place.host.contains('*')));
        Self(logins)
    }

    /// These, then others.
    #[must_use]
    pub fn before(mut self, others: Self) -> Self {
        self.0.extend(others.0);
        self
    }

    /// Those that are for an image, in order.
    pub fn of(&self, image: &str) -> Vec<Login> {
        let (host, path) = home_of(image);
        self.0.iter().filter(|(place, _)| place.holds(host, &path)).map(|(_, login)| login.clone()).collect()
    }
}

/// The registry that an image reference names, and its repository there.
fn home_of(image: &str) -> (&str, String) {
    let name = image.split('@').next().unwrap_or(image);
    let name = match name.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name,
        Some(_) | None => name,
    };
    match name.split_once('/') {
        Some((host, path)) if host.contains(['.', ':']) || host == "localhost" => (hub_or(host), path.to_owned()),
        Some(_) => (HUB, name.to_owned()),
        None => (HUB, format!("library/{name}")),
    }
}

/// Docker's own registry has several names.
fn hub_or(host: &str) -> &str {
    match host {
        "index.docker.io" | "registry-1.docker.io" => HUB,
        other => other,
    }
}

impl Place {
    /// Of a key as `docker login` and people write it: `https://index.docker.io/v1/`, `r.example.com/team`.
    fn of(key: &str) -> Self {
        let rest = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let path = path.trim_matches('/');
        // The API's version, from the times when it was part of a registry's address.
        let path = if path == "v1" || path == "v2" { "" } else { path };
        Self { host: hub_or(host).to_owned(), path: path.to_owned() }
    }

    fn holds(&self, host: &str, path: &str) -> bool {
        let (mut wanted, mut given) = (self.host.split('.'), host.split('.'));
        let same_host = loop {
            match (wanted.next(), given.next()) {
                (None, None) => break true,
                (Some("*"), Some(_)) => {}
                (Some(wanted), Some(given)) if wanted == given => {}
                (Some(_) | None, Some(_) | None) => break false,
            }
        };
        let below = |folder: &str| path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        same_host && (self.path.is_empty() || below(&self.path))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.path)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn users(logins: &Logins, image: &str) -> Vec<String> {
        let user = |login: Login| match login.password {
            Password::Of { user, password } => format!("{user}:{password}"),
            Password::Token(token) => token,
        };
        logins.of(image).into_iter().map(user).collect()
    }

    fn config(json: serde_json::Value) -> Result<Logins, LoginsError> {
        of_config(json.to_string().as_bytes())
    }

    #[test]
    fn a_login_is_for_its_registry_and_its_folder_and_the_nearest_goes_first() {
        let entry = |user: &str| serde_json::json!({ "username": user, "password": "p" });
        let logins = config(serde_json::json!({ "auths": {
            "https://index.docker.io/v1/": entry("hub"),
            "r.example.com": entry("all"),
            "r.example.com/team": entry("team"),
            "*.example.com": entry("any"),
            "localhost:5000": { "auth": STANDARD.encode("local:a:b") },
            "t.example.org": { "identitytoken": "token" },
        } }))
        .expect("a config");
        for (image, expected) in [
            ("nginx", vec!["hub:p"]),
            ("team/app:1", vec!["hub:p"]),
            ("docker.io/library/nginx@sha256:ab", vec!["hub:p"]),
            ("r.example.com/team/app:1", vec!["team:p", "all:p", "any:p"]),
            ("r.example.com/teams/app", vec!["all:p", "any:p"]),
            ("s.example.com/app", vec!["any:p"]),
            ("s.t.example.com/app", vec![]),
            ("example.com/app", vec![]),
            ("localhost:5000/app", vec!["local:a:b"]),
            ("localhost:5001/app", vec![]),
            ("t.example.org/app", vec!["token"]),
        ] {
            assert_eq!(users(&logins, image), expected, "{image}");
        }
    }

    #[test]
    fn a_secret_has_kubernetes_form_or_three_keys() {
        let of = |pairs: &[(&'static str, &'static str)]| {
            of_secret(&pairs.iter().map(|(key, value)| ((*key).to_owned(), Hidden(value.as_bytes().into()))).collect())
        };
        let three = of(&[("registry", "r.example.com"), ("username", "me"), ("password", "secret\n")]).expect("a login");
        assert_eq!(users(&three, "r.example.com/app"), ["me:secret"]);
        let config = of(&[(DOCKER_CONFIG, r#"{"auths": {"r.example.com": {"auth": "bWU6c2VjcmV0"}}}"#)]).expect("a login");
        assert_eq!(users(&config, "r.example.com/app"), ["me:secret"]);
        assert!(matches!(of(&[("registry", "r.example.com"), ("username", "me")]), Err(LoginsError::NoLogin)));
        assert_eq!(users(&three.before(config), "r.example.com/app").len(), 2);
    }

    #[test]
    fn what_can_t_be_used_is_said_without_a_word_of_what_is_in_it() {
        let problem = |json| config(json).expect_err("no logins").to_string();
        let empty = problem(serde_json::json!({ "auths": { "r.example.com": {} } }));
        assert!(empty.contains("'r.example.com' has neither auth, nor"), "{empty}");
        let kept = problem(serde_json::json!({ "auths": { "r.example.com": {} }, "credsStore": "desktop" }));
        assert!(kept.contains("in a credential helper, which cube doesn't run"), "{kept}");
        assert!(problem(serde_json::json!({ "auths": { "r": { "auth": "hunter2!" } } })).contains("not the base64 of USER:PASSWORD"));
        let typed = problem(serde_json::json!({ "auths": { "r": { "password": 7_734 } } }));
        assert!(typed.starts_with("it is not a Docker config.json: line 1") && !typed.contains("7734"), "{typed}");
    }

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("config.json");
        fs::write(&file, r#"{"auths": {"r.example.com": {"auth": "bWU6c2VjcmV0"}}}"#).expect("written");
        let set = |mode| fs::set_permissions(&file, fs::Permissions::from_mode(mode)).expect("its mode is set");
        set(0o640);
        let refused = read_file(&file).expect_err("a refusal").to_string();
        assert!(refused.contains("others can read it (mode 0640), and it holds passwords: chmod 600"), "{refused}");
        set(0o600);
        assert_eq!(users(&read_file(&file).expect("logins"), "r.example.com/app"), ["me:secret"]);
        assert!(read_file(&folder.path().join("none")).expect_err("a refusal").to_string().contains("none: No such file"));
    }
}
