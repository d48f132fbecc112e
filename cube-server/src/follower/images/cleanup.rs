//! Images that nobody uses go when the disk fills: those that this node pulled, the least recently used first.
//!
//! `choose` decides and is pure; [`Cleaner`] looks each minute, removes what was chosen and says so. An image is never removed that this node didn't
//! pull, that has a name which this node didn't give it, that a container was made from, or that a pod wanted in the last two minutes; Docker
//! refuses, too, to remove what a container uses.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cube_api::meta::{Name, Uid};
use cube_api::quantity::Bytes;
use jiff::Timestamp;

use super::Images;
use crate::ambient::Ambient;
use crate::backoff::Jitter;
use crate::blocking;
use crate::disk::Space;
use crate::follower::ledger::{Ledger, OwnImage};
use crate::follower::machine::Machine;
use crate::follower::plan::Note;
use crate::follower::reporter::Reporter;
use crate::follower::runtime::{HeldImage, Runtime, RuntimeError};

/// How often the disk is looked at.
const EVERY: Duration = Duration::from_secs(60);

/// So long after its last use an image stays, whatever the disk holds: it is wanted again soon after a restart, and between a pull and the
/// creation of the container nothing else shows that it is wanted.
const LEAST_AGE: Duration = Duration::from_secs(120);

/// The most images that an event names.
const NAMED: usize = 5;

/// When images go, in hundredths of the disk on which the engine keeps them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Fuller than that: they go...
    pub high: u8,
    /// ...until it is no fuller than that.
    pub low: u8,
}

/// Everything that a choice is made from.
struct Sight<'a> {
    /// What the engine has.
    held: &'a [HeldImage],
    /// What this node pulled of it, by content id.
    own: &'a BTreeMap<String, OwnImage>,
    space: Space,
    /// The disk was too full and has not come down to the lower limit since.
    going_on: bool,
    now: Timestamp,
}

/// What a look at the disk comes to.
#[derive(Debug, PartialEq, Eq)]
enum Choice<'a> {
    /// There is room enough.
    Room,
    /// These go, in order; none: it is too full, and nothing may go.
    Remove(Vec<&'a HeldImage>),
}

fn choose<'a>(limits: Limits, sight: &Sight<'a>) -> Choice<'a> {
    let Sight { held, own, space, going_on, now } = *sight;
    let used = space.all.saturating_sub(space.free);
    let limit = if going_on { limits.low } else { limits.high };
    if space.all == 0 || hundredths(used, space.all) <= u64::from(limit) {
        return Choice::Room;
    }
    let allowed = u64::try_from(u128::from(space.all) * u128::from(limits.low) / 100).unwrap_or(u64::MAX);
    let mut too_much = used.saturating_sub(allowed);
    let mut candidates: Vec<_> = held.iter().filter_map(|image| Some((unused_since(image, own.get(&image.id)?, now)?, image))).collect();
    candidates.sort_by_key(|(used_at, image)| (*used_at, &image.id));
    let mut chosen = Vec::new();
    for (_, image) in candidates {
        if too_much == 0 {
            break;
        }
        // Layers that others have too stay: then the next look takes more.
        too_much = too_much.saturating_sub(image.size);
        chosen.push(image);
    }
    Choice::Remove(chosen)
}

/// Since when nobody uses it, if it may go.
fn unused_since(image: &HeldImage, own: &OwnImage, now: Timestamp) -> Option<Timestamp> {
    let is_ours_alone = image.names.iter().all(|name| own.names.iter().any(|ours| short(ours) == short(name)));
    let is_old = now.duration_since(own.used_at) >= jiff::SignedDuration::try_from(LEAST_AGE).unwrap_or_default();
    (!image.in_use && is_ours_alone && is_old).then_some(own.used_at)
}

/// A reference as the engine lists it: Docker's own registry is left out, the tag never is.
fn short(reference: &str) -> String {
    let name = reference.strip_prefix("docker.io/").or_else(|| reference.strip_prefix("index.docker.io/")).unwrap_or(reference);
    let name = name.strip_prefix("library/").unwrap_or(name);
    let last = name.rsplit('/').next().unwrap_or(name);
    if last.contains([':', '@']) { name.to_owned() } else { format!("{name}:latest") }
}

/// Rounded up: a disk that is a little over a limit is over it.
fn hundredths(part: u64, all: u64) -> u64 {
    u64::try_from((u128::from(part) * 100).div_ceil(u128::from(all.max(1)))).unwrap_or(u64::MAX)
}

/// The task that cleans up.
pub struct Cleaner {
    /// When images go.
    pub limits: Limits,
    /// Whose disk it is.
    pub machine: Arc<dyn Machine>,
    /// Which engine's images.
    pub runtime: Arc<dyn Runtime>,
    /// Who knows what pods wanted a moment ago.
    pub images: Images,
    /// Who knows what this node pulled.
    pub ledger: Ledger,
    /// Told that there is an event.
    pub reporter: Reporter,
    /// The node's name.
    pub node: Name,
    /// The clock and the dice.
    pub ambient: Ambient,
}

/// What is known from one look to the next.
#[derive(Debug, Default)]
struct Course {
    /// The disk was too full and has not come down to the lower limit since.
    going_on: bool,
    /// Nobody is told a second time that nothing can go.
    told_helpless: bool,
    /// The problem that was logged last.
    problem: String,
}

