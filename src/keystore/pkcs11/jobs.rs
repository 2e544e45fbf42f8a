//! The work that waits for the signing threads: first in, first out, each with its deadline.
//!
//! In scope: refusing what cannot be done in time, skipping what nobody waits for any more. Out of scope: doing it (`worker.rs`).
//!
//! One queue in front of few threads: 32 threads inside a token had a p99 ten times that of 32 callers who queue for two threads, at the
//! same throughput.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use claviger_audit::Algorithm;
use tokio::sync::oneshot;

use super::queue::{Queue, Taken};
use crate::clock::{Clock, Monotonic};
use crate::keystore::{Input, KeystoreError};

/// One signature that somebody waits for.
pub(super) struct Job {
    /// The `CKA_ID` of the key.
    pub(super) id: Vec<u8>,
    pub(super) algorithm: Algorithm,
    pub(super) input: Input,
    /// After this point nobody waits any more, and signing must not begin.
    pub(super) deadline: Monotonic,
    pub(super) reply: oneshot::Sender<Result<Vec<u8>, KeystoreError>>,
}

/// The queue of jobs, with a moving estimate of how long one takes.
pub(super) struct Jobs {
    queue: Queue<Job>,
    workers: u64,
    /// Nanoseconds that one job takes a worker: each new measurement counts an eighth.
    service: AtomicU64,
    late: AtomicU64,
}

impl Jobs {
    /// An empty queue of `capacity` jobs for `workers` threads.
    pub(super) fn new(capacity: usize, workers: usize) -> Self {
        let workers = u64::try_from(workers.max(1)).unwrap_or(u64::MAX);
        Self { queue: Queue::new(capacity), workers, service: AtomicU64::new(0), late: AtomicU64::new(0) }
    }

    /// Queues a job, or refuses it at once: too late already, no room, or too much ahead of it. With nothing ahead a job is always taken, so
    /// that an estimate which was driven up by one slow call can come down again.
    pub(super) fn submit(&self, job: Job, now: Monotonic) -> Result<(), KeystoreError> {
        let left = job.deadline.since(now);
        if left.is_zero() {
            return Err(KeystoreError::Unanswered);
        }
        let admits = |ahead: usize| ahead == 0 || self.expected_wait(ahead) < left;
        self.queue.put(job, admits).map_err(|_| KeystoreError::Overloaded)
    }

    /// The oldest job that somebody still waits for; `None` when the queue is closed.
    pub(super) fn next(&self, clock: &dyn Clock) -> Option<Job> {
        loop {
            match self.queue.take(None) {
                Taken::Item(job) if job.reply.is_closed() => {}
                // Its caller is about to find out by itself; whichever is first, the answer is the same.
                Taken::Item(job) if clock.monotonic() >= job.deadline => drop(job.reply.send(Err(KeystoreError::Unanswered))),
                Taken::Item(job) => return Some(job),
                Taken::Nothing => {}
                Taken::Closed => return None,
            }
        }
    }

    /// Answers a job; an answer that nobody waits for any more is dropped and counted.
    pub(super) fn answer(&self, reply: oneshot::Sender<Result<Vec<u8>, KeystoreError>>, outcome: Result<Vec<u8>, KeystoreError>) {
        if reply.send(outcome).is_err() {
            self.late.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Adds a measurement to the estimate.
    pub(super) fn took(&self, span: Duration) {
        let span = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        // Two workers may overwrite each other's measurement: it is an estimate.
        let old = self.service.load(Ordering::Relaxed);
        let new = if old == 0 { span } else { old - old / 8 + span / 8 };
        self.service.store(new, Ordering::Relaxed);
    }

    /// Answers everything that waits with `error`.
    pub(super) fn fail_all(&self, error: &KeystoreError) {
        for job in self.queue.drain() {
            self.answer(job.reply, Err(error.clone()));
        }
    }

    /// Refuses further jobs; the workers leave when the rest is served.
    pub(super) fn close(&self) {
        self.queue.close();
    }

    /// How many jobs wait.
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    /// How many answers came after their caller had left.
    pub(super) fn late(&self) -> u64 {
        self.late.load(Ordering::Relaxed)
    }

    fn expected_wait(&self, ahead: usize) -> Duration {
        let ahead = u64::try_from(ahead).unwrap_or(u64::MAX);
        Duration::from_nanos(self.service.load(Ordering::Relaxed).saturating_mul(ahead) / self.workers)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use claviger_audit::Timestamp;

    use super::*;

    /// A clock that stands where the test puts it, in milliseconds.
    struct Still(AtomicU64);

    impl Clock for Still {
        fn wall(&self) -> Timestamp {
            Timestamp::from_millis(0)
        }

        fn monotonic(&self) -> Monotonic {
            at(self.0.load(Ordering::Relaxed))
        }
    }

    fn at(millis: u64) -> Monotonic {
        Monotonic::at(Duration::from_millis(millis))
    }

    type Answer = oneshot::Receiver<Result<Vec<u8>, KeystoreError>>;

    fn job(id: u8, deadline: u64) -> (Job, Answer) {
        let (reply, answer) = oneshot::channel();
        (Job { id: vec![id], algorithm: Algorithm::ES256, input: Input::Digest(vec![0; 32]), deadline: at(deadline), reply }, answer)
    }

    #[test]
    fn expired_and_abandoned_jobs_are_never_handed_out() {
        let (jobs, clock) = (Jobs::new(8, 1), Still(AtomicU64::new(0)));
        let (expires, mut expired) = job(1, 10);
        let (abandoned, left) = job(2, 100);
        let (wanted, _keep_3) = job(3, 100);
        for job in [expires, abandoned, wanted] {
            jobs.submit(job, clock.monotonic()).expect("room for three");
        }
        drop(left);
        clock.0.store(10, Ordering::Relaxed);
        assert_eq!(jobs.next(&clock).map(|job| job.id), Some(vec![3]));
        assert_eq!(expired.try_recv(), Ok(Err(KeystoreError::Unanswered)));
        jobs.close();
        assert!(jobs.next(&clock).is_none());
    }

    #[test]
    fn what_cannot_be_done_in_time_is_refused_at_once() {
        let jobs = Jobs::new(3, 2);
        let (past, _keep) = job(0, 5);
        assert_eq!(jobs.submit(past, at(5)), Err(KeystoreError::Unanswered));
        jobs.took(Duration::from_millis(40));
        let mut answers = Vec::new();
        for (deadline, expected) in [
            (1, Ok(())),                          // nothing ahead: always taken
            (20, Err(KeystoreError::Overloaded)), // one ahead: 20 ms with two workers
            (21, Ok(())),
            (100, Ok(())),
            (1000, Err(KeystoreError::Overloaded)), // full
        ] {
            let (job, answer) = job(1, deadline);
            assert_eq!(jobs.submit(job, at(0)), expected, "deadline {deadline}");
            answers.push(answer);
        }
    }

    #[test]
    fn the_estimate_moves_and_late_answers_are_counted() {
        let jobs = Jobs::new(3, 1);
        jobs.took(Duration::from_millis(8));
        jobs.took(Duration::from_millis(16));
        assert_eq!(jobs.expected_wait(1), Duration::from_millis(9));
        let (job, answer) = job(1, 10);
        drop(answer);
        jobs.answer(job.reply, Ok(vec![]));
        assert_eq!(jobs.late(), 1);
    }
}
