//! The runtime on a Docker engine. Only this folder knows bollard.
//!
//! * `translate.rs`: Docker's words into ours, once.
//! * `streams.rs`: the answers that go on for long, on connections of their own.
//! * `exec.rs`: a command in a container, and its end when its client is gone.
//! * `logs.rs`: a container's log, as lines. `archive.rs`: a file out of it.
//! * `pause.rs`: the sandbox's image. `pull.rs`: everybody else's. `tar.rs`: how Docker takes files.
//! * `volumes.rs`: volumes, and what they begin with.
//!
//! It keeps no state but the connection: every answer is asked for.

mod archive;
mod exec;
mod logs;
mod pause;
mod pull;
mod streams;
mod tar;
mod translate;
mod volumes;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use bollard::errors::Error;
use bollard::models::{ContainerCreateBody, ContainerInspectResponse, ContainerSummary};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, ImportImageOptionsBuilder, InspectContainerOptions, KillContainerOptionsBuilder,
    ListContainersOptionsBuilder, ListImagesOptions, RemoveContainerOptionsBuilder, RemoveImageOptionsBuilder,
    RenameContainerOptionsBuilder, StartContainerOptions,
};
use cube_api::meta::Uid;
use cube_api::node::Capacity;
use cube_api::pod::HostPort;
use cube_api::quantity::{Bytes, MilliCpu};
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use tokio::sync::Semaphore;
use uuid::Uuid;

use self::streams::JsonLines;
use super::{
    CALL_TIMEOUT, Census, ContainerId, ContainerSpec, EngineInfo, ExecHandle, ExecRequest, HeldImage, Hint, Identity, LogBatch, LogRequest,
    Login, Observed, PodVolumes, PullProgress, RunState, Runtime, RuntimeError, SandboxSpec, Scope, Spare, StopSignal, Volumes, spare_name,
    user,
};
use crate::latest;
use crate::net;
use crate::tasks::Tasks;

/// Where Docker listens unless something else is said.
const DEFAULT_SOCKET: &str = "/var/run/docker.sock";

/// How many containers are inspected at a time. Docker answers one in 1 to 2 ms and gains nothing from more on few cores.
const INSPECTIONS: usize = 8;

/// Docker answers nothing about a container whose lock is held, such as by a start that hangs in the kernel, and everything about the others:
/// after so long it is silent about that one. Short, since everything else waits for the list meanwhile.
const SILENCE: Duration = Duration::from_secs(5);

/// A Docker engine. Clones share it.
#[derive(Clone)]
pub struct Docker {
    inner: Arc<Inner>,
}

struct Inner {
    socket: PathBuf,
    tasks: Tasks,
    /// Made at the first call that finds the socket: bollard refuses to be made without one, but the engine may come up after us.
    api: OnceLock<bollard::Docker>,
    /// One load of the pause image at a time: the second waits and finds the image there.
    pause_load: Semaphore,
}

/// The socket that `DOCKER_HOST` names, or Docker's usual one.
pub fn default_socket() -> String {
    std::env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty()).unwrap_or_else(|| DEFAULT_SOCKET.to_owned())
}

impl Docker {
    /// Takes the engine behind `socket`, a path or `unix:///...` (see [`default_socket`]). Makes no call: the engine may be down. Execs run
    /// in `tasks`.
    ///
    /// # Errors
    /// [`RuntimeError::Refused`] if `socket` is an address that is not a Unix socket.
    pub fn connect(socket: &str, tasks: &Tasks) -> Result<Self, RuntimeError> {
        let path = socket.strip_prefix("unix://").unwrap_or(socket);
        if path.contains("://") || !path.starts_with('/') {
            let problem = format!("'{socket}' is not a Unix socket: write unix:///path/to/docker.sock");
            return Err(RuntimeError::Refused { operation: "connect", problem });
        }
        let inner = Inner { socket: path.into(), tasks: tasks.clone(), api: OnceLock::new(), pause_load: Semaphore::new(1) };
        Ok(Self { inner: Arc::new(inner) })
    }

    fn socket(&self) -> &Path {
        &self.inner.socket
    }

