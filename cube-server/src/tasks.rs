//! The one place that spawns: every task has a name and an end, and a panic in one ends the process instead of leaving it half alive.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::FutureExt;
use futures::future::Either;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Dispatch;
use tracing::instrument::WithSubscriber;

/// The tasks of a server. Clones share them.
#[derive(Clone, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    stopping: CancellationToken,
    panicked: Arc<AtomicBool>,
    quiet: bool,
}

impl Tasks {
    /// The same, but what is spawned through these logs nothing, a panic apart.
    pub fn quiet(&self) -> Self {
        Self { quiet: true, ..self.clone() }
    }

    /// Starts a task that ends by itself soon after [`Tasks::stopping`].
    pub fn spawn(&self, name: impl Into<String>, future: impl Future<Output = ()> + Send + 'static) {
        let name = name.into();
        let (stopping, panicked) = (self.stopping.clone(), self.panicked.clone());
        let future = if self.quiet { Either::Left(future.with_subscriber(Dispatch::none())) } else { Either::Right(future) };
        // Combinators, and below a box: an `async` block has what it awaits in it twice. A pod's task had 17 KiB with two of them, now 4.
        self.tracker.spawn(AssertUnwindSafe(future).catch_unwind().map(move |ended| {
            if ended.is_err() {
                tracing::error!(task = name, "a task panicked: stopping, so that a restart recovers from what is stored");
                panicked.store(true, Ordering::SeqCst);
                stopping.cancel();
            }
        }));
    }

    /// As [`Tasks::spawn`], for a task that may be dropped at any await when the server stops.
    pub fn spawn_droppable(&self, name: impl Into<String>, future: impl Future<Output = ()> + Send + 'static) {
        let (stopping, future) = (self.stopping.clone(), Box::pin(future));
        self.spawn(name, async move {
            tokio::select! {
                biased;
                () = stopping.cancelled() => {}
                () = future => {}
            }
        });
    }

    /// Fires when the server should stop.
    pub fn stopping(&self) -> &CancellationToken {
        &self.stopping
    }

    /// Whether a task has panicked.
    pub fn has_panicked(&self) -> bool {
        self.panicked.load(Ordering::SeqCst)
    }

    /// Tells every task to stop and waits for them at most so long; whether all ended.
    pub async fn shut_down(&self, limit: Duration) -> bool {
        self.stopping.cancel();
        self.tracker.close();
        tokio::time::timeout(limit, self.tracker.wait()).await.is_ok()
    }
}
