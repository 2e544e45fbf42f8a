//! Signed notes against a log: what the log key stated, on the disk or in somebody's memory, whether the lines agree, and who witnessed it.
//!
//! In scope: signatures, sizes, roots and the quorum; truncation, tampering and forks that they show, and what proves a fork to others. Out
//! of scope: which log key is in force at which size (`signers`).

use std::collections::BTreeMap;

use crate::checkpoint::Checkpoint;
use crate::merkle::{Hash, ProofMaker, verify_consistency};
use crate::note::{Note, NoteError, VerifiedSignatures, VerifierKey};
use crate::proof::{ForkProof, Grafted};
use crate::trust::{MissingQuorum, Policy, Witnessed};

use super::chain::Scan;
use super::finding::{Finding, Findings, Verdict};
use super::signers::Signers;
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

    /// The size and the root that it claims.
    pub(super) fn tree(&self) -> Option<(u64, Hash)> {
        self.claimed.as_ref().map(|checkpoint| (checkpoint.size, checkpoint.root))
    }

    fn verify(&self, origin: &str, signers: &Signers<'_>, known: &[VerifierKey]) -> Result<Stated<'_>, Box<Finding>> {
        let unsigned = |text: String| Box::new(Finding::new(Verdict::Unsigned, text));
        let note = self.note.as_ref().map_err(|error| unsigned(error.to_string()))?;
        let (checkpoint, signatures) = Checkpoint::from_note(note, origin, known).map_err(|error| unsigned(error.to_string()))?;
        let stated = Stated { name: &self.name, size: checkpoint.size, root: checkpoint.root, note, signatures };
        if !stated.signed_by(origin).any(|key| signers.may_sign(key)) {
            let lines: Vec<String> = stated.signed_by(origin).map(|key| format!("log {key}")).collect();
            let text = "it is signed by a key that the trust file does not list; if you expect it, add the line that is shown as found";
            return Err(Box::new(unsigned(text.to_owned()).differ("a key of the trust file", lines.join(", "))));
        }
        Ok(stated)
    }
}

/// A checkpoint that a key of the log signed.
struct Stated<'a> {
    name: &'a str,
    size: u64,
    root: Hash,
    note: &'a Note,
    signatures: VerifiedSignatures,
}

impl Stated<'_> {
    /// The keys that signed in the name of the log.
    fn signed_by(&self, origin: &str) -> impl Iterator<Item = &VerifierKey> {
        self.signatures.iter().filter(move |signature| signature.time.is_none() && signature.key.name() == origin).map(|one| &one.key)
    }
}

/// The newest verified checkpoint that the lines agree with and that reaches the quorum.
pub(super) struct Covered {
    pub(super) size: u64,
    /// The whole note.
    pub(super) note: String,
    /// Who witnessed it, and until when the quorum vouches for it.
    pub(super) witnessed: Witnessed,
}

impl Covered {
    /// The witnesses that cosigned it, and when.
    pub(super) fn cosigners(&self) -> Vec<String> {
        self.witnessed.cosigners.iter().map(|cosigner| format!("{} at {}", cosigner.name, cosigner.time)).collect()
    }
}

/// What was signed, and how much of it is there.
#[derive(Default)]
pub(super) struct Judged {
    pub(super) covered: Option<Covered>,
    /// The size of the newest checkpoint that the log key signed and the lines agree with, witnessed or not.
    pub(super) signed: u64,
    /// The largest size that the log key signed for, reached or not: everything below it was durable.
    pub(super) stated: u64,
    /// The keys whose signatures counted.
    pub(super) used: Vec<VerifierKey>,
}

