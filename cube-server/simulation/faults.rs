//! What goes wrong: when, for how long, and how it is undone. All of it is the seed's choice.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use cube_server::follower::runtime::ContainerId;
use cube_server::follower::runtime::fake::{Failure, Fake, Operation};
use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use crate::clock;
use crate::machine::{LEADER, Role};
use crate::world::{CLIENT, Settings, World};

/// Between the leader and another host, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Cut {
    /// Connections are refused, what is under way is lost.
    Partition,
    /// A black hole; what was said comes later.
    Hold,
    /// The leader hears nothing.
    ToLeader,
    /// The leader isn't heard.
    FromLeader,
}

/// What somebody does to a container of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Hand {
    Kill,
    Stop,
    Remove,
    Restart,
    Pause,
}

/// A fault.
#[derive(Debug, Clone, PartialEq)]
enum Fault {
    Link {
        host: String,
        cut: Cut,
    },
    Latency(Duration),
    /// Machines by their place, the leader is 0.
    Kill(Vec<usize>),
    /// An orderly stop, and a start.
    Restart(usize),
    EngineAway(usize),
    /// Every container ends with it.
    EngineStops(usize),
    EngineSlow(usize, Duration),
    Call(usize, Operation, Failure),
    Hang(usize, Operation),
    Hand(usize, Hand),
    ImageRemoved(usize, &'static str),
    /// Seconds forward or back.
    ClockJumps(usize, i64),
    /// The leader's.
    DiskFull,
}

impl Fault {
    /// For the summary.
    fn kind(&self) -> &'static str {
        match self {
            Self::Link { cut: Cut::Partition, .. } => "partition",
            Self::Link { cut: Cut::Hold, .. } => "black hole",
            Self::Link { cut: Cut::ToLeader | Cut::FromLeader, .. } => "one-way partition",
            Self::Latency(_) => "slow network",
            Self::Kill(_) => "kill -9",
            Self::Restart(_) => "restart",
            Self::EngineAway(_) => "engine away",
            Self::EngineStops(_) => "engine restarted",
            Self::EngineSlow(..) => "engine slow",
            Self::Call(_, _, Failure::NotDone) => "call not done",
            Self::Call(_, _, Failure::ReplyLost) => "reply lost",
            Self::Hang(..) => "call hangs",
            Self::Hand(_, Hand::Kill) => "killed by hand",
            Self::Hand(_, Hand::Stop) => "stopped by hand",
            Self::Hand(_, Hand::Remove) => "removed by hand",
            Self::Hand(_, Hand::Restart) => "restarted by hand",
            Self::Hand(_, Hand::Pause) => "paused by hand",
            Self::ImageRemoved(..) => "image removed",
            Self::ClockJumps(..) => "clock jump",
            Self::DiskFull => "disk full",
        }
    }
}

/// A point in the plan.
#[derive(Debug, Clone, PartialEq)]
enum Event {
    Begin(usize),
    End(usize),
}

/// What a fault left to be undone.
enum Undo {
    Nothing,
    Link { host: String, cut: Cut },
    Latency,
    Engine(usize),
    Speed(usize),
    Release(usize),
    Unpause(usize, ContainerId),
    Disk,
}

/// The plan of a run, and how far it is.
pub struct Faults {
    planned: Vec<Fault>,
    /// The latest first.
    events: Vec<(Duration, Event)>,
    open: BTreeMap<usize, Undo>,
    dice: StdRng,
    /// How often each kind happened.
    pub happened: BTreeMap<&'static str, u64>,
}

impl Faults {
    /// Plans the faults of a seed.
    pub fn plan(settings: &Settings) -> Self {
        let mut dice = clock::dice(settings.seed, "faults");
        // A third of the runs is about few faults, which others would hide.
        let most = *[3, 12, 30].choose(&mut dice).expect("not empty");
        let count = dice.random_range(1..=most);
        let mut planned = Vec::new();
        let mut events = Vec::new();
        let mut links: BTreeMap<String, Duration> = BTreeMap::new();
        for number in 0..count {
            let at = settings.length.mul_f64(dice.random_range(0.0..1.0));
            let long = dice.random_bool(0.3);
            let lasts = Duration::from_millis(if long { dice.random_range(10_000..40_000) } else { dice.random_range(50..6_000) });
            let fault = fault(&mut dice, settings);
            if let Fault::Link { host, .. } = &fault {
                // turmoil can't lay one cut over another.
                if links.get(host).is_some_and(|until| *until > at) {
                    planned.push(Fault::Latency(Duration::from_millis(200)));
                    events.extend([(at, Event::Begin(number)), (at + lasts, Event::End(number))]);
                    continue;
                }
                links.insert(host.clone(), at + lasts);
            }
            planned.push(fault);
            events.extend([(at, Event::Begin(number)), (at + lasts, Event::End(number))]);
        }
        events.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
        Self { planned, events, open: BTreeMap::new(), dice, happened: BTreeMap::new() }
    }

