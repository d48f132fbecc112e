//! Tells the leader: the newest status of each pod, events in order, the node's facts. Sent again until accepted; one report at a time, and the
//! next at once when there is something newer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use cube_api::ErrorCode;
use cube_api::meta::{ClusterId, Instance, NodeId, Uid};
use cube_api::node::Usage;
use cube_api::pod::PodStatus;
use cube_api::session::{NodeFacts, PodReport, Report, ReportAccepted};
use tokio::sync::Notify;

use crate::ambient::Ambient;
use crate::backoff::{Backoff, Jitter};
use crate::follower::agent::{LeaderLink, LinkError};
use crate::follower::ledger::{Ledger, Membership};
use crate::follower::machine::Measured;
use crate::latest;

/// The most pods in one report: about 200 KiB of JSON.
const PODS_AT_ONCE: usize = 200;

/// The most events in one report.
const EVENTS_AT_ONCE: usize = 200;

/// The waits before a report is sent again.
const RETRY: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(30));

/// The wait after the leader had more reports at a time than it takes: it is well, and has just made this one wait for its turn.
const BUSY: Duration = Duration::from_secs(1);

/// How long the leader may take to answer; its commit takes milliseconds.
const ANSWER_LIMIT: Duration = Duration::from_secs(15);

/// A pause after which a report needs a new connection: shorter than the 10 s after which the leader cuts one on which nothing is said.
const RESTING_AFTER: Duration = Duration::from_secs(5);

/// Handle on the reporter. Clones share it.
#[derive(Clone)]
pub struct Reporter {
    shared: Arc<Shared>,
}

struct Shared {
    outgoing: Mutex<Outgoing>,
    /// There is something to send.
    poke: Notify,
    /// A leader is there: don't wait any longer.
    hurry: Notify,
}

/// What is to be sent.
struct Outgoing {
    pods: BTreeMap<Uid, Entry>,
    events: bool,
    facts: bool,
    /// What the machine uses, by the newest measurement.
    usage: Option<Usage>,
    /// What the newest report said of it.
    told_usage: Option<Usage>,
    sequence: u64,
    /// Deleted named volumes that are gone, until the leader has it.
    dropped: BTreeSet<Uid>,
}

struct Entry {
    report: PodReport,
    /// The leader doesn't have it.
    unsent: bool,
    /// The node has forgotten the pod: this is its last report.
    last: bool,
}

/// What the reporter's task works with.
pub struct Sources {
    /// This data folder.
    pub node_id: NodeId,
    /// This process.
    pub instance: Instance,
    /// Which cluster is reported to.
    pub membership: latest::Receiver<Membership>,
    /// What the node is.
    pub facts: latest::Receiver<NodeFacts>,
    /// Where events wait.
    pub ledger: Ledger,
    /// The way to the leader.
    pub link: Arc<dyn LeaderLink>,
    /// The dice.
    pub ambient: Ambient,
}

impl Reporter {
    /// Pod reports get sequences from `starts << 32`: they rise over restarts without a write for each.
    pub fn new(starts: u64) -> Self {
        let outgoing = Outgoing {
            pods: BTreeMap::new(),
            events: true,
            facts: true,
            usage: None,
            told_usage: None,
            sequence: starts << 32,
            dropped: BTreeSet::new(),
        };
        Self { shared: Arc::new(Shared { outgoing: Mutex::new(outgoing), poke: Notify::new(), hurry: Notify::new() }) }
    }

    /// A pod's newest status, with the restarts that were acted on; nothing happens if it is the one that was published before.
    pub fn publish(&self, uid: Uid, restarts: u64, status: PodStatus, stopped: bool) {
        let mut outgoing = self.outgoing();
        let mut report = PodReport { uid, sequence: outgoing.sequence, restarts: Some(restarts), status, stopped };
        let published = outgoing.pods.get(&uid).map(|entry| &entry.report);
        if published.is_some_and(|before| *before == PodReport { sequence: before.sequence, ..report.clone() }) {
            return;
        }
        outgoing.sequence += 1;
        report.sequence = outgoing.sequence;
        outgoing.pods.insert(uid, Entry { report, unsent: true, last: false });
        drop(outgoing);
        self.shared.poke.notify_one();
    }

