//! Images that the node pulled: what it may remove again.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use rusqlite::params;

use super::{Keeper, Ledger, LedgerError, column};

/// An image that this node pulled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnImage {
    /// What it was pulled as.
    pub names: BTreeSet<String>,
    /// When it was last used, as far as that was noted.
    pub used_at: Timestamp,
}

impl Ledger {
    /// Writes that this node pulled an image.
    pub async fn image_pulled(&self, id: &str, name: &str, at: Timestamp) -> Result<(), LedgerError> {
        let (id, name) = (id.to_owned(), name.to_owned());
        self.write_for_next_start("note an image", move |tx| {
            tx.prepare_cached(
                "INSERT INTO images (id, name, used_at) VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET used_at = excluded.used_at",
            )?
            .execute(params![id, name, at.to_string()])
            .map(drop)
        })
        .await
    }

    /// Writes when images were last used, and forgets those that are gone.
    pub async fn images_seen(&self, used: BTreeMap<String, Timestamp>, gone: Vec<String>) -> Result<(), LedgerError> {
        self.write_for_next_start("note the use of images", move |tx| {
            for (id, at) in &used {
                tx.prepare_cached("UPDATE images SET used_at = ?2 WHERE id = ?1")?.execute(params![id, at.to_string()])?;
            }
            for id in &gone {
                tx.prepare_cached("DELETE FROM images WHERE id = ?1")?.execute([id])?;
            }
            Ok(())
        })
        .await
    }

    /// The images that this node pulled, by their content ids. A node without a file has pulled none.
    pub async fn own_images(&self) -> Result<BTreeMap<String, OwnImage>, LedgerError> {
        if let Keeper::Memory(_) = &self.keeper {
            return Ok(BTreeMap::new());
        }
        self.write("read its images", |tx| {
            let mut images = BTreeMap::<String, OwnImage>::new();
            let mut rows = tx.prepare_cached("SELECT id, name, used_at FROM images")?;
            let mut rows = rows.query([])?;
            while let Some(row) = rows.next()? {
                let used_at: Timestamp = column(row, 2, |text| text.parse())?;
                let image = images.entry(row.get(0)?).or_insert_with(|| OwnImage { names: BTreeSet::new(), used_at });
                image.names.insert(row.get(1)?);
                image.used_at = image.used_at.max(used_at);
            }
            Ok(images)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ambient::Ambient;
    use crate::tasks::Tasks;

    #[tokio::test]
    async fn what_a_node_pulled_is_known_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("follower.db");
        let at = |second| Timestamp::from_second(second).unwrap();
        let (ledger, _) = Ledger::open(&path, &Ambient::system(), &Tasks::default()).await.unwrap();
        ledger.image_pulled("sha256:a", "r/app:1", at(1)).await.unwrap();
        ledger.image_pulled("sha256:a", "r/app:2", at(2)).await.unwrap();
        ledger.image_pulled("sha256:b", "r/old:1", at(1)).await.unwrap();
        ledger
            .images_seen(
                BTreeMap::from([("sha256:a".to_owned(), at(9)), ("sha256:foreign".to_owned(), at(9))]),
                vec!["sha256:b".to_owned()],
            )
            .await
            .unwrap();
        let (ledger, _) = Ledger::open(&path, &Ambient::system(), &Tasks::default()).await.unwrap();
        let names = ["r/app:1", "r/app:2"].map(str::to_owned).into();
        assert_eq!(ledger.own_images().await.unwrap(), BTreeMap::from([("sha256:a".to_owned(), OwnImage { names, used_at: at(9) })]));
    }
}
