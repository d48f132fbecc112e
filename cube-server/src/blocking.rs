//! The one place where blocking work (SQLite) leaves the async threads, so that a simulation can run it inline instead.

use tokio::runtime::{Handle, RuntimeFlavor};

/// Runs `work` on a thread that may block. A panic in it goes on in the caller.
///
/// On a runtime of one thread it runs inline: that is a simulation or a test, where the order in which a second thread answers would be the
/// only thing that a seed doesn't decide (of 50 simulated runs with such threads, 37 were alike). The server's own runtime has many.
pub async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    if Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread {
        return work();
    }
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
