//! A machine and the lives of the server on it. The machine outlives the server: its disk, its clock and its engine.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use cube_api::LeaderAddress;
use cube_api::auth::{Keys, Token};
use cube_api::meta::{Labels, Name};
use cube_api::node::NodeRole;
use cube_server::disk::Disk;
use cube_server::disk::scripted::Scripted;
use cube_server::follower::dial::Dialer;
use cube_server::follower::reserve::{Part, Reserve};
use cube_server::follower::runtime::fake::Fake;
use cube_server::follower::{self, AgentConfig};
use cube_server::leader::{self, Leader};
use cube_server::net::Network;
use cube_server::tasks::Tasks;

use crate::clock::{self, Clock, Offset};
use crate::network::{Listening, Simulated};
use crate::trace::Trace;

/// The leader's host name.
pub const LEADER: &str = "leader";
const PORT: u16 = 4242;
/// The leader's file.
const DATABASE: &str = "leader.db";
/// A node is lost sooner than usual, so that it happens often.
pub const LOST_AFTER: Duration = Duration::from_secs(15);
/// How long an orderly stop may take.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// What a machine is for.
#[derive(Clone)]
pub enum Role {
    Leader,
    /// A node, its engine, and how many sandboxes it keeps ready.
    Node {
        engine: Fake,
        labels: Labels,
        spares: usize,
    },
}

/// What all machines of a simulation share.
#[derive(Clone)]
pub struct Site {
    pub seed: u64,
    pub clock: Clock,
    pub trace: Trace,
    /// Where their disks are.
    pub disks: PathBuf,
}

/// A machine.
pub struct Machine {
    pub name: String,
    pub role: Role,
    pub offset: Offset,
    /// The leader's, which may be full.
    disk: Arc<Scripted>,
    site: Site,
    life: Mutex<Life>,
}

/// One life of the server, from its start to its end.
#[derive(Default)]
struct Life {
    number: u32,
    /// When it starts, in simulated time: a machine comes up before its server does.
    starts_at: Duration,
    tasks: Option<Tasks>,
    leader: Option<Arc<Leader>>,
    /// Why it couldn't start.
    failed: Option<String>,
}

pub fn token() -> Token {
    Token::new("the simulated cluster's token").expect("not blank")
}

pub fn leader_address() -> LeaderAddress {
    format!("{LEADER}:{PORT}").parse().expect("an address")
}

impl Machine {
    /// A machine with an empty disk, whose clock is as far off as `offset` says.
    pub fn new(name: &str, role: Role, offset: Offset, site: &Site) -> Self {
        let machine = Self { name: name.to_owned(), role, offset, disk: Scripted::new(), site: site.clone(), life: Mutex::default() };
        std::fs::create_dir_all(machine.folder(0)).expect("the disks are there");
        machine
    }

    /// How many sandboxes are kept ready here.
    pub fn spares(&self) -> usize {
        match &self.role {
            Role::Leader => 0,
            Role::Node { spares, .. } => *spares,
        }
    }

    /// Runs one life of the server. Ends when it was told to stop, or a task panicked.
    pub async fn live(self: Arc<Self>) -> turmoil::Result {
        let (number, starts_at) = {
            let life = self.life();
            (life.number, life.starts_at)
        };
        tokio::time::sleep(starts_at.saturating_sub(self.site.clock.now())).await;
        let tasks = Tasks::default();
        self.life().tasks = Some(tasks.clone());
        self.site.trace.note(&self.name, format_args!("starts its life {number}"));
        if let Err(error) = self.start(number, &tasks).await {
            self.site.trace.note(&self.name, format_args!("can't start: {error:#}"));
            self.life().failed = Some(format!("{error:#}"));
        } else {
            tasks.stopping().cancelled().await;
        }
        let ended = tasks.shut_down(STOP_LIMIT).await;
        self.site.trace.note(&self.name, if ended { "stopped" } else { "stopped before its tasks had ended" });
        Ok(())
    }

