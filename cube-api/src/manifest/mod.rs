//! Manifests: what people write, read and checked, with all errors at once.
//!
//! The way of a text: `tree` (values with marks) -> `forms` (the other ways to write a thing) -> `decode` (into the types, past every
//! error) -> `validate` (the rules beyond the shape). JSON takes the same way, because YAML's parser reads it and keeps the marks; a
//! request's body first tries a shorter one (`json`), which keeps none. Nothing here knows a cluster: whether a pod exists already or fits anywhere is the leader's to say.

mod decode;
mod forms;
mod image;
mod json;
mod path;
mod tree;
mod typed;
mod validate;

use std::borrow::Cow;
use std::collections::{BTreeMap, btree_map};
use std::sync::Arc;

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use self::typed::read_object;
pub use self::validate::{label_key_problem, label_value_problem};

use self::decode::Finding;
use self::path::Path;
use self::tree::{Entry, Mark, Node, Value};
use crate::config::ConfigManifest;
use crate::cronjob::CronJobManifest;
use crate::deployment::DeploymentManifest;
use crate::error::Problem;
use crate::job::JobManifest;
use crate::meta::{Labels, Name, Owner, ResourceKind, ResourceRef, Revision, Uid};
use crate::pod::PodSpec;
use crate::secret::SecretManifest;

/// The most bytes of a manifest or a request's body.
pub const MAX_BYTES: usize = 4 * 1024 * 1024;

/// One resource of a manifest, checked.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Resource {
    /// A pod.
    Pod(PodManifest),
    /// A secret.
    Secret(SecretManifest),
    /// A config.
    Config(ConfigManifest),
    /// A deployment.
    Deployment(Box<DeploymentManifest>),
    /// A job.
    Job(JobManifest),
    /// A cronjob.
    CronJob(CronJobManifest),
}

impl Resource {
    /// The name people use for it.
    pub fn reference(&self) -> ResourceRef {
        ResourceRef { kind: self.kind(), name: self.metadata().name.clone() }
    }

    /// Its type.
    pub fn kind(&self) -> ResourceKind {
        match self {
            Self::Pod(_) => ResourceKind::Pod,
            Self::Secret(_) => ResourceKind::Secret,
            Self::Config(_) => ResourceKind::Config,
            Self::Deployment(_) => ResourceKind::Deployment,
            Self::Job(_) => ResourceKind::Job,
            Self::CronJob(_) => ResourceKind::CronJob,
        }
    }

    /// Its name and labels.
    pub fn metadata(&self) -> &ManifestMetadata {
        match self {
            Self::Pod(pod) => &pod.metadata,
            Self::Secret(secret) => &secret.metadata,
            Self::Config(config) => &config.metadata,
            Self::Deployment(deployment) => &deployment.metadata,
            Self::Job(job) => &job.metadata,
            Self::CronJob(cronjob) => &cronjob.metadata,
        }
    }
}

/// A pod as it is written down.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodManifest {
    /// Its name and labels.
    pub metadata: ManifestMetadata,
    /// What it should be.
    pub spec: PodSpec,
    // `status` and `placement` are allowed in the text, so that what `cube get -o yaml` printed can be applied; they are the cluster's to write.
}

/// The metadata that a manifest may carry.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ManifestMetadata {
    /// Unique among the resources of its type.
    pub name: Name,
    /// A map; a list of `"k=v"` or `"k"` is read as one.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// Apply only if the live resource has this uid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<Uid>,
    /// Apply only if the live resource is at this revision; otherwise a conflict (compare and set).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<Revision>,
    /// Read only: allowed so that what was printed can be applied.
    #[serde(default, skip_serializing)]
    pub generation: Option<u64>,
    /// Read only, as `generation`.
    #[serde(default, skip_serializing)]
    pub created_at: Option<Timestamp>,
    /// Read only, as `generation`.
    #[serde(default, skip_serializing)]
    pub deletion_requested_at: Option<Timestamp>,
    /// Read only, as `generation`.
    #[serde(default, skip_serializing)]
    pub owner: Option<Owner>,
}

/// The most problems that one answer lists: more than anybody repairs at a time, and each costs a try at decoding.
const MAX_PROBLEMS: usize = 64;

/// The types that manifests have: all but nodes, which announce themselves.
const TYPES: [&str; 6] = ["pod", "job", "cronjob", "deployment", "secret", "config"];

