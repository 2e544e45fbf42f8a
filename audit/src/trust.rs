//! Trust files (C2SP tlog-policy): which logs a verifier believes, which witnesses, and how many of those must have cosigned.
//!
//! In scope: reading the whole format, strictly, with the line of each mistake, and (in `quorum`) deciding whether the cosignatures of a
//! given checkpoint reach the quorum. Out of scope: verifying signatures (`note`), and URLs, which are kept but never opened.
//!
//! Stricter than the specification in one point: the file must be UTF-8, which the specification only recommends. Names are still
//! compared as bytes.

mod parse;
mod quorum;

use std::str::FromStr;

use crate::note::{VerifierKey, VerifierKeyError};

pub use quorum::{Cosigner, MissingQuorum, Witnessed};

/// The longest trust file that is read, in bytes: [`MAX_ENTRIES`] of each kind with room for comments.
pub const MAX_POLICY: usize = 1 << 20;
/// The most logs, witnesses and groups, each. The specification asks for 32; real lists of public witnesses have fewer than 100.
pub const MAX_ENTRIES: usize = 256;

/// A whole trust file. Every name in it has been resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    logs: Vec<Log>,
    witnesses: Vec<Witness>,
    groups: Vec<Group>,
    quorum: Option<Member>,
}

/// A log to believe: a checkpoint is acceptable if any one of the listed logs signed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// Its key, named by the origin of the log.
    pub key: VerifierKey,
    /// Where the log can be reached, if the file says so.
    pub url: Option<String>,
}

/// A witness whose cosignatures count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Witness {
    /// What this file calls it.
    pub name: String,
    /// Its key, which makes cosignatures.
    pub key: VerifierKey,
    /// Where the witness can be reached, if the file says so.
    pub url: Option<String>,
}

/// A group that has witnessed a checkpoint when at least `threshold` of its members have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// What this file calls it.
    pub name: String,
    /// At least 1, at most the number of members.
    pub threshold: usize,
    /// Never empty; each witness or group is a member of at most one group.
    pub members: Vec<Member>,
}

/// A witness or a group, by its place in [`Policy::witnesses`] or [`Policy::groups`]. A group refers only to groups before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Member {
    /// Index of a witness.
    Witness(usize),
    /// Index of a group.
    Group(usize),
}

impl Policy {
    /// Reads a trust file from its bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, PolicyError> {
        parse::policy(bytes)
    }

    /// The logs, in the order of the file.
    pub fn logs(&self) -> &[Log] {
        &self.logs
    }

    /// The witnesses, in the order of the file.
    pub fn witnesses(&self) -> &[Witness] {
        &self.witnesses
    }

    /// The groups, in the order of the file.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// Who must have witnessed a checkpoint; `None` for `quorum none`.
    pub fn quorum(&self) -> Option<Member> {
        self.quorum
    }

    /// Every key of the file, logs first: what [`crate::checkpoint::Checkpoint::from_note`] wants to know.
    pub fn keys(&self) -> Vec<VerifierKey> {
        self.logs.iter().map(|log| &log.key).chain(self.witnesses.iter().map(|witness| &witness.key)).cloned().collect()
    }
}

impl FromStr for Policy {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        Self::parse(text.as_bytes())
    }
}

/// What is wrong with a trust file, and in which line.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("trust file, line {line}: {kind}")]
pub struct PolicyError {
    /// The line, counted from 1; for something that is missing, the line after the last.
    pub line: usize,
    /// What is wrong.
    pub kind: PolicyErrorKind,
}

/// A mistake in a trust file.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PolicyErrorKind {
    /// Longer than [`MAX_POLICY`].
    #[error("the file has {0} bytes; at most {MAX_POLICY} are read")]
    TooLong(usize),
    /// Not UTF-8.
    #[error("the line is not UTF-8; write it in UTF-8")]
    NotUtf8,
    /// A control character other than tab and line feed.
    #[error("the line has a control character ({0:#04x}); only tabs are allowed, and line feeds alone end lines")]
    ControlCharacter(u32),
    /// The last line is cut off.
    #[error("the last line does not end with a line feed; the file may have been cut off")]
    NoLineFeed,
    /// The first word is no keyword.
    #[error("{0:?} is not a keyword; lines start with log, witness, group, quorum or #")]
    Keyword(String),
    /// Too few or too many words.
    #[error("the line should read: {0}")]
    Usage(&'static str),
    /// Not a verifier key.
    #[error("not a verifier key: {0}")]
    Key(#[from] VerifierKeyError),
    /// A cosigner's key for a log.
    #[error("this is a cosigner's key; a log signs with Ed25519 (0x01) or ECDSA P-256 (0x02)")]
    NotALogKey,
    /// A log's key for a witness.
    #[error("this key makes plain signatures; a witness needs a cosigner's key (type 0x04)")]
    NotAWitnessKey,
    /// The public key stands in an earlier line of this kind, under this or another name.
    #[error("this public key is already listed in line {0}")]
    DuplicateKey(usize),
    /// The name stands in an earlier line.
    #[error("the name {0:?} is already taken by a witness or group")]
    DuplicateName(String),
    /// `none`.
    #[error("the name \"none\" has a fixed meaning, for the quorum alone")]
    ReservedName,
    /// No line above defines that name.
    #[error("no witness or group above this line is called {0:?}")]
    UnknownName(String),
    /// A second membership of one name.
    #[error("{0:?} is already a member of a group; each witness and group counts once")]
    SecondMembership(String),
    /// Not `all`, `any` or a number from 1 to the number of members.
    #[error("the threshold {0:?} is not all, any, or a decimal number from 1 to the number of members")]
    Threshold(String),
    /// More than [`MAX_ENTRIES`] lines of one kind.
    #[error("more than {MAX_ENTRIES} lines of this kind")]
    TooMany,
    /// A second quorum.
    #[error("the quorum is already defined in line {0}")]
    SecondQuorum(usize),
    /// No quorum.
    #[error("the file has no quorum line; write \"quorum none\" to ask for no witnesses")]
    NoQuorum,
}

#[cfg(test)]
mod tests;
