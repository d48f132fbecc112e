//! A leader that is killed again and again while clients write to it and one watches: how it is tormented, and what is noticed.
//!
//! Each writer owns its names, so it knows what must be there: what was acknowledged, and of a request without an answer all of it or nothing. It
//! compares after every restart. `benches/torture` runs the same for longer.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cube_api::ErrorCode;
use cube_api::client::{Client, ClientError, Watch};
use cube_api::meta::{Revision, Uid};
use cube_api::pod::Pod;
use cube_api::routes::{Applied, ApplyAction, DeleteQuery, List, ListQuery, WatchEvent};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::rig::{Ground, LIMIT, Server, name, pod, resources};

/// Clients that write at the same time.
const WRITERS: u64 = 4;
/// The names of each.
const NAMES: u64 = 6;
/// Between two tries while the leader is away.
const AGAIN: Duration = Duration::from_millis(2);

/// What was done and what was noticed.
#[derive(Debug, Default)]
pub struct Noticed {
    /// Requests that were answered with a success.
    pub acknowledged: u64,
    /// Requests that had no answer, and of them those that were carried out.
    pub unanswered: u64,
    pub carried_out: u64,
    /// Watches that went on where they were, and those that were told to list again.
    pub resumed: u64,
    pub expired: u64,
    /// Changes that the watch saw.
    pub watched: u64,
    /// Acknowledged and not there, or there and neither asked for nor possible.
    pub lost: Vec<String>,
    /// Two live pods of one name, or a pod under another uid than the acknowledged.
    pub double: Vec<String>,
    /// Anything else that must not be: revisions that fall, a watch out of order, an answer that makes no sense.
    pub wrong: Vec<String>,
}

/// What all tasks of a torment share.
struct Shared {
    client: Client,
    /// How often the leader became ready; the torment's end closes it.
    life: watch::Receiver<u64>,
    noticed: Mutex<Noticed>,
    acknowledged: AtomicU64,
    /// Who got which revision: none is used twice.
    revisions: Mutex<BTreeMap<Revision, String>>,
}

impl Shared {
    fn note(&self, note: impl FnOnce(&mut Noticed)) {
        note(&mut self.noticed.lock().expect("nothing panics while it is held"));
    }

    fn is_over(&self) -> bool {
        self.life.has_changed().is_err()
    }

    fn current_life(&self) -> u64 {
        *self.life.borrow()
    }
}

/// Kills a leader so often, and gives what was noticed and the times from a start to ready.
pub async fn torment(ground: &Ground, seed: u64, kills: usize) -> (Noticed, Vec<Duration>) {
    let mut leader = ground.leader("leader");
    let mut restarts = vec![leader.start_ready().await];
    let (life, seen) = watch::channel(1);
    let shared = Arc::new(Shared {
        client: ground.client(leader.address),
        life: seen,
        noticed: Mutex::default(),
        acknowledged: AtomicU64::new(0),
        revisions: Mutex::default(),
    });
    let mut writers = JoinSet::new();
    for number in 0..WRITERS {
        writers.spawn(Writer::new(shared.clone(), number, seed).run());
    }
    let watcher = tokio::spawn(watch_all(shared.clone()));
    let mut dice = StdRng::seed_from_u64(seed);
    let mut left = kills;
    while left > 0 {
        await_the_moment(&shared, &mut dice).await;
        leader.kill();
        left -= 1;
        // One time in five it is killed while it starts.
        if left > 0 && dice.random_ratio(1, 5) {
            leader.start();
            sleep(Duration::from_micros(dice.random_range(0..20_000))).await;
            leader.kill();
            left -= 1;
        }
        restarts.push(leader.start_ready().await);
        life.send_modify(|life| *life += 1);
    }
    drop(life);
    let mut models = BTreeMap::new();
    while let Some(model) = writers.join_next().await {
        models.extend(model.expect("a writer that doesn't panic"));
    }
    watcher.await.expect("a watcher that doesn't panic");
    leader.kill();
    compare_database(&leader, &models, &shared);
    let mut noticed = std::mem::take(&mut *shared.noticed.lock().expect("nothing panics while it is held"));
    noticed.acknowledged = shared.acknowledged.load(Ordering::Relaxed);
    (noticed, restarts)
}

