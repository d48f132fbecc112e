//! What people and the machine do to the engine behind the agent's back.

use super::world::{By, Container};
use super::{Fake, image_id};
use crate::follower::runtime::{ContainerId, Identity, RuntimeError, Scope};

/// The image of foreign containers.
const FOREIGN: &str = "foreign";

impl Fake {
    /// Breaks the connection to the engine, or mends it. Containers go on meanwhile; calls that were under way and not carried out are lost.
    pub fn set_down(&self, down: bool) {
        let (mut world, now) = self.settled();
        if down && !world.down {
            world.go_down(now);
        }
        world.down = down;
        world.news.notify_waiters();
    }

    /// Stops the engine as `systemctl stop docker` does where live-restore is off: every container ends. `set_down(false)` starts it again.
    pub fn shut_down(&self) {
        let (mut world, now) = self.settled();
        let all: Vec<_> = world.containers.keys().cloned().collect();
        for id in all {
            if !world.terminate(&id, now) {
                world.kill(&id, now);
            }
        }
        world.go_down(now);
    }

    /// Something of the machine takes a port, on every address and of both protocols; a bind shows it, or only the engine's own try does.
    pub fn take_port(&self, port: u16, is_seen: bool) {
        self.world().taken_ports.insert(port, is_seen);
    }

    /// Freezes a container.
    pub fn pause_by_hand(&self, id: &ContainerId) {
        let (mut world, now) = self.settled();
        world.pause(id, now);
    }

    /// Lets a frozen container go on.
    pub fn unpause_by_hand(&self, id: &ContainerId) {
        let (mut world, now) = self.settled();
        world.resume(id, now);
    }

    /// Stops a container: SIGTERM, and SIGKILL after ten seconds.
    pub fn stop_by_hand(&self, id: &ContainerId) {
        let (mut world, now) = self.settled();
        world.stop_by_hand(id, now);
    }

    /// Kills a container.
    pub fn kill_by_hand(&self, id: &ContainerId) {
        let (mut world, now) = self.settled();
        world.kill(id, now);
    }

    /// Removes a container, killing it if it runs.
    pub fn remove_by_hand(&self, id: &ContainerId) {
        let (mut world, now) = self.settled();
        world.remove(id, now);
    }

    /// Restarts a container: a sandbox's identity changes by it.
    pub fn restart_by_hand(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let (mut world, now) = self.settled();
        world.kill(id, now);
        world.start(id, By::Hand, now)
    }

    /// Removes an image; containers that were made from it stay.
    pub fn remove_image_by_hand(&self, image: &str) {
        let (mut world, _) = self.settled();
        world.pulled.remove(image);
        world.removed.insert(image.to_owned());
    }

    /// Puts a running container there that isn't ours: with the name that ours of that identity would have, and with another owner's labels or
    /// none. Whatever is done to it is noted in [`Fake::trespasses`].
    ///
    /// # Errors
    /// If the name is taken.
    pub fn add_foreign(&self, identity: &Identity, scope: Option<Scope>) -> Result<ContainerId, RuntimeError> {
        let (mut world, now) = self.settled();
        let mut container = Container::new(scope, identity, FOREIGN, image_id(FOREIGN));
        container.foreign = true;
        let id = world.create(container, now)?;
        world.start(&id, By::Hand, now)?;
        Ok(id)
    }
}
