//! The use log: one record per signature, refusal and failure of this node.
//!
//! In scope: appends that wait for their sync, notes that do not, and `keys.seen`, which ties the log to the key log. Out of scope: which
//! refusals deserve a record of their own (the signer counts).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{SyncSender, TrySendError};
use std::time::Duration;

use claviger_audit::event::{Event, KeysSeen};
use claviger_audit::keyrings::Illegal;
use claviger_audit::record::{Asked, Record};
use tokio::sync::{oneshot, watch};

use super::committer::{Message, Stage};
use super::file::Batch;
use super::keys::KeyLog;
use super::shared::Shared;
use super::{AppendError, Draft, Head, Receipt};

/// After this long without a record the use log says that it is alive.
pub const USES_HEARTBEAT: Duration = Duration::from_mins(1);
/// Most notes that wait at once: a quarter of the queue, so that refusals never crowd out signatures.
const MOST_NOTES: usize = super::committer::MOST_QUEUED / 4;

/// A handle to the use log; clones are the same log.
#[derive(Clone)]
pub struct UseLog {
    pub(super) shared: Arc<Shared>,
    pub(super) queue: SyncSender<Message<UseJob>>,
}

impl UseLog {
    /// Appends a record. When this returns `Ok`, the record is durable.
    pub async fn append(&self, draft: Draft) -> Result<Receipt, AppendError> {
        if self.shared.is_stopping() {
            return Err(self.shared.why_no_answer());
        }
        let (reply, answer) = oneshot::channel();
        match self.queue.try_send(Message::Job(UseJob { draft, reply: Some(reply) })) {
            Ok(()) => answer.await.unwrap_or_else(|_| Err(self.shared.why_no_answer())),
            Err(TrySendError::Full(_)) => Err(AppendError::Overloaded),
            Err(TrySendError::Disconnected(_)) => Err(self.shared.why_no_answer()),
        }
    }

    /// Leaves a record to the next batch, without waiting. If too many wait already, it is dropped and counted.
    pub fn note(&self, draft: Draft) {
        let shared = &self.shared;
        let room = shared.notes_waiting.fetch_add(1, Ordering::AcqRel) < MOST_NOTES;
        let queued = room && !shared.is_stopping() && self.queue.try_send(Message::Job(UseJob { draft, reply: None })).is_ok();
        if !queued {
            shared.notes_waiting.fetch_sub(1, Ordering::AcqRel);
            shared.notes_dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many notes were dropped, or refused as no record of this log, since the log was opened.
    pub fn dropped_notes(&self) -> u64 {
        self.shared.notes_dropped.load(Ordering::Relaxed)
    }

    /// The origin of the log.
    pub fn origin(&self) -> &Arc<str> {
        &self.shared.origin
    }

    /// The durable size. Also woken when the log is poisoned.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.shared.watch_size()
    }

    /// What is durable.
    pub fn head(&self) -> Head {
        self.shared.head()
    }

    /// Why the log is dead, if it is.
    pub fn poisoned(&self) -> Option<Arc<str>> {
        self.shared.poisoned()
    }

    /// Whether others know more of the log than this disk holds.
    pub fn standing(&self) -> &super::Standing {
        &self.shared.standing
    }

    /// Writes what is queued, then lets go of the file. Later appends get [`AppendError::Stopped`].
    pub async fn stop(&self) {
        self.shared.stopping.store(true, Ordering::Release);
        // A full queue needs no wake: its reader is awake.
        let _ = self.queue.try_send(Message::Wake);
        self.shared.ended().await;
    }
}

impl std::fmt::Debug for UseLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UseLog").field("origin", &self.shared.origin).field("head", &self.head()).finish_non_exhaustive()
    }
}

/// One append, or one note.
pub(super) struct UseJob {
    draft: Draft,
    reply: Option<oneshot::Sender<Result<Receipt, AppendError>>>,
}

/// The committer's side.
pub(super) struct UseStage {
    keys: KeyLog,
    shared: Arc<Shared>,
    seen: u64,
    waiting: Vec<(oneshot::Sender<Result<Receipt, AppendError>>, Receipt)>,
}

impl UseStage {
    /// `seen` is zero at first, so that every start names the key log anew.
    pub(super) fn new(keys: KeyLog, shared: Arc<Shared>) -> Self {
        Self { keys, shared, seen: 0, waiting: Vec::new() }
    }

    /// Names the key log if it grew. Done before every record, so that none names a state of the key log that the log has not yet seen.
    fn name_keys(&mut self, batch: &mut Batch) -> Result<(), Illegal> {
        let snapshot = self.keys.snapshot();
        let size = snapshot.keyrings.size();
        if size > self.seen {
            batch.push(Asked::default(), Event::KeysSeen(KeysSeen { size, leaf: snapshot.leaf }), |_| Ok(()))?;
            self.seen = size;
        }
        Ok(())
    }
}

impl Stage for UseStage {
    type Job = UseJob;

    fn check(&mut self, _record: &Record) -> Result<(), Illegal> {
        Ok(())
    }

    fn begin(&mut self, batch: &mut Batch) -> Result<(), Illegal> {
        self.name_keys(batch)
    }

    fn take(&mut self, batch: &mut Batch, job: UseJob) {
        let UseJob { draft, reply } = job;
        let pushed = self.name_keys(batch).and_then(|()| batch.push(draft.asked, draft.event, |_| Ok(())));
        match (reply, pushed) {
            (Some(reply), Ok(receipt)) => self.waiting.push((reply, receipt)),
            // Who stopped waiting needs no answer.
            (Some(reply), Err(illegal)) => drop(reply.send(Err(illegal.into()))),
            (None, pushed) => {
                self.shared.notes_waiting.fetch_sub(1, Ordering::AcqRel);
                if pushed.is_err() {
                    self.shared.notes_dropped.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    fn committed(&mut self, shared: &Shared, head: Head) -> bool {
        // The commit point: the records are durable, and from here on they are receipts.
        if head.size != shared.head().size {
            shared.advance(head);
        }
        for (reply, receipt) in self.waiting.drain(..) {
            let _ = reply.send(Ok(receipt));
        }
        false
    }

    fn failed(&mut self, reason: &str) {
        for (reply, _) in self.waiting.drain(..) {
            let _ = reply.send(Err(AppendError::Unwritable(reason.to_owned())));
        }
    }
}
