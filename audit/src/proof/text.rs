//! What the texts of all proofs have in common: a head of lines, then signed notes, each after a blank line.
//!
//! In scope: taking them apart strictly, so that what is read is written again byte for byte. Out of scope: what each line means.

use std::fmt::{self, Write as _};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::checkpoint::{parse_root, parse_size};
use crate::merkle::{Hash, MAX_PROOF};
use crate::note::{MAX_NOTE, Note};

/// The longest proof that is read, in bytes: two notes, and a head with a record of 64 KiB in base64 and 63 hashes.
pub const MAX_PROOF_FILE: usize = 2 * MAX_NOTE + (1 << 17);

/// The text is none of the proofs that it should be.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("this is no {what}: {why}")]
pub struct NotAProof {
    /// What it should be.
    pub what: &'static str,
    /// Why it is not.
    pub why: String,
}

/// The head of a proof, line by line, and what follows its blank line.
pub(super) struct Parts<'a> {
    what: &'static str,
    head: std::iter::Peekable<std::str::Split<'a, char>>,
    rest: Option<&'a str>,
}

impl<'a> Parts<'a> {
    /// Takes apart a text whose first line is `title`.
    pub(super) fn of(bytes: &'a [u8], what: &'static str, title: &str) -> Result<Self, NotAProof> {
        let no = |why: String| NotAProof { what, why };
        if bytes.len() > MAX_PROOF_FILE {
            return Err(no(format!("it has {} bytes; at most {MAX_PROOF_FILE} are read", bytes.len())));
        }
        let text = str::from_utf8(bytes).map_err(|error| no(format!("it is not UTF-8 at byte {}", error.valid_up_to())))?;
        let whole = text.strip_suffix('\n').ok_or_else(|| no("it does not end with a line feed; it may have been cut off".to_owned()))?;
        let (head, rest) = whole.split_once("\n\n").map_or((whole, None), |(head, rest)| (head, Some(rest)));
        let mut head = head.split('\n').peekable();
        if head.next() != Some(title) {
            return Err(no(format!("its first line is not {title:?}")));
        }
        Ok(Self { what, head, rest })
    }

    pub(super) fn no(&self, why: impl Into<String>) -> NotAProof {
        NotAProof { what: self.what, why: why.into() }
    }

    /// The value of the next line, if that is `<name> <value>`.
    pub(super) fn optional(&mut self, name: &str) -> Option<&'a str> {
        let value = self.head.peek()?.strip_prefix(name)?.strip_prefix(' ')?;
        self.head.next();
        Some(value)
    }

    /// The value of the next line, which must be `<name> <value>`.
    pub(super) fn value(&mut self, name: &str) -> Result<&'a str, NotAProof> {
        self.optional(name).ok_or_else(|| self.no(format!("the line `{name} ...` is missing, or not where it belongs")))
    }

    /// The rest of the head: one hash in base64 per line.
    pub(super) fn hashes(&mut self) -> Result<Vec<Hash>, NotAProof> {
        let mut hashes = Vec::new();
        while let Some(line) = self.head.next() {
            if hashes.len() == MAX_PROOF {
                return Err(self.no(format!("it has more than {MAX_PROOF} hashes")));
            }
            hashes.push(parse_root(line).ok_or_else(|| self.no(format!("{line:?} is not the base64 of a hash")))?);
        }
        Ok(hashes)
    }

    /// What follows the head as one note, verbatim.
    pub(super) fn note(&self) -> Result<Note, NotAProof> {
        let rest = self.rest.ok_or_else(|| self.no("the signed checkpoint is missing"))?;
        Note::parse(format!("{rest}\n").as_bytes()).map_err(|error| self.no(error.to_string()))
    }

    /// What follows the head as checkpoints, each a text and its signatures. Neither holds a blank line, so two paragraphs are a note.
    pub(super) fn notes(&self) -> Result<Vec<Note>, NotAProof> {
        let Some(rest) = self.rest else { return Ok(Vec::new()) };
        let paragraphs: Vec<&str> = rest.split("\n\n").collect();
        let note = |pair: &[&str]| Note::parse((pair.join("\n\n") + "\n").as_bytes()).map_err(|error| self.no(error.to_string()));
        paragraphs.chunks(2).map(note).collect()
    }
}

/// A decimal number without sign or leading zeros, below 2^64.
pub(super) fn number(text: &str) -> Option<u64> {
    parse_size(text)
}

pub(super) fn hash(text: &str) -> Option<Hash> {
    parse_root(text)
}

pub(super) fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

pub(super) fn from_base64(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}

pub(super) fn write_hashes(hashes: &[Hash], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    hashes.iter().try_for_each(|hash| writeln!(f, "{}", base64(hash.as_bytes())))
}

/// A blank line, and the note.
pub(super) fn write_note(note: &Note, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_char('\n')?;
    write!(f, "{note}")
}
