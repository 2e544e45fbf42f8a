//! One verification from top to bottom.
//!
//! In scope: the order of the checks, and what is reported of each log. Out of scope: each check.

use std::collections::BTreeSet;
use std::io;

use serde::Serialize;

use crate::event::{LogAdopted, LogKind};
use crate::merkle::Hash;
use crate::names;
use crate::time::Timestamp;

use super::chain::{Both, Scan, Visit, Wanted};
use super::eras::{self, Begun, Era};
use super::finding::{Finding, Findings, Location, Verdict};
use super::keylog::KeyLog;
use super::notes::{self, Judged, Statement};
use super::reconcile::{Account, Reconciliation};
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
    /// How many records the newest verified checkpoint covers: one that is witnessed, if the trust file demands a quorum. Of a log that
    /// ended, how many the log vouches for that goes on from it.
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
    /// Whether another log goes on from it, or it lies among those.
    pub former: bool,
    /// What the log that goes on from it says about its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended: Option<Ended>,
}

/// How a log ended that had lost its tail.
#[derive(Clone, Debug, Serialize)]
pub struct Ended {
    /// The origin of the log that goes on from it.
    pub adopted_by: String,
    /// How many of its records count.
    pub size: u64,
    /// How many more it is known to have had.
    pub lost: u64,
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
    /// How the logs compare with what keystores wrote down; `None` if nothing of that was given.
    pub reconciliation: Option<Reconciliation>,
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
    account: Option<Account>,
}

pub(super) fn run(input: &Input<'_>, options: &Options, now: Timestamp) -> io::Result<Report> {
    let account = (!input.backends.is_empty()).then(|| Account::open(&input.backends, options.reconcile_margin)).transpose()?;
    let heads = options.heads.iter().map(Statement::new).collect();
    let mut run = Run { options, heads, findings: Findings::default(), logs: Vec::new(), account };
    let eras = eras::eras(input, options.keys_only)?;
    let mut keys = run.key_logs(&eras)?;
    for (era, own) in eras.iter().zip(&keys) {
        for log in &era.uses {
            run.use_log(log, &eras, own, &keys)?;
        }
    }
    if !options.keys_only {
        run.named_use_logs(&keys);
    }
    let reconciliation = run.account.take().map(|account| account.settle(&mut run.findings));
    // Those that go on come first; the sort is stable, so the key log is before its use logs.
    run.logs.sort_by_key(|log| log.former);
    let pinned_by = pins::check(options, &run.heads, &run.logs, now, &mut run.findings);
    let mut rotations: Vec<Rotation> = keys.iter().flat_map(KeyLog::rotations).cloned().collect();
    let last = keys.pop().unwrap_or_default();
    pins::live_set(options, &last, &mut run.findings);
    // What only the whole story tells: when each key that stopped signing was withdrawn.
    for rotation in &mut rotations {
        rotation.finish(last.keyrings());
    }
    Ok(Report {
        verdict: run.findings.verdict(),
        findings: run.findings,
        logs: run.logs,
        pinned_by,
        keys_only: options.keys_only,
        rotations,
        keyrings: last.into_keyrings(),
        reconciliation,
        fork_proofs: Vec::new(),
    })
}

