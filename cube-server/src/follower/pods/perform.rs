//! Doing one action: from the plan's words to the runtime's calls.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use cube_api::meta::Name;
use cube_api::pod::{Container, Hook, Lifecycle, Permission, PublishedPort, PullSecret, Security, TerminationMessagePolicy, expand};
use cube_api::session::AssignedPod;
use futures::StreamExt;

use super::{Context, volumes};
use crate::follower::env::{Facts, environment};
use crate::follower::images::Pull;
use crate::follower::images::logins::{self, Logins};
use crate::follower::plan::{Action, HookRun, Outcome};
use crate::follower::ports::{self, Wish, variables};
use crate::follower::runtime::{ContainerId, ContainerSpec, Identity, LogRequest, RuntimeError, SandboxSpec, Scope};

/// The last lines of a container that failed: so many, in so many bytes, read within so long.
const LAST_LINES: u64 = 5;
const LAST_BYTES: usize = 1024;
const LAST_LIMIT: Duration = Duration::from_secs(5);

/// The most of what a container left in its file, in bytes: Kubernetes' limit.
const MOST_MESSAGE: usize = 4096;

/// What an action needs.
pub(super) struct Work {
    pub context: Arc<Context>,
    pub scope: Scope,
    pub pod: AssignedPod,
    /// The host ports that were chosen for it.
    pub chosen_ports: Vec<PublishedPort>,
    /// Its address, once it has one.
    pub pod_ip: Option<IpAddr>,
    /// The pull that a `Pull` waits for.
    pub pull: Option<Pull>,
}

impl Work {
    pub(super) async fn perform(&self, action: &Action) -> Result<Outcome, RuntimeError> {
        let runtime = &self.context.runtime;
        match action {
            Action::FindImage(name) => {
                let image = self.image(name)?;
                Ok(Outcome::Image(self.found(name, self.context.images.find(image).await?)?))
            }
            Action::Pull(_) => {
                let pull = self.pull.clone().ok_or(RuntimeError::Gone)?;
                let (id, took) = pull.wait().await.map_err(|error| self.with_unusable_logins(error))?;
                Ok(Outcome::Pulled(id, took))
            }
            Action::ChoosePorts { after } => {
                let (uid, spec, random) = (self.pod.uid, &self.pod.spec, self.context.ambient.random());
                let wish = Wish { uid, spec, before: &self.chosen_ports, after: *after, random };
                self.context.ports.choose(runtime.as_ref(), wish).await.map(Outcome::Ports)
            }
            Action::CreateSandbox { attempt } => {
                self.check_allowed()?;
                Ok(Outcome::Created(runtime.create_sandbox(&self.sandbox_spec(*attempt)).await?))
            }
            Action::ClaimSandbox { attempt, spare } => {
                let claimed = runtime.claim_spare(&self.scope, spare, &self.identity(None, *attempt)).await?;
                Ok(Outcome::Claimed(Box::new(claimed)))
            }
            Action::DropSpare(id) => {
                // A pod was promised nothing that another one has; should it ever be, the other one keeps it.
                let is_anothers = runtime.inspect(id).await?.is_some_and(|taken| taken.identity.uid != self.pod.uid);
                if is_anothers { Ok(Outcome::Done) } else { runtime.remove(id).await.map(|()| Outcome::Done) }
            }
            Action::PrepareVolumes { first } => {
                let wanted = volumes::wanted(&self.scope, &self.pod, *first)?;
                runtime.prepare_volumes(&wanted).await.map(|()| Outcome::Prepared(self.pod.sources.clone()))
            }
            Action::DropVolumes => runtime.remove_volumes(&self.scope, self.pod.uid).await.map(|()| Outcome::Done),
            Action::CreateApp { name, attempt, sandbox } => {
                self.check_allowed()?;
                let spec = self.spec(name)?;
                self.context.host_paths.check(&self.pod.spec, spec).await?;
                let spec = self.container_spec(spec, *attempt, sandbox.clone())?;
                Ok(Outcome::Created(runtime.create_container(&spec).await?))
            }
            Action::StartSandbox(id) | Action::StartApp { id, .. } => runtime.start(id).await.map(|()| Outcome::Done),
            Action::Inspect(id) => Ok(Outcome::Inspected(runtime.inspect(id).await?.map(Box::new))),
            Action::Signal(id, signal) => runtime.signal(id, *signal).await.map(|()| Outcome::Done),
            Action::Remove(id) => runtime.remove(id).await.map(|()| Outcome::Done),
            Action::ReadLines(id) => Ok(Outcome::Lines(self.last_lines(id).await)),
            Action::ReadMessage { name, id, failed } => Ok(Outcome::Lines(self.last_words(self.spec(name)?, id, *failed).await)),
            Action::PostStart { hook, .. } => self.hook(hook, |lifecycle| &lifecycle.post_start).await,
            Action::PreStop(hook) => self.hook(hook, |lifecycle| &lifecycle.pre_stop).await,
            Action::List => Ok(Outcome::Listed(runtime.list_pod(&self.scope, self.pod.uid).await?)),
        }
    }

