//! Backups and what becomes of a cluster that is restored from one.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use cube_api::ErrorCode;
use cube_api::meta::Revision;
use cube_api::routes::DeleteQuery;
use cube_api::session::{AssignedPod, HeldPod, Want};
use jiff::Timestamp;

use super::super::backup::{self, BackupError, check, take};
use super::super::restore::{self, Restored};
use super::super::{FILE, sqlite};
use super::*;

/// The files of a folder, but the room that a leader keeps for the day on which its disk is full.
fn names(folder: &Path) -> Vec<String> {
    let files = fs::read_dir(folder).expect("a folder").map(|file| file.expect("a file").file_name().into_string().expect("a name"));
    let mut names: Vec<_> = files.filter(|name| name != "leader.reserve").collect();
    names.sort();
    names
}

impl Leader {
    fn database(&self) -> PathBuf {
        self.folder.path().join(FILE)
    }

    /// Stops it, and lets go of its folder.
    async fn stop(self) -> TempDir {
        let Self { folder, tasks, store } = self;
        drop(store);
        assert!(tasks.shut_down(Duration::from_secs(10)).await, "the writer ends when it is told to");
        folder
    }

    /// Stops it, replaces its database by a backup, and starts it on that.
    async fn restore(self, from: &Path, now: Timestamp) -> (Self, Restored) {
        let folder = self.stop().await;
        let backup = check(from).expect("a sound backup");
        let restored = restore::restore(from, backup, &folder.path().join(FILE), now).expect("a restore");
        (Self::start_in(folder, Ambient::system()).await, restored)
    }
}

#[tokio::test]
async fn a_backup_beside_a_stream_of_writes_has_all_that_was_acknowledged_before_it_began() {
    let leader = Leader::start().await;
    let (folder, mut acknowledged) = (tempfile::tempdir().expect("a folder"), 0);
    let store = leader.store.clone();
    let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
    let (tell, count) = tokio::sync::watch::channel(0_u64);
    let writes = tokio::spawn(async move {
        let mut number = 0;
        while stopped.try_recv().is_err() {
            number += 1;
            store.apply(vec![pod(&format!("pod-{number}"), "nginx", "a")], false).await.expect("an apply");
            tell.send_replace(number);
        }
    });
    for round in 0..5 {
        count.clone().wait_for(|number| *number > acknowledged).await.expect("writes");
        acknowledged = *count.borrow();
        let revision = leader.store.read(|state| state.revision);
        let (from, to) = (leader.database(), folder.path().join(format!("{round}.db")));
        let taken = crate::blocking::run(move || take(&from, &to, false)).await.expect("a backup");
        assert!(taken.pods >= acknowledged && taken.revision >= revision, "{taken:?} after {acknowledged} pods and revision {revision}");
        assert_eq!(taken.cluster_id, leader.store.cluster_id());
    }
    stop.send(()).expect("the writer goes on until it is told");
    writes.await.expect("no write failed");
    let last = leader.store.read(|state| state.revision);
    let backup = check(&folder.path().join("4.db")).expect("a sound backup");
    let (leader, _) = leader.restore(&folder.path().join("4.db"), Timestamp::now()).await;
    for number in 1..=acknowledged {
        assert!(leader.store.pod(&name(&format!("pod-{number}"))).is_some(), "pod-{number} was acknowledged before the backup began");
    }
    assert!(leader.store.read(|state| state.revision) > last.max(backup.revision), "a revision is used twice");
    assert_eq!(names(folder.path()), ["0.db", "1.db", "2.db", "3.db", "4.db"]);
}

#[tokio::test]
async fn a_backup_is_one_file_for_its_owner_and_replaces_another_only_if_it_is_told_to() {
    let leader = Leader::start().await;
    leader.apply(pod("web", "nginx", "a")).await;
    let (database, cluster_id) = (leader.database(), leader.store.cluster_id());
    let folder = leader.stop().await;
    let before = fs::read(&database).expect("the database");
    let to = folder.path().join("backup.db");
    fs::write(&to, "something else").expect("a file");
    assert!(matches!(take(&database, &to, false), Err(BackupError::Exists { .. })));
    assert_eq!(fs::read_to_string(&to).expect("the file"), "something else");
    let taken = take(&database, &to, true).expect("a backup");
    assert_eq!((taken.cluster_id, taken.pods, taken.nodes), (cluster_id, 1, 0));
    assert_eq!(taken.bytes, fs::metadata(&to).expect("the backup").len());
    assert_eq!(fs::metadata(&to).expect("the backup").permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read(&database).expect("the database"), before);
    assert_eq!(names(folder.path()), ["backup.db", FILE]);
}

