//! What is posted to run or stop a task, and the manifest of the pod that it is.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::de::{self, IgnoredAny, MapAccess, SeqAccess};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use uuid::Uuid;

use super::words::{BoundPort, Empty, PortKey, RestartWord, State};
use super::{TASK_ID, TASK_NAME};
use crate::error::Problem;
use crate::manifest::{self, PodManifest, Resource, label_value_problem};
use crate::meta::{Labels, Name};
use crate::pod::Protocol;
use crate::quantity::{Bytes, MilliCpu};

/// What a post asks for.
#[derive(Debug, Clone, PartialEq)]
pub enum Order {
    /// Run a task.
    Run(Box<Request>),
    /// Stop the task of this ID: the classic way is to post it once more, with the state that it is to have (Completed).
    Stop(Uuid),
}

/// A task to run, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// Its ID, if whoever asks has chosen one.
    pub id: Option<Uuid>,
    name: String,
    pod: PodManifest,
}

/// Reads a post's body: `{"ID", "State", "Task": {..}}` as the classic clients write it, or `{"name", "image", "command": [..]}`.
///
/// # Errors
/// Every problem, each with its place: unknown fields, values that aren't allowed, and what a pod can't be.
pub fn read(body: &[u8]) -> Result<Order, Vec<Problem>> {
    let keys = serde_json::from_slice::<BTreeMap<String, IgnoredAny>>(body).unwrap_or_default();
    let is_short = !keys.contains_key("Task") && ["name", "image", "command"].iter().any(|key| keys.contains_key(*key));
    if is_short {
        return manifest::read_object::<Short>(body).and_then(Short::check).map(Box::new).map(Order::Run);
    }
    let TaskEvent { state, task, .. } = manifest::read_object(body)?;
    match state.or(task.state) {
        None | Some(State::Pending | State::Scheduled | State::Running) => task.check().map(Box::new).map(Order::Run),
        Some(State::Completed) => match task.id() {
            Some(id) => Ok(Order::Stop(id)),
            None => Err(vec![problem("Task.ID", "a task to stop (state 3, Completed) is named by its ID")]),
        },
        Some(State::Failed) => Err(vec![problem("State", "a task can't be asked to fail: 0, 1 or 2 runs it, 3 (Completed) stops it")]),
    }
}

impl Request {
    /// The names that the pod may have, the first that is free: the task's name as a DNS label (lower case, `-` for all else, cut at 63), then the
    /// same with the first 8 digits of the ID, because tasks of several IDs may have one name.
    pub fn pod_names(&self, id: Uuid) -> [Name; 2] {
        let digits = &id.simple().to_string()[..8];
        let base = label_of(&self.name, Name::MAX_LEN);
        let longer = format!("{}-{digits}", label_of(&self.name, Name::MAX_LEN - 1 - digits.len()));
        [base, longer].map(|name| Name::new(name).expect("made of the characters of a label"))
    }

    /// The pod, under one of these names.
    pub fn pod(&self, name: &Name, id: Uuid) -> PodManifest {
        let mut pod = self.pod.clone();
        pod.metadata.name = name.clone();
        pod.metadata.labels = Labels::from([(TASK_ID.to_owned(), id.to_string())]);
        if name.as_str() != self.name {
            pod.metadata.labels.insert(TASK_NAME.to_owned(), self.name.clone());
        }
        for container in &mut pod.spec.containers {
            container.name = name.clone();
        }
        pod
    }
}

/// A name as a DNS label of at most so many characters: what it can't have is a `-`, several in a row are one, and none is at an end. Nothing left
/// is `task`.
fn label_of(name: &str, longest: usize) -> String {
    let mut label = String::with_capacity(name.len());
    for c in name.chars().map(|c| c.to_ascii_lowercase()) {
        match c {
            'a'..='z' | '0'..='9' => label.push(c),
            _ if label.is_empty() || label.ends_with('-') => {}
            _ => label.push('-'),
        }
    }
    label.truncate(longest);
    let label = label.trim_end_matches('-');
    if label.is_empty() { "task".to_owned() } else { label.to_owned() }
}

fn problem(path: &str, message: impl Into<String>) -> Problem {
    Problem { resource: None, path: path.to_owned(), message: message.into(), line: None, column: None }
}

