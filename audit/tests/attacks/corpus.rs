//! Whole pairs of logs to attack, what a verifier brings along, and the one place that says what an attack must come to.
//!
//! In scope: sharing bytes between thousands of nearly equal pairs, pins, judging. Out of scope: the attacks.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::{BufRead, Cursor};
use std::sync::Arc;
use std::time::Duration;

use claviger_audit::trust::Policy;
use claviger_audit::verify::{Input, LogFiles, MinSize, NoteFile, Options, Pruned, Report, Segment, verify};

use super::builder::{END, FIRST, Files, SECOND, Story, at, build};

pub(crate) const KEYS: &str = "log/keys/00000000000000000000.jsonl";
pub(crate) const KEYS_CHECKPOINT: &str = "log/keys/checkpoint";
pub(crate) const USES_CHECKPOINT: &str = "log/uses/checkpoint";

pub(crate) fn first_uses() -> String {
    format!("log/uses/{FIRST}")
}

pub(crate) fn second_uses() -> String {
    format!("log/uses/{SECOND}")
}

/// The files of a pair of logs. A copy shares what it does not change.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Pair(BTreeMap<String, Arc<[u8]>>);

impl Pair {
    pub(crate) fn new(files: &Files) -> Self {
        let logs = files.iter().filter(|(name, _)| name.starts_with("log/"));
        Self(logs.map(|(name, bytes)| (name.clone(), Arc::from(bytes.as_slice()))).collect())
    }

    pub(crate) fn files(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0.iter().map(|(name, bytes)| (name.as_str(), &**bytes))
    }

    pub(crate) fn names(&self, suffix: &str) -> Vec<String> {
        self.0.keys().filter(|name| name.ends_with(suffix)).cloned().collect()
    }

    pub(crate) fn bytes(&self, name: &str) -> &[u8] {
        &self.0[name]
    }

    pub(crate) fn lines(&self, name: &str) -> Vec<Vec<u8>> {
        lines(self.bytes(name))
    }

    /// The lines of all segments in a folder.
    pub(crate) fn log_lines(&self, folder: &str) -> Vec<Vec<u8>> {
        let segments = self.names(".jsonl").into_iter().filter(|name| name.starts_with(folder));
        segments.flat_map(|name| self.lines(&name)).collect()
    }

    /// The same pair, but for the bytes of one file.
    pub(crate) fn with(&self, name: &str, bytes: &[u8]) -> Self {
        let mut changed = self.clone();
        changed.0.insert(name.to_owned(), bytes.into());
        changed
    }

    /// The same pair, but for the lines of one file.
    pub(crate) fn with_lines(&self, name: &str, change: impl FnOnce(&mut Vec<Vec<u8>>)) -> Self {
        let mut lines = self.lines(name);
        change(&mut lines);
        self.with(name, &lines.concat())
    }

    /// The same pair without files that `gone` says yes to.
    pub(crate) fn without(&self, gone: impl Fn(&str) -> bool) -> Self {
        Self(self.0.iter().filter(|(name, _)| !gone(name)).map(|(name, bytes)| (name.clone(), bytes.clone())).collect())
    }

    fn log(&self, folder: &str) -> LogFiles<'static> {
        let named = |suffix: &'static str| self.0.iter().filter(move |(name, _)| name.starts_with(folder) && name.ends_with(suffix));
        let segments = named(".jsonl").map(|(name, bytes)| {
            let bytes = bytes.clone();
            Segment { name: name.clone(), open: Box::new(move || Ok(Box::new(Cursor::new(bytes.clone())) as Box<dyn BufRead>)) }
        });
        let notes = named("checkpoint").map(|(name, bytes)| NoteFile { name: name.clone(), bytes: bytes.to_vec() });
        LogFiles { name: folder.to_owned(), segments: segments.collect(), notes: notes.collect(), pruned: Pruned::default() }
    }

    pub(crate) fn input(&self) -> Input<'static> {
        let uses = self.0.keys().any(|name| name.starts_with("log/uses/")).then(|| self.log("log/uses/"));
        Input { keys: Some(self.log("log/keys/")), uses: uses.into_iter().collect(), ..Input::default() }
    }

    pub(crate) fn verify(&self, options: &Options) -> Report {
        verify(&self.input(), options, at(END + 60)).expect("these readers never fail")
    }
}

pub(crate) fn lines(bytes: &[u8]) -> Vec<Vec<u8>> {
    bytes.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect()
}

/// A true pair, and what a verifier brings along against those who change it.
pub(crate) struct Truth {
    pub(crate) files: Files,
    pub(crate) pair: Pair,
    /// The trust file alone.
    pub(crate) trust: Options,
    /// Heads that were remembered before the rotation, and an age.
    pub(crate) old_heads: Options,
    /// Heads that were remembered when everything was written.
    pub(crate) new_heads: Options,
    /// A receipt of the last use.
    pub(crate) receipt: Options,
    /// At least one record in each log.
    pub(crate) min_size: Options,
}

impl Truth {
    pub(crate) fn new(story: Story) -> Self {
        let files = build(story);
        let note = |name: &str| NoteFile { name: format!("the head {name}"), bytes: files[name].clone() };
        let trust = Options { trust: Some(Policy::parse(&files["trust"]).unwrap()), ..Options::default() };
        let max_age = Some(Duration::from_hours(1));
        let old = vec![note("head/keys"), note("head/uses-a")];
        let new = vec![note(KEYS_CHECKPOINT), note(USES_CHECKPOINT)];
        let receipt = serde_json::from_slice(&files["receipt.json"]).unwrap();
        Self {
            pair: Pair::new(&files),
            old_heads: Options { heads: old, max_age, ..trust.clone() },
            new_heads: Options { heads: new, ..trust.clone() },
            receipt: Options { receipts: vec![receipt], ..trust.clone() },
            min_size: Options { min_sizes: vec![MinSize { origin: None, size: 1 }], ..trust.clone() },
            trust,
            files,
        }
    }

    /// Each way to pin that has no memory of the end, and with which the true pair is verified.
    pub(crate) fn pins(&self) -> [&Options; 3] {
        [&self.old_heads, &self.receipt, &self.min_size]
    }
}

/// No attack gives 0: it comes to one of `allowed`, which never holds 0.
#[track_caller]
pub(crate) fn refused(attack: impl Display, pair: &Pair, options: &Options, allowed: &[u8]) -> Report {
    assert!(!allowed.is_empty() && !allowed.contains(&0), "{attack}: an attack that may give 0 is none");
    let report = pair.verify(options);
    let code = report.verdict.exit_code();
    assert!(allowed.contains(&code), "{attack}: exit {code}, not one of {allowed:?}\n{:#?}", report.findings.list());
    report
}

/// What changes nothing that was signed: exit 0, and nothing to say.
#[track_caller]
pub(crate) fn verified(what: impl Display, pair: &Pair, options: &Options) -> Report {
    let report = pair.verify(options);
    assert!(report.findings.list().is_empty(), "{what}: {:#?}", report.findings.list());
    assert_eq!(report.verdict.exit_code(), 0, "{what}");
    report
}
