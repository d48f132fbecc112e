//! Gives pods a node.
//!
//! A pass looks at some of the pods that wait, so that what it writes is no large commit and what comes meanwhile is soon looked at:
//! * of those that are **fresh** half the oldest and half the newest: a burst of 100,000 keeps its order, and a single pod that comes behind it
//!   doesn't wait for all of it;
//! * those that were **told why they wait** only once something happened that may let them fit, in a sweep from the oldest to the newest over as many
//!   passes as it takes. They never take the fresh ones' places.

use std::sync::Arc;
use std::time::Duration;

use cube_api::meta::{Name, ResourceKind, Uid};
use cube_api::pod::{Placement, Strategy};
use cube_api::{Node, Pod};
use tokio::time::Instant;

use super::{AGAIN_AFTER, log_failure};
use crate::blocking;
use crate::leader::plan::fence::{self, Again, Waits};
use crate::leader::plan::schedule::{Candidate, Decided, Pin, Predecessor, Rules, Unplaced, hold, must_wait, schedule};
use crate::leader::store::{Change, Changed, Changes, Fence, NodeLoad, Placing, PodRow, State, Store};

/// Between two looks at a fence: nobody wakes the loop when its time is over.
const LOOK_AT_FENCE_EVERY: Duration = Duration::from_secs(1);

/// Fresh pods in a pass, some 40 ms of the writer's time.
const FRESH: usize = 2_048;
/// Pods of the sweep in a pass: most of them are decided as before, and nothing is written.
const SWEPT: usize = 1_024;
/// Placings in one operation on the store, which is what a commit has of them: others get their turns in between.
const WRITTEN_AT_ONCE: usize = 256;

/// Runs until it is dropped. No timer stands between a commit that matters and the pass that it causes.
///
/// Whose turn it is by `round-robin` is the loop's own: after a restart of the leader the first node by name is next. Kept in the database it would
/// cost a write for each pass and tell nobody anything.
pub(super) async fn run(store: Store, every: Duration, waits: Waits, strategy: Strategy) {
    let (began, mut last_turn) = (Instant::now(), None);
    let mut news = News::new(store.clone());
    let mut sweep = Sweep::default();
    loop {
        news.note(&mut sweep);
        let snapshot = store.read(|state| Snapshot::of(state, sweep.place()));
        sweep.went_to(snapshot.swept_to);
        let since_start = began.elapsed();
        let at_most = match &snapshot.awaited {
            Some(awaited) if fence::is_over(awaited, since_start, waits) => lift(&store, &mut sweep, every).await,
            Some(_) => LOOK_AT_FENCE_EVERY.min(every),
            None => every,
        };
        let has_more_fresh = snapshot.has_more_fresh;
        let turn = last_turn.take();
        // Thousands of pods on thousands of nodes take some 10 ms, in which requests are answered.
        let decided = blocking::run(move || snapshot.decide(since_start, waits, Rules { strategy, last_turn: turn.as_ref() })).await;
        let Decided { placings, last_turn: turn } = decided;
        last_turn = turn;
        let at_most = match write(&store, placings).await {
            Ok(()) if has_more_fresh || sweep.is_on() => continue,
            Ok(()) => at_most,
            Err(()) => {
                sweep.begin();
                tokio::time::sleep(AGAIN_AFTER.min(every)).await;
                continue;
            }
        };
        match tokio::time::timeout(at_most, news.wait(&mut sweep)).await {
            Ok(()) => {}
            // Whatever it was that nobody noticed: everybody is looked at.
            Err(tokio::time::error::Elapsed { .. }) => sweep.begin(),
        }
    }
}

/// How far the look at those that were told why they wait has come.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sweep {
    /// The last that was looked at; none while nobody is to be.
    at: Option<Uid>,
    /// Something has happened since it began, so that those before may fit.
    again: bool,
}

impl Sweep {
    /// Everybody is to be looked at, once more if that is going on.
    fn begin(&mut self) {
        match self.at {
            None => self.at = Some(Uid::NONE),
            Some(Uid::NONE) => {}
            Some(_) => self.again = true,
        }
    }

    fn is_on(&self) -> bool {
        self.at.is_some()
    }

    fn place(&self) -> Option<Uid> {
        self.at
    }

    /// A pass has looked as far as this; none: to the end.
    fn went_to(&mut self, uid: Option<Uid>) {
        self.at = uid.or(std::mem::take(&mut self.again).then_some(Uid::NONE));
    }
}

/// What happened that matters.
struct News {
    store: Store,
    changes: Option<Changes>,
}

impl News {
    fn new(store: Store) -> Self {
        Self { store, changes: None }
    }