    fn api(&self, operation: &'static str) -> Result<&bollard::Docker, RuntimeError> {
        if let Some(api) = self.inner.api.get() {
            return Ok(api);
        }
        let path = self.socket().to_string_lossy();
        // bollard's own limit ends at the answer's head; `call` has the one that counts.
        let api = bollard::Docker::connect_with_unix(&path, 2 * CALL_TIMEOUT.as_secs(), bollard::API_DEFAULT_VERSION)
            .map_err(|error| translate::error(operation, error))?;
        Ok(self.inner.api.get_or_init(|| api))
    }

    /// One call with its timeout and its translated error.
    async fn call<'a, T, F>(&'a self, operation: &'static str, call: impl FnOnce(&'a bollard::Docker) -> F) -> Result<T, RuntimeError>
    where
        F: Future<Output = Result<T, Error>> + 'a,
    {
        let api = self.api(operation)?;
        match tokio::time::timeout(CALL_TIMEOUT, call(api)).await {
            Ok(answer) => answer.map_err(|error| translate::error(operation, error)),
            Err(_) => Err(RuntimeError::Unavailable { operation, problem: "no answer in time".to_owned() }),
        }
    }

    async fn inspected(&self, id: &str) -> Result<Option<ContainerInspectResponse>, RuntimeError> {
        let call = self.call("inspect the container", |api| api.inspect_container(id, None::<InspectContainerOptions>));
        absent_is_none(call.await)
    }

    /// Lists by labels, then inspects: the list itself lacks start time, exit code and the reason of an end. What Docker is silent about comes
    /// beside.
    async fn looked_at(&self, filters: &Filters) -> Result<(Vec<Observed>, Vec<ContainerSummary>), RuntimeError> {
        let (containers, silent) = self.inspected_all(filters).await?;
        Ok((containers.into_iter().filter_map(translate::observed).collect(), silent))
    }

    async fn inspected_all(&self, filters: &Filters) -> Result<(Vec<ContainerInspectResponse>, Vec<ContainerSummary>), RuntimeError> {
        let options = ListContainersOptionsBuilder::default().all(true).filters(filters).build();
        let found = self.call("list the containers", |api| api.list_containers(Some(options))).await?;
        let inspections = stream::iter(found).map(|summary| async move {
            let id = summary.id.clone().unwrap_or_default();
            match tokio::time::timeout(SILENCE, self.inspected(&id)).await {
                Ok(answer) => answer.map(Ok),
                Err(_) => Ok(Err(summary)),
            }
        });
        let (mut containers, mut silent) = (Vec::new(), Vec::new());
        let mut inspections = std::pin::pin!(inspections.buffered(INSPECTIONS));
        while let Some(inspected) = inspections.try_next().await? {
            match inspected {
                // One that went in between is simply not there any more.
                Ok(container) => containers.extend(container),
                Err(summary) => silent.push(summary),
            }
        }
        Ok((containers, silent))
    }

    async fn listed(&self, filters: &Filters) -> Result<Vec<Observed>, RuntimeError> {
        let (containers, silent) = self.looked_at(filters).await?;
        match silent.first() {
            Some(one) => Err(unanswered(one)),
            None => Ok(containers),
        }
    }

    async fn create_named(&self, name: &str, body: ContainerCreateBody) -> Result<ContainerId, RuntimeError> {
        let options = CreateContainerOptionsBuilder::default().name(name).build();
        let created = self.call("create the container", |api| api.create_container(Some(options), body)).await?;
        Ok(ContainerId(created.id))
    }

    /// Of the pause image, which is put into the engine if need be.
    async fn create_paused(&self, name: &str, body: ContainerCreateBody) -> Result<ContainerId, RuntimeError> {
        match self.create_named(name, body.clone()).await {
            Err(RuntimeError::Image { .. }) => {
                self.load_pause().await?;
                self.create_named(name, body).await
            }
            other => other,
        }
    }

    async fn create(&self, scope: &Scope, identity: &Identity, body: ContainerCreateBody) -> Result<ContainerId, RuntimeError> {
        let name = identity.container_name();
        let created = match self.create_named(&name, body).await {
            Ok(created) => return Ok(created),
            Err(refused @ RuntimeError::Refused { .. }) => refused,
            Err(other) => return Err(other),
        };
        // A taken name is one refusal among others; whoever has it tells whether it is ours.
        let Some(holder) = self.inspected(&name).await? else { return Err(created) };
        let labels = holder.config.as_ref().and_then(|config| config.labels.clone()).unwrap_or_default();
        match translate::observed(holder) {
            Some(ours) if translate::is_in(scope, &labels) && ours.identity == *identity => Ok(ours.id),
            Some(_) | None => Err(RuntimeError::Refused {
                operation: "create the container",
                problem: format!("a container named '{name}' exists that is not this node's: remove or rename it"),
            }),
        }
    }

    /// Whether it is a spare that runs and that no other pod has.
    async fn is_claimable(&self, scope: &Scope, spare: &ContainerId, identity: &Identity) -> Result<bool, RuntimeError> {
        let Some(container) = self.inspected(&spare.0).await? else { return Ok(false) };
        let ours = container.config.as_ref().and_then(|config| config.labels.as_ref()).is_some_and(|of| translate::is_in(scope, of));
        let runs = match translate::spare(&container) {
            Some(Spare { state: RunState::Running { .. }, .. }) => true,
            Some(_) => false,
            None => translate::observed(container).is_some_and(|taken| taken.identity == *identity),
        };
        Ok(ours && runs)
    }

    /// The user that an image names, empty for root.
    async fn user_of_image(&self, image: &str) -> Result<String, RuntimeError> {
        let found = self.call("look for the image", |api| api.inspect_image(image)).await?;
        Ok(found.config.and_then(|config| config.user).unwrap_or_default())
    }

    /// Puts the pause image into the engine unless it is there.
    async fn load_pause(&self) -> Result<(), RuntimeError> {
        const OPERATION: &str = "load the pause image";
        let _one = self.inner.pause_load.acquire().await.expect("the semaphore is never closed");
        if self.image(&pause::IMAGE).await?.is_some() {
            return Ok(());
        }
        self.call(OPERATION, |api| {
            let options = ImportImageOptionsBuilder::default().quiet(true).build();
            api.import_image(options, bollard::body_full(pause::archive().into()), None).try_for_each(async |_| Ok(()))
        })
        .await
    }
}

