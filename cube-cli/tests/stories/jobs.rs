//! Jobs: run to completion, given up, suspended, deleted; cronjobs, triggered by hand.

use serde_json::{Value, json};

use crate::cluster::{BUSYBOX, Cluster, PATIENCE, wait_for};

/// A job of busybox pods that run a script.
fn job(name: &str, script: &str, more: &Value) -> Value {
    let mut job = json!({ "type": "job", "metadata": { "name": name }, "spec": { "template": { "spec": {
        "restartPolicy": "Never", "terminationGracePeriodSeconds": 1,
        "containers": [{ "name": "main", "image": BUSYBOX, "command": ["sh", "-c", script] }] } } } });
    for (key, value) in more.as_object().into_iter().flatten() {
        job["spec"][key] = value.clone();
    }
    job
}

impl Cluster {
    fn job(&self, name: &str) -> Result<Value, String> {
        let done = self.cube(&["get", &format!("job/{name}"), "-o", "json"]);
        if done.code == Some(0) { serde_json::from_str(&done.stdout).map_err(|error| error.to_string()) } else { Err(done.stderr) }
    }

    /// Waits until a job has ended so; the job.
    #[track_caller]
    fn wait_for_end(&self, name: &str, kind: &str) -> Value {
        wait_for(&format!("job/{name} to be {kind}"), PATIENCE, || {
            let job = self.job(name)?;
            let conditions = job["status"]["conditions"].as_array().cloned().unwrap_or_default();
            if conditions.iter().any(|condition| condition["type"] == kind) { Ok(job) } else { Err(job.to_string()) }
        })
    }

    fn pods_of(&self, job: &str) -> Vec<String> {
        let listed = self.cube(&["list", "pod", "-l", &format!("cube.io/job={job}"), "-o", "name"]).ok();
        listed.lines().map(str::to_owned).collect()
    }
}

#[test]
fn a_job_runs_its_pods_to_completion_and_its_delete_takes_them_along() {
    let cluster = Cluster::start(1);
    cluster.apply(json!([job("sum", "echo one of them", &json!({ "completions": 3, "parallelism": 2 }))]));
    let ended = cluster.wait_for_end("sum", "Complete");
    assert_eq!(
        (&ended["status"]["succeeded"], &ended["status"]["failed"], &ended["status"]["active"]),
        (&json!(3), &json!(0), &json!(0)),
        "{ended}"
    );
    let table = cluster.cube(&["list", "job"]).ok();
    let row: Vec<_> = table.lines().nth(1).unwrap_or_default().split_whitespace().map(str::to_owned).collect();
    assert_eq!(row[..3], ["sum", "Complete", "3/3"].map(str::to_owned), "{table}");
    let pods = cluster.pods_of("sum");
    assert_eq!(pods.len(), 3, "{pods:?}");
    let page = cluster.cube(&["get", "job/sum"]).ok();
    for part in ["CompletionsReached", "3 of 3 pods succeeded", "Completed", &pods[0]["pod/".len()..]] {
        assert!(page.contains(part), "{part} is missing in:\n{page}");
    }
    assert!(cluster.cube(&["logs", &pods[0]]).ok().contains("one of them"));
    let refused = cluster.cube(&["restart", &pods[0]]).fails_with(1);
    assert!(refused.contains("job/sum"), "a pod that is counted isn't run again: {refused}");

    let changed = cluster.manifest(json!([job("sum", "echo another", &json!({ "completions": 3, "parallelism": 2 }))]));
    let refused = cluster.cube(&["apply", &changed]).fails_with(1);
    assert!(refused.contains("spec.template") && refused.contains("cube delete job/sum"), "{refused}");

    cluster.cube(&["delete", "job/sum"]).ok();
    assert!(cluster.job("sum").is_err());
    assert_eq!((cluster.pods_of("sum"), cluster.all_containers()), (Vec::new(), Vec::new()));
}

#[test]
fn a_failing_job_stops_at_its_limit_and_says_why() {
    let cluster = Cluster::start(0);
    cluster.apply(json!([job("doomed", "echo no luck; exit 7", &json!({ "completions": 2, "backoffLimit": 0 }))]));
    let ended = cluster.wait_for_end("doomed", "Failed");
    assert_eq!(ended["status"]["failed"], json!(1), "{ended}");
    let page = cluster.cube(&["get", "job/doomed"]).ok();
    for part in ["BackoffLimitExceeded", "1 pod has failed", "backoffLimit 0"] {
        assert!(page.contains(part), "{part} is missing in:\n{page}");
    }
    assert!(cluster.cube(&["logs", &cluster.pods_of("doomed")[0]]).ok().contains("no luck"));
}

