//! What people and scripts read: tables, pages, JSON and YAML. Pure text; printing itself is [`print()`].

pub mod age;
pub mod event;
pub mod node;
pub mod object;
pub mod page;
pub mod pod;
pub mod style;
pub mod table;
pub mod task;

use std::io::Write;

use clap::ValueEnum;
use cube_api::meta::{ResourceKind, ResourceRef, Revision};
use serde::Serialize;

use crate::error::{CliError, Result};

/// `-o`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A table with more columns
    Wide,
    /// The whole object, as JSON
    Json,
    /// The whole object, as YAML; it can be applied again
    Yaml,
    /// TYPE/NAME alone
    Name,
}

/// Writes to standard output.
pub fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|error| CliError::io("can't write the output", error))
}

/// An object with its type in front, so that what was printed can be applied.
#[derive(Serialize)]
pub struct Typed<'a, T> {
    #[serde(rename = "type")]
    kind: ResourceKind,
    #[serde(flatten)]
    object: &'a T,
}

impl<'a, T> Typed<'a, T> {
    /// Puts a type in front.
    pub fn new(kind: ResourceKind, object: &'a T) -> Self {
        Self { kind, object }
    }
}

/// Several objects, and the revision at which they were so.
#[derive(Serialize)]
pub struct TypedList<'a, T> {
    revision: Revision,
    items: Vec<Typed<'a, T>>,
}

impl<'a, T> TypedList<'a, T> {
    /// Puts a type in front of each.
    pub fn new(kind: ResourceKind, revision: Revision, items: &'a [T]) -> Self {
        Self { revision, items: items.iter().map(|object| Typed::new(kind, object)).collect() }
    }
}

/// JSON, indented, with a last newline.
pub fn json(value: &impl Serialize) -> String {
    let mut text = serde_json::to_string_pretty(value).expect("resources are plain data");
    text.push('\n');
    text
}

/// YAML, with a last newline.
pub fn yaml(value: &impl Serialize) -> String {
    let mut text = serde_saphyr::to_string(value).expect("resources are plain data");
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

/// `pod/a` on a line each.
pub fn names(references: impl IntoIterator<Item = ResourceRef>) -> String {
    references.into_iter().map(|reference| format!("{reference}\n")).collect()
}

#[cfg(test)]
mod tests {
    use cube_api::manifest::{self, Resource};
    use cube_api::pod::Pod;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_was_printed_can_be_applied() {
        let awkward =
            ["no", "", "1.0", "a: b", "two\nlines\n", " led", "# x", "null", "~", "0o7", "2026-01-01", "'\"\\", "\ttab", "- a", "é"];
        let env: serde_json::Map<_, _> = awkward.iter().enumerate().map(|(n, text)| (format!("V{n}"), json!(text))).collect();
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {
                "name": "web", "uid": "00000000-0000-4000-8000-000000000001", "generation": 1, "revision": 1,
                "createdAt": "2026-01-01T00:00:00Z", "labels": {"on": "yes"},
            },
            "spec": {"containers": [{"name": "a", "image": "b:1", "env": env, "command": ["sh", "-c", "echo 1\n  echo 2"]}]},
        }))
        .unwrap();
        let typed = Typed::new(ResourceKind::Pod, &pod);
        for text in [yaml(&typed), json(&typed)] {
            let parsed = manifest::parse(&text).unwrap_or_else(|problems| panic!("{problems:?} in\n{text}"));
            let [Resource::Pod(manifest)] = parsed.as_slice() else { panic!("{parsed:?}") };
            assert_eq!((&manifest.spec, &manifest.metadata.labels), (&*pod.spec, &*pod.metadata.labels), "{text}");
        }
    }
}
