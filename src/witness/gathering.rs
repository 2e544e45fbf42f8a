//! What witnesses said of one log: which checkpoint they are to cosign now, and whether enough of them did.
//!
//! In scope: one checkpoint at a time for all witnesses, so that a quorum meets on the same one although new ones come every second; storing it
//! when the quorum is reached. Out of scope: asking, and judging a single cosignature (`submission`).

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use claviger_audit::checkpoint::Checkpoint;
use claviger_audit::note::{Note, VerifierKey};
use claviger_audit::trust::Policy;
use tokio::sync::watch;

use crate::clock::Monotonic;
use crate::journal::checkpoint::Covered;
use crate::journal::{Checkpointer, Follower, Signed};

/// Checkpoints whose late cosignatures still count.
const MOST_CANDIDATES: usize = 4;

/// The cosignatures of one log.
pub struct Gathering {
    checkpoints: Checkpointer,
    policy: Arc<Policy>,
    /// The log key and the witnesses' keys.
    /// How long a checkpoint may wait for its quorum before a newer one takes its place.
    round: Duration,
    candidates: Mutex<VecDeque<Candidate>>,
    witnessed: watch::Sender<u64>,
    /// The newest stored note that reached the quorum.
    note: Mutex<Option<Arc<str>>>,
    /// Held while one is stored, so that an older one can never replace a newer. Readers do not wait for it.
    storing: Mutex<()>,
    /// Woken whenever there may be something else to cosign.
    turned: watch::Sender<()>,
}

struct Candidate {
    checkpoint: Arc<Signed>,
    since: Option<Monotonic>,
    /// Signature lines, by witness.
    lines: Vec<Option<String>>,
    is_met: bool,
}

impl Candidate {
    fn note(&self) -> String {
        let mut note = self.checkpoint.note.clone();
        self.lines.iter().flatten().for_each(|line| {
            note.push_str(line);
            note.push('\n');
        });
        note
    }
}

impl Gathering {
    /// Begins with what was stored before, if it is still good.
    pub fn new(checkpoints: Checkpointer, policy: &Arc<Policy>, round: Duration) -> Self {
        let stored = checkpoints.stored_witnessed().ok().flatten();
        let gathering = Self {
            checkpoints,
            policy: policy.clone(),
            round,
            candidates: Mutex::default(),
            witnessed: watch::Sender::new(0),
            note: Mutex::default(),
            storing: Mutex::default(),
            turned: watch::Sender::new(()),
        };
        if let Some(candidate) = stored.and_then(|bytes| gathering.resume(&bytes)) {
            gathering.witnessed.send_replace(if candidate.is_met { candidate.checkpoint.size } else { 0 });
            *gathering.note.lock().unwrap_or_else(PoisonError::into_inner) = candidate.is_met.then(|| candidate.note().into());
            gathering.lock().push_back(candidate);
        }
        gathering
    }

    /// The checkpoint that all witnesses are to cosign now: the newest of the time when the one before had its quorum, or had waited for a
    /// round in vain.
    pub fn candidate(&self, now: Monotonic) -> Option<Arc<Signed>> {
        let newest = self.checkpoints.newest().borrow().clone();
        let mut candidates = self.lock();
        if let Some(newest) = newest {
            let may_turn = |last: &Candidate| last.is_met || last.since.is_none_or(|since| now.since(since) >= self.round);
            let turns = candidates.back().is_none_or(|last| last.checkpoint.size < newest.size && may_turn(last));
            if turns {
                let lines = vec![None; self.policy.witnesses().len()];
                candidates.push_back(Candidate { checkpoint: newest, since: Some(now), lines, is_met: false });
                if candidates.len() > MOST_CANDIDATES {
                    candidates.pop_front();
                }
            }
        }
        candidates.back().map(|last| last.checkpoint.clone())
    }

    /// Whether this witness cosigned that checkpoint.
    pub fn has(&self, witness: usize, size: u64) -> bool {
        let is_signed = |candidate: &Candidate| candidate.lines.get(witness).is_some_and(Option::is_some);
        self.lock().iter().any(|candidate| candidate.checkpoint.size == size && is_signed(candidate))
    }

    /// The largest checkpoint that this witness is remembered to have cosigned; 0 if none is.
    pub fn remembered(&self, witness: usize) -> u64 {
        let signed = |candidate: &&Candidate| candidate.lines.get(witness).is_some_and(Option::is_some);
        self.lock().iter().filter(signed).map(|candidate| candidate.checkpoint.size).max().unwrap_or(0)
    }

