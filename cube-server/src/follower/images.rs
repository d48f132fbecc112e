//! Pulls: one at a time per image however many pods wait for it, three at a time in all.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use crate::follower::runtime::{PullProgress, Runtime, RuntimeError};
use crate::tasks::Tasks;

/// Pulls at the same time; Docker itself loads three layers at a time of each.
const PULLS_AT_ONCE: usize = 3;

/// The node's pulls. Clones share them.
#[derive(Clone)]
pub struct Images {
    runtime: Arc<dyn Runtime>,
    tasks: Tasks,
    slots: Arc<Semaphore>,
    pulling: Arc<Mutex<HashMap<String, Pull>>>,
}

/// A pull on its way.
#[derive(Clone)]
pub struct Pull {
    /// How far it is.
    pub progress: watch::Receiver<PullProgress>,
    done: watch::Receiver<Option<Result<Pulled, Failure>>>,
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

    /// Joins the pull of an image, or begins one. It goes on if nobody waits for it any more.
    pub fn pull(&self, image: &str) -> Pull {
        let mut pulling = self.pulling.lock().expect("nothing panics while it is held");
        if let Some(pull) = pulling.get(image) {
            return pull.clone();
        }
        let (progress, progress_seen) = watch::channel(PullProgress::default());
        let (done, done_seen) = watch::channel(None);
        let pull = Pull { progress: progress_seen, done: done_seen };
        pulling.insert(image.to_owned(), pull.clone());
        let (all, image) = (self.clone(), image.to_owned());
        self.tasks.spawn_droppable(format!("pull {image}"), async move {
            let result = all.pull_now(&image, progress).await;
            all.pulling.lock().expect("nothing panics while it is held").remove(&image);
            done.send_replace(Some(result));
        });
        pull
    }

    async fn pull_now(&self, image: &str, progress: watch::Sender<PullProgress>) -> Result<Pulled, Failure> {
        let _slot = self.slots.acquire().await.expect("it is never closed");
        let began = Instant::now();
        match self.runtime.pull(image, progress).await {
            Ok(id) => Ok((id, began.elapsed())),
            Err(RuntimeError::Unavailable { problem, .. }) => Err(Failure::Engine(problem)),
            Err(error @ (RuntimeError::Refused { .. } | RuntimeError::Gone | RuntimeError::Image { .. })) => {
                Err(Failure::Image(error.to_string()))
            }
        }
    }
}

impl Pull {
    /// Waits for the end.
    pub async fn wait(mut self) -> Result<Pulled, RuntimeError> {
        let stopped = || Failure::Engine("the server is stopping".to_owned());
        let result = match self.done.wait_for(Option::is_some).await {
            Ok(result) => result.clone().unwrap_or_else(|| Err(stopped())),
            Err(_) => Err(stopped()),
        };
        result.map_err(|failure| match failure {
            Failure::Engine(problem) => RuntimeError::Unavailable { operation: "pull an image", problem },
            Failure::Image(problem) => RuntimeError::Image { problem },
        })
    }
}
