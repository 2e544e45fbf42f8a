//! What a trial found, as plain values: no vendor's type leaves the adapter.
//!
//! In scope: the shape of the report, which is also the shape of its JSON; field names are stable. Out of scope: how it is printed (`cli`).

use serde::Serialize;

/// How one thing stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As Claviger needs it.
    Ok,
    /// Worth knowing, and no obstacle.
    Note,
    /// The token does not have it, and Claviger can do without.
    Absent,
    /// Claviger needs it, and it does not work.
    Fails,
}

impl Verdict {
    /// The word of the report.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Absent => "absent",
            Self::Fails => "FAILS",
        }
    }

    /// [`Verdict::Ok`] or [`Verdict::Fails`].
    pub(super) fn of(good: bool) -> Self {
        if good { Self::Ok } else { Self::Fails }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What, as a stable dotted name, such as `token.serial`.
    pub check: String,
    /// What was found.
    pub result: String,
    /// How that stands.
    pub verdict: Verdict,
}

impl Check {
    pub(super) fn new(check: impl Into<String>, result: impl Into<String>, verdict: Verdict) -> Self {
        Self { check: check.into(), result: result.into(), verdict }
    }
}

/// What the token says of the two mechanisms that an algorithm needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MechanismRow {
    /// The JOSE algorithm.
    pub algorithm: String,
    /// The mechanism that makes keys.
    pub generate: String,
    /// The key sizes that it makes, smallest and largest, in the token's own unit (bits, on most); `None` if it is not there.
    pub generate_sizes: Option<(usize, usize)>,
    /// The mechanism that signs.
    pub sign: String,
    /// Whether it is there, and signs.
    pub can_sign: bool,
    /// Whether both are there.
    pub offered: bool,
    /// What follows from it.
    pub verdict: Verdict,
}

/// One attribute of a key that was made with Claviger's template, read back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AttributeRow {
    /// The kind of key: `P-256`, `RSA-2048` and so on.
    pub key: String,
    /// The attribute, as records name it.
    pub attribute: String,
    /// The value that admission wants.
    pub wanted: bool,
    /// The value that the token reports; `None` if it reports none.
    pub found: Option<bool>,
    /// Whether admission accepts it.
    pub verdict: Verdict,
}

/// How one algorithm fared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AlgorithmRow {
    /// The JOSE algorithm.
    pub algorithm: String,
    /// Microseconds that making its key took.
    pub generate_us: Option<u64>,
    /// Microseconds that one signature took, the median of a few.
    pub sign_us: Option<u64>,
    /// Whether the signatures verify outside of the token.
    pub verified: Option<bool>,
    /// What the token did with a digest that is one byte short: `signed`, or its return value.
    pub wrong_length: Option<String>,
    /// Whether the key was gone after it was destroyed.
    pub destroyed: Option<bool>,
    /// Together.
    pub verdict: Verdict,
    /// What went wrong, if anything did.
    pub detail: String,
}

/// How many sessions there are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Sessions {
    /// How many were asked for.
    pub bound: usize,
    /// How many could be open at once, the one that holds the login included.
    pub opened: usize,
    /// The return value beyond the last one; `None` if the bound was reached.
    pub beyond: Option<String>,
    /// Whether they can be read-only.
    pub read_only: bool,
}

/// Signing for a while with some workers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LoadStep {
    /// How many sessions signed at once.
    pub workers: usize,
    /// How many callers waited in the one queue before them.
    pub callers: usize,
    /// How many signatures were made.
    pub signatures: usize,
    /// How many a second.
    pub per_second: f64,
    /// Microseconds from entering the queue to the signature, for half of all callers.
    pub p50_us: u32,
    /// For nine of ten.
    pub p90_us: u32,
    /// For 99 of 100.
    pub p99_us: u32,
    /// For the slowest.
    pub max_us: u32,
    /// What went wrong, if anything did; a worker stops at its first failure.
    pub failure: Option<String>,
}

/// Whether Claviger can do one of its works on this token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Feature {
    /// The work, as a stable name: `signing.ES256`, `admission`, `recovery`, `concurrency`, `find_or_create`, `destroy`.
    pub feature: String,
    /// Whether.
    pub verdict: Verdict,
    /// Why.
    pub why: String,
}

/// What was created, and what became of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Cleanup {
    /// Throw-away keys that this run set out to make.
    pub created: usize,
    /// Labels of those that could not be removed, or of which that is not known: the next run looks for them.
    pub left: Vec<String>,
    /// Labels of keys that an earlier run left, and that were removed now.
    pub removed_leftovers: Vec<String>,
    /// Labels of keys that an earlier run left, and that were not removed.
    pub kept_leftovers: Vec<String>,
}

/// Everything that was found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The random id of this run, which stands in the label of each key that it made.
    pub run: String,
    /// Whether every check was made: `false` if the run was stopped.
    pub complete: bool,
    /// Whether everything that Claviger needs works.
    pub usable: bool,
    /// The module, the token, and how they behave.
    pub checks: Vec<Check>,
    /// By algorithm.
    pub mechanisms: Vec<MechanismRow>,
    /// By kind of key.
    pub attributes: Vec<AttributeRow>,
    /// By algorithm, those that were tried.
    pub algorithms: Vec<AlgorithmRow>,
    /// How many sessions.
    pub sessions: Option<Sessions>,
    /// Signing with 1, 2, 4 ... workers.
    pub load: Vec<LoadStep>,
    /// The number of workers that tuning found.
    pub workers: Option<usize>,
    /// What it means for Claviger.
    pub features: Vec<Feature>,
    /// What was created, and what became of it.
    pub cleanup: Cleanup,
}
