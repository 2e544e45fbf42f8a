//! A verification as text for people, as JSON for programs, and as annotations and a table where GitHub runs it.
//!
//! In scope: wording and layout; the first line of the text is the verdict. Out of scope: finding anything out ([`crate::verify`]).

mod github;
mod reconciled;
mod summary;

use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use crate::event::LogKind;
use crate::verify::reconcile::Reconciliation;
use crate::verify::{Finding, ForkFile, LogReport, Report, Rotation, Verdict};

pub use github::github;
pub use summary::summary;

/// The version of the JSON report. It grows when a member changes its meaning or goes away; new members may come without.
pub const REPORT_SCHEMA: u32 = 1;

#[derive(Serialize)]
struct Json<'r> {
    schema: u32,
    verdict: Verdict,
    exit: u8,
    pinned_by: &'r [String],
    keys_only: bool,
    logs: &'r [LogReport],
    findings: &'r [Finding],
    more_findings: u64,
    fork_proofs: &'r [ForkFile],
    #[serde(skip_serializing_if = "Option::is_none")]
    reconciliation: Option<&'r Reconciliation>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rotations: Option<&'r [Rotation]>,
}

/// The report as one JSON object and a line feed; rotations are there if asked for.
pub fn json(report: &Report, with_rotations: bool) -> serde_json::Result<String> {
    let value = Json {
        schema: REPORT_SCHEMA,
        verdict: report.verdict,
        exit: report.verdict.exit_code(),
        pinned_by: &report.pinned_by,
        keys_only: report.keys_only,
        logs: &report.logs,
        findings: report.findings.list(),
        more_findings: report.findings.more(),
        fork_proofs: &report.fork_proofs,
        reconciliation: report.reconciliation.as_ref(),
        rotations: with_rotations.then_some(report.rotations.as_slice()),
    };
    Ok(serde_json::to_string_pretty(&value)? + "\n")
}

/// The report as lines; rotations are there if asked for.
pub fn text(report: &Report, with_rotations: bool) -> String {
    let mut lines = vec![headline(report)];
    lines.extend(report.logs.iter().map(log_line));
    if report.keys_only {
        lines.push("use logs were not checked (--keys-only)".to_owned());
    }
    lines.extend(report.pinned_by.iter().map(|pin| format!("pinned by {pin}")));
    lines.extend(report.reconciliation.iter().flat_map(reconciled::lines));
    for finding in report.findings.list() {
        finding_lines(finding, &mut lines);
    }
    if report.findings.more() > 0 {
        lines.push(format!("and {} more findings", report.findings.more()));
    }
    lines.extend(report.reconciliation.iter().flat_map(reconciled::allowed));
    lines.extend(report.fork_proofs.iter().map(fork_line));
    if with_rotations {
        report.rotations.iter().for_each(|rotation| rotation_lines(rotation, &mut lines));
    }
    lines.into_iter().map(|line| printable(&line) + "\n").collect()
}

fn headline(report: &Report) -> String {
    let verdict = report.verdict;
    let covered: u64 = report.logs.iter().map(|log| log.size).sum();
    let uncovered: u64 = report.logs.iter().map(|log| log.uncovered).sum();
    let mut line = format!("{} (exit {}): ", verdict.name(), verdict.exit_code());
    let findings = report.findings.list().len() as u64 + report.findings.more();
    match (verdict, findings) {
        (Verdict::Verified, _) => {}
        (_, 1) => line.push_str("1 finding; "),
        _ => {
            let _ = write!(line, "{findings} findings; ");
        }
    }
    let _ = write!(line, "{} records covered by checkpoints in {} logs, {uncovered} uncovered", covered, report.logs.len());
    let unwitnessed: u64 = report.logs.iter().map(|log| log.unwitnessed).sum();
    if unwitnessed > 0 {
        let _ = write!(line, ", {unwitnessed} signed, not witnessed");
    }
    for log in &report.logs {
        let label = log.origin.as_deref().unwrap_or(&log.name);
        if log.first > 0 {
            let _ = write!(line, "; {label}: records from seq {}", log.first);
        }
        if log.resumed_at > 0 {
            let _ = write!(line, "; {label}: records before {} were checked by an earlier run", log.resumed_at);
        }
    }
    if report.keys_only {
        line.push_str("; uses not checked");
    }
    line
}

