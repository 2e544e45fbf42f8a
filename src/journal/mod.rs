//! The writer of both logs: append, group commit, checkpoints, recovery.
//!
//! In scope: a record is durable when its append returns, and visible never before; what a crash may take and what it may not; the lock on
//! the state folder; the pseudonyms that records carry. Out of scope: what records mean (`claviger_audit`), when they are made (the signer
//! and the rotator), and where checkpoints get their signatures ([`SignNote`]).
//!
//! Files by story: [`disk`] is what a log asks of a file system; `file` writes lines and segments; `committer` is the one thread per log;
//! [`keys`] and [`uses`] are its two users; `replay` and [`open`] bring a log back, `former` what it goes on from; [`adopt`] lets a log go
//! on that lost its tail; [`prune`] deletes what is old; [`living`] counts the tokens that are alive; [`checkpoint`] signs what the disk holds, with the keys of `tenure`; [`follow`] and
//! [`pages`] read it again, line by line (`lines`), for others; [`witnessed`] keeps their word, and [`standing`] what it means; [`state`],
//! [`space`] and [`pseudonym`] are the folder, its disk and the keys beside the logs.

use std::sync::Arc;

use claviger_audit::Timestamp;
use claviger_audit::event::Event;
use claviger_audit::keyrings::Illegal;
use claviger_audit::merkle::Hash;
use claviger_audit::record::Asked;

pub mod adopt;
pub mod checkpoint;
mod committer;
pub mod create;
pub mod disk;
mod file;
pub mod follow;
mod former;
pub mod keys;
mod lines;
pub mod living;
pub mod open;
pub mod pages;
pub mod peek;
pub mod prune;
pub mod pseudonym;
mod replay;
mod shared;
pub mod space;
pub mod standing;
pub mod state;
mod tenure;
#[cfg(test)]
mod tests;
pub mod uses;
pub mod witnessed;

pub use checkpoint::{Checkpointer, Coverage, SignNote, Signed, Signers};
pub use create::{CreateError, create};
pub use file::SEGMENT_BYTES;
pub use follow::{FollowError, Follower};
pub use keys::{KeyLog, KeySnapshot};
pub use living::{LiveTokens, TokenCounter};
pub use open::{OpenError, Opened, Opening, Recovery};
pub use pages::Pages;
pub use standing::{Doubt, Standing};
pub use tenure::{LogKey, Tenure};
pub use uses::UseLog;

/// An event that is to become a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// Who asked.
    pub asked: Asked,
    /// What happened.
    pub event: Event,
}

/// A durable record, named so that its holder can later prove that it was there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The origin of the log.
    pub log: Arc<str>,
    /// The record's sequence number.
    pub seq: u64,
    /// The record's leaf hash.
    pub leaf: Hash,
}

/// Where a log stands: what is durable, and nothing more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// How many records.
    pub size: u64,
    /// The Merkle root over them.
    pub root: Hash,
    /// The leaf hash of the last one.
    pub leaf: Hash,
    /// The time of the last one.
    pub time: Timestamp,
}

/// Why an append did not happen, or may not have.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AppendError {
    /// Nothing was written; the event must not happen now.
    #[error(transparent)]
    Illegal(#[from] Illegal),
    /// The log is dead in this process, and whether the record will be there after a restart is unknown. Do nothing that the record stands for.
    #[error("the log takes no more records until a restart: {0}")]
    Unwritable(String),
    /// The log was stopped in order; nothing was written.
    #[error("the log was stopped; nothing was written")]
    Stopped,
    /// More is queued than the disk can take; nothing was written. Try again later.
    #[error("too many records are waiting for the disk; try again later")]
    Overloaded,
}
