//! Attacks on checkpoints: an older one, another log's, another key's, one that says something else, one that is written otherwise.
//!
//! Out of scope: single bits and cuts of a note (`bytes`).

use claviger_audit::merkle::{Frontier, Hash, leaf_hash};
use claviger_audit::note::Note;
use claviger_audit::verify::{MinSize, Options};
use ed25519_dalek::SigningKey;

use super::builder::{KEYS_SEED, ORIGIN, Story, USES_SEED, note};
use super::corpus::{KEYS, KEYS_CHECKPOINT, Pair, Truth, USES_CHECKPOINT, first_uses, refused, second_uses, verified};

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn keys_origin() -> String {
    format!("{ORIGIN}/keys")
}

fn uses_origin() -> String {
    format!("{ORIGIN}/uses/a")
}

/// The root of the first `size` lines of some segments.
fn root(pair: &Pair, names: &[String], size: usize) -> Hash {
    let mut frontier = Frontier::new();
    let lines = names.iter().flat_map(|name| pair.lines(name)).take(size);
    frontier.extend(lines.map(|line| leaf_hash(line.strip_suffix(b"\n").unwrap())));
    assert_eq!(frontier.size(), size as u64);
    frontier.root()
}

/// Each checkpoint that the log key ever signed, smallest first: with the checkpoint's file, the size, and the note.
fn history(truth: &Truth) -> Vec<(&'static str, usize, Vec<u8>)> {
    let logs = [
        (KEYS_CHECKPOINT, keys_origin(), vec![KEYS.to_owned()], KEYS_SEED),
        (USES_CHECKPOINT, uses_origin(), vec![first_uses(), second_uses()], USES_SEED),
    ];
    let mut notes = Vec::new();
    for (file, origin, segments, seed) in logs {
        let whole: usize = segments.iter().map(|name| truth.pair.lines(name).len()).sum();
        for size in 0..=whole {
            notes.push((file, size, note(&origin, size as u64, root(&truth.pair, &segments, size), &key(seed))));
        }
    }
    notes
}

/// An older checkpoint in the place of the newest. Who remembers the size sees it; who does not is told how much is covered.
#[test]
fn an_older_checkpoint_covers_less() {
    let truth = Truth::new(Story::Valid);
    for (file, size, older) in history(&truth) {
        let (whole, log, origin) = if file == KEYS_CHECKPOINT { (23, 0, keys_origin()) } else { (13, 1, uses_origin()) };
        let pair = truth.pair.with(file, &older);
        // The sealed segment has a checkpoint of its own.
        let covered = if log == 1 { size.max(5) } else { size };
        if covered == whole {
            verified("the newest checkpoint", &pair, &truth.min_size);
            continue;
        }
        let attack = format!("{file} of size {size}");
        let sizes = Options { min_sizes: vec![MinSize { origin: Some(origin), size: whole as u64 }], ..truth.trust.clone() };
        let report = refused(&attack, &pair, &sizes, if covered == 0 { &[16] } else { &[11] });
        assert_eq!((report.logs[log].size, report.logs[log].uncovered), (covered as u64, (whole - covered) as u64), "{attack}");
        // The remembered head is a checkpoint too, so that all of it counts; the lines are all there.
        verified(&attack, &pair, &truth.new_heads);
        let no_age = Options { max_age: None, ..truth.old_heads.clone() };
        let remembered = if log == 0 { 17 } else { 5 };
        assert_eq!(verified(&attack, &pair, &no_age).logs[log].size, covered.max(remembered) as u64);
        // Both logs went silent a month ago, and the use log has seen no more of the key log since.
        if log == 1 && covered <= 5 {
            refused(&attack, &pair, &truth.old_heads, &[14]);
        }
    }
}

