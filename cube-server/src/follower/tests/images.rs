//! Logins for registries, and images that go when the disk fills.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cube_api::meta::{Name, Revision};
use cube_api::pod::{Phase, PullSecret, RestartPolicy};
use cube_api::session::AssignedPod;
use cube_api::sources::{Hidden, Sources, Values};

use crate::disk::Space;
use crate::follower::agent::AgentConfig;
use crate::follower::images::cleanup::Limits;
use crate::follower::machine::scripted::Scripted;
use crate::follower::runtime::fake::{Operation, Pull, Script};
use crate::follower::runtime::{Login, Password, Runtime};
use crate::follower::testing::{Bench, name, pod, stop};

const REGISTRY: &str = "r.example.com";
const IMAGE: &str = "r.example.com/app:1";
const MI: u64 = 1 << 20;

fn secured() -> Script {
    let password = Password::Of { user: "me".to_owned(), password: "right".to_owned() };
    let login = Some(Login { registry: REGISTRY.to_owned(), password });
    Script { pull: Pull::After(Duration::from_secs(5)), login, ..Script::default() }
}

fn of_image(number: u128, image: &str) -> AssignedPod {
    let mut pod = pod(number, RestartPolicy::Always);
    pod.spec.containers[0].image = image.to_owned();
    pod
}

/// The pod with a secret of this password.
fn with_password(mut pod: AssignedPod, password: &'static str) -> AssignedPod {
    let data = [("registry", REGISTRY), ("username", "me"), ("password", password)];
    let data = data.map(|(key, value)| (key.to_owned(), Hidden(value.as_bytes().into())));
    let values = Arc::new(Values { revision: Revision(1), data: BTreeMap::from(data) });
    let login: Name = name("login");
    pod.spec.image_pull_secrets = vec![PullSecret { name: login.clone() }];
    pod.sources = Some(Arc::new(Sources { secrets: BTreeMap::from([(login, values)]), ..Sources::default() }));
    pod
}

#[tokio::test(start_paused = true)]
async fn pods_with_different_logins_share_no_pull_and_only_the_right_one_gets_the_image() {
    let bench = Bench::new().await;
    bench.fake.script(IMAGE, secured());
    let none = of_image(1, IMAGE);
    let wrong = with_password(of_image(2, IMAGE), "wrong");
    let right = [3, 4].map(|number| with_password(of_image(number, IMAGE), "right"));
    let mut absent = of_image(5, IMAGE);
    absent.spec.image_pull_secrets = vec![PullSecret { name: name("gone") }];
    let mut pods = vec![none.clone(), wrong.clone(), absent.clone()];
    pods.extend(right.clone());
    // Otherwise they would find the image that another one has brought, as in Kubernetes.
    pods.iter_mut().for_each(|pod| pod.spec.containers[0].image_pull_policy = cube_api::pod::ImagePullPolicy::Always);
    bench.assign(&pods).await;
    for pod in &right {
        bench.phase(pod.uid, Phase::Running).await;
    }
    for pod in [&none, &wrong, &absent] {
        bench.wait_for("a refusal", || bench.message(pod.uid, "ErrImagePull").is_some()).await;
        assert_ne!(bench.status(pod.uid).map(|status| status.phase), Some(Phase::Running));
    }
    let told = bench.message(absent.uid, "ErrImagePull").unwrap();
    assert!(told.contains("of imagePullSecrets, secret/gone is not there"), "{told}");
    let all = format!("{:?}", bench.leader.events.lock().unwrap());
    assert!(!all.contains("right") && !all.contains("wrong"), "{all}");
}

#[tokio::test(start_paused = true)]
async fn the_node_s_own_logins_are_for_every_pod_and_are_read_at_each_pull() {
    let mut bench = Bench::new().await;
    let file = bench.agent.data_dir().join("registries.json");
    let write = |password: &str| {
        let text = serde_json::json!({ "auths": { REGISTRY: { "username": "me", "password": password } } }).to_string();
        std::fs::write(&file, text).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    };
    write("wrong");
    let given = file.clone();
    bench.restart_with(|config| AgentConfig { registry_auth: Some(given), ..config }).await;
    bench.fake.script(IMAGE, secured());
    let web = of_image(1, IMAGE);
    bench.assign(std::slice::from_ref(&web)).await;
    bench.wait_for("a refusal", || bench.message(web.uid, "ErrImagePull").is_some()).await;
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let others_read = || bench.message(web.uid, "ErrImagePull").is_some_and(|told| told.contains("others can read it"));
    bench.wait_for("what is wrong with the file", others_read).await;
    write("right");
    bench.phase(web.uid, Phase::Running).await;
}

