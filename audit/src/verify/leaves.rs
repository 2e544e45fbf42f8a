//! The leaf hashes of a log: the one place that knows where they are kept.
//!
//! In scope: every leaf in order, streaming, and what the first record says. Out of scope: whether they are the log's; a signed root that
//! they lead to says that.

use std::io;
use std::ops::ControlFlow;

use crate::event::{Event, LogCreated};
use crate::line::{LineError, LineErrorKind, Lines};
use crate::merkle::{Hash, ProofError, ProofMaker, leaf_hash};
use crate::record::Record;

use super::LogFiles;

/// One leaf.
#[derive(Clone, Copy, Debug)]
pub struct Leaf<'a> {
    /// Its index; also the sequence number of the record.
    pub seq: u64,
    /// Its hash.
    pub hash: Hash,
    /// The line without its LF, if it is still there.
    pub line: Option<&'a [u8]>,
}

/// Calls `visit` with each leaf until it breaks off. Reading ends at the first line that is none, as an unclean stop leaves it past
/// everything durable; what is wrong with it is given back.
///
/// # Errors
///
/// A file could not be read.
pub fn each_leaf(files: &LogFiles<'_>, visit: &mut dyn FnMut(Leaf<'_>) -> ControlFlow<()>) -> io::Result<Option<String>> {
    let mut seq = 0;
    for segment in &files.segments {
        let mut lines = Lines::new((segment.open)()?);
        while let Some(line) = lines.next() {
            match line {
                Ok(line) => {
                    if visit(Leaf { seq, hash: leaf_hash(line.bytes), line: Some(line.bytes) }).is_break() {
                        return Ok(None);
                    }
                    seq += 1;
                }
                Err(LineError { kind: LineErrorKind::Io(error), .. }) => return Err(error),
                Err(error) => return Ok(Some(format!("{} {error}", segment.name))),
            }
        }
    }
    Ok(None)
}

/// What the first record says the log is; `None` if it does not say so.
///
/// # Errors
///
/// A file could not be read.
pub fn created(files: &LogFiles<'_>) -> io::Result<Option<LogCreated>> {
    let mut created = None;
    each_leaf(files, &mut |leaf| {
        if let Some(Ok(Record { event: Event::LogCreated(event), .. })) = leaf.line.map(Record::parse) {
            created = Some(event);
        }
        ControlFlow::Break(())
    })?;
    Ok(created)
}

/// The hashes of a proof over this log.
///
/// # Errors
///
/// A file could not be read; within, the log has fewer leaves than the proof needs.
pub fn prove(files: &LogFiles<'_>, mut maker: ProofMaker) -> io::Result<Result<Vec<Hash>, ProofError>> {
    each_leaf(files, &mut |leaf| {
        if maker.is_complete() {
            return ControlFlow::Break(());
        }
        maker.push(leaf.hash);
        ControlFlow::Continue(())
    })?;
    Ok(maker.finish())
}
