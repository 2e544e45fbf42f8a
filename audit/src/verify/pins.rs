//! What the verifier brought along, held against the logs.
//!
//! In scope: what pins a log from outside (trust file, remembered heads, receipts, sizes), freshness, and a live JWKS. Out of scope: the
//! roots of remembered heads, which `notes` compares like any other checkpoint.

use crate::event::LogKind;
use crate::jwks;
use crate::merkle::Hash;
use crate::time::Timestamp;

use super::chain::Scan;
use super::finding::{Finding, Findings, Verdict};
use super::keylog::KeyLog;
use super::notes::Statement;
use super::run::LogReport;
use super::{LiveSet, Options};

/// Checks everything that is about all logs together, and says in words what pins them.
pub(super) fn check(options: &Options, heads: &[Statement], logs: &[LogReport], now: Timestamp, findings: &mut Findings) -> Vec<String> {
    check_trust(options, findings);
    let mut pinned_by: Vec<String> = logs.iter().filter(|log| !log.former).filter_map(witnessed).collect();
    for head in heads {
        pinned_by.extend(check_head(options, head, logs, findings));
    }
    for receipt in &options.receipts {
        pinned_by.extend(
            (check_named(options, &receipt.log, "a receipt", logs, findings) && goes_on(&receipt.log, logs))
                .then(|| format!("receipt of {} record {}", receipt.log, receipt.seq)),
        );
    }
    for least in &options.min_sizes {
        pinned_by.extend(check_min_size(options, least, logs, findings));
    }
    match &options.missing_head {
        Some(name) if options.first_run => pinned_by.push(format!("first run: {name} does not exist yet, the trust file alone decides")),
        Some(name) => {
            let text = format!("there is no {name} to compare with; if this is the first run, say --first-run");
            findings.push(Finding::new(Verdict::Unpinned, text));
        }
        None => {}
    }
    if pinned_by.is_empty() {
        let text = "nothing from outside pins the size of the log; bring --head, --receipt or --min-size, or a trust file with a quorum of witnesses";
        findings.push(Finding::new(Verdict::Unpinned, text));
    }
    check_age(options, logs, now, findings);
    pinned_by
}

fn check_trust(options: &Options, findings: &mut Findings) {
    if options.trust.is_none() {
        let text = "nothing says which key may sign for the log; bring --trust (`claviger-audit trust` prints a file to start from)";
        findings.push(Finding::new(Verdict::Unpinned, text));
    }
}

/// Witnesses saw that the log only grows, and how long it was.
fn witnessed(log: &LogReport) -> Option<String> {
    let origin = log.origin.as_deref()?;
    log.witnessed.map(|time| format!("a quorum of witnesses at {time} ({origin}, {} records; {})", log.size, log.cosigners.join(", ")))
}

fn check_head(options: &Options, head: &Statement, logs: &[LogReport], findings: &mut Findings) -> Option<String> {
    let (Some(origin), Some(size)) = (head.origin(), head.size()) else {
        findings.push(Finding::new(Verdict::Unsigned, format!("{} is not a signed checkpoint: {}", head.name(), head.defect())));
        return None;
    };
    let here = check_named(options, origin, head.name(), logs, findings);
    (here && goes_on(origin, logs) && size > 0).then(|| format!("{} ({origin}, {size} records)", head.name()))
}

/// What is known of a log that ended is checked like any other, but it says nothing about the log that goes on from it.
fn goes_on(origin: &str, logs: &[LogReport]) -> bool {
    logs.iter().any(|log| !log.former && log.origin.as_deref() == Some(origin))
}

/// Whether the log that something names is here. With `--keys-only`, what is about a use log is passed over.
fn check_named(options: &Options, origin: &str, what: &str, logs: &[LogReport], findings: &mut Findings) -> bool {
    let here = logs.iter().any(|log| log.origin.as_deref() == Some(origin));
    if !here && !options.keys_only {
        let trusted = options.trust.as_ref().is_some_and(|trust| trust.logs().iter().any(|log| log.key.name() == origin));
        let verdict = if trusted { Verdict::Truncated } else { Verdict::Unpinned };
        findings.push(Finding::new(verdict, format!("{what} is of the log {origin:?}, which is not here")));
    }
    here
}

