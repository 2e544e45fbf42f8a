//! Signed notes against a log: what the log key stated, on the disk or in somebody's memory, and whether the lines agree.
//!
//! In scope: signatures, sizes and roots; truncation, tampering and forks that they show. Out of scope: which keys may sign (`pins`).

use crate::checkpoint::Checkpoint;
use crate::merkle::Hash;
use crate::note::{Note, NoteError, VerifierKey};

use super::NoteFile;
use super::chain::Scan;
use super::finding::{Finding, Findings, Verdict};

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

/// Compares what was signed with what is there. What lies beside the log (`on_disk`) may name as many records as the log is known to have
/// had when the loss of the rest was accepted; what somebody remembers may not: it is the evidence of the loss.
pub(super) fn judge(
    scan: &Scan,
    (origin, keys): (&str, &[VerifierKey]),
    (on_disk, remembered): (&[Statement], &[&Statement]),
    accepted: Option<u64>,
    findings: &mut Findings,
) -> Judged {
    let mut stated_size = 0;
    let mut agreeing = Vec::new();
    let mut differing = Vec::new();
    let statements = on_disk.iter().map(|statement| (statement, accepted)).chain(remembered.iter().map(|statement| (*statement, None)));
    if on_disk.is_empty() && remembered.is_empty() {
        findings.push(Finding::new(Verdict::Unsigned, "there is no checkpoint: nobody signed for these records").of(origin));
    }
    for (statement, accepted) in statements {
        match statement.verify(origin, keys) {
            Err(error) => findings.push(Finding::new(Verdict::Unsigned, format!("{}: {error}", statement.name)).of(origin)),
            Ok(stated) => {
                stated_size = stated_size.max(stated.size);
                match scan.root_at(stated.size) {
                    None if accepted.is_some_and(|known| stated.size <= known) => {}
                    None => findings.push(too_short(&stated, scan.size()).of(origin)),
                    Some(root) if root == stated.root => agreeing.push(stated),
                    Some(root) => differing.push((stated, root)),
                }
            }
        }
    }
    let newest = agreeing.into_iter().max_by_key(|stated| stated.size);
    for (stated, root) in differing {
        findings.push(differs(&stated, root, newest.as_ref()).of(origin));
    }
    let covered = newest.filter(|stated| stated.size > 0).map(|stated| Covered { size: stated.size, note: stated.note.to_string() });
    Judged { covered, stated: stated_size }
}

fn too_short(stated: &Stated<'_>, size: u64) -> Finding {
    let text = format!("the log is shorter than {} says: it was cut or rolled back", stated.name);
    Finding::new(Verdict::Truncated, text).differ(format_args!("{} records", stated.size), format_args!("{size} records"))
}

/// A fork needs two signatures: the lines agree with another checkpoint that is at least as long. Without one, the lines were changed.
fn differs(stated: &Stated<'_>, root: Hash, newest: Option<&Stated<'_>>) -> Finding {
    let finding = match newest.filter(|other| other.size >= stated.size) {
        Some(other) => {
            let text = format!("the log key signed two histories: {} and {} contradict each other", stated.name, other.name);
            let notes = vec![stated.note.to_string(), other.note.to_string()];
            Finding { notes, ..Finding::new(Verdict::Forked, text) }
        }
        None => Finding::new(Verdict::Tampered, format!("the records are not those that {} covers", stated.name)),
    };
    finding.differ(format_args!("root {} at size {}", stated.root, stated.size), format_args!("root {root}"))
}
