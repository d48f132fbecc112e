//! What the ledger keeps of a pod beyond its assignment: where it is in its life, how often what failed, when the next try is due.
//!
//! The record is written before the actions that follow from it are done. What Docker shows is not in it: that is observed again.

use std::collections::BTreeMap;

use cube_api::meta::Name;
use cube_api::pod::{Phase, Terminated};
use cube_api::session::{AssignedPod, Want};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::follower::restart;
use crate::follower::runtime::ContainerId;

/// A pod's record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodRecord {
    /// Where the pod is in its life.
    pub stage: Stage,
    /// The highest `Want::Run { restarts }` that was acted on.
    pub restarts_seen: u64,
    /// The sandbox.
    pub sandbox: SandboxRecord,
    /// One for each container of the spec. In boxes: a map has room for eleven entries where there is mostly one, and a record is copied with each
    /// decision (3.4 KiB of 4 in each of the copies that a node has of it).
    pub containers: BTreeMap<Name, Box<ContainerRecord>>,
    /// When every container had been started for the first time.
    pub started_at: Option<Timestamp>,
}

/// A pod's life on this node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Stage {
    /// It is run by its spec. Next: any other but `Stopped`.
    Live,
    /// Its containers are being stopped, to be made anew. Next: `Live`, `Stopping`.
    Restarting {
        /// When the stop signals were decided on.
        since: Timestamp,
        /// Whether the sandbox is made anew too, and containers that are done stay done; otherwise a person asked, and all run again.
        new_sandbox: bool,
    },
    /// It runs no more; ended containers stay for their logs, what still runs is stopped. Next: `Restarting` by request, `Stopping`.
    Finished {
        /// When it was decided: the stop signals' time.
        since: Timestamp,
        /// How it ended.
        end: PodEnd,
    },
    /// It is on its way out. Next: `Stopped`.
    Stopping {
        /// When the stop signals were decided on.
        since: Timestamp,
        /// Seconds from `since` to SIGKILL.
        grace_seconds: u32,
        /// How it had ended before, if it had.
        end: Option<PodEnd>,
    },
    /// Every container is gone. The last one, unless the engine shows containers of it all the same. Next: `Stopping`.
    Stopped {
        /// How it had ended before it was stopped, if it had.
        end: Option<PodEnd>,
    },
}

/// How a pod ended by itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodEnd {
    /// Succeeded or Failed.
    pub phase: Phase,
    /// The word: `CrashLimit`, `ImageLimit`, `Error`.
    pub reason: Option<String>,
    /// The sentence.
    pub message: Option<String>,
}

/// Failures in a row.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Streak {
    /// How many.
    pub failures: u32,
    /// When the next try is due; at once when absent.
    pub due: Option<Timestamp>,
    /// Since when it runs clean again, by this node's clock; none while it doesn't. Not Docker's time of the start, which is an identity: nobody
    /// can move it when the clock is set.
    #[serde(default)]
    pub clean_since: Option<Timestamp>,
}

/// What is kept of the sandbox.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SandboxRecord {
    /// The current attempt, from 0.
    pub attempt: u32,
    /// A spare sandbox that is promised to this pod and isn't known to be its own yet: it becomes that or is removed, and is never another's. It
    /// is written before the engine is asked, so that no life of the node gives to another pod what an earlier one has promised to this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spare: Option<ContainerId>,
    /// Which network namespace the pod has, once it has one: a change of either part means that it is another one.
    pub identity: Option<SandboxIdentity>,
    /// Sandboxes that could not be made or started.
    pub streak: Streak,
    /// Sandboxes that were there and are lost: an engine that restarts takes them all, so they only spread the tries and never end a pod.
    #[serde(default)]
    pub lost: Streak,
    /// What the engine said when it refused.
    pub problem: Option<String>,
}

/// A network namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SandboxIdentity {
    /// The sandbox's Docker id.
    pub id: String,
    /// When it was started.
    pub since: Timestamp,
}

/// What is kept of one container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerRecord {
    /// The current attempt, from 0.
    pub attempt: u32,
    /// How often a process ran.
    pub starts: u32,
    /// Where the current attempt is.
    pub slot: Slot,
    /// Crashes and refused creates or starts.
    pub crashes: Streak,
    /// Images that could not be had.
    pub images: Streak,
    /// When the startup probe of the current run has succeeded: it isn't asked again, neither by the node's next life.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub came_up: Option<Timestamp>,
    /// How the attempt before ended.
    pub last: Option<Terminated>,
}

/// Where a container's current attempt is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Slot {
    /// It was not started. Next: `Starting`, or `Running` and `Ended` where the ledger was lost and Docker shows it.
    Waiting(WaitCause),
    /// It is about to be started, or was and nobody saw it run. Next: `Running`, `Ended`, `Waiting` with the next attempt.
    Starting,
    /// It runs. Next: `Unhealthy`, `Ended`, `Waiting` with the next attempt.
    Running {
        /// Since when, by Docker.
        since: Timestamp,
    },
    /// A probe found it unhealthy: it is being stopped. Next: `Ended`, `Waiting` with the next attempt; `Running` where somebody has restarted it.
    Unhealthy {
        /// It runs since then, by Docker.
        since: Timestamp,
        /// When the stop signal was decided on.
        stop_since: Timestamp,
        /// Seconds from `stop_since` to SIGKILL.
        grace_seconds: u32,
        /// The probe and what it got.
        why: String,
    },
    /// It ended and isn't started again. The last one, unless the pod restarts.
    Ended(Terminated),
}