fn check_min_size(options: &Options, least: &super::MinSize, logs: &[LogReport], findings: &mut Findings) -> Option<String> {
    let of = |log: &&LogReport| match &least.origin {
        Some(origin) => log.origin.as_ref() == Some(origin),
        None => log.kind == LogKind::Keys && !log.former,
    };
    let Some(log) = logs.iter().find(of) else {
        check_named(options, least.origin.as_deref().unwrap_or("keys"), "--min-size", logs, findings);
        return None;
    };
    let label = log.origin.as_deref().unwrap_or(&log.name);
    // A log of which nothing could be verified has its own finding, which must not be outranked by this one.
    if log.size > 0 && log.size < least.size {
        let finding = Finding::new(Verdict::Truncated, "the log is shorter than --min-size").of(label);
        findings.push(finding.differ(format_args!("{} covered records", least.size), format_args!("{} covered records", log.size)));
    }
    (least.size > 0 && !log.former).then(|| format!("--min-size {} of {label}", least.size))
}

/// The receipts of one log: each record is there, and is the one that the receipt names.
pub(super) fn receipts(options: &Options, origin: &str, scan: &Scan, findings: &mut Findings) {
    for receipt in options.receipts.iter().filter(|receipt| receipt.log == origin) {
        let finding = match scan.leaf(receipt.seq) {
            Some((leaf, _)) if *leaf == receipt.leaf => continue,
            Some((leaf, at)) => {
                let text = format!("record {} is not the one that its receipt names", receipt.seq);
                Finding::new(Verdict::Tampered, text).at(at).differ(receipt.leaf, leaf)
            }
            None => {
                let finding = Finding::new(Verdict::Truncated, "the record of a receipt is missing");
                finding.differ(format_args!("record {}", receipt.seq), format_args!("{} records", scan.size()))
            }
        };
        findings.push(finding.of(origin));
    }
}

/// Each log is as fresh as its last covered record. A key log may rest for an hour, so it is also as fresh as a use log that has seen all
/// of it: that says that nothing was added to the key log until then. With a quorum the times of cosignatures count instead: whoever holds
/// the host may write any time into a record, but not into those.
fn check_age(options: &Options, logs: &[LogReport], now: Timestamp, findings: &mut Findings) {
    let Some(max_age) = options.max_age else { return };
    let logs: Vec<&LogReport> = logs.iter().filter(|log| !log.former).collect();
    for log in &logs {
        let seen_whole = logs.iter().filter(|other| log.kind == LogKind::Keys && other.kind == LogKind::Uses && other.seen == log.size);
        let fresh = seen_whole.chain([log]).filter_map(|log| log.witnessed.or(log.time)).max();
        if let Some(time) = fresh.filter(|time| now.since(*time) > max_age) {
            let label = log.origin.as_deref().unwrap_or(&log.name);
            let what = if log.witnessed.is_some() { "the quorum of witnesses" } else { "the newest covered record" };
            let finding = Finding::new(Verdict::Stale, format!("{what} is older than --max-age")).of(label);
            findings.push(finding.differ(format_args!("{} or later", now - max_age), time));
        }
    }
}

/// Whether a live set is the one that the events of the key log make.
pub(super) fn live_set(options: &Options, keys: &KeyLog, findings: &mut Findings) {
    let Some(LiveSet { body, set, size }) = &options.jwks else { return };
    let keyrings = keys.keyrings();
    let candidates: Vec<_> = set.clone().map_or_else(|| keyrings.sets().into_iter().collect(), |set| vec![set]);
    if candidates.iter().any(|set| jwks::body(keyrings, set).as_ref() == Some(body)) {
        return;
    }
    let sha256 = Hash::digest(body);
    let (known, built_from) = (keys.leaves().len() as u64, size.unwrap_or_default());
    if built_from > known {
        let text = "the live JWKS was built from a longer key log than the one that is here; copy the log again, after the JWKS";
        let finding = Finding::new(Verdict::Stale, text);
        findings.push(finding.differ(format_args!("a key log of {built_from} records or more"), format_args!("{known} records")));
        return;
    }
    let text = match keys.last_served(sha256) {
        Some((seq, set)) => format!("the live JWKS is an older body of {set}, last recorded as served in record {seq}"),
        None => "the live JWKS is none that the events of this key log make".to_owned(),
    };
    let expected: Vec<String> =
        candidates.iter().filter_map(|set| Some(format!("{set}: SHA-256 {}", Hash::digest(&jwks::body(keyrings, set)?)))).collect();
    let finding = Finding::new(Verdict::Illegal, text).rule("I9");
    findings.push(finding.differ(expected.join(", "), format_args!("SHA-256 {sha256}")));
}
