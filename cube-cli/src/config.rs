//! Which leader to ask and with which password: `~/.cube/config`, overridden by `CUBE_LEADER_URL` and `CUBE_PASSWORD`.

use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use cube_api::address::{AddressError, LeaderAddress};
use cube_api::auth::Token;
use cube_api::client::Client;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{CliError, Result};

const LEADER_VARIABLE: &str = "CUBE_LEADER_URL";
const PASSWORD_VARIABLE: &str = "CUBE_PASSWORD";
/// What to write, word for word.
const EXAMPLE: &str = r#"{"leaderUrl": "localhost:4242", "password": "XXX"}"#;
/// A configuration is a line; more is another file by mistake.
const MAX_BYTES: u64 = 64 * 1024;

/// The file as it is written.
#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ConfigFile {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    leader_url: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    password: Option<String>,
}

impl ConfigFile {
    /// Reads the file's text. What is wrong is told without any value of it: one of them may be the password in the wrong place.
    fn parse(text: &str) -> std::result::Result<Self, String> {
        let json: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let Value::Object(fields) = json else { return Err("it is not a JSON object".to_owned()) };
        for (name, value) in &fields {
            match value {
                Value::String(_) | Value::Null => {}
                Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
                    return Err(format!("{name} is not a text in quotes"));
                }
            }
        }
        // Only a field's name can be wrong now, and that is told with its place.
        serde_json::from_str(text).map_err(|error| error.to_string())
    }
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The configuration file.
    File(PathBuf),
    /// An environment variable.
    Variable(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Variable(name) => f.write_str(name),
        }
    }
}

/// The configuration that counts.
pub struct Config {
    /// Who is asked.
    pub leader: LeaderAddress,
    /// Where that is written.
    pub leader_from: Origin,
    /// The cluster's token.
    pub token: Token,
    /// Where that is written.
    pub token_from: Origin,
}

impl Config {
    /// Reads the file and the environment; warns on standard error where others can read the password.
    pub fn load(path: Option<&Path>) -> Result<Self> {
        let config = Self::load_silently(path)?;
        if let Origin::File(path) = &config.token_from {
            warn_if_readable_by_others(path);
        }
        Ok(config)
    }

    /// As [`Config::load`], without the warning.
    pub fn load_silently(path: Option<&Path>) -> Result<Self> {
        let path = path_or_default(path)?;
        let leader = variable(LEADER_VARIABLE)?;
        let password = variable(PASSWORD_VARIABLE)?;
        let file = if leader.is_some() && password.is_some() { ConfigFile::default() } else { read_existing(&path)? };
        let (leader, leader_from) = choose(leader, LEADER_VARIABLE, file.leader_url, "leaderUrl", &path)?;
        let (password, token_from) = choose(password, PASSWORD_VARIABLE, file.password, "password", &path)?;
        let leader = leader.parse().map_err(|error: AddressError| CliError::usage(format!("{leader_from}: {error}")).hint(error.hint()))?;
        let token = Token::new(&password).ok_or_else(|| CliError::usage(format!("{token_from}: the password is empty")))?;
        Ok(Self { leader, leader_from, token, token_from })
    }

    /// A client for it.
    pub fn client(self) -> Client {
        Client::new(self.leader, self.token)
    }
}

/// Changes the file, keeping what isn't given. Answers where it is.
pub fn write(path: Option<&Path>, leader_url: Option<String>, password: Option<String>) -> Result<PathBuf> {
    let path = path_or_default(path)?;
    let old = read(&path)?.unwrap_or_default();
    let file = ConfigFile { leader_url: leader_url.or(old.leader_url), password: password.or(old.password) };
    let mut text = serde_json::to_string(&file).expect("two texts");
    text.push('\n');
    replace(&path, text.as_bytes()).map_err(|error| CliError::io(format!("can't write {}", path.display()), error))?;
    Ok(path)
}

/// Whole or not at all: a reader never sees half a file, and nobody but the owner ever sees the password.
fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let new = folder.join(name);
    let written = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new).and_then(|mut file| {
        file.write_all(text)?;
        file.sync_all()?;
        fs::rename(&new, path)
    });
    if written.is_err() {
        // What failed is what the user is told of; a left-over of it only uses space.
        fs::remove_file(&new).ok();
    }
    written
}

