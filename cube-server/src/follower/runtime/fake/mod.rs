//! A scripted engine in memory, for tests of the node agent and the simulation.
//!
//! It lives outside the agent: clones share it, so it survives the agent's crash as Docker does, and carries out what it was handed before. What a
//! container does follows from its image's [`Script`]. It knows nothing of networks, files or bytes.
//!
//! * `script.rs`: what containers of an image do.
//! * `world.rs`: what there is and what happens, as a queue of events in time order. `log.rs`: what a container wrote.
//! * `desk.rs`: how calls reach it. `calls.rs`, `streams.rs`, `exec.rs`: the calls themselves.
//! * `hands.rs`: what people do behind the agent's back. `look.rs`: what checks see.
//!
//! It has a clock of its own, since each life of a simulated host has another clock of tokio's; it only waits on tokio's. The same calls at the same
//! times give the same world: everything is in ordered maps, ids are counted, and dice are thrown only for latencies.

mod calls;
mod desk;
mod exec;
mod hands;
mod log;
mod look;
mod script;
mod streams;
#[cfg(test)]
mod tests;
mod world;

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

pub use self::desk::{Call, Failure, Latency, Operation};
pub use self::look::{Resident, Tally};
pub use self::script::{Health, Pull, Script};
use self::world::{Moment, World};
use crate::ambient::Ambient;
use crate::tasks::Tasks;

/// The engine. Clones share it.
#[derive(Clone)]
pub struct Fake {
    world: Arc<Mutex<World>>,
    news: Arc<Notify>,
    clock: Arc<dyn Fn() -> Duration + Send + Sync>,
    ambient: Ambient,
    tasks: Tasks,
}

impl Fake {
    /// An empty engine, whose clock is tokio's. It tells times of day by `ambient`; its execs run in `tasks`.
    pub fn new(ambient: Ambient, tasks: &Tasks) -> Self {
        let began = Instant::now();
        Self::with_clock(ambient, tasks, move || began.elapsed())
    }

    /// An empty engine with a clock of its own: the time since it began, which never goes back and goes on at the pace of tokio's.
    pub fn with_clock(ambient: Ambient, tasks: &Tasks, clock: impl Fn() -> Duration + Send + Sync + 'static) -> Self {
        let news = Arc::new(Notify::new());
        let world = World::new(news.clone());
        Self { world: Arc::new(Mutex::new(world)), news, clock: Arc::new(clock), ambient, tasks: tasks.clone() }
    }

    /// Says what containers of `image` do from now on. Images without a script don't exist.
    pub fn script(&self, image: &str, script: Script) {
        let (mut world, _) = self.settled();
        world.removed.remove(image);
        world.scripts.insert(image.to_owned(), script);
    }

    /// How long every call takes from now on. Half of it passes before the call is carried out, half before its answer is there.
    pub fn set_latency(&self, latency: impl Into<Latency>) {
        let mut world = self.world();
        world.desk.latency = latency.into();
        world.desk.latency_of.clear();
    }

    /// How long the calls of one operation take from now on.
    pub fn set_latency_of(&self, operation: Operation, latency: impl Into<Latency>) {
        self.world().desk.latency_of.insert(operation, latency.into());
    }

    /// Lets the next call of `operation` fail. Several failures of one operation hit one call each, in order.
    pub fn fail_next(&self, operation: Operation, failure: Failure) {
        self.world().desk.failures.push_back((operation, failure));
    }

    /// From now on, calls of `operation` are taken but neither carried out nor answered until [`Fake::release`].
    pub fn hang(&self, operation: Operation) {
        self.world().desk.hanging.insert(operation);
    }

    /// Ends every [`Fake::hang`]: what hung is carried out now, in order, also where nobody waits for the answer any more.
    pub fn release(&self) {
        let (mut world, now) = self.settled();
        world.desk.hanging.clear();
        let held = std::mem::take(&mut world.desk.held);
        held.into_iter().for_each(|carry| world.carry_at(now.elapsed, carry));
        world.settle(now);
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().expect("a test that panicked in here has failed already")
    }

    /// The world as it is now.
    fn settled(&self) -> (MutexGuard<'_, World>, Moment) {
        let mut world = self.world();
        let now = Moment { elapsed: (self.clock)(), wall: self.ambient.now() };
        world.settle(now);
        (world, now)
    }

    async fn sleep_until(&self, at: Duration) {
        loop {
            let left = at.saturating_sub((self.clock)());
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left).await;
        }
    }

    /// Waits until something happens after `news` was made, or `at`, or the next event.
    async fn wait(&self, news: tokio::sync::futures::Notified<'_>, at: Option<Duration>) {
        let next = [self.world().next_event(), at].into_iter().flatten().min();
        tokio::select! {
            biased;
            () = news => {}
            () = async { self.sleep_until(next.expect("checked by the branch's condition")).await }, if next.is_some() => {}
        }
    }
}

fn image_id(image: &str) -> String {
    format!("sha256:{image}")
}
