//! `cube label`.

use clap::Args as ClapArgs;
use cube_api::client::Client;
use cube_api::meta::{LabelChanges, Name, ResourceKind};
use cube_api::routes::NodePatch;

use crate::error::{CliError, Result};
use crate::output::{self, print};
use crate::target::{self, Target};

/// The words of `cube label`.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  cube label node n1 disk=ssd          set one
  cube label node/n1 disk=hdd zone-    change one, take one away

What is said here counts over what the node announces (cube-server --label), also when it joins
again.")]
pub struct Args {
    /// node/NAME or node NAME, then KEY=VALUE to set a label and KEY- to take one away
    #[arg(value_name = "WORDS", required = true)]
    words: Vec<String>,
}

/// Changes labels.
pub async fn run(args: Args, client: impl FnOnce() -> Result<Client>) -> Result<()> {
    let (name, labels) = read(&args.words)?;
    let node = client()?.patch_node(&name, &NodePatch { labels }).await?;
    let labels = output::node::labels(&node.labels);
    print(&format!("node/{name} labelled: {}\n", if labels.is_empty() { "<none>" } else { &labels }))
}

fn read(words: &[String]) -> Result<(Name, LabelChanges)> {
    let named = words.len().min(if words[0].contains('/') { 1 } else { 2 });
    let (target, changes) = words.split_at(named);
    let name = match target::parse(target)? {
        Target::These(references) => match references.as_slice() {
            [reference] if reference.kind == ResourceKind::Node => reference.name.clone(),
            _ => {
                let hint = "a pod's are its manifest's: change metadata.labels there and apply it; its containers run on";
                return Err(CliError::usage("only a node is labelled so").hint(hint));
            }
        },
        Target::All(kind) => {
            return Err(CliError::usage(format!("which {kind} to label is not said")).hint("such as: cube label node n1 disk=ssd"));
        }
    };
    let mut labels = LabelChanges::new();
    for word in changes {
        let (key, value) = change(word)?;
        if labels.insert(key.clone(), value).is_some() {
            return Err(CliError::usage(format!("label {key} is given twice")));
        }
    }
    if labels.is_empty() {
        return Err(CliError::usage("no label is given").hint("KEY=VALUE sets one, KEY- takes one away"));
    }
    Ok((name, labels))
}

fn change(word: &str) -> Result<(String, Option<String>)> {
    match (word.split_once('='), word.strip_suffix('-')) {
        (Some((key, value)), _) => Ok((key.to_owned(), Some(value.to_owned()))),
        (None, Some(key)) => Ok((key.to_owned(), None)),
        (None, None) => Err(CliError::usage(format!("'{word}' is neither KEY=VALUE nor KEY-"))),
    }
}
