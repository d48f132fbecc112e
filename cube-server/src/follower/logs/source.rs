//! One container's log, over its attempts.

use std::sync::Arc;

use cube_api::meta::Name;
use cube_api::routes::LogQuery;
use futures::stream::{BoxStream, StreamExt};

use crate::follower::pods::Snapshot;
use crate::follower::runtime::{LogBatch, LogLine, LogRequest, Observed, RunState, Runtime, RuntimeError};
use crate::latest;

/// Lines, or the problem that ends the stream.
pub type Batch = Result<Vec<LogLine>, String>;

/// One container's log.
pub struct Source {
    runtime: Arc<dyn Runtime>,
    snapshot: latest::Receiver<Arc<Snapshot>>,
    /// The container.
    pub name: Name,
    request: LogRequest,
    previous: bool,
    /// The attempt that was read last.
    attempt: Option<u32>,
    lines: Option<BoxStream<'static, LogBatch>>,
}

impl Source {
    /// Opens nothing yet. `times`: each line's time is needed.
    pub fn new(runtime: Arc<dyn Runtime>, snapshot: latest::Receiver<Arc<Snapshot>>, name: Name, query: &LogQuery, times: bool) -> Self {
        // The attempt before the newest has ended: there is nothing to follow.
        let follow = query.follow && !query.previous;
        let request = LogRequest { follow, tail: query.tail, since: query.since, times };
        Self { runtime, snapshot, name, request, previous: query.previous, attempt: None, lines: None }
    }

    /// The next lines; none at the end.
    pub async fn next(&mut self) -> Option<Batch> {
        loop {
            if let Some(lines) = &mut self.lines {
                match lines.next().await {
                    Some(batch) => return Some(batch.map_err(|error| self.problem(&error))),
                    None => self.lines = None,
                }
                if !self.request.follow {
                    return None;
                }
            }
            let next = self.next_attempt().await?;
            self.attempt = Some(next.identity.attempt);
            match self.runtime.logs(&next.id, &self.request).await {
                Ok(lines) => self.lines = Some(lines),
                Err(error) => return Some(Err(self.problem(&error))),
            }
            // The tail was asked of what there was at first.
            self.request.tail = None;
        }
    }

    fn problem(&self, error: &RuntimeError) -> String {
        format!("container '{}': {error}", self.name)
    }

    /// The attempt to read next; waits for one when following, until the pod is over.
    async fn next_attempt(&mut self) -> Option<Observed> {
        loop {
            let now = self.snapshot.borrow_and_update().clone();
            let next = match self.attempt {
                None => first(&now, &self.name, self.previous),
                Some(last) => started(&now, &self.name).into_iter().find(|seen| seen.identity.attempt > last),
            };
            if let Some(next) = next {
                return Some(next.clone());
            }
            if !self.request.follow || now.record.is_over() || self.snapshot.changed().await.is_err() {
                return None;
            }
        }
    }
}

/// The attempt to begin with: the newest that was started, or the one before it.
pub fn first<'a>(snapshot: &'a Snapshot, name: &Name, previous: bool) -> Option<&'a Observed> {
    started(snapshot, name).into_iter().rev().nth(usize::from(previous))
}

/// The attempts that were started, oldest first.
fn started<'a>(snapshot: &'a Snapshot, name: &Name) -> Vec<&'a Observed> {
    let was_started = |seen: &&Observed| match seen.state {
        RunState::Running { .. } | RunState::Paused { .. } | RunState::Exited { .. } => true,
        RunState::Created | RunState::Removing => false,
    };
    let mut all: Vec<_> =
        snapshot.containers.iter().filter(|seen| seen.identity.container.as_ref() == Some(name)).filter(was_started).collect();
    all.sort_by_key(|seen| seen.identity.attempt);
    all
}
