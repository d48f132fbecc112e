//! Tasks and workers as rows: the classic task interface.

use cube_api::classic::{HostBinding, Task, Worker, short_ids};
use cube_api::pod::Pod;
use jiff::{SignedDuration, Timestamp};

use super::pod::tone;
use super::table::{Cell, Table};

/// A table of pods as tasks.
pub fn table(pods: &[Pod], now: Timestamp) -> Table {
    let mut table = Table::new(vec!["ID", "NAME", "CREATED", "STATE", "CONTAINERNAME", "IMAGE", "PORTS"]);
    let tasks: Vec<Task> = pods.iter().map(Task::of).collect();
    let ids: Vec<String> = tasks.iter().map(|task| task.id.clone()).collect();
    for ((pod, task), id) in pods.iter().zip(&tasks).zip(short_ids(&ids)) {
        let containers: Vec<&str> = pod.spec.containers.iter().map(|container| container.name.as_str()).collect();
        table.row(vec![
            id.into(),
            task.name.as_str().into(),
            format!("{} ago", duration(now.duration_since(task.created_at))).into(),
            Cell::toned(task.state.as_str(), tone(pod)),
            containers.join(",").into(),
            task.image.as_str().into(),
            ports(task).into(),
        ]);
    }
    table
}

/// As `docker ps` shows them: `0.0.0.0:8080->80/tcp`.
fn ports(task: &Task) -> String {
    let shown = task.host_ports.iter().flat_map(|(port, bindings)| {
        bindings.iter().map(move |HostBinding { host_ip, host_port }| format!("{host_ip}:{host_port}->{port}"))
    });
    shown.collect::<Vec<_>>().join(",")
}

/// How long something took, as Docker says it: one unit, rounded as people do.
fn duration(time: SignedDuration) -> String {
    let seconds = time.as_secs().max(0);
    let minutes = seconds / 60;
    // To the nearest.
    let hours = (seconds + 1_800) / 3_600;
    match (seconds, minutes, hours) {
        (0, _, _) => "Less than a second".to_owned(),
        (1, _, _) => "1 second".to_owned(),
        (..60, _, _) => format!("{seconds} seconds"),
        (_, 1, _) => "About a minute".to_owned(),
        (_, ..60, _) => format!("{minutes} minutes"),
        (_, _, 1) => "About an hour".to_owned(),
        (_, _, ..48) => format!("{hours} hours"),
        (_, _, ..336) => format!("{} days", hours / 24),
        (_, _, ..1_440) => format!("{} weeks", hours / 24 / 7),
        (_, _, ..17_520) => format!("{} months", hours / 24 / 30),
        (_, _, _) => format!("{} years", hours / 24 / 365),
    }
}

/// A table of workers.
pub fn workers(workers: &[Worker]) -> Table {
    let mut table = Table::new(vec!["NAME", "MEMORY (MiB)", "DISK (GiB)", "ROLE", "TASKS"]);
    for worker in workers {
        table.row(vec![
            worker.name.as_str().into(),
            (worker.memory >> 20).to_string().into(),
            (worker.disk >> 30).to_string().into(),
            worker.role.as_str().into(),
            worker.task_count.to_string().into(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_dockers() {
        const HOUR: i64 = 3_600;
        for (seconds, shown) in [
            (-3, "Less than a second"),
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (119, "About a minute"),
            (120, "2 minutes"),
            (3_599, "59 minutes"),
            (HOUR, "About an hour"),
            (HOUR + 1_799, "About an hour"),
            (HOUR + 1_800, "2 hours"),
            (47 * HOUR, "47 hours"),
            (48 * HOUR, "2 days"),
            (13 * 24 * HOUR, "13 days"),
            (14 * 24 * HOUR, "2 weeks"),
            (59 * 24 * HOUR, "8 weeks"),
            (60 * 24 * HOUR, "2 months"),
            (729 * 24 * HOUR, "24 months"),
            (730 * 24 * HOUR, "2 years"),
        ] {
            assert_eq!(duration(SignedDuration::from_secs(seconds)), shown, "{seconds} s");
        }
    }
}
