//! The lines of a log segment, one at a time, from a stream of any length in constant memory.
//!
//! In scope: where lines begin and end, what no line may hold, and what stands for `prev` in the first line of a log.
//! Out of scope: what a line says (`json` checks its form), and opening files.

use std::io::{self, BufRead, Read as _};

use crate::merkle::Hash;

/// The longest line in bytes, without its LF: the largest entry of C2SP tlog-tiles.
pub const MAX_LINE: usize = 65_535;

/// One good line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// Counted from 1 within the stream.
    pub number: u64,
    /// Where the line begins, in bytes from the start of the stream.
    pub offset: u64,
    /// The line without its LF: UTF-8, 1 to [`MAX_LINE`] bytes, without CR and NUL.
    pub bytes: &'a [u8],
    /// The same as text.
    pub text: &'a str,
}

/// A line that cannot be part of a log. Reading goes on at the line after it, unless the stream failed.
#[derive(Debug, thiserror::Error)]
#[error("line {number}, byte {offset}: {kind}")]
pub struct LineError {
    /// Counted from 1 within the stream.
    pub number: u64,
    /// Where the line begins, in bytes from the start of the stream.
    pub offset: u64,
    /// What is wrong.
    pub kind: LineErrorKind,
}

/// What is wrong with a line.
#[derive(Debug, thiserror::Error)]
pub enum LineErrorKind {
    /// The stream ends without LF. After the newest checkpoint that is a write that was cut short, not tampering.
    #[error("the file ends after {length} bytes of a line that has no line feed")]
    Partial {
        /// How many bytes there are.
        length: u64,
    },
    /// Nothing between two LF.
    #[error("the line is blank")]
    Blank,
    /// More than [`MAX_LINE`] bytes.
    #[error("the line has {length} bytes; at most {MAX_LINE} are allowed")]
    TooLong {
        /// How many bytes there are, without the LF.
        length: u64,
    },
    /// U+FEFF at the start of the stream.
    #[error("the file starts with a byte order mark; an editor has saved it")]
    ByteOrderMark,
    /// A carriage return.
    #[error("the line holds a carriage return; the file was changed in transfer or by an editor")]
    CarriageReturn,
    /// A NUL byte, as a hole in a file reads.
    #[error("the line holds a NUL byte; a part of the file was never written")]
    Nul,
    /// Not UTF-8.
    #[error("the line is not UTF-8")]
    NotUtf8,
    /// The stream could not be read. This says nothing about the log.
    #[error("reading failed: {0}")]
    Io(#[source] io::Error),
}

/// Reads lines from a stream. A line that lies whole in the stream's own buffer is borrowed from there; the others are put together in one
/// buffer that is used again for each.
#[derive(Debug)]
pub struct Lines<R> {
    reader: R,
    buffer: Vec<u8>,
    /// How many bytes at the start of the stream's buffer belong to the line that was given out.
    borrowed: usize,
    number: u64,
    offset: u64,
    ended: bool,
}

impl<R: BufRead> Lines<R> {
    /// Lines of `reader`, which stands at the start of a segment.
    pub fn new(reader: R) -> Self {
        Self { reader, buffer: Vec::new(), borrowed: 0, number: 0, offset: 0, ended: false }
    }

    /// The next line, or `None` after the last. Not an `Iterator`, because each line borrows the buffer.
    #[expect(clippy::should_implement_trait, reason = "the item borrows from self, which Iterator cannot express")]
    pub fn next(&mut self) -> Option<Result<Line<'_>, LineError>> {
        if self.ended {
            return None;
        }
        self.reader.consume(std::mem::take(&mut self.borrowed));
        let (offset, number) = (self.offset, self.number + 1);
        self.number = number;
        let at = |kind| LineError { number, offset, kind };
        let found = match self.whole_line() {
            Ok(Some(end)) => {
                (self.borrowed, self.offset) = (end + 1, offset + end as u64 + 1);
                // Nothing is read here: the buffer is not empty.
                self.reader.fill_buf().map(|buffer| &buffer[..end]).map_err(LineErrorKind::Io)
            }
            Ok(None) => match self.read_line() {
                Ok(true) => Ok(self.buffer.as_slice()),
                Ok(false) => return None,
                Err(kind) => Err(kind),
            },
            Err(error) => Err(self.fail(error)),
        };
        Some(found.and_then(|line| check(line, offset == 0)).map(|text| Line { number, offset, bytes: text.as_bytes(), text }).map_err(at))
    }