    /// The node has nothing of the pod any more: what was published last is still sent, then dropped.
    pub fn forget(&self, uid: Uid) {
        let mut outgoing = self.outgoing();
        match outgoing.pods.get_mut(&uid) {
            Some(entry) if entry.unsent => entry.last = true,
            Some(_) | None => drop(outgoing.pods.remove(&uid)),
        }
    }

    /// Nothing is left of a deleted named volume.
    pub fn dropped(&self, volume: Uid) {
        self.outgoing().dropped.insert(volume);
        self.shared.poke.notify_one();
    }

    /// Events were written to the ledger.
    pub fn events_are_waiting(&self) {
        self.outgoing().events = true;
        self.shared.poke.notify_one();
    }

    /// The facts have changed.
    pub fn facts_changed(&self) {
        self.outgoing().facts = true;
        self.shared.poke.notify_one();
    }

    /// What the machine uses by a new measurement; none where it can't be measured. It goes with every report; for itself only if it is news, so
    /// that a cluster in which nothing happens is quiet: 5,000 nodes that told each measurement would make 333 requests a second.
    pub fn measured(&self, measured: Option<Measured>) {
        let mut outgoing = self.outgoing();
        outgoing.usage = measured.map(|measured| measured.used);
        let is_news = match (measured, outgoing.told_usage) {
            (Some(measured), Some(told)) => measured.is_news_after(&told),
            (None, None) => false,
            (Some(_), None) | (None, Some(_)) => true,
        };
        if is_news {
            outgoing.facts = true;
            drop(outgoing);
            self.shared.poke.notify_one();
        }
    }

    /// A leader is there, maybe one that knows nothing: everything is sent again (the sequences make that safe), at once.
    pub fn resync(&self) {
        let mut outgoing = self.outgoing();
        outgoing.pods.values_mut().for_each(|entry| entry.unsent = true);
        outgoing.facts = true;
        outgoing.events = true;
        drop(outgoing);
        self.shared.poke.notify_one();
        self.shared.hurry.notify_one();
    }

