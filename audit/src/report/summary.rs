//! A report as Markdown, for the summary of a job on GitHub or wherever Markdown is shown.
//!
//! In scope: two tables, logs and findings. Out of scope: annotations (`github`).

use std::fmt::Write as _;

use crate::verify::{Finding, LogReport, Report};

use super::{fork_line, headline, printable, reconciled};

/// Longest cell in characters: with [`crate::verify::MOST_FINDINGS`] rows the whole stays below the 1 MiB that GitHub takes.
const LONGEST_CELL: usize = 400;

/// The verdict as a heading, a table of the logs, and a table of the findings if there are any.
pub fn summary(report: &Report) -> String {
    let mut text = format!("### claviger-audit: {}\n\n", cell(&headline(report)));
    if !report.logs.is_empty() {
        text.push_str("| log | origin | covered | uncovered | last covered | root |\n| --- | --- | ---: | ---: | --- | --- |\n");
        for log in &report.logs {
            log_row(log, &mut text);
        }
        text.push('\n');
    }
    if !report.findings.list().is_empty() {
        text.push_str("| finding | log | where | what | expected | found |\n| --- | --- | --- | --- | --- | --- |\n");
        for finding in report.findings.list() {
            finding_row(finding, &mut text);
        }
        text.push('\n');
    }
    if report.findings.more() > 0 {
        let _ = writeln!(text, "And {} more findings.\n", report.findings.more());
    }
    let pins = report.pinned_by.iter().map(|pin| format!("pinned by {pin}"));
    let compared = report.reconciliation.iter().flat_map(reconciled::lines);
    for line in report.fork_proofs.iter().map(fork_line).chain(pins).chain(compared) {
        let _ = writeln!(text, "- {}", cell(&line));
    }
    text.push('\n');
    text
}

fn log_row(log: &LogReport, text: &mut String) {
    let origin = cell(log.origin.as_deref().unwrap_or(&log.name));
    let time = log.time.map(|time| time.to_string()).unwrap_or_default();
    let root = log.root.map(|root| root.to_string()).unwrap_or_default();
    let _ = writeln!(text, "| {} | {origin} | {} | {} | {time} | {root} |", log.kind.name(), log.size, log.uncovered);
}

fn finding_row(finding: &Finding, text: &mut String) {
    let verdict = format!("{} {}", finding.verdict.exit_code(), finding.verdict.name());
    let place = finding.at.as_ref().map(|at| format!("{} line {}, record {}", at.file, at.line, at.seq)).unwrap_or_default();
    let what = finding.rule.map(|rule| format!("{rule}: ")).unwrap_or_default() + &finding.text;
    let of = |value: &Option<String>| cell(value.as_deref().unwrap_or_default());
    let row = [cell(&verdict), of(&finding.log), cell(&place), cell(&what), of(&finding.expected), of(&finding.found)];
    let _ = writeln!(text, "| {} |", row.join(" | "));
}

/// Text that means nothing to Markdown or HTML, in one line and not too long.
fn cell(text: &str) -> String {
    let mut cell = String::new();
    for (count, c) in printable(text).chars().enumerate() {
        if count == LONGEST_CELL {
            cell.push('\u{2026}');
            break;
        }
        match c {
            '&' => cell.push_str("&amp;"),
            '<' => cell.push_str("&lt;"),
            '>' => cell.push_str("&gt;"),
            // GitHub makes links of addresses, people and issues even where Markdown would not; it sees none in entities.
            '@' | '#' | ':' => {
                let _ = write!(cell, "&#{};", u32::from(c));
            }
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '~' | '!' | '$' => {
                cell.push('\\');
                cell.push(c);
            }
            _ => cell.push(c),
        }
    }
    cell
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_log_says_is_only_text() {
        let markdown = "a|b\nc <img src=x> [l](u) `q` *b* @me #1";
        assert_eq!(cell(markdown), "a\\|b\u{fffd}c &lt;img src=x&gt; \\[l\\](u) \\`q\\` \\*b\\* &#64;me &#35;1");
        assert_eq!(cell(&"x".repeat(LONGEST_CELL + 1)).chars().count(), LONGEST_CELL + 1);
    }
}
