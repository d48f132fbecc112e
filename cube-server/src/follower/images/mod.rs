//! Images: which of them the node has, and pulls. `logins.rs`: who one is at which registry. `cleanup.rs`: what goes again.
//!
//! Pulls run one at a time for an image and the logins that its pods have, however many pods wait for it, and three at a time in all. One that
//! nobody waits for any more is given up: Docker stops it then, and another one gets its place. Pods with different logins never share a pull: the
//! one that may not have an image must not get it because another one may.

pub mod cleanup;
pub mod logins;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use self::logins::Logins;
use crate::ambient::Ambient;
use crate::blocking;
use crate::follower::ledger::Ledger;
use crate::follower::runtime::{PullProgress, Runtime, RuntimeError};
use crate::latest;
use crate::tasks::Tasks;

/// Pulls at the same time; Docker itself loads three layers at a time of each.
const PULLS_AT_ONCE: usize = 3;

/// The node's pulls. Clones share them.
#[derive(Clone)]
pub struct Images {
    runtime: Arc<dyn Runtime>,
    ledger: Ledger,
    /// The node's own logins. Read at each pull: a new password needs no restart.
    auth_file: Option<PathBuf>,
    ambient: Ambient,
    tasks: Tasks,
    slots: Arc<Semaphore>,
    pulling: Arc<Mutex<BTreeMap<Wanted, Weak<Waited>>>>,
    /// When an image was last found or pulled for a pod in this life, by its content id: its container comes a moment later.
    wanted_at: Arc<Mutex<BTreeMap<String, Timestamp>>>,
}

/// An image, and the logins of the pods that wait for it.
type Wanted = (String, Logins);

/// A pull on its way, for as long as a clone of this is held.
#[derive(Clone)]
pub struct Pull {
    waited: Arc<Waited>,
}

/// What those who wait for a pull share.
struct Waited {
    progress: latest::Receiver<PullProgress>,
    done: latest::Receiver<Option<Result<Pulled, Failure>>>,
    /// The last one who waits has gone when this is dropped.
    _unwanted: DropGuard,
}

/// An image that arrived: its content id, and how long that took.
type Pulled = (String, Duration);

/// What each of those who wait for a pull is told. `RuntimeError` can't be cloned.
#[derive(Debug, Clone)]
enum Failure {
    Engine(String),
    Image(String),
}

impl Images {
    /// No pulls yet.
    pub fn new(runtime: Arc<dyn Runtime>, ledger: Ledger, auth_file: Option<PathBuf>, ambient: Ambient, tasks: Tasks) -> Self {
        let slots = Arc::new(Semaphore::new(PULLS_AT_ONCE));
        Self { runtime, ledger, auth_file, ambient, tasks, slots, pulling: Arc::default(), wanted_at: Arc::default() }
    }

    /// The content id of an image that the node has.
    pub async fn find(&self, image: &str) -> Result<Option<String>, RuntimeError> {
        let found = self.runtime.image(image).await?;
        found.iter().for_each(|id| self.note_wanted(id));
        Ok(found)
    }

    /// When a pod last wanted an image, in this life of the process.
    pub fn wanted_at(&self, id: &str) -> Option<Timestamp> {
        self.wanted_at.lock().expect(UNPOISONED).get(id).copied()
    }

    /// Forgets what was wanted of images that are gone.
    fn retain_wanted(&self, is_there: impl Fn(&str) -> bool) {
        self.wanted_at.lock().expect(UNPOISONED).retain(|id, _| is_there(id));
    }

    fn note_wanted(&self, id: &str) {
        self.wanted_at.lock().expect(UNPOISONED).insert(id.to_owned(), self.ambient.now());
    }

    /// Joins the pull of an image with these logins beside the node's own, or begins one. It is given up when nobody waits for it any more.
    pub fn pull(&self, image: &str, logins: Logins) -> Pull {
        let wanted = (image.to_owned(), logins);
        let mut pulling = self.pulling.lock().expect(UNPOISONED);
        if let Some(waited) = pulling.get(&wanted).and_then(Weak::upgrade) {
            return Pull { waited };
        }
        let (progress, progress_seen) = latest::channel(PullProgress::default());
        let (done, done_seen) = latest::channel(None);
        let unwanted = CancellationToken::new();
        let waited = Arc::new(Waited { progress: progress_seen, done: done_seen, _unwanted: unwanted.clone().drop_guard() });
        let this = Arc::downgrade(&waited);
        pulling.insert(wanted.clone(), this.clone());
        let all = self.clone();
        self.tasks.spawn_droppable(format!("pull {image}"), async move {
            let result = tokio::select! {
                biased;
                () = unwanted.cancelled() => None,
                result = all.pull_now(&wanted, progress) => Some(result),
            };
            all.end(&wanted, &this);
            done.send_replace(result);
        });
        Pull { waited }
    }

