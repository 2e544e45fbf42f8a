//! Attacks on files: segments and folders that are missing, empty, renamed, doubled, exchanged, joined, divided.
//!
//! Out of scope: what a file system refuses (`folders`).

use super::builder::{Files, Story, build};
use super::corpus::{KEYS, KEYS_CHECKPOINT, Pair, Truth, USES_CHECKPOINT, refused};

/// The segments of the busy use log.
fn segments(truth: &Truth) -> Vec<String> {
    let names: Vec<String> = truth.pair.names(".jsonl").into_iter().filter(|name| name != KEYS).collect();
    assert_eq!(names.len(), 3);
    names
}

fn renamed(pair: &Pair, from: &str, to: &str) -> Pair {
    pair.without(|name| name == from).with(to, pair.bytes(from))
}

#[test]
fn a_missing_segment_is_a_gap() {
    let truth = Truth::new(Story::Busy);
    let names = segments(&truth);
    for pins in truth.pins() {
        for (gone, exit) in [(vec![0], 10), (vec![1], 10), (vec![2], 11), (vec![0, 1], 10), (vec![0, 2], 10), (vec![1, 2], 11)] {
            let pair = truth.pair.without(|name| gone.iter().any(|index| names[*index] == name));
            refused(format_args!("segments {gone:?} removed"), &pair, pins, &[exit]);
            let mut emptied = truth.pair.clone();
            for index in &gone {
                emptied = emptied.with(&names[*index], b"");
            }
            refused(format_args!("segments {gone:?} emptied"), &emptied, pins, &[exit]);
        }
    }
}

#[test]
fn a_segment_is_named_by_its_first_record() {
    let truth = Truth::new(Story::Busy);
    let names = segments(&truth);
    let highest = 2 * 52;
    for (index, name) in names.iter().enumerate() {
        for number in (0..highest).map(|number| format!("{number:020}")).chain(["9".repeat(20), u64::MAX.to_string()]) {
            let other = format!("log/uses/{number}.jsonl");
            if !names.contains(&other) {
                let pair = renamed(&truth.pair, name, &other);
                refused(format_args!("{name} renamed to {other}"), &pair, truth.pins()[index], &[10]);
                let doubled = truth.pair.with(&other, truth.pair.bytes(name));
                refused(format_args!("{name} copied to {other}"), &doubled, truth.pins()[index], &[10]);
            }
        }
        // A name that is none of a segment hides it.
        let hidden = renamed(&truth.pair, name, &format!("{name}.bak"));
        refused(format_args!("{name} hidden"), &hidden, &truth.receipt, &[if index == 2 { 11 } else { 10 }]);
    }
}

#[test]
fn segments_cannot_be_exchanged() {
    let truth = Truth::new(Story::Busy);
    let names = [segments(&truth), vec![KEYS.to_owned()]].concat();
    for a in &names {
        for b in names.iter().filter(|b| *b != a) {
            let copied = truth.pair.with(a, truth.pair.bytes(b));
            refused(format_args!("{a} overwritten with {b}"), &copied, &truth.min_size, &[10]);
            let swapped = copied.with(b, truth.pair.bytes(a));
            refused(format_args!("{a} and {b} exchanged"), &swapped, &truth.receipt, &[10]);
        }
    }
    let other = build(Story::Valid);
    for name in segments(&truth).iter().filter(|name| other.get(*name).is_some_and(|bytes| bytes != truth.pair.bytes(name))) {
        refused(format_args!("{name} of another log"), &truth.pair.with(name, &other[name]), &truth.old_heads, &[10]);
    }
}

#[test]
fn segments_are_neither_joined_nor_divided() {
    let truth = Truth::new(Story::Busy);
    let names = segments(&truth);
    for pair in names.windows(2) {
        let joined = [truth.pair.bytes(&pair[0]), truth.pair.bytes(&pair[1])].concat();
        let joined = truth.pair.without(|name| name == pair[1]).with(&pair[0], &joined);
        refused(format_args!("{pair:?} joined"), &joined, &truth.receipt, &[10]);
    }
    let mut seq = 0;
    for name in &names {
        let lines = truth.pair.lines(name);
        for at in 1..lines.len() {
            let second = format!("log/uses/{:020}.jsonl", seq + at);
            let divided = truth.pair.with(name, &lines[..at].concat()).with(&second, &lines[at..].concat());
            refused(format_args!("{name} divided at line {at}"), &divided, truth.pins()[at % 3], &[10]);
        }
        seq += lines.len();
    }
}

#[test]
fn a_missing_log_is_missed() {
    let truth = Truth::new(Story::Valid);
    let emptied = |folder: &'static str| {
        let segments: Vec<String> = truth.pair.names(".jsonl").into_iter().filter(|name| name.starts_with(folder)).collect();
        segments.iter().fold(truth.pair.clone(), |pair, name| pair.with(name, b""))
    };
    for pins in [&truth.old_heads, &truth.new_heads, &truth.receipt, &truth.min_size] {
        refused("no use log", &truth.pair.without(|name| name.starts_with("log/uses/")), pins, &[11]);
        refused("no key log", &truth.pair.without(|name| name.starts_with("log/keys/")), pins, &[11]);
        refused("an empty use log", &emptied("log/uses/"), pins, &[11]);
        refused("an empty key log", &emptied("log/keys/"), pins, &[11]);
        let nothing = Pair::new(&Files::new());
        let exit = if pins.heads.is_empty() && pins.receipts.is_empty() { 16 } else { 11 };
        refused("no log at all", &nothing, pins, &[exit]);
        let empty = nothing.with(KEYS, b"");
        refused("an empty key log and no other", &empty, pins, &[exit]);
        let signed = empty.with(KEYS_CHECKPOINT, truth.pair.bytes(KEYS_CHECKPOINT));
        refused("an empty log with a checkpoint", &signed, pins, &[11]);
    }
}

#[test]
fn a_log_does_not_stand_for_the_other() {
    let truth = Truth::new(Story::Valid);
    let folder = |from: &str, to: &str| -> Files {
        let files = truth.pair.files().filter(|(name, _)| name.starts_with(from));
        files.map(|(name, bytes)| (name.replace(from, to), bytes.to_vec())).collect()
    };
    let (keys, uses) = ("log/keys/", "log/uses/");
    let merged = |a: Files, b: Files| Pair::new(&a.into_iter().chain(b).collect());
    for pins in truth.pins() {
        refused("the logs exchanged", &merged(folder(keys, uses), folder(uses, keys)), pins, &[10]);
        refused("the key log twice", &merged(folder(keys, keys), folder(keys, uses)), pins, &[10]);
        refused("the use log twice", &merged(folder(uses, uses), folder(uses, keys)), pins, &[10]);
        let (a, b) = (truth.pair.bytes(KEYS_CHECKPOINT), truth.pair.bytes(USES_CHECKPOINT));
        refused("the checkpoints exchanged", &truth.pair.with(KEYS_CHECKPOINT, b).with(USES_CHECKPOINT, a), pins, &[13]);
    }
}