fn log_line(log: &LogReport) -> String {
    let label = log.origin.as_deref().unwrap_or(&log.name);
    let mut line = format!("{} {label}: {} records covered", log.kind.name(), log.size);
    if let Some(root) = log.root {
        let _ = write!(line, ", root {root}");
    }
    if let Some(time) = log.time {
        let _ = write!(line, ", last {time}");
    }
    let _ = write!(line, "; {} checked, {} uncovered", log.checked, log.uncovered);
    if log.unwitnessed > 0 {
        let _ = write!(line, ", {} signed, not witnessed", log.unwitnessed);
    }
    if let Some(time) = log.witnessed {
        let _ = write!(line, ", witnessed until {time} ({})", log.cosigners.join(", "));
    }
    if let Some(why) = &log.read_whole_because {
        let _ = write!(line, ", read whole because {why}");
    }
    if log.torn > 0 {
        let _ = write!(line, ", {} torn", log.torn);
    }
    if log.kind == LogKind::Uses {
        let _ = write!(line, ", {} signatures", log.signatures);
    }
    if let Some(ended) = &log.ended {
        let _ = write!(line, "; adopted by {} with a loss of {} records", ended.adopted_by, ended.lost);
    }
    if log.judged < log.checked {
        let _ = write!(line, "; the rules could be checked for {} only", log.judged);
    }
    line
}

fn finding_lines(finding: &Finding, lines: &mut Vec<String>) {
    let mut line = format!("- {}", finding.verdict.name());
    if let Some(rule) = finding.rule {
        let _ = write!(line, " ({rule})");
    }
    if let Some(log) = &finding.log {
        let _ = write!(line, " {log}");
    }
    if let Some(at) = &finding.at {
        let _ = write!(line, " {} line {} (record {}, byte {})", at.file, at.line, at.seq, at.offset);
    }
    lines.push(format!("{line}: {}", finding.text));
    lines.extend(finding.expected.iter().map(|expected| format!("    expected {expected}")));
    lines.extend(finding.found.iter().map(|found| format!("    found    {found}")));
    for note in &finding.notes {
        lines.extend(note.lines().map(|line| format!("    | {line}")));
    }
}

fn fork_line(ForkFile { log, file, error }: &ForkFile) -> String {
    let log = log.as_deref().unwrap_or("the log");
    match error {
        None => format!("the fork of {log} is proven to anyone by {file}: `claviger-audit verify-fork` checks it, without the log"),
        Some(error) => format!("the proof of the fork of {log} could not be written to {file}: {error}; say --fork-proof FILE"),
    }
}

fn rotation_lines(rotation: &Rotation, lines: &mut Vec<String>) {
    let name = |kid: &Option<String>| kid.clone().unwrap_or_else(|| "nobody".to_owned());
    let forced = if rotation.forced { ", forced" } else { "" };
    lines.push(format!("rotation of {} in record {}: {}{forced}", rotation.keyring, rotation.seq, rotation.cause));
    lines.push(format!("    from       {}", name(&rotation.from)));
    lines.push(format!("    to         {}", name(&rotation.to)));
    let dates = [
        ("published ", rotation.published),
        ("visible   ", rotation.visible),
        ("eligible  ", rotation.eligible),
        ("activated ", rotation.to.is_some().then_some(rotation.time)),
        ("keep until", rotation.keep_until),
        ("withdraw  ", rotation.withdraw_after),
        ("withdrawn ", rotation.withdrawn),
    ];
    lines.extend(dates.iter().filter_map(|(what, date)| date.map(|date| format!("    {what} {date}"))));
    for slack in &rotation.slack {
        lines.push(format!("    {} slack  {} ({})", slack.rule, signed_span(slack.millis), slack.of));
    }
    lines.extend(rotation.note.iter().map(|note| format!("    because    {note}")));
}

fn signed_span(millis: i64) -> String {
    let span = Duration::from_millis(millis.unsigned_abs());
    let sign = if millis < 0 { "-" } else { "" };
    let (seconds, rest) = (span.as_secs(), span.subsec_millis());
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    format!("{sign}{days}d {hours:02}:{minutes:02}:{:02}.{rest:03}", seconds % 60)
}

/// What a log says must not move a terminal's cursor or hide a line of the report.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || is_direction(c) { '\u{fffd}' } else { c }).collect()
}

/// Characters that turn the direction of writing (Unicode Standard Annex 9), and could show a word backwards.
fn is_direction(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_move_the_cursor() {
        assert_eq!(printable("a\u{1b}[2Jb\nc\u{202e}d"), "a\u{fffd}[2Jb\u{fffd}c\u{fffd}d");
    }

    #[test]
    fn spans_keep_their_sign() {
        assert_eq!(signed_span(-90_061_001), "-1d 01:01:01.001");
        assert_eq!(signed_span(0), "0d 00:00:00.000");
    }
}