/// `{"name", "image", "command"}`. As in a pod, the command replaces the image's entrypoint.
#[derive(Deserialize)]
struct Short {
    name: String,
    image: String,
    #[serde(default)]
    command: Vec<String>,
}

impl Short {
    fn check(self) -> Result<Request, Vec<Problem>> {
        let container = json!({"image": self.image, "command": self.command});
        checked(None, self.name, container, RestartWord::UNSAID, &|path| path.to_owned(), Vec::new())
    }
}

/// What the classic clients post.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct TaskEvent {
    /// Of the event; a task has its own.
    #[serde(default, rename = "ID")]
    _id: Option<Uuid>,
    /// What the task is to be: 0 to 2 running, 3 stopped.
    #[serde(default)]
    state: Option<State>,
    /// When the client made it.
    #[serde(default, rename = "Timestamp")]
    _timestamp: Option<String>,
    task: TaskSpec,
}

/// A task as it is asked for. Null and a type's zero are the same as nothing, as Go's clients write them.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct TaskSpec {
    #[serde(default, rename = "ID")]
    id: Option<Uuid>,
    name: String,
    #[serde(default)]
    state: Option<State>,
    image: String,
    /// Cores.
    #[serde(default)]
    cpu: Option<MilliCpu>,
    /// The same, as answers have it. No alias: what stands in for a task that can't be read has every name once.
    #[serde(default, rename = "CPU")]
    answered_cpu: Option<MilliCpu>,
    #[serde(default)]
    memory: Option<Bytes>,
    #[serde(default)]
    disk: Option<Bytes>,
    #[serde(default)]
    env: Option<Env>,
    #[serde(default)]
    exposed_ports: Option<BTreeMap<PortKey, Empty>>,
    #[serde(default)]
    port_bindings: Option<BTreeMap<PortKey, BoundPort>>,
    #[serde(default)]
    restart_policy: Option<RestartWord>,
    #[serde(default)]
    health_check: Option<String>,
    // What only the cluster writes is allowed, as `status` is in a manifest: so that what it answered, or a client's whole structure, can be posted.
    #[serde(default, rename = "ContainerID")]
    _container_id: Option<IgnoredAny>,
    #[serde(default, rename = "HostPorts")]
    _host_ports: Option<IgnoredAny>,
    #[serde(default, rename = "RestartCount")]
    _restart_count: Option<IgnoredAny>,
    #[serde(default, rename = "CreatedAt")]
    _created_at: Option<IgnoredAny>,
    #[serde(default, rename = "UpdatedAt")]
    _updated_at: Option<IgnoredAny>,
    #[serde(default, rename = "StartsAt")]
    _starts_at: Option<IgnoredAny>,
    #[serde(default, rename = "StartTime")]
    _start_time: Option<IgnoredAny>,
    #[serde(default, rename = "FinishedAt")]
    _finished_at: Option<IgnoredAny>,
    #[serde(default, rename = "FinishTime")]
    _finish_time: Option<IgnoredAny>,
}

impl TaskSpec {
    fn id(&self) -> Option<Uuid> {
        self.id.filter(|id| !id.is_nil())
    }

    fn check(self) -> Result<Request, Vec<Problem>> {
        let mut problems = Vec::new();
        let (id, bound) = (self.id(), self.port_bindings.unwrap_or_default());
        problems.extend(bound_twice(&bound));
        if self.cpu.is_some() && self.answered_cpu.is_some() {
            problems.push(problem("Task.CPU", "it is there twice: Cpu and CPU are one"));
        }
        // Docker publishes a bound port whether it is exposed or not, and the classic workers have it publish what is exposed: on a port that is free.
        let exposed = self.exposed_ports.unwrap_or_default().into_keys().map(|port| (port, BoundPort(0)));
        let ports: BTreeMap<PortKey, BoundPort> = exposed.chain(bound.iter().map(|(port, host)| (*port, *host))).collect();
        let mut container = json!({"image": self.image, "resources": resources(self.cpu.or(self.answered_cpu), self.memory, self.disk)});
        if let Some(env) = self.env {
            container["env"] = json!(env.variables(&mut problems));
        }
        let as_manifest = |(port, host): (&PortKey, &BoundPort)| {
            let protocol = match port.protocol {
                Protocol::Tcp => "TCP",
                Protocol::Udp => "UDP",
            };
            json!({"containerPort": port.number, "protocol": protocol, "hostPort": host.0})
        };
        container["ports"] = ports.iter().map(as_manifest).collect();
        match health_check(self.health_check.unwrap_or_default(), &ports, &bound) {
            Ok(probe) => probe.into_iter().for_each(|probe| container["livenessProbe"] = probe),
            Err(message) => problems.push(problem("Task.HealthCheck", message)),
        }
        let policy = self.restart_policy.unwrap_or(RestartWord::UNSAID);
        checked(id, self.name, container, policy, &field_of_task, problems)
    }
}

