//! Making proofs from a log: which checkpoint covers a record, and the hashes that lead to it.
//!
//! In scope: inclusion and consistency proofs under checkpoints that verify and that the lines agree with. Out of scope: verifying the
//! log; a proof holds without that, or is not made.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::ControlFlow;

use crate::checkpoint::Checkpoint;
use crate::merkle::{Frontier, Hash, ProofError, ProofMaker, verify_consistency, verify_inclusion};
use crate::note::{Note, VerifiedSignatures, VerifierKey};
use crate::trust::Policy;
use crate::verify::{LogFiles, NoteFile, Verdict, leaves};

use super::{ConsistencyProof, InclusionProof, Refusal, Tree, claimed};

/// The record that is to be proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedRecord {
    /// Its sequence number.
    pub seq: u64,
    /// Its leaf hash, if a receipt names it.
    pub leaf: Option<Hash>,
    /// Whether the proof should hold its line.
    pub with_line: bool,
}

/// The sizes between which consistency is to be proven.
#[derive(Clone, Debug, Default)]
pub struct Stretch {
    /// The smaller size.
    pub from: u64,
    /// The larger size; by default that of the newest checkpoint.
    pub to: Option<u64>,
    /// Signed notes from elsewhere, each of one of these sizes.
    pub notes: Vec<NoteFile>,
}

/// Why there is no proof.
#[derive(Debug, thiserror::Error)]
pub enum Unprovable {
    /// A file could not be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The log does not have what was asked for.
    #[error("{0}")]
    NotFound(String),
    /// What was asked for makes no sense.
    #[error("{0}")]
    Usage(String),
    /// The log is in no state to prove it.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

impl Unprovable {
    fn refused(verdict: Verdict, text: impl Into<String>) -> Self {
        Self::Refused(Refusal::new(verdict, text))
    }
}

/// Proves that a record is in the log, under the newest checkpoint that covers it: signed by a log key of `trust` and cosigned as it
/// demands, or, without `trust`, signed by the key that the log names itself.
///
/// # Errors
///
/// [`Unprovable`]; [`Verdict::Tampered`] and [`Verdict::Truncated`] if a leaf hash was given that is not the one in the log.
pub fn inclusion(files: &LogFiles<'_>, wanted: &WantedRecord, trust: Option<&Policy>) -> Result<InclusionProof, Unprovable> {
    let signer = Signer::of(files, trust)?;
    let statements: Vec<Statement> = files.notes.iter().filter_map(|note| signer.read(note).ok()).collect();
    let survey = Survey::read(files, Some(wanted.seq), statements.iter().map(|statement| statement.tree.size))?;
    let Some((leaf, line)) = survey.leaf.clone() else {
        let text = format!("there is no record {}: the log has {} records{}", wanted.seq, survey.size, survey.end());
        return Err(if wanted.leaf.is_some() { Unprovable::refused(Verdict::Truncated, text) } else { Unprovable::NotFound(text) });
    };
    if let Some(expected) = wanted.leaf.filter(|expected| *expected != leaf) {
        let text = format!("record {} is not the one that the receipt names: expected leaf {expected}, found {leaf}", wanted.seq);
        return Err(Unprovable::refused(Verdict::Tampered, text));
    }
    let covering = statements.iter().filter(|statement| statement.tree.size > wanted.seq);
    let chosen = signer.newest(covering, &survey, &format!("record {}", wanted.seq))?;
    let Tree { size, root } = chosen.tree;
    let hashes = leaves::prove(files, ProofMaker::inclusion(wanted.seq, size).map_err(changed)?)?.map_err(changed)?;
    verify_inclusion(&leaf, wanted.seq, size, &hashes, &root).map_err(changed)?;
    Ok(InclusionProof { record: line.filter(|_| wanted.with_line), index: wanted.seq, hashes, note: chosen.note.clone() })
}

/// Proves that the log of one size is the beginning of the log of another size, with the signed notes of both as far as there are any.
///
/// # Errors
///
/// [`Unprovable`]; the notes that were given must be signed by the log and be what the lines make.
pub fn consistency(files: &LogFiles<'_>, stretch: &Stretch, trust: Option<&Policy>) -> Result<ConsistencyProof, Unprovable> {
    let signer = Signer::of(files, trust)?;
    let given: Vec<Statement> = stretch.notes.iter().map(|note| signer.read(note)).collect::<Result<_, _>>()?;
    let beside = files.notes.iter().filter_map(|note| signer.read(note).ok());
    let statements: Vec<Statement> = given.iter().cloned().chain(beside).collect();
    let sizes = statements.iter().map(|statement| statement.tree.size).chain([stretch.from]).chain(stretch.to);
    let survey = Survey::read(files, None, sizes)?;
    for statement in &given {
        survey.compare(statement)?;
    }
    let to = match stretch.to {
        Some(to) => to,
        None => signer.newest(statements.iter(), &survey, "any record")?.tree.size,
    };
    if stretch.from > to {
        return Err(Unprovable::Usage(format!("--from {} is more than --to {to}; a log only grows", stretch.from)));
    }
    let tree = |size: u64| {
        let missing = || Unprovable::NotFound(format!("the log has {} records, not {size}{}", survey.size, survey.end()));
        survey.roots.get(&size).map(|root| Tree { size, root: *root }).ok_or_else(missing)
    };
    let (from, to) = (tree(stretch.from)?, tree(to)?);
    let hashes = leaves::prove(files, ProofMaker::consistency(from.size, to.size).map_err(changed)?)?.map_err(changed)?;
    verify_consistency(from.size, &from.root, to.size, &to.root, &hashes).map_err(changed)?;
    let note = |tree: Tree| statements.iter().filter(|statement| statement.tree == tree).max_by_key(|statement| signer.rank(statement));
    let note = |tree: Tree| note(tree).map(|statement| statement.note.clone());
    // Where both trees are one, so are their notes.
    let from_note = note(from).filter(|_| from != to);
    Ok(ConsistencyProof { origin: signer.origin.clone(), from, to, hashes, from_note, to_note: note(to) })
}

/// Between the two times that the log was read, its lines changed.
fn changed(error: ProofError) -> Unprovable {
    Unprovable::refused(Verdict::Tampered, format!("the log changed while it was read: {error}"))
}

/// Who may sign for a log.
struct Signer<'t> {
    origin: String,
    keys: Vec<VerifierKey>,
    trust: Option<&'t Policy>,
}

