//! The verifier over the same records: it must find nothing late in a log that this machine wrote.
//!
//! In scope: records to the bytes of a key log, and what the verifier says of its rules. Out of scope: signatures; there is no checkpoint.

use std::io::Cursor;

use claviger_audit::line::genesis_prev;
use claviger_audit::merkle::leaf_hash;
use claviger_audit::verify::{Input, LogFiles, Options, Pruned, Segment, verify};

use super::*;

/// Every rule that the verifier sees broken, with its place.
pub(super) fn broken_rules(records: &[Record]) -> Vec<String> {
    let (mut bytes, mut prev) = (Vec::new(), None);
    for record in records {
        let genesis = match &record.event {
            Event::LogCreated(created) => genesis_prev(&created.origin, &created.key),
            _ => Hash::EMPTY_ROOT,
        };
        let line = Record { prev: prev.unwrap_or(genesis), ..record.clone() }.to_line().expect("a record");
        prev = Some(leaf_hash(&line));
        bytes.extend(line);
        bytes.push(b'\n');
    }
    let segment = Segment { name: "keys".to_owned(), open: Box::new(move || Ok(Box::new(Cursor::new(bytes.clone())))) };
    let keys = LogFiles { name: "keys".to_owned(), segments: vec![segment], notes: Vec::new(), pruned: Pruned::default() };
    let input = Input { keys: Some(keys), ..Input::default() };
    let report = verify(&input, &Options::default(), Timestamp::default()).expect("no I/O");
    let rules = report.findings.list().iter().filter(|finding| finding.rule.is_some());
    rules.map(|finding| format!("{:?} {:?} {}", finding.rule, finding.at, finding.text)).collect()
}
