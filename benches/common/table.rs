//! The lines of a report, and the numbers in them.
//!
//! In scope: medians, quantiles, rows. Out of scope: judging; a row says "missed", and the run is a success.

use std::cmp::Ordering;
use std::time::Duration;

use super::cpu;

/// The duration, in seconds, below which `share` of the sorted `spans` lie.
pub(crate) fn quantile(spans: &[Duration], share: f64) -> f64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index: not negative, and far below 2^52")]
    let index = (count(spans.len().saturating_sub(1)) * share).round() as usize;
    spans.get(index).copied().unwrap_or_default().as_secs_f64()
}

/// A count as a number to calculate with.
#[expect(clippy::cast_precision_loss, reason = "counts of a run are far below 2^52")]
pub(crate) fn count(count: usize) -> f64 {
    count as f64
}

/// The first line of every report: the machine, and its load average before and after.
pub(crate) fn machine([before, after]: [&str; 2]) {
    println!("{} x {}; load average {before} before, {after} after", cpu::cores(), cpu::model());
}

/// The head of the table that [`line`] fills.
pub(crate) fn work() {
    println!("{:<44} {:>11} {:>11} {:>8} {:>8}", "work", "measured", "limit", "ratio", "bar");
}

/// A row of the table of [`work`]: the ratio against its bar.
pub(crate) fn line(name: &str, [measured, limit]: [f64; 2], ratio: f64, bar: (&str, f64)) {
    let (bar, verdict) = judged(ratio, bar);
    println!("{name:<44} {measured:>11.1} {limit:>11.1} {ratio:>8.2} {bar:>8} {verdict}");
}

/// The bar as text, and whether the ratio missed it; an infinite bar is none.
pub(crate) fn judged(ratio: f64, (sign, bar): (&str, f64)) -> (String, &'static str) {
    let kept = bar.is_infinite() || if sign == ">=" { ratio >= bar } else { ratio <= bar };
    let text = if bar.is_finite() { format!("{sign} {bar:.2}") } else { "none".to_owned() };
    (text, if kept { "" } else { "missed" })
}

/// The one in the middle.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(|a, b| a.partial_cmp(b).unwrap_or(Ordering::Equal));
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
