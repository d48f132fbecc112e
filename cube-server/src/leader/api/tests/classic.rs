//! The classic task interface: what its clients post and read.

use super::*;

/// As the book prints it.
const TASK: &str = r#"{"ID": "a7aa1d44-08f6-443e-9378-f5884311019e", "State": 2, "Task": {
    "State": 1, "ID": "bb1d59ef-9fc1-4e4b-a44d-db571eeed203", "Name": "test-chapter-9.1", "Image": "timboring/echo-server:latest",
    "ExposedPorts": {"7777/tcp": {}}, "PortBindings": {"7777/tcp": "7777"}, "HealthCheck": "/health"}}"#;
const ID: &str = "bb1d59ef-9fc1-4e4b-a44d-db571eeed203";

impl Leader {
    async fn post(&self, body: &str) -> Response {
        self.as_admin(Method::POST, "/tasks", body.to_owned()).await
    }

    /// Runs a task; the answer.
    async fn run(&self, body: &str) -> Value {
        let answer = self.post(body).await;
        assert_eq!(answer.status(), StatusCode::CREATED);
        read(answer).await
    }

    async fn task(&self, reference: &str) -> Value {
        let answer = self.get(&format!("/tasks/{reference}")).await;
        assert_eq!(answer.status(), StatusCode::OK, "{reference}");
        read(answer).await
    }

    async fn tasks(&self) -> Vec<Value> {
        read(self.get("/tasks").await).await
    }

    async fn stop(&self, reference: &str) {
        let answer = self.as_admin(Method::DELETE, &format!("/tasks/{reference}"), Body::empty()).await;
        assert_eq!(answer.status(), StatusCode::NO_CONTENT);
        assert_eq!(whole(answer).await, Bytes::new());
    }
}

fn named(name: &str, id: &str) -> String {
    json!({"Task": {"ID": id, "Name": name, "Image": "nginx"}}).to_string()
}

#[tokio::test]
async fn a_task_is_run_read_and_stopped_with_exactly_the_classic_fields() {
    let leader = Leader::start().await;
    let task = leader.run(TASK).await;
    let fields: Vec<&str> = task.as_object().expect("an object").keys().map(String::as_str).collect();
    let mut wanted = [
        "ID",
        "ContainerID",
        "Name",
        "State",
        "Image",
        "CPU",
        "Memory",
        "Disk",
        "ExposedPorts",
        "PortBindings",
        "RestartPolicy",
        "CreatedAt",
        "UpdatedAt",
        "StartsAt",
        "FinishedAt",
        "HealthCheck",
        "RestartCount",
        "HostPorts",
    ];
    wanted.sort_unstable();
    assert_eq!(fields, wanted);
    assert_eq!((&task["ID"], &task["Name"], &task["State"]), (&json!(ID), &json!("test-chapter-9.1"), &json!(0)));
    assert_eq!((&task["ExposedPorts"], &task["PortBindings"]), (&json!({"7777/tcp": {}}), &json!({"7777/tcp": "7777"})));
    assert_eq!((&task["HealthCheck"], &task["RestartPolicy"]), (&json!("/health"), &json!("on-failure")));
    for reference in [ID, "bb1d59ef", "BB1D", "test-chapter-9.1", "test-chapter-9-1"] {
        assert_eq!(leader.task(reference).await, task, "{reference}");
    }
    assert_eq!(leader.tasks().await, [task]);
    leader.stop("bb1d").await;
    refused(leader.get(&format!("/tasks/{ID}")).await, ErrorCode::NotFound).await;
    assert_eq!(leader.tasks().await, [] as [Value; 0]);
}

#[tokio::test]
async fn posting_it_as_completed_stops_a_task_as_the_classic_clients_do() {
    let leader = Leader::start().await;
    let stop = TASK.replace("\"State\": 2", "\"State\": 3");
    refused(leader.post(&stop).await, ErrorCode::NotFound).await;
    leader.run(TASK).await;
    assert_eq!(leader.post(&stop).await.status(), StatusCode::OK);
    assert!(leader.tasks().await.is_empty());
}

#[tokio::test]
async fn a_repeated_post_is_the_same_task_and_another_one_under_its_id_is_refused() {
    let leader = Leader::start().await;
    assert_eq!(leader.run(TASK).await, leader.run(TASK).await);
    let error = refused(leader.post(&TASK.replace("/health", "/other")).await, ErrorCode::Conflict).await;
    assert!(error.message.contains("pod/test-chapter-9-1") && error.hint.is_some(), "{error:?}");
    refused(leader.post(&TASK.replace("test-chapter-9.1", "renamed")).await, ErrorCode::Conflict).await;
    assert_eq!(leader.tasks().await.len(), 1);
}

