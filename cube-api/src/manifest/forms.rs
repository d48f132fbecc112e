//! The other ways to write a thing, brought to the one that the types know, before decoding.
//!
//! Works on trees, so that the marks stay those of what was typed. Knows the few places where people have a choice: labels as a list, a
//! container's environment as Kubernetes' list.

use std::collections::{HashMap, HashSet};

use super::decode::{Finding, near_or_all};
use super::path::{Path, Step};
use super::tree::{Entry, Node, Value};

/// Takes every second value of a key out of the tree. Serde would keep the last one of a map without a word.
pub(super) fn take_duplicates(node: &mut Node) -> Vec<Finding> {
    let mut found = Vec::new();
    duplicates_below(node, &mut found);
    let finding = |(steps, Entry { key, mark, .. })| Finding::at(mark, Path::from_inner(steps), format!("`{key}` is there twice"));
    found.into_iter().map(finding).collect()
}

/// Steps are innermost first: they are added on the way out, so that a tree without duplicates costs no paths.
fn duplicates_below(node: &mut Node, found: &mut Vec<(Vec<Step>, Entry)>) {
    let mut below = |child: &mut Node, step: &dyn Fn() -> Step| {
        let before = found.len();
        duplicates_below(child, found);
        found[before..].iter_mut().for_each(|(steps, _)| steps.push(step()));
    };
    match &mut node.value {
        Value::List(items) => items.iter_mut().enumerate().for_each(|(index, item)| below(item, &|| Step::Index(index))),
        Value::Map(entries) => {
            entries.iter_mut().for_each(|Entry { key, node, .. }| below(node, &|| Step::Key(key.clone())));
            found.extend(repeated(entries).into_iter().map(|entry| (vec![Step::Key(entry.key.clone())], entry)));
        }
        Value::Scalar { .. } | Value::Refused | Value::StandIn => {}
    }
}

/// Leaves the first entry of each key, gives the others back.
fn repeated(entries: &mut Vec<Entry>) -> Vec<Entry> {
    let mut seen = HashSet::with_capacity(entries.len());
    let mut again = Vec::new();
    for entry in std::mem::take(entries) {
        if seen.insert(entry.key.clone()) { entries.push(entry) } else { again.push(entry) }
    }
    again
}

/// A pod's labels and environments become maps.
pub(super) fn bring_to_maps(pod: &mut Node) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(labels) = pod.get_mut("metadata").and_then(|metadata| metadata.get_mut("labels")) {
        bring_to_map(labels, &Path::default().key("metadata").key("labels"), label, &mut findings);
    }
    let containers = pod.get_mut("spec").and_then(|spec| spec.get_mut("containers"));
    if let Some(Node { value: Value::List(containers), .. }) = containers {
        for (index, container) in containers.iter_mut().enumerate() {
            if let Some(env) = container.get_mut("env") {
                let path = Path::default().key("spec").key("containers").index(index).key("env");
                if matches!(env.value, Value::Scalar { .. }) && !env.is_null() {
                    findings.push(Finding::at(env.mark, path.clone(), "found a text; a map of names and values is expected".to_owned()));
                    env.value = Value::StandIn;
                }
                bring_to_map(env, &path, variable, &mut findings);
            }
        }
    }
    findings
}

/// What stands where a secret's maps are expected is not shown by the decoder's own words: it may be the secret.
pub(super) fn hide_values(secret: &mut Node) -> Vec<Finding> {
    let mut findings = Vec::new();
    for field in ["data", "stringData"] {
        let Some(node) = secret.get_mut(field) else { continue };
        if matches!(node.value, Value::Scalar { .. }) && !node.is_null() {
            findings.push(Finding::at(node.mark, Path::default().key(field), "found a text; a map of keys and values is expected"));
            node.value = Value::StandIn;
        }
    }
    findings
}

/// Makes a list's items entries of a map. What can't be one is a finding.
fn bring_to_map(node: &mut Node, path: &Path, entry_of: fn(&Node) -> Result<Entry, String>, findings: &mut Vec<Finding>) {
    let Value::List(items) = &node.value else { return };
    let mut entries: Vec<Entry> = Vec::with_capacity(items.len());
    let mut seen = HashMap::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        let entry = entry_of(item).and_then(|entry| match seen.insert(entry.key.clone(), index) {
            Some(first) => Err(format!("`{}` is there already, as [{first}]", entry.key)),
            None => Ok(entry),
        });
        match entry {
            Ok(entry) => entries.push(entry),
            Err(message) => findings.push(Finding::at(item.mark, path.index(index), message)),
        }
    }
    node.value = Value::Map(entries);
}

/// `"k=v"`, or `"k"` for an empty value.
fn label(item: &Node) -> Result<Entry, String> {
    let Value::Scalar { text, .. } = &item.value else {
        return Err(format!("found {}; a text `key=value` or `key` is expected", item.found()));
    };
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    let value = Value::Scalar { text: value.to_owned(), plain: false };
    Ok(Entry { key: key.to_owned(), mark: item.mark, node: Node { mark: item.mark, value } })
}

/// Kubernetes' `{name, value}`; without `value` it is empty. What was found instead isn't shown, nor for an environment that is a mere text: it may
/// be `PASSWORD=secret`, and messages end up in logs.
fn variable(item: &Node) -> Result<Entry, String> {
    let Value::Map(fields) = &item.value else {
        let found = if matches!(item.value, Value::Scalar { .. }) && !item.is_null() { "a text".to_owned() } else { item.found() };
        return Err(format!("found {found}; a map with name and value is expected"));
    };
    if let Some(unknown) = fields.iter().find(|field| field.key != "name" && field.key != "value") {
        return Err(match unknown.key.as_str() {
            "valueFrom" => "`valueFrom` is not in this version; write the value itself".to_owned(),
            key => format!("unknown field `{key}`; {}", near_or_all(key, &["name", "value"], "the fields")),
        });
    }
    let Some(Node { value: Value::Scalar { text: name, .. }, .. }) = item.get("name") else {
        return Err("the field `name` is missing".to_owned());
    };
    let empty = || Node { mark: item.mark, value: Value::Scalar { text: String::new(), plain: false } };
    let value = item.get("value").cloned().unwrap_or_else(empty);
    Ok(Entry { key: name.clone(), mark: item.mark, node: value })
}