/// The log as it was when an older checkpoint was the newest, every file of it.
#[test]
fn a_log_that_was_rolled_back_is_shorter_than_what_is_remembered() {
    let truth = Truth::new(Story::Valid);
    for (file, size, older) in history(&truth) {
        let pair = truth.pair.with(file, &older);
        let rolled_back = if file == KEYS_CHECKPOINT {
            pair.with_lines(KEYS, |lines| lines.truncate(size))
        } else {
            let first = pair.with_lines(&first_uses(), |lines| lines.truncate(size));
            let second = first.with_lines(&second_uses(), |lines| lines.truncate(size.saturating_sub(5)));
            let gone = [second_uses(), format!("{}.checkpoint", first_uses())];
            second.without(|name| size <= 5 && gone.iter().any(|gone| name == gone))
        };
        if rolled_back == truth.pair {
            continue;
        }
        // Even without a memory, each log names a size of the other: all of the key log, and all but the last record of the use log.
        let unnamed = file == USES_CHECKPOINT && size == 12;
        let forgetful = [&truth.old_heads, &truth.min_size].into_iter().filter(|_| !unnamed);
        for options in forgetful.chain([&truth.receipt, &truth.new_heads]) {
            refused(format_args!("{file} rolled back to {size}"), &rolled_back, options, &[11]);
        }
    }
}

#[test]
fn a_checkpoint_of_something_else_is_no_checkpoint() {
    let truth = Truth::new(Story::Valid);
    let names = [KEYS.to_owned()];
    let whole = root(&truth.pair, &names, 23);
    let other = Hash::digest(b"another root");
    let foreign = key(9);
    // Signed by a stranger, under the identifier of the log's own key.
    let genuine = Note::parse(truth.pair.bytes(KEYS_CHECKPOINT)).unwrap();
    let mut disguised = Note::parse(&note(&keys_origin(), 23, whole, &foreign)).unwrap().to_string();
    disguised = swap_signature(&genuine.to_string(), &disguised);
    let notes: [(&str, Vec<u8>, [u8; 2]); 12] = [
        ("of the other log", truth.pair.bytes(USES_CHECKPOINT).to_vec(), [13, 13]),
        ("signed by the key of the other log", note(&keys_origin(), 23, whole, &key(USES_SEED)), [13, 13]),
        ("signed by a stranger", note(&keys_origin(), 23, whole, &foreign), [13, 13]),
        ("signed by a stranger in disguise", disguised.into_bytes(), [13, 13]),
        ("of another origin, by the log's key", note("example.org/other", 23, whole, &key(KEYS_SEED)), [13, 13]),
        ("of another root", note(&keys_origin(), 23, other, &key(KEYS_SEED)), [10, 12]),
        ("of another root, smaller", note(&keys_origin(), 20, other, &key(KEYS_SEED)), [10, 12]),
        ("of the right root, larger", note(&keys_origin(), 24, whole, &key(KEYS_SEED)), [11, 11]),
        ("of another root, larger", note(&keys_origin(), u64::MAX, other, &key(KEYS_SEED)), [11, 11]),
        ("without its signature", format!("{}\n", genuine.text()).into_bytes(), [13, 13]),
        ("without what was signed", b"\n\n".to_vec(), [13, 13]),
        ("empty", Vec::new(), [13, 13]),
    ];
    for (what, bytes, [instead, beside]) in notes {
        let replaced = truth.pair.with(KEYS_CHECKPOINT, &bytes);
        for options in truth.pins() {
            refused(format_args!("a checkpoint {what}, instead"), &replaced, options, &[instead]);
            let added = truth.pair.with("log/keys/another.checkpoint", &bytes);
            refused(format_args!("a checkpoint {what}, beside"), &added, options, &[beside]);
        }
    }
    let without = |suffix: &'static str| truth.pair.without(|name| name.ends_with(suffix));
    for options in truth.pins() {
        // A remembered head is a checkpoint too, but an old one.
        let exit = if options.heads.is_empty() { 13 } else { 14 };
        refused("the checkpoint of the key log removed", &without("keys/checkpoint"), options, &[exit]);
        refused("every checkpoint removed", &without("checkpoint"), options, &[exit]);
        let covered = without("uses/checkpoint").verify(options).logs[1].size;
        assert_eq!(covered, 5, "the sealed segment has a checkpoint, which covers that segment");
    }
}

