//! Which log goes on from which: the logs that `former` holds, and those that adopted them.
//!
//! In scope: reading how each log begins, putting the logs into eras (one key log, and the use logs that were written under it), and what an
//! adoption says about the log before. Out of scope: judging that log.

use std::io;

use crate::event::{Event, LogAdopted, LogCreated, LogKind};
use crate::line::Lines;
use crate::merkle::{Hash, leaf_hash};
use crate::record::Record;

use super::chain::begins_at;
use super::{Input, LogFiles};

/// A log, and how it begins.
pub(super) struct Begun<'i> {
    pub(super) files: &'i LogFiles<'i>,
    pub(super) kind: LogKind,
    /// Whether it lies among the former ones.
    pub(super) former: bool,
    pub(super) created: Option<LogCreated>,
    /// The log that it goes on from.
    pub(super) adopted: Option<LogAdopted>,
    /// The leaf hash of the record that says so.
    pub(super) adopted_leaf: Option<Hash>,
}

impl<'i> Begun<'i> {
    fn new(files: &'i LogFiles<'i>, kind: LogKind, former: bool) -> io::Result<Self> {
        let mut begun = Self { files, kind, former, created: None, adopted: None, adopted_leaf: None };
        // Where the segment with the first records was pruned, they have a file of their own.
        let own = files.pruned.genesis.as_ref().filter(|_| begins_at(files) > 0);
        let Some(segment) = own.or(files.segments.first()) else { return Ok(begun) };
        let mut lines = Lines::new((segment.open)()?);
        // Whatever is wrong with these lines is said when the log is read.
        for _ in 0..2 {
            let Some(Ok(line)) = lines.next() else { break };
            let leaf = leaf_hash(line.bytes);
            match Record::parse(line.bytes).map(|record| record.event) {
                Ok(Event::LogCreated(created)) => begun.created = Some(created),
                Ok(Event::LogAdopted(adopted)) => (begun.adopted, begun.adopted_leaf) = (Some(adopted), Some(leaf)),
                _ => break,
            }
        }
        Ok(begun)
    }

    pub(super) fn origin(&self) -> Option<&str> {
        self.created.as_ref().map(|created| created.origin.as_str())
    }
}

/// One key log, and the use logs that were written under it.
#[derive(Default)]
pub(super) struct Era<'i> {
    pub(super) keys: Option<Begun<'i>>,
    pub(super) uses: Vec<Begun<'i>>,
}

/// The eras, oldest first; the last one is now.
pub(super) fn eras<'i>(input: &'i Input<'i>, keys_only: bool) -> io::Result<Vec<Era<'i>>> {
    let mut eras = vec![Era::default()];
    let former = input.former.iter().map(|former| (former.keys.as_ref(), &former.uses, true));
    for (keys, uses, former) in former.chain([(input.keys.as_ref(), &input.uses, false)]) {
        let Some(era) = eras.last_mut() else { break };
        for files in uses.iter().filter(|_| !keys_only) {
            era.uses.push(Begun::new(files, LogKind::Uses, former)?);
        }
        if let Some(files) = keys {
            era.keys = Some(Begun::new(files, LogKind::Keys, former)?);
            // A use log that ended alone was written under the next key log that is found here.
            if former {
                eras.push(Era::default());
            }
        }
    }
    Ok(eras)
}

/// The log that goes on from the log `origin`, and what it says about it.
pub(super) fn adopter<'e>(eras: &'e [Era<'_>], kind: LogKind, origin: Option<&str>) -> Option<(&'e str, &'e LogAdopted)> {
    let mut logs = eras.iter().flat_map(|era| era.keys.iter().chain(&era.uses)).filter(|log| log.kind == kind);
    logs.find_map(|log| {
        let adopted = log.adopted.as_ref().filter(|adopted| Some(adopted.origin.as_str()) == origin)?;
        Some((log.origin()?, adopted))
    })
}
