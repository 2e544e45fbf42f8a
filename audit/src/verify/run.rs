//! One verification from top to bottom.
//!
//! In scope: the order of the checks, and what is reported of each log. Out of scope: each check.

use std::collections::BTreeSet;
use std::io;

use serde::Serialize;

use crate::event::{LogAdopted, LogKind};
use crate::merkle::Hash;
use crate::names;
use crate::note::VerifierKey;
use crate::time::Timestamp;

use super::chain::{Scan, Visit, Wanted};
use super::eras::{self, Begun, Era};
use super::finding::{Finding, Findings, Verdict};
use super::keylog::KeyLog;
use super::notes::{self, Judged, Statement};
use super::rotation::Rotation;
use super::uses::UseCheck;
use super::{Input, Options, pins};

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
    /// How many of them the newest verified checkpoint covers, or the log that goes on from it.
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
    // Those that go on come first; the sort is stable, so the key log is before its use logs.
    run.logs.sort_by_key(|log| log.former);
    let pinned_by = pins::check(options, &run.heads, &run.logs, now, &mut run.findings);
    let mut rotations: Vec<Rotation> = keys.iter().flat_map(KeyLog::rotations).cloned().collect();
    let last = keys.pop().unwrap_or_default();
    pins::live_set(options, &last, &mut run.findings);
    // What only the whole story tells: when each key that stopped signing was withdrawn.
    rotations.iter_mut().for_each(|rotation| rotation.finish(last.keyrings()));
    Ok(Report {
        verdict: run.findings.verdict(),
        findings: run.findings,
        logs: run.logs,
        pinned_by,
        keys_only: options.keys_only,
        rotations,
        keyrings: last.into_keyrings(),
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
            let (scan, disk) = self.scan(log, eras, &[], &mut keys)?;
            before = log.origin().map(|origin| (origin, scan.root_at(ended.map_or(scan.size(), |adopted| adopted.size))));
            self.check_former(log, eras);
            let mut report = self.settle(log, eras, scan, &disk);
            report.judged = keys.keyrings().size();
            self.logs.push(report);
            logs.push(keys);
        }
        Ok(logs)
    }

    fn use_log(&mut self, log: &Begun<'_>, eras: &[Era<'_>], own: &KeyLog, keys: &[KeyLog]) -> io::Result<()> {
        let mut check = UseCheck::new(own);
        let sizes: Vec<u64> = keys.iter().flat_map(KeyLog::uses_heads).map(|(_, head)| head.size).collect();
        let (scan, disk) = self.scan(log, eras, &sizes, &mut check)?;
        let (signatures, seen, unjudged, lost) = (check.signatures(), check.seen(), check.unjudged(), check.lost());
        self.check_former(log, eras);
        let accepted = eras::adopter(eras, LogKind::Uses, log.origin()).map(|(_, adopted)| known(adopted));
        self.compare_heads(&scan, keys, accepted);
        if unjudged > 0 {
            let text = format!("{unjudged} signatures name a state of the key log that could not be replayed, so nobody can judge them");
            self.findings.push(Finding::new(Verdict::Illegal, text).of(scan.created().map_or(&log.files.name, |created| &created.origin)));
        }
        let mut report = self.settle(log, eras, scan, &disk);
        report.judged = report.checked.saturating_sub(unjudged + lost);
        (report.signatures, report.seen) = (signatures, seen);
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

    fn scan(&mut self, log: &Begun<'_>, eras: &[Era<'_>], sizes: &[u64], visit: &mut dyn Visit) -> io::Result<(Scan, Vec<Statement>)> {
        let Begun { files, kind, .. } = *log;
        let disk: Vec<Statement> = files.notes.iter().map(Statement::new).collect();
        let stated = disk.iter().chain(&self.heads).filter_map(Statement::size);
        let end = eras::adopter(eras, kind, log.origin()).map(|(_, adopted)| adopted.size);
        let wanted = Wanted {
            sizes: stated.chain(sizes.iter().copied()).chain(end).collect(),
            leaves: self.options.receipts.iter().map(|receipt| receipt.seq).collect(),
        };
        let scan = Scan::read(files, kind, wanted, visit, &mut self.findings)?;
        Ok((scan, disk))
    }

    /// What was signed for, what of it is there, and what becomes of unreadable lines then.
    fn settle(&mut self, log: &Begun<'_>, eras: &[Era<'_>], mut scan: Scan, disk: &[Statement]) -> LogReport {
        let files = log.files;
        let created = scan.created().cloned();
        let origin = created.as_ref().map(|event| event.origin.clone()).or_else(|| self.trusted_origin(disk));
        let label = origin.as_deref().unwrap_or(&files.name).to_owned();
        let adopter = eras::adopter(eras, log.kind, log.origin());
        let keys = origin.as_ref().map(|origin| self.keys_of(origin, created.as_ref().map(|event| event.key.as_str())));
        let judged = keys.zip(origin.as_ref()).map(|(keys, origin)| {
            let remembered: Vec<&Statement> = self.heads.iter().filter(|head| head.origin() == Some(origin)).collect();
            let accepted = adopter.map(|(_, adopted)| known(adopted));
            notes::judge(&scan, (origin, &keys), (disk, &remembered), accepted, &mut self.findings)
        });
        let Judged { covered, stated } = judged.unwrap_or_default();
        let ended = adopter.and_then(|(by, adopted)| self.check_end(&scan, &label, by, adopted));
        if log.former && adopter.is_none() {
            let text = "the log lies among the former ones, but none that is here goes on from it";
            self.findings.push(Finding::new(Verdict::Unpinned, text).of(&label));
        }
        // The log that goes on vouches for all that it adopted, whether or not a checkpoint of that very size was ever signed.
        let size = ended.as_ref().map_or(covered.as_ref().map_or(0, |covered| covered.size), |ended| ended.size);
        if log.adopted.is_some() && size == 1 {
            self.findings.push(Finding::new(Verdict::Unpinned, "no checkpoint covers log.adopted").of(&label));
        }
        let torn = scan.settle_unreadable(stated, adopter.map(|(_, adopted)| adopted.size), &label, &mut self.findings);
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
            root: scan.root_at(size).filter(|_| size > 0),
            time: scan.time_at(size),
            uncovered: scan.size().saturating_sub(size),
            torn,
            judged: 0,
            signatures: 0,
            seen: 0,
            head: covered.map(|covered| covered.note),
            former: log.former || adopter.is_some(),
            ended,
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

    /// A use log against every statement that the key logs make about it; `accepted` is how long it is known to have been, if the loss of
    /// the rest was accepted.
    fn compare_heads(&mut self, scan: &Scan, keys: &[KeyLog], accepted: Option<u64>) {
        let Some(created) = scan.created() else { return };
        for (at, head) in keys.iter().flat_map(KeyLog::uses_heads).filter(|(_, head)| head.origin == created.origin) {
            let finding = match scan.root_at(head.size) {
                None if accepted.is_some_and(|known| head.size <= known) => continue,
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