/// Two ports of a container that are to be the same port of the node.
fn bound_twice(bound: &BTreeMap<PortKey, BoundPort>) -> Option<Problem> {
    let mut taken = BTreeSet::new();
    let (port, host) = bound.iter().find(|(port, host)| host.0 != 0 && !taken.insert((host.0, port.protocol)))?;
    let path = format!("Task.PortBindings[\"{port}\"]");
    Some(problem(&path, format!("{} is the node's port of another port of this task already", host.0)))
}

/// What a task asks for is its limit and what is kept free for it; disk can't be limited.
fn resources(cpu: Option<MilliCpu>, memory: Option<Bytes>, disk: Option<Bytes>) -> Value {
    let (cpu, some) = (cpu.filter(|cpu| cpu.0 > 0), |bytes: Option<Bytes>| bytes.filter(|bytes| bytes.0 > 0));
    let mut resources = json!({"limits": {}, "requests": {}});
    if let Some(cpu) = cpu {
        resources["limits"]["cpu"] = json!(cpu);
    }
    if let Some(memory) = some(memory) {
        resources["limits"]["memory"] = json!(memory);
    }
    if let Some(disk) = some(disk) {
        resources["requests"]["disk"] = json!(disk);
    }
    resources
}

/// A GET of that path, answered with 200 to 399, on the port that is bound, else exposed; of several the lowest.
fn health_check(path: String, ports: &BTreeMap<PortKey, BoundPort>, bound: &BTreeMap<PortKey, BoundPort>) -> Result<Option<Value>, String> {
    if path.is_empty() {
        return Ok(None);
    }
    if !path.starts_with('/') {
        return Err("a path that begins with '/' is expected, such as /health".to_owned());
    }
    let tcp = |port: &&PortKey| port.protocol == Protocol::Tcp;
    let port = bound.keys().find(tcp).or_else(|| ports.keys().find(tcp));
    let port = port.ok_or("it is asked over a tcp port, and the task has none: write it into ExposedPorts, such as {\"7777/tcp\": {}}")?;
    Ok(Some(json!({"httpGet": {"path": path, "port": port.number}})))
}

/// The pod of a task with its container, checked by the rules of manifests; `of_task` tells which field of the task a pod's comes from.
fn checked(
    id: Option<Uuid>,
    name: String,
    mut container: Value,
    policy: RestartWord,
    of_task: &dyn Fn(&str) -> String,
    mut problems: Vec<Problem>,
) -> Result<Request, Vec<Problem>> {
    let wrong = if name.is_empty() { Some("a task has a name".to_owned()) } else { label_value_problem(&name) };
    if let Some(wrong) = wrong {
        problems.push(problem(&of_task("name"), wrong.replace("label value", "task's name")));
    }
    container["name"] = json!("task");
    let manifest = json!({
        "type": "pod", "metadata": {"name": "task"},
        "spec": {"restartPolicy": policy.0, "containers": [container]},
    });
    match manifest::from_json(manifest.to_string().as_bytes()) {
        Ok(resources) if problems.is_empty() => match resources.into_iter().next() {
            Some(Resource::Pod(pod)) => return Ok(Request { id, name, pod }),
            Some(_) | None => unreachable!("a manifest of one pod is one pod"),
        },
        Ok(_) => {}
        Err(found) => {
            let own = |problem: Problem| {
                let path = of_task(problem.path.strip_prefix("spec.containers[0].").unwrap_or(&problem.path));
                Problem { resource: None, path, line: None, column: None, ..problem }
            };
            problems.extend(found.into_iter().map(own));
        }
    }
    Err(problems)
}

