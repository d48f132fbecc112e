//! The classic task interface: what the teaching orchestrators (a manager, its workers, and tasks) say and answer, in terms of pods.
//!
//! A task is a pod seen through this interface, whoever made it; one that was asked for here is a pod of one container with the labels [`TASK_ID`]
//! and, where its name is no pod's name, [`TASK_NAME`]. Nothing is kept beside the pod. "Task", "worker" and "manager" are words of this interface
//! only.
//!
//! * `request.rs`: what is posted, and the manifest of a pod that it is.
//! * `task.rs`: a pod as a task. `worker.rs`: a node as a worker.
//! * `words.rs`: ports, states and restart policies as they are written there.

mod request;
mod task;
mod words;
mod worker;

pub use self::request::{Order, Request, read};
pub use self::task::{HostBinding, Task, short_ids};
pub use self::words::{Empty, PortKey, State};
pub use self::worker::Worker;

/// The label with a task's ID: a UUID. A pod without it (a manifest's) is the task of its uid.
pub const TASK_ID: &str = "cube.io/task-id";

/// The label with a task's name, where that isn't its pod's.
pub const TASK_NAME: &str = "cube.io/task-name";
