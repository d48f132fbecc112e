//! The one place where blocking work (SQLite) leaves the async threads, so that a simulation can run it inline instead.

/// Runs `work` on a thread that may block. A panic in it goes on in the caller.
pub async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