    /// When something is to happen next.
    pub fn next(&self) -> Option<Duration> {
        self.events.last().map(|(at, _)| *at)
    }

    /// Lets happen what is due.
    pub fn act(&mut self, world: &mut World) {
        while self.next().is_some_and(|at| at <= world.clock.now()) {
            match self.events.pop() {
                Some((_, Event::Begin(number))) => self.begin(world, number),
                Some((_, Event::End(number))) => self.end(world, number),
                None => return,
            }
        }
    }

    /// Undoes what is still open; nothing more happens.
    pub fn heal(&mut self, world: &mut World) {
        self.events.clear();
        for number in self.open.keys().copied().collect::<Vec<_>>() {
            self.end(world, number);
        }
        world.trace.note("faults", "all is healed");
    }

    fn begin(&mut self, world: &mut World, number: usize) {
        let fault = self.planned[number].clone();
        world.trace.note("faults", format_args!("{fault:?}"));
        *self.happened.entry(fault.kind()).or_default() += 1;
        let lasts = self.length(number, world.clock.now());
        let undo = self.inflict(world, fault, lasts);
        self.open.insert(number, undo);
    }

    /// How long a fault that begins now lasts.
    fn length(&self, number: usize, now: Duration) -> Duration {
        let end = self.events.iter().find(|(_, event)| *event == Event::End(number));
        end.map_or(Duration::ZERO, |(at, _)| at.saturating_sub(now))
    }

    fn inflict(&mut self, world: &mut World, fault: Fault, lasts: Duration) -> Undo {
        match fault {
            Fault::Link { host, cut } => {
                match cut {
                    Cut::Partition => world.sim.partition(LEADER, host.as_str()),
                    Cut::Hold => world.sim.hold(LEADER, host.as_str()),
                    Cut::ToLeader => world.sim.partition_oneway(host.as_str(), LEADER),
                    Cut::FromLeader => world.sim.partition_oneway(LEADER, host.as_str()),
                }
                Undo::Link { host, cut }
            }
            Fault::Latency(latency) => {
                world.sim.set_max_message_latency(latency);
                Undo::Latency
            }
            Fault::Kill(machines) => {
                machines.into_iter().for_each(|machine| world.kill(machine, lasts));
                Undo::Nothing
            }
            Fault::Restart(machine) => {
                world.machines[machine].stop();
                Undo::Nothing
            }
            Fault::EngineAway(node) => {
                engine(world, node).set_down(true);
                Undo::Engine(node)
            }
            Fault::EngineStops(node) => {
                engine(world, node).shut_down();
                Undo::Engine(node)
            }
            Fault::EngineSlow(node, most) => {
                engine(world, node).set_latency(Duration::ZERO..=most);
                Undo::Speed(node)
            }
            Fault::Call(node, operation, failure) => {
                engine(world, node).fail_next(operation, failure);
                Undo::Nothing
            }
            Fault::Hang(node, operation) => {
                engine(world, node).hang(operation);
                Undo::Release(node)
            }
            Fault::Hand(node, hand) => self.lay_hand_on(world, node, hand),
            Fault::ImageRemoved(node, image) => {
                engine(world, node).remove_image_by_hand(image);
                Undo::Nothing
            }
            Fault::ClockJumps(machine, seconds) => {
                world.machines[machine].offset.set(seconds * 1_000);
                Undo::Nothing
            }
            Fault::DiskFull => {
                world.machines[0].fill_disk();
                Undo::Disk
            }
        }
    }

