//! The leader's loops: snapshot, pure plan, write.
//!
//! | loop | runs | decides by |
//! | --- | --- | --- |
//! | `scheduler` | on a change that may let a pod be placed, and every 10 s; every second behind a restore's fence | `plan::fence`, `plan::schedule` |
//! | `nodes` | every second, and when a node says something of itself | `plan::health` |
//! | `drain` | when a node is to be drained; then on a change that may let a pod go, and every second | `plan::drain` |
//! | `owners` | when a resource that owns others is deleted, and when one of those is gone | what it owns |
//! | `backups` | on schedule, if a folder for them is given | the age of the newest |
//! | `gc` | at the start and every hour | the age and number of events |
//!
//! A loop takes no input: it re-reads what is stored, so that the start, the steady state and a recovery are one path. Each runs one pass at a
//! time and ends when the server stops; a pass that fails is logged and made again. Knows neither HTTP nor SQL.

mod backups;
mod drain;
mod nodes;
mod owners;
mod scheduler;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cube_api::meta::{Name, Revision};
use cube_api::pod::Strategy;
use jiff::Timestamp;

use crate::ambient::Ambient;
use crate::leader::plan::fence::Waits;
use crate::leader::store::{Change, Store, StoreError};
use crate::tasks::Tasks;

/// Who is connected. The session keeper implements it.
pub trait SessionView: Send + Sync + 'static {
    /// The nodes that have a session, each with when it was last heard.
    fn live(&self) -> BTreeMap<Name, Timestamp>;
}

/// How long and how often.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long a node without a session stays Ready.
    pub not_ready_after: Duration,
    /// How long a node may be without a session before its pods are replaced elsewhere; none: for ever. For twice that time after the leader's start
    /// nobody is lost, and one that was restored from a backup waits as long for the nodes that the backup has.
    pub lost_after: Option<Duration>,
    /// Which of the nodes that fit a pod gets, where the pod doesn't say.
    pub strategy: Strategy,
    /// The longest between two passes of the scheduler.
    pub schedule_every: Duration,
    /// The longest between two looks at the nodes.
    pub check_nodes_every: Duration,
    /// Between two passes over old events.
    pub collect_garbage_every: Duration,
    /// Backups on schedule; none: no such.
    pub backups: Option<Backups>,
}

/// Where backups go, and how many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backups {
    /// The folder; made where it is missing.
    pub folder: PathBuf,
    /// Between two of them.
    pub every: Duration,
    /// How many of this cluster are kept.
    pub keep: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            not_ready_after: Duration::from_secs(10),
            lost_after: Some(Duration::from_secs(30)),
            strategy: Strategy::default(),
            schedule_every: Duration::from_secs(10),
            check_nodes_every: Duration::from_secs(1),
            collect_garbage_every: Duration::from_secs(3_600),
            backups: None,
        }
    }
}

/// How soon a pass that failed is made again: long enough for a disk to be cleared up between two log lines.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Starts the loops. They end with `tasks`.
pub fn start(store: &Store, sessions: Arc<dyn SessionView>, ambient: &Ambient, tasks: &Tasks, options: Options) {
    let waits = Waits::by(options.lost_after);
    tasks.spawn_droppable("scheduler", scheduler::run(store.clone(), options.schedule_every, waits, options.strategy));
    tasks.spawn_droppable("drain", drain::run(store.clone(), sessions.clone(), options.check_nodes_every, options.strategy));
    tasks.spawn_droppable("nodes", nodes::Nodes::new(store.clone(), sessions, &options).run());
    tasks.spawn_droppable("owners", owners::run(store.clone()));
    tasks.spawn_droppable("gc", collect_garbage(store.clone(), options.collect_garbage_every));
    if let Some(backups) = options.backups {
        tasks.spawn_droppable("backups", backups::run(store.clone(), ambient.clone(), backups));
    }
}

async fn collect_garbage(store: Store, every: Duration) {
    let mut due = tokio::time::interval(every);
    due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        due.tick().await;
        match store.collect_garbage().await {
            Ok(0) => {}
            Ok(dropped) => tracing::debug!(dropped, "forgot old events"),
            Err(error) => log_failure("forgetting old events", &error),
        }
    }
}

/// Waits until something that matters has happened after the revision that was looked at, or `at_most`.
async fn news(store: &Store, looked_at: Revision, at_most: Duration, matters: fn(&Change) -> bool) {
    let happens = async {
        // Where the changes are no longer kept, a look at the state is what is needed.
        let Ok(mut changes) = store.watch(looked_at) else { return };
        while let Some(change) = changes.next().await {
            if matters(&change) {
                return;
            }
        }
    };
    // Either way it is time for another look.
    match tokio::time::timeout(at_most, happens).await {
        Ok(()) | Err(tokio::time::error::Elapsed { .. }) => {}
    }
}

fn log_failure(what: &str, error: &StoreError) {
    tracing::warn!(error = cube_api::error::chain(error), "{what} failed, it is tried again");
}