/// The task's field that became a container's.
fn field_of_task(path: &str) -> String {
    const FIELDS: [(&str, &str); 9] = [
        ("name", "Name"),
        ("image", "Image"),
        ("env", "Env"),
        ("ports", "PortBindings"),
        ("livenessProbe", "HealthCheck"),
        ("resources.limits.cpu", "Cpu"),
        ("resources.limits.memory", "Memory"),
        ("resources.requests.disk", "Disk"),
        ("resources", "Cpu"),
    ];
    let field = FIELDS.iter().find(|(of_pod, _)| path.starts_with(of_pod)).map_or(path, |(_, of_task)| of_task);
    format!("Task.{field}")
}

/// Environment: Docker's list of `NAME=value`, or a map.
enum Env {
    List(Vec<String>),
    Map(BTreeMap<String, String>),
}

impl Env {
    /// By name; of a list, what is wrong with it. What was found isn't shown: it may be a secret, and messages end up in logs.
    fn variables(self, problems: &mut Vec<Problem>) -> BTreeMap<String, String> {
        let items = match self {
            Self::Map(env) => return env,
            Self::List(items) => items,
        };
        let mut env = BTreeMap::new();
        for (place, item) in items.iter().enumerate() {
            let path = format!("Task.Env[{place}]");
            match item.split_once('=') {
                None => problems.push(problem(&path, "a text such as NAME=value is expected")),
                Some((name, value)) => {
                    if env.insert(name.to_owned(), value.to_owned()).is_some() {
                        problems.push(problem(&path, format!("`{name}` is there twice")));
                    }
                }
            }
        }
        env
    }
}