#[tokio::test]
async fn a_backup_that_fails_leaves_nothing_behind() {
    let folder = tempfile::tempdir().expect("a folder");
    let (database, to) = (folder.path().join(FILE), folder.path().join("backup.db"));
    assert!(matches!(take(&database, &to, false), Err(BackupError::Missing { .. })));
    fs::write(&database, "no database at all".repeat(100)).expect("a file");
    assert!(matches!(take(&database, &to, false), Err(BackupError::Open(sqlite::OpenError::Damaged { .. }))));
    assert_eq!(names(folder.path()), [FILE]);
    let leader = Leader::start().await;
    let elsewhere = folder.path().join("missing/backup.db");
    assert!(matches!(take(&leader.database(), &elsewhere, false), Err(BackupError::File { .. })));
    assert_eq!(names(folder.path()), [FILE]);
}

#[tokio::test]
async fn a_backup_with_damaged_pages_is_not_taken_and_not_brought_back() {
    let leader = Leader::start().await;
    for number in 0..50 {
        leader.apply(pod(&format!("pod-{number}"), "nginx", "a")).await;
    }
    let database = leader.database();
    let folder = leader.stop().await;
    let backup = folder.path().join("backup.db");
    take(&database, &backup, false).expect("a backup");
    for file in [&database, &backup] {
        let mut bytes = fs::read(file).expect("the file");
        let middle = bytes.len() / 2 / 4096 * 4096;
        bytes[middle..middle + 4096].fill(0xA5);
        fs::write(file, bytes).expect("written");
    }
    let error = take(&database, &folder.path().join("second.db"), false).expect_err("a damaged source");
    assert!(matches!(&error, BackupError::Unsound { problem, .. } if problem.contains("page")), "{error}");
    assert!(matches!(check(&backup), Err(BackupError::Unsound { .. })));
    assert_eq!(names(folder.path()), ["backup.db", FILE]);
}

#[tokio::test]
async fn a_restore_goes_back_in_what_there_is_and_forward_in_epoch_and_revision() {
    let leader = Leader::start().await;
    leader.apply(pod("early", "nginx", "a")).await;
    let elsewhere = tempfile::tempdir().expect("a folder");
    let backup = elsewhere.path().join("backup.db");
    take(&leader.database(), &backup, false).expect("a backup");
    leader.apply(pod("late", "nginx", "a")).await;
    let (cluster_id, epoch, seen) = (leader.store.cluster_id(), leader.store.epoch(), leader.store.read(|state| state.revision));
    // A clock that was lost: the counters alone have to do.
    let (leader, restored) = leader.restore(&backup, Timestamp::UNIX_EPOCH).await;
    assert!(leader.store.pod(&name("early")).is_some() && leader.store.pod(&name("late")).is_none());
    assert_eq!(leader.store.cluster_id(), cluster_id);
    assert!(leader.store.epoch().0 > epoch.0 + 1_000_000, "{:?}", leader.store.epoch());
    assert!(leader.store.read(|state| state.revision.0) >= seen.0 + 1_000_000_000);
    for from in [restored.backup.revision, seen, Revision(seen.0 + 5)] {
        let error = leader.store.watch(from).err().expect("a watch from before the restore");
        assert_eq!(error.code, ErrorCode::Expired, "from {from}: {}", error.message);
    }
    let replaced = restored.replaced.expect("there was one");
    assert_eq!(check(&replaced).expect("the database that was there").pods, 2);
    // Once more, from the same backup: beyond the first restore's numbers, too.
    let (epoch, seen) = (leader.store.epoch(), leader.store.read(|state| state.revision));
    let (leader, restored) = leader.restore(&backup, Timestamp::UNIX_EPOCH).await;
    assert!(leader.store.epoch() > epoch && leader.store.read(|state| state.revision) > seen);
    assert_ne!(restored.replaced.expect("there was one"), replaced, "the first one is kept, too");
    assert!(check(&replaced).is_ok());
}