    async fn start(&self, number: u32, tasks: &Tasks) -> anyhow::Result<()> {
        let ambient = clock::ambient(&self.site.clock, &self.offset, clock::dice(self.site.seed, &format!("{} {number}", self.name)));
        let (folder, keys) = (self.folder(number), Keys::new(&token()));
        match &self.role {
            Role::Leader => {
                let listener = Listening::on(PORT).await?;
                let lost_after = Some(LOST_AFTER);
                let loops = leader::control::Options { lost_after, ..leader::control::Options::default() };
                let disk: Arc<dyn Disk> = self.disk.clone();
                let config = leader::Config { database: folder.join(DATABASE), disk: Some(disk), keys, loops };
                self.life().leader = Some(Arc::new(leader::start(config, listener, ambient, tasks).await?));
            }
            Role::Node { engine, labels, spares } => {
                let node = Name::new(&self.name)?;
                let dialer = Dialer::new(leader_address(), node.clone(), keys, Network::new(Simulated), ambient.clone());
                let config = AgentConfig {
                    node,
                    role: NodeRole::Follower,
                    labels: labels.clone(),
                    machine_id: self.name.clone(),
                    boot_id: String::new(),
                    data_dir: folder,
                    max_pods: 20,
                    reserve: Reserve { cpu: Part::Amount(500), memory: Part::Percent(25), disk: Part::Amount(10 << 30) },
                    machine: None,
                    network: Some(Network::new(Simulated)),
                    spare_sandboxes: *spares,
                };
                follower::start(config, Arc::new(engine.clone()), dialer, ambient, tasks).await?;
            }
        }
        Ok(())
    }

    /// Tells the server to stop, as SIGTERM does. Nothing happens if there is none.
    pub fn stop(&self) {
        if let Some(tasks) = &self.life().tasks {
            tasks.stopping().cancel();
        }
    }

    /// The server is killed now. What is in its files now is what the next life finds: dropping the process's tasks closes its database in good
    /// order, as a kill never does, so the next life gets a copy that is made before.
    pub fn kill(&self) {
        let mut life = self.life();
        let (from, to) = (self.folder(life.number), self.folder(life.number + 1));
        std::fs::create_dir_all(&to).expect("the disk has room");
        for entry in std::fs::read_dir(&from).expect("it is there") {
            let file = entry.expect("it can be listed").file_name();
            // Shared memory between processes: gone with the last of them.
            if !file.to_string_lossy().ends_with("-shm") {
                std::fs::copy(from.join(&file), to.join(&file)).expect("the disk has room");
            }
        }
        *life = Life { number: life.number + 1, ..Life::default() };
    }

    /// From now on the database gets no page more than it has, but from the reserve.
    pub fn fill_disk(&self) {
        let file = self.folder(self.life().number).join(DATABASE);
        // A database that isn't there yet gets one, of which nothing can be made.
        let pages = rusqlite::Connection::open(file).and_then(|database| database.query_row("PRAGMA page_count", [], |row| row.get(0)));
        self.disk.fill(pages.expect("the database can be read"));
    }

    /// There is room again.
    pub fn free_disk(&self) {
        self.disk.free();
    }

    /// The killed life's files go.
    pub fn bury(&self) {
        let number = self.life().number;
        if number > 0 {
            std::fs::remove_dir_all(self.folder(number - 1)).ok();
        }
    }

    /// When the next life starts.
    pub fn start_at(&self, at: Duration) {
        self.life().starts_at = at;
    }

    /// The leader that runs here, or that stopped and has no successor yet.
    pub fn leader(&self) -> Option<Arc<Leader>> {
        self.life().leader.clone()
    }

    pub fn has_panicked(&self) -> bool {
        self.life().tasks.as_ref().is_some_and(Tasks::has_panicked)
    }

    pub fn failed(&self) -> Option<String> {
        self.life().failed.clone()
    }

    fn folder(&self, number: u32) -> PathBuf {
        self.site.disks.join(&self.name).join(format!("life-{number}"))
    }

    fn life(&self) -> MutexGuard<'_, Life> {
        self.life.lock().expect("nothing panics while it is held")
    }
}
