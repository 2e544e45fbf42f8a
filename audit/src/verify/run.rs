//! One verification from top to bottom.
//!
//! In scope: the order of the checks, and what is reported of each log. Out of scope: each check.

use std::collections::BTreeSet;
use std::io;

use serde::Serialize;

use crate::event::LogKind;
use crate::merkle::Hash;
use crate::note::VerifierKey;
use crate::time::Timestamp;

use super::chain::{Scan, Visit, Wanted};
use super::finding::{Finding, Findings, Verdict};
use super::keylog::KeyLog;
use super::notes::{self, Judged, Statement};
use super::rotation::Rotation;
use super::uses::UseCheck;
use super::{Input, LogFiles, Options, pins};

/// What was found out about one log.
#[derive(Clone, Debug, Serialize)]
pub struct LogReport {
    /// Which of the two.
    pub kind: LogKind,
    /// What the caller calls it.
    pub name: String,
    /// Its origin, as its first record says.
    pub origin: Option<String>,
    /// The node that wrote its first record.
    pub node: Option<String>,
    /// The verifier key that its first record names.
    pub key: Option<String>,
    /// How many lines were read and checked as a chain.
    pub checked: u64,
    /// How many of them the newest verified checkpoint covers.
    pub size: u64,
    /// The root at that size.
    pub root: Option<Hash>,
    /// The time of the last covered record.
    pub time: Option<Timestamp>,
    /// How many records no checkpoint covers.
    pub uncovered: u64,
    /// How many lines past everything durable are no records: an unclean stop leaves them.
    pub torn: u64,
    /// How many records the rules were checked for.
    pub judged: u64,
    /// For a use log: how many signatures there are.
    pub signatures: u64,
    /// For a use log: the size of the key log that it has seen.
    pub seen: u64,
    /// The newest verified checkpoint, whole.
    pub head: Option<String>,
}

/// What a verification says.
#[derive(Clone, Debug)]
pub struct Report {
    /// The one word.
    pub verdict: Verdict,
    /// What is wrong.
    pub findings: Findings,
    /// The key log first.
    pub logs: Vec<LogReport>,
    /// What pins the logs, in words.
    pub pinned_by: Vec<String>,
    /// Whether use logs were left out on request.
    pub keys_only: bool,
    /// The story of each rotation.
    pub rotations: Vec<Rotation>,
    /// The keyrings after the last record that could be replayed.
    pub keyrings: crate::keyrings::Keyrings,
    /// Where the proofs of forks are; empty until whoever asked has written them.
    pub fork_proofs: Vec<ForkFile>,
}

/// What became of a proof that was to be written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ForkFile {
    /// The origin of the log.
    pub log: Option<String>,
    /// The file.
    pub file: String,
    /// Why it could not be written.
    pub error: Option<String>,
}

/// What is known while it goes on.
struct Run<'r> {
    options: &'r Options,
    heads: Vec<Statement>,
    findings: Findings,
    logs: Vec<LogReport>,
}

pub(super) fn run(input: &Input<'_>, options: &Options, now: Timestamp) -> io::Result<Report> {
    let mut run = Run { options, heads: Vec::new(), findings: Findings::default(), logs: Vec::new() };
    run.heads = options.heads.iter().map(Statement::new).collect();
    let keys = run.key_log(input.keys.as_ref())?;
    if !options.keys_only {
        for files in &input.uses {
            run.use_log(files, &keys)?;
        }
        run.named_use_logs(&keys);
    }
    let pinned_by = pins::check(options, &run.heads, &run.logs, now, &mut run.findings);
    pins::live_set(options, &keys, &mut run.findings);
    Ok(Report {
        verdict: run.findings.verdict(),
        findings: run.findings,
        logs: run.logs,
        pinned_by,
        keys_only: options.keys_only,
        rotations: keys.rotations().to_vec(),
        keyrings: keys.into_keyrings(),
        fork_proofs: Vec::new(),
    })
}