    /// Where the next line ends, if the stream's buffer holds all of it.
    fn whole_line(&mut self) -> io::Result<Option<usize>> {
        loop {
            match self.reader.fill_buf() {
                Ok(buffer) => return Ok(memchr::memchr(b'\n', &buffer[..buffer.len().min(MAX_LINE + 1)])),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Fills the buffer with one line without its LF; `false` at the end of the stream.
    fn read_line(&mut self) -> Result<bool, LineErrorKind> {
        self.buffer.clear();
        // One byte for the LF, and one that shows that the line is too long.
        let limit = MAX_LINE as u64 + 1;
        let count = self.reader.by_ref().take(limit).read_until(b'\n', &mut self.buffer);
        let mut length = count.map_err(|error| self.fail(error))? as u64;
        let mut whole = self.buffer.pop_if(|byte| *byte == b'\n').is_some();
        let too_long = !whole && length == limit;
        if too_long {
            let (rest, found) = self.skip_line()?;
            length += rest;
            whole = found;
        }
        self.offset += length;
        self.ended = !whole;
        match (whole, length) {
            (false, 0) => Ok(false),
            (false, length) => Err(LineErrorKind::Partial { length }),
            (true, length) if too_long => Err(LineErrorKind::TooLong { length: length - 1 }),
            (true, _) => Ok(true),
        }
    }

    /// Passes over the rest of an over-long line without keeping it: how many bytes, and whether an LF ended it.
    fn skip_line(&mut self) -> Result<(u64, bool), LineErrorKind> {
        let mut skipped = 0;
        loop {
            let available = match self.reader.fill_buf() {
                Ok(available) => available,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.fail(error)),
            };
            let end = available.iter().position(|byte| *byte == b'\n');
            let count = end.map_or(available.len(), |at| at + 1);
            let at_end = available.is_empty();
            self.reader.consume(count);
            skipped += count as u64;
            if at_end || end.is_some() {
                return Ok((skipped, end.is_some()));
            }
        }
    }

    fn fail(&mut self, error: io::Error) -> LineErrorKind {
        self.ended = true;
        LineErrorKind::Io(error)
    }
}

fn check(line: &[u8], first: bool) -> Result<&str, LineErrorKind> {
    // The smallest byte is found without a branch, many bytes at once.
    let control = line.iter().copied().fold(u8::MAX, u8::min) < b' ';
    if first && line.starts_with(b"\xef\xbb\xbf") {
        Err(LineErrorKind::ByteOrderMark)
    } else if line.is_empty() {
        Err(LineErrorKind::Blank)
    } else if control && line.contains(&b'\r') {
        Err(LineErrorKind::CarriageReturn)
    } else if control && line.contains(&0) {
        Err(LineErrorKind::Nul)
    } else {
        str::from_utf8(line).map_err(|_| LineErrorKind::NotUtf8)
    }
}

/// The `prev` of the first line of a log: it binds the chain to the name of the log and to the key that signs its checkpoints, in the
/// text form of a verifier key, so that a chain cannot be spliced into another log.
pub fn genesis_prev(origin: &str, log_key: &str) -> Hash {
    Hash::digest(format!("claviger audit genesis v1\n{origin}\n{log_key}\n").as_bytes())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Each line as `offset:text`, each error as `offset!variant`; the stream comes in pieces of `piece` bytes.
    fn read(bytes: &[u8], piece: usize) -> Vec<String> {
        let mut lines = Lines::new(io::BufReader::with_capacity(piece, bytes));
        let mut found = Vec::new();
        while let Some(line) = lines.next() {
            found.push(match line {
                Ok(line) => format!("{}:{}", line.offset, str::from_utf8(line.bytes).unwrap()),
                Err(error) => {
                    let kind = format!("{:?}", error.kind);
                    format!("{}!{kind}", error.offset)
                }
            });
            assert!(found.len() < 100, "the end is never reached");
        }
        found
    }

    #[test]
    fn good_lines_and_every_kind_of_bad_one() {
        assert_eq!(read(b"", 8), Vec::<String>::new());
        assert_eq!(read(b"ab\nc\n", 1), ["0:ab", "3:c"]);
        assert_eq!(read(b"ab\nc", 8), ["0:ab", "3!Partial { length: 1 }"]);
        assert_eq!(read(b"a\n\nb\n\n", 8), ["0:a", "2!Blank", "3:b", "5!Blank"]);
        assert_eq!(read(b"a\r\nb\n", 8), ["0!CarriageReturn", "3:b"]);
        assert_eq!(read(b"\xef\xbb\xbfa\nb\n", 8), ["0!ByteOrderMark", "5:b"]);
        assert_eq!(read(b"a\n\0\0\nb\n", 8), ["0:a", "2!Nul", "5:b"]);
        assert_eq!(read(b"\xff\nb\n\0", 8), ["0!NotUtf8", "2:b", "4!Partial { length: 1 }"]);
    }

    #[test]
    fn long_lines_are_passed_over() {
        let long = |n: usize, end: &str| format!("{}{end}", "x".repeat(n));
        assert_eq!(read(long(MAX_LINE, "\nb\n").as_bytes(), 64)[1], "65536:b");
        assert_eq!(read(long(MAX_LINE + 1, "\nb\n").as_bytes(), 64), ["0!TooLong { length: 65536 }", "65537:b"]);
        assert_eq!(read(long(200_000, "\nb\n").as_bytes(), 4096), ["0!TooLong { length: 200000 }", "200001:b"]);
        assert_eq!(read(long(200_000, "").as_bytes(), 4096), ["0!Partial { length: 200000 }"]);
        assert_eq!(read(long(MAX_LINE + 1, "").as_bytes(), 64), ["0!Partial { length: 65536 }"]);
        assert_eq!(read(long(MAX_LINE, "").as_bytes(), 64), ["0!Partial { length: 65535 }"]);
    }

    #[test]
    fn a_failing_stream_is_an_error_once_and_then_the_end() {
        struct Failing;
        impl io::Read for Failing {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("disk"))
            }
        }
        let mut lines = Lines::new(io::BufReader::new(io::Read::chain(&b"a\nb"[..], Failing)));
        assert_eq!(lines.next().unwrap().unwrap().bytes, b"a");
        let error = lines.next().unwrap().unwrap_err();
        assert!(matches!(error.kind, LineErrorKind::Io(_)));
        assert_eq!(error.to_string(), "line 2, byte 2: reading failed: disk");
        assert!(lines.next().is_none());
    }

