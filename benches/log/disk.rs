//! The machine's own disk, with its syncs counted.
//!
//! In scope: how many times a log's file was synced. Out of scope: everything else goes through as it is.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use claviger::journal::disk::{Disk, LocalDisk, Tail};

/// Counts what its tails sync.
#[derive(Clone, Default)]
pub(crate) struct Counting {
    syncs: Arc<AtomicUsize>,
}

impl Counting {
    /// How many syncs there were so far.
    pub(crate) fn syncs(&self) -> usize {
        self.syncs.load(Ordering::Relaxed)
    }

    fn counted(&self, tail: io::Result<Box<dyn Tail>>) -> io::Result<Box<dyn Tail>> {
        tail.map(|tail| Box::new(CountingTail { tail, syncs: Arc::clone(&self.syncs) }) as Box<dyn Tail>)
    }
}

struct CountingTail {
    tail: Box<dyn Tail>,
    syncs: Arc<AtomicUsize>,
}

impl Tail for CountingTail {
    fn append(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.tail.append(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.syncs.fetch_add(1, Ordering::Relaxed);
        self.tail.sync()
    }

    fn size(&self) -> io::Result<u64> {
        self.tail.size()
    }

    fn truncate(&mut self, size: u64) -> io::Result<()> {
        self.tail.truncate(size)
    }

    fn is_at(&self, path: &Path) -> io::Result<bool> {
        self.tail.is_at(path)
    }
}

impl Disk for Counting {
    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        LocalDisk.list(folder)
    }

    fn read(&self, path: &Path, from: u64, at_most: usize) -> io::Result<Vec<u8>> {
        LocalDisk.read(path, from, at_most)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn Tail>> {
        self.counted(LocalDisk.create(path))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn Tail>> {
        self.counted(LocalDisk.open(path))
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        LocalDisk.link(from, to)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        LocalDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        LocalDisk.remove(path)
    }

    fn seal(&self, path: &Path) -> io::Result<()> {
        LocalDisk.seal(path)
    }

    fn make_folder(&self, folder: &Path) -> io::Result<()> {
        LocalDisk.make_folder(folder)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        LocalDisk.sync_folder(folder)
    }
}
