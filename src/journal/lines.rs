//! Reading a log's durable lines in order, from a known place on.
//!
//! In scope: chunks, and the step from one segment to the next. Out of scope: what is done with a line, and how far one may read: never
//! beyond what was synced.

use std::io;
use std::path::Path;

use super::disk::Disk;
use super::file::segment_name;

/// How much of a segment is read at once: many lines, for none may be longer than 65,535 bytes.
pub(super) const CHUNK: usize = 1 << 20;

/// Where a line begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Spot {
    /// First sequence number of the segment.
    pub(super) segment: u64,
    /// Bytes before the line in it.
    pub(super) offset: u64,
}

/// What was passed on the way.
pub(super) enum Passed<'a> {
    /// A line, without its LF.
    Line { at: Spot, line: &'a [u8] },
    /// The last line of this segment was the one before.
    End { segment: u64 },
}

/// Why lines could not be read.
pub(super) enum Unread {
    Read(io::Error),
    Differs(String),
}

/// Passes the lines from record `seq`, which begins at `spot`, to record `until`, which is not read. Both arguments follow.
pub(super) fn pass(
    (disk, folder): (&dyn Disk, &Path),
    spot: &mut Spot,
    seq: &mut u64,
    until: u64,
    visit: &mut dyn FnMut(Passed<'_>),
) -> Result<(), Unread> {
    while *seq < until {
        let path = folder.join(segment_name(spot.segment));
        let chunk = disk.read(&path, spot.offset, CHUNK).map_err(Unread::Read)?;
        let lines = chunk.split_inclusive(|byte| *byte == b'\n').filter_map(|line| line.strip_suffix(b"\n"));
        let before = *seq;
        for line in lines.take(usize::try_from(until - before).unwrap_or(usize::MAX)) {
            visit(Passed::Line { at: *spot, line });
            spot.offset += line.len() as u64 + 1;
            *seq += 1;
        }
        if *seq > before {
            continue;
        }
        if !chunk.is_empty() || spot.segment == before {
            return Err(Unread::Differs(format!("{} holds no record {before}, which was synced", path.display())));
        }
        visit(Passed::End { segment: spot.segment });
        *spot = Spot { segment: before, offset: 0 };
    }
    Ok(())
}