    /// The next who wants the image begins anew. Somebody may have since this one was given up.
    fn end(&self, wanted: &Wanted, pull: &Weak<Waited>) {
        let mut pulling = self.pulling.lock().expect(UNPOISONED);
        if pulling.get(wanted).is_some_and(|newest| newest.ptr_eq(pull)) {
            pulling.remove(wanted);
        }
    }

    async fn pull_now(&self, (image, logins): &Wanted, progress: latest::Sender<PullProgress>) -> Result<Pulled, Failure> {
        let _slot = self.slots.acquire().await.expect("it is never closed");
        let began = Instant::now();
        let own = self.own_logins().await?;
        // An image that was here before is somebody else's, whatever this pull says of it.
        let before = self.runtime.image(image).await.map_err(Failure::from)?;
        let id = self.pull_with(image, &logins.clone().before(own), progress).await?;
        self.note_wanted(&id);
        if before.as_ref() != Some(&id) {
            self.note_pulled(&id, image).await;
        }
        Ok((id, began.elapsed()))
    }

    async fn own_logins(&self) -> Result<Logins, Failure> {
        let Some(file) = self.auth_file.clone() else { return Ok(Logins::default()) };
        let read = blocking::run(move || logins::read_file(&file)).await;
        read.map_err(|error| Failure::Image(format!("this node's logins for registries can't be used: {error}")))
    }

    /// With each login that is for the registry until one works, as Kubernetes does; without one where there is none.
    async fn pull_with(&self, image: &str, logins: &Logins, progress: latest::Sender<PullProgress>) -> Result<String, Failure> {
        let fitting = logins.of(image);
        let mut refused = None;
        for login in fitting.iter().map(Some).chain(fitting.is_empty().then_some(None)) {
            match self.runtime.pull(image, login, progress.clone()).await.map_err(Failure::from) {
                Err(Failure::Image(problem)) => refused = Some(Failure::Image(problem)),
                other => return other,
            }
        }
        Err(refused.unwrap_or_else(|| Failure::Image("nothing was tried".to_owned())))
    }

    /// What can't be noted stays for ever: that is better than no pod.
    async fn note_pulled(&self, id: &str, image: &str) {
        if let Err(error) = self.ledger.image_pulled(id, image, self.ambient.now()).await {
            tracing::warn!(
                image,
                error = cube_api::error::chain(&error),
                "an image that was pulled can't be noted: it will never be cleaned up"
            );
        }
    }
}

const UNPOISONED: &str = "nothing panics while it is held";

impl From<RuntimeError> for Failure {
    fn from(error: RuntimeError) -> Self {
        match error {
            RuntimeError::Unavailable { problem, .. } => Self::Engine(problem),
            error @ (RuntimeError::Refused { .. } | RuntimeError::PortTaken { .. } | RuntimeError::Gone | RuntimeError::Image { .. }) => {
                Self::Image(error.to_string())
            }
        }
    }
}

impl Pull {
    /// How far it is. To look at it is not to wait for it.
    pub fn progress(&self) -> latest::Receiver<PullProgress> {
        self.waited.progress.clone()
    }

    /// Waits for the end.
    pub async fn wait(self) -> Result<Pulled, RuntimeError> {
        let stopped = || Failure::Engine("the server is stopping".to_owned());
        let result = match self.waited.done.clone().wait_for(Option::is_some).await {
            Ok(result) => result.clone().unwrap_or_else(|| Err(stopped())),
            Err(_) => Err(stopped()),
        };
        result.map_err(|failure| match failure {
            Failure::Engine(problem) => RuntimeError::Unavailable { operation: "pull an image", problem },
            Failure::Image(problem) => RuntimeError::Image { problem },
        })
    }
}
