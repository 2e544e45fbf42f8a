//! The one thread that writes a log.
//!
//! In scope: group commit without a timer (whatever was queued while the last sync ran is the next batch), heartbeats, noticing within a
//! second that the file was taken away, and the end. Out of scope: what a job means (the [`Stage`] knows) and how lines become durable (`file`).

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use claviger_audit::keyrings::Illegal;
use claviger_audit::record::{Asked, Record};

use super::Head;
use super::file::{Batch, LogFile, heartbeat};
use super::shared::{PANICKED, Shared};
use crate::clock::{Clock, Monotonic};

/// Most jobs that wait for the disk. At some 640 bytes a record this is one write of 2.5 MiB; more waiting would only make answers late.
pub(super) const MOST_QUEUED: usize = 4096;
/// A batch takes no further job beyond this many bytes, so that one write stays one write and a segment stays readable as a whole.
const BATCH_BYTES: usize = 8 << 20;
/// How long an unlinked file may go unnoticed.
const LINK_CHECK: Duration = Duration::from_secs(1);

/// One job in the queue.
pub(super) enum Message<J> {
    /// Something to write.
    Job(J),
    /// Look at `Shared::stopping`.
    Wake,
}

/// What the two logs do differently. All methods run on the committer's thread.
pub(super) trait Stage: Send + 'static {
    /// One request.
    type Job: Send + 'static;

    /// Whether the record may be written; it then counts as written for all that follows in the batch.
    fn check(&mut self, record: &Record) -> Result<(), Illegal>;
    /// Adds what the writer itself owes before anything else.
    fn begin(&mut self, batch: &mut Batch) -> Result<(), Illegal>;
    /// Adds the job's records, or answers that it will not.
    fn take(&mut self, batch: &mut Batch, job: Self::Job);
    /// The batch is durable (or there was nothing to write): make it visible, then answer. `true` if a checkpoint should follow at once.
    fn committed(&mut self, shared: &Shared, head: Head) -> bool;
    /// Whether the batch became durable is unknown: answer all waiters.
    fn failed(&mut self, reason: &str);
}

/// The thread's state.
pub(super) struct Committer<S: Stage> {
    pub(super) stage: S,
    pub(super) file: LogFile,
    pub(super) queue: Receiver<Message<S::Job>>,
    pub(super) shared: Arc<Shared>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) heartbeat: Duration,
    pub(super) written: Monotonic,
    pub(super) looked: Monotonic,
}

/// Why the thread woke.
enum Woken<J> {
    Job(J),
    Beat,
    Look,
    End,
}

/// Says that the log has ended, however the thread ends.
struct Ending(Arc<Shared>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// A panic is a reason to poison. It must be known before the queue is dropped, so that nobody takes it for an orderly stop.
struct Panicking(Arc<Shared>);

impl Drop for Panicking {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.poison(PANICKED);
        }
    }
}

impl<S: Stage> Committer<S> {
    /// Starts the thread. It ends after a stop, after an error, or when every handle is gone.
    pub(super) fn spawn(self, name: &str) -> std::io::Result<()> {
        let ending = Ending(Arc::clone(&self.shared));
        let body = move || {
            let _ending = ending;
            // Drops the file and the queue before the end is told.
            self.run();
        };
        std::thread::Builder::new().name(format!("commit-{name}")).spawn(body).map(drop)
    }

    fn run(mut self) {
        let _panicking = Panicking(Arc::clone(&self.shared));
        // What the writer owes at the start of every run.
        if let Err(reason) = self.round(None, false) {
            return self.die(&reason);
        }
        loop {
            let done = match self.wait() {
                Woken::Job(job) => self.round(Some(job), false),
                Woken::Beat => self.round(None, true),
                Woken::Look if self.shared.is_stopping() => {
                    // What was queued before the stop is still written.
                    if let Err(reason) = self.drain() {
                        self.die(&reason);
                    }
                    return;
                }
                Woken::Look => self.look(),
                Woken::End => return,
            };
            if let Err(reason) = done {
                return self.die(&reason);
            }
        }
    }

    /// Poisons before the queue is dropped, so that everyone who waits learns the reason.
    fn die(&mut self, reason: &str) {
        self.shared.poison(reason);
        self.stage.failed(reason);
    }

    fn wait(&mut self) -> Woken<S::Job> {
        if self.shared.is_stopping() {
            return Woken::Look;
        }
        let now = self.clock.monotonic();
        let Some(left) = self.heartbeat.checked_sub(now.since(self.written)).filter(|left| !left.is_zero()) else {
            return Woken::Beat;
        };
        // An idle log looks as often as a busy one; a look is no record, so the heartbeat does not wait for it.
        match self.queue.recv_timeout(left.min(LINK_CHECK.saturating_sub(now.since(self.looked)))) {
            Ok(Message::Job(job)) => Woken::Job(job),
            Ok(Message::Wake) | Err(RecvTimeoutError::Timeout) => Woken::Look,
            Err(RecvTimeoutError::Disconnected) => Woken::End,
        }
    }

    fn drain(&mut self) -> Result<(), String> {
        while let Ok(message) = self.queue.try_recv() {
            if let Message::Job(job) = message {
                self.round(Some(job), false)?;
            }
        }
        Ok(())
    }

    /// One batch: everything that is queued, one write, one sync, answers.
    fn round(&mut self, first: Option<S::Job>, beat: bool) -> Result<(), String> {
        let head = self.commit(first, beat)?;
        if self.stage.committed(&self.shared, head) {
            self.shared.bell.ring(|wishes| wishes.now = true);
        }
        Ok(())
    }

    fn commit(&mut self, first: Option<S::Job>, beat: bool) -> Result<Head, String> {
        let Self { stage, file, .. } = self;
        let illegal = |illegal: Illegal| format!("the writer's own record is illegal: {illegal}");
        let mut batch = file.begin(self.clock.wall(), |record| stage.check(record)).map_err(illegal)?;
        stage.begin(&mut batch).map_err(illegal)?;
        if let Some(job) = first {
            stage.take(&mut batch, job);
        }
        if beat {
            batch.push(Asked::default(), heartbeat(), |record| stage.check(record)).map_err(illegal)?;
        }
        while batch.bytes() < BATCH_BYTES {
            match self.queue.try_recv() {
                Ok(Message::Job(job)) => stage.take(&mut batch, job),
                // A wake says nothing that the next wait does not see.
                Ok(Message::Wake) => {}
                Err(_) => break,
            }
        }
        if batch.is_empty() {
            return Ok(self.file.head());
        }
        self.look()?;
        let head = self.file.commit(&batch)?;
        self.shared.turn(&self.file.tenures);
        self.written = self.clock.monotonic();
        Ok(head)
    }

    /// Whether the log may be written: the checkpointer may have found that the disk holds something else; somebody may have taken the file
    /// away.
    fn look(&mut self) -> Result<(), String> {
        if let Some(reason) = self.shared.poisoned() {
            return Err(reason.to_string());
        }
        let now = self.clock.monotonic();
        if now.since(self.looked) < LINK_CHECK {
            return Ok(());
        }
        self.looked = now;
        let path = self.file.segment.path.display();
        match self.file.is_linked() {
            Ok(true) => Ok(()),
            Ok(false) => Err(format!("{path} was taken away or replaced while it was being written")),
            Err(error) => Err(format!("cannot look at {path}: {error}")),
        }
    }
}
