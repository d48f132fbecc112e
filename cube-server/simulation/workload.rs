//! What users do: they apply, change, restart and delete pods, and try again until they are told that it is done.
//!
//! Each group of pods has one user, so that what was acknowledged says exactly what the leader must hold ([`Expected`]); the users act at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use cube_api::meta::{Name, Uid};
use cube_api::pod::{Pod, PodSpec};
use cube_api::routes::{self, Applied};
use cube_api::{ErrorCode, manifest};
use cube_server::ambient::Ambient;
use http::Method;
use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use serde_json::{Value, json};

use crate::client::{Client, Failure};
use crate::images::{Image, PROBED};
use crate::trace::Trace;

/// What the leader said is done.
#[derive(Debug, Clone, PartialEq)]
pub enum Belief {
    /// It is there, as asked for.
    Present { uid: Uid, spec: Box<PodSpec> },
    /// It is on its way out, or gone.
    Deleted { uid: Uid },
}

/// What was acknowledged. Clones share it.
#[derive(Clone, Default)]
pub struct Expected {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    beliefs: BTreeMap<Name, Belief>,
    /// Pods of which something is asked that isn't answered.
    open: BTreeSet<Name>,
    users: usize,
    counts: Counts,
    complaints: Vec<String>,
}

/// How much was asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Lives of pods that were made.
    pub pods: u64,
    /// Writes that were acknowledged.
    pub acknowledged: u64,
    /// Answers that didn't come: it may or may not have been done.
    pub unknown: u64,
}

impl Expected {
    /// What is known of each pod of which nothing is open.
    pub fn certain(&self) -> Vec<(Name, Belief)> {
        let inner = self.inner();
        let known = inner.beliefs.iter().filter(|(name, _)| !inner.open.contains(*name));
        known.map(|(name, belief)| (name.clone(), belief.clone())).collect()
    }

    /// Whether all users have done all that they wanted.
    pub fn is_done(&self) -> bool {
        self.inner().users == 0
    }

    pub fn counts(&self) -> Counts {
        self.inner().counts
    }

    /// Answers that nobody should get.
    pub fn complaints(&self) -> Vec<String> {
        std::mem::take(&mut self.inner().complaints)
    }

    /// A write was taken.
    pub fn acknowledge(&self) {
        self.inner().counts.acknowledged += 1;
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("nothing panics while it is held")
    }

    fn applied(&self, applied: Applied) {
        let mut inner = self.inner();
        inner.counts.acknowledged += 1;
        for item in applied.items {
            let Some(Pod { metadata, spec, .. }) = item.into_pod() else { continue };
            inner.open.remove(&metadata.name);
            let belief = Belief::Present { uid: metadata.uid, spec: Box::new(PodSpec::clone(&spec)) };
            if !matches!(inner.beliefs.get(&metadata.name), Some(Belief::Present { uid, .. }) if *uid == metadata.uid) {
                inner.counts.pods += 1;
            }
            inner.beliefs.insert(metadata.name, belief);
        }
    }

    fn deleted(&self, name: &Name, uid: Option<Uid>) {
        let mut inner = self.inner();
        inner.counts.acknowledged += 1;
        inner.open.remove(name);
        match (uid, inner.beliefs.get(name)) {
            (Some(uid), _) => drop(inner.beliefs.insert(name.clone(), Belief::Deleted { uid })),
            (None, Some(Belief::Present { uid, .. } | Belief::Deleted { uid })) => {
                let belief = Belief::Deleted { uid: *uid };
                inner.beliefs.insert(name.clone(), belief);
            }
            (None, None) => {}
        }
    }
}

/// What a user wants next, of all the user's pods together.
#[derive(Debug, Clone)]
enum Wish {
    Apply(Vec<Value>),
    Delete,
    Restart,
}

/// A user: pods, and what is wanted of them, each some time after the one before.
#[derive(Debug, Clone)]
pub struct User {
    names: Vec<Name>,
    wishes: Vec<(Duration, Wish)>,
}

