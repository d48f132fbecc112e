//! The simulated cluster: a leader, nodes with their engines, and a client, on one network and one clock.

use std::sync::Arc;
use std::time::Duration;

use cube_api::meta::{ClusterId, Labels, Name, Uid};
use cube_server::follower::runtime::fake::Fake;
use cube_server::follower::runtime::{Identity, Scope};
use cube_server::tasks::Tasks;
use futures::FutureExt;
use tempfile::TempDir;
use uuid::Uuid;

use crate::client::Client;
use crate::clock::{self, Clock, Offset};
use crate::images;
use crate::machine::{LEADER, Machine, Role, Site};
use crate::operator;
use crate::owners::{self, Owned};
use crate::trace::Trace;
use crate::watcher::{self, Mirror};
use crate::workload::{self, Expected, Hands};

/// The client's host name.
pub const CLIENT: &str = "client";

/// How finely time goes by. A message takes at least so long.
const TICK: Duration = Duration::from_millis(10);

/// What is simulated.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    pub seed: u64,
    pub nodes: usize,
    pub pods: usize,
    /// How long users ask and faults begin.
    pub length: Duration,
}

impl Settings {
    /// The usual cluster.
    pub fn of(seed: u64) -> Self {
        Self { seed, nodes: 3, pods: 20, length: Duration::from_secs(60) }
    }
}

/// The cluster.
pub struct World {
    pub sim: turmoil::Sim<'static>,
    pub clock: Clock,
    pub trace: Trace,
    /// The leader's first.
    pub machines: Vec<Arc<Machine>>,
    pub expected: Expected,
    pub owned: Owned,
    pub mirror: Mirror,
    /// Last: the disks go when nobody writes any more.
    _disks: TempDir,
}

impl World {
    /// Builds it from the seed. Nothing runs before the first step.
    pub fn new(settings: &Settings) -> Self {
        let seed = settings.seed;
        let clock = Clock::default();
        let trace = Trace::new(&clock);
        let disks = disks();
        let catalogue = images::catalogue(&mut clock::dice(seed, "images"));
        let site = Site { seed, clock: clock.clone(), trace: trace.clone(), disks: disks.path().to_owned() };
        let mut clocks = clock::dice(seed, "clocks");
        let mut machines = vec![Arc::new(Machine::new(LEADER, Role::Leader, Offset::drawn(&mut clocks), &site))];
        for number in 1..=settings.nodes {
            let name = format!("n{number}");
            let offset = Offset::drawn(&mut clocks);
            let engine = engine(seed, &name, &clock, &offset);
            images::teach(&engine, &catalogue);
            add_strangers(&engine, &name);
            let disk = if number == 1 { "fast" } else { "slow" };
            let labels = Labels::from([("disk".to_owned(), disk.to_owned())]);
            // Two runs in three have some.
            let spares = usize::try_from(seed % 3).expect("below 3");
            machines.push(Arc::new(Machine::new(&name, Role::Node { engine, labels, spares }, offset, &site)));
        }
        let mut sim = turmoil::Builder::new()
            .tick_duration(TICK)
            .simulation_duration(Duration::from_secs(24 * 3_600))
            .min_message_latency(Duration::from_millis(1))
            .max_message_latency(Duration::from_millis(20))
            .tcp_capacity(1_024)
            .rng_seed(seed)
            .build();
        for machine in &machines {
            let lives = machine.clone();
            sim.host(machine.name.as_str(), move || lives.clone().live());
        }
        let (expected, owned, mirror) = (Expected::default(), Owned::default(), Mirror::default());
        let users = workload::users(&mut clock::dice(seed, "users"), settings.pods, settings.length, &catalogue);
        let owners = owners::users(&mut clock::dice(seed, "owners"), settings.length);
        let orders = operator::orders(&mut clock::dice(seed, "operator"), settings.nodes, settings.length);
        let ambient = clock::ambient(&clock, &Offset::drawn(&mut clocks), clock::dice(seed, CLIENT));
        let (given, kept, shown, told) = (expected.clone(), owned.clone(), mirror.clone(), trace.clone());
        sim.client(CLIENT, async move {
            let client = Client::new(ambient.clone());
            let watching = watcher::run(client.clone(), shown, told.clone());
            let hands = Hands { client: &client, ambient: &ambient, expected: &given, trace: &told };
            let others = futures::future::join(owners::run(owners, &kept, &hands), operator::run(&orders, &hands)).map(|_| ());
            futures::future::join(watching, workload::run(users, others, &hands)).await;
            Ok(())
        });
        Self { sim, clock, trace, machines, expected, owned, mirror, _disks: disks }
    }