/// A kill comes a moment after an acknowledgement: that is when a write that isn't durable is lost.
async fn await_the_moment(shared: &Shared, dice: &mut StdRng) {
    let enough = shared.acknowledged.load(Ordering::Relaxed) + dice.random_range(1..30);
    let began = Instant::now();
    while shared.acknowledged.load(Ordering::Relaxed) < enough {
        assert!(began.elapsed() < LIMIT, "nothing is acknowledged any more");
        tokio::task::yield_now().await;
        sleep(Duration::from_micros(100)).await;
    }
    sleep(Duration::from_micros(dice.random_range(0..3_000))).await;
}

/// What a pod is, as far as its writer decides it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    uid: Uid,
    generation: u64,
    value: String,
    tag: String,
}

impl Known {
    fn of(pod: &Pod) -> Self {
        let tag = pod.metadata.labels.get("tag").cloned().unwrap_or_default();
        let value = pod.spec.containers[0].env.get("VALUE").cloned().unwrap_or_default();
        Self { uid: pod.metadata.uid, generation: pod.metadata.generation, value, tag }
    }

    fn is(&self, (value, tag): &(String, String)) -> bool {
        self.value == *value && self.tag == *tag
    }
}

/// A request.
#[derive(Debug, Clone)]
enum Request {
    /// The value and the tag that each name should have, in one manifest.
    Apply(BTreeMap<String, (String, String)>),
    Delete(String),
}

/// A client that writes.
struct Writer {
    shared: Arc<Shared>,
    owner: String,
    dice: StdRng,
    model: BTreeMap<String, Known>,
    /// The highest revision that it was told.
    reached: Revision,
    /// The leader's life in which the model was compared last.
    compared: u64,
    values: u64,
}

impl Writer {
    fn new(shared: Arc<Shared>, number: u64, seed: u64) -> Self {
        let dice = StdRng::seed_from_u64(seed ^ (number + 1) << 32);
        Self { shared, owner: format!("w{number}"), dice, model: BTreeMap::new(), reached: Revision(0), compared: 0, values: 0 }
    }

    /// Writes until the torment is over; what it knows to be there then.
    async fn run(mut self) -> BTreeMap<String, Known> {
        while !self.shared.is_over() {
            if self.compared != self.shared.current_life() {
                self.compare().await;
            }
            let request = self.choose();
            self.insist(request).await;
        }
        self.compare().await;
        self.model
    }

    fn choose(&mut self) -> Request {
        let named = |writer: &mut Self| format!("{}-{}", writer.owner, writer.dice.random_range(0..NAMES));
        let name = named(self);
        self.values += 1;
        let (value, tag) = (format!("v{}", self.values), format!("t{}", self.values));
        match (self.dice.random_range(0..10), self.model.get(&name)) {
            (0..=2, Some(_)) => Request::Delete(name),
            (3..=4, Some(known)) => Request::Apply([(name, (known.value.clone(), tag))].into()),
            (5, _) => Request::Apply((0..NAMES).map(|n| (format!("{}-{n}", self.owner), (value.clone(), tag.clone()))).collect()),
            (_, _) => Request::Apply([(name, (value, tag))].into()),
        }
    }

    /// Sends a request until it is answered; after each time without an answer, what became of it is looked at first.
    async fn insist(&mut self, request: Request) {
        let mut carried_out = false;
        loop {
            match self.send(&request).await {
                Ok(answer) => return self.take(&request, answer, carried_out),
                Err(error) if error.is_retryable() => {
                    self.shared.note(|noticed| noticed.unanswered += 1);
                    carried_out |= self.settle(&request, carried_out).await;
                }
                Err(error) => {
                    return self.shared.note(|noticed| noticed.wrong.push(format!("{request:?} is refused: {error}")));
                }
            }
        }
    }