#[tokio::test]
async fn a_backup_that_is_restored_twice_on_empty_disks_is_a_newer_life_each_time() {
    let leader = Leader::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let backup = folder.path().join("backup.db");
    take(&leader.database(), &backup, false).expect("a backup");
    let mut last = (leader.store.epoch(), leader.store.read(|state| state.revision));
    for second in [1_000, 1_001] {
        let disk = tempfile::tempdir().expect("an empty disk");
        let database = disk.path().join(FILE);
        let now = Timestamp::from_second(1_800_000_000 + second).expect("a time");
        let contents = check(&backup).expect("a backup");
        let restored = restore::restore(&backup, contents, &database, now).expect("a restore");
        assert_eq!(restored.replaced, None);
        assert!(restored.now.epoch > last.0 && restored.now.revision > last.1, "{restored:?} after {last:?}");
        last = (restored.now.epoch, restored.now.revision);
    }
}

#[tokio::test]
async fn a_killed_leaders_database_is_put_aside_with_its_wal() {
    let leader = Leader::start().await;
    let backup = leader.folder.path().join("backup.db");
    take(&leader.database(), &backup, false).expect("a backup");
    leader.apply(pod("web", "nginx", "a")).await;
    let killed = tempfile::tempdir().expect("a folder");
    let database = killed.path().join(FILE);
    for suffix in ["", sqlite::WAL, sqlite::SHM] {
        fs::copy(sqlite::beside(&leader.database(), suffix), sqlite::beside(&database, suffix)).expect("it is there while the leader runs");
    }
    let restored = restore::restore(&backup, check(&backup).expect("a backup"), &database, Timestamp::now()).expect("a restore");
    assert_eq!(check(&restored.replaced.expect("there was one")).expect("the database that was there").pods, 1);
    assert_eq!(check(&database).expect("the backup").pods, 0);
    let left: Vec<_> = names(killed.path()).into_iter().filter(|name| !name.contains("replaced")).collect();
    assert_eq!(left, [FILE]);
}

#[tokio::test]
async fn no_leader_starts_between_the_two_halves_of_a_restore_that_was_cut_off() {
    let leader = Leader::start().await;
    leader.apply(pod("web", "nginx", "a")).await;
    let database = leader.database();
    let folder = leader.stop().await;
    let backup = folder.path().join("backup.db");
    take(&database, &backup, false).expect("a backup");
    // Cut off: the old one is aside, the new one hasn't its name yet.
    fs::rename(&database, folder.path().join("leader.db.restoring")).expect("renamed");
    let tasks = Tasks::default();
    let error = Store::open(&database, Ambient::system(), &tasks).await.err().expect("an empty store would be another cluster");
    assert!(error.to_string().contains("cut off"), "{error}");
    assert!(!database.exists());
    restore::restore(&backup, check(&backup).expect("a backup"), &database, Timestamp::now()).expect("the restore again");
    let leader = Leader::start_in(folder, Ambient::system()).await;
    assert!(leader.store.pod(&name("web")).is_some());
}

#[tokio::test]
async fn a_pod_that_a_node_runs_is_its_own_again_at_the_join_and_not_told_to_stop() {
    let leader = Leader::start().await;
    leader.join("n1", 1).await;
    let uid = leader.apply(pod("web", "nginx", "a")).await.1.metadata.uid;
    let backup = leader.folder.path().join("backup.db");
    take(&leader.database(), &backup, false).expect("a backup");
    leader.store.place(vec![Placing::Bind { uid, node: name("n1"), reason: "it fits".to_owned() }]).await.expect("a placing");
    let later = leader.run_on("n1", portless(pod("later", "nginx", "a"))).await;
    let (leader, _) = leader.restore(&backup, Timestamp::now()).await;
    assert!(leader.store.pod(&name("web")).expect("it is in the backup").pod.placement.node.is_none());
    let fence = leader.store.read(|state| state.fence.clone()).expect("a restored leader waits");
    assert_eq!(fence.awaited, [name("n1")].into());
    // A restart in between ends nothing.
    let leader = leader.restart().await;
    assert_eq!(leader.store.read(|state| state.fence.clone()), Some(fence));
    let held = [(uid, "web"), (later, "later")].map(|(uid, pod)| HeldPod { uid, name: name(pod) });
    let announcement = Announcement { pods: held.to_vec(), ..announcement("n1", 1, "machine-1") };
    leader.store.join(announcement, false).await.expect("a node that may join");
    let assigned: Vec<_> = leader.store.assignment(&name("n1")).pods.into_iter().map(|pod| pod.uid).collect();
    assert_eq!(assigned, [uid], "the one is its own, the other is unknown");
    assert!(leader.store.read(|state| state.fence.clone()).expect("the fence stands until it is lifted").awaited.is_empty());
    assert!(leader.reasons("pod/web").await.contains(&"Adopted".to_owned()));
    let foreign = leader.events("node/n1").await.into_iter().find(|event| event.reason == "ForeignPods").expect("an event");
    assert!(foreign.message.contains(&format!("pod/later ({later})")), "{}", foreign.message);
    leader.store.lift_fence().await.expect("it is over");
    assert_eq!(leader.restart().await.store.read(|state| state.fence.clone()), None);
}

