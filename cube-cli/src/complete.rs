//! What a shell asks while somebody types: the words that may come next, and the names of what is in the cluster.
//!
//! The shell runs `cube` with a variable set (`cube completion` prints how); clap knows the words, this file the names. Whoever types waits for it,
//! so it never takes longer than [`LIMIT`], and whatever fails is no names.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Arg, Command, CommandFactory};
use clap_complete::{ArgValueCompleter, CompleteEnv, CompletionCandidate};
use cube_api::classic::{Task, short_ids};
use cube_api::client::{Client, ClientError};
use cube_api::meta::ResourceKind;
use cube_api::routes::ListQuery;

use crate::cli::Cli;
use crate::config::Config;

/// The variable that a shell sets to ask: the shell's name.
pub const VARIABLE: &str = "CUBE_COMPLETE";

/// How long the leader may take.
const LIMIT: Duration = Duration::from_millis(300);

/// The most names: more than anybody chooses from, and what the leader answers within the limit.
const MOST: usize = 500;

/// The names that may stand for what is typed so far.
type Names = fn(&OsStr) -> Vec<CompletionCandidate>;

/// Which words of which commands are names. Here and not at each word, so that the commands know nothing of completion.
const NAMED: [(&str, &str, Names); 13] = [
    ("list", "kind", kind),
    ("get", "targets", resource),
    ("describe", "targets", resource),
    ("delete", "targets", resource),
    ("logs", "pod", pod),
    ("exec", "pod", pod),
    ("restart", "targets", resource),
    ("cordon", "nodes", node),
    ("uncordon", "nodes", node),
    ("drain", "node", node),
    ("label", "words", resource),
    ("stop", "tasks", task),
    ("events", "object", resource),
];

/// Answers a shell and ends the process, if one asks.
pub fn answer() {
    CompleteEnv::with_factory(command).var(VARIABLE).complete();
}

fn command() -> Command {
    NAMED.into_iter().fold(Cli::command(), |command, (verb, word, names)| {
        // `mut_arg` would put the word behind the others.
        let named = |arg: Arg| if arg.get_id() == word { arg.add(ArgValueCompleter::new(names)) } else { arg };
        command.mut_subcommand(verb, |verb| verb.mut_args(named))
    })
}

/// A type.
fn kind(typed: &OsStr) -> Vec<CompletionCandidate> {
    beginning_with(typed, ResourceKind::ALL.iter().map(ToString::to_string))
}

/// `TYPE/NAME`; or a type, then names of it.
fn resource(typed: &OsStr) -> Vec<CompletionCandidate> {
    if let Some(kind) = kind_before() {
        return names_beginning_with(typed, kind);
    }
    match typed.to_str().and_then(|text| text.split_once('/')) {
        Some((kind, _)) => match kind.parse() {
            Ok(parsed) => beginning_with(typed, names(parsed).into_iter().map(|name| format!("{kind}/{name}"))),
            Err(_) => Vec::new(),
        },
        None => beginning_with(typed, ResourceKind::ALL.iter().flat_map(|kind| [kind.to_string(), format!("{kind}/")])),
    }
}

/// A pod's name.
fn pod(typed: &OsStr) -> Vec<CompletionCandidate> {
    names_beginning_with(typed, ResourceKind::Pod)
}

/// A node's name.
fn node(typed: &OsStr) -> Vec<CompletionCandidate> {
    names_beginning_with(typed, ResourceKind::Node)
}

/// A task's ID, as short as `cube status` shows it, or its name.
fn task(typed: &OsStr) -> Vec<CompletionCandidate> {
    let pods = ask(async |client| Ok(client.pods(&ListQuery { limit: Some(MOST), ..ListQuery::default() }).await?.items));
    let ids: Vec<String> = pods.iter().map(Task::id_of).collect();
    beginning_with(typed, pods.iter().map(Task::name_of).chain(short_ids(&ids)))
}

/// The type that was typed as a word of its own, as in `cube get pod my-pod`: clap tells a completer of one word only.
fn kind_before() -> Option<ResourceKind> {
    let mut words: Vec<String> = std::env::args().skip_while(|word| word != "--").skip(3).collect();
    // The one that is being typed.
    words.pop();
    words.iter().find_map(|word| word.parse().ok())
}

fn names_beginning_with(typed: &OsStr, kind: ResourceKind) -> Vec<CompletionCandidate> {
    // As in `pod/web`, where a name alone would do.
    match typed.to_str().and_then(|text| text.split_once('/')) {
        Some((word, _)) if word.parse() == Ok(kind) => beginning_with(typed, names(kind).into_iter().map(|name| format!("{word}/{name}"))),
        Some(_) => Vec::new(),
        None => beginning_with(typed, names(kind)),
    }
}

fn beginning_with(typed: &OsStr, words: impl IntoIterator<Item = String>) -> Vec<CompletionCandidate> {
    let typed = typed.to_string_lossy();
    words.into_iter().filter(|word| word.starts_with(&*typed)).map(CompletionCandidate::new).collect()
}

fn names(kind: ResourceKind) -> Vec<String> {
    ask(async |client| Ok(client.names(kind, MOST).await?.iter().map(ToString::to_string).collect()))
}

/// Asks the leader, for a moment. Whatever goes wrong is nothing: it would be written into what somebody types.
fn ask<T>(question: impl AsyncFnOnce(Client) -> Result<Vec<T>, ClientError>) -> Vec<T> {
    let path = std::env::var_os("CUBE_CONFIG").map(PathBuf::from);
    let Ok(config) = Config::load_silently(path.as_deref()) else { return Vec::new() };
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return Vec::new() };
    let answered = runtime.block_on(async { tokio::time::timeout(LIMIT, question(config.client())).await });
    // What still resolves a name is left behind: the process ends.
    runtime.shutdown_background();
    answered.ok().and_then(Result::ok).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_that_is_a_name_is_there() {
        let command = command();
        command.clone().debug_assert();
        for (verb, word, _) in NAMED {
            let verb = command.find_subcommand(verb).unwrap_or_else(|| panic!("there is no {verb}"));
            let named = verb.get_arguments().filter(|arg| arg.get::<ArgValueCompleter>().is_some());
            assert_eq!(named.map(|arg| arg.get_id().as_str()).collect::<Vec<_>>(), [word], "{}", verb.get_name());
        }
    }
}
