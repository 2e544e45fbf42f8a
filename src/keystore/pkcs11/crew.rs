//! The signing threads of one keystore, and what becomes of those whose call never returns.
//!
//! In scope: starting threads, knowing since when each is inside the module, writing off those that hang, replacing them up to a bound. Out of
//! scope: what a thread does (`worker.rs`), and what follows when too many hang (`mod.rs` looks, `link.rs` remembers).
//!
//! A call inside a module cannot be cancelled, and a thread that is in one cannot be ended. So such a thread is written off: it is never
//! joined, its place is taken by another one, and it ends by itself if its call ever returns.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::fault::Fault;
use super::module::lock;
use crate::clock::Monotonic;

/// How many threads may exist for each one that was asked for: those that work, and those that hang. Beyond it the module is given up, as
/// each hanging thread holds a session of the token.
const MOST_FOR_EACH: usize = 2;

/// Where one thread is: outside of the module, or inside until it counts as hung.
#[derive(Default)]
pub(super) struct Seat {
    /// Milliseconds of the monotonic clock after which the call counts as hung, plus one; 0 outside of the module.
    until: AtomicU64,
    written_off: AtomicBool,
    ended: AtomicBool,
}

impl Seat {
    /// Runs a call that should return within `patience`.
    pub(super) fn call<T>(&self, now: Monotonic, patience: Duration, work: impl FnOnce() -> T) -> T {
        self.until.store(millis(now.plus(patience)).saturating_add(1), Ordering::Release);
        let outcome = work();
        self.until.store(0, Ordering::Release);
        outcome
    }

    /// Whether a call is longer under way than it should be.
    pub(super) fn hangs(&self, now: Monotonic) -> bool {
        let until = self.until.load(Ordering::Acquire);
        until > 0 && millis(now) >= until
    }

    /// How much longer a call is under way than it should be.
    pub(super) fn overdue(&self, now: Monotonic) -> Duration {
        match self.until.load(Ordering::Acquire) {
            0 => Duration::ZERO,
            until => Duration::from_millis(millis(now).saturating_sub(until)),
        }
    }

    /// Whether another thread has taken this one's place: it must end.
    pub(super) fn is_written_off(&self) -> bool {
        self.written_off.load(Ordering::Acquire)
    }
}

/// Says that the thread ended, however it did.
struct Ending(Arc<Seat>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.ended.store(true, Ordering::Release);
    }
}

/// The threads.
pub(super) struct Crew {
    roll: Mutex<Roll>,
}

struct Roll {
    working: Vec<Arc<Seat>>,
    hanging: Vec<Arc<Seat>>,
    wanted: usize,
}

/// What a look at the threads found.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Looked {
    /// How many were written off just now.
    pub(super) lost: usize,
    /// How many hang altogether.
    pub(super) hanging: usize,
    /// Whether more hang than are replaced.
    pub(super) beyond_help: bool,
}

impl Crew {
    /// No thread yet.
    pub(super) fn new() -> Self {
        Self { roll: Mutex::new(Roll { working: Vec::new(), hanging: Vec::new(), wanted: 0 }) }
    }

    /// Says how many threads there should be.
    pub(super) fn want(&self, wanted: usize) {
        lock(&self.roll).wanted = wanted;
    }

    /// Starts the threads that are missing, as far as the bound goes.
    pub(super) fn hire(&self, work: impl Fn(&Arc<Seat>) + Clone + Send + 'static) -> Result<(), Fault> {
        let mut roll = lock(&self.roll);
        roll.forget_ended();
        while roll.working.len() < roll.wanted && roll.working.len() + roll.hanging.len() < roll.wanted * MOST_FOR_EACH {
            let (seat, work) = (Arc::<Seat>::default(), work.clone());
            let ending = Ending(Arc::clone(&seat));
            let thread = std::thread::Builder::new().name(format!("p11-sign-{}", roll.working.len()));
            let started = thread.spawn(move || work(&ending.0));
            started.map_err(|_| Fault::Occupied("the system gives no thread for signing"))?;
            roll.working.push(seat);
        }
        Ok(())
    }

