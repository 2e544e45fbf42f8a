//! Attacks on lines: each one dropped, doubled, moved, spelled in another way; others put between them.
//!
//! Out of scope: lines after everything that was signed (`uncovered`), and lines that somebody with a key has made (`forgeries`).

use claviger_audit::line::MAX_LINE;
use claviger_audit::merkle::Hash;
use claviger_audit::record::Record;

use super::builder::{Story, build};
use super::corpus::{KEYS, Pair, Truth, first_uses, refused, second_uses};

type Line = Vec<u8>;

/// Each file of lines with the number of its lines.
fn files(pair: &Pair) -> Vec<(String, usize)> {
    [KEYS.to_owned(), first_uses(), second_uses()].map(|name| (name.clone(), pair.lines(&name).len())).to_vec()
}

#[test]
fn a_dropped_line_is_missed() {
    for story in [Story::Valid, Story::Busy] {
        let truth = Truth::new(story);
        for name in truth.pair.names(".jsonl") {
            let count = truth.pair.lines(&name).len();
            let last_of_its_log = name == KEYS || Some(&name) == truth.pair.names(".jsonl").last();
            for index in 0..count {
                // Nothing follows the last record of a log that could miss it, but the size that was signed.
                let exit = if last_of_its_log && index + 1 == count { 11 } else { 10 };
                let pair = truth.pair.with_lines(&name, |lines| drop(lines.remove(index)));
                refused(format_args!("{name}: line {index} dropped"), &pair, truth.pins()[index % 3], &[exit]);
            }
        }
    }
}

#[test]
fn a_line_has_one_place() {
    let truth = Truth::new(Story::Valid);
    for (name, count) in files(&truth.pair) {
        for from in 0..count {
            for to in (0..count).filter(|to| *to != from) {
                let moved = truth.pair.with_lines(&name, |lines| {
                    let line = lines.remove(from);
                    lines.insert(to, line);
                });
                refused(format_args!("{name}: line {from} moved to {to}"), &moved, truth.pins()[to % 3], &[10]);
            }
        }
    }
    let busy = Truth::new(Story::Busy);
    let name = busy.pair.names(".jsonl").pop().unwrap();
    for index in 1..busy.pair.lines(&name).len() {
        let swapped = busy.pair.with_lines(&name, |lines| lines.swap(index - 1, index));
        refused(format_args!("{name}: line {index} swapped with the one before"), &swapped, &busy.min_size, &[10]);
    }
}

#[test]
fn a_copied_line_is_out_of_place_everywhere() {
    let truth = Truth::new(Story::Valid);
    for (from, count) in files(&truth.pair) {
        for (index, line) in truth.pair.lines(&from).into_iter().enumerate() {
            for (to, most) in files(&truth.pair) {
                // Within a file at every place; into another file at the place of its number, and at its end.
                let places = if from == to { (0..=most).collect() } else { vec![index.min(most), most] };
                for place in places {
                    let pair = truth.pair.with_lines(&to, |lines| lines.insert(place, line.clone()));
                    let attack = format_args!("line {index} of {count} of {from} copied to {place} in {to}");
                    refused(attack, &pair, truth.pins()[place % 3], &[10]);
                }
            }
        }
    }
}

/// A record that nobody signed, with the right number and the right link, and every record after it renumbered and linked again.
#[test]
fn a_forged_line_is_not_signed_for() {
    let truth = Truth::new(Story::Valid);
    for (name, count) in files(&truth.pair) {
        for place in 0..count {
            let forged = |line: &Line| replaced(line, "\"boot\":\"5f0c\"", "\"boot\":\"beef\"");
            let inserted = truth.pair.with_lines(&name, |lines| {
                let line = forged(&lines[place]);
                lines.insert(place, line);
                link_again(lines, place);
            });
            refused(format_args!("{name}: a linked record inserted at {place}"), &inserted, truth.pins()[place % 3], &[10]);
            let changed = truth.pair.with_lines(&name, |lines| {
                lines[place] = forged(&lines[place]);
                link_again(lines, place);
            });
            refused(format_args!("{name}: record {place} changed, the rest linked again"), &changed, truth.pins()[place % 3], &[10]);
        }
    }
}

/// Numbers and links from `first` on, as somebody without the log key can make them.
fn link_again(lines: &mut [Line], first: usize) {
    let parse = |line: &Line| Record::parse(line.trim_ascii_end()).unwrap();
    let begin = parse(&lines[0]);
    let mut prev = if first == 0 { begin.prev } else { leaf(&lines[first - 1]) };
    for (index, line) in lines.iter_mut().enumerate().skip(first) {
        let record = Record { seq: begin.seq + index as u64, prev, ..parse(line) };
        *line = [record.to_line().unwrap().as_slice(), b"\n"].concat();
        prev = leaf(line);
    }
}

fn leaf(line: &Line) -> Hash {
    claviger_audit::merkle::leaf_hash(line.strip_suffix(b"\n").unwrap())
}

fn replaced(line: &Line, from: &str, to: &str) -> Line {
    let text = str::from_utf8(line).unwrap();
    assert!(text.contains(from), "{text}");
    text.replacen(from, to, 1).into_bytes()
}

