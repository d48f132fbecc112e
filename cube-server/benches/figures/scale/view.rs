//! What a client sees of the pods: a watch that counts which are bound and which run, and a list that tells whether one was touched.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use hyper::Method;
use serde::Deserialize;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::http::{Address, Connection};

/// How many pods are in which state, of all that the watch has shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Those with a node.
    pub bound: usize,
    /// Those that run.
    pub running: usize,
    /// How often the watch fell behind and began anew.
    pub restarts: usize,
}

/// A watch that goes on until this is dropped.
pub struct View {
    counts: watch::Receiver<Counts>,
    pods: Arc<Mutex<Pods>>,
    task: JoinHandle<()>,
}

impl Drop for View {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Default)]
struct Pods {
    by_name: HashMap<String, Shown>,
    counts: Counts,
    revision: u64,
}

#[derive(Default, Clone)]
struct Shown {
    node: Option<String>,
    running: bool,
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    object: Object<'a>,
}

#[derive(Deserialize)]
struct Object<'a> {
    /// Of a bookmark.
    revision: Option<u64>,
    #[serde(borrow)]
    metadata: Option<Metadata<'a>>,
    #[serde(borrow, default)]
    placement: Placement<'a>,
    #[serde(borrow, default)]
    status: Status<'a>,
}

#[derive(Deserialize)]
struct Metadata<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    uid: Cow<'a, str>,
    revision: u64,
}

#[derive(Deserialize, Default)]
struct Placement<'a> {
    #[serde(borrow)]
    node: Option<Cow<'a, str>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Status<'a> {
    #[serde(borrow, default)]
    phase: Cow<'a, str>,
    #[serde(borrow, default)]
    containers: Vec<Container<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Container<'a> {
    #[serde(borrow)]
    container_id: Option<Cow<'a, str>>,
    restart_count: u64,
}

impl View {
    /// Begins to watch.
    pub fn open(target: Address) -> Self {
        let pods = Arc::new(Mutex::new(Pods::default()));
        let (tell, counts) = watch::channel(Counts::default());
        let shared = pods.clone();
        let task = tokio::spawn(async move {
            // A connection that ends is a watch that fell behind; what it missed is in the list that the next one begins with.
            loop {
                if let Err(error) = follow(&target, &shared, &tell).await {
                    eprintln!("== the watch begins anew: {error:#}");
                }
                shared.lock().expect(UNPOISONED).counts.restarts += 1;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        Self { counts, pods, task }
    }

    /// The counts of now.
    pub fn counts(&self) -> Counts {
        *self.counts.borrow()
    }

    /// Waits until they are as wanted.
    pub async fn until(&self, what: &str, limit: Duration, mut wanted: impl FnMut(&Counts) -> bool) -> Result<Instant> {
        let mut counts = self.counts.clone();
        match timeout(limit, counts.wait_for(|counts| wanted(counts))).await {
            Ok(_) => Ok(Instant::now()),
            Err(_) => bail!("{what}: not after {limit:?}; the watch has seen {:?}", self.counts()),
        }
    }

    /// How many pods run on nodes whose names begin so.
    pub fn running_on(&self, prefix: &str) -> usize {
        let pods = self.pods.lock().expect(UNPOISONED);
        pods.by_name.values().filter(|pod| pod.running && pod.node.as_ref().is_some_and(|node| node.starts_with(prefix))).count()
    }
}

const UNPOISONED: &str = "nothing panics while it is held";

async fn follow(target: &Address, pods: &Mutex<Pods>, tell: &watch::Sender<Counts>) -> Result<()> {
    let from = pods.lock().expect(UNPOISONED).revision;
    let path = if from > 0 { format!("/v1/pods?watch=true&from={from}") } else { "/v1/pods?watch=true".to_owned() };
    let mut lines = match Connection::open(target).await?.lines(&path).await {
        Ok(lines) => lines,
        // Too old: from what is there.
        Err(_) => Connection::open(target).await?.lines("/v1/pods?watch=true").await?,
    };
    loop {
        let line = lines.next_line().await?;
        let line: Line<'_> = serde_json::from_slice(&line).context("a line of the watch")?;
        let mut pods = pods.lock().expect(UNPOISONED);
        pods.take(&line);
        let counts = pods.counts;
        drop(pods);
        tell.send_if_modified(|told| std::mem::replace(told, counts) != counts);
    }
}

impl Pods {
    fn take(&mut self, line: &Line<'_>) {
        let Some(metadata) = &line.object.metadata else {
            self.revision = self.revision.max(line.object.revision.unwrap_or(0));
            return;
        };
        self.revision = self.revision.max(metadata.revision);
        let gone = line.kind == "deleted";
        let after = match gone {
            true => Shown::default(),
            false => {
                let (placement, status) = (&line.object.placement, &line.object.status);
                Shown { node: placement.node.as_deref().map(str::to_owned), running: status.phase == "Running" }
            }
        };
        let before = match gone {
            true => self.by_name.remove(&*metadata.name),
            false => self.by_name.insert(metadata.name.clone().into_owned(), after.clone()),
        };
        let before = before.unwrap_or_default();
        self.counts.bound = self.counts.bound + usize::from(after.node.is_some()) - usize::from(before.node.is_some());
        self.counts.running = self.counts.running + usize::from(after.running) - usize::from(before.running);
    }
}

/// What may not change of a pod that nobody touched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Life {
    uid: String,
    node: Option<String>,
    phase: String,
    containers: Vec<(Option<String>, u64)>,
}

#[derive(Deserialize)]
struct Page<'a> {
    #[serde(rename = "continue")]
    continue_from: Option<String>,
    #[serde(borrow)]
    items: Vec<Object<'a>>,
}

/// Every pod as a list shows it.
pub async fn lives(connection: &mut Connection) -> Result<BTreeMap<String, Life>> {
    let (mut lives, mut next) = (BTreeMap::new(), String::new());
    loop {
        let text = connection.text(Method::GET, &format!("/v1/pods?limit=10000{next}")).await?;
        let page: Page<'_> = serde_json::from_str(&text).context("a page of pods")?;
        for Object { metadata, placement, status, .. } in page.items {
            let metadata = metadata.context("a pod without metadata")?;
            let containers = status.containers.into_iter().map(|c| (c.container_id.map(Cow::into_owned), c.restart_count)).collect();
            let (uid, phase) = (metadata.uid.into_owned(), status.phase.into_owned());
            lives.insert(metadata.name.into_owned(), Life { uid, node: placement.node.map(Cow::into_owned), phase, containers });
        }
        match page.continue_from {
            Some(from) => next = format!("&continue={from}"),
            None => return Ok(lives),
        }
    }
}
