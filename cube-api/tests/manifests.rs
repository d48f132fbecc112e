//! The example manifests are right, and what is read from them survives being written.

use std::path::PathBuf;

use cube_api::classic::{self, Order};
use cube_api::manifest::{self, Resource};

fn examples() -> Vec<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../manifests");
    let files = folder.read_dir().expect("the folder of the examples is there").map(|entry| entry.expect("it can be listed").path());
    files.collect()
}

#[test]
fn every_example_is_valid_and_means_the_same_after_writing_and_reading() {
    let examples = examples();
    assert!(examples.len() >= 3, "{examples:?}");
    for file in examples {
        let text = std::fs::read_to_string(&file).expect("an example can be read");
        let resources = manifest::parse(&text).unwrap_or_else(|problems| panic!("{}: {problems:#?}", file.display()));
        let json = serde_json::to_string_pretty(&resources).expect("plain data");
        assert_eq!(manifest::from_json(json.as_bytes()).as_ref(), Ok(&resources), "{}", file.display());
        assert_eq!(manifest::parse(&json).as_ref(), Ok(&resources), "{}", file.display());
    }
}

#[test]
fn every_example_uses_an_image_that_the_demo_makes() {
    for file in examples() {
        let text = std::fs::read_to_string(&file).expect("an example can be read");
        for resource in manifest::parse(&text).expect("it is valid") {
            let containers = match resource {
                Resource::Pod(pod) => pod.spec.containers,
                Resource::Deployment(deployment) => deployment.spec.template.spec.containers.clone(),
                Resource::Job(job) => job.spec.template.spec.containers.clone(),
                Resource::CronJob(cronjob) => cronjob.spec.job_template.spec.template.spec.containers.clone(),
                Resource::Secret(_) | Resource::Config(_) => Vec::new(),
            };
            for container in containers {
                assert!(["nginx:latest", "busybox:latest"].contains(&container.image.as_str()), "{}: {}", file.display(), container.image);
            }
        }
    }
}

#[test]
fn every_example_of_a_task_is_one_with_an_image_that_the_demo_makes() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tasks");
    let files: Vec<_> =
        folder.read_dir().expect("the folder of the examples is there").map(|entry| entry.expect("it can be listed").path()).collect();
    assert!(!files.is_empty());
    for file in files {
        let text = std::fs::read(&file).expect("an example can be read");
        let Ok(Order::Run(task)) = classic::read(&text) else { panic!("{}: {:?}", file.display(), classic::read(&text)) };
        let id = task.id.expect("it has an ID");
        let pod = task.pod(&task.pod_names(id)[0], id);
        assert_eq!(pod.spec.containers[0].image, "nginx:latest", "{}", file.display());
    }
}