impl Run<'_> {
    fn key_log(&mut self, files: Option<&LogFiles<'_>>) -> io::Result<KeyLog> {
        let mut keys = KeyLog::default();
        let Some(files) = files else {
            self.findings.push(Finding::new(Verdict::Unpinned, "there is no key log here, so nothing says which key was active when"));
            return Ok(keys);
        };
        let (scan, disk) = self.scan(files, LogKind::Keys, &[], &mut keys)?;
        keys.finish();
        let judged = keys.keyrings().size();
        let mut report = self.settle(files, scan, &disk);
        report.judged = judged;
        self.logs.push(report);
        Ok(keys)
    }

    fn use_log(&mut self, files: &LogFiles<'_>, keys: &KeyLog) -> io::Result<()> {
        let mut check = UseCheck::new(keys);
        let sizes: Vec<u64> = keys.uses_heads().iter().map(|(_, head)| head.size).collect();
        let (scan, disk) = self.scan(files, LogKind::Uses, &sizes, &mut check)?;
        let (signatures, seen, unjudged) = (check.signatures(), check.seen(), check.unjudged());
        self.compare_heads(&scan, keys);
        if unjudged > 0 {
            let text = format!("{unjudged} signatures name a state of the key log that could not be replayed, so nobody can judge them");
            self.findings.push(Finding::new(Verdict::Illegal, text).of(scan.created().map_or(&files.name, |created| &created.origin)));
        }
        let mut report = self.settle(files, scan, &disk);
        report.judged = report.checked.saturating_sub(unjudged);
        (report.signatures, report.seen) = (signatures, seen);
        self.logs.push(report);
        Ok(())
    }

    fn scan(&mut self, files: &LogFiles<'_>, kind: LogKind, sizes: &[u64], visit: &mut dyn Visit) -> io::Result<(Scan, Vec<Statement>)> {
        let disk: Vec<Statement> = files.notes.iter().map(Statement::new).collect();
        let stated = disk.iter().chain(&self.heads).filter_map(Statement::size);
        let wanted = Wanted {
            sizes: stated.chain(sizes.iter().copied()).collect(),
            leaves: self.options.receipts.iter().map(|receipt| receipt.seq).collect(),
        };
        let scan = Scan::read(files, kind, wanted, visit, &mut self.findings)?;
        Ok((scan, disk))
    }

    /// What was signed for, what of it is there, and what becomes of unreadable lines then.
    fn settle(&mut self, files: &LogFiles<'_>, mut scan: Scan, disk: &[Statement]) -> LogReport {
        let created = scan.created().cloned();
        let origin = created.as_ref().map(|event| event.origin.clone()).or_else(|| self.trusted_origin(disk));
        let label = origin.as_deref().unwrap_or(&files.name).to_owned();
        let keys = origin.as_ref().map(|origin| self.keys_of(origin, created.as_ref().map(|event| event.key.as_str())));
        let judged = keys.zip(origin.as_ref()).map(|(keys, origin)| {
            let remembered = self.heads.iter().filter(|head| head.origin() == Some(origin));
            let statements: Vec<&Statement> = disk.iter().chain(remembered).collect();
            notes::judge(files, &scan, (origin, &keys), &statements, &mut self.findings)
        });
        let Judged { covered, stated } = judged.unwrap_or_default();
        let size = covered.as_ref().map_or(0, |covered| covered.size);
        let torn = scan.settle_unreadable(stated, &label, &mut self.findings);
        if size == 0 {
            let text = if scan.size() == 0 { "the log is empty" } else { "no verified checkpoint covers any record" };
            self.findings.push(Finding::new(Verdict::Unpinned, text).of(&label));
        }
        if let Some(origin) = &origin {
            pins::receipts(self.options, origin, &scan, &mut self.findings);
        }
        LogReport {
            kind: scan.kind(),
            name: files.name.clone(),
            origin: created.as_ref().map(|event| event.origin.clone()),
            node: scan.node().map(str::to_owned),
            key: created.map(|event| event.key),
            checked: scan.size(),
            size,
            root: covered.as_ref().map(|covered| covered.root),
            time: covered.as_ref().and_then(|covered| covered.time),
            uncovered: scan.size().saturating_sub(size),
            torn,
            judged: 0,
            signatures: 0,
            seen: 0,
            head: covered.map(|covered| covered.note),
        }
    }

    /// The keys that may sign for a log: those of the trust file, or, without one, the key that the log names itself.
    fn keys_of(&mut self, origin: &str, own: Option<&str>) -> Vec<VerifierKey> {
        let own = own.map(str::parse::<VerifierKey>).transpose();
        let own = own.unwrap_or_else(|error| {
            self.findings.push(Finding::new(Verdict::Unsigned, format!("log.created names no verifier key: {error}")).of(origin));
            None
        });
        let Some(trust) = &self.options.trust else { return own.into_iter().collect() };
        let trusted: Vec<VerifierKey> = trust.logs().iter().map(|log| log.key.clone()).filter(|key| key.name() == origin).collect();
        match own {
            _ if trusted.is_empty() => {
                // Its own key still says whether the log is whole, which helps whoever looks for the reason.
                self.findings.push(Finding::new(Verdict::Unpinned, "the trust file knows no log of this origin").of(origin));
                return own.into_iter().collect();
            }
            Some(own) if !trusted.contains(&own) => {
                let text = "the log names a key that the trust file does not; if you expect it, add the line that is shown as found";
                let lines: Vec<String> = trusted.iter().map(|key| format!("log {key}")).collect();
                let finding = Finding::new(Verdict::Unsigned, text).of(origin);
                self.findings.push(finding.differ(lines.join(", "), format_args!("log {own}")));
            }
            _ => {}
        }
        trusted
    }

    /// A log whose first record is gone may still have a checkpoint by a key that is trusted.
    fn trusted_origin(&self, disk: &[Statement]) -> Option<String> {
        let trust = self.options.trust.as_ref()?;
        let mut origins = disk.iter().filter_map(Statement::origin);
        origins.find(|origin| trust.logs().iter().any(|log| log.key.name() == *origin)).map(str::to_owned)
    }

    /// A use log against every statement that the key log makes about it.
    fn compare_heads(&mut self, scan: &Scan, keys: &KeyLog) {
        let Some(created) = scan.created() else { return };
        for (at, head) in keys.uses_heads().iter().filter(|(_, head)| head.origin == created.origin) {
            let finding = match scan.root_at(head.size) {
                Some(root) if root == head.root => continue,
                Some(root) => {
                    let finding = Finding::new(Verdict::Tampered, "the use log is not the one that the key log names");
                    finding.differ(format_args!("root {} at size {}", head.root, head.size), format_args!("root {root}"))
                }
                None => {
                    let finding = Finding::new(Verdict::Truncated, "the use log is shorter than the key log says");
                    finding.differ(format_args!("{} records", head.size), format_args!("{} records", scan.size()))
                }
            };
            self.findings.push(finding.of(&created.origin).at(at));
        }
    }

    /// Use logs that the key log names and that are not here.
    fn named_use_logs(&mut self, keys: &KeyLog) {
        let here: BTreeSet<&str> = self.logs.iter().filter_map(|log| log.origin.as_deref()).collect();
        let mut missing: BTreeSet<&str> = BTreeSet::new();
        for (at, head) in keys.uses_heads() {
            if !here.contains(head.origin.as_str()) && missing.insert(&head.origin) {
                let text = format!("the use log of node {:?} is missing; give it, or say --keys-only", head.of);
                self.findings.push(Finding::new(Verdict::Truncated, text).of(&head.origin).at(at));
            }
        }
    }
}