/// Users with so many pods in all, who begin and end within `length`.
pub fn users(dice: &mut StdRng, pods: usize, length: Duration, images: &[Image]) -> Vec<User> {
    let mut users = Vec::new();
    let mut made = 0;
    while made < pods {
        let size = dice.random_range(1..=3).min(pods - made);
        let names: Vec<_> = (made..made + size).map(|number| Name::new(format!("p{number}")).expect("a label")).collect();
        users.push(user(dice, names, length, images));
        made += size;
    }
    users
}

fn user(dice: &mut StdRng, names: Vec<Name>, length: Duration, images: &[Image]) -> User {
    let mut specs: Vec<_> = names.iter().map(|_| spec(dice, images)).collect();
    let wishes = dice.random_range(1..=5);
    let pause = |dice: &mut StdRng| length.mul_f64(dice.random_range(0.0..1.0) / f64::from(wishes));
    let mut wanted = vec![(pause(dice), Wish::Apply(manifests(&names, &specs)))];
    for number in 1..wishes {
        let wish = match dice.random_range(0..10) {
            0..=3 => {
                let changed = dice.random_range(0..specs.len());
                if dice.random_bool(0.5) {
                    specs[changed] = spec(dice, images);
                } else {
                    specs[changed]["containers"][0]["env"] = json!({"CHANGE": number.to_string()});
                }
                Wish::Apply(manifests(&names, &specs))
            }
            4..=5 => Wish::Restart,
            6..=7 => Wish::Delete,
            _ => Wish::Apply(manifests(&names, &specs)),
        };
        wanted.push((pause(dice), wish));
    }
    User { names, wishes: wanted }
}

fn manifests(names: &[Name], specs: &[Value]) -> Vec<Value> {
    names.iter().zip(specs).map(|(name, spec)| json!({"type": "pod", "metadata": {"name": name}, "spec": spec})).collect()
}

/// A pod of any shape. Some fit nowhere.
fn spec(dice: &mut StdRng, images: &[Image]) -> Value {
    let containers: Vec<_> = (0..dice.random_range(1..=2)).map(|number| container(dice, images, number)).collect();
    let policy = ["Always", "Always", "OnFailure", "Never"].choose(dice).expect("not empty");
    let limit = [0, 3, 10, 10].choose(dice).expect("not empty");
    let mut spec = json!({
        "containers": containers,
        "restartPolicy": policy,
        "terminationGracePeriodSeconds": dice.random_range(0..=6),
        "restart": {"limit": limit},
        "onNodeLoss": if dice.random_bool(0.25) { "wait" } else { "replace" },
    });
    if dice.random_bool(0.15) {
        let disk = ["fast", "fast", "none"].choose(dice).expect("not empty");
        spec["nodeSelector"] = json!({"disk": disk});
    }
    spec
}

fn container(dice: &mut StdRng, images: &[Image], number: usize) -> Value {
    // Half of them are plain: a cluster in which everything crashes hides what one crash does.
    let plain = dice.random_bool(0.5);
    let image = if plain { &images[0] } else { images.choose(dice).expect("not empty") };
    let mut container = json!({"name": format!("c{number}"), "image": image.name});
    if PROBED.contains(&image.name) {
        let probe = json!({"exec": {"command": ["health"]}, "periodSeconds": 2, "timeoutSeconds": 3, "failureThreshold": 3});
        for field in ["startupProbe", "livenessProbe", "readinessProbe"] {
            container[field] = probe.clone();
        }
    }
    if dice.random_bool(0.3) {
        let cpu = ["100m", "500m", "1500m", "9"].choose(dice).expect("not empty");
        container["resources"] = json!({"requests": {"cpu": cpu, "memory": "256Mi", "disk": "40Gi"}});
    }
    if number == 0 && dice.random_bool(0.2) {
        container["ports"] = json!([{"containerPort": 80, "hostPort": dice.random_range(8000..8004)}]);
    }
    container
}

