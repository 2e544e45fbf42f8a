//! What can be wrong with a log, how bad it is, and where.
//!
//! In scope: verdicts and their exit codes, findings, their bounded list. Out of scope: who finds them, and how they are printed
//! (`crate::report`).

use std::fmt::Display;

use serde::Serialize;

use crate::proof::ForkProof;

/// Most findings that a report lists, so that a log of a million bad lines gives a report that can be read; the rest is counted.
pub const MOST_FINDINGS: usize = 100;

/// What a verification says, in one word. Each has an exit code; [`Verdict::worst`] decides between several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Verified, pinned, fresh, not empty.
    Verified,
    /// A line, a link of the chain, a segment or a root is not what was signed.
    Tampered,
    /// Shorter than something that its holder knows it was, or a log that is named is missing.
    Truncated,
    /// The log key signed two histories.
    Forked,
    /// A signature is missing, or is not by the key that it must be by.
    Unsigned,
    /// Older than was asked for.
    Stale,
    /// The log is whole, and it records something that a rule forbids.
    Illegal,
    /// Nothing was verified: empty, another log, or nothing from outside pins it.
    Unpinned,
    /// The log is whole, and a keystore's own record tells something else.
    Differs,
}

impl Verdict {
    /// The exit code of the command.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Verified => 0,
            Self::Tampered => 10,
            Self::Truncated => 11,
            Self::Forked => 12,
            Self::Unsigned => 13,
            Self::Stale => 14,
            Self::Illegal => 15,
            Self::Unpinned => 16,
            Self::Differs => 17,
        }
    }

    /// The word that reports use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Verified => "verified",
            Self::Tampered => "tampered",
            Self::Truncated => "truncated",
            Self::Forked => "forked",
            Self::Unsigned => "unsigned",
            Self::Stale => "stale",
            Self::Illegal => "illegal",
            Self::Unpinned => "unpinned",
            Self::Differs => "differs",
        }
    }

    /// The one that decides the exit code: the first of 10, 12, 11, 13, 16, 15, 17, 14; 0 if there is none.
    pub fn worst(verdicts: impl IntoIterator<Item = Self>) -> Self {
        const ORDER: [Verdict; 9] = [
            Verdict::Verified,
            Verdict::Stale,
            Verdict::Differs,
            Verdict::Illegal,
            Verdict::Unpinned,
            Verdict::Unsigned,
            Verdict::Truncated,
            Verdict::Forked,
            Verdict::Tampered,
        ];
        let rank = |verdict: &Self| ORDER.iter().position(|other| other == verdict);
        verdicts.into_iter().max_by_key(rank).unwrap_or(Self::Verified)
    }
}

/// A place in a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Location {
    /// The segment, as the caller named it.
    pub file: String,
    /// The line in that file, from 1.
    pub line: u64,
    /// The sequence number of the record that stands there, or should.
    pub seq: u64,
    /// The offset of the line's first byte in the file.
    pub offset: u64,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it makes of the whole.
    pub verdict: Verdict,
    /// The origin of the log, or its file name where the origin is unknown; `None` if it concerns no single log.
    pub log: Option<String>,
    /// The rule that is broken: an invariant of the rotation rules, or `form`.
    pub rule: Option<&'static str>,
    /// Where.
    pub at: Option<Location>,
    /// What is wrong and what to do about it.
    pub text: String,
    /// What should have been there.
    pub expected: Option<String>,
    /// What is there.
    pub found: Option<String>,
    /// For a fork: the two signed notes that contradict each other, each whole.
    pub notes: Vec<String>,
    /// For the first fork of a log: what proves it to others. It holds the notes again, so it is no part of the JSON.
    #[serde(skip)]
    pub proof: Option<Box<ForkProof>>,
}

impl Finding {
    pub(crate) fn new(verdict: Verdict, text: impl Into<String>) -> Self {
        Self { verdict, log: None, rule: None, at: None, text: text.into(), expected: None, found: None, notes: Vec::new(), proof: None }
    }

    pub(crate) fn of(mut self, log: &str) -> Self {
        self.log = Some(log.to_owned());
        self
    }

    pub(crate) fn at(mut self, at: &Location) -> Self {
        self.at = Some(at.clone());
        self
    }

    pub(crate) fn rule(mut self, rule: &'static str) -> Self {
        self.rule = Some(rule);
        self
    }

    pub(crate) fn differ(mut self, expected: impl Display, found: impl Display) -> Self {
        self.expected = Some(expected.to_string());
        self.found = Some(found.to_string());
        self
    }
}

/// All findings: the first [`MOST_FINDINGS`] in full, the rest counted.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    list: Vec<Finding>,
    more: u64,
    worst_unlisted: Option<Verdict>,
}

impl Findings {
    pub(crate) fn push(&mut self, finding: Finding) {
        if self.list.len() < MOST_FINDINGS {
            self.list.push(finding);
        } else {
            self.more += 1;
            self.worst_unlisted = Some(Verdict::worst(self.worst_unlisted.into_iter().chain([finding.verdict])));
        }
    }

    /// Those that are listed, in the order in which they were found.
    pub fn list(&self) -> &[Finding] {
        &self.list
    }

    /// How many more there are.
    pub fn more(&self) -> u64 {
        self.more
    }

    /// The verdict over all of them, listed or not.
    pub fn verdict(&self) -> Verdict {
        Verdict::worst(self.list.iter().map(|finding| finding.verdict).chain(self.worst_unlisted))
    }

    /// Whether any finding has this verdict.
    pub fn any(&self, verdict: Verdict) -> bool {
        self.worst_unlisted == Some(verdict) || self.list.iter().any(|finding| finding.verdict == verdict)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_10_12_11_13_16_15_17_14_decides() {
        use Verdict::{Differs, Forked, Illegal, Stale, Tampered, Truncated, Unpinned, Unsigned, Verified};
        let order = [Tampered, Forked, Truncated, Unsigned, Unpinned, Illegal, Differs, Stale, Verified];
        assert_eq!(order.map(Verdict::exit_code), [10, 12, 11, 13, 16, 15, 17, 14, 0]);
        for (index, worse) in order.iter().enumerate() {
            for other in &order[index..] {
                assert_eq!(Verdict::worst([*other, *worse]), *worse);
            }
        }
        assert_eq!(Verdict::worst([]), Verified);
    }

    #[test]
    fn what_is_not_listed_still_decides() {
        let mut findings = Findings::default();
        (0..MOST_FINDINGS).for_each(|_| findings.push(Finding::new(Verdict::Illegal, "x")));
        findings.push(Finding::new(Verdict::Tampered, "y"));
        findings.push(Finding::new(Verdict::Stale, "z"));
        assert_eq!((findings.list().len(), findings.more(), findings.verdict()), (MOST_FINDINGS, 2, Verdict::Tampered));
    }
}