/// Another way to write the same line; `None` where the line has nothing that could be written so.
type Spelling = (&'static str, fn(&str) -> Option<String>);

fn swap(line: &str, from: &str, to: &str) -> Option<String> {
    line.contains(from).then(|| line.replacen(from, to, 1))
}

/// The first digit of a hash that has a letter, in upper case.
fn upper_case(line: &str) -> Option<String> {
    let begin = line.find("\"prev\":\"")? + 8;
    let at = begin + line[begin..begin + 64].find(|c: char| c.is_ascii_lowercase())?;
    Some(format!("{}{}{}", &line[..at], line[at..=at].to_ascii_uppercase(), &line[at + 1..]))
}

const SPELLINGS: [Spelling; 24] = [
    ("CR before LF", |line| Some(format!("{line}\r"))),
    ("a byte order mark", |line| Some(format!("\u{feff}{line}"))),
    ("NUL at the end", |line| Some(format!("{line}\0"))),
    ("NUL in a text", |line| swap(line, "5f0c", "5f\0c")),
    ("an escaped NUL", |line| swap(line, "5f0c", "5f\\u0000c")),
    ("a space at the end", |line| Some(format!("{line} "))),
    ("a space at the start", |line| Some(format!(" {line}"))),
    ("a tab within", |line| swap(line, "\",\"", "\",\t\"")),
    ("cut in two", |line| swap(line, ",\"event\"", ",\n\"event\"")),
    ("a blank line before", |line| Some(format!("\n{line}"))),
    ("65,536 bytes", |line| Some(format!("{line}{}", " ".repeat(MAX_LINE + 1 - line.len())))),
    ("a member twice", |line| swap(line, "\"boot\":", "\"boot\":\"5f0c\",\"boot\":")),
    ("a member twice, one of them escaped", |line| swap(line, "\"boot\":", "\"\\u0062oot\":\"beef\",\"boot\":")),
    ("a member of `timing` twice", |line| swap(line, "\"clock_skew_ms\":", "\"clock_skew_ms\":1,\"clock_skew_ms\":")),
    ("a member of `jwk` twice", |line| swap(line, "\"crv\":", "\"crv\":\"P-256\",\"crv\":")),
    ("a member of `attributes` twice", |line| swap(line, "\"sensitive\":", "\"sensitive\":\"false\",\"sensitive\":")),
    ("an unknown member", |line| swap(line, "\"boot\":", "\"aaaa\":1,\"boot\":")),
    ("a null member", |line| swap(line, "\"boot\":", "\"agent\":null,\"boot\":")),
    ("members in another order", |line| {
        swap(line, "\"v\":1}", "\"node\":\"a\"}").map(|line| line.replacen("\"node\":\"a\"", "\"v\":1", 1))
    }),
    ("another spelling of a text", |line| swap(line, "5f0c", "5\\u00660c")),
    ("another spelling of a number", |line| swap(line, "\"v\":1", "\"v\":1.0")),
    ("a leading zero", |line| swap(line, "\"v\":1", "\"v\":01")),
    ("an upper-case digit of a hash", upper_case),
    ("another time zone", |line| swap(line, ".000Z", "+00:00")),
];

#[test]
fn a_line_has_one_spelling() {
    let truth = Truth::new(Story::Valid);
    for (what, spelling) in SPELLINGS {
        let mut spelled = 0;
        for (name, count) in files(&truth.pair) {
            for index in 0..count {
                let line = String::from_utf8(truth.pair.lines(&name)[index].clone()).unwrap();
                let Some(other) = spelling(line.trim_end()) else { continue };
                spelled += 1;
                let pair = truth.pair.with_lines(&name, |lines| lines[index] = format!("{other}\n").into_bytes());
                refused(format_args!("{name}, line {index}: {what}"), &pair, truth.pins()[index % 3], &[10]);
            }
        }
        assert!(spelled > 0, "{what}: no line was written so");
    }
}

/// What an editor or a transfer does to a whole file.
#[test]
fn a_file_has_one_spelling() {
    let truth = Truth::new(Story::Valid);
    for (name, _) in files(&truth.pair) {
        for (what, spelling) in SPELLINGS {
            let pair = truth.pair.with_lines(&name, |lines| {
                for line in lines {
                    let text = String::from_utf8(line.clone()).unwrap();
                    if let Some(other) = spelling(text.trim_end()) {
                        *line = format!("{other}\n").into_bytes();
                    }
                }
            });
            if pair != truth.pair {
                refused(format_args!("{name}, every line: {what}"), &pair, &truth.receipt, &[10]);
            }
        }
        let utf16: Vec<u8> = String::from_utf8_lossy(truth.pair.bytes(&name)).encode_utf16().flat_map(u16::to_le_bytes).collect();
        refused(format_args!("{name} in UTF-16"), &truth.pair.with(&name, &utf16), &truth.receipt, &[10]);
        let zeros = vec![0; truth.pair.bytes(&name).len()];
        refused(format_args!("{name} a hole"), &truth.pair.with(&name, &zeros), &truth.receipt, &[10]);
    }
}

/// Two logs of the same keys, the same story and the same length, cut at the same line and put together.
#[test]
fn two_logs_cannot_be_spliced() {
    let truth = Truth::new(Story::Valid);
    let other = Pair::new(&build(Story::WrongOrigin));
    for (name, count) in files(&truth.pair) {
        let foreign = other.lines(&name);
        for place in 0..count {
            let pins = truth.pins()[place % 3];
            let head = truth.pair.with_lines(&name, |lines| drop(lines.splice(place.., foreign[place..].iter().cloned())));
            refused(format_args!("{name}: the other log from line {place} on"), &head, pins, &[10]);
            let tail = truth.pair.with_lines(&name, |lines| drop(lines.splice(..=place, foreign[..=place].iter().cloned())));
            refused(format_args!("{name}: the other log up to line {place}"), &tail, pins, &[10]);
            let linked = truth.pair.with_lines(&name, |lines| {
                drop(lines.splice(place.., foreign[place..].iter().cloned()));
                link_again(lines, place);
            });
            // Some records say the same in both logs, so that linking them again gives the true ones.
            if linked != truth.pair {
                refused(format_args!("{name}: the other log, linked, from line {place} on"), &linked, pins, &[10]);
            }
        }
    }
}