/// Does what each user wants, while others do what they do.
pub async fn run(users: Vec<User>, others: impl Future<Output = ()>, hands: &Hands<'_>) {
    // The others are one more.
    hands.expected.inner().users = users.len() + 1;
    let all = users.iter().map(|user| async {
        for (pause, wish) in &user.wishes {
            tokio::time::sleep(*pause).await;
            hands.fulfil(&user.names, wish).await;
        }
        hands.expected.inner().users -= 1;
    });
    let others = async {
        others.await;
        hands.expected.inner().users -= 1;
    };
    futures::future::join(futures::future::join_all(all), others).await;
    hands.trace.note("client", "the users are done");
}

/// What whoever asks works with.
pub struct Hands<'a> {
    pub client: &'a Client,
    pub ambient: &'a Ambient,
    pub expected: &'a Expected,
    pub trace: &'a Trace,
}

impl Hands<'_> {
    async fn fulfil(&self, names: &[Name], wish: &Wish) {
        match wish {
            Wish::Apply(resources) => {
                self.expected.inner().open.extend(names.iter().cloned());
                let body = Bytes::from(Value::from(resources.clone()).to_string());
                debug_assert!(manifest::from_json(&body).is_ok(), "{:?}", manifest::from_json(&body).err());
                let what = format!("apply {}", names.iter().map(Name::as_str).collect::<Vec<_>>().join(" "));
                match self.until_answered(&what, || self.client.call(Method::POST, routes::APPLY, body.clone())).await {
                    Ok(applied) => self.expected.applied(applied),
                    Err(error) => self.complain(format!("{what}: {error}")),
                }
            }
            Wish::Delete => {
                for name in names {
                    self.delete(name).await;
                }
            }
            Wish::Restart => {
                for name in names {
                    self.restart(name).await;
                }
            }
        }
    }

    async fn delete(&self, name: &Name) {
        self.expected.inner().open.insert(name.clone());
        let path = routes::POD.replace("{name}", name.as_str());
        let answer = self.until_answered(&format!("delete {name}"), || self.client.call::<Pod>(Method::DELETE, &path, Bytes::new())).await;
        match answer {
            Ok(pod) => self.expected.deleted(name, Some(pod.metadata.uid)),
            Err(error) if error.code == ErrorCode::NotFound => self.expected.deleted(name, None),
            Err(error) => self.complain(format!("delete {name}: {error}")),
        }
    }

    async fn restart(&self, name: &Name) {
        let path = format!("{}/restart", routes::POD.replace("{name}", name.as_str()));
        let answer = self.until_answered(&format!("restart {name}"), || self.client.call::<Pod>(Method::POST, &path, Bytes::new())).await;
        match answer {
            Ok(_) => self.expected.acknowledge(),
            // On its way out, gone, or there is no room for it any more.
            Err(error) if matches!(error.code, ErrorCode::NotFound | ErrorCode::Conflict) => {}
            Err(error) => self.complain(format!("restart {name}: {error}")),
        }
    }

    /// Asks until the leader says yes or no.
    pub async fn until_answered<T, F>(&self, what: &str, ask: impl Fn() -> F) -> Result<T, Box<cube_api::ApiError>>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        loop {
            match ask().await {
                Ok(answer) => {
                    self.trace.note("client", format_args!("{what}: done"));
                    return Ok(answer);
                }
                Err(failure) => {
                    self.trace.note("client", format_args!("{what}: {}", failure.describe()));
                    match failure {
                        Failure::Refused(error) if !Failure::Refused(error.clone()).is_retryable() => return Err(error),
                        Failure::Refused(_) => {}
                        Failure::Unknown(_) => self.expected.inner().counts.unknown += 1,
                    }
                }
            }
            tokio::time::sleep(Duration::from_millis(200 + self.ambient.random() % 1_800)).await;
        }
    }

    pub fn complain(&self, complaint: String) {
        self.expected.inner().complaints.push(complaint);
    }
}
