//! One verification from top to bottom.
//!
//! In scope: the order of the checks, and what is reported of each log. Out of scope: each check.

use std::collections::BTreeSet;
use std::io;

use serde::Serialize;

use crate::event::LogKind;
use crate::merkle::Hash;
use crate::time::Timestamp;

use super::chain::{Scan, Visit, Wanted};
use super::finding::{Finding, Findings, Location, Verdict};
use super::keylog::KeyLog;
use super::notes::{self, Judged, Statement};
use super::rotation::Rotation;
use super::signers::Signers;
use super::uses::UseCheck;
use super::{Bookmark, Input, LogFiles, Options, pins, resume};

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
    /// The log's keys that a trust file must list: each that signed a checkpoint here, and the one that signs now.
    pub keys: Vec<String>,
    /// The number of the first record that is here; those before it were pruned, and only their hashes are left.
    pub first: u64,
    /// Records before this one were checked by an earlier run and not read.
    pub resumed_at: u64,
    /// With `--incremental`, why the whole log was read nevertheless.
    pub read_whole_because: Option<String>,
    /// How many lines were read and checked as a chain.
    pub checked: u64,
    /// How many records the newest verified checkpoint covers: one that is witnessed, if the trust file demands a quorum.
    pub size: u64,
    /// The root at that size.
    pub root: Option<Hash>,
    /// The time of the last covered record.
    pub time: Option<Timestamp>,
    /// Until when the quorum vouches that this was the newest checkpoint; `None` where no quorum is demanded.
    pub witnessed: Option<Timestamp>,
    /// The witnesses that cosigned it.
    pub cosigners: Vec<String>,
    /// How many records after it the log key signed, and no quorum.
    pub unwitnessed: u64,
    /// How many records no checkpoint covers.
    pub uncovered: u64,
    /// How many lines past everything durable are no records: an unclean stop leaves them.
    pub torn: u64,
    /// How many records the rules were checked for.
    pub judged: u64,
    /// For a use log: how many signatures there are.
    pub signatures: u64,
    /// For a use log: the size of the key log that its covered records have seen.
    pub seen: u64,
    /// The newest verified checkpoint, whole.
    pub head: Option<String>,
    /// Where a later run may go on after it.
    #[serde(skip)]
    pub bookmark: Option<Bookmark>,
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
        let (scan, disk) = self.scan(files, LogKind::Keys, (&[], None), &mut keys)?;
        keys.finish();
        let judged = keys.keyrings().size();
        let mut report = self.settle(files, scan, &disk);
        report.judged = judged;
        keys.signed(report.size + report.unwitnessed);
        self.logs.push(report);
        Ok(keys)
    }

    fn use_log(&mut self, files: &LogFiles<'_>, keys: &KeyLog) -> io::Result<()> {
        let (bookmark, read_whole_because) = match self.options.incremental.then(|| resume::bookmark(files, self.options, &self.heads)) {
            Some(found) => found?.map_or_else(|why| (None, Some(why)), |bookmark| (Some(bookmark), None)),
            None => (None, None),
        };
        let mut check = UseCheck::new(keys);
        if let Some(bookmark) = bookmark {
            check = check.resumed(bookmark);
        }
        let heads = keys.uses_heads().iter().map(|(_, head)| head.size);
        let sizes: Vec<u64> = heads.chain(keys.uses_pruned().map(|(_, pruned)| pruned.first)).collect();
        let (scan, disk) = self.scan(files, LogKind::Uses, (&sizes, bookmark), &mut check)?;
        self.compare_heads(&scan, keys);
        self.compare_prunings(files, &scan, keys);
        let label = scan.created().map_or(&files.name, |created| &created.origin);
        let unjudged = check.unjudged().map_or(0, |(count, at)| {
            let text = format!("{count} signatures name a state of the key log that could not be replayed, so nobody can judge them");
            self.findings.push(Finding::new(Verdict::Illegal, text).of(label).at(at));
            count
        });
        let signatures = check.signatures();
        let mut report = self.settle(files, scan, &disk);
        report.judged = report.checked.saturating_sub(unjudged);
        // What records say that nobody signed for does not count.
        report.seen = report.bookmark.as_ref().map_or(0, |bookmark| bookmark.seen);
        (report.signatures, report.read_whole_because) = (signatures, read_whole_because);
        self.logs.push(report);
        Ok(())
    }

    fn scan(
        &mut self,
        files: &LogFiles<'_>,
        kind: LogKind,
        (sizes, bookmark): (&[u64], Option<&Bookmark>),
        visit: &mut dyn Visit,
    ) -> io::Result<(Scan, Vec<Statement>)> {
        let disk: Vec<Statement> = files.notes.iter().map(Statement::new).collect();
        let stated: BTreeSet<u64> = disk.iter().chain(&self.heads).filter_map(Statement::size).collect();
        let wanted = Wanted {
            sizes: stated.iter().chain(sizes).copied().collect(),
            leaves: self.options.receipts.iter().map(|receipt| receipt.seq).collect(),
            bookmarks: stated,
        };
        let scan = Scan::read(files, kind, (wanted, bookmark), visit, &mut self.findings)?;
        Ok((scan, disk))
    }

    /// What was signed for, what of it is there, and what becomes of unreadable lines then.
    fn settle(&mut self, files: &LogFiles<'_>, mut scan: Scan, disk: &[Statement]) -> LogReport {
        let created = scan.created().cloned();
        let origin = created.as_ref().map(|event| event.origin.clone()).or_else(|| self.trusted_origin(disk));
        let label = origin.as_deref().unwrap_or(&files.name).to_owned();
        let signers = origin.as_ref().map(|origin| Signers::of(origin, scan.log_keys(), self.options.trust.as_ref(), &mut self.findings));
        let judged = signers.as_ref().zip(origin.as_ref()).map(|(signers, origin)| {
            let remembered = self.heads.iter().filter(|head| head.origin() == Some(origin));
            let statements: Vec<&Statement> = disk.iter().chain(remembered).collect();
            notes::judge((files, &scan), origin, (signers, self.options.trust.as_ref()), &statements, &mut self.findings)
        });
        let Judged { covered, signed, stated, used } = judged.unwrap_or_default();
        let keys = signers.as_ref().map(|signers| signers.needed(&used)).unwrap_or_default();
        let size = covered.as_ref().map_or(0, |covered| covered.size);
        let signed_by = signers.as_ref().and_then(|signers| signers.in_force(size)).map(ToString::to_string);
        let torn = scan.settle_unreadable(stated, &label, &mut self.findings);
        if signed == 0 {
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
            keys,
            first: scan.first(),
            resumed_at: scan.resumed_at(),
            read_whole_because: None,
            checked: scan.size().saturating_sub(scan.first().max(scan.resumed_at())),
            size,
            root: covered.as_ref().map(|covered| covered.root),
            time: covered.as_ref().and_then(|covered| covered.time),
            witnessed: covered.as_ref().and_then(|covered| covered.witnessed.time),
            cosigners: covered.as_ref().map(notes::Covered::cosigners).unwrap_or_default(),
            unwitnessed: signed.saturating_sub(size),
            uncovered: scan.size().saturating_sub(signed),
            torn,
            judged: 0,
            signatures: 0,
            seen: 0,
            bookmark: scan.bookmark(size).map(|bookmark| Bookmark { key: signed_by, ..bookmark.clone() }),
            head: covered.map(|covered| covered.note),
        }
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
                None if head.size < scan.resumed_at() => continue,
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

    /// What is missing at the beginning of a use log against what the key log says was pruned. Fewer records may be missing than it says: a
    /// pruning that was cut short is taken up again.
    fn compare_prunings(&mut self, files: &LogFiles<'_>, scan: &Scan, keys: &KeyLog) {
        let Some(created) = scan.created() else { return };
        let mut recorded = 0;
        for (at, pruned) in keys.uses_pruned().filter(|(_, pruned)| pruned.origin == created.origin) {
            recorded = recorded.max(pruned.first);
            if let Some(root) = scan.root_at(pruned.first).filter(|root| *root != pruned.root) {
                let text = format!("the hashes of the records before {} are not those of the records that were pruned", pruned.first);
                let finding = Finding::new(Verdict::Tampered, text).of(&created.origin).at(at);
                self.findings.push(finding.differ(format_args!("root {}", pruned.root), format_args!("root {root}")));
            }
        }
        if scan.first() > recorded {
            let text = "the beginning of the use log is missing, and no uses.pruned of the key log says that it was pruned";
            let file = files.segments.first().map_or(&files.name, |segment| &segment.name).clone();
            let finding = Finding::new(Verdict::Truncated, text).of(&created.origin);
            let finding = finding.at(&Location { file, line: 1, seq: scan.first(), offset: 0 });
            self.findings
                .push(finding.differ(format_args!("records from {recorded} on"), format_args!("records from {} on", scan.first())));
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