#[test]
fn a_deadline_stops_what_runs_and_a_time_to_live_takes_the_job_away() {
    let cluster = Cluster::start(0);
    let limits = json!({ "activeDeadlineSeconds": 2, "ttlSecondsAfterFinished": 3 });
    cluster.apply(json!([job("slow", "sleep 1000", &limits)]));
    let ended = cluster.wait_for_end("slow", "Failed");
    assert_eq!(ended["status"]["conditions"][0]["reason"], "DeadlineExceeded", "{ended}");
    wait_for("job, pods and containers to be gone", PATIENCE, || {
        let left = (cluster.job("slow").ok(), cluster.pods_of("slow"), cluster.all_containers());
        if left == (None, Vec::new(), Vec::new()) { Ok(()) } else { Err(format!("{left:?}")) }
    });
}

#[test]
fn a_suspended_job_stands_still_and_more_may_run_at_a_time_later() {
    let cluster = Cluster::start(0);
    let with = |more: Value| json!([job("tide", "sleep 1000", &more)]);
    cluster.apply(with(json!({ "completions": 5, "parallelism": 1, "suspend": true })));
    wait_for("the suspension", PATIENCE, || {
        let job = cluster.job("tide")?;
        if job["status"]["conditions"][0]["type"] == "Suspended" { Ok(()) } else { Err(job.to_string()) }
    });
    assert_eq!(cluster.pods_of("tide"), Vec::<String>::new());
    for (parallelism, suspend, pods) in [(1, false, 1), (3, false, 3), (2, false, 2), (2, true, 0)] {
        cluster.apply(with(json!({ "completions": 5, "parallelism": parallelism, "suspend": suspend })));
        wait_for(&format!("{pods} pods"), PATIENCE, || {
            let (job, now) = (cluster.job("tide")?, cluster.pods_of("tide"));
            if now.len() == pods && job["status"]["active"] == pods { Ok(()) } else { Err(format!("{job} {now:?}")) }
        });
    }
    assert_eq!(cluster.job("tide").expect("it is there")["status"]["failed"], json!(0), "none of that is a failure");
}

#[test]
fn a_cronjob_is_triggered_by_hand_and_takes_its_jobs_along() {
    let cluster = Cluster::start(0);
    let template = job("x", "echo tick", &json!({}))["spec"].clone();
    let cronjob = |schedule: &str| {
        json!([{ "type": "cronjob", "metadata": { "name": "tick" }, "spec": { "schedule": schedule, "timeZone": "Europe/Berlin",
            "jobTemplate": { "spec": template } } }])
    };
    let never = cluster.manifest(cronjob("0 0 31 2 *"));
    let refused = cluster.cube(&["apply", &never]).fails_with(1);
    assert!(refused.contains("spec.schedule") && refused.contains("never fires"), "{refused}");

    cluster.apply(cronjob("0 3 1 1 *"));
    let table = cluster.cube(&["list", "cronjob"]).ok();
    assert!(table.contains("0 3 1 1 *") && table.contains("Europe/Berlin"), "{table}");
    let told = cluster.cube(&["trigger", "cronjob/tick"]).ok();
    let name =
        told.trim().strip_prefix("job/").and_then(|told| told.strip_suffix(" created")).unwrap_or_else(|| panic!("{told}")).to_owned();
    cluster.wait_for_end(&name, "Complete");
    assert_eq!(cluster.cube(&["create", "job", "by-hand", "--from=cronjob/tick"]).ok().trim(), "job/by-hand created");
    let again = cluster.cube(&["create", "job", "by-hand", "--from=cronjob/tick"]).fails_with(1);
    assert!(again.contains("job/by-hand"), "{again}");
    cluster.wait_for_end("by-hand", "Complete");
    let page = cluster.cube(&["get", "cronjob/tick"]).ok();
    assert!(page.contains("by-hand") && page.contains("by hand"), "its jobs and its events:\n{page}");

    cluster.cube(&["delete", "cronjob/tick"]).ok();
    assert_eq!(cluster.cube(&["list", "job", "-o", "name"]).ok(), "");
    assert_eq!(cluster.all_containers(), Vec::<String>::new());
}
