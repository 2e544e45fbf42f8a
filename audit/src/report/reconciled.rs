//! What a comparison with keystores' own records found, in lines.
//!
//! In scope: what was read, what matches, what is allowed. Out of scope: what differs, which is among the findings.

use std::fmt::Write as _;

use crate::verify::reconcile::{Allowed, Reconciled, Reconciliation};

/// Most signatures that something covers of which the text tells; one kill can allow 256 for each keystore. The JSON has all of them.
const MOST_LINES: usize = 1_000;

/// The numbers: a line for each record that was given, and one for all.
pub(super) fn lines(reconciliation: &Reconciliation) -> Vec<String> {
    let mut lines: Vec<String> = reconciliation.backends.iter().map(read).collect();
    lines.push(compared(reconciliation));
    lines
}

/// The signatures that something covers.
pub(super) fn allowed(reconciliation: &Reconciliation) -> Vec<String> {
    let mut lines: Vec<String> = reconciliation.allowed.iter().take(MOST_LINES).map(one).collect();
    let more = reconciliation.allowed_count - lines.len() as u64;
    if more > 0 {
        lines.push(format!("    and {more} more: --format json has all of them"));
    }
    lines
}

fn read(Reconciled { name, files, first, last, signatures, refused, doubled, torn }: &Reconciled) -> String {
    let mut line = format!("compared with {name}: {files} files");
    if let Some((first, last)) = first.zip(*last) {
        let _ = write!(line, " from {first} to {last}");
    }
    let _ = write!(line, ", {signatures} signatures, {refused} refused");
    for (count, what) in [(doubled, "delivered more than once"), (torn, "lines torn")] {
        if *count > 0 {
            let _ = write!(line, ", {count} {what}");
        }
    }
    line
}

/// What was compared, in one line.
pub(super) fn compared(reconciliation: &Reconciliation) -> String {
    let Reconciliation { matched, allowed_count, differing, log_keys, foreign, uncovered, too_new, too_old, exposed, outside, .. } =
        reconciliation;
    let mut line = format!("reconciled: {matched} signatures matched, {allowed_count} without a record allowed, {differing} differ");
    let rest = [
        (log_keys, "signatures by log keys"),
        (foreign, "by keys that are not ours"),
        (uncovered, "by records that no checkpoint covers yet"),
        (too_new, "too new to be judged: their records may be on the way"),
        (too_old, "older than the first record that is left"),
        (exposed, "requests for keys of ours that Claviger never makes"),
        (outside, "records outside of the time that the keystores' records cover"),
    ];
    for (count, what) in rest.into_iter().filter(|(count, _)| **count > 0) {
        let _ = write!(line, "; {count} {what}");
    }
    line
}

fn one(Allowed { time, request, key, caller, place, because }: &Allowed) -> String {
    format!("    allowed  request {request} of {time} by {caller}, key {key} ({place}): {because}")
}