    /// Takes in what has happened until now.
    fn note(&mut self, sweep: &mut Sweep) {
        loop {
            let Some(changes) = &mut self.changes else {
                // From here on; what was before, or was missed, is in the state that is looked at next.
                let now = self.store.read(|state| state.revision);
                self.changes = self.store.watch(now).ok();
                return sweep.begin();
            };
            match changes.next_now() {
                Some(Some(change)) => drop(Matters::of(&change).note(sweep)),
                Some(None) => self.changes = None,
                None => return,
            }
        }
    }

    /// Waits for something that matters.
    async fn wait(&mut self, sweep: &mut Sweep) {
        let Some(changes) = &mut self.changes else { return };
        while let Some(change) = changes.next().await {
            if Matters::of(&change).note(sweep) {
                return;
            }
        }
        self.changes = None;
        // A closed store ends each watch at once, for ever: let the server's end be seen.
        tokio::task::yield_now().await;
    }
}

/// What a change means for pods without a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Matters {
    /// Nothing.
    Not,
    /// There is one that nobody has looked at.
    Fresh,
    /// One that waits may fit now, or waits for another reason: room on a node, a node that is otherwise than before.
    ToAll,
}

impl Matters {
    fn of(change: &Change) -> Self {
        match &change.object {
            Changed::Pod { before: None, after: Some(after) } => {
                if after.is_unplaced() {
                    Self::Fresh
                } else {
                    Self::Not
                }
            }
            Changed::Pod { before: Some(before), after: Some(after) } => {
                // Taking room matters too: what was decided without knowing of it was not written, and is to be decided again.
                if after.is_unplaced() && !before.is_unplaced() {
                    Self::Fresh
                } else if before.is_finished() != after.is_finished() {
                    Self::ToAll
                } else {
                    Self::Not
                }
            }
            Changed::Pod { before: _, after: None } => Self::ToAll,
            Changed::Node { before: Some(before), after: Some(after) } => {
                let facts = |node: &Node| {
                    let Node { condition, allocatable, allows, labels, host_paths, cordon, .. } = node;
                    (condition.clone(), *allocatable, allows.clone(), labels.clone(), host_paths.clone(), cordon.is_some())
                };
                if facts(before) == facts(after) { Self::Not } else { Self::ToAll }
            }
            Changed::Node { before: _, after: _ } => Self::ToAll,
            // What a pod named may be there now, or a volume that was on its way out is gone.
            Changed::Object { before, after } => match after.as_ref().or(before.as_ref()).map(|object| object.kind()) {
                Some(ResourceKind::Secret | ResourceKind::Config | ResourceKind::Volume) => Self::ToAll,
                Some(ResourceKind::Pod | ResourceKind::Node | ResourceKind::Job | ResourceKind::CronJob | ResourceKind::Deployment)
                | None => Self::Not,
            },
        }
    }

    /// Whether another pass is needed.
    fn note(self, sweep: &mut Sweep) -> bool {
        match self {
            Self::Not => false,
            Self::Fresh => true,
            Self::ToAll => {
                sweep.begin();
                true
            }
        }
    }
}

/// How long to wait for news after it.
async fn lift(store: &Store, sweep: &mut Sweep, every: Duration) -> Duration {
    match store.lift_fence().await {
        Ok(()) => {
            tracing::info!("the wait after the restore is over: pods are placed");
            // They were told to wait for it.
            sweep.begin();
            every
        }
        Err(error) => {
            log_failure("noting that the wait after a restore is over", &error);
            AGAIN_AFTER.min(every)
        }
    }
}

/// What a pass looks at, as of one revision. Taken out of the state, because commits wait for whoever reads there, and a pass over many pods and
/// nodes takes a while.
struct Snapshot {
    unbound: Vec<Unbound>,
    /// Whether there are fresh ones besides.
    has_more_fresh: bool,
    /// The last of the sweep that is in it; none where it has come to its end, or isn't going on.
    swept_to: Option<Uid>,
    /// Empty where nothing is unbound.
    nodes: Vec<(Arc<Node>, Option<Arc<NodeLoad>>)>,
    /// The nodes that a restored leader waits for; none where it wasn't restored, or waits no more.
    awaited: Option<Vec<Name>>,
}

/// A pod that waits for a node.
struct Unbound {
    row: Arc<PodRow>,
    /// The pod of its name that it has to wait for.
    predecessor: Option<Old>,
    /// What it waits for whatever the nodes are.
    lacks: Option<String>,
    /// Where its named volumes are.
    pins: Vec<Pin>,
}

/// A pod whose name another one has.
struct Old {
    row: Arc<PodRow>,
    on_lost_node: bool,
}

