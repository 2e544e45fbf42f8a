//! Attacks on bytes: every byte changed, every file cut at every byte.
//!
//! Out of scope: what lies past the newest checkpoint (`uncovered`).

use claviger_audit::trust::Policy;
use claviger_audit::verify::Options;

use super::builder::Story;
use super::corpus::{KEYS, Pair, Truth, first_uses, refused, second_uses, verified};

/// Changes one bit of each byte of a file. Over eight bytes of a file, and over eight files, each bit has its turn.
fn flips<'p>(pair: &'p Pair, name: &'p str, turn: usize) -> impl Iterator<Item = (String, Pair)> + 'p {
    (0..pair.bytes(name).len()).map(move |index| {
        let bit = 1 << ((index + turn) % 8);
        let mut bytes = pair.bytes(name).to_vec();
        bytes[index] ^= bit;
        (format!("{name}: bit {bit:#04x} of byte {index} changed"), pair.with(name, &bytes))
    })
}

fn flip_segments(story: Story, of: impl Fn(&str) -> bool) {
    let truth = Truth::new(story);
    let names: Vec<String> = truth.pair.names(".jsonl").into_iter().filter(|name| of(name)).collect();
    assert!(!names.is_empty(), "nothing was attacked");
    for name in &names {
        for (index, (attack, pair)) in flips(&truth.pair, name, 0).enumerate() {
            refused(attack, &pair, truth.pins()[index % 3], &[10]);
        }
    }
}

#[test]
fn the_truth_is_verified() {
    for story in [Story::Valid, Story::Busy] {
        let truth = Truth::new(story);
        for options in truth.pins().into_iter().chain([&truth.new_heads]) {
            let report = verified(format_args!("{story:?}"), &truth.pair, options);
            assert!(report.logs.iter().all(|log| log.size == log.checked && log.torn == 0));
        }
        assert!(story == Story::Valid || truth.pair.verify(&truth.trust).logs[1].size >= 50);
    }
}

#[test]
fn a_changed_byte_of_the_key_log_is_tampering() {
    flip_segments(Story::Valid, |name| name == KEYS);
}

#[test]
fn a_changed_byte_of_a_busy_use_log_is_tampering() {
    flip_segments(Story::Busy, |name| name == first_uses() || name == second_uses());
}

#[test]
fn a_changed_byte_of_a_busy_use_log_is_tampering_to_its_end() {
    flip_segments(Story::Busy, |name| name.starts_with("log/uses/") && name > second_uses().as_str());
}

/// A note is 200 bytes, so every bit of it has its turn at every place.
#[test]
fn a_changed_bit_of_a_checkpoint_is_a_signature_that_is_missing() {
    let truth = Truth::new(Story::Valid);
    for name in truth.pair.names("checkpoint") {
        for turn in 0..8 {
            for (attack, pair) in flips(&truth.pair, &name, turn) {
                refused(attack, &pair, truth.pins()[turn % 3], &[13]);
            }
        }
    }
}

/// The trust file is the verifier's own; but whatever befalls it must not make it believe more. A comment may say anything.
#[test]
fn a_changed_byte_of_the_trust_file_is_never_believed() {
    let truth = Truth::new(Story::Valid);
    let trust = &truth.files["trust"];
    let comment = trust.iter().position(|byte| *byte == b'\n').unwrap();
    for index in (0..1).chain(comment..trust.len()) {
        for bit in 0..8 {
            let mut bytes = trust.clone();
            bytes[index] ^= 1 << bit;
            if let Ok(trust) = Policy::parse(&bytes) {
                let options = Options { trust: Some(trust), ..truth.min_size.clone() };
                refused(format_args!("trust: bit {bit} of byte {index} changed"), &truth.pair, &options, &[13, 16]);
            }
        }
    }
}

/// Cut at the end of a line, the last segment is shorter than what was signed; anywhere else, a line is no record, or a seal is broken.
#[test]
fn a_cut_file_is_seen_wherever_it_is_cut() {
    let truth = Truth::new(Story::Valid);
    for name in truth.pair.names("") {
        let bytes = truth.pair.bytes(&name);
        for length in 0..bytes.len() {
            let at_a_line_end = length == 0 || bytes[length - 1] == b'\n';
            let exit = match name.as_str() {
                note if note.ends_with("checkpoint") => 13,
                first if first == first_uses() => 10,
                _ if at_a_line_end => 11,
                _ => 10,
            };
            let attack = format_args!("{name} cut to {length} bytes");
            refused(attack, &truth.pair.with(&name, &bytes[..length]), truth.pins()[length % 3], &[exit]);
        }
    }
}