/// A checkpoint that the log signed.
#[derive(Clone, Debug)]
struct Statement {
    name: String,
    tree: Tree,
    note: Note,
    signatures: VerifiedSignatures,
}

impl<'t> Signer<'t> {
    fn of(files: &LogFiles<'_>, trust: Option<&'t Policy>) -> Result<Self, Unprovable> {
        let no_beginning = || Unprovable::refused(Verdict::Unpinned, format!("{} does not begin with log.created", files.name));
        let created = leaves::created(files)?.ok_or_else(no_beginning)?;
        let keys = match trust {
            Some(trust) if trust.logs().iter().any(|log| log.key.name() == created.origin) => trust.keys(),
            Some(_) => {
                let text = format!("the trust file knows no log of the origin {:?}", created.origin);
                return Err(Unprovable::refused(Verdict::Unpinned, text));
            }
            None => {
                let no_key = |error| Unprovable::refused(Verdict::Unsigned, format!("log.created names no verifier key: {error}"));
                vec![created.key.parse().map_err(no_key)?]
            }
        };
        Ok(Self { origin: created.origin, keys, trust })
    }

    fn read(&self, file: &NoteFile) -> Result<Statement, Unprovable> {
        let refused = |error: &dyn ToString| Unprovable::refused(Verdict::Unsigned, format!("{}: {}", file.name, error.to_string()));
        let note = Note::parse(&file.bytes).map_err(|error| refused(&error))?;
        let origin = claimed(&note)?.origin;
        if origin != self.origin {
            let text = format!("{} is of the log {origin:?}, not of {:?}", file.name, self.origin);
            return Err(Unprovable::refused(Verdict::Unpinned, text));
        }
        let (checkpoint, signatures) = Checkpoint::from_note(&note, &self.origin, &self.keys).map_err(|error| refused(&error))?;
        let tree = Tree { size: checkpoint.size, root: checkpoint.root };
        Ok(Statement { name: file.name.clone(), tree, note, signatures })
    }