/// The types that the design has and this version doesn't.
const LATER_TYPES: [&str; 1] = ["service"];

/// Reads a manifest's text, JSON or YAML: one resource, or a list. The problems carry lines and columns.
///
/// YAML may have several documents, each of them a resource or a list. A value without quotes is a text exactly as typed (`no`, `1.20`)
/// wherever a text is wanted.
///
/// # Errors
/// Every problem of every resource, in the order of the text, at most 65; where the text can't be read at all, the one that stopped it.
pub fn parse(text: &str) -> Result<Vec<Resource>, Vec<Problem>> {
    if text.len() > MAX_BYTES {
        return Err(vec![too_large()]);
    }
    let documents = tree::read(&escaped(text)).map_err(|error| {
        // Truncated JSON is explained better by a parser that knows only JSON.
        let json = text.trim_start().starts_with(['{', '[']).then(|| check_json(text).err()).flatten();
        vec![json.unwrap_or_else(|| at(error.mark, error.message))]
    })?;
    resources_of(documents)
}

/// Reads a request's JSON body with the same rules as [`parse`].
///
/// # Errors
/// As [`parse`], and for what is YAML but not JSON.
pub fn from_json(body: &[u8]) -> Result<Vec<Resource>, Vec<Problem>> {
    if body.len() > MAX_BYTES {
        return Err(vec![too_large()]);
    }
    let text = std::str::from_utf8(body).map_err(|error| vec![whole(format!("not UTF-8 after {} bytes", error.valid_up_to()))])?;
    // Nearly every body is in order: it came from a client that has read it with the same rules.
    if let Some(document) = json::read(text)
        && let Ok(resources) = resources_of(vec![document])
    {
        return Ok(resources);
    }
    check_json(text).map_err(|problem| vec![problem])?;
    parse(text)
}

/// JSON strings may hold characters that YAML wants escaped (DEL, for one). In valid JSON they are nowhere else; YAML stays as it is.
fn escaped(text: &str) -> Cow<'_, str> {
    let wants_escape = |c: char| matches!(c, '\u{7f}'..='\u{9f}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}');
    if !text.contains(wants_escape) || check_json(text).is_err() {
        return Cow::Borrowed(text);
    }
    let escape = |c: char| if wants_escape(c) { format!("\\u{:04x}", u32::from(c)) } else { c.to_string() };
    Cow::Owned(text.chars().map(escape).collect())
}

fn too_large() -> Problem {
    whole(format!("larger than {} MiB, the most of a manifest; apply it in parts", MAX_BYTES >> 20))
}

/// Whether a text is JSON. Costs no memory and no stack, however deep it nests.
fn check_json(text: &str) -> Result<(), Problem> {
    serde_json::from_str::<serde::de::IgnoredAny>(text).map(|_| ()).map_err(|error| {
        let words = error.to_string();
        let position = format!(" at line {} column {}", error.line(), error.column());
        let message = format!("not JSON: {}", words.strip_suffix(&position).unwrap_or(&words));
        at(Mark { line: error.line(), column: error.column().max(1) }, message)
    })
}

fn whole(message: String) -> Problem {
    Problem { resource: None, path: String::new(), message, line: None, column: None }
}

fn at(mark: Mark, message: String) -> Problem {
    Problem { line: Some(mark.line), column: Some(mark.column), ..whole(message) }
}

fn resources_of(documents: Vec<Node>) -> Result<Vec<Resource>, Vec<Problem>> {
    let nodes: Vec<Node> = documents.into_iter().filter(|document| !document.is_null()).flat_map(into_resources).collect();
    if nodes.is_empty() {
        return Err(vec![whole("no resource in it; a manifest is a resource such as a pod, or a list of them".to_owned())]);
    }
    let (mut resources, mut problems) = (Vec::with_capacity(nodes.len()), Vec::new());
    let mut seen = BTreeMap::new();
    for (index, node) in nodes.into_iter().enumerate() {
        let (title, mark) = (title_of(&node, index), node.mark);
        if title.is_name {
            match seen.entry(title.text.clone()) {
                btree_map::Entry::Vacant(free) => drop(free.insert(mark.line)),
                btree_map::Entry::Occupied(first) => {
                    let message = format!("another resource of this name begins on line {}", first.get());
                    problems.push(Problem { resource: Some(title.text.clone()), ..at(mark, message) });
                }
            }
        }
        match resource_of(node, MAX_PROBLEMS.saturating_sub(problems.len())) {
            Ok(resource) => resources.push(resource),
            Err(found) => problems.extend(found.into_iter().map(|problem| Problem { resource: Some(title.text.clone()), ..problem })),
        }
        if problems.len() > MAX_PROBLEMS {
            problems.truncate(MAX_PROBLEMS);
            problems.push(whole("there are more problems; these first".to_owned()));
            break;
        }
    }
    if problems.is_empty() { Ok(resources) } else { Err(problems) }
}