#[tokio::test]
async fn what_must_not_run_twice_and_was_deleted_after_the_backup_is_not_run_again_by_a_restore() {
    let leader = Leader::start().await;
    leader.join("n1", 1).await;
    let uid = leader.run_on("n1", never(pod("job", "busybox", "a"))).await;
    let backup = leader.folder.path().join("backup.db");
    take(&leader.database(), &backup, false).expect("a backup");
    leader.store.delete_pod(name("job"), DeleteQuery::default()).await.expect("a delete");
    let mut report = leader.report(1);
    report.pods.push(pod_report(uid, 1, Phase::Succeeded, true));
    leader.store.report(name("n1"), report, ()).await.expect("a report");
    let (leader, _) = leader.restore(&backup, Timestamp::now()).await;
    let announcement = Announcement { cluster_id: Some(leader.store.cluster_id()), ..announcement("n1", 1, "machine-1") };
    leader.store.join(announcement, false).await.expect("a node that may join");
    let runs = |pod: &AssignedPod<_>| matches!(pod.want, Want::Run { .. });
    assert!(!leader.store.assignment(&name("n1")).pods.iter().any(runs), "the backup doesn't know that it has run");
    let status = leader.store.pod(&name("job")).expect("a person decides about it").pod.status.clone();
    assert_eq!((status.phase, status.reason.as_deref()), (Phase::Failed, Some("NodeForgot")));
}

#[tokio::test]
async fn a_restart_after_a_restore_is_one_more_than_those_that_the_backup_does_not_know() {
    let leader = Leader::start().await;
    leader.join("n1", 1).await;
    let uid = leader.run_on("n1", pod("web", "nginx", "a")).await;
    let backup = leader.folder.path().join("backup.db");
    take(&leader.database(), &backup, false).expect("a backup");
    let (leader, _) = leader.restore(&backup, Timestamp::now()).await;
    let mut report = leader.report(1);
    report.pods.push(PodReport { restarts: Some(2), ..pod_report(uid, 1, Phase::Running, false) });
    leader.store.report(name("n1"), report, ()).await.expect("a report");
    leader.store.restart_pod(name("web")).await.expect("a restart");
    let wants: Vec<_> = leader.store.assignment(&name("n1")).pods.into_iter().map(|pod| pod.want).collect();
    assert_eq!(wants, [Want::Run { restarts: 3 }], "its node acts on a higher number only");
}

#[tokio::test]
async fn a_pod_of_one_node_is_not_another_ones_whatever_that_says() {
    let leader = Leader::start().await;
    leader.join("n1", 1).await;
    let uid = leader.run_on("n1", pod("web", "nginx", "a")).await;
    let held = vec![HeldPod { uid, name: name("web") }];
    let announcement = Announcement { pods: held, ..announcement("n2", 2, "machine-2") };
    leader.store.join(announcement, false).await.expect("a node that may join");
    assert_eq!(leader.store.pod(&name("web")).expect("a pod").pod.placement.node, Some(name("n1")));
    assert!(leader.reasons("node/n2").await.contains(&"ForeignPods".to_owned()));
}

