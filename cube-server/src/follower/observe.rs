//! Watches the engine: its health, hints about single pods, and all containers from time to time. Changes nothing itself.

use std::sync::{Arc, RwLock};
use std::time::Duration;

use cube_api::meta::Name;
use cube_api::session::NodeFacts;
use futures::StreamExt;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;

use crate::ambient::Ambient;
use crate::backoff::{Backoff, Jitter};
use crate::follower::assignments::{Pods, Request};
use crate::follower::ledger::Membership;
use crate::follower::reporter::Reporter;
use crate::follower::runtime::{Runtime, RuntimeError, Scope};

/// How often everything is listed, whatever the hints say: Docker keeps only its last 256 events.
const RELIST: Duration = Duration::from_secs(10);

/// The waits after a failure of the engine.
const RETRY: Backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(10));

/// What the engine's watcher works with.
pub struct Observer {
    /// The engine.
    pub runtime: Arc<dyn Runtime>,
    /// The node's name.
    pub node: Name,
    /// Which cluster's containers are ours.
    pub membership: watch::Receiver<Membership>,
    /// The pods, to poke.
    pub pods: Arc<RwLock<Pods>>,
    /// Where full lists go.
    pub assignments: mpsc::Sender<Request>,
    /// The node's facts: the engine's part is written here.
    pub facts: watch::Sender<NodeFacts>,
    /// Told of changed facts.
    pub reporter: Reporter,
    /// The most pods that the node takes.
    pub max_pods: u32,
    /// The dice.
    pub ambient: Ambient,
    /// The engine came back or the hints broke: list now.
    pub relist: Notify,
}

impl Observer {
    /// Watches for as long as it is polled.
    pub async fn run(self) {
        tokio::join!(self.look(), self.listen());
    }

    /// Health and lists, every ten seconds; after a failure sooner.
    async fn look(&self) {
        let mut backoff = RETRY;
        loop {
            let wait = match self.look_once().await {
                Ok(()) => {
                    backoff.reset();
                    Jitter::from_random(self.ambient.random()).spread(RELIST)
                }
                Err(error) => {
                    self.note_trouble(&error);
                    backoff.next(self.ambient.random())
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.relist.notified() => {}
            }
        }
    }

    async fn look_once(&self) -> Result<(), RuntimeError> {
        let info = self.runtime.info().await?;
        let listed = match self.scope() {
            Some(scope) => Some(self.runtime.list(&scope).await?),
            None => None,
        };
        // Only now: an engine that tells its version but can't list is in trouble, and must not seem well in between.
        self.set_facts(|facts| {
            facts.engine = info.version.clone();
            facts.capacity = cube_api::node::Capacity { pods: self.max_pods, ..info.capacity };
            facts.trouble = None;
        });
        if let Some(listed) = listed {
            // A closed queue means that the server is stopping.
            drop(self.assignments.send(Request::Listed(listed)).await);
        }
        Ok(())
    }

    /// Pokes the pods that the engine speaks of. When the hints break, everything is listed: what was said meanwhile is lost.
    async fn listen(&self) {
        let mut membership = self.membership.clone();
        if membership.wait_for(|membership| membership.cluster.is_some()).await.is_err() {
            return;
        }
        self.relist.notify_one();
        let mut backoff = RETRY;
        loop {
            let began = Instant::now();
            if let Some(scope) = self.scope()
                && let Ok(mut hints) = self.runtime.hints(&scope).await
            {
                // What was said before they were open is lost.
                self.relist.notify_one();
                while let Some(hint) = hints.next().await {
                    if let Some(handle) = self.pods.read().expect("nothing panics while it is held").get(&hint.uid) {
                        handle.poke.notify_one();
                    }
                }
                self.relist.notify_one();
            }
            if began.elapsed() > RELIST {
                backoff.reset();
            }
            tokio::time::sleep(backoff.next(self.ambient.random())).await;
        }
    }

    fn scope(&self) -> Option<Scope> {
        let cluster = self.membership.borrow().cluster?;
        Some(Scope { cluster, node: self.node.clone() })
    }

    fn note_trouble(&self, error: &RuntimeError) {
        let problem = match error {
            RuntimeError::Unavailable { problem, .. } => problem.clone(),
            RuntimeError::Refused { .. } | RuntimeError::Gone | RuntimeError::Image { .. } => error.to_string(),
        };
        self.set_facts(|facts| {
            facts.engine = String::new();
            facts.trouble = Some(format!("docker doesn't answer: {problem}"));
        });
    }

    fn set_facts(&self, change: impl Fn(&mut NodeFacts)) {
        let changed = self.facts.send_if_modified(|facts| {
            let before = facts.clone();
            change(facts);
            *facts != before
        });
        if changed {
            if let Some(trouble) = &self.facts.borrow().trouble {
                tracing::warn!("{trouble}");
            }
            self.reporter.facts_changed();
        }
    }
}
