//! Signed notes against a log: what the log key stated, on the disk or in somebody's memory, and whether the lines agree.
//!
//! In scope: signatures, sizes and roots; truncation, tampering and forks that they show, and what proves a fork to others. Out of scope:
//! which keys may sign (`pins`).

use std::collections::BTreeMap;

use crate::checkpoint::Checkpoint;
use crate::merkle::{Hash, ProofMaker, verify_consistency};
use crate::note::{Note, NoteError, VerifierKey};
use crate::proof::{ForkProof, Grafted};
use crate::time::Timestamp;

use super::chain::Scan;
use super::finding::{Finding, Findings, Verdict};
use super::{LogFiles, NoteFile, leaves};

/// A note, not yet verified.
pub(super) struct Statement {
    name: String,
    note: Result<Note, NoteError>,
    claimed: Option<Checkpoint>,
}

impl Statement {
    pub(super) fn new(file: &NoteFile) -> Self {
        let note = Note::parse(&file.bytes);
        let claimed = note.as_ref().ok().and_then(|note| note.text().parse().ok());
        Self { name: file.name.clone(), note, claimed }
    }

    /// What reports call it.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Why it claims nothing.
    pub(super) fn defect(&self) -> String {
        let parsed = self.note.as_ref().map(|note| note.text().parse::<Checkpoint>());
        match parsed {
            Err(error) => error.to_string(),
            Ok(Err(error)) => error.to_string(),
            Ok(Ok(_)) => String::new(),
        }
    }

    /// The log that the note claims to be of.
    pub(super) fn origin(&self) -> Option<&str> {
        self.claimed.as_ref().map(|checkpoint| checkpoint.origin.as_str())
    }

    /// The size that it claims.
    pub(super) fn size(&self) -> Option<u64> {
        self.claimed.as_ref().map(|checkpoint| checkpoint.size)
    }

    fn verify(&self, origin: &str, keys: &[VerifierKey]) -> Result<Stated<'_>, String> {
        let note = self.note.as_ref().map_err(NoteError::to_string)?;
        let (checkpoint, _) = Checkpoint::from_note(note, origin, keys).map_err(|error| error.to_string())?;
        Ok(Stated { name: &self.name, size: checkpoint.size, root: checkpoint.root, note })
    }
}

/// A checkpoint that the log key signed.
struct Stated<'a> {
    name: &'a str,
    size: u64,
    root: Hash,
    note: &'a Note,
}

/// The newest verified checkpoint that the lines agree with.
pub(super) struct Covered {
    pub(super) size: u64,
    pub(super) root: Hash,
    /// The time of the last record that it covers.
    pub(super) time: Option<Timestamp>,
    /// The whole note.
    pub(super) note: String,
}

/// What was signed, and how much of it is there.
#[derive(Default)]
pub(super) struct Judged {
    pub(super) covered: Option<Covered>,
    /// The largest size that the log key signed for, reached or not: everything below it was durable.
    pub(super) stated: u64,
}

/// Compares what was signed with what is there. A fork makes it read the log once more, for the proof.
pub(super) fn judge(
    files: &LogFiles<'_>,
    scan: &Scan,
    keys: (&str, &[VerifierKey]),
    statements: &[&Statement],
    findings: &mut Findings,
) -> Judged {
    let (origin, keys) = keys;
    let mut stated_size = 0;
    let mut agreeing = Vec::new();
    let mut differing = Vec::new();
    let mut missing = Vec::new();
    if statements.is_empty() {
        findings.push(Finding::new(Verdict::Unsigned, "there is no checkpoint: nobody signed for these records").of(origin));
    }
    for statement in statements {
        match statement.verify(origin, keys) {
            Err(error) => findings.push(Finding::new(Verdict::Unsigned, format!("{}: {error}", statement.name)).of(origin)),
            Ok(stated) => {
                stated_size = stated_size.max(stated.size);
                match scan.root_at(stated.size) {
                    None => missing.push(stated),
                    Some(root) if root == stated.root => agreeing.push(stated),
                    Some(root) => differing.push((stated, root)),
                }
            }
        }
    }
    let newest = agreeing.into_iter().max_by_key(|stated| stated.size);
    for (stated, root) in differing.iter().filter(|(stated, _)| !reaches(newest.as_ref(), stated)) {
        findings.push(changed(stated, *root).of(origin));
    }
    for stated in &missing {
        findings.push(too_short(stated, scan.size()).of(origin));
    }
    for (number, (stated, root, other)) in contradictions(&differing, &missing, newest.as_ref()).into_iter().enumerate() {
        let mut finding = fork(stated, root, other).of(origin);
        // One proof convicts the key. More would only make the log be read again.
        if number == 0 {
            finding.proof = prove_fork(files, stated, root, other).map(Box::new);
        }
        findings.push(finding);
    }
    let covered = newest.filter(|stated| stated.size > 0).map(|stated| Covered {
        size: stated.size,
        root: stated.root,
        time: scan.time_at(stated.size),
        note: stated.note.to_string(),
    });
    Judged { covered, stated: stated_size }
}