#[tokio::test]
async fn backups_on_schedule_keep_the_newest_of_this_cluster_and_touch_nothing_else() {
    let (leader, other) = (Leader::start().await, Leader::start().await);
    let folder = tempfile::tempdir().expect("a folder").path().join("made/for/them");
    let at = |second: i64| Timestamp::from_second(1_800_000_000 + second).expect("a time");
    let take = |leader: &Leader, keep: usize, now: Timestamp| {
        backup::take_scheduled(&leader.database(), leader.store.cluster_id(), &folder, keep, now)
            .map(|(path, _)| path.file_name().expect("a name").to_owned().into_string().expect("text"))
    };
    let theirs = take(&other, 7, at(0)).expect("a backup");
    // What looks like one and isn't, by its name or by what is in it.
    let digits: String = leader.store.cluster_id().to_string().chars().take(8).collect();
    let look_alikes = [format!("cube-{digits}.db"), format!("cube-{digits}-20200101T000000Z-r1.db"), "notes.txt".to_owned()];
    for name in &look_alikes {
        fs::write(folder.join(name), "kept").expect("a file");
    }
    let mut taken = Vec::new();
    for second in 1..=4 {
        leader.apply(pod(&format!("pod-{second}"), "nginx", "a")).await;
        taken.push(take(&leader, 2, at(second)).expect("a backup"));
    }
    assert!(taken[3].starts_with(&format!("cube-{digits}-20270115T080004Z-r")), "{taken:?}");
    let kept: Vec<_> = look_alikes.iter().chain(&taken[2..]).chain([&theirs]).cloned().collect();
    let mut kept = kept;
    kept.sort();
    assert_eq!(names(&folder), kept);
    assert_eq!(leader.store.last_backup(folder.clone()).await.expect("a list"), Some(at(4)));
    assert_eq!(backup::scheduled(&folder, None).expect("a list").last().map(|newest| newest.taken_at), Some(at(4)));
    // A clock that was set back: the new one looks the oldest, and is kept.
    let newest = take(&leader, 2, at(-100)).expect("a backup");
    assert!(names(&folder).contains(&newest) && names(&folder).contains(&taken[3]) && !names(&folder).contains(&taken[2]));
}

#[tokio::test]
async fn copies_that_killed_leaders_left_are_removed_and_those_at_work_are_not() {
    let leader = Leader::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let cluster = leader.store.cluster_id();
    let theirs = [format!("cube-{cluster}.partial-1"), format!("cube-{}.partial-1", other_cluster())];
    for name in &theirs {
        fs::write(folder.path().join(name), "half").expect("a file");
    }
    let take = |now| backup::take_scheduled(&leader.database(), cluster, folder.path(), 7, now).expect("a backup");
    take(Timestamp::now());
    assert_eq!(names(folder.path()).iter().filter(|name| theirs.contains(name)).count(), 2, "another leader may be writing it");
    take(Timestamp::now() + jiff::SignedDuration::from_hours(2));
    let left: Vec<_> = names(folder.path()).into_iter().filter(|name| name.contains("partial")).collect();
    assert_eq!(left, [theirs[1].clone()], "another cluster's is not ours to judge");
}

#[tokio::test]
async fn a_backup_on_schedule_that_fails_deletes_none() {
    let leader = Leader::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let at = |second: i64| Timestamp::from_second(1_800_000_000 + second).expect("a time");
    let (database, cluster) = (leader.database(), leader.store.cluster_id());
    for second in 0..2 {
        backup::take_scheduled(&database, cluster, folder.path(), 7, at(second)).expect("a backup");
    }
    let before = names(folder.path());
    let missing = folder.path().join("missing.db");
    assert!(backup::take_scheduled(&missing, cluster, folder.path(), 1, at(2)).is_err());
    assert_eq!(names(folder.path()), before);
}

#[tokio::test]
async fn a_row_that_cannot_be_read_is_named_and_the_database_stays_as_it_is() {
    let leader = Leader::start().await;
    let uid = leader.apply(pod("web", "nginx", "a")).await.1.metadata.uid;
    let database = leader.database();
    let folder = leader.stop().await;
    let connection = rusqlite::Connection::open(&database).expect("a database");
    connection.execute("UPDATE pods SET spec = '{\"containers\": 7}'", []).expect("a change by hand");
    connection.close().expect("closed");
    let before = fs::read(&database).expect("the database");
    let error = Store::open(&database, Ambient::system(), &Tasks::default()).await.err().expect("a row that can't be read");
    let error = format!("{error:#}");
    assert!(error.contains(&format!("a pod that can't be read: {uid}")), "{error}");
    assert_eq!(fs::read(&database).expect("the database"), before);
    assert_eq!(names(folder.path()), [FILE]);
}