/// A document's resources: a list's items, also of one that `cube list -o yaml` printed (`{revision, items}`), or the one that it is.
fn into_resources(mut document: Node) -> Vec<Node> {
    if is_printed_list(&document)
        && let Some(items) = document.take("items")
    {
        document = items.node;
    }
    match document.value {
        Value::List(items) => items,
        value @ (Value::Scalar { .. } | Value::Map(_) | Value::Refused | Value::StandIn) => vec![Node { mark: document.mark, value }],
    }
}

/// Whether it is a map of just `items`, a list, and the list's `revision`: anything else would be a field that is accepted and ignored.
fn is_printed_list(document: &Node) -> bool {
    let Value::Map(entries) = &document.value else { return false };
    let has_items = matches!(document.get("items").map(|items| &items.value), Some(Value::List(_)));
    has_items && entries.iter().all(|entry| matches!(entry.key.as_str(), "items" | "revision"))
}

/// What a resource is called in its problems.
struct Title {
    text: String,
    /// `pod/web`, and not just `resource 3`.
    is_name: bool,
}

fn title_of(node: &Node, index: usize) -> Title {
    let scalar = |node: Option<&Node>| match node.map(|node| &node.value) {
        Some(Value::Scalar { text, .. }) => Some(text.clone()),
        Some(Value::List(_) | Value::Map(_) | Value::Refused | Value::StandIn) | None => None,
    };
    let kind = scalar(node.get("type")).filter(|kind| TYPES.contains(&kind.as_str()));
    let name = scalar(node.get("metadata").and_then(|metadata| metadata.get("name"))).and_then(|name| Name::new(name).ok());
    match kind.zip(name) {
        Some((kind, name)) => Title { text: format!("{kind}/{name}"), is_name: true },
        None => Title { text: format!("resource {}", index + 1), is_name: false },
    }
}

/// Decodes and checks one resource, and finds at most about `room` problems.
fn resource_of(mut node: Node, room: usize) -> Result<Resource, Vec<Problem>> {
    let mut findings = forms::take_duplicates(&mut node);
    let resource = match take_type(&mut node) {
        Ok((kind, found)) => {
            findings.extend(found);
            decoded(kind, &mut node, room.max(1), &mut findings)
        }
        Err(finding) => {
            findings.push(finding);
            None
        }
    };
    match resource {
        Some(resource) if findings.is_empty() => Ok(resource),
        Some(_) | None => {
            let mut problems: Vec<Problem> = findings.into_iter().map(|finding| located(&node, finding)).collect();
            problems.sort_by_key(|problem| (problem.line, problem.column));
            Err(problems)
        }
    }
}

/// A resource of a type. A node isn't one: [`take_type`] has refused it.
fn decoded(kind: ResourceKind, node: &mut Node, room: usize, findings: &mut Vec<Finding>) -> Option<Resource> {
    findings.extend(match kind {
        ResourceKind::Job | ResourceKind::Deployment => forms::bring_template_to_one_form(node),
        ResourceKind::CronJob => forms::bring_job_template_to_one_form(node),
        ResourceKind::Pod | ResourceKind::Node | ResourceKind::Secret | ResourceKind::Config | ResourceKind::Volume => {
            forms::bring_to_one_form(node)
        }
    });
    match kind {
        ResourceKind::Pod => {
            let mut pod = checked(node, room, findings, validate::pod)?;
            normalize(&mut pod.spec);
            Some(Resource::Pod(pod))
        }
        ResourceKind::Secret => {
            findings.extend(forms::hide_values(node));
            checked(node, room, findings, validate::secret).map(Resource::Secret)
        }
        ResourceKind::Config => checked(node, room, findings, validate::config).map(Resource::Config),
        ResourceKind::Deployment => {
            let mut deployment = checked(node, room, findings, validate::deployment)?;
            normalize(Arc::make_mut(&mut deployment.spec.template.spec));
            Some(Resource::Deployment(Box::new(deployment)))
        }
        ResourceKind::Job => {
            let mut job = checked(node, room, findings, validate::job)?;
            normalize(Arc::make_mut(&mut job.spec.template.spec));
            Some(Resource::Job(job))
        }
        ResourceKind::CronJob => {
            let mut cronjob = checked(node, room, findings, validate::cronjob)?;
            normalize(Arc::make_mut(&mut cronjob.spec.job_template.spec.template.spec));
            Some(Resource::CronJob(cronjob))
        }
        ResourceKind::Node | ResourceKind::Volume => None,
    }
}

