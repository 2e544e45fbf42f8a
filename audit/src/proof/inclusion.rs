//! Inclusion proofs as C2SP tlog-proof writes them (version 1): this record is in the log, at this place.
//!
//! In scope: the text, and checking it against a trust file, a receipt and a token. Out of scope: making one (`make`).
//!
//! The `extra` line holds the line of the record, so that the proof is self-contained. Nobody has to believe it: it must hash to the leaf
//! that the proof is about.

use std::fmt;
use std::time::Duration;

use crate::event::Event;
use crate::merkle::{Hash, leaf_hash, verify_inclusion};
use crate::note::Note;
use crate::record::Record;
use crate::time::Timestamp;
use crate::trust::{Policy, Witnessed};
use crate::verify::{Receipt, Verdict};

use super::text::{self, NotAProof, Parts};
use super::{Refusal, claimed, witnessed};

const TITLE: &str = "c2sp.org/tlog-proof@v1";

/// An inclusion proof. What this reads, it writes again byte for byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InclusionProof {
    /// The `extra` line: here the line of the record without its LF.
    pub record: Option<Vec<u8>>,
    /// Sequence number of the record.
    pub index: u64,
    /// The audit path, lowest node first (RFC 6962 section 2.1.1).
    pub hashes: Vec<Hash>,
    /// The checkpoint that it leads to.
    pub note: Note,
}

/// What a proof is held against.
#[derive(Clone, Copy, Debug, Default)]
pub struct Question<'a> {
    /// Whose checkpoints count.
    pub trust: Option<&'a Policy>,
    /// A receipt of the record; without it the proof must hold the record.
    pub receipt: Option<&'a Receipt>,
    /// SHA-256 of the JWS signing input of the token that the record should be about.
    pub input: Option<Hash>,
    /// The greatest age, and now. A quorum of witnesses says how old the checkpoint is; without one the time of the record counts.
    pub max_age: Option<(Duration, Timestamp)>,
}

/// What a proof has shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Included {
    /// The log.
    pub origin: String,
    /// The size of the tree that holds the record.
    pub size: u64,
    /// Its root.
    pub root: Hash,
    /// Sequence number of the record.
    pub index: u64,
    /// Its leaf hash.
    pub leaf: Hash,
    /// The record, if the proof holds it.
    pub record: Option<Record>,
    /// Who cosigned the checkpoint.
    pub witnessed: Witnessed,
}

impl InclusionProof {
    /// Reads a proof.
    ///
    /// # Errors
    ///
    /// [`NotAProof`]. Stricter than the specification in one point: an `extra` line without data is refused, because it should be left out.
    pub fn parse(bytes: &[u8]) -> Result<Self, NotAProof> {
        let mut parts = Parts::of(bytes, "inclusion proof (c2sp.org/tlog-proof)", TITLE)?;
        let record = match parts.optional("extra") {
            None => None,
            Some(extra) => {
                let record = text::from_base64(extra).filter(|record| !record.is_empty());
                Some(record.ok_or_else(|| parts.no("its extra line is not padded standard base64 of some data"))?)
            }
        };
        let index = parts.value("index")?;
        let index = text::number(index).ok_or_else(|| parts.no(format!("the index {index:?} is no decimal number")))?;
        Ok(Self { record, index, hashes: parts.hashes()?, note: parts.note()? })
    }

