//! What the handles, the committer and the checkpointer of one log share.
//!
//! In scope: the durable head, the poison, and the bell that wakes the checkpointer. Out of scope: who writes.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{oneshot, watch};

use super::checkpoint::CheckpointError;
use super::standing::Standing;
use super::tenure::Tenures;
use super::{AppendError, Head};

/// Why a log is dead whose thread ended without a stop and without an error.
pub(super) const PANICKED: &str = "the thread that writes the log panicked";

/// The state of one log that everyone may read.
pub(super) struct Shared {
    pub(super) origin: Arc<str>,
    head: ArcSwap<Head>,
    tenures: ArcSwap<Tenures>,
    poison: OnceLock<Arc<str>>,
    size: watch::Sender<u64>,
    ended: watch::Sender<bool>,
    /// Set once, by `stop`: new appends are turned away and what is queued is still written.
    pub(super) stopping: AtomicBool,
    /// Notes that are queued now.
    pub(super) notes_waiting: AtomicUsize,
    /// Notes that were dropped.
    pub(super) notes_dropped: AtomicU64,
    /// Whether others know more of the log.
    pub(super) standing: Standing,
    pub(super) bell: Bell,
}

impl Shared {
    pub(super) fn new(origin: Arc<str>, head: Head, tenures: Tenures) -> Self {
        Self {
            origin,
            head: ArcSwap::from_pointee(head),
            tenures: ArcSwap::from_pointee(tenures),
            poison: OnceLock::new(),
            size: watch::Sender::new(head.size),
            ended: watch::Sender::new(false),
            stopping: AtomicBool::new(false),
            notes_waiting: AtomicUsize::new(0),
            notes_dropped: AtomicU64::new(0),
            standing: Standing::default(),
            bell: Bell::default(),
        }
    }

    pub(super) fn head(&self) -> Head {
        **self.head.load()
    }

    /// The keys of the log, as its durable records say; never older than [`Self::head`].
    pub(super) fn tenures(&self) -> Arc<Tenures> {
        self.tenures.load_full()
    }

    /// To be told before the head that covers a rotation: a checkpoint of that size needs both keys.
    pub(super) fn turn(&self, tenures: &Arc<Tenures>) {
        self.tenures.store(Arc::clone(tenures));
    }

    /// Makes a durable head visible.
    pub(super) fn advance(&self, head: Head) {
        self.head.store(Arc::new(head));
        self.size.send_replace(head.size);
    }

    pub(super) fn poisoned(&self) -> Option<Arc<str>> {
        self.poison.get().cloned()
    }

    /// Ends all writing and all checkpoints in this process. The first reason stays. Whoever watches the size is woken.
    pub(super) fn poison(&self, reason: &str) {
        if self.poison.set(Arc::from(reason)).is_ok() {
            tracing::error!(log = %self.origin, reason, "the log is dead; nothing is signed or changed any more");
        }
        self.size.send_modify(|_| {});
    }

    /// What an append says that got no answer.
    pub(super) fn why_no_answer(&self) -> AppendError {
        match self.poison.get() {
            Some(reason) => AppendError::Unwritable(reason.to_string()),
            None if self.is_stopping() => AppendError::Stopped,
            // Unwinding drops the job that panicked a moment before it reaches what poisons the log.
            None => AppendError::Unwritable(PANICKED.to_owned()),
        }
    }

    pub(super) fn watch_size(&self) -> watch::Receiver<u64> {
        self.size.subscribe()
    }

    /// The committer has let go of the file.
    pub(super) fn end(&self) {
        self.ended.send_replace(true);
        self.bell.ring(|wish| wish.stop = true);
    }

    pub(super) async fn ended(&self) {
        // The sender lives in `self`, so waiting cannot fail.
        let _ = self.ended.subscribe().wait_for(|ended| *ended).await;
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }
}

/// Wakes the checkpointer.
#[derive(Default)]
pub(super) struct Bell {
    wishes: Mutex<Wishes>,
    rung: Condvar,
}

/// Somebody who waits for a checkpoint: the size that it covers, or why there is none.
pub(super) type Waiter = oneshot::Sender<Result<u64, CheckpointError>>;

/// Most callers that wait for a checkpoint at once; a graceful stop is one.
const MOST_WAITERS: usize = 64;

/// What the checkpointer is asked for. A wish that is made twice is one wish.
#[derive(Default)]
pub(super) struct Wishes {
    /// A lifecycle event is durable: do not wait for the second to end.
    pub(super) now: bool,
    /// The committer is gone.
    pub(super) stop: bool,
    waiters: Vec<Waiter>,
    closed: bool,
}

impl Wishes {
    fn is_urgent(&self) -> bool {
        self.now || self.stop || !self.waiters.is_empty()
    }
}

impl Bell {
    pub(super) fn ring(&self, wish: impl FnOnce(&mut Wishes)) {
        wish(&mut self.lock());
        self.rung.notify_all();
    }

    /// Returns after `span`, or as soon as there is a wish, and takes it; `stop` stays wished, and waiters stay until [`Self::waiters`].
    pub(super) fn wait(&self, span: Duration) -> Wishes {
        let waited = self.rung.wait_timeout_while(self.lock(), span, |wishes| !wishes.is_urgent());
        let (mut wishes, _) = waited.unwrap_or_else(PoisonError::into_inner);
        Wishes { now: std::mem::take(&mut wishes.now), stop: wishes.stop, ..Wishes::default() }
    }

    /// Adds a waiter; `false` if the checkpointer has ended, or too many wait.
    pub(super) fn ask(&self, waiter: Waiter) -> bool {
        let mut wishes = self.lock();
        if wishes.closed || wishes.waiters.len() >= MOST_WAITERS {
            return false;
        }
        wishes.waiters.push(waiter);
        self.rung.notify_all();
        true
    }

    /// Everyone who waits now.
    pub(super) fn waiters(&self) -> Vec<Waiter> {
        std::mem::take(&mut self.lock().waiters)
    }

    /// No waiter is taken any more; those who came meanwhile.
    pub(super) fn close(&self) -> Vec<Waiter> {
        let mut wishes = self.lock();
        wishes.closed = true;
        std::mem::take(&mut wishes.waiters)
    }

    fn lock(&self) -> MutexGuard<'_, Wishes> {
        self.wishes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
