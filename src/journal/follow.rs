//! Follows a log behind its checkpoints, for whoever knows an older one and wants the newer proved.
//!
//! In scope: consistency proofs (RFC 9162 section 2.1.4) from the lines on the disk, each read once as long as the older size is the one that
//! was proved last. Out of scope: who knows which size (`witness`). Only covered lines are read, and what they give must be the signed root.

use std::path::PathBuf;
use std::sync::Arc;

use claviger_audit::merkle::{Frontier, Growth, Hash, leaf_hash};

use super::checkpoint::Covered;
use super::disk::Disk;
use super::lines::{Passed, Spot, Unread, pass};

/// Why there is no proof.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum FollowError {
    /// A segment could not be read, or is gone. Try again later.
    #[error("the log could not be read: {0}")]
    Read(String),
    /// The lines are not those that the checkpoint covers.
    #[error("the log on the disk is not the one that its checkpoint covers: {0}; run `claviger audit verify`")]
    Differs(String),
}

impl From<Unread> for FollowError {
    fn from(unread: Unread) -> Self {
        match unread {
            Unread::Read(error) => Self::Read(error.to_string()),
            Unread::Differs(text) => Self::Differs(text),
        }
    }
}

/// A reader of one log. It remembers one older size, and how the log has grown since.
pub struct Follower {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    /// Places that are known without reading the log from its beginning.
    known: Vec<Covered>,
    /// The place of the older size.
    old: Covered,
    growth: Growth,
    spot: Spot,
}

impl Follower {
    /// Stands before the first record. `known` are places that may save reading from there; a wrong one is found out and forgotten.
    pub(super) fn new(disk: Arc<dyn Disk>, folder: PathBuf, known: Vec<Covered>) -> Self {
        let old = beginning();
        Self { disk, folder, known, growth: Growth::new(Frontier::new()), spot: Spot::default(), old }
    }

    /// Proves that the log of `old` records is the beginning of the one of `size` records and this root, both covered by a checkpoint.
    /// What was not passed yet is read; an older size than was ever passed is looked for from the log's beginning on. Nothing is read where
    /// there is nothing to prove: an empty log begins every log, and each log begins with itself.
    pub fn prove(&mut self, old: u64, size: u64, root: Hash) -> Result<Vec<Hash>, FollowError> {
        if old == 0 || old == size { Ok(Vec::new()) } else { self.surely(|follower| follower.try_prove(old, size, root)) }
    }

    /// Makes `size` the older size from now on. Gives its place, for [`super::Checkpointer::store_witnessed`].
    pub fn settle(&mut self, size: u64, root: Hash) -> Result<Covered, FollowError> {
        self.surely(|follower| {
            if follower.growth.size() == size {
                follower.old = follower.here();
                follower.growth = Growth::new(follower.old.frontier.clone());
            } else {
                follower.stand_at(size)?;
            }
            differs_unless(follower.old.frontier.root(), size, root)?;
            Ok(follower.old.clone())
        })
    }

    /// A remembered place may be damaged: then the log itself decides.
    fn surely<T>(&mut self, attempt: impl Fn(&mut Self) -> Result<T, FollowError>) -> Result<T, FollowError> {
        match attempt(self) {
            Err(FollowError::Differs(_)) => {
                *self = Self::new(Arc::clone(&self.disk), self.folder.clone(), Vec::new());
                attempt(self)
            }
            done => done,
        }
    }

    fn try_prove(&mut self, old: u64, size: u64, root: Hash) -> Result<Vec<Hash>, FollowError> {
        if self.growth.old_size() != old || self.growth.size() > size {
            self.stand_at(old)?;
        }
        let growth = &mut self.growth;
        let mut seq = growth.size();
        pass((self.disk.as_ref(), &self.folder), &mut self.spot, &mut seq, size, &mut |passed| {
            if let Passed::Line { line, .. } = passed {
                growth.push(leaf_hash(line));
            }
        })?;
        differs_unless(growth.frontier().root(), size, root)?;
        Ok(growth.proof())
    }

    /// Makes `size` the older size, from the nearest known place before it.
    fn stand_at(&mut self, size: u64) -> Result<(), FollowError> {
        let mut places = std::mem::take(&mut self.known);
        places.extend([self.old.clone(), self.here()]);
        let nearest = places.iter().filter(|place| place.frontier.size() <= size).max_by_key(|place| place.frontier.size());
        let mut at = nearest.cloned().unwrap_or_else(beginning);
        self.known = places;
        // As many as were given at first, and the two that moved: an endless row of sizes must not fill the memory.
        self.known.truncate(MOST_KNOWN);
        let (mut spot, mut seq) = (Spot { segment: at.segment, offset: at.offset }, at.frontier.size());
        let frontier = &mut at.frontier;
        pass((self.disk.as_ref(), &self.folder), &mut spot, &mut seq, size, &mut |passed| {
            if let Passed::Line { line, .. } = passed {
                frontier.push(leaf_hash(line));
            }
        })?;
        (at.segment, at.offset) = (spot.segment, spot.offset);
        self.growth = Growth::new(at.frontier.clone());
        (self.old, self.spot) = (at, spot);
        Ok(())
    }

    fn here(&self) -> Covered {
        Covered { frontier: self.growth.frontier(), segment: self.spot.segment, offset: self.spot.offset }
    }
}

fn differs_unless(found: Hash, size: u64, root: Hash) -> Result<(), FollowError> {
    if found == root { Ok(()) } else { Err(FollowError::Differs(format!("its root at size {size} is {found}, not {root}"))) }
}

/// Places that are kept: two of the `frontier` file, one of the witnessed checkpoint, and some that were passed.
const MOST_KNOWN: usize = 8;

fn beginning() -> Covered {
    Covered { frontier: Frontier::new(), segment: 0, offset: 0 }
}