fn too_short(stated: &Stated<'_>, size: u64) -> Finding {
    let text = format!("the log is shorter than {} says: it was cut or rolled back", stated.name);
    Finding::new(Verdict::Truncated, text).differ(format_args!("{} records", stated.size), format_args!("{size} records"))
}

fn changed(stated: &Stated<'_>, root: Hash) -> Finding {
    let finding = Finding::new(Verdict::Tampered, format!("the records are not those that {} covers", stated.name));
    finding.differ(format_args!("root {} at size {}", stated.root, stated.size), format_args!("root {root}"))
}

/// Whether the newest checkpoint that the lines agree with is at least as long.
fn reaches(newest: Option<&Stated<'_>>, stated: &Stated<'_>) -> bool {
    newest.is_some_and(|newest| newest.size >= stated.size)
}

/// A fork needs two signatures: a checkpoint, and another one that is at least as long and has another root at its size. The lines show
/// that root where they agree with the other; two checkpoints of one size contradict each other whatever the lines say.
fn contradictions<'s, 'n>(
    differing: &'s [(Stated<'n>, Hash)],
    missing: &'s [Stated<'n>],
    newest: Option<&'s Stated<'n>>,
) -> Vec<(&'s Stated<'n>, Hash, &'s Stated<'n>)> {
    let mut found = Vec::new();
    let mut by_size: BTreeMap<u64, &Stated<'_>> = BTreeMap::new();
    for (stated, root) in differing {
        match newest.filter(|_| reaches(newest, stated)) {
            Some(newest) => found.push((stated, *root, newest)),
            None => found.extend(of_one_size(&mut by_size, stated)),
        }
    }
    found.extend(missing.iter().filter_map(|stated| of_one_size(&mut by_size, stated)));
    found
}

/// The first checkpoint of this size, and this one, if their roots differ.
fn of_one_size<'s, 'n>(
    by_size: &mut BTreeMap<u64, &'s Stated<'n>>,
    stated: &'s Stated<'n>,
) -> Option<(&'s Stated<'n>, Hash, &'s Stated<'n>)> {
    let first = *by_size.entry(stated.size).or_insert(stated);
    (first.root != stated.root).then_some((first, stated.root, stated))
}

fn fork(stated: &Stated<'_>, root: Hash, other: &Stated<'_>) -> Finding {
    let text = format!("the log key signed two histories: {} and {} contradict each other", stated.name, other.name);
    let notes = vec![stated.note.to_string(), other.note.to_string()];
    let finding = Finding { notes, ..Finding::new(Verdict::Forked, text) };
    finding.differ(format_args!("root {} at size {}", stated.root, stated.size), format_args!("root {root}"))
}

/// What convinces others of a fork. The verdict stands without it: `None` if the lines cannot be read again, or have changed since.
fn prove_fork(files: &LogFiles<'_>, stated: &Stated<'_>, root: Hash, longer: &Stated<'_>) -> Option<ForkProof> {
    let notes = |grafted| ForkProof { shorter: stated.note.clone(), longer: longer.note.clone(), grafted };
    if stated.size == longer.size {
        return Some(notes(None));
    }
    let maker = ProofMaker::consistency(stated.size, longer.size).ok()?;
    let hashes = leaves::prove(files, maker).ok()?.ok()?;
    verify_consistency(stated.size, &root, longer.size, &longer.root, &hashes).ok()?;
    Some(notes(Some(Grafted { root, hashes })))
}