/// A node that cleans up a disk of 1,000 MiB, of which so many are free.
async fn cleaning(free: u64) -> (Bench, Arc<Scripted>) {
    let mut bench = Bench::new().await;
    let engine = Path::new("/engine");
    let machine = Scripted::with_disks(&[(engine, Space { free: free * MI, all: 1_000 * MI })]);
    bench.fake.set_data_root(engine);
    let measured = machine.clone();
    let image_gc = Some(Limits { high: 85, low: 80 });
    bench.restart_with(|config| AgentConfig { image_gc, machine: Some(measured), ..config }).await;
    (bench, machine)
}

async fn images(bench: &Bench) -> Vec<String> {
    bench.fake.images().await.unwrap().into_iter().flat_map(|image| image.names).collect()
}

#[tokio::test(start_paused = true)]
async fn when_the_disk_fills_the_least_recently_used_images_that_the_node_pulled_go_and_no_others() {
    let (mut bench, machine) = cleaning(500).await;
    let pulled = Script { pull: Pull::After(Duration::from_secs(1)), size: 60 * MI, ..Script::default() };
    bench.fake.script("theirs:1", Script { size: 500 * MI, ..Script::default() });
    for image in ["old:1", "newer:1", "newest:1", "used:1"] {
        bench.fake.script(image, pulled.clone());
    }
    let pods: Vec<_> =
        ["old:1", "newer:1", "newest:1", "used:1", "theirs:1"].iter().zip(1..).map(|(image, n)| of_image(n, image)).collect();
    bench.assign(&pods).await;
    for pod in &pods {
        bench.phase(pod.uid, Phase::Running).await;
    }
    let mut left = pods.clone();
    for index in [0, 1, 2, 4] {
        // Between two looks of the clean-up at what is used.
        tokio::time::sleep(Duration::from_secs(150)).await;
        left[index] = stop(&pods[index]);
        bench.assign(&left).await;
        bench.wait_for("its end", || bench.is_stopped(pods[index].uid)).await;
    }
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(images(&bench).await.len(), 6, "there is room: nothing goes");
    // What it pulled, a node knows in its next life too.
    let measured = machine.clone();
    bench.restart_with(|config| AgentConfig { image_gc: Some(Limits { high: 85, low: 80 }), machine: Some(measured), ..config }).await;
    machine.fill(Path::new("/engine"), Space { free: 100 * MI, all: 1_000 * MI });
    bench.wait_for("the clean-up", || bench.of_node().iter().any(|(reason, _)| reason == "ImagesRemoved")).await;
    assert_eq!(images(&bench).await, ["app", "newest:1", "theirs:1", "used:1"]);
    let told = bench.of_node().into_iter().find(|(reason, _)| reason == "ImagesRemoved").unwrap().1;
    assert_eq!(told, "removed 2 images that nobody used (120Mi at most), since the disk of the engine was 90 % full: old:1, newer:1");
    // Not enough came free: it goes on below the higher limit, until it is down to the lower one or nothing is left.
    machine.fill(Path::new("/engine"), Space { free: 170 * MI, all: 1_000 * MI });
    bench.wait_for("the rest", || bench.of_node().iter().any(|(_, told)| told.ends_with("newest:1"))).await;
    bench.wait_for("its helplessness", || bench.of_node().iter().any(|(reason, _)| reason == "ImagesInUse")).await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(bench.of_node().iter().filter(|(reason, _)| reason == "ImagesInUse").count(), 1, "it is said once");
    assert_eq!(images(&bench).await, ["app", "theirs:1", "used:1"]);
    assert_eq!(bench.status(pods[3].uid).unwrap().phase, Phase::Running);
}

#[tokio::test(start_paused = true)]
async fn an_image_that_was_there_before_its_pull_is_never_removed() {
    let (bench, _machine) = cleaning(10).await;
    let mut web = pod(1, RestartPolicy::Always);
    web.spec.containers[0].image_pull_policy = cube_api::pod::ImagePullPolicy::Always;
    bench.assign(std::slice::from_ref(&web)).await;
    bench.phase(web.uid, Phase::Running).await;
    assert_eq!(bench.fake.count(Operation::Pull), 1);
    bench.assign(&[stop(&web)]).await;
    bench.wait_for("its end", || bench.is_stopped(web.uid)).await;
    tokio::time::sleep(Duration::from_secs(1_200)).await;
    assert_eq!(images(&bench).await, ["app"]);
    assert_eq!(bench.fake.count(Operation::RemoveImage), 0);
}
