//! The key log: the only way to change keyrings.
//!
//! In scope: proposals that are judged by `Keyrings::apply` on the newest state, written, and only then visible. Out of scope: which event
//! is due (the rotator) and who may ask (policies).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{SyncSender, TrySendError};
use std::time::Duration;

use arc_swap::ArcSwap;
use claviger_audit::Timestamp;
use claviger_audit::event::Event;
use claviger_audit::keyrings::{Illegal, Keyrings};
use claviger_audit::merkle::Hash;
use claviger_audit::record::{Asked, Record};
use tokio::sync::{oneshot, watch};

use super::committer::{Message, Stage};
use super::file::Batch;
use super::shared::Shared;
use super::{AppendError, Head, Receipt};

/// After this long without a record the key log says that it is alive.
pub const KEYS_HEARTBEAT: Duration = Duration::from_hours(1);

/// The keyrings as the durable records made them, and the hash that names that state.
#[derive(Debug)]
pub struct KeySnapshot {
    /// The state; its size is the number of records.
    pub keyrings: Keyrings,
    /// The leaf hash of the last of these records.
    pub leaf: Hash,
}

/// What runs on the committer's thread: the newest state and the time that the records will carry, in; the events, out.
type Propose = Box<dyn FnMut(&Keyrings, Timestamp) -> Result<Vec<Event>, Illegal> + Send>;

/// A handle to the key log; clones are the same log.
#[derive(Clone)]
pub struct KeyLog {
    pub(super) shared: Arc<Shared>,
    pub(super) snapshot: Arc<ArcSwap<KeySnapshot>>,
    pub(super) queue: SyncSender<Message<KeyJob>>,
}

impl KeyLog {
    /// The last durable state.
    pub fn snapshot(&self) -> Arc<KeySnapshot> {
        self.snapshot.load_full()
    }

    /// Appends what `propose` returns, all or nothing. It runs on the log's own thread, on the newest state and with the very time that the
    /// records will carry, so nothing can come between its judgement and the record. It must not block, and a panic
    /// in it ends the log. No event: nothing is written.
    ///
    /// When this returns `Ok`, the records are durable and [`Self::snapshot`] shows them.
    pub async fn append(
        &self,
        asked: Asked,
        propose: impl FnMut(&Keyrings, Timestamp) -> Result<Vec<Event>, Illegal> + Send + 'static,
    ) -> Result<Vec<Receipt>, AppendError> {
        if self.shared.is_stopping() {
            return Err(self.shared.why_no_answer());
        }
        let (reply, answer) = oneshot::channel();
        let job = KeyJob { asked, propose: Box::new(propose), reply };
        match self.queue.try_send(Message::Job(job)) {
            Ok(()) => answer.await.unwrap_or_else(|_| Err(self.shared.why_no_answer())),
            Err(TrySendError::Full(_)) => Err(AppendError::Overloaded),
            Err(TrySendError::Disconnected(_)) => Err(self.shared.why_no_answer()),
        }
    }

    /// Appends one record that Claviger writes by itself, whatever the state.
    pub async fn record(&self, event: Event) -> Result<(), AppendError> {
        self.append(Asked::default(), move |_, _| Ok(vec![event.clone()])).await.map(drop)
    }

    /// The origin of the log.
    pub fn origin(&self) -> &Arc<str> {
        &self.shared.origin
    }

    /// The durable size; it changes after the snapshot did. Also woken when the log is poisoned.
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

impl std::fmt::Debug for KeyLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyLog").field("origin", &self.shared.origin).field("head", &self.head()).finish_non_exhaustive()
    }
}

/// Who waits for an append.
type Reply = oneshot::Sender<Result<Vec<Receipt>, AppendError>>;

/// One append.
pub(super) struct KeyJob {
    asked: Asked,
    propose: Propose,
    reply: Reply,
}

/// The committer's side: the state as it will be once the batch is durable.
pub(super) struct KeyStage {
    working: Keyrings,
    snapshot: Arc<ArcSwap<KeySnapshot>>,
    waiting: Vec<(Reply, Vec<Receipt>)>,
    lifecycle: bool,
}

impl KeyStage {
    pub(super) fn new(working: Keyrings, snapshot: Arc<ArcSwap<KeySnapshot>>) -> Self {
        Self { working, snapshot, waiting: Vec::new(), lifecycle: false }
    }

    /// All events of one proposal in order, or none of them.
    fn propose(&mut self, batch: &mut Batch, asked: &Asked, propose: &mut Propose) -> Result<Vec<Receipt>, Illegal> {
        let events = propose(&self.working, batch.time())?;
        let lifecycle = events.iter().any(is_lifecycle);
        let mut next = self.working.clone();
        let mark = batch.mark();
        let pushed = events.into_iter().map(|event| batch.push(asked.clone(), event, |record| next.apply(record)));
        let receipts: Result<Vec<Receipt>, Illegal> = pushed.collect();
        match receipts {
            Ok(receipts) => {
                self.working = next;
                self.lifecycle |= lifecycle;
                Ok(receipts)
            }
            Err(illegal) => {
                batch.cut_back(mark);
                Err(illegal)
            }
        }
    }
}

impl Stage for KeyStage {
    type Job = KeyJob;

    fn check(&mut self, record: &Record) -> Result<(), Illegal> {
        self.working.apply(record)
    }

    fn begin(&mut self, _batch: &mut Batch) -> Result<(), Illegal> {
        Ok(())
    }

    fn take(&mut self, batch: &mut Batch, mut job: KeyJob) {
        match self.propose(batch, &job.asked, &mut job.propose) {
            // Even without an event the answer waits: what `propose` saw may itself not be durable yet.
            Ok(receipts) => self.waiting.push((job.reply, receipts)),
            // Who stopped waiting needs no answer.
            Err(illegal) => drop(job.reply.send(Err(illegal.into()))),
        }
    }

    fn committed(&mut self, shared: &Shared, head: Head) -> bool {
        if self.working.size() != shared.head().size {
            // The commit point: the records are durable, and from this swap on everyone acts on them.
            self.snapshot.store(Arc::new(KeySnapshot { keyrings: self.working.clone(), leaf: head.leaf }));
            shared.advance(head);
        }
        for (reply, receipts) in self.waiting.drain(..) {
            let _ = reply.send(Ok(receipts));
        }
        std::mem::take(&mut self.lifecycle)
    }

    fn failed(&mut self, reason: &str) {
        for (reply, _) in self.waiting.drain(..) {
            let _ = reply.send(Err(AppendError::Unwritable(reason.to_owned())));
        }
    }
}

/// Whether a checkpoint should cover the event at once.
fn is_lifecycle(event: &Event) -> bool {
    let name = event.name();
    name.starts_with("key.") || name.starts_with("keyring.") || name == "log.key_rotated"
}