    /// The pod's own logins for registries, and why there are not more.
    fn logins(&self) -> (Logins, Vec<String>) {
        let (mut logins, mut unusable) = (Logins::default(), Vec::new());
        for PullSecret { name } in &self.pod.spec.image_pull_secrets {
            let values = self.pod.sources.as_ref().and_then(|sources| sources.secrets.get(name));
            match values.map(|values| logins::of_secret(&values.data)) {
                Some(Ok(found)) => logins = logins.before(found),
                Some(Err(error)) => unusable.push(format!("secret/{name}: {error}")),
                None => unusable.push(format!("secret/{name} is not there")),
            }
        }
        (logins, unusable)
    }

    /// A pull goes on without a login that can't be used, as in Kubernetes; where it fails, that may be why.
    fn with_unusable_logins(&self, error: RuntimeError) -> RuntimeError {
        let (_, unusable) = self.logins();
        match error {
            RuntimeError::Image { problem } if !unusable.is_empty() => {
                RuntimeError::Image { problem: format!("{problem}; of imagePullSecrets, {}", unusable.join("; ")) }
            }
            other => other,
        }
    }

    /// Begins or joins the pull that an action is about.
    pub(super) fn join_pull(&mut self, action: &Action) -> Option<(Name, Pull)> {
        let Action::Pull(name) = action else { return None };
        let pull = self.context.images.pull(self.image(name).ok()?, self.logins().0);
        self.pull = Some(pull.clone());
        Some((name.clone(), pull))
    }

    fn spec(&self, name: &Name) -> Result<&Container, RuntimeError> {
        self.pod.spec.container(name).ok_or(RuntimeError::Gone)
    }

    fn image(&self, name: &Name) -> Result<&str, RuntimeError> {
        self.spec(name).map(|container| container.image.as_str())
    }

    fn found(&self, name: &Name, found: Option<String>) -> Result<Option<String>, RuntimeError> {
        match (found, self.spec(name)?.image_pull_policy) {
            (None, cube_api::pod::ImagePullPolicy::Never) => {
                Err(RuntimeError::Image { problem: "this node doesn't have it, and imagePullPolicy is Never".to_owned() })
            }
            (found, _) => Ok(found),
        }
    }

    /// The scheduler asks before it places a pod; whoever runs this node may have changed their mind since, and it is their machine.
    fn check_allowed(&self) -> Result<(), RuntimeError> {
        let missing: BTreeSet<_> = Permission::needed_by(&self.pod.spec).difference(&self.context.allow).copied().collect();
        if missing.is_empty() {
            return Ok(());
        }
        let problem = format!("this node doesn't allow {}", Permission::list(&missing));
        Err(RuntimeError::Refused { operation: "create the container", problem })
    }

    fn identity(&self, container: Option<Name>, attempt: u32) -> Identity {
        Identity { uid: self.pod.uid, pod: self.pod.name.clone(), container, attempt }
    }