/// What containers are asked for by.
type Filters = HashMap<&'static str, Vec<String>>;

fn labelled(labels: Vec<String>) -> Filters {
    HashMap::from([("label", labels)])
}

fn name_of(container: &ContainerSummary) -> &str {
    container.names.iter().flatten().next().map_or("", |name| translate::plain_name(name))
}

/// Docker lists a container and is silent about it.
fn unanswered(container: &ContainerSummary) -> RuntimeError {
    let name = name_of(container);
    RuntimeError::Unavailable {
        operation: "inspect a container",
        problem: format!("no answer about '{name}' in {} seconds", SILENCE.as_secs()),
    }
}

/// "It isn't there" as an answer.
fn absent_is_none<T>(answer: Result<T, RuntimeError>) -> Result<Option<T>, RuntimeError> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(RuntimeError::Gone | RuntimeError::Image { .. }) => Ok(None),
        Err(other @ (RuntimeError::Unavailable { .. } | RuntimeError::Refused { .. } | RuntimeError::PortTaken { .. })) => Err(other),
    }
}

fn scope_labels(scope: &Scope) -> Vec<String> {
    vec![format!("{}={}", translate::CLUSTER, scope.cluster), format!("{}={}", translate::NODE, scope.node)]
}

/// Bytes that would end a path, escaped; ids and names have none, but a caller's mistake must not become another request.
fn escaped(text: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(byte);
    text.bytes().map(|byte| if plain(&byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[async_trait]
impl Runtime for Docker {
    async fn info(&self) -> Result<EngineInfo, RuntimeError> {
        let info = self.call("tell who it is", |api| api.info()).await?;
        let amount = |number: Option<i64>| number.and_then(|number| u64::try_from(number).ok()).unwrap_or(0);
        let capacity = Capacity { cpu: MilliCpu(amount(info.ncpu) * 1000), memory: Bytes(amount(info.mem_total)), ..Capacity::default() };
        Ok(EngineInfo { version: info.server_version.unwrap_or_default(), capacity, data_root: info.docker_root_dir.map(PathBuf::from) })
    }

    async fn scopes(&self) -> Result<BTreeMap<Scope, usize>, RuntimeError> {
        let filters = HashMap::from([("label", vec![translate::CLUSTER])]);
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        let found = self.call("list cube's containers", |api| api.list_containers(Some(options))).await?;
        let mut scopes = BTreeMap::new();
        for scope in found.into_iter().filter_map(|container| translate::scope(&container.labels?)) {
            *scopes.entry(scope).or_default() += 1;
        }
        Ok(scopes)
    }

    async fn list(&self, scope: &Scope) -> Result<Vec<Observed>, RuntimeError> {
        self.listed(&labelled(scope_labels(scope))).await
    }

    async fn census(&self, scope: &Scope) -> Result<Census, RuntimeError> {
        let (containers, silent) = self.looked_at(&labelled(scope_labels(scope))).await?;
        // Silent about all of them is no single container's trouble.
        if let (Some(one), true) = (silent.first(), containers.is_empty()) {
            return Err(unanswered(one));
        }
        let uid = |summary: &ContainerSummary| translate::pod_uid(summary.labels.as_ref()?, name_of(summary));
        let silent: BTreeSet<Uid> = silent.iter().filter_map(uid).collect();
        Ok(Census { containers, silent, volumes: self.volumes(scope).await?.pods })
    }

    async fn list_pod(&self, scope: &Scope, uid: Uid) -> Result<Vec<Observed>, RuntimeError> {
        let mut labels = scope_labels(scope);
        labels.push(format!("{}={uid}", translate::POD_UID));
        // A sandbox that was a spare carries no pod's label: its name tells whose it is.
        let mut taken = labelled(scope_labels(scope));
        taken.insert("name", vec![format!("__{uid}_")]);
        let labels = labelled(labels);
        let (mut found, was_spare) = futures::future::try_join(self.listed(&labels), self.listed(&taken)).await?;
        let new = was_spare.into_iter().filter(|sandbox| sandbox.identity.uid == uid && !found.iter().any(|other| other.id == sandbox.id));
        let new: Vec<_> = new.collect();
        found.extend(new);
        Ok(found)
    }

    async fn inspect(&self, id: &ContainerId) -> Result<Option<Observed>, RuntimeError> {
        Ok(self.inspected(&id.0).await?.and_then(translate::observed))
    }

    async fn hints(&self, scope: &Scope) -> Result<BoxStream<'static, Hint>, RuntimeError> {
        #[derive(serde::Deserialize)]
        struct Event {
            #[serde(rename = "Actor")]
            actor: Actor,
        }
        #[derive(serde::Deserialize)]
        struct Actor {
            #[serde(rename = "Attributes")]
            attributes: HashMap<String, String>,
        }
        // Only what happens to a container without our doing: our own creates and starts need no hint.
        let events = ["die", "destroy", "pause", "unpause"];
        let filters = serde_json::json!({ "type": ["container"], "event": events, "label": scope_labels(scope) }).to_string();
        let target = format!("/events?filters={}", escaped(&filters));
        let lines = JsonLines::new(streams::get(self.socket(), "watch its events", &target).await?);
        let hints = stream::unfold(lines, async |mut lines| {
            loop {
                let event = serde_json::from_slice::<Event>(&lines.next().await?).ok();
                let uid = event.and_then(|Event { actor: Actor { attributes } }| translate::pod_uid(&attributes, attributes.get("name")?));
                if let Some(uid) = uid {
                    return Some((Hint { uid }, lines));
                }
            }
        });
        Ok(hints.boxed())
    }

    async fn image(&self, image: &str) -> Result<Option<String>, RuntimeError> {
        let found = absent_is_none(self.call("look for the image", |api| api.inspect_image(image)).await);
        match found {
            Ok(found) => Ok(found.and_then(|image| image.id)),
            Err(RuntimeError::Refused { problem, .. } | RuntimeError::PortTaken { problem, .. }) => {
                Err(RuntimeError::Image { problem: format!("'{image}': {problem}") })
            }
            Err(other @ (RuntimeError::Unavailable { .. } | RuntimeError::Gone | RuntimeError::Image { .. })) => Err(other),
        }
    }

    async fn pull(&self, image: &str, login: Option<&Login>, progress: latest::Sender<PullProgress>) -> Result<String, RuntimeError> {
        pull::pull(self.socket(), image, login, &progress).await?;
        let problem = || RuntimeError::Image { problem: format!("'{image}' is not there after its pull") };
        self.image(image).await?.ok_or_else(problem)
    }

    /// Docker's machine is this one: its socket is a file here.
    async fn port_is_free(&self, port: HostPort) -> bool {
        net::is_free(port)
    }

    async fn images(&self) -> Result<Vec<HeldImage>, RuntimeError> {
        let containers = ListContainersOptionsBuilder::default().all(true).build();
        // The images first: a container that is made in between shows that its image is used, not the other way round.
        let images = self.call("list the images", |api| api.list_images(None::<ListImagesOptions>)).await?;
        let containers = self.call("list the containers", |api| api.list_containers(Some(containers))).await?;
        let used: BTreeSet<_> = containers.into_iter().filter_map(|container| container.image_id).collect();
        Ok(images.into_iter().map(|image| translate::held_image(image, &used)).collect())
    }

    async fn remove_image(&self, image: &HeldImage) -> Result<(), RuntimeError> {
        // By its id an image that has names in several repositories can't be removed without force, and force also takes what is used.
        let names = if image.names.is_empty() { std::slice::from_ref(&image.id) } else { &image.names };
        for name in names {
            // A name may be another image's by now.
            let options = RemoveImageOptionsBuilder::default().force(false).build();
            match self.image(name).await? {
                Some(id) if id == image.id => {}
                Some(_) | None => continue,
            }
            absent_is_none(self.call("remove the image", |api| api.remove_image(name, Some(options), None)).await)?;
        }
        Ok(())
    }

    async fn create_sandbox(&self, spec: &SandboxSpec) -> Result<ContainerId, RuntimeError> {
        let body = translate::sandbox_body(spec, &pause::IMAGE);
        match self.create(&spec.scope, &spec.identity, body.clone()).await {
            // The first sandbox of an engine, or somebody removed the image.
            Err(RuntimeError::Image { .. }) => {
                self.load_pause().await?;
                self.create(&spec.scope, &spec.identity, body).await
            }
            other => other,
        }
    }

    async fn create_spare(&self, scope: &Scope, number: Uuid) -> Result<ContainerId, RuntimeError> {
        self.create_paused(&spare_name(number), translate::spare_body(scope, &pause::IMAGE)).await
    }

    async fn spares(&self, scope: &Scope) -> Result<Vec<Spare>, RuntimeError> {
        let mut labels = scope_labels(scope);
        labels.push(translate::spare_label());
        // One that it is silent about is looked at the next time.
        let (containers, _) = self.inspected_all(&labelled(labels)).await?;
        Ok(containers.iter().filter_map(translate::spare).collect())
    }

    async fn claim_spare(&self, scope: &Scope, spare: &ContainerId, identity: &Identity) -> Result<Observed, RuntimeError> {
        let name = identity.container_name();
        if !self.is_claimable(scope, spare, identity).await? {
            return Err(RuntimeError::Gone);
        }
        let options = RenameContainerOptionsBuilder::default().name(&name).build();
        let renamed = self.call("give a spare sandbox its pod's name", |api| api.rename_container(&spare.0, options)).await;
        // Also after a refusal: the call before may have done it while nobody waited.
        let seen = self.inspect(spare).await?;
        match (renamed, seen.filter(|seen| seen.identity == *identity)) {
            (_, Some(seen)) => Ok(seen),
            (Err(error), None) => Err(error),
            (Ok(()), None) => Err(RuntimeError::Gone),
        }
    }

    async fn prepare_volumes(&self, wanted: &PodVolumes) -> Result<(), RuntimeError> {
        volumes::prepare(self, wanted).await
    }

    async fn volumes(&self, scope: &Scope) -> Result<Volumes, RuntimeError> {
        volumes::list(self, scope).await
    }

    async fn remove_volumes(&self, scope: &Scope, uid: Uid) -> Result<(), RuntimeError> {
        volumes::remove(self, scope, uid).await
    }

    async fn remove_kept(&self, scope: &Scope, volume: Uid) -> Result<(), RuntimeError> {
        volumes::remove_kept(self, scope, volume).await
    }

    async fn create_container(&self, spec: &ContainerSpec) -> Result<ContainerId, RuntimeError> {
        let of_image = if user::depends_on_image(&spec.security) { self.user_of_image(&spec.image).await? } else { String::new() };
        let refused = |problem| RuntimeError::Refused { operation: "create the container", problem };
        let user = user::user(&spec.security, &of_image).map_err(refused)?;
        self.create(&spec.scope, &spec.identity, translate::container_body(spec, user)).await
    }

    async fn start(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        self.call("start the container", |api| api.start_container(&id.0, None::<StartContainerOptions>)).await
    }

    async fn signal(&self, id: &ContainerId, signal: StopSignal) -> Result<(), RuntimeError> {
        let Some(container) = self.inspected(&id.0).await? else { return Ok(()) };
        let own = container.config.as_ref().and_then(|config| config.stop_signal.clone());
        match translate::observed(container).map(|container| container.state) {
            Some(RunState::Running { .. }) => {}
            Some(RunState::Paused { .. }) => match self.call("resume the container", |api| api.unpause_container(&id.0)).await {
                // Ended or resumed meanwhile: the signal finds out.
                Ok(()) | Err(RuntimeError::Gone | RuntimeError::Refused { .. } | RuntimeError::PortTaken { .. }) => {}
                Err(other @ (RuntimeError::Unavailable { .. } | RuntimeError::Image { .. })) => return Err(other),
            },
            Some(RunState::Created | RunState::Exited { .. } | RunState::Removing) | None => return Ok(()),
        }
        let name = match signal {
            StopSignal::Stop => own.as_deref().filter(|name| !name.is_empty()).unwrap_or("SIGTERM"),
            StopSignal::Kill => "SIGKILL",
        };
        let options = KillContainerOptionsBuilder::default().signal(name).build();
        match self.call("signal the container", |api| api.kill_container(&id.0, Some(options))).await {
            Ok(()) | Err(RuntimeError::Gone) => Ok(()),
            // Refused is `is not running`: it ended between the look and the signal. Anything else would still be running now.
            Err(refused @ (RuntimeError::Refused { .. } | RuntimeError::PortTaken { .. })) => {
                match self.inspect(id).await?.map(|container| container.state) {
                    Some(RunState::Running { .. } | RunState::Paused { .. }) => Err(refused),
                    Some(RunState::Created | RunState::Exited { .. } | RunState::Removing) | None => Ok(()),
                }
            }
            Err(other @ (RuntimeError::Unavailable { .. } | RuntimeError::Image { .. })) => Err(other),
        }
    }

    async fn remove(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        match self.call("remove the container", |api| api.remove_container(&id.0, Some(options))).await {
            Ok(()) | Err(RuntimeError::Gone) => Ok(()),
            // `removal is already in progress`: not gone yet, so not done yet; the caller asks again.
            Err(RuntimeError::Refused { operation, problem }) => Err(RuntimeError::Unavailable { operation, problem }),
            Err(other @ (RuntimeError::Unavailable { .. } | RuntimeError::PortTaken { .. } | RuntimeError::Image { .. })) => Err(other),
        }
    }

    async fn logs(&self, id: &ContainerId, request: &LogRequest) -> Result<BoxStream<'static, LogBatch>, RuntimeError> {
        logs::open(self, id, request).await
    }

    async fn read_file(&self, id: &ContainerId, path: &str, most: usize) -> Result<Option<Vec<u8>>, RuntimeError> {
        archive::last_bytes(self.socket(), id, path, most).await
    }

    async fn exec(&self, id: &ContainerId, request: &ExecRequest) -> Result<ExecHandle, RuntimeError> {
        exec::start(self, id, request).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_engine_that_is_not_there_is_the_engine_s_trouble_and_not_the_pod_s() {
        let nowhere = tempfile::tempdir().unwrap().path().join("docker.sock");
        let docker = Docker::connect(nowhere.to_str().unwrap(), &Tasks::default()).unwrap();
        let id = ContainerId("x".to_owned());
        assert!(docker.info().await.unwrap_err().is_engine_trouble());
        assert!(docker.inspect(&id).await.unwrap_err().is_engine_trouble());
        assert!(docker.exec(&id, &ExecRequest { command: vec![], tty: false, stdin: false }).await.err().unwrap().is_engine_trouble());
        assert!(matches!(Docker::connect("tcp://example.org:2375", &Tasks::default()), Err(RuntimeError::Refused { .. })));
    }
}