#[tokio::test]
async fn two_tasks_of_one_name_are_two_pods_and_neither_takes_anothers_place() {
    let leader = Leader::start().await;
    leader.apply(json!([pod("web", "nginx", "a")])).await;
    let ids = ["11111111-0000-4000-8000-000000000001", "11111111-0000-4000-8000-000000000002", "2222aaaa-0000-4000-8000-000000000001"];
    leader.run(&named("web", ids[0])).await;
    leader.run(&named("web", ids[2])).await;
    let pods: Vec<String> = leader.api.store.read(|state| state.names.keys().map(ToString::to_string).collect());
    assert_eq!(pods, ["web", "web-11111111", "web-2222aaaa"]);
    // The name and the first 8 digits of the ID are alike: there is no third name.
    let error = refused(leader.post(&named("web", ids[1])).await, ErrorCode::Conflict).await;
    assert!(error.message.contains("pod/web and pod/web-11111111"), "{}", error.message);
    assert_eq!(leader.task("1111").await["ID"], json!(ids[0]));
}

#[tokio::test]
async fn a_word_that_means_several_tasks_is_refused_with_all_of_them() {
    let leader = Leader::start().await;
    leader.run(&named("one", "11111111-0000-4000-8000-000000000001")).await;
    leader.run(&named("two", "11111111-0000-4000-8000-000000000002")).await;
    let error = refused(leader.as_admin(Method::DELETE, "/tasks/11111111", Body::empty()).await, ErrorCode::Invalid).await;
    assert_eq!((error.message.as_str(), error.details.len()), ("'11111111' means 2 tasks", 2));
    assert_eq!(leader.tasks().await.len(), 2);
    leader.stop("11111111-0000-4000-8000-000000000002").await;
    assert_eq!(leader.task("1111").await["Name"], json!("one"));
}

#[tokio::test]
async fn a_pod_of_a_manifest_is_a_task_by_its_uid_and_its_name() {
    let leader = Leader::start().await;
    let applied = leader.apply(json!([pod("web", "nginx", "a")])).await;
    let uid = applied["items"][0]["pod"]["metadata"]["uid"].as_str().expect("a uid").to_owned();
    for reference in ["web", &uid, &uid[..13]] {
        assert_eq!(leader.task(reference).await["ID"], json!(uid));
    }
    leader.stop(&uid).await;
    assert!(leader.tasks().await.is_empty());
}

#[tokio::test]
async fn a_task_that_is_wrong_is_refused_with_every_problem_and_nothing_is_run() {
    let leader = Leader::start().await;
    let error = refused(leader.post(&TASK.replace("\"Image\"", "\"Imag\"").replace("7777\"}", "x\"}")).await, ErrorCode::Invalid).await;
    let paths: Vec<&str> = error.details.iter().map(|problem| problem.path.as_str()).collect();
    assert!(paths.contains(&"Task.Imag") && paths.contains(&"Task.PortBindings[\"7777/tcp\"]"), "{:?}", error.details);
    assert!(leader.tasks().await.is_empty());
}

#[tokio::test]
async fn every_task_is_listed_over_any_number_of_pages() {
    let leader = Leader::start().await;
    for count in [999, 1_000, 1_001] {
        let pods: Vec<Value> = (0..count).map(|number| pod(&format!("web-{number}"), "nginx", "a")).collect();
        leader.apply(json!(pods)).await;
        assert_eq!(leader.tasks().await.len(), count);
    }
}

#[tokio::test]
async fn no_classic_route_answers_without_the_clusters_credential() {
    let leader = Leader::start().await;
    leader.run(TASK).await;
    let id = format!("/tasks/{ID}");
    for (method, path) in
        [(Method::GET, "/tasks"), (Method::GET, &id), (Method::DELETE, &id), (Method::GET, "/workers"), (Method::GET, "/metrics")]
    {
        for credential in [None, Some("wrong")] {
            refused(leader.send(method.clone(), path, credential, untouched()).await, ErrorCode::Unauthenticated).await;
        }
    }
    refused(leader.send(Method::POST, "/tasks", None, untouched()).await, ErrorCode::Unauthenticated).await;
    assert_eq!(leader.tasks().await.len(), 1);
    assert_eq!(leader.send(Method::GET, "/tasks", Some(TOKEN), Body::empty()).await.status(), StatusCode::OK, "curl with the token");
}
