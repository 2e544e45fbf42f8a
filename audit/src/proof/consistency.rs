//! Consistency proofs: the log of one size is the beginning of the log of another size.
//!
//! In scope: the text, and checking it against a trust file. Out of scope: making one (`make`).

use std::fmt;

use crate::merkle::{Hash, verify_consistency};
use crate::note::Note;
use crate::trust::{Policy, Witnessed};
use crate::verify::Verdict;

use super::text::{self, NotAProof, Parts};
use super::{Refusal, claimed, signed, witnessed};

const TITLE: &str = "claviger consistency proof v1";

/// The tree of the first records of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tree {
    /// How many.
    pub size: u64,
    /// Its root.
    pub root: Hash,
}

/// A consistency proof. What this reads, it writes again byte for byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsistencyProof {
    /// The log.
    pub origin: String,
    /// The older tree.
    pub from: Tree,
    /// The newer tree.
    pub to: Tree,
    /// RFC 9162 section 2.1.4.1.
    pub hashes: Vec<Hash>,
    /// The signed checkpoint of the older tree, if there is one.
    pub from_note: Option<Note>,
    /// That of the newer tree. Where both trees are one, a single note is this one.
    pub to_note: Option<Note>,
}

/// What a proof has shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grown {
    /// Whether the older tree has a signature of its own. Without one it is still what the newer tree, which is signed, began with.
    pub from_signed: bool,
    /// Who cosigned the newer tree.
    pub witnessed: Witnessed,
}

impl ConsistencyProof {
    /// Reads a proof.
    ///
    /// # Errors
    ///
    /// [`NotAProof`].
    pub fn parse(bytes: &[u8]) -> Result<Self, NotAProof> {
        let mut parts = Parts::of(bytes, "consistency proof", TITLE)?;
        let origin = parts.value("origin")?.to_owned();
        let from = tree(&mut parts, "from")?;
        let to = tree(&mut parts, "to")?;
        let hashes = parts.hashes()?;
        let mut notes = parts.notes()?.into_iter();
        let (from_note, to_note) = match (notes.next(), notes.next(), notes.next()) {
            (Some(only), None, _) if claimed(&only).is_ok_and(|checkpoint| checkpoint.size != to.size) => (Some(only), None),
            (only, None, _) => (None, only),
            (from, to, None) => (from, to),
            _ => return Err(parts.no("it has more than two notes")),
        };
        Ok(Self { origin, from, to, hashes, from_note, to_note })
    }

    /// Whether the older tree is the beginning of the newer one, and the log signed for the newer one, which settles both.
    ///
    /// # Errors
    ///
    /// [`Refusal`] with [`Verdict::Tampered`] (the proof does not hold, or a note is of another tree), [`Verdict::Unsigned`] (a signature or
    /// the quorum is missing) or [`Verdict::Unpinned`] (no trust file, another log, nothing signed).
    pub fn check(&self, trust: Option<&Policy>) -> Result<Grown, Refusal> {
        verify_consistency(self.from.size, &self.from.root, self.to.size, &self.to.root, &self.hashes)
            .map_err(|error| Refusal::new(Verdict::Tampered, error.to_string()))?;
        for (note, tree) in [(&self.from_note, self.from), (&self.to_note, self.to)] {
            self.compare(note.as_ref(), tree)?;
        }
        self.from_note.as_ref().map(|note| signed(note, trust)).transpose()?;
        let Some(newer) = &self.to_note else {
            let text =
                format!("nothing is signed: the proof holds no note of {} records, so anybody can have made both trees", self.to.size);
            return Err(Refusal::new(Verdict::Unpinned, text));
        };
        let (_, witnessed) = witnessed(newer, trust)?;
        Ok(Grown { from_signed: self.from_note.is_some() || self.from == self.to, witnessed })
    }

    /// A note in the proof is of the log and of the tree that the head names.
    fn compare(&self, note: Option<&Note>, tree: Tree) -> Result<(), Refusal> {
        let Some(checkpoint) = note.map(claimed).transpose()? else { return Ok(()) };
        if (checkpoint.origin.as_str(), checkpoint.size, checkpoint.root) == (self.origin.as_str(), tree.size, tree.root) {
            return Ok(());
        }
        let text = format!("the proof is about {} records of {:?} with the root {}", tree.size, self.origin, tree.root);
        let found = format!("its note states {} records of {:?} with the root {}", checkpoint.size, checkpoint.origin, checkpoint.root);
        Err(Refusal::new(Verdict::Tampered, format!("{text}, but {found}")))
    }
}

/// `<name> <size> <root>`
fn tree(parts: &mut Parts<'_>, name: &str) -> Result<Tree, NotAProof> {
    let value = parts.value(name)?;
    let tree = value.split_once(' ').and_then(|(size, root)| Some(Tree { size: text::number(size)?, root: text::hash(root)? }));
    tree.ok_or_else(|| parts.no(format!("the line `{name}` holds no size and base64 root: {value:?}")))
}

impl fmt::Display for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.size, text::base64(self.root.as_bytes()))
    }
}

impl fmt::Display for ConsistencyProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{TITLE}\norigin {}\nfrom {}\nto {}", self.origin, self.from, self.to)?;
        text::write_hashes(&self.hashes, f)?;
        [&self.from_note, &self.to_note].into_iter().flatten().try_for_each(|note| text::write_note(note, f))
    }
}