/// Compares what was signed with what is there. A fork makes it read the log once more, for the proof. Of a log that ended, what lies beside
/// it (`on_disk`) may name as many records as it is known to have had (`accepted`), because the loss of the rest was accepted. What somebody
/// remembers may not: it is the evidence of the loss.
pub(super) fn judge(
    (files, scan): (&LogFiles<'_>, &Scan),
    (origin, accepted): (&str, Option<u64>),
    (signers, policy): (&Signers<'_>, Option<&Policy>),
    (on_disk, remembered): (&[Statement], &[&Statement]),
    findings: &mut Findings,
) -> Judged {
    let mut judged = Judged::default();
    let mut agreeing = Vec::new();
    let mut differing = Vec::new();
    let mut missing = Vec::new();
    let known = signers.known();
    let statements = on_disk.iter().map(|statement| (statement, accepted)).chain(remembered.iter().map(|statement| (*statement, None)));
    if on_disk.is_empty() && remembered.is_empty() {
        findings.push(Finding::new(Verdict::Unsigned, "there is no checkpoint: nobody signed for these records").of(origin));
    }
    for (statement, accepted) in statements {
        match statement.verify(origin, signers, &known) {
            Err(finding) => findings.push(named(*finding, &statement.name).of(origin)),
            Ok(stated) => {
                judged.stated = judged.stated.max(stated.size);
                match scan.root_at(stated.size) {
                    None if accepted.is_some_and(|known| stated.size <= known) => {}
                    // An earlier run has compared it.
                    None if stated.size < scan.resumed_at() => {}
                    None => missing.push(stated),
                    Some(root) if root == stated.root => agreeing.push(stated),
                    Some(root) => differing.push((stated, root)),
                }
            }
        }
    }
    let newest = agreeing.iter().max_by_key(|stated| stated.size);
    for (stated, root) in differing.iter().filter(|(stated, _)| !reaches(newest, stated)) {
        findings.push(changed(stated, *root).of(origin));
    }
    for stated in &missing {
        findings.push(too_short(stated, scan.size()).of(origin));
    }
    for (number, (stated, root, other)) in contradictions(&differing, &missing, newest).into_iter().enumerate() {
        let mut finding = fork(stated, root, other).of(origin);
        // One proof convicts the key. More would only make the log be read again.
        if number == 0 {
            finding.proof = prove_fork(files, stated, root, other).map(Box::new);
        }
        findings.push(finding);
    }
    agreeing.retain(|stated| {
        let keys: Vec<&VerifierKey> = stated.signed_by(origin).collect();
        match signers.check(stated.size, &keys) {
            Ok(()) => judged.used.extend(keys.into_iter().cloned()),
            Err(finding) => {
                findings.push(named(*finding, stated.name).of(origin));
                return false;
            }
        }
        true
    });
    judged.signed = agreeing.iter().map(|stated| stated.size).max().unwrap_or_default();
    match witnessed(agreeing, policy) {
        Ok((stated, witnessed)) => {
            judged.covered = Some(Covered { size: stated.size, note: stated.note.to_string(), witnessed });
        }
        // The log that goes on from it needs its own quorum, and vouches for all of it.
        Err(Some(_)) if accepted.is_some() => {}
        Err(Some((size, missing))) => findings.push(quorum_missing(size, &missing).of(origin)),
        Err(None) => {}
    }
    judged
}

/// The newest checkpoint that is witnessed as the trust file demands. Cosignatures count together wherever notes of one size hold them.
fn witnessed<'a>(agreeing: Vec<Stated<'a>>, policy: Option<&Policy>) -> Result<(Stated<'a>, Witnessed), Option<(u64, MissingQuorum)>> {
    let mut by_size: BTreeMap<u64, Stated<'a>> = BTreeMap::new();
    for stated in agreeing.into_iter().filter(|stated| stated.size > 0) {
        match by_size.get_mut(&stated.size) {
            Some(same) => {
                same.signatures.extend(&stated.signatures);
                // What is remembered of this run should carry as many of them as one note has.
                if stated.note.signatures().len() > same.note.signatures().len() {
                    same.note = stated.note;
                }
            }
            None => drop(by_size.insert(stated.size, stated)),
        }
    }
    let mut missing: Option<(u64, MissingQuorum)> = None;
    for stated in by_size.into_values().rev() {
        let none = Witnessed { time: None, cosigners: Vec::new() };
        match policy.map_or(Ok(none), |policy| policy.quorum_met(&stated.signatures)) {
            Ok(witnessed) => return Ok((stated, witnessed)),
            // The newest that somebody cosigned tells more than a newer one that nobody did.
            Err(error) if missing.as_ref().is_none_or(|(_, newer)| newer.cosigned.is_empty() && !error.cosigned.is_empty()) => {
                missing = Some((stated.size, error));
            }
            Err(_) => {}
        }
    }
    Err(missing)
}

fn quorum_missing(size: u64, missing: &MissingQuorum) -> Finding {
    let text = format!("no checkpoint is witnessed as the trust file demands; at size {size}: {missing}");
    let names = |names: &[String]| if names.is_empty() { "nobody".to_owned() } else { names.join(", ") };
    let finding = Finding::new(Verdict::Unsigned, text);
    finding.differ(format_args!("quorum {:?}", missing.quorum), format_args!("cosigned by {}", names(&missing.cosigned)))
}

fn named(finding: Finding, name: &str) -> Finding {
    Finding { text: format!("{name}: {}", finding.text), ..finding }
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