    /// Lets a tick go by.
    pub fn step(&mut self) -> Result<(), String> {
        let stepped = self.sim.step().map(|_client_has_ended| ()).map_err(|error| error.to_string());
        self.clock.step_to(self.sim.elapsed());
        stepped
    }

    /// Kills the server on a machine; the next one starts `after`. A machine that is off takes no connections, one that is on refuses them.
    pub fn kill(&mut self, machine: usize, after: Duration) {
        let machine = self.machines[machine].clone();
        self.trace.note(&machine.name, "killed");
        machine.kill();
        self.sim.crash(machine.name.as_str());
        machine.bury();
        machine.start_at(self.clock.now() + after);
        self.sim.bounce(machine.name.as_str());
    }

    /// Whether a server has ended by itself.
    pub fn has_stopped(&mut self) -> bool {
        self.machines.iter().any(|machine| !self.sim.is_host_running(machine.name.as_str()))
    }

    /// Starts the next life on a machine whose server has ended by itself.
    pub fn revive(&mut self) {
        for machine in 0..self.machines.len() {
            let name = self.machines[machine].name.clone();
            if !self.sim.is_host_running(name.as_str()) {
                self.kill(machine, Duration::from_secs(1));
            }
        }
    }

    /// The nodes with their engines.
    pub fn engines(&self) -> impl Iterator<Item = (&Machine, &Fake)> {
        self.machines.iter().filter_map(|machine| match &machine.role {
            Role::Leader => None,
            Role::Node { engine, labels: _, spares: _ } => Some((&**machine, engine)),
        })
    }
}

/// In memory where the system has a place for it: a sync costs nothing there, and nothing here has to outlive the process.
fn disks() -> TempDir {
    let builder = || {
        let mut builder = tempfile::Builder::new();
        builder.prefix("cube-simulation-");
        builder
    };
    builder().tempdir_in("/dev/shm").or_else(|_| builder().tempdir()).expect("a folder for the simulated disks")
}

/// An engine lives on its machine: it has its clock, and lives on when the server dies.
fn engine(seed: u64, node: &str, clock: &Clock, offset: &Offset) -> Fake {
    let ambient = clock::ambient(clock, offset, clock::dice(seed, &format!("engine {node}")));
    let engines = clock.clone();
    Fake::with_clock(ambient, &Tasks::default(), move || engines.now())
}

/// So many containers on each engine aren't ours.
pub const STRANGERS: usize = 3;

/// Containers that aren't ours: a pod of another cluster's node of the same name, and one with a name like ours and no labels.
fn add_strangers(engine: &Fake, node: &str) {
    let scope = Scope { cluster: ClusterId(Uuid::from_u128(0xf0)), node: Name::new(node).expect("a label") };
    let identity = |number, container: Option<&str>| Identity {
        uid: Uid(Uuid::from_u128(number)),
        pod: Name::new("p0").expect("a label"),
        container: container.map(|name| Name::new(name).expect("a label")),
        attempt: 0,
    };
    engine.add_foreign(&identity(0xf1, None), Some(scope.clone())).expect("an empty engine");
    engine.add_foreign(&identity(0xf1, Some("c0")), Some(scope)).expect("an empty engine");
    engine.add_foreign(&identity(0xf2, Some("c0")), None).expect("an empty engine");
}
