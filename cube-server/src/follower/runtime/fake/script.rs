//! What containers of an image do: plain data. What is random about a workload is the business of whoever writes the scripts.

use std::time::Duration;

/// What an image's containers do. The default runs until it is told to stop, and its image is there.
#[derive(Debug, Clone, Default)]
pub struct Script {
    /// Whether and how the image can be had.
    pub pull: Pull,
    /// So long the engine works on a start, before the process runs.
    pub start_takes: Duration,
    /// How long it runs; for ever if none, and not at all if zero: then nobody ever sees it run.
    pub run_for: Option<Duration>,
    /// What it exits with after `run_for`.
    pub exit_code: i64,
    /// So many of its first starts (for each pod and container name) end with 1 at once.
    pub fail_first: u32,
    /// Only SIGKILL ends it.
    pub ignores_stop: bool,
    /// Its end after `run_for` is the kernel's, for its memory limit: exit code 137.
    pub oom: bool,
    /// It can't be started, and the engine's words for it.
    pub start_error: Option<String>,
    /// The lines that it writes when it starts, without their newlines.
    pub output: Vec<String>,
    /// What the command `health` finds in its containers.
    pub health: Health,
    /// Lines that it writes in a second, for as long as it runs. They are counted, not kept: `line 0`, `line 1`, ...
    pub flood: u32,
}

/// When a container is well, by the time since its start: from `from` on, and before `until`, if there is one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Health {
    /// Before it, `health` exits with 1.
    pub from: Duration,
    /// From then on, `health` exits with 1.
    pub until: Option<Duration>,
}

/// How an image can be had.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Pull {
    /// The node has it.
    #[default]
    Present,
    /// The registry has it; so long it takes.
    After(Duration),
    /// Nobody has it.
    Missing,
}