/// The signature bytes of `from` behind the key identifier of `to`.
fn swap_signature(to: &str, from: &str) -> String {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    let encoded = |note: &str| STANDARD.decode(note.trim_end().rsplit(' ').next().unwrap()).unwrap();
    let mixed = STANDARD.encode([&encoded(to)[..4], &encoded(from)[4..]].concat());
    let (text, _) = to.trim_end().rsplit_once(' ').unwrap();
    format!("{text} {mixed}\n")
}

/// C2SP signed-note: unknown signatures are ignored, and one signature of a known key that is wrong condemns the note.
#[test]
fn more_signatures_change_nothing_unless_one_is_wrong() {
    let truth = Truth::new(Story::Valid);
    let genuine = String::from_utf8(truth.pair.bytes(KEYS_CHECKPOINT).to_vec()).unwrap();
    let (text, signature) = genuine.rsplit_once("\n\n").map(|(text, signature)| (format!("{text}\n"), signature.to_owned())).unwrap();
    let stranger = "\u{2014} stranger.example AAAAAAAA\n";
    let same_name = format!("\u{2014} {} AAAAAAAA\n", keys_origin());
    let own = signature.as_str();
    for lines in [[own, own], [own, stranger], [stranger, own], [&same_name, own]] {
        let pair = truth.pair.with(KEYS_CHECKPOINT, format!("{text}\n{}", lines.concat()).as_bytes());
        for options in truth.pins() {
            verified(format_args!("{lines:?}"), &pair, options);
        }
    }
    let many = |count: usize| format!("{text}\n{}{signature}", stranger.repeat(count));
    verified("100 signatures", &truth.pair.with(KEYS_CHECKPOINT, many(99).as_bytes()), &truth.receipt);
    refused("101 signatures", &truth.pair.with(KEYS_CHECKPOINT, many(100).as_bytes()), &truth.receipt, &[13]);
    let other = String::from_utf8(note(&keys_origin(), 22, Hash::digest(b"another root"), &key(KEYS_SEED))).unwrap();
    let (_, wrong) = other.rsplit_once("\n\n").unwrap();
    for lines in [[wrong, &signature], [&signature, wrong]] {
        let pair = truth.pair.with(KEYS_CHECKPOINT, format!("{text}\n{}", lines.concat()).as_bytes());
        refused(format_args!("{lines:?}"), &pair, &truth.receipt, &[13]);
    }
}

#[test]
fn a_checkpoint_has_one_spelling() {
    let truth = Truth::new(Story::Valid);
    for name in truth.pair.names("checkpoint") {
        let genuine = String::from_utf8(truth.pair.bytes(&name).to_vec()).unwrap();
        let (text, signature) = genuine.rsplit_once("\n\n").unwrap();
        let (begin, encoded) = genuine.trim_end().rsplit_once(' ').unwrap();
        let spellings = [
            ("CRLF", genuine.replace('\n', "\r\n")),
            ("CR in the last line", genuine.trim_end().to_owned() + "\r\n"),
            ("a byte order mark", format!("\u{feff}{genuine}")),
            ("NUL", genuine.replacen('\n', "\n\0", 1)),
            ("a blank line before", format!("\n{genuine}")),
            ("a blank line after", format!("{genuine}\n")),
            ("a space at the end", genuine.trim_end().to_owned() + " \n"),
            ("a hyphen for the dash", genuine.replace('\u{2014}', "-")),
            ("another line that nobody signed", genuine.replacen("\n\n", "\nmore\n\n", 1)),
            ("a leading zero of the size", genuine.replacen('\n', "\n0", 1)),
            ("twice", format!("{genuine}{genuine}")),
            ("its text twice", format!("{text}\n{text}\n\n{signature}")),
            ("upper case", genuine.to_uppercase()),
            ("base64 without padding", genuine.trim_end().trim_end_matches('=').to_owned() + "\n"),
            ("base64 cut in two", format!("{begin} {}\n{}\n", &encoded[..40], &encoded[40..])),
        ];
        for (what, spelling) in spellings {
            assert_ne!(spelling, genuine, "{what}");
            for options in truth.pins() {
                refused(format_args!("{name}: {what}"), &truth.pair.with(&name, spelling.as_bytes()), options, &[13]);
            }
        }
    }
}
