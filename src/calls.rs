//! Calls of keystores that keep a record of their own: every signature that such a record may show is in our logs with its request id, or is
//! counted there.
//!
//! In scope: how many such calls may be without a durable word in the logs, and the count of those whose answer nobody got. Out of scope:
//! what a call is for (the signer, the rotator), and what an auditor makes of the counts (`claviger_audit::reconcile`).
//!
//! A call begins before the keystore is asked, and is settled when a durable record names its request, or when it is certain that nothing was
//! signed. A call that is dropped without that is counted. Room is given back only when the record, or the record of the count, is durable. So
//! whenever the process is killed, at most [`MOST_UNRECORDED`] signatures of a keystore, and the self-test of one new key, are unknown to the
//! logs: `daemon.start` names that number.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use claviger_audit::event::{Event, SignUnanswered};
use claviger_audit::record::Asked;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::journal::{AppendError, Draft, UseLog};
use crate::signer::Keystores;

#[cfg(test)]
mod tests;

/// How many signatures of one keystore may be asked for and not be in the logs yet. With an answer in 10 ms and a sync in 10 ms, that is enough
/// for 12,800 signatures a second; on a slower disk, callers wait for it here.
pub const MOST_UNRECORDED: u32 = 256;

/// The most signatures that the records of `keystores` may show and that a kill can keep out of the logs.
pub fn most_in_flight(keystores: &Keystores) -> u64 {
    keystores.values().filter(|keystore| keystore.keeps_record()).count() as u64 * u64::from(MOST_UNRECORDED)
}

/// Keyring and kid.
type Row = (String, String);

/// All calls of one daemon.
pub struct Calls {
    uses: UseLog,
    /// Of keystores that keep a record.
    room: BTreeMap<String, Arc<Semaphore>>,
    counts: Mutex<Counts>,
    /// Rung at the end of each call.
    ended: Notify,
}

#[derive(Default)]
struct Counts {
    /// Calls of keystores that keep a record, which have begun and not ended.
    begun: HashMap<Row, u64>,
    /// Calls without an answer that no record counts yet, with the room that they took.
    unanswered: HashMap<Row, Unanswered>,
}

#[derive(Default)]
struct Unanswered {
    count: u64,
    room: Vec<OwnedSemaphorePermit>,
}

impl Calls {
    /// Nothing is under way yet.
    pub fn new(uses: UseLog, keystores: &Keystores) -> Self {
        let keeping = keystores.iter().filter(|(_, keystore)| keystore.keeps_record());
        let room = keeping.map(|(name, _)| (name.clone(), Arc::new(Semaphore::new(MOST_UNRECORDED as usize)))).collect();
        Self { uses, room, counts: Mutex::default(), ended: Notify::new() }
    }

    /// Begins a call, once there is room for it. `left` is how much time there is until its deadline: a call that begins later would only be
    /// given back by its keystore as one without an answer, and be counted, though nothing was asked.
    pub async fn begin(
        self: &Arc<Self>,
        keystore: &str,
        (keyring, kid): (&str, &str),
        left: impl Fn() -> Duration,
    ) -> Result<Call, NotBegun> {
        let room = match self.room.get(keystore) {
            None => None,
            Some(room) => {
                let room = tokio::time::timeout(left(), room.clone().acquire_owned()).await;
                Some(room.ok().and_then(Result::ok).ok_or(NotBegun::NoRoom)?)
            }
        };
        if left().is_zero() {
            return Err(NotBegun::TooLate);
        }
        let row = (keyring.to_owned(), kid.to_owned());
        if room.is_some() {
            *self.lock().begun.entry(row.clone()).or_default() += 1;
        }
        Ok(Call { calls: self.clone(), row, room, settled: false })
    }

    /// Records what was counted since the last time; called once a second. A count that the log does not take now is kept.
    pub async fn flush(&self) {
        let counted = std::mem::take(&mut self.lock().unanswered);
        for (row, Unanswered { count, room }) in counted {
            let (keyring, kid) = row.clone();
            let event = Event::SignUnanswered(SignUnanswered { keyring, kid, count });
            match self.uses.append(Draft { asked: Asked::default(), event }).await {
                Ok(_) => drop(room),
                Err(AppendError::Overloaded) => self.lock().count(row, count, room),
                Err(error) => {
                    // The log is dead: nothing gives this room back, so that no more calls begin than the next start will name.
                    room.into_iter().for_each(OwnedSemaphorePermit::forget);
                    tracing::error!(%error, count, "calls of a keystore that got no answer could not be recorded");
                }
            }
        }
    }

    /// Lets no more calls begin at keystores that keep a record, waits for those that have begun, and counts those that do not end.
    pub async fn finish(&self, patience: Duration) {
        self.room.values().for_each(|room| room.close());
        let all = async {
            loop {
                let ended = self.ended.notified();
                if self.lock().begun.is_empty() {
                    break;
                }
                ended.await;
            }
        };
        if tokio::time::timeout(patience, all).await.is_err() {
            let mut counts = self.lock();
            for (row, count) in std::mem::take(&mut counts.begun) {
                counts.count(row, count, None);
            }
        }
        self.flush().await;
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        // A panic elsewhere leaves the counts usable: they are only numbers.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    fn count(&mut self, row: Row, count: u64, room: impl IntoIterator<Item = OwnedSemaphorePermit>) {
        let unanswered = self.unanswered.entry(row).or_default();
        unanswered.count += count;
        unanswered.room.extend(room);
    }

    /// Whether the call was still under way: it is not, if it was counted already.
    fn end(&mut self, row: &Row) -> bool {
        let Some(begun) = self.begun.get_mut(row) else { return false };
        *begun -= 1;
        if *begun == 0 {
            self.begun.remove(row);
        }
        true
    }
}

/// Why a call did not begin; nothing was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotBegun {
    /// There is no room within its time, or none any more.
    NoRoom,
    /// Its deadline has passed.
    TooLate,
}

/// A call that has begun. Dropping it counts it as unanswered.
pub struct Call {
    calls: Arc<Calls>,
    row: Row,
    room: Option<OwnedSemaphorePermit>,
    settled: bool,
}

impl Call {
    /// A durable record names its request, or nothing was signed.
    pub fn settle(mut self) {
        self.settled = true;
    }

    /// The keystore signed, and a durable record says so. Where its own record shows the signature and ours names no request, the two can only be
    /// brought together by counting it.
    pub fn recorded(self, request: Option<&str>) {
        if request.is_some() || !self.is_on_record() {
            self.settle();
        }
    }

    /// Whether its keystore keeps a record of its own.
    pub fn is_on_record(&self) -> bool {
        self.room.is_some()
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        {
            let mut counts = self.calls.lock();
            let is_counted = self.room.is_some() && !counts.end(&self.row);
            if !self.settled && !is_counted {
                counts.count(std::mem::take(&mut self.row), 1, self.room.take());
            }
        }
        self.calls.ended.notify_waiters();
    }
}