    /// The pods that the answer shows; `None` for one that was not there to delete.
    async fn send(&self, request: &Request) -> Result<Option<Applied>, ClientError> {
        match request {
            Request::Apply(pods) => {
                let manifests = pods.iter().map(|(name, wanted)| self.manifest(name, wanted)).collect();
                self.shared.client.apply(&resources(manifests), false).await.map(Some)
            }
            Request::Delete(pod) => match self.shared.client.delete_pod(&name(pod), &DeleteQuery::default()).await {
                Ok(_) => Ok(None),
                Err(error) if error.code() == Some(ErrorCode::NotFound) => Ok(None),
                Err(error) => Err(error),
            },
        }
    }

    fn manifest(&self, name: &str, (value, tag): &(String, String)) -> Value {
        let mut pod = pod(name, &json!({}), &json!({"env": {"VALUE": value}}));
        pod["metadata"]["labels"] = json!({"owner": self.owner, "tag": tag});
        pod
    }

    /// An answer becomes what must be there from now on.
    fn take(&mut self, request: &Request, answer: Option<Applied>, carried_out: bool) {
        self.shared.acknowledged.fetch_add(1, Ordering::Relaxed);
        let Some(applied) = answer else {
            if let Request::Delete(name) = request {
                self.model.remove(name);
            }
            return;
        };
        self.rises(applied.revision);
        for item in applied.items {
            let action = item.action;
            let applied = item.into_pod().expect("a pod");
            let (pod, name) = (Known::of(&applied), applied.metadata.name.to_string());
            let before = self.model.insert(name.clone(), pod.clone());
            let same = before.as_ref().is_some_and(|before| before.uid == pod.uid);
            let sensible = match action {
                ApplyAction::Created => before.is_none(),
                ApplyAction::Replaced => before.is_some() && !same,
                ApplyAction::Configured => same,
                ApplyAction::Unchanged => before.as_ref() == Some(&pod),
            };
            if !sensible || (carried_out && action != ApplyAction::Unchanged) {
                let what = format!("{name}: {:?} gave {pod:?} after {before:?}, carried out before: {carried_out}", action);
                self.shared.note(|noticed| noticed.double.push(what));
            }
            if action != ApplyAction::Unchanged {
                self.is_new(applied.metadata.revision, format!("{name} {pod:?}"));
            }
        }
    }

    /// No revision is below one that was told before.
    fn rises(&mut self, revision: Revision) {
        if revision < self.reached {
            let what = format!("{}: revision {revision} after {}", self.owner, self.reached);
            self.shared.note(|noticed| noticed.wrong.push(what));
        }
        self.reached = self.reached.max(revision);
    }

    fn is_new(&self, revision: Revision, of: String) {
        let mut revisions = self.shared.revisions.lock().expect("nothing panics while it is held");
        if let Some(other) = revisions.insert(revision, of.clone()) {
            self.shared.note(|noticed| noticed.wrong.push(format!("revision {revision} is of {of} and of {other}")));
        }
    }

    /// What is there of this writer's, as soon as the leader answers.
    async fn list(&mut self) -> BTreeMap<String, Known> {
        let query = ListQuery { selector: Some(format!("owner={}", self.owner)), ..ListQuery::default() };
        let began = Instant::now();
        loop {
            match self.shared.client.pods(&query).await {
                Ok(List { revision, items, .. }) => {
                    self.rises(revision);
                    return items.iter().map(|pod| (pod.metadata.name.to_string(), Known::of(pod))).collect();
                }
                Err(error) if error.is_retryable() && began.elapsed() < LIMIT => sleep(AGAIN).await,
                Err(error) => panic!("{}: the list is refused: {error}", self.owner),
            }
        }
    }

