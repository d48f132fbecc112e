//! An engine whose containers write for ever, and which counts what is taken.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use cube_api::meta::Uid;
use cube_api::pod::HostPort;
use cube_server::follower::runtime::fake::Fake;
use cube_server::follower::runtime::{
    ContainerId, ContainerSpec, EngineInfo, ExecHandle, ExecRequest, Hint, LogBatch, LogLine, LogRequest, Observed, PullProgress, Runtime,
    RuntimeError, SandboxSpec, Scope, StopSignal,
};
use cube_server::latest;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use jiff::Timestamp;

/// A [`Fake`] with endless logs.
pub struct Flood {
    fake: Fake,
    /// Lines that were taken out of all logs.
    pub taken: Arc<AtomicUsize>,
}

impl Flood {
    /// The bytes of each line.
    pub const LINE: usize = 16 * 1024;

    pub fn new(fake: Fake) -> Self {
        Self { fake, taken: Arc::default() }
    }
}

#[async_trait]
impl Runtime for Flood {
    async fn info(&self) -> Result<EngineInfo, RuntimeError> {
        self.fake.info().await
    }

    async fn scopes(&self) -> Result<BTreeMap<Scope, usize>, RuntimeError> {
        self.fake.scopes().await
    }

    async fn list(&self, scope: &Scope) -> Result<Vec<Observed>, RuntimeError> {
        self.fake.list(scope).await
    }

    async fn list_pod(&self, scope: &Scope, uid: Uid) -> Result<Vec<Observed>, RuntimeError> {
        self.fake.list_pod(scope, uid).await
    }

    async fn inspect(&self, id: &ContainerId) -> Result<Option<Observed>, RuntimeError> {
        self.fake.inspect(id).await
    }

    async fn hints(&self, scope: &Scope) -> Result<BoxStream<'static, Hint>, RuntimeError> {
        self.fake.hints(scope).await
    }

    async fn image(&self, image: &str) -> Result<Option<String>, RuntimeError> {
        self.fake.image(image).await
    }

    async fn pull(&self, image: &str, progress: latest::Sender<PullProgress>) -> Result<String, RuntimeError> {
        self.fake.pull(image, progress).await
    }

    async fn port_is_free(&self, port: HostPort) -> bool {
        self.fake.port_is_free(port).await
    }

    async fn create_sandbox(&self, spec: &SandboxSpec) -> Result<ContainerId, RuntimeError> {
        self.fake.create_sandbox(spec).await
    }

    async fn create_container(&self, spec: &ContainerSpec) -> Result<ContainerId, RuntimeError> {
        self.fake.create_container(spec).await
    }

    async fn start(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        self.fake.start(id).await
    }

    async fn signal(&self, id: &ContainerId, signal: StopSignal) -> Result<(), RuntimeError> {
        self.fake.signal(id, signal).await
    }

    async fn remove(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        self.fake.remove(id).await
    }

    async fn logs(&self, _: &ContainerId, request: &LogRequest) -> Result<BoxStream<'static, LogBatch>, RuntimeError> {
        let taken = Arc::clone(&self.taken);
        let mut line = vec![b'x'; Self::LINE - 1];
        line.push(b'\n');
        let line = Bytes::from(line);
        let times = request.times;
        let lines = stream::repeat_with(move || {
            taken.fetch_add(1, Ordering::Relaxed);
            Ok(vec![LogLine { at: times.then(Timestamp::now), bytes: line.clone() }])
        });
        Ok(lines.boxed())
    }

    async fn exec(&self, id: &ContainerId, request: &ExecRequest) -> Result<ExecHandle, RuntimeError> {
        self.fake.exec(id, request).await
    }
}