    fn sandbox_spec(&self, attempt: u32) -> SandboxSpec {
        let host_network = self.pod.spec.host_network;
        // The plan has seen to it that each has a number by now. In the host's network there is nothing to publish a port on but itself, and the host
        // has its name.
        let published: Vec<_> = if host_network { Vec::new() } else { ports::of(&self.pod.spec, &self.chosen_ports) };
        // One that publishes nothing and asks for no name has the engine's own, as a spare sandbox has: no program can tell in which kind it runs.
        let own = (!published.is_empty()).then_some(&self.pod.name);
        let hostname = self.pod.spec.hostname.as_ref().or(own).map(Name::to_string);
        let holds = volumes::held(&self.pod);
        SandboxSpec { scope: self.scope.clone(), identity: self.identity(None, attempt), hostname, published, host_network, holds }
    }

    fn container_spec(&self, spec: &Container, attempt: u32, sandbox: ContainerId) -> Result<ContainerSpec, RuntimeError> {
        let (host_ip, allocatable) = {
            let facts = self.context.facts.borrow();
            (facts.address, facts.allocatable)
        };
        let facts = Facts {
            name: &self.pod.name,
            uid: self.pod.uid,
            labels: &self.pod.labels,
            spec: &self.pod.spec,
            node: &self.scope.node,
            host_ip,
            // In the machine's network the pod has the machine's address.
            pod_ip: if self.pod.spec.host_network { host_ip } else { self.pod_ip },
            allocatable,
            sources: self.pod.sources.as_deref(),
        };
        let env = environment(spec, variables(&ports::of(&self.pod.spec, &self.chosen_ports)), facts)
            .map_err(|problem| RuntimeError::Refused { operation: "create a container", problem })?;
        let expanded = |words: &[String]| words.iter().map(|word| expand(word, &env)).collect();
        Ok(ContainerSpec {
            scope: self.scope.clone(),
            identity: self.identity(Some(spec.name.clone()), attempt),
            sandbox,
            image: spec.image.clone(),
            command: expanded(&spec.command),
            args: expanded(&spec.args),
            env,
            working_dir: spec.working_dir.clone(),
            resources: spec.resources,
            security: Security::of(&self.pod.spec, spec),
            tty: spec.tty,
            stdin: spec.stdin,
            mounts: volumes::mounts(&self.pod, spec)?,
        })
    }

    async fn hook(&self, at: &HookRun, which: fn(&Lifecycle) -> &Option<Box<Hook>>) -> Result<Outcome, RuntimeError> {
        let spec = self.spec(&at.container)?;
        let Some(hook) = which(&spec.lifecycle) else { return Ok(Outcome::Hooked(Ok(()))) };
        self.context.probes.run_hook(spec, hook, at).await.map(Outcome::Hooked)
    }

    /// What a container left in its file; where that is empty and it failed, its last lines, unless they are nobody's business.
    async fn last_words(&self, spec: &Container, id: &ContainerId, failed: bool) -> Option<String> {
        let path = spec.termination_message_path.as_deref()?;
        let read = tokio::time::timeout(LAST_LIMIT, self.context.runtime.read_file(id, path, MOST_MESSAGE)).await;
        let file = read.ok().and_then(Result::ok).flatten().unwrap_or_default();
        let text = String::from_utf8_lossy(&file).trim().to_owned();
        match spec.termination_message_policy {
            _ if !text.is_empty() => Some(text),
            TerminationMessagePolicy::FallbackToLogsOnError if failed => self.last_lines(id).await,
            TerminationMessagePolicy::FallbackToLogsOnError | TerminationMessagePolicy::File => None,
        }
    }

    /// None where they can't be read: they are a courtesy, and a crash is a crash without them.
    async fn last_lines(&self, id: &ContainerId) -> Option<String> {
        let request = LogRequest { tail: Some(LAST_LINES), ..LogRequest::default() };
        let read = async {
            let mut lines = self.context.runtime.logs(id, &request).await.ok()?;
            let mut last = Vec::new();
            while let Some(Ok(batch)) = lines.next().await {
                batch.iter().for_each(|line| last.extend_from_slice(&line.bytes));
                let surplus = last.len().saturating_sub(LAST_BYTES);
                last.drain(..surplus);
            }
            let text = String::from_utf8_lossy(&last).trim().to_owned();
            (!text.is_empty()).then_some(text)
        };
        tokio::time::timeout(LAST_LIMIT, read).await.ok().flatten()
    }
}
