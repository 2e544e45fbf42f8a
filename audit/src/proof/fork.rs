//! Fork proofs: the log key signed two histories.
//!
//! In scope: the text, making one from two notes, and checking it against a trust file. Out of scope: finding a fork (`verify`), writing
//! the file (`command`).
//!
//! Two checkpoints of one size with different roots are a fork by themselves. For different sizes the proof says which root the longer log
//! has at the smaller size: the consistency proof binds that root to the longer checkpoint, and the shorter checkpoint states another one.

use std::fmt;

use crate::checkpoint::Checkpoint;
use crate::merkle::{Hash, verify_consistency};
use crate::note::Note;
use crate::trust::Policy;
use crate::verify::Verdict;

use super::text::{self, NotAProof, Parts};
use super::{Refusal, claimed, signed};

const TITLE: &str = "claviger fork proof v1";

/// A fork proof. What this reads, it writes again byte for byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForkProof {
    /// The signed note of the smaller size; of equal sizes, either.
    pub shorter: Note,
    /// The other one.
    pub longer: Note,
    /// For different sizes: what the longer log is at the smaller size.
    pub grafted: Option<Grafted>,
}

/// The beginning of the longer log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grafted {
    /// Its root at the smaller size.
    pub root: Hash,
    /// The consistency proof from that root to the longer log (RFC 9162 section 2.1.4.1).
    pub hashes: Vec<Hash>,
}

/// A fork that is proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fork {
    /// What the log key signed of the smaller size; of equal sizes, either.
    pub shorter: Checkpoint,
    /// What it signed as well.
    pub longer: Checkpoint,
    /// The root that the longer log has at the smaller size.
    pub root: Hash,
}

impl ForkProof {
    /// Reads a proof.
    ///
    /// # Errors
    ///
    /// [`NotAProof`].
    pub fn parse(bytes: &[u8]) -> Result<Self, NotAProof> {
        let mut parts = Parts::of(bytes, "fork proof", TITLE)?;
        let root = parts.optional("root");
        let root =
            root.map(|root| text::hash(root).ok_or_else(|| parts.no(format!("{root:?} is not the base64 of a hash")))).transpose()?;
        let hashes = parts.hashes()?;
        let grafted = match root {
            Some(root) => Some(Grafted { root, hashes }),
            None if hashes.is_empty() => None,
            None => return Err(parts.no("it has hashes, but no root that they begin at")),
        };
        let two: Result<[Note; 2], _> = parts.notes()?.try_into();
        let [shorter, longer] = two.map_err(|notes| parts.no(format!("it has {} notes, not two", notes.len())))?;
        Ok(Self { shorter, longer, grafted })
    }

    /// Whether a log of the trust file signed two histories.
    ///
    /// # Errors
    ///
    /// [`Refusal`] with [`Verdict::Tampered`] (the file proves no fork), [`Verdict::Unsigned`] (a note is not signed by the log) or
    /// [`Verdict::Unpinned`] (no trust file, or another log).
    pub fn check(&self, trust: Option<&Policy>) -> Result<Fork, Refusal> {
        let fork = self.contradiction()?;
        for note in [&self.shorter, &self.longer] {
            signed(note, trust)?;
        }
        Ok(fork)
    }

    /// What the two notes contradict each other about, whoever signed them.
    fn contradiction(&self) -> Result<Fork, Refusal> {
        let no = |text: String| Refusal::new(Verdict::Tampered, format!("no fork is proven: {text}"));
        let (shorter, longer) = (claimed(&self.shorter)?, claimed(&self.longer)?);
        if shorter.origin != longer.origin {
            return Err(no(format!("the notes are of two logs, {:?} and {:?}", shorter.origin, longer.origin)));
        }
        let root = match &self.grafted {
            None if shorter.size == longer.size => longer.root,
            None => {
                return Err(
                    no("the notes are of different sizes, and nothing says what the longer log was at the smaller size".to_owned()),
                );
            }
            Some(Grafted { root, hashes }) => {
                verify_consistency(shorter.size, root, longer.size, &longer.root, hashes).map_err(|error| no(error.to_string()))?;
                *root
            }
        };
        if root == shorter.root {
            return Err(no("both notes are of one history".to_owned()));
        }
        Ok(Fork { shorter, longer, root })
    }
}

impl fmt::Display for ForkProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{TITLE}")?;
        if let Some(Grafted { root, hashes }) = &self.grafted {
            writeln!(f, "root {}", text::base64(root.as_bytes()))?;
            text::write_hashes(hashes, f)?;
        }
        text::write_note(&self.shorter, f)?;
        text::write_note(&self.longer, f)
    }
}
