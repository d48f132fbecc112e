//! One engine under test, a scope of its own on it, and the containers that the cases ask for.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::{Arc, Once};
use std::time::Duration;

use cube_api::meta::{ClusterId, Name, Uid};
use cube_api::pod::{Amounts, PublishedPort, Resources};
use cube_api::quantity::Bytes;
use cube_server::ambient::Ambient;
use cube_server::follower::runtime::docker::{Docker, default_socket};
use cube_server::follower::runtime::fake::{Fake, Script};
use cube_server::follower::runtime::{ContainerId, ContainerSpec, Identity, Observed, RunState, Runtime, RuntimeError, SandboxSpec, Scope};
use cube_server::tasks::Tasks;
use uuid::Uuid;

/// busybox as an image: the one of scripts/images, else made from the package busybox-static. The tests need no registry.
const BUSYBOX: &str = "cube-test/busybox:1";
const MAKE_BUSYBOX: &str = r#"
    docker image inspect cube-test/busybox:1 >/dev/null 2>&1 && exit
    docker tag busybox:latest cube-test/busybox:1 2>/dev/null && exit
    root=$(mktemp -d) && mkdir "$root/bin" "$root/tmp" && cp "$(command -v busybox)" "$root/bin/busybox" &&
    for name in $(busybox --list); do [ "$name" = busybox ] || ln -s busybox "$root/bin/$name" || exit 1; done &&
    tar -C "$root" -c . | docker import -c 'CMD ["/bin/sh"]' -c 'ENV PATH=/bin' - cube-test/busybox:1 && rm -r "$root"
"#;

/// What a container does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Does {
    /// Runs until it is told to stop.
    Runs,
    /// Runs until it is killed.
    IgnoresStop,
    /// Writes `one`, `two`, `three`, then ends with this code.
    PrintsAndExits(i64),
    /// Takes memory until the kernel kills it.
    EatsMemory,
    /// Has no such program.
    NotThere,
}

/// An engine, and a pod on it that nobody else has.
pub struct Rig {
    /// The engine.
    pub runtime: Arc<dyn Runtime>,
    /// Whose containers.
    pub scope: Scope,
    /// The pod.
    pub uid: Uid,
    /// The engine, if it is the scripted one.
    pub fake: Option<Fake>,
}