fn path_or_default(path: Option<&Path>) -> Result<PathBuf> {
    match path {
        Some(path) => Ok(path.to_owned()),
        None => dirs::home_dir().map(|home| home.join(".cube").join("config")).ok_or_else(|| {
            CliError::usage("there is no home folder to look for .cube/config in").hint("name the file by --config or CUBE_CONFIG")
        }),
    }
}

fn variable(name: &'static str) -> Result<Option<String>> {
    match std::env::var(name) {
        Ok(value) => Ok(Some(value)),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => Err(CliError::usage(format!("{name} is not text (UTF-8)"))),
    }
}

fn choose(variable: Option<String>, name: &'static str, in_file: Option<String>, field: &str, path: &Path) -> Result<(String, Origin)> {
    if let Some(value) = variable {
        return Ok((value, Origin::Variable(name)));
    }
    let value = in_file.ok_or_else(|| unusable(path, &format!("{} has no {field}", path.display())))?;
    Ok((value, Origin::File(path.to_owned())))
}

fn read_existing(path: &Path) -> Result<ConfigFile> {
    read(path)?.ok_or_else(|| unusable(path, &format!("there is no configuration at {}", path.display())))
}

fn read(path: &Path) -> Result<Option<ConfigFile>> {
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unusable(path, &format!("can't read {}: {error}", path.display()))),
    };
    let text = io::read_to_string(io::Read::take(file, MAX_BYTES))
        .map_err(|error| unusable(path, &format!("can't read {}: {error}", path.display())))?;
    ConfigFile::parse(&text).map(Some).map_err(|problem| unusable(path, &format!("{}: {problem}", path.display())))
}

fn unusable(path: &Path, message: &str) -> CliError {
    CliError::usage(message)
        .details([
            format!("{} should say, with your leader's address and token:", path.display()),
            format!("  {EXAMPLE}"),
        ])
        .hint(format!("write it with 'cube config set --leader-url localhost:4242 --password-file FILE', or set {LEADER_VARIABLE} and {PASSWORD_VARIABLE}"))
}

fn warn_if_readable_by_others(path: &Path) {
    let Ok(metadata) = fs::metadata(path) else { return };
    if metadata.mode() & 0o077 != 0 {
        let mode = metadata.mode() & 0o777;
        eprintln!("warning: others can read the password in {} (mode {mode:04o}): chmod 600 {}", path.display(), path.display());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_written_is_the_owners_alone_and_keeps_the_rest() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep").join("config");
        write(Some(&path), Some("a:1".to_owned()), None).map_err(|error| error.exit_code()).unwrap();
        write(Some(&path), None, Some("secret".to_owned())).map_err(|error| error.exit_code()).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "{\"leaderUrl\":\"a:1\",\"password\":\"secret\"}\n");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn a_password_in_the_wrong_place_is_not_told() {
        for text in ["\"S3cret\"", "{\"leaderUrl\": [\"S3cret\"]}", "[\"S3cret\"]", "{\"password\": {\"is\": \"S3cret\"}}"] {
            let problem = ConfigFile::parse(text).err().expect("it is no configuration");
            assert!(!problem.contains("S3cret"), "{text}: {problem}");
        }
    }

    proptest! {
        /// Whatever is in the file: a configuration, or a sentence; and what was read is written the same.
        #[test]
        fn any_text_is_a_configuration_or_says_why_not(text in "[{}\\[\\]\":,a-zA-Z0-9 \\\\\\n]{0,60}|.{0,60}", url in ".{0,20}", password in ".{0,20}") {
            if let Ok(file) = ConfigFile::parse(&text) {
                let written = serde_json::to_string(&file).unwrap();
                let again = ConfigFile::parse(&written).unwrap();
                prop_assert_eq!((again.leader_url, again.password), (file.leader_url, file.password));
            }
            let file = ConfigFile { leader_url: Some(url), password: Some(password) };
            let again = ConfigFile::parse(&serde_json::to_string(&file).unwrap()).unwrap();
            prop_assert_eq!((again.leader_url, again.password), (file.leader_url, file.password));
        }
    }
}
