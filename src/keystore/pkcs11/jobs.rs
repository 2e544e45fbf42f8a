//! The work that waits for the signing threads: each job with its deadline, its class and its caller.
//!
//! In scope: the order (first in, first out within a class), refusing what cannot be done in time, skipping what nobody waits for any more.
//! Out of scope: doing it (`worker.rs`).
//!
//! One queue in front of few threads: 32 threads inside a token had a p99 ten times that of 32 callers who queue for two threads, at the
//! same throughput. Whatever is refused is refused here, before the token is asked.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use claviger_audit::Algorithm;
use tokio::sync::oneshot;

use super::module::lock;
use crate::clock::{Clock, Monotonic};
use crate::keystore::{Class, Input, KeystoreError, Terms};

/// While both classes wait, one job in so many is of a batch: enough that a batch ends, too few to be felt by who waits for one signature.
const BATCH_TURN: usize = 4;
/// The part of the queue that one caller may fill: a half, so that nobody's haste is everybody's refusal.
const ONE_CALLER: usize = 2;

/// Where an answer goes.
type Reply = oneshot::Sender<Result<Vec<u8>, KeystoreError>>;

/// One signature that somebody waits for.
pub(super) struct Job {
    /// The `CKA_ID` of the key.
    pub(super) id: Vec<u8>,
    pub(super) algorithm: Algorithm,
    pub(super) input: Input,
    pub(super) terms: Terms,
    pub(super) reply: Reply,
}

/// The queue of jobs, with a moving estimate of how long one takes.
pub(super) struct Jobs {
    lanes: Mutex<Lanes>,
    changed: Condvar,
    capacity: usize,
    /// The longest that interactive work is let wait, however far its deadline is.
    longest_wait: Duration,
    workers: AtomicUsize,
    /// Nanoseconds that one job takes a worker: each new measurement counts an eighth.
    service: AtomicU64,
    late: AtomicU64,
}

#[derive(Default)]
struct Lanes {
    interactive: VecDeque<Job>,
    batch: VecDeque<Job>,
    /// How many jobs of each caller wait; nobody stands here with none.
    callers: HashMap<Arc<str>, usize>,
    /// Interactive jobs that went ahead of a waiting batch since its last turn.
    passed: usize,
    closed: bool,
}

impl Jobs {
    /// An empty queue of `capacity` jobs.
    pub(super) fn new(capacity: usize, longest_wait: Duration) -> Self {
        Self {
            lanes: Mutex::default(),
            changed: Condvar::new(),
            capacity,
            longest_wait,
            workers: AtomicUsize::new(1),
            service: AtomicU64::new(0),
            late: AtomicU64::new(0),
        }
    }

    /// Says how many threads serve.
    pub(super) fn served_by(&self, workers: usize) {
        self.workers.store(workers.max(1), Ordering::Relaxed);
    }

    /// Queues a job, or refuses it at once: too late already, no room, its caller's share used up, or too much ahead of it. With nothing
    /// ahead a job is always taken, so that an estimate which was driven up by one slow call can come down again.
    pub(super) fn submit(&self, job: Job, now: Monotonic) -> Result<(), KeystoreError> {
        let left = job.terms.deadline.since(now);
        if left.is_zero() {
            return Err(KeystoreError::Unanswered);
        }
        let wait = match job.terms.class {
            Class::Interactive => left.min(self.longest_wait),
            Class::Own | Class::Batch => left,
        };
        let mut lanes = lock(&self.lanes);
        if lanes.len() >= self.capacity {
            lanes.sweep(now);
        }
        let share = lanes.callers.get(&job.terms.caller).copied().unwrap_or_default();
        let ahead = lanes.ahead_of(job.terms.class);
        let in_time = ahead == 0 || self.expected_wait(ahead) < wait;
        if lanes.closed || lanes.len() >= self.capacity || share >= self.capacity / ONE_CALLER || !in_time {
            return Err(KeystoreError::Overloaded);
        }
        lanes.put(job);
        self.changed.notify_one();
        Ok(())
    }