/// One way to say each thing that can be said in several: specs that mean the same are equal.
fn normalize(spec: &mut PodSpec) {
    let PodSpec { init_containers, containers, .. } = spec;
    init_containers.iter_mut().chain(containers).for_each(|container| container.env.normalize());
}

fn checked<T: DeserializeOwned>(node: &mut Node, room: usize, findings: &mut Vec<Finding>, validate: fn(&T) -> Vec<Finding>) -> Option<T> {
    let (resource, found) = decode::decode::<T>(node, room);
    findings.extend(found);
    if let Some(resource) = &resource {
        let invalid = validate(resource).into_iter().map(|finding| Finding { path: node.spelled(&finding.path), ..finding });
        // What was said of a field that couldn't be read isn't said again of what stands in for it.
        findings.extend(invalid.filter(|finding| !node.locate(&finding.path).1));
    }
    resource
}

/// A finding with its place in the text.
fn located(node: &Node, finding: Finding) -> Problem {
    let mark = finding.mark.unwrap_or_else(|| node.locate(&finding.path).0);
    Problem { path: finding.path.to_string(), ..at(mark, finding.message) }
}

/// Finds out a resource's type, and takes out what is not the resource's own: its type, and what only the cluster writes.
///
/// Kubernetes' way to say it is a finding that keeps nothing else from being found; such a resource is read as a pod. The error is a resource of
/// which nothing more can be said.
fn take_type(node: &mut Node) -> Result<(ResourceKind, Vec<Finding>), Finding> {
    if !matches!(node.value, Value::Map(_)) {
        let message = format!("found {}; a resource is expected: a map with type, metadata and spec", node.found());
        return Err(Finding::new(Path::default(), message));
    }
    let [kind, api_version, foreign_kind, ..] = ["type", "apiVersion", "kind", "status", "placement", "history"].map(|key| node.take(key));
    let foreign = api_version.or(foreign_kind).map(|Entry { key, mark, .. }| {
        let message = "cube manifests say `type: pod` where Kubernetes' say `apiVersion` and `kind`";
        Finding::at(mark, Path::default().key(&key), message)
    });
    match (kind, foreign) {
        (Some(kind), foreign) => match type_of(&kind.node) {
            Err(message) => Err(Finding::at(kind.mark, Path::default().key("type"), message)),
            Ok(known) => Ok((known, foreign.into_iter().collect())),
        },
        (None, Some(foreign)) => Ok((ResourceKind::Pod, vec![foreign])),
        (None, None) => Err(Finding::new(Path::default(), "the field `type` is missing; write `type: pod`")),
    }
}

/// What a `type` says, or why it says nothing.
fn type_of(kind: &Node) -> Result<ResourceKind, String> {
    let all = || format!("the types are {}", TYPES.join(", "));
    let Value::Scalar { text, .. } = &kind.value else { return Err(format!("found {}; {}", kind.found(), all())) };
    match ResourceKind::ALL.into_iter().find(|kind| kind.as_str() == text) {
        Some(ResourceKind::Volume) => {
            Err("a volume is not applied: the first pod that names it in a `persistentVolumeClaim` makes it, on the pod's node".to_owned())
        }
        Some(ResourceKind::Node) => Err("a node is not applied: it announces itself when `cube-server follower` starts".to_owned()),
        Some(known) => Ok(known),
        None if LATER_TYPES.contains(&text.as_str()) => Err(format!("`{text}` is not in this version; {}", all())),
        None => Err(format!("unknown type `{}`; {}", tree::excerpt(text), decode::near_or_all(text, &TYPES, "the types"))),
    }
}

#[cfg(test)]
mod tests;