    /// Sends for as long as it is polled.
    pub async fn run(self, mut sources: Sources) {
        let mut backoff = RETRY;
        let mut cause = String::new();
        loop {
            let Ok(cluster) = sources.membership.wait_for(|membership| membership.cluster.is_some()).await.map(|m| m.cluster) else {
                return;
            };
            let Some(cluster) = cluster else { continue };
            let Some(report) = self.gather(&sources, cluster).await else {
                self.wait_for_poke(sources.link.as_ref()).await;
                continue;
            };
            let wait = match send(sources.link.as_ref(), &report).await {
                Ok(accepted) => {
                    if !cause.is_empty() {
                        tracing::info!("the leader takes reports again");
                    }
                    backoff.reset();
                    cause.clear();
                    self.accepted(&sources, &report, accepted).await;
                    continue;
                }
                Err(error) => {
                    // Facts are in every report, but alone they are only sent when marked.
                    self.outgoing().facts = true;
                    let now = cube_api::error::chain(&error);
                    if now != cause {
                        tracing::warn!(error = now, "the leader doesn't take a report; sending it again until it does");
                        cause = now;
                    }
                    let random = sources.ambient.random();
                    match error {
                        LinkError::Refused(refusal) if refusal.code == ErrorCode::Busy => Jitter::from_random(random).spread(BUSY),
                        LinkError::Refused(_) | LinkError::Unreachable { .. } => backoff.next(random),
                    }
                }
            };
            tokio::select! {
                biased;
                () = self.shared.hurry.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    async fn wait_for_poke(&self, link: &dyn LeaderLink) {
        let mut poked = std::pin::pin!(self.shared.poke.notified());
        if tokio::time::timeout(RESTING_AFTER, poked.as_mut()).await.is_err() {
            link.rest();
            poked.await;
        }
    }

    /// The next report; none if the leader has everything.
    async fn gather(&self, sources: &Sources, cluster: ClusterId) -> Option<Report> {
        // Taken before the read: an event that is written meanwhile sets it again.
        let waiting = std::mem::take(&mut self.outgoing().events);
        let events = if waiting { sources.ledger.events(EVENTS_AT_ONCE).await } else { Ok(Vec::new()) };
        let mut outgoing = self.outgoing();
        let events = events.unwrap_or_else(|error| {
            tracing::error!(error = cube_api::error::chain(&error), "events wait: they can't be read");
            outgoing.events = true;
            Vec::new()
        });
        // Until a read finds none: there may be more, and these are not accepted yet.
        outgoing.events |= !events.is_empty();
        let unsent = outgoing.pods.values().filter(|entry| entry.unsent);
        let pods: Vec<_> = unsent.take(PODS_AT_ONCE).map(|entry| entry.report.clone()).collect();
        if pods.is_empty() && events.is_empty() && outgoing.dropped.is_empty() && !outgoing.facts {
            return None;
        }
        outgoing.facts = false;
        let usage = outgoing.usage;
        outgoing.told_usage = usage;
        let facts = sources.facts.borrow().clone();
        let dropped = outgoing.dropped.iter().copied().collect();
        let Sources { node_id, instance, .. } = *sources;
        Some(Report { node_id, instance: Some(instance), cluster_id: cluster, facts, usage, pods, events, dropped })
    }

    async fn accepted(&self, sources: &Sources, report: &Report, accepted: ReportAccepted) {
        {
            let mut outgoing = self.outgoing();
            outgoing.dropped.retain(|volume| !report.dropped.contains(volume));
            for sent in &report.pods {
                let Some(entry) = outgoing.pods.get_mut(&sent.uid) else { continue };
                if entry.report.sequence == sent.sequence {
                    entry.unsent = false;
                    if entry.last {
                        outgoing.pods.remove(&sent.uid);
                    }
                }
            }
        }
        if !report.events.is_empty()
            && let Err(error) = sources.ledger.events_accepted(accepted.events_through).await
        {
            // They are sent again; the leader takes each once.
            tracing::error!(error = cube_api::error::chain(&error), "accepted events can't be dropped");
        }
    }

    fn outgoing(&self) -> MutexGuard<'_, Outgoing> {
        self.shared.outgoing.lock().expect("nothing panics while it is held")
    }
}

async fn send(link: &dyn LeaderLink, report: &Report) -> Result<ReportAccepted, LinkError> {
    match tokio::time::timeout(ANSWER_LIMIT, link.report(report)).await {
        Ok(answer) => answer,
        Err(_) => Err(LinkError::Unreachable {
            leader: "the configured address".to_owned(),
            problem: format!("no answer to a report within {}s", ANSWER_LIMIT.as_secs()),
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::follower::testing::{CLUSTER, Leader};
    use crate::tasks::Tasks;

    #[tokio::test]
    async fn an_event_that_is_written_while_the_outbox_is_read_is_not_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let ambient = Ambient::system();
        let (ledger, opened) = Ledger::open(&folder.path().join("follower.db"), &ambient, &Tasks::default()).await.unwrap();
        let facts = NodeFacts::default();
        let (_membership, membership) = latest::channel(opened.membership);
        let (_facts, facts) = latest::channel(facts);
        let link = Arc::new(Leader::default());
        let instance = Instance(ambient.uuid());
        let sources = Sources { node_id: opened.node_id, instance, membership, facts, ledger, link, ambient };
        let reporter = Reporter::new(1);
        // The first is at the ledger when the second runs.
        futures::join!(async { drop(reporter.gather(&sources, CLUSTER).await) }, async { reporter.events_are_waiting() });
        assert!(reporter.outgoing().events);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_is_said_once_to_the_link_and_ends_with_the_next_report() {
        let (ambient, tasks, link) = (Ambient::system(), Tasks::default(), Arc::new(Leader::default()));
        let (ledger, opened) = Ledger::in_memory(&ambient);
        let (_membership, membership) = latest::channel(Membership { cluster: Some(CLUSTER), ..opened.membership });
        let facts = NodeFacts::default();
        let (_facts, facts) = latest::channel(facts);
        let instance = Instance(ambient.uuid());
        let sources = Sources { node_id: opened.node_id, instance, membership, facts, ledger, link: link.clone(), ambient };
        let reporter = Reporter::new(1);
        tasks.spawn_droppable("reporter", reporter.clone().run(sources));
        for pauses in 1..3 {
            tokio::time::sleep(RESTING_AFTER - Duration::from_millis(1)).await;
            assert_eq!(link.rests.load(Ordering::Relaxed), pauses - 1);
            tokio::time::sleep(10 * RESTING_AFTER).await;
            assert_eq!((link.rests.load(Ordering::Relaxed), link.calls.load(Ordering::Relaxed)), (pauses, pauses));
            reporter.facts_changed();
        }
    }
}