    /// The next job that somebody still waits for; `None` when the queue is closed and served.
    pub(super) fn next(&self, clock: &dyn Clock) -> Option<Job> {
        let mut lanes = lock(&self.lanes);
        loop {
            match lanes.take() {
                Some(job) if job.reply.is_closed() => {}
                // Its caller is about to find out by itself; whichever is first, the answer is the same.
                Some(job) if clock.monotonic() >= job.terms.deadline => drop(job.reply.send(Err(KeystoreError::Unanswered))),
                Some(job) => return Some(job),
                None if lanes.closed => return None,
                None => lanes = self.changed.wait(lanes).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    /// Answers a job; an answer that nobody waits for any more is dropped and counted.
    pub(super) fn answer(&self, reply: Reply, outcome: Result<Vec<u8>, KeystoreError>) {
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
        let waiting = {
            let mut lanes = lock(&self.lanes);
            std::iter::from_fn(|| lanes.take()).collect::<Vec<_>>()
        };
        for job in waiting {
            self.answer(job.reply, Err(error.clone()));
        }
    }

    /// Refuses further jobs; the workers leave when the rest is served.
    pub(super) fn close(&self) {
        lock(&self.lanes).closed = true;
        self.changed.notify_all();
    }

    /// How many jobs wait.
    pub(super) fn len(&self) -> usize {
        lock(&self.lanes).len()
    }

    /// How many answers came after their caller had left.
    pub(super) fn late(&self) -> u64 {
        self.late.load(Ordering::Relaxed)
    }

    fn expected_wait(&self, ahead: usize) -> Duration {
        let (ahead, workers) = (u64::try_from(ahead).unwrap_or(u64::MAX), u64::try_from(self.workers.load(Ordering::Relaxed)).unwrap_or(1));
        Duration::from_nanos(self.service.load(Ordering::Relaxed).saturating_mul(ahead) / workers)
    }
}

impl Lanes {
    fn len(&self) -> usize {
        self.interactive.len() + self.batch.len()
    }

    /// How many jobs that wait now are served before a new one of this class.
    fn ahead_of(&self, class: Class) -> usize {
        let (interactive, batch) = (self.interactive.len(), self.batch.len());
        match class {
            Class::Own => 0,
            Class::Interactive => interactive + batch.min(interactive / (BATCH_TURN - 1)),
            Class::Batch => batch + interactive.min((batch + 1) * (BATCH_TURN - 1)),
        }
    }

    fn put(&mut self, job: Job) {
        *self.callers.entry(Arc::clone(&job.terms.caller)).or_default() += 1;
        match job.terms.class {
            Class::Own => self.interactive.push_front(job),
            Class::Interactive => self.interactive.push_back(job),
            Class::Batch => self.batch.push_back(job),
        }
    }

    fn take(&mut self) -> Option<Job> {
        let batch = !self.batch.is_empty() && (self.interactive.is_empty() || self.passed >= BATCH_TURN - 1);
        self.passed = if batch || self.batch.is_empty() { 0 } else { self.passed + 1 };
        let job = if batch { self.batch.pop_front() } else { self.interactive.pop_front() }?;
        self.forget(&job.terms.caller);
        Some(job)
    }

    fn forget(&mut self, caller: &Arc<str>) {
        if let Some(waiting) = self.callers.get_mut(caller) {
            *waiting -= 1;
            if *waiting == 0 {
                self.callers.remove(caller);
            }
        }
    }

    /// Throws out what nobody waits for any more. While every thread hangs nobody else would, and the dead would keep out the living.
    fn sweep(&mut self, now: Monotonic) {
        let dead = |job: &Job| job.reply.is_closed() || now >= job.terms.deadline;
        let mut gone = Vec::new();
        for lane in [&mut self.interactive, &mut self.batch] {
            let (out, kept): (VecDeque<_>, VecDeque<_>) = std::mem::take(lane).into_iter().partition(dead);
            *lane = kept;
            gone.extend(out);
        }
        for job in gone {
            self.forget(&job.terms.caller);
            drop(job.reply.send(Err(KeystoreError::Unanswered)));
        }
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

    const HOUR: Duration = Duration::from_hours(1);

    type Answer = oneshot::Receiver<Result<Vec<u8>, KeystoreError>>;

    fn job_of(id: u8, deadline: u64, (class, caller): (Class, &str)) -> (Job, Answer) {
        let (reply, answer) = oneshot::channel();
        let terms = Terms { deadline: at(deadline), class, caller: Arc::from(caller) };
        (Job { id: vec![id], algorithm: Algorithm::ES256, input: Input::Digest(vec![0; 32]), terms, reply }, answer)
    }

    fn job(id: u8, deadline: u64) -> (Job, Answer) {
        job_of(id, deadline, (Class::Interactive, &id.to_string()))
    }

    #[test]
    fn expired_and_abandoned_jobs_are_never_handed_out() {
        let (jobs, clock) = (Jobs::new(8, HOUR), Still(AtomicU64::new(0)));
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
        let jobs = Jobs::new(3, Duration::from_millis(50));
        jobs.served_by(2);
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
            let (job, answer) = job_of(1, deadline, (Class::Interactive, &deadline.to_string()));
            assert_eq!(jobs.submit(job, at(0)), expected, "deadline {deadline}");
            answers.push(answer);
        }
    }

    #[test]
    fn interactive_work_never_waits_longer_than_it_may() {
        let jobs = Jobs::new(100, Duration::from_millis(50));
        jobs.took(Duration::from_millis(10));
        let mut answers = Vec::new();
        let mut offered = |id: u8, class: Class| {
            let (job, answer) = job_of(id, 60_000, (class, &id.to_string()));
            answers.push(answer);
            jobs.submit(job, at(0))
        };
        // The first five wait 0 to 40 ms; the sixth would wait 50.
        for id in 0..5 {
            assert_eq!(offered(id, Class::Interactive), Ok(()), "{id}");
        }
        assert_eq!(offered(5, Class::Interactive), Err(KeystoreError::Overloaded));
        assert_eq!(offered(7, Class::Own), Ok(()), "checkpoints go on in any overload");
        assert_eq!(offered(6, Class::Batch), Ok(()), "a batch has until its deadline");
    }

    #[test]
    fn a_batch_lets_others_pass_and_is_served_all_the_same() {
        let (jobs, clock) = (Jobs::new(100, HOUR), Still(AtomicU64::new(0)));
        let mut answers = Vec::new();
        for (id, class) in (10..14).map(|id| (id, Class::Batch)).chain((0..8).map(|id| (id, Class::Interactive))) {
            let (job, answer) = job_of(id, 1000, (class, "all"));
            jobs.submit(job, at(0)).expect("room");
            answers.push(answer);
        }
        let (own, _keep) = job_of(99, 1000, (Class::Own, "claviger"));
        jobs.submit(own, at(0)).expect("room");
        let order = std::iter::from_fn(|| (jobs.len() > 0).then(|| jobs.next(&clock).map(|job| job.id[0]))).flatten().collect::<Vec<_>>();
        assert_eq!(order, [99, 0, 1, 10, 2, 3, 4, 11, 5, 6, 7, 12, 13]);
    }

    #[test]
    fn no_caller_fills_the_queue() {
        let (jobs, clock) = (Jobs::new(6, HOUR), Still(AtomicU64::new(0)));
        let mut answers = Vec::new();
        let mut offered = |caller: &str| {
            let (job, answer) = job_of(1, 1000, (Class::Batch, caller));
            answers.push(answer);
            jobs.submit(job, at(0))
        };
        for _ in 0..3 {
            assert_eq!(offered("hasty"), Ok(()));
        }
        assert_eq!(offered("hasty"), Err(KeystoreError::Overloaded));
        assert_eq!(offered("other"), Ok(()));
        assert!(jobs.next(&clock).is_some());
        assert_eq!(offered("hasty"), Ok(()), "its share is free again");
        jobs.fail_all(&KeystoreError::Overloaded);
        assert!(lock(&jobs.lanes).callers.is_empty(), "nobody is remembered who does not wait");
    }

    #[test]
    fn the_dead_never_keep_out_the_living() {
        let jobs = Jobs::new(2, HOUR);
        let (first, mut expired) = job(1, 10);
        let (second, left) = job(2, 1000);
        for job in [first, second] {
            jobs.submit(job, at(0)).expect("room for two");
        }
        drop(left);
        let (third, _keep) = job(3, 1000);
        jobs.submit(third, at(10)).expect("nobody waits for the other two");
        assert_eq!(expired.try_recv(), Ok(Err(KeystoreError::Unanswered)));
        assert_eq!(jobs.len(), 1);
    }

    #[test]
    fn the_estimate_moves_and_late_answers_are_counted() {
        let jobs = Jobs::new(3, HOUR);
        jobs.took(Duration::from_millis(8));
        jobs.took(Duration::from_millis(16));
        assert_eq!(jobs.expected_wait(1), Duration::from_millis(9));
        let (job, answer) = job(1, 10);
        drop(answer);
        jobs.answer(job.reply, Ok(vec![]));
        assert_eq!(jobs.late(), 1);
    }
}
