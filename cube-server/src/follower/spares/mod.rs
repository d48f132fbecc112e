//! Spare sandboxes: a few that run before any pod needs them. Three quarters of a pod's start are Docker making its network namespace; a pod that
//! publishes no port and asks for no host name takes a spare one instead.
//!
//! A spare is handed to one pod and never comes back: it becomes that pod's sandbox, or it is removed. The pod's record says so before the engine is
//! asked to give it the pod's name, and what records promise is held here from the first moment of a life: so two pods never share one, whichever
//! call was lost and whoever was killed. What is spare is not remembered: it is what the engine shows and nobody holds.
//!
//! New ones are made one at a time and only while no pod is starting; a pod that finds none makes its own.

mod plan;

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::{Notify, Semaphore};

use self::plan::{Holdings, Step};
use super::pods::STARTS_AT_ONCE;
use super::runtime::{ContainerId, Runtime, RuntimeError, Scope, Spare};
use crate::ambient::Ambient;

/// The node's spare sandboxes. Clones share them.
#[derive(Clone)]
pub struct Spares {
    inner: Arc<Inner>,
}

struct Inner {
    stock: Mutex<Stock>,
    news: Notify,
}

#[derive(Default)]
struct Stock {
    /// Whose, and whether none are wanted: absent before the leader has assigned this life of the node.
    wish: Option<(Scope, bool)>,
    /// Those that run and that nobody holds, the oldest first.
    ready: VecDeque<ContainerId>,
    holdings: Holdings,
    /// Held ones that are no spares any more: forgotten after a list that was asked for later, since an earlier one may still show them.
    settled: BTreeSet<ContainerId>,
}

impl Spares {
    /// No spares are known yet; these are promised to pods.
    pub fn new(promised: BTreeSet<ContainerId>) -> Self {
        let holdings = Holdings { held: promised, unwanted: BTreeSet::new() };
        let stock = Mutex::new(Stock { holdings, ..Stock::default() });
        Self { inner: Arc::new(Inner { stock, news: Notify::new() }) }
    }

    /// A sandbox that nobody else gets.
    pub fn take(&self) -> Option<ContainerId> {
        let mut stock = self.stock();
        let taken = stock.ready.pop_front()?;
        stock.holdings.held.insert(taken.clone());
        Some(taken)
    }

    /// Whoever took it doesn't need it, and promised it to nobody that the ledger knows of.
    pub fn discard(&self, spare: ContainerId) {
        self.stock().holdings.unwanted.insert(spare);
        self.poke();
    }

    /// It is a pod's sandbox now, or gone.
    pub fn settled(&self, spare: ContainerId) {
        self.stock().settled.insert(spare);
    }

    /// The leader has assigned this node: from now on spares are looked after, and kept unless the node is cordoned.
    pub fn tend(&self, scope: Scope, cordoned: bool) {
        self.stock().wish = Some((scope, cordoned));
        self.poke();
    }

    /// Look again: the engine answers, or no pod is starting any more.
    pub fn poke(&self) {
        self.inner.news.notify_one();
    }

    fn stock(&self) -> MutexGuard<'_, Stock> {
        self.inner.stock.lock().expect("nothing panics while it is held")
    }
}

impl Stock {
    /// Takes a list in. `settled` is what was settled when it was asked for.
    fn take_in(&mut self, listed: &[Spare], settled: &BTreeSet<ContainerId>) {
        self.ready = plan::ready(listed, &self.holdings);
        for id in settled {
            self.settled.remove(id);
            self.holdings.held.remove(id);
        }
    }

    /// Takes one away from those who may take it; whether nobody had.
    fn withdraw(&mut self, id: &ContainerId) -> bool {
        self.ready.retain(|other| other != id);
        self.holdings.unwanted.contains(id) || self.holdings.held.insert(id.clone())
    }
}

/// The task that looks after them.
pub struct Keeper {
    /// What is looked after.
    pub spares: Spares,
    /// The engine.
    pub runtime: Arc<dyn Runtime>,
    /// The clock and the dice.
    pub ambient: Ambient,
    /// Held by the pods that are starting.
    pub admission: Arc<Semaphore>,
    /// How many there are to be.
    pub target: usize,
}

impl Keeper {
    /// Looks when it is poked, for as long as it is polled.
    pub async fn run(self) {
        let mut was_refused = false;
        loop {
            self.spares.inner.news.notified().await;
            match self.tend().await {
                Ok(()) => was_refused = false,
                // The engine's watcher says what is wrong with the engine. The next look comes with its next list.
                Err(error) if error.is_engine_trouble() || was_refused => tracing::debug!(%error, "spare sandboxes have to wait"),
                Err(error) => {
                    was_refused = true;
                    tracing::warn!(%error, "no spare sandbox can be made; pods make their own");
                }
            }
        }
    }

    /// One thing after the other, until nothing is to be done or a pod starts: who ends its start pokes again.
    async fn tend(&self) -> Result<(), RuntimeError> {
        while self.is_quiet() {
            let (Some((scope, cordoned)), settled) = self.look_up() else { return Ok(()) };
            let target = if cordoned { 0 } else { self.target };
            let listed = self.runtime.spares(&scope).await?;
            let step = {
                let mut stock = self.spares.stock();
                stock.take_in(&listed, &settled);
                plan::next(&listed, &stock.holdings, target, self.ambient.now())
            };
            match step {
                None => return Ok(()),
                Some(Step::Remove(id)) => self.remove(&id).await?,
                Some(_) if !self.is_quiet() => return Ok(()),
                Some(Step::Start(id)) => self.runtime.start(&id).await?,
                Some(Step::Make) => {
                    let id = self.runtime.create_spare(&scope, self.ambient.uuid()).await?;
                    self.runtime.start(&id).await?;
                }
            }
        }
        Ok(())
    }

    fn look_up(&self) -> (Option<(Scope, bool)>, BTreeSet<ContainerId>) {
        let stock = self.spares.stock();
        (stock.wish.clone(), stock.settled.clone())
    }

    async fn remove(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        // A pod may have taken it since the list.
        if !self.spares.stock().withdraw(id) {
            return Ok(());
        }
        let removed = self.runtime.remove(id).await;
        let mut stock = self.spares.stock();
        match removed {
            Ok(()) => {
                stock.holdings.unwanted.remove(id);
                stock.settled.insert(id.clone());
            }
            // Nobody is to have it: the call may still be carried out.
            Err(_) => drop(stock.holdings.unwanted.insert(id.clone())),
        }
        removed
    }

    /// Whether no pod is starting: a start must not wait for a spare that is being made.
    fn is_quiet(&self) -> bool {
        self.admission.available_permits() == STARTS_AT_ONCE
    }
}
