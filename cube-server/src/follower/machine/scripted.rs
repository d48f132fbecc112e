//! A machine that works and fills as a test says.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use cube_api::node::LoadAverage;

use super::{Load, Machine};
use crate::disk::Space;

/// A machine of 4 cores and 8 GiB, which does nothing.
#[derive(Debug)]
pub struct Scripted {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    load: Load,
    /// Of 1,000 ticks between two looks, those in which the cores worked.
    busy: u64,
    disks: BTreeMap<PathBuf, Space>,
}

impl Scripted {
    /// With a file system of its own for each of these folders, and no other.
    pub fn with_disks(disks: &[(&Path, Space)]) -> Arc<Self> {
        let load = Load { cores: 4, memory: 8 << 30, available: 8 << 30, ..Load::default() };
        let disks = disks.iter().map(|(folder, space)| ((*folder).to_owned(), *space)).collect();
        Arc::new(Self { inner: Mutex::new(Inner { load, busy: 0, disks }) })
    }

    /// From now on the cores work in so many hundredths of the time, and so much memory is left.
    pub fn work(&self, percent: u64, available: u64) {
        let mut inner = self.inner();
        inner.busy = percent * 10;
        inner.load.available = available;
    }

    /// From now on a folder's file system is like this.
    pub fn fill(&self, folder: &Path, space: Space) {
        self.inner().disks.insert(folder.to_owned(), space);
    }

    /// From now on so many hundredths of a process run or wait to, on average.
    pub fn be_busy(&self, hundredths: [u32; 3]) {
        self.inner().load.average = LoadAverage { hundredths };
    }

    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().expect("nothing panics while it is held")
    }
}

impl Machine for Scripted {
    fn space(&self, folder: &Path) -> io::Result<Space> {
        self.inner().disks.get(folder).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn load(&self) -> io::Result<Load> {
        let mut inner = self.inner();
        inner.load.ticks += 1_000;
        inner.load.idle += 1_000 - inner.busy;
        Ok(inner.load)
    }
}