/// Why a container waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum WaitCause {
    /// It is its turn: nothing went wrong.
    Turn,
    /// It crashed; `crashes.due` says when it goes on.
    Crash,
    /// The image could not be had; `images.due` says when it is tried again.
    Image(String),
    /// The engine refused to create or start it; `crashes.due` says when it is tried again.
    Refused(String),
}

impl PodRecord {
    /// The record of a pod that is new to this node.
    pub fn new(pod: &AssignedPod) -> Self {
        let restarts_seen = match &pod.want {
            Want::Run { restarts } => *restarts,
            Want::Stop { .. } => 0,
        };
        Self {
            stage: Stage::Live,
            restarts_seen,
            sandbox: SandboxRecord::default(),
            containers: pod.spec.containers.iter().map(|container| (container.name.clone(), Box::new(ContainerRecord::new()))).collect(),
            started_at: None,
        }
    }

    /// The node's clock was set: what waits or lasts goes on for as long as it would have.
    pub fn clock_was_set(&mut self, by: SignedDuration) {
        self.each_time(|time| *time = time.checked_add(by).unwrap_or(*time));
    }

    /// Takes back what no clock can have said that was right, after one that was set while nobody looked: nothing is longer away than its longest
    /// wait, and nothing began later than now.
    pub fn believe(&mut self, now: Timestamp) {
        for container in self.containers.values_mut() {
            restart::believe_crashes(&mut container.crashes, now);
            restart::believe_images(&mut container.images, now);
            container.own_times().for_each(|time| *time = now.min(*time));
        }
        restart::believe_crashes(&mut self.sandbox.streak, now);
        restart::believe_crashes(&mut self.sandbox.lost, now);
        if let Some(since) = self.stage.since_mut() {
            *since = now.min(*since);
        }
    }

    fn each_time(&mut self, mut change: impl FnMut(&mut Timestamp)) {
        let streaks = self.containers.values_mut().flat_map(|container| [&mut container.crashes, &mut container.images]);
        for Streak { failures: _, due, clean_since } in streaks.chain([&mut self.sandbox.streak, &mut self.sandbox.lost]) {
            due.iter_mut().chain(clean_since).for_each(&mut change);
        }
        self.containers.values_mut().flat_map(|container| container.own_times()).for_each(&mut change);
        self.stage.since_mut().into_iter().for_each(change);
    }

    /// Whether its containers are known to be gone for good.
    pub fn is_stopped(&self) -> bool {
        match &self.stage {
            Stage::Stopped { .. } => true,
            Stage::Live | Stage::Restarting { .. } | Stage::Finished { .. } | Stage::Stopping { .. } => false,
        }
    }

    /// Whether nothing will be started any more (unless a person asks).
    pub fn is_over(&self) -> bool {
        match &self.stage {
            Stage::Finished { .. } | Stage::Stopping { .. } | Stage::Stopped { .. } => true,
            Stage::Live | Stage::Restarting { .. } => false,
        }
    }
}

impl Stage {
    /// When it began, where that counts.
    fn since_mut(&mut self) -> Option<&mut Timestamp> {
        match self {
            Self::Restarting { since, .. } | Self::Finished { since, .. } | Self::Stopping { since, .. } => Some(since),
            Self::Live | Self::Stopped { .. } => None,
        }
    }
}

impl SandboxRecord {
    /// When the next try is due; at once when absent.
    pub fn due(&self) -> Option<Timestamp> {
        self.streak.due.max(self.lost.due)
    }
}

impl ContainerRecord {
    fn new() -> Self {
        Self {
            attempt: 0,
            starts: 0,
            slot: Slot::Waiting(WaitCause::Turn),
            crashes: Streak::default(),
            images: Streak::default(),
            came_up: None,
            last: None,
        }
    }

    /// The times by this node's clock that are no streak's.
    fn own_times(&mut self) -> impl Iterator<Item = &mut Timestamp> {
        let stop = match &mut self.slot {
            Slot::Unhealthy { stop_since, .. } => Some(stop_since),
            Slot::Waiting(_) | Slot::Starting | Slot::Running { .. } | Slot::Ended(_) => None,
        };
        stop.into_iter().chain(&mut self.came_up)
    }

    /// When the next try is due; at once when absent.
    pub fn due(&self) -> Option<Timestamp> {
        self.crashes.due.max(self.images.due)
    }

    /// Another run begins: what ran clean before it doesn't count.
    pub fn begin_anew(&mut self) {
        self.crashes.clean_since = None;
        self.images.clean_since = None;
        self.came_up = None;
    }

    /// Goes on to the next attempt.
    pub fn next_attempt(&mut self, cause: WaitCause) {
        self.attempt += 1;
        self.slot = Slot::Waiting(cause);
        self.begin_anew();
    }
}
