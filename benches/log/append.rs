//! The durable append, without HTTP and without a keystore: the use log of `claviger::journal` on the same disk.
//!
//! In scope: records as large as those of signatures, from one waiter or many. Out of scope: checkpoints, which no append waits for.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use claviger::clock::{Clock, Monotonic, SystemClock};
use claviger::journal::{Draft, KeyLog, Opening, UseLog, create};
use claviger_audit::event::LogKind;
use claviger_audit::record::Asked;
use tokio::runtime::{Builder, Runtime};

use crate::common::floor::{self, Floor};
use crate::common::table::{count, quantile};
use crate::disk::Counting;
use crate::{Outcome, folder_of, made};

/// How many rounds. Odd, so that a median is something that was measured.
const ROUNDS: usize = 11;
/// How long each is measured in a round.
const SPAN: Duration = Duration::from_millis(400);
/// How many wait at once.
pub(crate) const WAITERS: [usize; 4] = [1, 16, 64, 256];

/// What one round found.
pub(crate) struct Round {
    /// A write of a record's size with its `fdatasync`.
    pub(crate) sync: Floor,
    /// Bytes of a record with its LF.
    pub(crate) record: usize,
    /// Appends by each number of waiters.
    pub(crate) appends: [Appends; WAITERS.len()],
}

/// Appends by some waiters.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Appends {
    /// Seconds until an append returns: the median.
    pub(crate) p50: f64,
    /// The longest but one in a hundred.
    pub(crate) p99: f64,
    /// Records per second.
    pub(crate) rate: f64,
    /// Records for each sync.
    pub(crate) per_sync: f64,
}

/// Measures each number of waiters beside the floor, again and again.
pub(crate) fn rounds(folder: &Path, clock: &Arc<SystemClock>) -> Outcome<Vec<Round>> {
    let log = Log::open(folder, clock)?;
    let record = log.record_length(folder)?;
    let mut rounds = Vec::new();
    for number in 1..=ROUNDS {
        eprintln!("appends, round {number} of {ROUNDS}");
        let sync = floor::sync(folder, record, SPAN)?;
        let [one, some, many, most] = WAITERS.map(|waiters| log.measure(waiters, SPAN));
        rounds.push(Round { sync, record, appends: [one?, some?, many?, most?] });
    }
    log.runtime.block_on(log.uses.stop());
    Ok(rounds)
}

/// A use log with nothing around it.
struct Log {
    uses: UseLog,
    disk: Counting,
    clock: Arc<SystemClock>,
    runtime: Runtime,
}

impl Log {
    /// Makes both logs in `folder`, for the use log names the key log.
    fn open(folder: &Path, clock: &Arc<SystemClock>) -> Outcome<Self> {
        let disk = Counting::default();
        let opening = |kind: LogKind| opening(folder, kind, clock);
        for kind in [LogKind::Keys, LogKind::Uses] {
            create(&opening(kind), kind, Asked::default(), made::created(kind)?)?;
        }
        let keys = KeyLog::open(&opening(LogKind::Keys))?.log;
        let uses = UseLog::open(&Opening { disk: Arc::new(disk.clone()), ..opening(LogKind::Uses) }, keys)?.log;
        Ok(Self { uses, disk, clock: clock.clone(), runtime: Builder::new_multi_thread().enable_all().build()? })
    }

    /// Appends one record, and looks how long it became.
    fn record_length(&self, folder: &Path) -> Outcome<usize> {
        self.runtime.block_on(self.uses.append(draft(0, self.clock.as_ref())))?;
        let bytes = std::fs::read(folder_of(folder, LogKind::Uses).join("00000000000000000000.jsonl"))?;
        Ok(bytes.split_inclusive(|byte| *byte == b'\n').next_back().map_or(0, <[u8]>::len))
    }

    /// Appends from `waiters` waiters for `span`.
    fn measure(&self, waiters: usize, span: Duration) -> Outcome<Appends> {
        let (begun, syncs) = (self.clock.monotonic(), self.disk.syncs());
        let until = begun.plus(span);
        let mut spans = self.runtime.block_on(async {
            let tasks: Vec<_> = (0..waiters).map(|_| tokio::spawn(wait(self.uses.clone(), self.clock.clone(), until))).collect();
            let mut spans = Vec::new();
            for task in tasks {
                spans.extend(task.await??);
            }
            Outcome::Ok(spans)
        })?;
        let wall = self.clock.monotonic().since(begun);
        let records = count(spans.len());
        spans.sort_unstable();
        Ok(Appends {
            p50: quantile(&spans, 0.5),
            p99: quantile(&spans, 0.99),
            rate: records / wall.as_secs_f64(),
            per_sync: records / count(self.disk.syncs() - syncs),
        })
    }
}

/// How one of the logs in `folder` is opened.
pub(crate) fn opening(folder: &Path, kind: LogKind, clock: &Arc<SystemClock>) -> Opening {
    Opening::local(kind, folder_of(folder, kind), clock.clone(), made::NODE.to_owned(), "b00t".to_owned())
}

async fn wait(uses: UseLog, clock: Arc<SystemClock>, until: Monotonic) -> Outcome<Vec<Duration>> {
    let mut spans = Vec::new();
    let mut before = clock.monotonic();
    while before < until {
        let number = spans.len() as u64;
        uses.append(draft(number, clock.as_ref())).await?;
        let now = clock.monotonic();
        spans.push(now.since(before));
        before = now;
    }
    Ok(spans)
}

fn draft(number: u64, clock: &SystemClock) -> Draft {
    let (asked, event) = made::sign(number, clock.wall(), "oKIywvGUpTVTyxMQ3bwIIeQUudfr_CkLMjCE19ECD-U", 1);
    Draft { asked, event }
}
