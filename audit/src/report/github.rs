//! A report as the workflow commands of GitHub Actions: each finding is an annotation of the job.
//!
//! In scope: the commands and their escapes. Out of scope: the job summary (`summary`).
//!
//! What a log says must not become a command of its own. The runner takes one wherever a line begins with `::`, and the old form `##[` even
//! within a line. So nothing of a log stands outside of a command, and within one everything that could end it is escaped.

use crate::verify::{Finding, Report, Verdict};

use super::{fork_line, headline, printable, reconciled};

/// How many annotations of one kind GitHub shows for a step; more would be dropped without a word.
const MOST_ANNOTATIONS: usize = 10;

/// The verdict as a plain line, each finding as an error, and the verdict again as a notice.
pub fn github(report: &Report) -> String {
    let headline = printable(&headline(report));
    let findings = report.findings.list();
    let mut lines = vec![headline.clone()];
    lines.extend(findings.iter().take(MOST_ANNOTATIONS).map(annotation));
    let more = report.findings.more() + findings.len().saturating_sub(MOST_ANNOTATIONS) as u64;
    if more > 0 {
        lines.push(format!("and {more} more findings; --format text and --summary list more of them"));
    }
    let proofs = report.fork_proofs.iter().map(|file| printable(&fork_line(file)));
    let compared = report.reconciliation.iter().map(|compared| printable(&reconciled::compared(compared)));
    let verdict: Vec<String> = [headline].into_iter().chain(compared).chain(proofs).collect();
    lines.push(format!("::notice title={}::{}", property(&title(report.verdict)), data(&verdict.join("\n"))));
    lines.join("\n") + "\n"
}

fn title(verdict: Verdict) -> String {
    format!("claviger-audit exit {} {}", verdict.exit_code(), verdict.name())
}

fn annotation(finding: &Finding) -> String {
    let place = finding.at.as_ref().map(|at| format!("file={},line={},", property(&printable(&at.file)), at.line));
    let log = finding.log.as_ref().map(|log| format!("{log}: ")).unwrap_or_default();
    let rule = finding.rule.map(|rule| format!("{rule}: ")).unwrap_or_default();
    let mut text = vec![format!("{log}{rule}{}", finding.text)];
    text.extend(finding.at.as_ref().map(|at| format!("record {}, byte {}", at.seq, at.offset)));
    text.extend(finding.expected.iter().map(|expected| format!("expected {expected}")));
    text.extend(finding.found.iter().map(|found| format!("found {found}")));
    let text: Vec<String> = text.iter().map(|line| printable(line)).collect();
    format!("::error {}title={}::{}", place.unwrap_or_default(), property(&title(finding.verdict)), data(&text.join("\n")))
}

/// What stands after the second `::`.
fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// What stands after a `=`.
fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::{Findings, Location};

    fn report(findings: impl IntoIterator<Item = Finding>) -> Report {
        let mut list = Findings::default();
        findings.into_iter().for_each(|finding| list.push(finding));
        Report {
            verdict: list.verdict(),
            findings: list,
            logs: Vec::new(),
            pinned_by: Vec::new(),
            keys_only: false,
            rotations: Vec::new(),
            keyrings: crate::keyrings::Keyrings::default(),
            reconciliation: None,
            fork_proofs: Vec::new(),
        }
    }

    #[test]
    fn a_finding_is_an_annotation() {
        let at = Location { file: "log/a,b:c.jsonl".into(), line: 7, seq: 6, offset: 1234 };
        let finding = Finding::new(Verdict::Tampered, "100% wrong").of("example.org/keys").rule("I1").at(&at).differ("a", "b");
        let text = github(&report([finding]));
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("tampered (exit 10): 1 finding"), "{text}");
        let error = "::error file=log/a%2Cb%3Ac.jsonl,line=7,title=claviger-audit exit 10 tampered::\
                     example.org/keys: I1: 100%25 wrong%0Arecord 6, byte 1234%0Aexpected a%0Afound b";
        assert_eq!(lines[1], error);
        assert!(lines[2].starts_with("::notice title=claviger-audit exit 10 tampered::tampered (exit 10): "), "{text}");
        assert_eq!(lines.len(), 3);
    }

    /// By the runner's own rule a command is a line that begins with `::` once it is trimmed, or that holds `##[`.
    #[test]
    fn what_a_log_says_is_never_a_command() {
        let hostile = "x\n::add-mask::y\r\n  ::stop-commands::z\n##[error]q";
        let at = Location { file: hostile.into(), line: 1, seq: 0, offset: 0 };
        let finding = Finding::new(Verdict::Tampered, hostile).of(hostile).at(&at).differ(hostile, hostile);
        let text = github(&report([finding]));
        let is_command = |line: &&str| line.trim_start().starts_with("::") || line.contains("##[");
        let commands: Vec<&str> = text.lines().filter(is_command).collect();
        assert!(commands[0].starts_with("::error file=") && commands[1].starts_with("::notice title="), "{text}");
        assert_eq!((commands.len(), text.lines().count()), (2, 3), "{text}");
        let properties = commands[0].strip_prefix("::error ").and_then(|rest| rest.split_once("::")).unwrap().0;
        assert_eq!(
            properties.split(',').filter_map(|pair| pair.split_once('=')).map(|(name, _)| name).collect::<Vec<_>>(),
            ["file", "line", "title"]
        );
    }

    #[test]
    fn the_rest_is_counted() {
        let findings = (0..130).map(|_| Finding::new(Verdict::Illegal, "x"));
        let text = github(&report(findings));
        assert_eq!(text.lines().filter(|line| line.starts_with("::error ")).count(), MOST_ANNOTATIONS);
        assert!(text.contains("\nand 120 more findings"), "{text}");
    }
}