impl Cleaner {
    /// Cleans up for as long as it is polled.
    pub async fn run(self) {
        let mut course = Course::default();
        loop {
            // Not at once: what the pods of the last life use has to be seen first.
            tokio::time::sleep(Jitter::from_random(self.ambient.random()).spread(EVERY)).await;
            match self.look(&mut course).await {
                Ok(()) => course.problem.clear(),
                Err(problem) if problem == course.problem => {}
                Err(problem) => {
                    tracing::warn!("images are not cleaned up: {problem}");
                    course.problem = problem;
                }
            }
        }
    }

    async fn look(&self, course: &mut Course) -> Result<(), String> {
        let engine = |error: RuntimeError| error.to_string();
        let ledger = |error| cube_api::error::chain(&error);
        // Only a disk that is surely the images' own tells anything about them.
        let Some(root) = self.runtime.info().await.map_err(engine)?.data_root else {
            return Err("the engine doesn't say where it keeps them".to_owned());
        };
        let mut own = self.ledger.own_images().await.map_err(ledger)?;
        if own.is_empty() {
            return Ok(());
        }
        let held = self.runtime.images().await.map_err(engine)?;
        let now = self.ambient.now();
        let (used, gone) = self.note_use(&held, &mut own, now);
        if !used.is_empty() || !gone.is_empty() {
            self.ledger.images_seen(used, gone).await.map_err(ledger)?;
        }
        self.images.retain_wanted(|id| held.iter().any(|image| image.id == id));
        let space = self.space(root).await?;
        let sight = Sight { held: &held, own: &own, space, going_on: course.going_on, now };
        match choose(self.limits, &sight) {
            Choice::Room => *course = Course { problem: std::mem::take(&mut course.problem), ..Course::default() },
            Choice::Remove(chosen) => {
                course.going_on = true;
                self.clean(&chosen, space, course).await;
            }
        }
        Ok(())
    }

    /// Takes in what is used now: what is to be written of it, and what is gone.
    fn note_use(
        &self,
        held: &[HeldImage],
        own: &mut BTreeMap<String, OwnImage>,
        now: Timestamp,
    ) -> (BTreeMap<String, Timestamp>, Vec<String>) {
        let held: BTreeMap<_, _> = held.iter().map(|image| (image.id.as_str(), image.in_use)).collect();
        let gone: Vec<_> = own.keys().filter(|id| !held.contains_key(id.as_str())).cloned().collect();
        let mut used = BTreeMap::new();
        for (id, image) in own.iter_mut() {
            let in_use = held.get(id.as_str()).copied().unwrap_or(false);
            let at = if in_use { Some(now) } else { self.images.wanted_at(id) };
            if let Some(at) = at.filter(|at| *at > image.used_at) {
                image.used_at = at;
                used.insert(id.clone(), at);
            }
        }
        (used, gone)
    }

    async fn space(&self, root: PathBuf) -> Result<Space, String> {
        let (machine, folder) = (self.machine.clone(), root.clone());
        let measured = blocking::run(move || machine.space(&folder)).await;
        measured.map_err(|error| format!("the disk of {} can't be measured from here: {error}", root.display()))
    }

    async fn clean(&self, chosen: &[&HeldImage], before: Space, course: &mut Course) {
        let mut removed = Vec::new();
        for image in chosen {
            // Since the choice, a pod may have found it.
            let is_wanted = self.images.wanted_at(&image.id).is_some_and(|at| at > self.ambient.now() - LEAST_AGE);
            if is_wanted {
                continue;
            }
            match self.runtime.remove_image(image).await {
                Ok(()) => removed.push(*image),
                // Somebody uses it by now: it stays.
                Err(error) => tracing::debug!(image = image.id, "an image is not removed: {error}"),
            }
        }
        let full = hundredths(before.all.saturating_sub(before.free), before.all);
        if removed.is_empty() {
            if !std::mem::replace(&mut course.told_helpless, true) {
                let message =
                    format!("the disk of the engine is {full} % full, and there is no image that this node pulled and nobody uses");
                tracing::warn!("{message}");
                self.note(Note::warning("ImagesInUse", message)).await;
            }
            return;
        }
        let gone = removed.iter().map(|image| image.id.clone()).collect();
        if let Err(error) = self.ledger.images_seen(BTreeMap::new(), gone).await {
            tracing::debug!(error = cube_api::error::chain(&error), "that images are gone is noted at the next look");
        }
        let message = told(&removed, full);
        tracing::info!("{message}");
        self.note(Note::normal("ImagesRemoved", message)).await;
    }

    async fn note(&self, note: Note) {
        match self.ledger.save(Uid::NONE, self.node.clone(), None, vec![note], self.ambient.now()).await {
            Ok(()) => self.reporter.events_are_waiting(),
            // The log has it.
            Err(error) => tracing::debug!(error = cube_api::error::chain(&error), "an event of the node can't be written"),
        }
    }
}

/// `removed 2 images that nobody used (120Mi at most), since the disk of the engine was 91 % full: a:1, b:1`.
fn told(removed: &[&HeldImage], full: u64) -> String {
    let size: u64 = removed.iter().map(|image| image.size).sum();
    let name = |image: &&HeldImage| image.names.first().unwrap_or(&image.id).clone();
    let mut names: Vec<_> = removed.iter().take(NAMED).map(name).collect();
    if removed.len() > NAMED {
        names.push(format!("{} more", removed.len() - NAMED));
    }
    let (images, size) = (if removed.len() == 1 { "image" } else { "images" }, Bytes(size >> 20 << 20));
    // What images share is counted for each of them.
    let count = removed.len();
    format!(
        "removed {count} {images} that nobody used ({size} at most), since the disk of the engine was {full} % full: {}",
        names.join(", ")
    )
}

#[cfg(test)]
mod tests;