    /// What was acknowledged is there, under the same uids, and nothing else.
    async fn compare(&mut self) {
        let life = self.shared.current_life();
        let there = self.list().await;
        for name in self.model.keys().chain(there.keys()) {
            let (known, found) = (self.model.get(name), there.get(name));
            if known != found {
                let what = format!("{name}: {known:?} was acknowledged, {found:?} is there");
                let other = known.zip(found).is_some_and(|(known, found)| known.uid != found.uid && known.value == found.value);
                self.shared.note(|noticed| if other { noticed.double.push(what) } else { noticed.lost.push(what) });
            }
        }
        self.model = there;
        self.compared = life;
    }

    /// After a request without an answer: all of it is there, or nothing. Whether it is. `was` tells that it was there already.
    async fn settle(&mut self, request: &Request, was: bool) -> bool {
        let there = self.list().await;
        let mut expected = self.model.clone();
        let carried_out = match request {
            Request::Apply(pods) => pods.iter().all(|(name, wanted)| there.get(name).is_some_and(|found| found.is(wanted))),
            Request::Delete(name) => !there.contains_key(name),
        };
        let was = was
            || match request {
                Request::Apply(pods) => pods.iter().all(|(name, wanted)| self.model.get(name).is_some_and(|known| known.is(wanted))),
                Request::Delete(name) => !self.model.contains_key(name),
            };
        if carried_out && !was {
            self.shared.note(|noticed| noticed.carried_out += 1);
            match request {
                Request::Apply(pods) => expected.extend(pods.keys().map(|name| (name.clone(), there[name].clone()))),
                Request::Delete(name) => drop(expected.remove(name)),
            }
        }
        if there != expected {
            let what = format!("after {request:?} without an answer {there:?} is there, not {expected:?}");
            self.shared.note(|noticed| noticed.lost.push(what));
        }
        self.model = there;
        carried_out
    }
}

/// What a watcher knows: the newest revision that it saw, and every pod's.
struct Seen {
    from: Revision,
    pods: BTreeMap<String, (Uid, Revision)>,
    /// From a list that no watch has gone on from yet.
    listed: bool,
}

/// Watches all pods over all lives; what it knows at the end is what a list shows.
async fn watch_all(shared: Arc<Shared>) {
    let mut life = shared.life.clone();
    let mut seen = list_all(&shared).await;
    while !shared.is_over() {
        life.mark_unchanged();
        if let Some(mut watch) = begin(&shared, &mut seen).await {
            tokio::select! {
                biased;
                _ = life.changed() => {}
                () = follow(&shared, &mut watch, &mut seen) => {}
            }
        }
    }
    let began = Instant::now();
    loop {
        let last = list_all(&shared).await;
        if seen.pods == last.pods {
            return;
        }
        if began.elapsed() > LIMIT {
            return shared.note(|noticed| noticed.wrong.push(format!("the watch came to {:?}, the list is {:?}", seen.pods, last.pods)));
        }
        if let Some(mut watch) = begin(&shared, &mut seen).await {
            let caught_up = async {
                while seen.from < last.from {
                    one(&shared, &mut watch, &mut seen).await;
                }
            };
            // The newest revision may be no pod's: then nothing comes before the bookmark.
            timeout(Duration::from_secs(1), caught_up).await.ok();
        }
    }
}

