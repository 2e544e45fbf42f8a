//! Proofs that leave the house: files that anyone checks offline with a trust file, without the log.
//!
//! In scope: the text of inclusion proofs (C2SP tlog-proof), consistency proofs and fork proofs, making them from a log, and checking them.
//! Out of scope: the hashes within (`merkle`), files and arguments (`command`). The formats are specified in this package's `README.md`.
//!
//! A proof is a statement by a log key about a tree. So each check ends at a signature by a key of the trust file, and none says yes
//! without one.

mod consistency;
mod fork;
mod inclusion;
mod make;
mod text;

use crate::checkpoint::Checkpoint;
use crate::note::{Note, VerifiedSignatures, VerifierKey};
use crate::trust::{Policy, Witnessed};
use crate::verify::Verdict;

pub use consistency::{ConsistencyProof, Grown, Tree};
pub use fork::{Fork, ForkProof, Grafted};
pub use inclusion::{Included, InclusionProof, Question};
pub use make::{Stretch, Unprovable, WantedRecord, consistency, inclusion};
pub use text::{MAX_PROOF_FILE, NotAProof};

/// Why a proof is not believed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{text}")]
pub struct Refusal {
    /// What the proof is then; never [`Verdict::Verified`].
    pub verdict: Verdict,
    /// What is wrong and what to do about it.
    pub text: String,
}

impl Refusal {
    fn new(verdict: Verdict, text: impl Into<String>) -> Self {
        Self { verdict, text: text.into() }
    }
}

impl From<NotAProof> for Refusal {
    fn from(error: NotAProof) -> Self {
        Self::new(Verdict::Tampered, error.to_string())
    }
}

/// What a note claims; nobody has said yet that the log signed it.
fn claimed(note: &Note) -> Result<Checkpoint, Refusal> {
    note.text().parse().map_err(|error| Refusal::new(Verdict::Tampered, format!("the note is no checkpoint: {error}")))
}

/// The checkpoint of a note that a log of the trust file signed. Whoever cosigned does not matter: a bad cosignature that a log adds to its
/// own note must not save it from what it signed.
fn signed(note: &Note, trust: Option<&Policy>) -> Result<Checkpoint, Refusal> {
    by_log(note, trust, |trust| trust.logs().iter().map(|log| log.key.clone()).collect()).map(|(checkpoint, _)| checkpoint)
}

/// The checkpoint of a note that a log of the trust file signed, and that was cosigned as the file demands.
fn witnessed(note: &Note, trust: Option<&Policy>) -> Result<(Checkpoint, Witnessed), Refusal> {
    let (checkpoint, signatures) = by_log(note, trust, Policy::keys)?;
    let quorum = trust.map(|trust| trust.quorum_met(&signatures)).transpose();
    let witnessed = quorum.map_err(|missing| Refusal::new(Verdict::Unsigned, missing.to_string()))?;
    Ok((checkpoint, witnessed.unwrap_or(Witnessed { time: None, cosigners: Vec::new() })))
}

fn by_log(
    note: &Note,
    trust: Option<&Policy>,
    keys: impl Fn(&Policy) -> Vec<VerifierKey>,
) -> Result<(Checkpoint, VerifiedSignatures), Refusal> {
    let origin = claimed(note)?.origin;
    let Some(trust) = trust else {
        let text = format!("nothing says which key may sign for the log {origin:?}; bring --trust");
        return Err(Refusal::new(Verdict::Unpinned, text));
    };
    if !trust.logs().iter().any(|log| log.key.name() == origin) {
        return Err(Refusal::new(Verdict::Unpinned, format!("the trust file knows no log of the origin {origin:?}")));
    }
    Checkpoint::from_note(note, &origin, &keys(trust)).map_err(|error| Refusal::new(Verdict::Unsigned, error.to_string()))
}

#[cfg(test)]
mod tests;
