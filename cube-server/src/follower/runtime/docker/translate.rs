//! Docker's words into ours: states, errors, names and labels, each in one place. No calls.

use std::collections::HashMap;
use std::net::IpAddr;

use bollard::errors::Error;
use bollard::models::{
    ContainerCreateBody, ContainerInspectResponse, ContainerState, ContainerStateStatusEnum, HostConfig, HostConfigLogConfig, PortBinding,
};
use cube_api::meta::Uid;
use cube_api::pod::{HostPort, Protocol, PublishedPort};
use jiff::Timestamp;

use crate::follower::runtime::{
    Binding, ContainerId, ContainerSpec, Identity, Observed, RunState, RuntimeError, SandboxSpec, Scope, Spare,
};

/// Whose cluster a container is.
pub const CLUSTER: &str = "io.cube.cluster";
/// Whose node's.
pub const NODE: &str = "io.cube.node";
/// Which life of a pod.
pub const POD_UID: &str = "io.cube.pod.uid";
const POD_NAME: &str = "io.cube.pod.name";
/// Absent on a sandbox.
const CONTAINER: &str = "io.cube.container";
const ATTEMPT: &str = "io.cube.attempt";
/// The sandbox that an app container joined; absent on a sandbox.
const SANDBOX: &str = "io.cube.sandbox";

/// What a container is for where it isn't for a pod: [`SPARE`].
const ROLE: &str = "io.cube.role";
/// A sandbox that was made before any pod needed it. Docker changes no labels, so it stays one when a pod takes it; its name tells the pod then.
const SPARE: &str = "spare";

/// The longest of Docker's sentences that is passed on, in bytes: a failed mount can quote pages.
const MAX_WORDS: usize = 400;

/// What to create a sandbox with.
pub fn sandbox_body(spec: &SandboxSpec, image: &str) -> ContainerCreateBody {
    let mut bindings: HashMap<String, Option<Vec<PortBinding>>> = HashMap::new();
    for port in &spec.published {
        let binding = PortBinding { host_ip: port.host_ip.map(|ip| ip.to_string()), host_port: Some(port.host_port.to_string()) };
        bindings.entry(port_key(port)).or_default().get_or_insert_default().push(binding);
    }
    ContainerCreateBody {
        hostname: spec.hostname.clone(),
        exposed_ports: Some(bindings.keys().cloned().collect()),
        ..pause_body(labels(&spec.scope, &spec.identity, None), image, bindings)
    }
}

/// What to create a spare sandbox with: what a pod's would be that publishes no port and asks for no host name.
pub fn spare_body(scope: &Scope, image: &str) -> ContainerCreateBody {
    let labels = [(CLUSTER, scope.cluster.to_string()), (NODE, scope.node.to_string()), (ROLE, SPARE.to_owned())];
    pause_body(labels.map(|(key, value)| (key.to_owned(), value)).into(), image, HashMap::new())
}

