//! Attacks by somebody who holds a key: both logs told again, consistent to the last hash, and signed.
//!
//! In scope: the log's own keys against whoever remembers anything, and other keys against a trust file. Out of scope: forgers without any
//! key (`lines`).

use claviger_audit::event::{Event, LogHeartbeat, LogKind};
use claviger_audit::line::MAX_LINE;
use ed25519_dalek::SigningKey;

use super::builder::{ORIGIN, Story};
use super::corpus::{Pair, Truth, USES_CHECKPOINT, refused, verified};
use super::forge::Forger;

/// A pair that nobody without a memory can tell from the truth.
fn perfect(what: &str, truth: &Truth, forger: &Forger) -> Pair {
    let pair = Pair::new(&forger.write());
    assert!(pair != truth.pair, "{what} changed nothing");
    verified(format_args!("{what}, without a memory"), &pair, &truth.min_size);
    pair
}

#[test]
fn the_forger_can_tell_the_truth() {
    for story in [Story::Valid, Story::Busy] {
        let truth = Truth::new(story);
        let told = Pair::new(&Forger::new(&truth.files).write());
        for (name, bytes) in told.files() {
            assert_eq!(truth.pair.bytes(name), bytes, "{name}");
        }
        assert!(told == truth.pair);
    }
}

#[test]
fn a_changed_record_meets_whoever_remembers() {
    let truth = Truth::new(Story::Valid);
    for (kind, count, remembered) in [(LogKind::Keys, 23, 17), (LogKind::Uses, 13, 5)] {
        for seq in 0..count {
            let mut forger = Forger::new(&truth.files);
            forger.log(kind).records[seq].record.boot = "beef".into();
            let what = format!("record {seq} of {} changed", kind.name());
            let pair = perfect(&what, &truth, &forger);
            let report = refused(&what, &pair, &truth.new_heads, &[12]);
            let fork = report.findings.list().iter().find(|finding| finding.notes.len() == 2).unwrap();
            assert!(fork.notes.iter().all(|note| note.contains(ORIGIN)), "{what}");
            // A head remembers what was before it. What one log has seen of the other is in it too.
            let covered_by_head = seq < remembered;
            if covered_by_head {
                refused(&what, &pair, &truth.old_heads, &[12]);
            }
            // The last use names all of the key log, and follows all of the use log.
            refused(&what, &pair, &truth.receipt, &[10]);
        }
    }
}

#[test]
fn an_inserted_record_meets_whoever_remembers() {
    let truth = Truth::new(Story::Valid);
    // The first segment is named by record 0, the second begins with its seal.
    for place in (1..13).filter(|place| *place != 5) {
        let mut forger = Forger::new(&truth.files);
        forger.uses.insert(place, Event::LogHeartbeat(LogHeartbeat {}));
        let what = format!("a record inserted at {place}");
        let pair = perfect(&what, &truth, &forger);
        refused(&what, &pair, &truth.new_heads, &[12]);
        refused(&what, &pair, &truth.receipt, &[10]);
        if place < 5 {
            refused(&what, &pair, &truth.old_heads, &[12]);
        }
        // Without the log key there is no new checkpoint, and none of the old ones fits.
        let unsigned = truth.pair.names("checkpoint").iter().fold(pair, |pair, name| pair.with(name, truth.pair.bytes(name)));
        for pins in truth.pins() {
            refused(format_args!("{what}, not signed for"), &unsigned, pins, &[10]);
        }
    }
}

#[test]
fn a_dropped_record_meets_whoever_remembers() {
    let truth = Truth::new(Story::Valid);
    let is_bound = |event: &Event| matches!(event, Event::LogCreated(_) | Event::LogSegment(_) | Event::KeysSeen(_));
    let mut dropped = 0;
    for seq in 0..13 {
        let mut forger = Forger::new(&truth.files);
        if is_bound(&forger.uses.records.remove(seq).record.event) {
            continue;
        }
        dropped += 1;
        let what = format!("record {seq} dropped");
        let pair = perfect(&what, &truth, &forger);
        refused(&what, &pair, &truth.new_heads, &[12, 11]);
        refused(&what, &pair, &truth.receipt, &[11]);
        if seq < 5 {
            refused(&what, &pair, &truth.old_heads, &[12]);
        }
        // Only the newest checkpoint is the true one: the log is too short for it.
        let old_note = pair.with(USES_CHECKPOINT, truth.pair.bytes(USES_CHECKPOINT));
        refused(format_args!("{what}, with the true checkpoint"), &old_note, &truth.min_size, &[11]);
    }
    assert_eq!(dropped, 7);
}

/// A chain of its own, whole and signed, but not of the log that is trusted.
#[test]
fn a_foreign_log_is_not_the_one_that_is_trusted() {
    let truth = Truth::new(Story::Valid);
    for pins in [&truth.old_heads, &truth.new_heads, &truth.receipt, &truth.min_size] {
        let foreign = |change: &dyn Fn(&mut Forger)| {
            let mut forger = Forger::new(&truth.files);
            change(&mut forger);
            Pair::new(&forger.write())
        };
        // Receipts and heads name a log that is not here any more; a trusted one.
        let gone = |exit: u8| if pins.heads.is_empty() && pins.receipts.is_empty() { exit } else { 11 };
        let other = foreign(&|forger| {
            forger.keys.origin = "example.net/keys".into();
            forger.uses.origin = "example.net/uses".into();
        });
        refused("another origin", &other, pins, &[gone(16)]);
        let stranger = foreign(&|forger| {
            forger.keys.secret = SigningKey::from_bytes(&[9; 32]);
            forger.uses.secret = SigningKey::from_bytes(&[8; 32]);
        });
        let exit = if pins.receipts.is_empty() { &[13, 10] } else { &[10, 10] };
        refused("another key under the same name", &stranger, pins, exit);
        let exchanged = foreign(&|forger| std::mem::swap(&mut forger.keys.secret, &mut forger.uses.secret));
        refused("each log signed by the other's key", &exchanged, pins, exit);
    }
}

#[test]
fn a_line_of_65536_bytes_is_none_whoever_signs_it() {
    let truth = Truth::new(Story::Valid);
    for (length, exit) in [(MAX_LINE, 0), (MAX_LINE + 1, 10)] {
        let mut forger = Forger::new(&truth.files);
        let record = &mut forger.uses.records[3].record;
        let Event::SignDenied(denied) = &mut record.event else { panic!("record 3 is another one") };
        denied.reason = Some(String::new());
        let rest = record.to_line().unwrap().len();
        let Event::SignDenied(denied) = &mut forger.uses.records[3].record.event else { panic!("record 3 is another one") };
        denied.reason = Some("x".repeat(length - rest));
        let pair = Pair::new(&forger.write());
        if exit == 0 {
            verified("the longest line", &pair, &truth.min_size);
        } else {
            refused("a longer line", &pair, &truth.min_size, &[exit]);
        }
    }
}