    /// Whether it proves what is asked. The findings of the bytes themselves come first, then the signatures, then the age.
    ///
    /// # Errors
    ///
    /// [`Refusal`] with [`Verdict::Tampered`] (the proof does not hold, or the record is another one), [`Verdict::Unsigned`] (signature or
    /// quorum missing), [`Verdict::Unpinned`] (no trust file, another log, nothing that says which record) or [`Verdict::Stale`].
    pub fn check(&self, question: &Question<'_>) -> Result<Included, Refusal> {
        let checkpoint = claimed(&self.note)?;
        let leaf = self.leaf(question, &checkpoint.origin)?;
        verify_inclusion(&leaf, self.index, checkpoint.size, &self.hashes, &checkpoint.root).map_err(tampered)?;
        let record = self.record.as_deref().map(|line| self.read(line)).transpose()?;
        if let Some(input) = question.input {
            compare_input(record.as_ref(), input)?;
        }
        let (checkpoint, witnessed) = witnessed(&self.note, question.trust)?;
        if let Some((max_age, now)) = question.max_age {
            check_age(witnessed.time.or(record.as_ref().map(|record| record.time)), max_age, now)?;
        }
        let (size, root) = (checkpoint.size, checkpoint.root);
        Ok(Included { origin: checkpoint.origin, size, root, index: self.index, leaf, record, witnessed })
    }

    /// The leaf that is to be found in the tree: that of the record, that of the receipt, or both.
    fn leaf(&self, question: &Question<'_>, origin: &str) -> Result<Hash, Refusal> {
        let own = self.record.as_deref().map(leaf_hash);
        let Some(receipt) = question.receipt else {
            let text = "the proof does not hold the record, so it does not say what it proves; bring the receipt (--receipt)";
            return own.ok_or_else(|| Refusal::new(Verdict::Unpinned, text));
        };
        if receipt.log != origin {
            let text = format!("the receipt is of the log {:?}, the proof of the log {origin:?}", receipt.log);
            return Err(Refusal::new(Verdict::Unpinned, text));
        }
        if receipt.seq != self.index {
            return Err(tampered(format!("the receipt is of record {}, the proof of record {}", receipt.seq, self.index)));
        }
        match own {
            Some(own) if own != receipt.leaf => {
                let text =
                    format!("record {} is not the one that the receipt names: expected leaf {}, found {own}", self.index, receipt.leaf);
                Err(tampered(text))
            }
            _ => Ok(receipt.leaf),
        }
    }

    fn read(&self, line: &[u8]) -> Result<Record, Refusal> {
        let record = Record::parse(line).map_err(|error| tampered(format!("the line in the proof is no record: {error}")))?;
        if record.seq == self.index {
            Ok(record)
        } else {
            Err(tampered(format!("the record calls itself record {}, but stands at place {}", record.seq, self.index)))
        }
    }
}

fn tampered(text: impl ToString) -> Refusal {
    Refusal::new(Verdict::Tampered, text.to_string())
}

fn compare_input(record: Option<&Record>, input: Hash) -> Result<(), Refusal> {
    match record.map(|record| &record.event) {
        None => {
            let text = "the proof does not hold the record, so the token cannot be compared with it";
            Err(Refusal::new(Verdict::Unpinned, text))
        }
        Some(Event::Sign(sign)) if sign.input == input => Ok(()),
        Some(Event::Sign(sign)) => {
            Err(tampered(format!("the record is about another token: expected signing input {input}, found {}", sign.input)))
        }
        Some(other) => Err(tampered(format!("the record is about no token: it is {}, not sign", other.name()))),
    }
}

fn check_age(time: Option<Timestamp>, max_age: Duration, now: Timestamp) -> Result<(), Refusal> {
    let Some(time) = time else {
        let text = "nothing says how old the checkpoint is: the trust file asks for no quorum, and the proof does not hold the record";
        return Err(Refusal::new(Verdict::Stale, text));
    };
    if now.since(time) > max_age {
        let text = format!("older than --max-age: expected {} or later, found {time}", now - max_age);
        return Err(Refusal::new(Verdict::Stale, text));
    }
    Ok(())
}

impl fmt::Display for InclusionProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{TITLE}")?;
        if let Some(record) = &self.record {
            writeln!(f, "extra {}", text::base64(record))?;
        }
        writeln!(f, "index {}", self.index)?;
        text::write_hashes(&self.hashes, f)?;
        text::write_note(&self.note, f)
    }
}