fn pause_body(labels: HashMap<String, String>, image: &str, bindings: HashMap<String, Option<Vec<PortBinding>>>) -> ContainerCreateBody {
    ContainerCreateBody {
        image: Some(image.to_owned()),
        labels: Some(labels),
        host_config: Some(HostConfig {
            port_bindings: Some(bindings),
            // It writes nothing: a log driver would only cost a file and a copier.
            log_config: Some(HostConfigLogConfig { typ: Some("none".to_owned()), config: None }),
            readonly_rootfs: Some(true),
            // Not Kubernetes' oom_score_adj of -998: an engine without CAP_SYS_RESOURCE (rootless, nested) can't start such a container at
            // all, and a process of a few pages is the last that the kernel picks anyway.
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    }
}

/// What `80/tcp` is bound to; what isn't to be read is no binding of ours.
fn bindings_of(key: &str, bound: Vec<PortBinding>) -> Vec<Binding> {
    let Some((container_port, protocol)) = key.split_once('/') else { return Vec::new() };
    let protocol = match protocol {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        _ => return Vec::new(),
    };
    let Ok(container_port) = container_port.parse() else { return Vec::new() };
    let host = |binding: PortBinding| {
        let ip = binding.host_ip.and_then(|ip| ip.parse::<IpAddr>().ok()).filter(|ip| !ip.is_unspecified());
        Some(HostPort { port: binding.host_port?.parse().ok()?, protocol, ip })
    };
    bound.into_iter().filter_map(host).map(|host| Binding { container_port, host }).collect()
}

fn port_key(port: &PublishedPort) -> String {
    let protocol = match port.protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    };
    format!("{}/{protocol}", port.container_port)
}

/// What to create an app container with. Host name, ports and addresses are the sandbox's: Docker refuses them together with a joined network.
pub fn container_body(spec: &ContainerSpec) -> ContainerCreateBody {
    let words = |words: &[String]| (!words.is_empty()).then(|| words.to_vec());
    let limits = &spec.resources.limits;
    let whole = |amount: u64| i64::try_from(amount).unwrap_or(i64::MAX);
    let memory = limits.memory.map(|bytes| whole(bytes.0));
    let rotation = [("max-size", "10m"), ("max-file", "5")].map(|(key, value)| (key.to_owned(), value.to_owned()));
    ContainerCreateBody {
        image: Some(spec.image.clone()),
        entrypoint: words(&spec.command),
        // With an entrypoint of ours, Docker leaves the image's command out by itself, as Kubernetes does.
        cmd: words(&spec.args),
        env: Some(spec.env.iter().map(|(key, value)| format!("{key}={value}")).collect()),
        working_dir: spec.working_dir.clone(),
        tty: Some(spec.tty),
        open_stdin: Some(spec.stdin),
        labels: Some(labels(&spec.scope, &spec.identity, Some(&spec.sandbox))),
        host_config: Some(HostConfig {
            network_mode: Some(format!("container:{}", spec.sandbox.0)),
            log_config: Some(HostConfigLogConfig { typ: Some("json-file".to_owned()), config: Some(HashMap::from(rotation)) }),
            nano_cpus: limits.cpu.map(|cpu| whole(cpu.0.saturating_mul(1_000_000))),
            memory,
            // Equal to memory: no swap on top, as a limit should be what it says.
            memory_swap: memory,
            // Kubernetes' scale: a core is 1024 shares; the kernel takes no less than 2.
            cpu_shares: spec.resources.requests.cpu.or(limits.cpu).map(|cpu| whole(cpu.0.saturating_mul(1024) / 1000).max(2)),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    }
}

fn labels(scope: &Scope, identity: &Identity, sandbox: Option<&ContainerId>) -> HashMap<String, String> {
    let mut labels = HashMap::from([
        (CLUSTER.to_owned(), scope.cluster.to_string()),
        (NODE.to_owned(), scope.node.to_string()),
        (POD_UID.to_owned(), identity.uid.to_string()),
        (POD_NAME.to_owned(), identity.pod.to_string()),
        (ATTEMPT.to_owned(), identity.attempt.to_string()),
    ]);
    labels.extend(identity.container.as_ref().map(|name| (CONTAINER.to_owned(), name.to_string())));
    labels.extend(sandbox.map(|id| (SANDBOX.to_owned(), id.0.clone())));
    labels
}

/// Whether a container carries this scope.
pub fn is_in(scope: &Scope, labels: &HashMap<String, String>) -> bool {
    labels.get(CLUSTER) == Some(&scope.cluster.to_string()) && labels.get(NODE).map(String::as_str) == Some(scope.node.as_str())
}

/// Whose a container is; none where its labels aren't cube's or were tampered with.
pub fn scope(labels: &HashMap<String, String>) -> Option<Scope> {
    Some(Scope { cluster: labels.get(CLUSTER)?.parse().ok()?, node: labels.get(NODE)?.parse().ok()? })
}

/// What a container's labels say it is for; none where they are not ours or were tampered with.
fn identity(labels: &HashMap<String, String>) -> Option<Identity> {
    let container = match labels.get(CONTAINER) {
        Some(name) => Some(name.parse().ok()?),
        None => None,
    };
    Some(Identity {
        uid: labels.get(POD_UID)?.parse().ok()?,
        pod: labels.get(POD_NAME)?.parse().ok()?,
        container,
        attempt: labels.get(ATTEMPT)?.parse().ok()?,
    })
}

/// The labels, beside its scope's, that every spare has, taken or not.
pub fn spare_label() -> String {
    format!("{ROLE}={SPARE}")
}

/// Whose container it is, by its labels, or by its name where it was made as a spare.
pub fn pod_uid(labels: &HashMap<String, String>, name: &str) -> Option<Uid> {
    match is_spare(labels) {
        true => Identity::of_sandbox_name(name).map(|identity| identity.uid),
        false => labels.get(POD_UID)?.parse().ok(),
    }
}

fn is_spare(labels: &HashMap<String, String>) -> bool {
    labels.get(ROLE).is_some_and(|role| role == SPARE)
}

/// Docker's names begin with a slash.
pub fn plain_name(name: &str) -> &str {
    name.trim_start_matches('/')
}

/// A spare that no pod has; none for anything else.
pub fn spare(container: &ContainerInspectResponse) -> Option<Spare> {
    let labels = container.config.as_ref()?.labels.as_ref()?;
    let taken = Identity::of_sandbox_name(plain_name(container.name.as_deref()?)).is_some();
    let state = run_state(container.state.as_ref()?);
    (is_spare(labels) && !taken).then(|| Spare { id: ContainerId(container.id.clone().unwrap_or_default()), state })
}

/// A container as Docker's `inspect` tells it; none where its labels aren't those of one of ours, or it is a spare that no pod has.
pub fn observed(container: ContainerInspectResponse) -> Option<Observed> {
    let name = container.name.unwrap_or_default();
    let config = container.config.unwrap_or_default();
    let labels = config.labels.unwrap_or_default();
    let ip = container.network_settings.and_then(|settings| settings.networks).and_then(|networks| {
        let mut addresses = networks.into_values().filter_map(|network| network.ip_address?.parse::<IpAddr>().ok());
        addresses.next()
    });
    let bindings = container.host_config.and_then(|config| config.port_bindings).unwrap_or_default();
    let mut bindings: Vec<_> = bindings.into_iter().flat_map(|(key, bound)| bindings_of(&key, bound.unwrap_or_default())).collect();
    bindings.sort_by_key(|binding| (binding.container_port, binding.host));
    Some(Observed {
        bindings,
        id: ContainerId(container.id?),
        identity: if is_spare(&labels) { Identity::of_sandbox_name(plain_name(&name))? } else { identity(&labels)? },
        sandbox: labels.get(SANDBOX).cloned().map(ContainerId),
        image_id: container.image.unwrap_or_default(),
        tty: config.tty.unwrap_or(false),
        ip,
        state: run_state(&container.state?),
    })
}

/// What a container does. Docker shows 0001-01-01 for a time that hasn't come, exit code 0 for a container that was never started, and leaves
/// one whose start failed as `created` with a code and its reason.
fn run_state(state: &ContainerState) -> RunState {
    let time = |text: &Option<String>| text.as_deref().and_then(|text| text.parse::<Timestamp>().ok()).filter(|at| at.as_second() > 0);
    let started = time(&state.started_at);
    // Docker stamps the start after the call that did it, so that a process of a few milliseconds seems to end before it began.
    let finished = time(&state.finished_at).map(|at| started.map_or(at, |started| at.max(started)));
    let error = state.error.as_deref().filter(|error| !error.is_empty()).map(readable);
    let exited = || RunState::Exited {
        code: state.exit_code.unwrap_or(-1),
        oom: state.oom_killed.unwrap_or(false),
        error: error.clone(),
        started,
        finished,
    };
    let since = started.unwrap_or_default();
    match state.status.unwrap_or(ContainerStateStatusEnum::EMPTY) {
        ContainerStateStatusEnum::CREATED | ContainerStateStatusEnum::EMPTY => match error {
            Some(_) => exited(),
            None => RunState::Created,
        },
        ContainerStateStatusEnum::RUNNING | ContainerStateStatusEnum::STOPPING => RunState::Running { since },
        ContainerStateStatusEnum::PAUSED => RunState::Paused { since },
        // `restarting` is Docker's own policy at work, which ours never have: between two runs, so ended.
        ContainerStateStatusEnum::RESTARTING | ContainerStateStatusEnum::EXITED => exited(),
        ContainerStateStatusEnum::REMOVING | ContainerStateStatusEnum::DEAD => RunState::Removing,
    }
}

/// What a failed call means. `operation` completes "docker can't ...".
pub fn error(operation: &'static str, error: Error) -> RuntimeError {
    match error {
        Error::DockerResponseServerError { status_code, message } => refusal(operation, status_code, &message),
        Error::RequestTimeoutError => RuntimeError::Unavailable { operation, problem: "no answer in time".to_owned() },
        Error::DockerStreamError { error } => RuntimeError::Refused { operation, problem: readable(&error) },
        other => RuntimeError::Unavailable { operation, problem: chain(&other) },
    }
}

/// What an answer of 400 and above means. Docker answers 500 for the pod's own troubles too and tells them apart only in words.
pub fn refusal(operation: &'static str, status: u16, message: &str) -> RuntimeError {
    /// The pod's own troubles among Docker's answers of 500.
    const OF_THE_POD: [&str; 3] =
        ["driver failed programming external connectivity", "OCI runtime create failed", "failed to create shim task"];
    let of_the_pod = OF_THE_POD.iter().any(|words| message.contains(words));
    match status {
        404 if message.contains("No such image") => RuntimeError::Image { problem: readable(message) },
        404 if message.contains("No such container") => RuntimeError::Gone,
        500.. if !of_the_pod => RuntimeError::Unavailable { operation, problem: readable(message) },
        500.. if let Some(port) = taken_port(message) => RuntimeError::PortTaken { port, problem: readable(message) },
        _ => RuntimeError::Refused { operation, problem: readable(message) },
    }
}

/// The host port that is taken, if that is what Docker says: by a container of its own (`Bind for 0.0.0.0:80 failed: port is already allocated`), or by
/// a program (`listen tcp4 0.0.0.0:80: bind: address already in use`).
fn taken_port(message: &str) -> Option<u16> {
    let address =
        [" failed: port is already allocated", ": bind: address already in use"].iter().find_map(|said| message.split_once(said))?.0;
    address.rsplit_once(':')?.1.parse().ok()
}

/// What a failed pull means: whatever Docker or the registry answers is about the image, only a broken connection is the engine's trouble.
pub fn pull_error(operation: &'static str, failure: Error) -> RuntimeError {
    match failure {
        Error::DockerResponseServerError { message, .. } | Error::DockerStreamError { error: message } => {
            RuntimeError::Image { problem: readable(&message) }
        }
        // Docker says nothing before the registry's first answer: it is the registry that hangs.
        Error::RequestTimeoutError => RuntimeError::Image { problem: "the registry didn't answer in time".to_owned() },
        other => error(operation, other),
    }
}

/// Docker's words for a person: the cause without the names of the layers that passed it on, one line, bounded.
fn readable(words: &str) -> String {
    let words = words.trim().trim_end_matches(": unknown");
    let cause = [
        "starting container process caused: ",
        "unable to start container process: ",
        "driver failed programming external connectivity on ",
    ]
    .iter()
    .find_map(|marker| words.split_once(marker).map(|(_, cause)| cause))
    .unwrap_or(words);
    // `endpoint cube_web__.. (ab12..): Bind for 0.0.0.0:80 failed: port is already allocated`: the endpoint's name is nothing a user knows.
    let cause = match cause.strip_prefix("endpoint ") {
        Some(rest) => rest.split_once("): ").map_or(rest, |(_, cause)| cause),
        None => cause,
    };
    let mut line = cause.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.len() > MAX_WORDS {
        line.truncate(line.floor_char_boundary(MAX_WORDS));
        line.push_str("...");
    }
    line
}

/// An error and its causes in one line. hyper's and bollard's repeat themselves: a cause that was just told is left out.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let words = cause.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(json: serde_json::Value) -> RunState {
        run_state(&serde_json::from_value(json).expect("the test's state is Docker's"))
    }

    #[test]
    fn a_container_that_was_never_started_is_created_and_not_a_success() {
        let never = serde_json::json!({ "Status": "created", "ExitCode": 0, "StartedAt": "0001-01-01T00:00:00Z", "FinishedAt": "0001-01-01T00:00:00Z", "Error": "" });
        assert_eq!(state(never), RunState::Created);
    }

    #[test]
    fn a_container_whose_start_failed_has_ended_with_docker_s_reason() {
        let failed = serde_json::json!({ "Status": "created", "ExitCode": 127, "StartedAt": "0001-01-01T00:00:00Z",
            "Error": "OCI runtime create failed: runc create failed: unable to start container process: exec: \"nope\": executable file not found in $PATH: unknown" });
        let error = Some("exec: \"nope\": executable file not found in $PATH".to_owned());
        assert_eq!(state(failed), RunState::Exited { code: 127, oom: false, error, started: None, finished: None });
    }

    #[test]
    fn limits_are_docker_s_to_enforce_and_leave_no_swap_beside_the_memory() {
        let resources = |json| serde_json::from_value(json).expect("resources");
        let host = |resources| {
            let scope = Scope { cluster: cube_api::meta::ClusterId(uuid::Uuid::nil()), node: "n1".parse().expect("a name") };
            let (uid, pod) = (cube_api::meta::Uid(uuid::Uuid::nil()), "web".parse().expect("a name"));
            let identity = Identity { uid, pod, container: None, attempt: 0 };
            let (sandbox, image) = (ContainerId("sandbox".to_owned()), "app".to_owned());
            let (command, args, env) = (Vec::new(), Vec::new(), Default::default());
            let spec = ContainerSpec {
                scope,
                identity,
                sandbox,
                image,
                command,
                args,
                env,
                working_dir: None,
                resources,
                tty: false,
                stdin: false,
            };
            container_body(&spec).host_config.expect("it has one")
        };
        let limited = host(resources(serde_json::json!({ "limits": { "cpu": "1500m", "memory": "64Mi" } })));
        assert_eq!((limited.nano_cpus, limited.memory, limited.memory_swap), (Some(1_500_000_000), Some(64 << 20), Some(64 << 20)));
        let requested = host(resources(serde_json::json!({ "requests": { "cpu": "1500m", "memory": "64Mi", "disk": "1Gi" } })));
        assert_eq!((requested.nano_cpus, requested.memory, requested.memory_swap), (None, None, None));
        assert_eq!((limited.cpu_shares, requested.cpu_shares), (Some(1536), Some(1536)));
    }

    #[test]
    fn an_end_is_never_told_before_its_start() {
        let swift = serde_json::json!({ "Status": "exited", "Running": false, "ExitCode": 0, "Error": "",
            "StartedAt": "2026-11-21T00:38:16.2Z", "FinishedAt": "2026-11-21T00:38:16.1Z" });
        match state(swift) {
            RunState::Exited { started, finished, .. } => assert_eq!(started, finished),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_taken_port_is_the_pod_s_trouble_and_says_which() {
        let words = "driver failed programming external connectivity on endpoint cube_web__x_0 (ab12): Bind for 0.0.0.0:80 failed: port is already allocated";
        match refusal("start the container", 500, words) {
            RuntimeError::PortTaken { port: 80, problem } => assert_eq!(problem, "Bind for 0.0.0.0:80 failed: port is already allocated"),
            other => panic!("{other:?}"),
        }
        let by_a_program = "driver failed programming external connectivity on endpoint x (ab12): Error starting userland proxy: listen tcp6 \
                            [::]:30123: bind: address already in use";
        let refused = refusal("start the container", 500, by_a_program);
        assert!(matches!(refused, RuntimeError::PortTaken { port: 30_123, .. }), "{refused:?}");
    }

    #[test]
    fn an_engine_in_trouble_says_nothing_about_the_pod() {
        assert!(refusal("start the container", 500, "open /var/lib/docker/x: read-only file system").is_engine_trouble());
        assert!(refusal("start the container", 503, "").is_engine_trouble());
    }

    #[test]
    fn a_registry_that_hangs_is_the_image_s_trouble_and_not_the_engine_s() {
        assert!(!pull_error("pull the image", Error::RequestTimeoutError).is_engine_trouble());
    }

    #[test]
    fn a_long_complaint_is_cut_between_characters() {
        let long = readable(&"ä".repeat(1000));
        assert!(long.len() <= MAX_WORDS + 3 && long.ends_with("ä..."));
    }
}
