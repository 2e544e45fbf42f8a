//! All lines of some logs, for the commands that only look.
//!
//! In scope: one line after the other, with the record that it is. Out of scope: verifying.

use std::io;

use crate::line::{LineError, LineErrorKind, Lines};
use crate::record::Record;
use crate::verify::{Input, Segment};

/// A line as it stands in a file.
pub(super) struct Read<'a> {
    pub(super) file: &'a str,
    pub(super) number: u64,
    /// The bytes and the record, or why there is none.
    pub(super) record: Result<(&'a [u8], Record), String>,
}

/// Calls `visit` with every line, former logs first, and of each time the key log first, until it says `false`.
pub(super) fn each(input: &Input<'_>, visit: &mut dyn FnMut(Read<'_>) -> io::Result<bool>) -> io::Result<()> {
    let former = input.former.iter().flat_map(|former| former.keys.iter().chain(&former.uses));
    let logs = former.chain(&input.keys).chain(&input.uses);
    for segment in logs.flat_map(|log| &log.segments) {
        if !each_of(segment, visit)? {
            return Ok(());
        }
    }
    Ok(())
}

fn each_of(segment: &Segment<'_>, visit: &mut dyn FnMut(Read<'_>) -> io::Result<bool>) -> io::Result<bool> {
    let mut lines = Lines::new((segment.open)()?);
    while let Some(line) = lines.next() {
        let (number, record) = match line {
            Ok(line) => (line.number, Record::parse(line.bytes).map(|record| (line.bytes, record)).map_err(|error| error.to_string())),
            Err(LineError { kind: LineErrorKind::Io(error), .. }) => return Err(error),
            Err(LineError { number, kind, .. }) => (number, Err(kind.to_string())),
        };
        if !visit(Read { file: &segment.name, number, record })? {
            return Ok(false);
        }
    }
    Ok(true)
}
