//! Sessions and concurrency: how many there are, and what a token does with 1, 2, 4 ... of them behind one queue.
//!
//! In scope: measuring. Out of scope: judging (`features.rs`, `tune.rs`). The queue is closed: as many callers as there are wait in it all the
//! time, each asking again as soon as it was answered, as under full load in the daemon.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cryptoki::session::Session;

use super::desk::Desk;
use super::report::{LoadStep, Sessions};
use super::said;
use super::signing::{TrialKey, message};
use crate::clock::{Clock, Monotonic};
use crate::keystore::pkcs11::fault::Fault;
use crate::keystore::pkcs11::queue::{Queue, Taken};
use crate::keystore::pkcs11::{MOST_WORKERS, pin};

/// How many callers there are at least: more than workers pay on most tokens, so that the queue is never empty.
const CALLERS: usize = 32;
/// The most signatures of one worker in one step: a minute of the fastest token known, times ten.
const MOST_SIGNATURES: usize = 1 << 20;

/// Opens sessions until the token has no more, at most `bound` with the one that holds the login.
pub(super) fn sessions(desk: &Desk, bound: usize) -> Result<Sessions, Fault> {
    let read_only = desk.ask(|library, slot| Ok(library.open_ro_session(slot).is_ok()))?;
    let count = |opened: Vec<Session>, end: Option<Fault>| {
        // A session that does not share the login cannot sign.
        let useful = opened.iter().all(|session| pin::is_logged_in(session).unwrap_or(false));
        let beyond = end.map(|fault| said(&fault)).or_else(|| (!useful).then(|| "a further session is not logged in".to_owned()));
        Sessions { bound, opened: 1 + if useful { opened.len() } else { 0 }, beyond, read_only }
    };
    desk.with_more(bound.saturating_sub(1), count)
}

/// Signs for `span` with `workers` sessions at once.
pub(super) fn step(desk: &Desk, key: &TrialKey, workers: usize, span: Duration, clock: &dyn Clock, stop: &AtomicBool) -> LoadStep {
    let callers = CALLERS.max(workers.min(MOST_WORKERS));
    let measured = desk.with_more(workers, |sessions, end| match end {
        Some(fault) => Err(fault),
        None => Ok(measure(sessions, key, callers, span, clock, stop)),
    });
    let (shifts, elapsed) = measured.and_then(|inner| inner).unwrap_or_else(|fault| (vec![Shift::failed(said(&fault))], Duration::ZERO));
    summary(workers, callers, shifts, elapsed)
}

/// What one worker did.
struct Shift {
    latencies: Vec<u32>,
    failure: Option<String>,
}

impl Shift {
    fn failed(failure: String) -> Self {
        Self { latencies: Vec::new(), failure: Some(failure) }
    }
}

fn measure(
    sessions: Vec<Session>,
    key: &TrialKey,
    callers: usize,
    span: Duration,
    clock: &dyn Clock,
    stop: &AtomicBool,
) -> (Vec<Shift>, Duration) {
    let queue = Queue::new(callers);
    let begun = clock.monotonic();
    let end = begun.plus(span);
    for _ in 0..callers {
        // It has room for just as many.
        let _ = queue.put(begun);
    }
    let shifts = std::thread::scope(|scope| {
        let work = |session: Session| {
            let queue = &queue;
            scope.spawn(move || shift(&session, key, queue, clock, end, stop))
        };
        let threads: Vec<_> = sessions.into_iter().map(work).collect();
        let crashed = || Shift::failed("a signing thread ended by itself".to_owned());
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| crashed())).collect()
    });
    (shifts, clock.monotonic().since(begun))
}

/// One worker's loop. What is in the queue is when its caller entered it.
fn shift(session: &Session, key: &TrialKey, queue: &Queue<Monotonic>, clock: &dyn Clock, end: Monotonic, stop: &AtomicBool) -> Shift {
    let input = message(key.algorithm, "under load");
    let mut latencies = Vec::new();
    let mut last = None;
    let mut failure = None;
    while let Taken::Item(entered) = queue.take(None) {
        if clock.monotonic() >= end || latencies.len() >= MOST_SIGNATURES || stop.load(Ordering::Relaxed) {
            queue.close();
            break;
        }
        match key.sign(session, &input) {
            Ok(signature) => {
                let now = clock.monotonic();
                latencies.push(u32::try_from(now.since(entered).as_micros()).unwrap_or(u32::MAX));
                last = Some(signature);
                // A refusal means that the queue was closed: the caller leaves.
                let _ = queue.put(now);
            }
            Err(fault) => {
                // The others would wait for its caller for ever.
                queue.close();
                failure = Some(said(&fault));
                break;
            }
        }
    }
    if last.is_some_and(|signature| !key.made(&input, &signature)) {
        failure = Some("a signature under load does not verify with the public key".to_owned());
    }
    Shift { latencies, failure }
}

fn summary(workers: usize, callers: usize, shifts: Vec<Shift>, elapsed: Duration) -> LoadStep {
    let failure = shifts.iter().find_map(|shift| shift.failure.clone());
    let mut latencies: Vec<u32> = shifts.into_iter().flat_map(|shift| shift.latencies).collect();
    latencies.sort_unstable();
    let signatures = latencies.len();
    #[expect(clippy::cast_precision_loss, reason = "a rate, for people")]
    let per_second = if elapsed.is_zero() { 0.0 } else { (signatures as f64 / elapsed.as_secs_f64() * 10.0).round() / 10.0 };
    LoadStep {
        workers,
        callers,
        signatures,
        per_second,
        p50_us: percentile(&latencies, 50),
        p90_us: percentile(&latencies, 90),
        p99_us: percentile(&latencies, 99),
        max_us: latencies.last().copied().unwrap_or(0),
        failure,
    }
}

/// The smallest value that is not below this share of all (nearest rank); 0 of none. The values are sorted.
fn percentile(sorted: &[u32], percent: usize) -> u32 {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let hundred: Vec<u32> = (1..=100).collect();
        assert_eq!([50, 90, 99].map(|percent| percentile(&hundred, percent)), [50, 90, 99]);
        assert_eq!([50, 90, 99].map(|percent| percentile(&[3, 5, 9], percent)), [5, 9, 9]);
        assert_eq!((percentile(&[7], 50), percentile(&[], 99)), (7, 0));
    }

    #[test]
    fn a_summary_counts_all_and_tells_the_first_failure() {
        let shift = |latencies: &[u32], failure: Option<&str>| Shift { latencies: latencies.to_vec(), failure: failure.map(str::to_owned) };
        let step = summary(2, 32, vec![shift(&[30, 10], None), shift(&[20], Some("CKR_DEVICE_ERROR"))], Duration::from_secs(2));
        assert_eq!((step.signatures, step.p50_us, step.max_us), (3, 20, 30));
        assert!((step.per_second - 1.5).abs() < f64::EPSILON);
        assert_eq!(step.failure.as_deref(), Some("CKR_DEVICE_ERROR"));
        assert!(summary(1, 32, vec![Shift::failed("none".into())], Duration::ZERO).per_second.abs() < f64::EPSILON);
    }
}