impl Run<'_> {
    /// The key logs of all eras, each going on with the state of the one before.
    fn key_logs(&mut self, eras: &[Era<'_>]) -> io::Result<Vec<KeyLog>> {
        let mut logs: Vec<KeyLog> = Vec::new();
        let mut before: Option<(&str, Option<Hash>)> = None;
        for era in eras {
            let Some(log) = &era.keys else {
                self.findings.push(Finding::new(Verdict::Unpinned, "there is no key log here, so nothing says which key was active when"));
                logs.push(KeyLog::default());
                continue;
            };
            let goes_on = log.origin().is_some_and(|origin| names::unadopted(origin).1 > 1);
            let former = before.filter(|(origin, _)| log.adopted.as_ref().is_some_and(|adopted| adopted.origin == *origin));
            let keys = match (goes_on, former, logs.last()) {
                (false, _, _) => KeyLog::default(),
                (true, Some((_, root)), Some(last)) => KeyLog::after(last, root),
                _ => KeyLog::unknown(),
            };
            let ended = eras::adopter(eras, LogKind::Keys, log.origin()).map(|(_, adopted)| adopted);
            let mut keys = keys.ended(ended.map(|adopted| adopted.size), ended.map_or(0, known));
            let (scan, disk) = self.scan(log, eras, (&[], None), &mut keys)?;
            before = log.origin().map(|origin| (origin, scan.root_at(ended.map_or(scan.size(), |adopted| adopted.size))));
            self.check_former(log, eras);
            let mut report = self.settle(log, eras, scan, &disk);
            report.judged = keys.keyrings().size();
            keys.signed(report.size + report.unwitnessed);
            self.logs.push(report);
            logs.push(keys);
        }
        Ok(logs)
    }

    fn use_log(&mut self, log: &Begun<'_>, eras: &[Era<'_>], own: &KeyLog, keys: &[KeyLog]) -> io::Result<()> {
        // A log that ended is read whole: nobody remembers a head of it any more.
        let incremental = self.options.incremental && !log.former;
        let (bookmark, read_whole_because) = match incremental.then(|| resume::bookmark(log.files, self.options, &self.heads)) {
            Some(found) => found?.map_or_else(|why| (None, Some(why)), |bookmark| (Some(bookmark), None)),
            None => (None, None),
        };
        let mut check = UseCheck::new(own);
        if let Some(bookmark) = bookmark {
            check = check.resumed(bookmark);
        }
        let heads = keys.iter().flat_map(KeyLog::uses_heads).map(|(_, head)| head.size);
        let sizes: Vec<u64> = heads.chain(keys.iter().flat_map(KeyLog::uses_pruned).map(|(_, pruned)| pruned.first)).collect();
        let (scan, disk) = self.scan(log, eras, (&sizes, bookmark), &mut check)?;
        self.check_former(log, eras);
        let accepted = eras::adopter(eras, LogKind::Uses, log.origin()).map(|(_, adopted)| known(adopted));
        self.compare_heads(&scan, keys, accepted);
        self.compare_prunings(log.files, &scan, keys);
        let label = scan.created().map_or(&log.files.name, |created| &created.origin);
        let unjudged = check.unjudged().map_or(0, |(count, at)| {
            let text = format!("{count} signatures name a state of the key log that could not be replayed, so nobody can judge them");
            self.findings.push(Finding::new(Verdict::Illegal, text).of(label).at(at));
            count
        });
        let (signatures, lost) = (check.signatures(), check.lost());
        let mut report = self.settle(log, eras, scan, &disk);
        report.judged = report.checked.saturating_sub(unjudged + lost);
        // What records say that nobody signed for does not count.
        report.seen = report.bookmark.as_ref().map_or(0, |bookmark| bookmark.seen);
        (report.signatures, report.read_whole_because) = (signatures, read_whole_because);
        self.logs.push(report);
        Ok(())
    }

    /// Whether the log that this one goes on from is here.
    fn check_former(&mut self, log: &Begun<'_>, eras: &[Era<'_>]) {
        let Some(origin) = log.origin() else { return };
        let goes_on = names::unadopted(origin).1 > 1;
        let Some(adopted) = log.adopted.as_ref().filter(|_| goes_on) else {
            if goes_on != log.adopted.is_some() {
                let text = "log.adopted is the second record of a log that is named after an adoption, and of no other";
                self.findings.push(Finding::new(Verdict::Illegal, text).rule("form").of(origin));
            }
            return;
        };
        let mut all = eras.iter().flat_map(|era| era.keys.iter().chain(&era.uses));
        if !all.any(|other| other.kind == log.kind && other.origin() == Some(adopted.origin.as_str())) {
            let text = format!(
                "this log goes on where {} ended, and cannot be judged without it: give the `log` folder as a whole, with the folder `former`",
                adopted.origin
            );
            self.findings.push(Finding::new(Verdict::Truncated, text).of(origin));
        }
    }

    fn scan(
        &mut self,
        log: &Begun<'_>,
        eras: &[Era<'_>],
        (sizes, bookmark): (&[u64], Option<&Bookmark>),
        visit: &mut dyn Visit,
    ) -> io::Result<(Scan, Vec<Statement>)> {
        let Begun { files, kind, .. } = *log;
        let disk: Vec<Statement> = files.notes.iter().map(Statement::new).collect();
        let stated: BTreeSet<u64> = disk.iter().chain(&self.heads).filter_map(Statement::size).collect();
        let end = eras::adopter(eras, kind, log.origin()).map(|(_, adopted)| adopted.size);
        let wanted = Wanted {
            sizes: stated.iter().chain(sizes).copied().chain(end).collect(),
            leaves: self.options.receipts.iter().map(|receipt| receipt.seq).chain(log.adopted_leaf.map(|_| 1)).collect(),
            bookmarks: stated,
        };
        let Some(account) = &mut self.account else {
            return Ok((Scan::read(files, kind, (wanted, bookmark), visit, &mut self.findings)?, disk));
        };
        account.begin(end);
        let scan = Scan::read(files, kind, (wanted, bookmark), &mut Both(visit, account), &mut self.findings)?;
        Ok((scan, disk))
    }

    /// What was signed for, what of it is there, and what becomes of unreadable lines then.
    fn settle(&mut self, log: &Begun<'_>, eras: &[Era<'_>], mut scan: Scan, disk: &[Statement]) -> LogReport {
        let files = log.files;
        let created = scan.created().cloned();
        let origin = created.as_ref().map(|event| event.origin.clone()).or_else(|| self.trusted_origin(disk));
        let label = origin.as_deref().unwrap_or(&files.name).to_owned();
        let adopter = eras::adopter(eras, log.kind, log.origin());
        let signers = origin.as_ref().map(|origin| Signers::of(origin, scan.log_keys(), self.options.trust.as_ref(), &mut self.findings));
        let judged = signers.as_ref().zip(origin.as_ref()).map(|(signers, origin)| {
            let remembered: Vec<&Statement> = self.heads.iter().filter(|head| head.origin() == Some(origin)).collect();
            let accepted = adopter.map(|(_, adopted)| known(adopted));
            let by = (signers, self.options.trust.as_ref());
            notes::judge((files, &scan), (origin, accepted), by, (disk, &remembered), &mut self.findings)
        });
        let Judged { covered, signed, stated, used } = judged.unwrap_or_default();
        let keys = signers.as_ref().map(|signers| signers.needed(&used)).unwrap_or_default();
        let ended = adopter.and_then(|(by, adopted)| self.check_end(&scan, &label, by, adopted));
        // The log that goes on vouches for all that it adopted, whether or not a checkpoint of that very size was ever signed.
        let vouched = ended.as_ref().map(|ended| ended.size);
        let size = vouched.unwrap_or(covered.as_ref().map_or(0, |covered| covered.size));
        let signed = vouched.unwrap_or(signed);
        let signed_by = signers.as_ref().and_then(|signers| signers.in_force(size)).map(ToString::to_string);
        self.check_place(log, &scan, &label, (adopter.is_some(), size));
        let torn = scan.settle_unreadable(stated, adopter.map(|(_, adopted)| adopted.size), &label, &mut self.findings);
        if signed == 0 {
            let text = if scan.size() == 0 { "the log is empty" } else { "no verified checkpoint covers any record" };
            self.findings.push(Finding::new(Verdict::Unpinned, text).of(&label));
        }
        if let Some(origin) = &origin {
            pins::receipts(self.options, origin, &scan, &mut self.findings);
        }
        if let Some(account) = &mut self.account {
            account.end(signed, scan.time_at(signed), log.former || adopter.is_some());
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
            root: scan.root_at(size).filter(|_| size > 0),
            time: scan.time_at(size),
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
            former: log.former || adopter.is_some(),
            ended,
        }
    }

    /// A log that goes on must be vouched for as far as it names the one before; a log that ended must have one that goes on.
    fn check_place(&mut self, log: &Begun<'_>, scan: &Scan, label: &str, (has_adopter, size): (bool, u64)) {
        if log.former && !has_adopter {
            let text = "the log lies among the former ones, but none that is here goes on from it";
            self.findings.push(Finding::new(Verdict::Unpinned, text).of(label));
        }
        let Some(leaf) = log.adopted_leaf else { return };
        if size == 1 {
            self.findings.push(Finding::new(Verdict::Unpinned, "no checkpoint covers log.adopted").of(label));
        }
        // Where its segment was pruned, the record stands in `genesis`, and only its hash in the tree.
        if let Some(kept) = scan.leaf(1).map(|(kept, _)| *kept).filter(|kept| *kept != leaf) {
            let finding = Finding::new(Verdict::Tampered, "log.adopted, in `genesis`, is not the record whose hash was kept").of(label);
            self.findings.push(finding.differ(kept, leaf));
        }
    }

    /// A log that ended against what the log that goes on from it says.
    fn check_end(&mut self, scan: &Scan, label: &str, by: &str, adopted: &LogAdopted) -> Option<Ended> {
        let LogAdopted { origin, size, root, lost, .. } = adopted;
        let finding = match scan.root_at(*size) {
            _ if !names::is_successor(by, origin) => {
                Finding::new(Verdict::Illegal, format!("{by} is no name for the log that goes on from {origin}")).rule("form")
            }
            Some(found) if found == *root => return Some(Ended { adopted_by: by.to_owned(), size: *size, lost: *lost }),
            Some(found) => {
                let finding = Finding::new(Verdict::Tampered, format!("the log is not the one that {by} adopted"));
                finding.differ(format_args!("root {root} at size {size}"), format_args!("root {found}"))
            }
            None => {
                let finding = Finding::new(Verdict::Truncated, format!("the log is shorter than when {by} adopted it"));
                finding.differ(format_args!("{size} records"), format_args!("{} records", scan.size()))
            }
        };
        self.findings.push(finding.of(label));
        None
    }

    /// A log whose first record is gone may still have a checkpoint by a key that is trusted.
    fn trusted_origin(&self, disk: &[Statement]) -> Option<String> {
        let trust = self.options.trust.as_ref()?;
        let mut origins = disk.iter().filter_map(Statement::origin);
        origins.find(|origin| trust.logs().iter().any(|log| log.key.name() == *origin)).map(str::to_owned)
    }

    /// A use log against every statement that the key logs make about it; `accepted` is how long it is known to have been, if the loss of
    /// the rest was accepted.
    fn compare_heads(&mut self, scan: &Scan, keys: &[KeyLog], accepted: Option<u64>) {
        let Some(created) = scan.created() else { return };
        for (at, head) in keys.iter().flat_map(KeyLog::uses_heads).filter(|(_, head)| head.origin == created.origin) {
            let finding = match scan.root_at(head.size) {
                None if accepted.is_some_and(|known| head.size <= known) => continue,
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
    fn compare_prunings(&mut self, files: &LogFiles<'_>, scan: &Scan, keys: &[KeyLog]) {
        let Some(created) = scan.created() else { return };
        let mut recorded = 0;
        for (at, pruned) in keys.iter().flat_map(KeyLog::uses_pruned).filter(|(_, pruned)| pruned.origin == created.origin) {
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
    fn named_use_logs(&mut self, keys: &[KeyLog]) {
        let here: BTreeSet<&str> = self.logs.iter().filter_map(|log| log.origin.as_deref()).collect();
        let mut missing: BTreeSet<&str> = BTreeSet::new();
        for (at, head) in keys.iter().flat_map(KeyLog::uses_heads) {
            if !here.contains(head.origin.as_str()) && missing.insert(&head.origin) {
                let text = format!("the use log of node {:?} is missing; give it, or say --keys-only", head.of);
                self.findings.push(Finding::new(Verdict::Truncated, text).of(&head.origin).at(at));
            }
        }
    }
}

/// How many records a log is known to have had that was adopted.
fn known(adopted: &LogAdopted) -> u64 {
    adopted.size.saturating_add(adopted.lost)
}