    fn lay_hand_on(&mut self, world: &World, node: usize, hand: Hand) -> Undo {
        let engine = engine(world, node);
        let ours: Vec<_> = engine.residents().into_iter().filter(|resident| !resident.foreign).collect();
        let Some(chosen) = ours.choose(&mut self.dice) else { return Undo::Nothing };
        let id = chosen.observed.id.clone();
        world.trace.note("faults", format_args!("{hand:?} {}", chosen.name));
        match hand {
            Hand::Kill => engine.kill_by_hand(&id),
            Hand::Stop => engine.stop_by_hand(&id),
            Hand::Remove => engine.remove_by_hand(&id),
            // What can't be started says so, to the hand.
            Hand::Restart => drop(engine.restart_by_hand(&id)),
            Hand::Pause => {
                engine.pause_by_hand(&id);
                return Undo::Unpause(node, id);
            }
        }
        Undo::Nothing
    }

    fn end(&mut self, world: &mut World, number: usize) {
        let Some(undo) = self.open.remove(&number) else { return };
        match undo {
            Undo::Nothing => return,
            Undo::Link { host, cut } => match cut {
                Cut::Partition => world.sim.repair(LEADER, host.as_str()),
                Cut::Hold => world.sim.release(LEADER, host.as_str()),
                Cut::ToLeader => world.sim.repair_oneway(host.as_str(), LEADER),
                Cut::FromLeader => world.sim.repair_oneway(LEADER, host.as_str()),
            },
            Undo::Latency => world.sim.set_max_message_latency(Duration::from_millis(20)),
            Undo::Engine(node) => engine(world, node).set_down(false),
            Undo::Speed(node) => engine(world, node).set_latency(Duration::ZERO),
            Undo::Release(node) => engine(world, node).release(),
            Undo::Unpause(node, id) => engine(world, node).unpause_by_hand(&id),
            Undo::Disk => world.machines[0].free_disk(),
        }
        world.trace.note("faults", format_args!("over: {:?}", self.planned[number]));
    }
}

fn engine(world: &World, node: usize) -> &Fake {
    match &world.machines[node].role {
        Role::Node { engine, labels: _, spares: _ } => engine,
        Role::Leader => unreachable!("faults of engines are planned for nodes only"),
    }
}

fn fault(dice: &mut StdRng, settings: &Settings) -> Fault {
    let node = dice.random_range(1..=settings.nodes);
    let machine = dice.random_range(0..=settings.nodes);
    match dice.random_range(0..100) {
        0..=19 => {
            let host = if dice.random_bool(0.2) { CLIENT.to_owned() } else { format!("n{node}") };
            let cut = *[Cut::Partition, Cut::Hold, Cut::ToLeader, Cut::FromLeader].choose(dice).expect("not empty");
            Fault::Link { host, cut }
        }
        20..=22 => Fault::Latency(Duration::from_millis(dice.random_range(50..1_500))),
        23..=44 => {
            let several = dice.random_bool(0.2);
            let all = (0..=settings.nodes).filter(|other| *other == machine || several && dice.random_bool(0.5));
            Fault::Kill(all.collect())
        }
        45..=50 => Fault::Restart(machine),
        51..=55 => Fault::EngineAway(node),
        56..=57 => Fault::EngineStops(node),
        58..=61 => Fault::EngineSlow(node, Duration::from_millis(dice.random_range(10..5_000))),
        62..=77 => Fault::Call(node, operation(dice), *[Failure::NotDone, Failure::ReplyLost].choose(dice).expect("not empty")),
        78..=80 => Fault::Hang(node, operation(dice)),
        81..=93 => Fault::Hand(node, *[Hand::Kill, Hand::Stop, Hand::Remove, Hand::Restart, Hand::Pause].choose(dice).expect("not empty")),
        94 => Fault::ImageRemoved(node, ["steady", "job"].choose(dice).expect("not empty")),
        95..=96 => Fault::DiskFull,
        _ => Fault::ClockJumps(machine, *[-7_200, -40, 20, 300, 86_400].choose(dice).expect("not empty")),
    }
}

fn operation(dice: &mut StdRng) -> Operation {
    use Operation::*;
    let all = [
        Info,
        List,
        Inspect,
        Hints,
        Image,
        Pull,
        CreateSandbox,
        CreateContainer,
        CreateSpare,
        Spares,
        ClaimSpare,
        Start,
        Signal,
        Remove,
        Logs,
        ReadFile,
    ];
    *all.choose(dice).expect("not empty")
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.planned).finish()
    }
}
