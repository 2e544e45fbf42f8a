//! The report: each bar beside what was measured, and the floors of the same rounds.
//!
//! In scope: medians over the rounds, and ratios within each round. Out of scope: judging; a row says "missed", and the run is a success.

use crate::append::{self, WAITERS};
use crate::common::table::{self, line};
use crate::made::Made;
use crate::{start, verify};

/// Longest durable append as a multiple of one `fdatasync`, for each number of waiters.
const APPEND_BARS: [f64; WAITERS.len()] = [1.5, f64::INFINITY, 2.5, f64::INFINITY];
/// Least bytes that a core verifies in a second.
const BYTES_BAR: f64 = 0.8e9;
/// Least records.
const RECORDS_BAR: f64 = 1e6;
/// Longest start, in seconds.
const START_BAR: f64 = 0.2;

/// The durable append.
pub(crate) fn append(rounds: &[append::Round]) {
    let median = |of: &dyn Fn(&append::Round) -> f64| table::median(rounds.iter().map(of).collect());
    println!(
        "{:<28} {:>9} {:>9} {:>11} {:>9} {:>8} {:>8}",
        "durable append", "p50 us", "p99 us", "per second", "per sync", "p50/sync", "bar"
    );
    for (at, waiters) in WAITERS.into_iter().enumerate() {
        let of = |of: &dyn Fn(&append::Appends) -> f64| median(&|round: &append::Round| of(&round.appends[at]));
        let ratio = median(&|round: &append::Round| round.appends[at].p50 / round.sync.wall);
        let (p50, p99) = (of(&|appends| appends.p50 * 1e6), of(&|appends| appends.p99 * 1e6));
        let (rate, per_sync) = (of(&|appends| appends.rate), of(&|appends| appends.per_sync));
        let (bar, missed) = table::judged(ratio, ("<=", APPEND_BARS[at]));
        let name = if waiters == 1 { "1 waiter".to_owned() } else { format!("{waiters} waiters") };
        println!("{name:<28} {p50:>9.1} {p99:>9.1} {rate:>11.0} {per_sync:>9.1} {ratio:>8.2} {bar:>8} {missed}");
    }
    let record = rounds.first().map_or(0, |round| round.record);
    let floor = |of: &dyn Fn(&append::Round) -> f64| median(of);
    println!(
        "floor: one write of {record} bytes and its fdatasync, {:.1} us by the clock, {:.1} us of CPU, {:.0} per second\n",
        floor(&|round| round.sync.wall * 1e6),
        floor(&|round| round.sync.cpu * 1e6),
        floor(&|round| round.sync.rate)
    );
}

/// The verification.
pub(crate) fn verification(made: &Made, rounds: &[verify::Round]) {
    let median = |of: &dyn Fn(&verify::Round) -> f64| table::median(rounds.iter().map(of).collect());
    #[expect(clippy::cast_precision_loss, reason = "sizes of one log are far below 2^52")]
    let (bytes, records) = (made.bytes as f64, made.records as f64);
    println!(
        "a log of {records} records, {:.0} bytes each, in {} segments; CPU of the one thread that verifies",
        bytes / records,
        made.segments
    );
    table::work();
    let at_least =
        |name: &str, rate: f64, limit: f64, unit: f64, bar: f64| line(name, [rate / unit, limit / unit], rate / limit, (">=", bar));
    let verified = |amount: f64| median(&|round: &verify::Round| amount / round.verifying);
    at_least("verification, MB per second and core", verified(bytes), BYTES_BAR, 1e6, 1.0);
    at_least("  thousand records per second and core", verified(records), RECORDS_BAR, 1e3, 1.0);
    let ratio = median(&|round: &verify::Round| round.sha256 / round.verifying);
    let plain = median(&|round: &verify::Round| bytes / round.sha256);
    line("  beside plain SHA-256 of the same bytes, MB/s", [verified(bytes) / 1e6, plain / 1e6], ratio, (">=", f64::INFINITY));
    println!("\n{:<44} {:>11} {:>11}", "of a record, ns", "", "share");
    let whole = median(&|round: &verify::Round| round.verifying);
    let row = |name: &str, seconds: f64| println!("{name:<44} {:>11.0} {:>10.0} %", seconds / records * 1e9, seconds / whole * 100.0);
    row("the whole verification, CPU", whole);
    row("  leaf hashes, tree and seals, alone", median(&|round| round.hashing));
    row("  reading the records, alone", median(&|round| round.reading));
    row("the whole verification, by the clock", median(&|round| round.wall));
    row("floor: plain SHA-256", median(&|round| round.sha256));
    println!();
}

/// The start.
pub(crate) fn start(rounds: &[start::Round]) {
    let median = |of: &dyn Fn(&start::Round) -> f64| table::median(rounds.iter().map(of).collect());
    table::work();
    let orderly = median(&|round: &start::Round| round.orderly);
    line("start after an orderly stop, ms", [orderly * 1e3, START_BAR * 1e3], orderly / START_BAR, ("<=", 1.0));
    let row = |name: &str, measured: &dyn Fn(&start::Round) -> f64, floor: &dyn Fn(&start::Round) -> f64| {
        let ratio = median(&|round: &start::Round| measured(round) / floor(round));
        line(name, [median(measured) * 1e3, median(floor) * 1e3], ratio, ("<=", f64::INFINITY));
    };
    row("  beside the last segment, read and hashed", &|round| round.orderly, &|round| round.last_segment);
    row("start without a frontier (the whole log), ms", &|round| round.whole, &|round| round.all_segments);
}
