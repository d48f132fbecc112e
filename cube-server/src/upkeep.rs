//! What is done to a server's database from outside: the commands `backup` and `restore`, and the remedies that a server names when it refuses its
//! own. It brings the words for people; the work is the store's.

use std::path::Path;

use anyhow::{Context, anyhow};
use serde_json::json;

use crate::ambient::Ambient;
use crate::data_dir::{self, DataDir, DataDirError};
use crate::follower::agent::StartError;
use crate::follower::ledger::LedgerError;
use crate::leader::store::backup::{self, BackupError, Contents};
use crate::leader::store::restore::{self, Restored};
use crate::leader::store::{FILE, StoreError};
use crate::options::{BackupOptions, RestoreOptions};
use crate::sqlite::{OpenError, Refusal};

/// Copies a leader's database into a file and says what it holds.
pub fn back_up(options: &BackupOptions) -> anyhow::Result<()> {
    let folder = options.data_dir.clone().unwrap_or_else(data_dir::default_path);
    let taken = backup::take(&folder.join(FILE), &options.output, options.force);
    let contents = taken
        .map_err(|error| with_backups_remedy(error, "give the data folder of a leader with --data-dir"))
        .context("no backup was taken")?;
    let file = options.output.display();
    if options.json {
        let Contents { cluster_id, epoch, revision, pods, nodes, bytes } = contents;
        let (file, epoch) = (file.to_string(), epoch.0);
        let object = json!({"file": file, "clusterId": cluster_id, "epoch": epoch, "revision": revision, "pods": pods, "nodes": nodes,
            "bytes": bytes});
        println!("{object}");
    } else {
        println!("{file}: {}", sentence(&contents));
    }
    Ok(())
}

/// Replaces a leader's database by a backup and says what has to be known then.
pub fn restore(options: &RestoreOptions, ambient: &Ambient) -> anyhow::Result<()> {
    const FAILED: &str = "nothing was restored";
    let folder = options.data_dir.clone().unwrap_or_else(data_dir::default_path);
    // Before the folder is made: a file that is no backup changes nothing.
    let backup =
        backup::check(&options.from).map_err(|error| with_backups_remedy(error, "give a backup's file with --from")).context(FAILED)?;
    let data_dir = DataDir::open(&folder).map_err(|error| match error {
        DataDirError::Locked { path, pid } => {
            let who = pid.map(|pid| format!(" (process {pid})")).unwrap_or_default();
            anyhow!("{FAILED}: a cube-server{who} uses the data folder {}; stop it first", path.display())
        }
        other => anyhow!(other).context(FAILED),
    })?;
    let restored = restore::restore(&options.from, backup, &data_dir.path().join(FILE), ambient.now()).context("the restore failed")?;
    report(&options.from, &data_dir, &restored);
    Ok(())
}

fn report(from: &Path, data_dir: &DataDir, restored: &Restored) {
    let Restored { backup, now, replaced } = restored;
    println!("restored {}: {}", from.display(), sentence(backup));
    println!("revisions go on from {}, the leader's lives from {}: none is used twice", now.revision, now.epoch.0);
    if let Some(replaced) = replaced {
        println!("the database that was there is kept as {}", replaced.display());
    }
    let token = data_dir.token_path();
    if token.exists() {
        println!("a backup holds no token: the leader will take the one in {}", token.display());
    } else {
        println!("a backup holds no token: put the cluster's into {} before the leader starts, else nobody can join it", token.display());
    }
    println!("started, the leader places pods only when its nodes have said what they run; `cube get pod/NAME` says what one waits for");
}

fn sentence(contents: &Contents) -> String {
    let count = |number: u64, one: &str| if number == 1 { format!("1 {one}") } else { format!("{number} {one}s") };
    let Contents { cluster_id, epoch: _, revision, pods, nodes, bytes } = contents;
    let (pods, nodes) = (count(*pods, "pod"), count(*nodes, "node"));
    format!("cluster {cluster_id} at revision {revision} with {pods} and {nodes}, {bytes} bytes")
}

/// `source` says how the database that is read is given.
fn with_backups_remedy(error: BackupError, source: &str) -> anyhow::Error {
    let remedy = match &error {
        BackupError::Missing { .. } | BackupError::NoCluster { .. } => source,
        BackupError::Exists { .. } => "give another --output, or --force to replace it",
        BackupError::Open(OpenError::Newer { .. }) => "use the cube-server that wrote it, or a newer one",
        BackupError::Open(OpenError::Damaged { .. }) | BackupError::Unsound { .. } => "only a sound database is taken or brought back",
        BackupError::Open(OpenError::Open { .. } | OpenError::Pragma { .. } | OpenError::Migrate { .. })
        | BackupError::Sqlite { .. }
        | BackupError::File { .. } => return error.into(),
    };
    anyhow!("{}; {remedy}", cube_api::error::chain(&error))
}

/// A leader that doesn't start for its database's sake says what helps. `backups` is where it puts its backups, if it does.
pub fn with_leaders_remedy(error: anyhow::Error, data_dir: &Path, backups: Option<&Path>) -> anyhow::Error {
    let refusal = error.chain().find_map(|cause| cause.downcast_ref::<StoreError>()).and_then(StoreError::refusal);
    let restore = || {
        let newest = backups.and_then(|folder| backup::scheduled(folder, None).ok()).and_then(|found| found.last().cloned());
        let file = newest.map_or("FILE".to_owned(), |newest| newest.path.display().to_string());
        format!("cube-server restore --data-dir {} --from {file}", data_dir.display())
    };
    match refusal {
        None => error,
        Some(Refusal::Damaged) => anyhow!("{error:#}; restore a backup: {}", restore()),
        Some(Refusal::Newer) => {
            anyhow!("{error:#}; run the newer cube-server that wrote it, or restore a backup that this version made: {}", restore())
        }
    }
}

/// A node that doesn't start for its ledger's sake says what helps.
pub fn with_followers_remedy(error: anyhow::Error, data_dir: &Path) -> anyhow::Error {
    // A start's error shows itself as the ledger's.
    let refusal = error.chain().find_map(|cause| match cause.downcast_ref::<StartError>() {
        Some(StartError::Ledger(error)) => error.refusal(),
        Some(StartError::Renamed { .. }) => None,
        None => cause.downcast_ref::<LedgerError>().and_then(LedgerError::refusal),
    });
    let anew = || format!("move {}/follower.db* away: it is made anew from what Docker and the leader say", data_dir.display());
    match refusal {
        None => error,
        Some(Refusal::Damaged) => anyhow!("{error:#}; {}", anew()),
        Some(Refusal::Newer) => anyhow!("{error:#}; run the newer cube-server that wrote it, or {}", anew()),
    }
}