impl Snapshot {
    fn of(state: &State, sweep: Option<Uid>) -> Self {
        let mut fresh = state.fresh();
        let (all, oldest) = (fresh.len(), FRESH / 2);
        let mut rows: Vec<_> = fresh.by_ref().take(oldest).collect();
        let newest: Vec<_> = fresh.rev().take(FRESH - oldest).collect();
        rows.extend(newest.into_iter().rev());
        let has_more_fresh = all > rows.len();
        let swept: Vec<_> = sweep.into_iter().flat_map(|after| state.waiting(after)).take(SWEPT).collect();
        let swept_to = swept.last().filter(|_| swept.len() == SWEPT).map(|row| row.pod.metadata.uid);
        // In the order in which they were accepted: what has waited longest comes first.
        rows.extend(swept);
        rows.sort_by_key(|row| row.pod.metadata.uid);
        let unbound: Vec<_> = rows.into_iter().map(|row| unbound(state, row)).collect();
        let with_load = |node: &Arc<Node>| (node.clone(), state.load(&node.name).cloned());
        let nodes = if unbound.is_empty() { Vec::new() } else { state.nodes.values().map(with_load).collect() };
        // One that was deleted since doesn't come back.
        let known = |fence: &Arc<Fence>| fence.awaited.iter().filter(|name| state.nodes.contains_key(name)).cloned().collect();
        Self { unbound, has_more_fresh, swept_to, nodes, awaited: state.fence.as_ref().map(known) }
    }

    fn decide(&self, since_start: Duration, waits: Waits, rules: Rules<'_>) -> Decided {
        let (mut placings, mut free) = (Vec::new(), Vec::new());
        for unbound in &self.unbound {
            let pod = unplaced(unbound);
            let held = self.awaited.as_ref().and_then(|awaited| fence::holds(awaited, since_start, waits, Again::of(pod.spec)));
            match held.or_else(|| unbound.lacks.clone()) {
                Some(reason) => placings.extend(hold(&pod, reason)),
                None => free.push(pod),
            }
        }
        if free.is_empty() {
            return Decided { placings, last_turn: rules.last_turn.cloned() };
        }
        let nodes = self.nodes.iter().map(|(node, load)| Candidate::new(node, load.as_deref())).collect();
        let decided = schedule(&free, nodes, rules);
        placings.extend(decided.placings);
        Decided { placings, ..decided }
    }
}

/// In pieces that are queued at once: the first is not waited for before the second.
async fn write(store: &Store, placings: Vec<Placing>) -> Result<(), ()> {
    let mut left = placings.into_iter().peekable();
    let pieces = std::iter::from_fn(|| left.peek().is_some().then(|| left.by_ref().take(WRITTEN_AT_ONCE).collect()));
    let written = futures::future::join_all(pieces.map(|piece| store.place(piece))).await;
    let written: Result<Vec<()>, _> = written.into_iter().collect();
    written.map(drop).map_err(|error| log_failure("placing pods", &error))
}

fn unbound(state: &State, row: &Arc<PodRow>) -> Unbound {
    let spec = &row.pod.spec;
    let pin = |volume: &Name| Some(Pin { volume: volume.clone(), node: state.volume(volume)?.node.clone() });
    let pins = spec.claims().filter_map(pin).collect();
    Unbound { row: row.clone(), predecessor: predecessor(state, row), lacks: state.lacks(spec), pins }
}

fn predecessor(state: &State, row: &PodRow) -> Option<Old> {
    let metadata = &row.pod.metadata;
    let mut others = state.namesakes(&metadata.name).into_iter().filter(|other| other.pod.metadata.uid != metadata.uid);
    others.find_map(|other| {
        let on_lost_node = state.is_on_lost_node(other);
        let waits = other.pod.placement.node.is_some() && must_wait(&row.pod.spec, other, on_lost_node);
        waits.then(|| Old { row: other.clone(), on_lost_node })
    })
}

fn unplaced(Unbound { row, predecessor, pins, .. }: &Unbound) -> Unplaced<'_> {
    let metadata = &row.pod.metadata;
    let predecessor = predecessor.as_ref().and_then(|Old { row, on_lost_node }| {
        let Pod { metadata, placement, .. } = &row.pod;
        Some(Predecessor { uid: metadata.uid, node: placement.node.as_ref()?, on_lost_node: *on_lost_node })
    });
    let Placement { waiting_for, avoids, .. } = &row.pod.placement;
    let (uid, name, spec) = (metadata.uid, &metadata.name, &row.pod.spec);
    Unplaced { uid, name, spec, waiting_for: waiting_for.as_deref(), avoids, pins, predecessor }
}

#[cfg(test)]
mod tests;