impl<'de> Deserialize<'de> for Env {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Env;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of texts such as \"NAME=value\", or a map")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Env, A::Error> {
                Vec::deserialize(de::value::SeqAccessDeserializer::new(items)).map(Env::List)
            }
            fn visit_map<A: MapAccess<'de>>(self, entries: A) -> Result<Env, A::Error> {
                BTreeMap::deserialize(de::value::MapAccessDeserializer::new(entries)).map(Env::Map)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::pod::{ImagePullPolicy, PodSpec, RestartPolicy};

    const BOOK: &str = r#"{
        "ID": "a7aa1d44-08f6-443e-9378-f5884311019e", "State": 2,
        "Task": {
            "State": 1, "ID": "bb1d59ef-9fc1-4e4b-a44d-db571eeed203", "Name": "test-chapter-9.1", "Image": "timboring/echo-server:latest",
            "ExposedPorts": {"7777/tcp": {}}, "PortBindings": {"7777/tcp": "7777"}, "HealthCheck": "/health"
        }
    }"#;
    const ID: Uuid = Uuid::from_u128(0xbb1d_59ef_9fc1_4e4b_a44d_db57_1eee_d203);

    fn task(more: &str) -> String {
        format!(r#"{{"Task": {{"Name": "web", "Image": "nginx:1" {more}}}}}"#)
    }

    fn request(text: &str) -> Request {
        match read(text.as_bytes()) {
            Ok(Order::Run(request)) => *request,
            other => panic!("{other:?} of {text}"),
        }
    }

    fn spec(text: &str) -> PodSpec {
        request(text).pod(&Name::new("web").expect("a name"), ID).spec
    }

    /// `path: message` of each problem.
    fn problems(text: &str) -> Vec<String> {
        read(text.as_bytes())
            .expect_err(text)
            .iter()
            .map(|problem| Problem { line: None, column: None, ..problem.clone() }.to_string())
            .collect()
    }

    #[test]
    fn the_books_task_is_a_pod_with_its_port_and_its_health_check() {
        let request = request(BOOK);
        assert_eq!(request.id, Some(ID));
        let [name, _] = request.pod_names(ID);
        let pod = request.pod(&name, ID);
        let labels = [("cube.io/task-id", "bb1d59ef-9fc1-4e4b-a44d-db571eeed203"), ("cube.io/task-name", "test-chapter-9.1")];
        assert_eq!(
            (name.as_str(), pod.metadata.labels),
            ("test-chapter-9-1", Labels::from(labels.map(|(k, v)| (k.to_owned(), v.to_owned()))))
        );
        let [container] = pod.spec.containers.as_slice() else { panic!("{:?}", pod.spec) };
        assert_eq!((container.name.as_str(), container.image.as_str()), ("test-chapter-9-1", "timboring/echo-server:latest"));
        assert_eq!(container.image_pull_policy, ImagePullPolicy::IfNotPresent);
        let ports: Vec<_> = container.ports.iter().map(|port| (port.container_port, port.host_port, port.protocol)).collect();
        assert_eq!((ports, pod.spec.restart_policy), (vec![(7777, Some(7777), Protocol::Tcp)], RestartPolicy::OnFailure));
    }

    #[test]
    fn amounts_are_limits_and_zero_is_nothing() {
        let resources = |more: &str| spec(&task(more)).containers[0].resources;
        let asked = resources(r#", "Cpu": 0.5, "Memory": 64000000, "Disk": 1073741824"#);
        assert_eq!((asked.limits.cpu, asked.limits.memory, asked.limits.disk), (Some(MilliCpu(500)), Some(Bytes(64_000_000)), None));
        assert_eq!(
            (asked.reserved_cpu(), asked.reserved_memory(), asked.reserved_disk()),
            (MilliCpu(500), Bytes(64_000_000), Bytes(1 << 30))
        );
        assert_eq!(resources(r#", "CPU": 1.0"#).limits.cpu, Some(MilliCpu(1_000)));
        assert!(resources(r#", "Cpu": 0, "Memory": 0, "Disk": 0"#).is_empty());
    }

    #[test]
    fn what_a_go_client_writes_of_a_whole_task_is_understood() {
        let zeros = r#", "ID": "00000000-0000-0000-0000-000000000000", "ContainerID": "", "State": 0, "Cpu": 0, "Memory": 0, "Disk": 0,
            "ExposedPorts": null, "HostPorts": null, "PortBindings": null, "RestartPolicy": "", "StartTime": "0001-01-01T00:00:00Z",
            "FinishTime": "0001-01-01T00:00:00Z", "HealthCheck": "", "RestartCount": 0, "Env": null"#;
        let request = request(&task(zeros).replacen('{', r#"{"Timestamp": "", "#, 1));
        assert_eq!((request.id, request), (None, super::tests::request(&task(""))));
    }

    #[test]
    fn environment_is_dockers_list_or_a_map() {
        let env = |more: &str| serde_json::to_value(&spec(&task(more)).containers[0].env).expect("plain data");
        assert_eq!(env(r#", "Env": ["A=1", "B=x=y", "C="]"#), env(r#", "Env": {"A": "1", "B": "x=y", "C": ""}"#));
        assert_ne!(env(r#", "Env": ["A=1"]"#), env(""));
        assert_eq!(problems(&task(r#", "Env": ["A=1", "secret"]"#)), ["Task.Env[1]: a text such as NAME=value is expected"]);
        assert_eq!(problems(&task(r#", "Env": ["A=1", "A=2"]"#)), ["Task.Env[1]: `A` is there twice"]);
    }

    #[test]
    fn the_short_form_is_a_name_an_image_and_a_command() {
        let spec = spec(r#"{"name": "web", "image": "busybox", "command": ["sh", "-c", "sleep 1"]}"#);
        assert_eq!((spec.containers[0].command.len(), spec.restart_policy), (3, RestartPolicy::OnFailure));
        assert_eq!(
            problems(r#"{"name": "web", "image": "BusyBox", "comand": []}"#)[0],
            "comand: unknown field `comand`; did you mean `command`?"
        );
        assert!(
            problems(r#"{"name": "", "image": "BusyBox"}"#).iter().any(|problem| problem.starts_with("image: `BusyBox` is not an image"))
        );
    }

    #[test]
    fn completed_stops_what_the_id_names() {
        let stop = r#"{"State": 3, "Task": {"State": 3, "ID": "bb1d59ef-9fc1-4e4b-a44d-db571eeed203", "ContainerID": "b9", "Name": "x", "Image": "y"}}"#;
        assert_eq!(read(stop.as_bytes()), Ok(Order::Stop(ID)));
        assert_eq!(
            problems(r#"{"State": 3, "Task": {"Name": "x", "Image": "y"}}"#),
            ["Task.ID: a task to stop (state 3, Completed) is named by its ID"]
        );
        assert!(problems(r#"{"State": "Failed", "Task": {"Name": "x", "Image": "y"}}"#)[0].starts_with("State: "));
    }

    #[test]
    fn everything_that_is_wrong_is_said_at_once_with_its_field() {
        let found = problems(&task(
            r#", "Imge": "x", "Memory": "lots", "RestartPolicy": "sometimes", "ExposedPorts": {"7777": {}}, "PortBindings": {"80/tcp": "x"}"#,
        ));
        assert_eq!(
            found,
            [
                "Task.Imge: unknown field `Imge`; did you mean `Image`?",
                "Task.Memory: 'lots' is not an amount of memory or disk: bytes, or a number with Ki, Mi, Gi, Ti, k, M, G or T, such as 64Mi",
                "Task.RestartPolicy: `sometimes` is no restart policy: no, always, unless-stopped, on-failure, or nothing (on-failure) is expected",
                "Task.ExposedPorts.7777: `7777` is no port such as 7777/tcp or 53/udp",
                "Task.PortBindings[\"80/tcp\"]: `x` is no port: 1 to 65535, or 0 for a free one",
            ]
        );
        assert_eq!(problems("{}"), ["the field `Task` is missing"]);
        assert_eq!(problems(r#"{"Task": {"Name": "x", "Name": "y", "Image": "z"}}"#), ["Task.Name: `Name` is there twice"]);
        assert!(problems("[1")[0].contains("not JSON"));
    }

    #[test]
    fn the_rules_of_pods_are_told_in_the_tasks_words() {
        let found = problems(&task(r#", "Memory": 1024, "HealthCheck": "health", "PortBindings": {"1/tcp": "80", "2/tcp": 80}"#));
        let starts = |text: &str| found.iter().any(|problem| problem.starts_with(text));
        assert!(starts("Task.Memory: 1Ki is below Docker's least limit"), "{found:?}");
        assert!(starts("Task.HealthCheck: a path that begins with '/'"), "{found:?}");
        assert!(starts("Task.PortBindings[\"2/tcp\"]: 80 is the node's port of another port"), "{found:?}");
        assert!(problems(&task(r#", "HealthCheck": "/x""#))[0].contains("the task has none"));
        let image = problems(r#"{"Task": {"Name": "Web_1", "Image": "N"}}"#);
        assert!(image[0].starts_with("Task.Image: `N` is not an image reference"), "{image:?}");
        assert!(problems(r#"{"Task": {"Name": "a b", "Image": "n"}}"#)[0].starts_with("Task.Name: `a b` is no task's name"));
    }

    #[test]
    fn names_become_labels_by_one_rule() {
        for (name, label) in
            [("web", "web"), ("test-chapter-9.1", "test-chapter-9-1"), ("My__Task", "my-task"), ("-.x.-", "x"), ("..", "task")]
        {
            assert_eq!(label_of(name, 63), label, "{name}");
        }
        let request = request(&task("").replace("web", &format!("{}a", "a.".repeat(31))));
        let names = request.pod_names(ID).map(|name| name.as_str().len());
        assert!(names[0] <= 63 && names[1] <= 63, "{names:?}");
    }

    proptest! {
        #[test]
        fn every_task_that_is_taken_has_names_for_its_pod(name in "[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?", id: u128) {
            let id = Uuid::from_u128(id);
            let request = request(&task("").replace("web", &name));
            let [first, second] = request.pod_names(id);
            prop_assert_ne!(&first, &second);
            prop_assert!(second.as_str().ends_with(&id.simple().to_string()[..8]));
            let pod = request.pod(&second, id);
            let text = serde_json::to_string(&[Resource::Pod(pod.clone())]).expect("plain data");
            prop_assert_eq!(manifest::from_json(text.as_bytes()), Ok(vec![Resource::Pod(pod)]));
        }

        #[test]
        fn no_body_panics(text in "\\PC{0,60}|\\{(\"(ID|State|Task|Name|name|image)\": ?([0-9]|null|\\{\\}|\\[\\]|\"x\"),?){0,4}\\}") {
            let _ = read(text.as_bytes());
        }
    }
}