    /// Writes off the threads that hang.
    pub(super) fn look(&self, now: Monotonic) -> Looked {
        let mut roll = lock(&self.roll);
        roll.forget_ended();
        let (lost, working): (Vec<_>, Vec<_>) = std::mem::take(&mut roll.working).into_iter().partition(|seat| seat.hangs(now));
        for seat in &lost {
            seat.written_off.store(true, Ordering::Release);
        }
        let count = lost.len();
        roll.working = working;
        roll.hanging.extend(lost);
        let beyond_help = roll.hanging.len() > roll.wanted * (MOST_FOR_EACH - 1);
        Looked { lost: count, hanging: roll.hanging.len(), beyond_help }
    }

    /// How many threads hang.
    pub(super) fn hanging(&self) -> usize {
        let mut roll = lock(&self.roll);
        roll.forget_ended();
        roll.hanging.len()
    }
}

impl Roll {
    fn forget_ended(&mut self) {
        for seats in [&mut self.working, &mut self.hanging] {
            seats.retain(|seat| !seat.ended.load(Ordering::Acquire));
        }
    }
}

fn millis(point: Monotonic) -> u64 {
    u64::try_from(point.since(Monotonic::at(Duration::ZERO)).as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    fn at(seconds: u64) -> Monotonic {
        Monotonic::at(Duration::from_secs(seconds))
    }

    /// Threads that begin a call at second 0, say so, and stay inside until the test lets each of them go.
    struct Stuck {
        crew: Crew,
        begun: Receiver<Sender<()>>,
        begin: Sender<Sender<()>>,
    }

    impl Stuck {
        fn new(wanted: usize) -> Self {
            let (begin, begun) = channel();
            let stuck = Self { crew: Crew::new(), begun, begin };
            stuck.crew.want(wanted);
            stuck
        }

        /// Hires, and waits until as many threads as expected are inside their call.
        fn hire(&self, expected: usize) -> Vec<Sender<()>> {
            let begin = Mutex::new(self.begin.clone());
            let begin = Arc::new(begin);
            self.crew
                .hire(move |seat| {
                    let (release, released) = channel();
                    seat.call(at(0), PATIENCE, || {
                        lock(&begin).send(release).expect("the test waits");
                        let _ = released.recv();
                    });
                })
                .expect("threads");
            (0..expected).map(|_| self.begun.recv().expect("a thread")).collect()
        }

        /// Waits until so many threads hang, as those that were let go end on their own time.
        fn until_hanging(&self, count: usize) {
            while self.crew.hanging() != count {
                std::thread::yield_now();
            }
        }
    }

    #[test]
    fn a_call_hangs_when_its_patience_is_over_and_not_before() {
        let seat = Seat::default();
        assert!(!seat.hangs(at(1_000)), "outside of the module nothing hangs");
        seat.call(at(5), PATIENCE, || {
            assert!(!seat.hangs(Monotonic::at(Duration::from_millis(15_000))));
            assert!(seat.hangs(Monotonic::at(Duration::from_millis(15_001))));
        });
        assert!(!seat.hangs(at(1_000)));
    }

    #[test]
    fn hung_threads_are_replaced_until_too_many_hang() {
        let stuck = Stuck::new(2);
        let first = stuck.hire(2);
        assert_eq!(stuck.crew.look(at(10)), Looked { lost: 0, hanging: 0, beyond_help: false });
        assert_eq!(stuck.crew.look(at(11)), Looked { lost: 2, hanging: 2, beyond_help: false });
        let second = stuck.hire(2);
        assert_eq!(stuck.crew.look(at(11)), Looked { lost: 2, hanging: 4, beyond_help: true });
        drop(stuck.hire(0));
        assert!(stuck.begun.try_recv().is_err(), "four threads hang, so no fifth is started");
        drop((first, second));
        stuck.until_hanging(0);
    }

    #[test]
    fn a_thread_whose_call_returns_makes_room_again() {
        let stuck = Stuck::new(1);
        let first = stuck.hire(1);
        assert_eq!(stuck.crew.look(at(11)), Looked { lost: 1, hanging: 1, beyond_help: false });
        drop(first);
        stuck.until_hanging(0);
        let second = stuck.hire(1);
        assert_eq!(stuck.crew.look(at(10)), Looked { lost: 0, hanging: 0, beyond_help: false });
        drop(second);
    }
}
