//! Reconciling: these logs against what the keystores wrote down by themselves.
//!
//! In scope: which signatures of a backend's record are explained by our records, which of our records a backend confirms, and what is neither.
//! Out of scope: reading backends' files ([`crate::backend`]) and whether a record of ours is legal (`uses`).
//!
//! The two are matched by the backend's own request id alone: CloudTrail holds no digest, and Vault hashes its input. Files by story: `ledger`
//! holds the backends' signatures; `keys` knows whose key signed; `account` reads our records beside the other checks; `settle` compares.
//!
//! What an honest pair of logs leaves unmatched, and what covers it (an *allowance*):
//!
//! - A call that got no complete answer may have signed: `sign.unanswered` counts it for its key.
//! - A process that was killed may have left calls without a record: `daemon.start` names how many at most, after the last record before it.
//! - A log that lost its tail may have lost records: `log.adopted` names how many.
//!
//! An allowance holds for as many signatures as it counts, near its time; each is told, and none is a finding. What a record says that nobody
//! signed for yet allows nothing: whoever can write the file could add it. A signature that such a record names is counted as *uncovered*.

use std::time::Duration;

use serde::Serialize;

use super::{Location, Segment};
use crate::backend::Backend;
use crate::time::Timestamp;
use account::Reach;

mod account;
mod keys;
mod ledger;
mod settle;
#[cfg(test)]
mod tests;

pub(super) use account::Account;

/// How far apart an entry and what explains it may lie: the longest deadline of a request, a second until the count is written, the longest pause
/// between two records of a living log, and clocks that differ.
pub const APART: Duration = Duration::from_mins(3);
/// How long CloudTrail may take to deliver an event, by default. AWS promises no time; "about 5 minutes on average" is what it documents.
const CLOUDTRAIL_MARGIN: Duration = Duration::from_mins(30);
/// The same for Vault, which writes at once: clocks that differ.
const VAULT_MARGIN: Duration = Duration::from_mins(1);

/// What a backend wrote down: files of one record.
pub struct BackendLog<'a> {
    /// What reports call it.
    pub name: String,
    /// Which kind.
    pub backend: Backend,
    /// The keystore whose record it is; `None` is every keystore of this kind.
    pub keystore: Option<String>,
    /// Its files, in any order.
    pub files: Vec<Segment<'a>>,
}

/// What was found about one record of a backend.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Reconciled {
    /// What the caller calls it.
    pub name: String,
    /// How many files were read.
    pub files: u64,
    /// The times between which it tells of something.
    pub first: Option<Timestamp>,
    /// Likewise.
    pub last: Option<Timestamp>,
    /// Signatures in it, whoever's key it was.
    pub signatures: u64,
    /// Requests for signatures that the backend refused.
    pub refused: u64,
    /// Entries that it holds more than once.
    pub doubled: u64,
    /// Lines that are cut or joined.
    pub torn: u64,
}

/// A signature without a record that an allowance covers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Allowed {
    /// When, by the backend's clock.
    pub time: Timestamp,
    /// The backend's request id.
    pub request: String,
    /// The key as the backend names it.
    pub key: String,
    /// Who asked.
    pub caller: String,
    /// Where the entry stands.
    pub place: String,
    /// What covers it.
    pub because: String,
}

/// The result of comparing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Reconciliation {
    /// Each record that was given.
    pub backends: Vec<Reconciled>,
    /// Signatures that a record of ours names, by the key that it names.
    pub matched: u64,
    /// Signatures by log keys: matched by their identity, and counted only.
    pub log_keys: u64,
    /// Signatures by keys that are not ours.
    pub foreign: u64,
    /// Signatures without a record that something covers.
    pub allowed: Vec<Allowed>,
    /// How many there are.
    pub allowed_count: u64,
    /// Signatures that fit a record that no checkpoint covers yet: it explains them once the log key has signed for it.
    pub uncovered: u64,
    /// Signatures near the end of our log, or after it began to be pruned: nobody can say yet, or any more, whether they have a record.
    pub too_new: u64,
    /// Likewise, before the first record that is left.
    pub too_old: u64,
    /// Requests for keys of ours that Claviger never makes, such as an export.
    pub exposed: u64,
    /// Our records of signatures by keys of these backends that lie outside of what the given files cover.
    pub outside: u64,
    /// Everything that differs; each is a finding too.
    pub differing: u64,
}

/// Which record of ours.
#[derive(Clone, Copy, Debug)]
struct Source {
    log: usize,
    seq: u64,
}

impl Source {
    /// Whether somebody signed for it.
    fn is_signed(self, logs: &[Reach]) -> bool {
        self.seq < logs[self.log].signed
    }
}

/// What is told of a record that no entry confirms.
struct Absent {
    at: Location,
    source: Source,
    backend: Backend,
    time: Timestamp,
    request: String,
    kid: String,
    text: &'static str,
}

/// Signatures that may be without a record.
struct Allowance {
    from: Timestamp,
    to: Timestamp,
    count: u64,
    whose: Whose,
    /// The record that gives it.
    source: Source,
    because: String,
}

/// By which keys the signatures of an allowance may be.
enum Whose {
    /// By this one.
    Key {
        /// Its keyring.
        keyring: String,
        /// Its kid.
        kid: String,
    },
    /// By those that signed at that time, or were being made.
    Signing,
    /// By any: who signed may stand in a record that was lost.
    Any,
}

impl Allowance {
    fn near(time: Timestamp, count: u64, (keyring, kid): (&str, &str), source: Source, because: String) -> Self {
        let whose = Whose::Key { keyring: keyring.to_owned(), kid: kid.to_owned() };
        Self { from: time - APART, to: time + APART, count, whose, source, because }
    }
}

/// How long before its end a record may still lack entries, and after its beginning.
fn margin(asked: Option<Duration>, backend: Backend) -> Duration {
    asked.unwrap_or(match backend {
        Backend::CloudTrail => CLOUDTRAIL_MARGIN,
        Backend::Vault => VAULT_MARGIN,
    })
}
