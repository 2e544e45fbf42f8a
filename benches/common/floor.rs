//! Floors: one operation in a loop with nothing around it, and the one of the disk.
//!
//! In scope: operations per second, CPU, and the median time of one. Out of scope: which operations a bench wants floors of.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use claviger::clock::{Clock as _, Monotonic, SystemClock};

use super::table::{count, quantile};
use super::{Outcome, cpu};

/// One operation in a loop, on one thread or on several at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Floor {
    /// Operations per second of all threads together.
    pub(crate) rate: f64,
    /// Seconds of CPU for one operation.
    pub(crate) cpu: f64,
    /// Seconds from call to return, the median.
    pub(crate) wall: f64,
}

/// Appends of `bytes` bytes, each with its own `fdatasync`, for `span`, to a file in `folder`.
pub(crate) fn sync(folder: &Path, bytes: usize, span: Duration) -> Outcome<Floor> {
    let path = folder.join("fdatasync.floor");
    let mut file: File = OpenOptions::new().append(true).create(true).open(&path)?;
    let record = vec![b'x'; bytes];
    let mut works = [move || -> Outcome<()> {
        file.write_all(&record)?;
        Ok(file.sync_data()?)
    }];
    side_by_side(&SystemClock::start(), &mut works, span)
}

/// Each work again and again on a thread of its own, all at the same time.
pub(crate) fn side_by_side<W: FnMut() -> Outcome<()> + Send>(clock: &SystemClock, works: &mut [W], span: Duration) -> Outcome<Floor> {
    let (begun, mut spans, mut cpu) = (clock.monotonic(), Vec::new(), Duration::ZERO);
    let until = begun.plus(span);
    std::thread::scope(|scope| {
        let threads: Vec<_> = works.iter_mut().map(|work| scope.spawn(move || repeat(clock, work, until))).collect();
        for thread in threads {
            let (each, used) = thread.join().map_err(|_| "a thread of a floor ended early")??;
            spans.extend(each);
            cpu += used;
        }
        Outcome::Ok(())
    })?;
    let wall = clock.monotonic().since(begun);
    spans.sort_unstable();
    let done = count(spans.len());
    Ok(Floor { rate: done / wall.as_secs_f64(), cpu: cpu.as_secs_f64() / done, wall: quantile(&spans, 0.5) })
}

fn repeat(clock: &SystemClock, work: &mut impl FnMut() -> Outcome<()>, until: Monotonic) -> Outcome<(Vec<Duration>, Duration)> {
    let used = cpu::of_thread()?;
    let mut spans = Vec::new();
    let mut before = clock.monotonic();
    while before < until {
        work()?;
        let now = clock.monotonic();
        spans.push(now.since(before));
        before = now;
    }
    Ok((spans, cpu::of_thread()?.saturating_sub(used)))
}
