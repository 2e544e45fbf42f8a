//! Whole logs: any bytes in the place of any file of the golden pair.
//!
//! Out of scope: several wrong files at once, which the test `attacks` composes.

use std::io::BufRead;
use std::time::Duration;

use claviger_audit::Timestamp;
use claviger_audit::report;
use claviger_audit::verify::{Input, LogFiles, MinSize, NoteFile, Options, Pruned, Report, Segment, Verdict, verify};

use super::note::trust;

const KEYS: &[u8] = include_bytes!("../../testdata/valid/log/keys/00000000000000000000.jsonl");
const FIRST: &[u8] = include_bytes!("../../testdata/valid/log/uses/00000000000000000000.jsonl");
const SECOND: &[u8] = include_bytes!("../../testdata/valid/log/uses/00000000000000000005.jsonl");
const NOTES: [&[u8]; 2] =
    [include_bytes!("../../testdata/valid/log/keys/checkpoint"), include_bytes!("../../testdata/valid/log/uses/checkpoint")];
const HEAD: &[u8] = include_bytes!("../../testdata/valid/head/keys");
const RECEIPT: &[u8] = include_bytes!("../../testdata/valid/receipt.json");

/// The files of the pair.
#[derive(Clone)]
struct Pair {
    keys: Vec<u8>,
    uses: [Vec<u8>; 2],
    notes: [Vec<u8>; 2],
}

/// Whatever stands in a file, the verifier gives a report; and what it calls verified is what was signed, line by line.
///
/// The first byte chooses the file (modulo 5) and what pins the log (the rest).
pub fn check(data: &[u8]) {
    let Some((choice, bytes)) = data.split_first() else { return };
    let truth = Pair { keys: KEYS.to_vec(), uses: [FIRST.to_vec(), SECOND.to_vec()], notes: NOTES.map(<[u8]>::to_vec) };
    let mut pair = truth.clone();
    match choice % 5 {
        0 => pair.keys = bytes.to_vec(),
        1 => pair.uses[0] = bytes.to_vec(),
        2 => pair.uses[1] = bytes.to_vec(),
        3 => pair.notes[0] = bytes.to_vec(),
        _ => pair.notes[1] = bytes.to_vec(),
    }
    let now: Timestamp = "2026-01-31T00:34:00.000Z".parse().expect("a time");
    let report = verify(&pair.input(), &options(choice / 5), now).expect("these files can be read");
    assert_eq!(report.verdict, report.findings.verdict());
    assert!(report::json(&report, true).is_ok() && !report::text(&report, true).is_empty());
    if report.verdict == Verdict::Verified {
        assert_eq!(report.logs.len(), 2, "a log is missing");
        assert_eq!(covered(&report, 0, &pair.keys), covered(&report, 0, &truth.keys), "another key log");
        assert_eq!(covered(&report, 1, &pair.uses.concat()), covered(&report, 1, &truth.uses.concat()), "another use log");
    }
}

fn options(choice: u8) -> Options {
    let mut options = Options { trust: Some(trust()), ..Options::default() };
    match choice % 3 {
        0 => options.heads = vec![NoteFile { name: "head".to_owned(), bytes: HEAD.to_vec() }],
        1 => options.receipts = vec![serde_json::from_slice(RECEIPT).expect("the golden receipt is one")],
        _ => options.min_sizes = vec![MinSize { origin: None, size: 1 }],
    }
    options.max_age = (choice % 2 == 1).then(|| Duration::from_hours(1));
    options
}

/// The lines that the report calls covered.
fn covered<'b>(report: &Report, log: usize, bytes: &'b [u8]) -> Vec<&'b [u8]> {
    let size = usize::try_from(report.logs[log].size).expect("a small log");
    assert!(size > 0, "nothing is verified");
    bytes.split_inclusive(|byte| *byte == b'\n').take(size).collect()
}

impl Pair {
    fn input(&self) -> Input<'_> {
        let [first, second] = &self.uses;
        let names = ["uses/00000000000000000000.jsonl", "uses/00000000000000000005.jsonl"];
        let uses = vec![segment(names[0], first), segment(names[1], second)];
        let keys = vec![segment("keys/00000000000000000000.jsonl", &self.keys)];
        let log = |name: &str, segments, note: &Vec<u8>| LogFiles {
            name: name.to_owned(),
            segments,
            notes: vec![NoteFile { name: format!("{name}/checkpoint"), bytes: note.clone() }],
            pruned: Pruned::default(),
        };
        Input { keys: Some(log("keys", keys, &self.notes[0])), uses: vec![log("uses", uses, &self.notes[1])], ..Input::default() }
    }
}

fn segment<'a>(name: &str, bytes: &[u8]) -> Segment<'a> {
    let bytes = bytes.to_vec();
    let open = move || Ok(Box::new(std::io::Cursor::new(bytes.clone())) as Box<dyn BufRead>);
    Segment { name: name.to_owned(), open: Box::new(open) }
}
