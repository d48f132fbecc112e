//! The other ways to write a thing, brought to the one that the types know, before decoding.
//!
//! Works on trees, so that the marks stay those of what was typed. Knows the few places where people have a choice: labels as a list; and the one
//! field whose default depends on others. (A container's environment in its two forms is its type's to read.)

use std::collections::{HashMap, HashSet};

use super::decode::Finding;
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

/// A pod's labels become a map. Of an environment, what stands where a map or a variable should is taken out without being shown: it may be
/// `PASSWORD=secret`, and messages end up in logs.
pub(super) fn bring_to_one_form(pod: &mut Node) -> Vec<Finding> {
    bring_to_one_form_below(pod, &Path::default())
}

/// The same for an owner of pods, and its template.
pub(super) fn bring_template_to_one_form(owner: &mut Node) -> Vec<Finding> {
    bring_both_to_one_form(owner, &Path::default())
}

/// The same for an owner of jobs, their template, and that one's.
pub(super) fn bring_job_template_to_one_form(owner: &mut Node) -> Vec<Finding> {
    let mut findings = bring_to_one_form(owner);
    let above = Path::default().key("spec").key("jobTemplate");
    if let Some(template) = owner.get_mut("spec").and_then(|spec| spec.get_mut("jobTemplate")) {
        findings.extend(bring_both_to_one_form(template, &above));
    }
    findings
}

fn bring_both_to_one_form(owner: &mut Node, above: &Path) -> Vec<Finding> {
    let mut findings = bring_to_one_form_below(owner, above);
    if let Some(template) = owner.get_mut("spec").and_then(|spec| spec.get_mut("template")) {
        findings.extend(bring_to_one_form_below(template, &above.key("spec").key("template")));
    }
    findings
}

/// `above` leads to what has the metadata and the spec.
fn bring_to_one_form_below(pod: &mut Node, above: &Path) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(labels) = pod.get_mut("metadata").and_then(|metadata| metadata.get_mut("labels")) {
        bring_to_map(labels, &above.key("metadata").key("labels"), label, &mut findings);
    }
    pod.get_mut("spec").into_iter().for_each(wait_for_claims);
    for list in ["initContainers", "containers"] {
        let containers = pod.get_mut("spec").and_then(|spec| spec.get_mut(list));
        if let Some(Node { value: Value::List(containers), .. }) = containers {
            for (index, container) in containers.iter_mut().enumerate() {
                if let Some(env) = container.get_mut("env") {
                    let path = above.key("spec").key(list).index(index).key("env");
                    take_texts(env, &path, &mut findings);
                }
            }
        }
    }
    findings
}

/// A pod with a named volume waits for the node that has it, unless it says otherwise, which is then refused. Written into the tree, because what was
/// decoded doesn't tell a default from the same word.
fn wait_for_claims(spec: &mut Node) {
    let Some(Node { value: Value::List(volumes), .. }) = spec.get("volumes") else { return };
    let claims = volumes.iter().any(|volume| volume.get("persistentVolumeClaim").is_some_and(|claim| !claim.is_null()));
    if !claims || spec.get("onNodeLoss").is_some() {
        return;
    }
    let mark = spec.mark;
    if let Value::Map(fields) = &mut spec.value {
        let value = Value::Scalar { text: "wait".to_owned(), plain: true };
        fields.push(Entry { key: "onNodeLoss".to_owned(), mark, node: Node { mark, value } });
    }
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

/// Stands in for a text that is to be an environment, or a variable in its list.
fn take_texts(env: &mut Node, path: &Path, findings: &mut Vec<Finding>) {
    let found = |node: &Node| if node.is_null() { "nothing" } else { "a text" };
    match &mut env.value {
        Value::Scalar { .. } => {
            let message = format!("found {}; a map of names and values is expected, or a list of variables", found(env));
            findings.push(Finding::at(env.mark, path.clone(), message));
            env.value = Value::StandIn;
        }
        Value::List(items) => {
            for (index, item) in items.iter_mut().enumerate().filter(|(_, item)| matches!(item.value, Value::Scalar { .. })) {
                let message = format!("found {}; a map with name and value is expected", found(item));
                findings.push(Finding::at(item.mark, path.index(index), message));
                item.value = Value::StandIn;
            }
        }
        Value::Map(_) | Value::Refused | Value::StandIn => {}
    }
}