    /// Takes a witness's valid cosignature; `place` is where the checkpoint ends. With it the quorum may be reached: then the checkpoint is
    /// stored, and those who wait are told.
    pub fn add(&self, witness: usize, checkpoint: &Signed, line: &str, place: &Covered) {
        let storing = self.storing.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((note, is_met)) = self.count(witness, checkpoint.size, line) else { return };
        if is_met && checkpoint.size >= self.witnessed() {
            match self.checkpoints.store_witnessed(&note, place) {
                Ok(()) => {
                    *self.note.lock().unwrap_or_else(PoisonError::into_inner) = Some(note.into());
                    // The commit point: it is durable, and from here on a verb may say that it is witnessed.
                    self.witnessed.send_replace(checkpoint.size);
                }
                Err(error) => tracing::error!(log = self.checkpoints.origin(), %error, "a witnessed checkpoint could not be stored"),
            }
        }
        drop(storing);
        self.turned.send_replace(());
    }

    /// Adds a line to the candidate of this size: its note then, and whether that reaches the quorum.
    fn count(&self, witness: usize, size: u64, line: &str) -> Option<(String, bool)> {
        let mut candidates = self.lock();
        let candidate = candidates.iter_mut().find(|candidate| candidate.checkpoint.size == size)?;
        *candidate.lines.get_mut(witness)? = Some(line.to_owned());
        let note = candidate.note();
        candidate.is_met = self.is_met(&note);
        Some((note, candidate.is_met))
    }

    /// How many records the newest stored checkpoint with a quorum covers.
    pub fn witnessed(&self) -> u64 {
        *self.witnessed.borrow()
    }

    /// The same, for waiting.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.witnessed.subscribe()
    }

    /// That checkpoint's note.
    pub fn witnessed_note(&self) -> Option<Arc<str>> {
        self.note.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The note of a checkpoint with all the cosignatures that there are, be they enough or not.
    pub fn note_of(&self, checkpoint: &Signed) -> String {
        let candidates = self.lock();
        let found = candidates.iter().find(|candidate| candidate.checkpoint.size == checkpoint.size);
        found.map_or_else(|| checkpoint.note.clone(), Candidate::note)
    }

    /// The newest checkpoint, asked for a turn or not.
    pub(super) fn newest(&self) -> watch::Receiver<Option<Arc<Signed>>> {
        self.checkpoints.newest()
    }

    /// Woken whenever there may be something else to cosign.
    pub(super) fn turned(&self) -> watch::Receiver<()> {
        self.turned.subscribe()
    }

    /// A reader of the log, for the thread of one witness.
    pub(super) fn follower(&self) -> Follower {
        self.checkpoints.follower()
    }

    /// Whose signatures are known: the log's own keys, which a rotation adds to, and the witnesses'.
    fn keys(&self) -> Vec<VerifierKey> {
        let witnesses = self.policy.witnesses().iter().map(|witness| witness.key.clone());
        self.checkpoints.keys().into_iter().chain(witnesses).collect()
    }

    fn is_met(&self, note: &str) -> bool {
        let verified = Note::parse(note.as_bytes()).ok().and_then(|note| note.verify(&self.keys()).ok());
        verified.is_some_and(|signatures| self.policy.quorum_met(&signatures).is_ok())
    }

    /// A stored note, if it is this log's and no newer than its checkpoints, as a candidate with the cosignatures that still hold.
    fn resume(&self, bytes: &[u8]) -> Option<Candidate> {
        let note = Note::parse(bytes).ok()?;
        let (checkpoint, _) = Checkpoint::from_note(&note, self.checkpoints.origin(), &self.keys()).ok()?;
        let newest = self.checkpoints.newest().borrow().clone()?;
        if checkpoint.size > newest.size || (checkpoint.size == newest.size && checkpoint.root != newest.root) {
            return None;
        }
        let text = String::from_utf8(bytes.to_vec()).ok()?;
        let is_by = |line: &str, key: &VerifierKey| {
            let alone = Note::parse(format!("{}\n{line}\n", note.text()).as_bytes()).ok();
            alone.is_some_and(|alone| alone.verify(std::slice::from_ref(key)).is_ok())
        };
        let signatures: Vec<&str> = text.get(note.text().len() + 1..)?.lines().collect();
        let line_by = |key: &VerifierKey| signatures.iter().find(|line| is_by(line, key)).map(|line| (*line).to_owned());
        let lines = self.policy.witnesses().iter().map(|witness| line_by(&witness.key)).collect();
        // After a rotation of the log key a checkpoint has two lines by the log itself.
        let own: Vec<String> = self.checkpoints.keys().iter().filter_map(line_by).collect();
        let own = format!("{}\n{}\n", note.text(), own.join("\n"));
        let checkpoint = Arc::new(Signed { size: checkpoint.size, root: checkpoint.root, note: own });
        let mut candidate = Candidate { checkpoint, since: None, lines, is_met: false };
        candidate.is_met = self.is_met(&candidate.note());
        Some(candidate)
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Candidate>> {
        self.candidates.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
