//! The verifier: bytes in, a report out.
//!
//! In scope: the form of each line, the chain, segments, the tree, checkpoints, the rules of rotation and of use, and everything that a
//! verifier brings along to pin a log. Out of scope: opening files (`crate::command`), printing ([`crate::report`]), clocks and networks.
//!
//! Files by story: `chain` reads one log; `keylog`, `on_time` and `uses` judge what its records say; `signers` and `notes` compare it with
//! what was signed; `pins` holds it against what the verifier brought, [`reconcile`] against what keystores wrote down; `eras` finds which log
//! goes on from which; `resume` decides what an earlier run has done; `run` tells the order. `leaves` gives the leaf hashes of a log, for proofs.

use std::io::{self, BufRead};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::jwks::SetName;
use crate::merkle::Hash;
use crate::time::Timestamp;
use crate::trust::Policy;

mod chain;
mod eras;
mod finding;
mod keylog;
pub mod leaves;
mod notes;
mod on_time;
mod pins;
pub mod reconcile;
mod resume;
mod rotation;
mod run;
mod signers;
mod uses;

pub use finding::{Finding, Findings, Location, MOST_FINDINGS, Verdict};
pub use keylog::KeyLog;
pub use rotation::{Rotation, Slack};
pub use run::{Ended, ForkFile, LogReport, Report};

/// One segment of a log, which can be opened when its turn comes.
pub struct Segment<'a> {
    /// What reports call it. If its last part is 20 digits and `.jsonl`, the digits must be the number of its first record.
    pub name: String,
    /// Opens it at its first byte.
    pub open: Box<dyn Fn() -> io::Result<Box<dyn BufRead>> + 'a>,
}

/// A signed note, unverified.
#[derive(Clone, Debug)]
pub struct NoteFile {
    /// What reports call it.
    pub name: String,
    /// The whole note.
    pub bytes: Vec<u8>,
}

/// One log: its segments in order, and the checkpoints that lie beside them.
pub struct LogFiles<'a> {
    /// What reports call it while its origin is unknown.
    pub name: String,
    /// In order of their first record.
    pub segments: Vec<Segment<'a>>,
    /// In any order.
    pub notes: Vec<NoteFile>,
    /// What is left of the segments before the first.
    pub pruned: Pruned<'a>,
}

/// What is left of the oldest segments of a use log after a pruning.
#[derive(Default)]
pub struct Pruned<'a> {
    /// Files of raw leaf hashes, 32 bytes for each record of a segment, in order. The last part of a name is 20
    /// digits, the number of the first of these records, and `.hashes`.
    pub hashes: Vec<Segment<'a>>,
    /// The first line of the log, with its LF.
    pub genesis: Option<Segment<'a>>,
}

/// Where an earlier run stopped reading a use log: beside a remembered head, what is needed to go on there. The edge must fold to the root
/// that the head states; the rest is that run's memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bookmark {
    /// The right edge of the tree: the roots of its largest complete subtrees, from the left.
    pub edge: Vec<Hash>,
    /// The log's key that was in force, where the records said so.
    pub key: Option<String>,
    /// The leaf hash of the last record.
    pub last: Hash,
    /// The node that wrote the log.
    pub node: String,
    /// The origin of the log.
    pub origin: String,
    /// The size of the key log that the records had seen.
    pub seen: u64,
    /// How many records there were.
    pub size: u64,
    /// The time of the last of them.
    pub time: Timestamp,
}

/// What is to be verified.
#[derive(Default)]
pub struct Input<'a> {
    /// The key log.
    pub keys: Option<LogFiles<'a>>,
    /// The use logs, one per node.
    pub uses: Vec<LogFiles<'a>>,
    /// Logs that ended, and that others go on from; oldest first.
    pub former: Vec<Former<'a>>,
    /// What keystores wrote down by themselves, to be compared with the use logs.
    pub backends: Vec<reconcile::BackendLog<'a>>,
}

/// What was set aside by one adoption: the key log and the use logs, or use logs alone.
#[derive(Default)]
pub struct Former<'a> {
    /// The key log.
    pub keys: Option<LogFiles<'a>>,
    /// The use logs.
    pub uses: Vec<LogFiles<'a>>,
}

/// What a signing reply carried: the memory of whoever got it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Receipt {
    /// The origin of the log.
    pub log: String,
    /// The sequence number.
    pub seq: u64,
    /// The leaf hash.
    pub leaf: Hash,
}

/// The least number of covered records that a log must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MinSize {
    /// The origin of the log; `None` is the key log.
    pub origin: Option<String>,
    /// How many.
    pub size: u64,
}

/// A JWKS body as somebody serves it.
#[derive(Clone, Debug)]
pub struct LiveSet {
    /// The whole body.
    pub body: Vec<u8>,
    /// Which set it should be; `None` is any.
    pub set: Option<SetName>,
    /// The size of the key log that it was built from, as whoever served it says.
    pub size: Option<u64>,
}

/// What a verifier brings along. By default nothing, and then the best verdict is [`Verdict::Unpinned`].
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Whose checkpoints count.
    pub trust: Option<Policy>,
    /// Notes that were remembered from an earlier run.
    pub heads: Vec<NoteFile>,
    /// A named head that does not exist.
    pub missing_head: Option<String>,
    /// Whether that is as it should be, because there was no earlier run.
    pub first_run: bool,
    /// Read use logs only from where an earlier run stopped, as far as the bookmarks fit the heads.
    pub incremental: bool,
    /// What earlier runs remember.
    pub bookmarks: Vec<Bookmark>,
    /// Receipts.
    pub receipts: Vec<Receipt>,
    /// Sizes that logs are known to have had.
    pub min_sizes: Vec<MinSize>,
    /// The greatest age of the last covered record.
    pub max_age: Option<Duration>,
    /// A set to compare with the log's.
    pub jwks: Option<LiveSet>,
    /// Leave use logs out; the report says so.
    pub keys_only: bool,
    /// How long before its end, and after its beginning, a keystore's own record may lack entries; `None` is the default of each kind.
    pub reconcile_margin: Option<Duration>,
}

/// Verifies a key log and its use logs. `now` is what freshness is measured against.
///
/// # Errors
///
/// A file could not be read, which is no verdict.
pub fn verify(input: &Input<'_>, options: &Options, now: Timestamp) -> io::Result<Report> {
    run::run(input, options, now)
}
