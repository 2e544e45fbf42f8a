//! Receipts that clients hold, and whether the use log still has what they say.
//!
//! In scope: the leaf hash of the record at each held position, computed here from the bytes on disk. Out of scope: the tree above them
//! (`claviger audit verify --receipt` proves that, and is asked too).

use std::fs;
use std::path::PathBuf;

use claviger_audit::merkle::{Hash, leaf_hash};
use serde_json::Value;

use super::Place;

/// The origin of the use log in a [`super::Setup`].
pub(crate) const USES: &str = "test.example/claviger/uses/node-a";

/// A receipt, as a reply carries it.
#[derive(Clone, Debug)]
pub(crate) struct Receipt {
    pub(crate) seq: usize,
    pub(crate) leaf: Hash,
    json: Value,
}

impl Receipt {
    /// From the body of a reply.
    pub(crate) fn of(reply: &Value) -> Self {
        let json = reply["receipt"].clone();
        assert_eq!(json["log"], USES, "{reply}");
        let seq = json["seq"].as_u64().and_then(|seq| usize::try_from(seq).ok()).expect("a receipt has a position");
        let leaf = json["leaf"].as_str().and_then(|leaf| leaf.parse().ok()).expect("a receipt has a leaf hash");
        Self { seq, leaf, json }
    }
}

/// The segments of a log, in order.
pub(crate) fn segments(place: &Place<'_>, log: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(place.log().join(log)).expect("the log's folder");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("a readable folder").path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
    files.sort();
    files
}

/// The lines of a log, in order, whole ones alone: the last may be under way.
pub(crate) fn lines(place: &Place<'_>, log: &str) -> Vec<String> {
    let files = segments(place, log).into_iter().map(|path| fs::read_to_string(path).expect("a readable segment"));
    let text: String = files.collect();
    text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')).map(str::to_owned).collect()
}

/// Every receipt names the record that lies at its position.
pub(crate) fn assert_provable(place: &Place<'_>, held: &[Receipt]) {
    let leaves: Vec<Hash> = lines(place, "uses").iter().map(|line| leaf_hash(line.as_bytes())).collect();
    for receipt in held {
        let found = leaves.get(receipt.seq);
        assert_eq!(found, Some(&receipt.leaf), "a receipt that a client holds, with {} records in the log", leaves.len());
    }
}

/// The newest receipt is enough to pin the log for the verifier.
pub(crate) fn assert_verifies(place: &Place<'_>, held: &[Receipt]) {
    let newest = held.iter().max_by_key(|receipt| receipt.seq).expect("at least one receipt");
    let file = place.root().join("receipt.json");
    fs::write(&file, newest.json.to_string()).expect("a new file");
    let (trust, file) = (place.trust(), file.to_str().expect("a plain path").to_owned());
    let (code, report) = place.verify(&["--trust", trust.to_str().expect("a plain path"), "--receipt", &file]);
    assert_eq!(code, 0, "{report}");
}
