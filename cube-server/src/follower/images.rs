//! Pulls: one at a time per image however many pods wait for it, three at a time in all. One that nobody waits for any more
//! is given up: Docker stops it then, and another one gets its place.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::follower::runtime::{PullProgress, Runtime, RuntimeError};
use crate::latest;
use crate::tasks::Tasks;

/// Pulls at the same time; Docker itself loads three layers at a time of each.
const PULLS_AT_ONCE: usize = 3;

/// The node's pulls. Clones share them.
#[derive(Clone)]
pub struct Images {
    runtime: Arc<dyn Runtime>,
    tasks: Tasks,
    slots: Arc<Semaphore>,
    pulling: Arc<Mutex<BTreeMap<String, Weak<Waited>>>>,
}

/// A pull on its way, for as long as a clone of this is held.
#[derive(Clone)]
pub struct Pull {
    waited: Arc<Waited>,
}

/// What those who wait for a pull share.
struct Waited {
    progress: latest::Receiver<PullProgress>,
    done: latest::Receiver<Option<Result<Pulled, Failure>>>,
    /// The last one who waits has gone when this is dropped.
    _unwanted: DropGuard,
}

/// An image that arrived: its content id, and how long that took.
type Pulled = (String, Duration);

/// What each of those who wait for a pull is told. `RuntimeError` can't be cloned.
#[derive(Debug, Clone)]
enum Failure {
    Engine(String),
    Image(String),
}

impl Images {
    /// No pulls yet.
    pub fn new(runtime: Arc<dyn Runtime>, tasks: Tasks) -> Self {
        Self { runtime, tasks, slots: Arc::new(Semaphore::new(PULLS_AT_ONCE)), pulling: Arc::default() }
    }

    /// Joins the pull of an image, or begins one. It is given up when nobody waits for it any more.
    pub fn pull(&self, image: &str) -> Pull {
        let mut pulling = self.pulling.lock().expect("nothing panics while it is held");
        if let Some(waited) = pulling.get(image).and_then(Weak::upgrade) {
            return Pull { waited };
        }
        let (progress, progress_seen) = latest::channel(PullProgress::default());
        let (done, done_seen) = latest::channel(None);
        let unwanted = CancellationToken::new();
        let waited = Arc::new(Waited { progress: progress_seen, done: done_seen, _unwanted: unwanted.clone().drop_guard() });
        let this = Arc::downgrade(&waited);
        pulling.insert(image.to_owned(), this.clone());
        let (all, image) = (self.clone(), image.to_owned());
        self.tasks.spawn_droppable(format!("pull {image}"), async move {
            let result = tokio::select! {
                biased;
                () = unwanted.cancelled() => None,
                result = all.pull_now(&image, progress) => Some(result),
            };
            all.end(&image, &this);
            done.send_replace(result);
        });
        Pull { waited }
    }

    /// The next who wants the image begins anew. Somebody may have since this one was given up.
    fn end(&self, image: &str, pull: &Weak<Waited>) {
        let mut pulling = self.pulling.lock().expect("nothing panics while it is held");
        if pulling.get(image).is_some_and(|newest| newest.ptr_eq(pull)) {
            pulling.remove(image);
        }
    }

    async fn pull_now(&self, image: &str, progress: latest::Sender<PullProgress>) -> Result<Pulled, Failure> {
        let _slot = self.slots.acquire().await.expect("it is never closed");
        let began = Instant::now();
        match self.runtime.pull(image, progress).await {
            Ok(id) => Ok((id, began.elapsed())),
            Err(RuntimeError::Unavailable { problem, .. }) => Err(Failure::Engine(problem)),
            Err(
                error @ (RuntimeError::Refused { .. } | RuntimeError::PortTaken { .. } | RuntimeError::Gone | RuntimeError::Image { .. }),
            ) => Err(Failure::Image(error.to_string())),
        }
    }
}

impl Pull {
    /// How far it is. To look at it is not to wait for it.
    pub fn progress(&self) -> latest::Receiver<PullProgress> {
        self.waited.progress.clone()
    }

    /// Waits for the end.
    pub async fn wait(self) -> Result<Pulled, RuntimeError> {
        let stopped = || Failure::Engine("the server is stopping".to_owned());
        let result = match self.waited.done.clone().wait_for(Option::is_some).await {
            Ok(result) => result.clone().unwrap_or_else(|| Err(stopped())),
            Err(_) => Err(stopped()),
        };
        result.map_err(|failure| match failure {
            Failure::Engine(problem) => RuntimeError::Unavailable { operation: "pull an image", problem },
            Failure::Image(problem) => RuntimeError::Image { problem },
        })
    }
}