    fn is_witnessed(&self, statement: &Statement) -> bool {
        self.trust.is_none_or(|trust| trust.quorum_met(&statement.signatures).is_ok())
    }

    /// Of checkpoints of one tree, the one that convinces most verifiers.
    fn rank(&self, statement: &Statement) -> (bool, usize) {
        (self.is_witnessed(statement), statement.note.signatures().len())
    }

    /// The newest checkpoint that the lines agree with and that enough witnesses cosigned.
    fn newest<'s>(
        &self,
        statements: impl Iterator<Item = &'s Statement> + Clone,
        survey: &Survey,
        what: &str,
    ) -> Result<&'s Statement, Unprovable> {
        let agreeing = statements.clone().filter(|statement| survey.compare(statement).is_ok());
        let witnessed = agreeing.clone().filter(|statement| self.is_witnessed(statement));
        if let Some(chosen) = witnessed.max_by_key(|statement| (statement.tree.size, self.rank(statement))) {
            return Ok(chosen);
        }
        if let Some(unwitnessed) = agreeing.max_by_key(|statement| statement.tree.size) {
            let missing = self.trust.and_then(|trust| trust.quorum_met(&unwitnessed.signatures).err());
            let text = format!(
                "no checkpoint that covers {what} is cosigned by enough witnesses: {}",
                missing.map_or_else(String::new, |m| m.to_string())
            );
            return Err(Unprovable::refused(Verdict::Unsigned, text));
        }
        for statement in statements {
            survey.compare(statement)?;
        }
        Err(Unprovable::refused(Verdict::Unsigned, format!("no checkpoint by a key that may sign for {:?} covers {what}", self.origin)))
    }
}

/// What one reading of a log leaves.
struct Survey {
    size: u64,
    /// Why reading ended before the end of the files.
    defect: Option<String>,
    roots: BTreeMap<u64, Hash>,
    /// The wanted leaf and its line.
    leaf: Option<(Hash, Option<Vec<u8>>)>,
}

impl Survey {
    fn read(files: &LogFiles<'_>, seq: Option<u64>, sizes: impl Iterator<Item = u64>) -> io::Result<Self> {
        let wanted: BTreeSet<u64> = sizes.collect();
        let mut frontier = Frontier::new();
        let mut survey = Self { size: 0, defect: None, roots: BTreeMap::from([(0, frontier.root())]), leaf: None };
        survey.defect = leaves::each_leaf(files, &mut |leaf| {
            frontier.push(leaf.hash);
            if wanted.contains(&frontier.size()) {
                survey.roots.insert(frontier.size(), frontier.root());
            }
            if seq == Some(leaf.seq) {
                survey.leaf = Some((leaf.hash, leaf.line.map(<[u8]>::to_vec)));
            }
            ControlFlow::Continue(())
        })?;
        survey.size = frontier.size();
        Ok(survey)
    }

    fn end(&self) -> String {
        self.defect.as_ref().map_or_else(String::new, |defect| format!(", and then {defect}"))
    }

    /// Whether the lines are what a checkpoint states.
    fn compare(&self, statement: &Statement) -> Result<(), Unprovable> {
        let Statement { name, tree: Tree { size, root }, .. } = statement;
        match self.roots.get(size) {
            Some(found) if found == root => Ok(()),
            Some(found) => {
                let text = format!("the records are not those that {name} covers: expected root {root} at size {size}, found {found}");
                Err(Unprovable::refused(Verdict::Tampered, text))
            }
            None => {
                let text = format!("{name} covers {size} records, and the log has {}{}", self.size, self.end());
                Err(Unprovable::refused(Verdict::Truncated, text))
            }
        }
    }
}