impl Rig {
    /// On the engine that `DOCKER_HOST` names or the usual one. Without an engine the tests fail: a skipped contract is none.
    pub fn docker() -> Self {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| {
            let made = Command::new("sh").args(["-c", MAKE_BUSYBOX]).status().expect("sh runs");
            assert!(made.success(), "the image {BUSYBOX} can't be made: is Docker running and busybox-static installed?");
        });
        Self::new(Arc::new(connect()), None)
    }

    /// On a scripted engine.
    pub fn fake() -> Self {
        let fake = Fake::new(Ambient::system(), &Tasks::default());
        for does in [Does::Runs, Does::IgnoresStop, Does::PrintsAndExits(0), Does::PrintsAndExits(3), Does::EatsMemory, Does::NotThere] {
            let prints = matches!(does, Does::PrintsAndExits(_));
            let script = Script {
                run_for: (prints || does == Does::EatsMemory).then_some(Duration::from_millis(1)),
                exit_code: if let Does::PrintsAndExits(code) = does { code } else { 0 },
                ignores_stop: does == Does::IgnoresStop,
                oom: does == Does::EatsMemory,
                start_error: (does == Does::NotThere).then(|| "exec: \"nope\": executable file not found in $PATH".to_owned()),
                output: if prints { ["one", "two", "three"].map(str::to_owned).to_vec() } else { Vec::new() },
                ..Script::default()
            };
            fake.script(&format!("{does:?}"), script);
        }
        Self::new(Arc::new(fake.clone()), Some(fake))
    }

    fn new(runtime: Arc<dyn Runtime>, fake: Option<Fake>) -> Self {
        let scope = Scope { cluster: ClusterId(Uuid::new_v4()), node: name("node-1") };
        Self { runtime, scope, uid: Uid(Uuid::new_v4()), fake }
    }

    /// Which container.
    pub fn identity(&self, container: Option<&str>, attempt: u32) -> Identity {
        Identity { uid: self.uid, pod: name("web"), container: container.map(name), attempt }
    }

    /// The pod's sandbox.
    pub fn sandbox_spec(&self, published: Vec<PublishedPort>) -> SandboxSpec {
        SandboxSpec { scope: self.scope.clone(), identity: self.identity(None, 0), hostname: Some("web".to_owned()), published }
    }

    /// A container of the pod.
    pub fn spec(&self, sandbox: &ContainerId, container: &str, does: Does) -> ContainerSpec {
        let script = match does {
            Does::Runs => "trap 'exit 143' TERM; sleep 1000 & wait".to_owned(),
            Does::IgnoresStop => "trap '' TERM; sleep 1000".to_owned(),
            Does::PrintsAndExits(code) => format!("echo one; echo two; echo three; exit {code}"),
            Does::EatsMemory => "exec tail /dev/zero".to_owned(),
            Does::NotThere => String::new(),
        };
        let command = if does == Does::NotThere { vec!["nope".to_owned()] } else { ["sh", "-c", &script].map(str::to_owned).to_vec() };
        let limits = Amounts { memory: (does == Does::EatsMemory).then_some(Bytes(16 << 20)), ..Amounts::default() };
        ContainerSpec {
            scope: self.scope.clone(),
            identity: self.identity(Some(container), 0),
            sandbox: sandbox.clone(),
            image: if self.fake.is_none() { BUSYBOX.to_owned() } else { format!("{does:?}") },
            command,
            args: Vec::new(),
            env: BTreeMap::new(),
            working_dir: None,
            resources: Resources { limits, ..Resources::default() },
            tty: false,
            stdin: false,
        }
    }

    /// A started sandbox.
    pub async fn sandbox(&self) -> ContainerId {
        let id = self.runtime.create_sandbox(&self.sandbox_spec(Vec::new())).await.expect("the sandbox is created");
        self.runtime.start(&id).await.expect("the sandbox starts");
        id
    }

    /// A started container in a started sandbox.
    pub async fn started(&self, does: Does) -> ContainerId {
        let sandbox = self.sandbox().await;
        self.started_from(&self.spec(&sandbox, "app", does)).await
    }

    /// A started container.
    pub async fn started_from(&self, spec: &ContainerSpec) -> ContainerId {
        let id = self.runtime.create_container(spec).await.expect("the container is created");
        self.runtime.start(&id).await.expect("the container starts");
        id
    }

    /// What the container is now.
    pub async fn look(&self, id: &ContainerId) -> Observed {
        self.runtime.inspect(id).await.expect("the engine answers").expect("the container is there")
    }

    /// Waits for the container's end: code and whether it was killed for memory.
    pub async fn ended(&self, id: &ContainerId) -> (i64, bool) {
        wait_for("the container's end", async || match self.look(id).await.state {
            RunState::Exited { code, oom, .. } => Ok((code, oom)),
            other => Err(format!("{other:?}")),
        })
        .await
    }
}

impl Drop for Rig {
    /// Removes what carries the test's own cluster, also when it failed. On a thread of its own: the test's runtime may be on its way out.
    fn drop(&mut self) {
        if self.fake.is_some() {
            return;
        }
        let scope = self.scope.clone();
        let cleaning = std::thread::spawn(move || {
            let clean = async {
                let docker = connect();
                for node in ["node-1", "node-2"] {
                    let scope = Scope { node: name(node), ..scope.clone() };
                    let left = docker.list(&scope).await?.into_iter().map(|container| container.id);
                    let spares = docker.spares(&scope).await?.into_iter().map(|spare| spare.id);
                    for id in left.chain(spares) {
                        docker.remove(&id).await?;
                    }
                }
                Ok::<_, RuntimeError>(())
            };
            tokio::runtime::Runtime::new().expect("a runtime starts").block_on(clean)
        });
        if let Ok(Err(error)) = cleaning.join() {
            eprintln!("containers of cluster {} are left: {error}", self.scope.cluster);
        }
    }
}

fn connect() -> Docker {
    Docker::connect(&default_socket(), &Tasks::default()).expect("DOCKER_HOST is a Unix socket")
}

/// A name that the test knows to be one.
pub fn name(text: &str) -> Name {
    text.parse().expect("a DNS label")
}

/// Asks until `probe` gives a value, at most 20 seconds; then fails with its last words.
pub async fn wait_for<T>(what: &str, mut probe: impl AsyncFnMut() -> Result<T, String>) -> T {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        match probe().await {
            Ok(value) => return value,
            Err(last) => assert!(tokio::time::Instant::now() < deadline, "{what} did not come: {last}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