/// A watch from where the last one was; `None` if there is none yet. One that is refused as too old begins with a list.
async fn begin(shared: &Shared, seen: &mut Seen) -> Option<Watch<Pod>> {
    match shared.client.watch_pods(None, seen.from).await {
        Ok(watch) => {
            if !std::mem::take(&mut seen.listed) {
                shared.note(|noticed| noticed.resumed += 1);
            }
            return Some(watch);
        }
        Err(error) if error.is_retryable() => sleep(AGAIN).await,
        Err(error) if error.code() == Some(ErrorCode::Expired) => {
            let listed = list_all(shared).await;
            shared.note(|noticed| {
                noticed.expired += 1;
                if listed.from < seen.from {
                    noticed.wrong.push(format!("the watch saw revision {}, the list is at {}", seen.from, listed.from));
                }
            });
            *seen = listed;
        }
        Err(error) => {
            let what = format!("a watch from {} is refused: {error}", seen.from);
            shared.note(|noticed| noticed.wrong.push(what));
            *seen = list_all(shared).await;
        }
    }
    None
}

async fn follow(shared: &Shared, watch: &mut Watch<Pod>, seen: &mut Seen) {
    loop {
        one(shared, watch, seen).await;
    }
}

/// Takes the next event; notes one that is out of order or doesn't fit what was there.
async fn one(shared: &Shared, watch: &mut Watch<Pod>, seen: &mut Seen) {
    let event = match watch.next().await {
        Ok(event) => event,
        // The watch comes back by itself; here a new one is begun with the next life.
        Err(_) => return std::future::pending().await,
    };
    shared.note(|noticed| noticed.watched += 1);
    let (pod, fits, is_there) = match &event {
        WatchEvent::Added(pod) => (pod, !seen.pods.contains_key(pod.metadata.name.as_str()), true),
        WatchEvent::Modified(pod) => (pod, seen.pods.contains_key(pod.metadata.name.as_str()), true),
        WatchEvent::Deleted(pod) => (pod, seen.pods.contains_key(pod.metadata.name.as_str()), false),
        WatchEvent::Bookmark(bookmark) => {
            seen.from = seen.from.max(bookmark.revision);
            return;
        }
    };
    let (key, revision) = (pod.metadata.name.to_string(), pod.metadata.revision);
    if !fits || revision <= seen.from {
        let what = format!("the watch was at {} with {:?} when it was told {event:?}", seen.from, seen.pods.get(&key));
        shared.note(|noticed| noticed.wrong.push(what));
    }
    seen.from = revision;
    match is_there {
        true => drop(seen.pods.insert(key, (pod.metadata.uid, revision))),
        false => drop(seen.pods.remove(&key)),
    }
}

async fn list_all(shared: &Shared) -> Seen {
    let began = Instant::now();
    loop {
        match shared.client.pods(&ListQuery::default()).await {
            Ok(list) => {
                let pods = list.items.iter().map(|pod| (pod.metadata.name.to_string(), (pod.metadata.uid, pod.metadata.revision)));
                return Seen { from: list.revision, pods: pods.collect(), listed: true };
            }
            Err(error) if error.is_retryable() && began.elapsed() < LIMIT => sleep(AGAIN).await,
            Err(error) => panic!("the list is refused: {error}"),
        }
    }
}

/// The rows themselves, past the leader: each name once, under its acknowledged uid, none beside them.
fn compare_database(leader: &Server, models: &BTreeMap<String, Known>, shared: &Shared) {
    // Not read-only: what the killed leader left in its write-ahead log belongs to it.
    let database = Connection::open_with_flags(leader.folder.join("leader.db"), OpenFlags::SQLITE_OPEN_READ_WRITE).expect("the database");
    let healthy: String = database.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("a check");
    let mut rows = database.prepare("SELECT name, uid FROM pods ORDER BY name").expect("the pods' table");
    let read = rows.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))).expect("rows");
    let rows: Vec<(String, String)> = read.collect::<Result<_, _>>().expect("rows");
    let known: Vec<(String, String)> = models.iter().map(|(name, known)| (name.clone(), known.uid.to_string())).collect();
    shared.note(|noticed| {
        if healthy != "ok" {
            noticed.wrong.push(format!("the database is damaged: {healthy}"));
        }
        if rows != known {
            noticed.double.push(format!("the database has {rows:?}, {known:?} were acknowledged"));
        }
    });
}