    /// `printf 'claviger audit genesis v1\nlog.example/keys\nvkey\n' | sha256sum`
    #[test]
    fn genesis() {
        assert_eq!(
            genesis_prev("log.example/keys", "vkey").to_string(),
            "2108fe7048f42f73229afe3591b812aa7016ce63e77933a0d60dc52ef928b0de"
        );
        assert_ne!(genesis_prev("log.example/keys", "vkey"), genesis_prev("log.example/uses", "vkey"));
    }

    proptest! {
        #[test]
        fn lines_are_what_was_written(lines in proptest::collection::vec("[^\\x00\\r\\n\u{feff}]{1,40}", 0..20), piece in 1_usize..64) {
            let stream = lines.join("\n") + if lines.is_empty() { "" } else { "\n" };
            let mut offset = 0;
            let expected: Vec<String> = lines.iter().map(|line| {
                offset += line.len() + 1;
                format!("{}:{line}", offset - line.len() - 1)
            }).collect();
            prop_assert_eq!(read(stream.as_bytes(), piece), expected);
        }

        #[test]
        fn every_byte_belongs_to_a_line_or_a_defect(bytes in "[a\r\n\\x00]{0,60}", piece in 1_usize..9) {
            let count = bytes.split_inclusive('\n').count();
            prop_assert_eq!(read(bytes.as_bytes(), piece).len(), count);
        }
    }
}
