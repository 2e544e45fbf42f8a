//! Attacks past the newest checkpoint, where nobody has signed yet: they may go unseen, but what they leave never counts as verified.
//!
//! Out of scope: everything that a checkpoint covers.

use std::time::Duration;

use claviger_audit::event::{Event, KeysSeen, LogHeartbeat, LogKind};
use claviger_audit::line::MAX_LINE;
use claviger_audit::merkle::leaf_hash;
use claviger_audit::record::Record;
use claviger_audit::verify::{Options, Report};

use super::builder::Story;
use super::corpus::{KEYS, Pair, Truth, USES_CHECKPOINT, lines, refused, verified};
use super::forge::Forger;

/// Where the newest checkpoint stands.
const COVERED: usize = 40;

/// A busy use log of which nothing past [`COVERED`] is named by a checkpoint, by the key log or by a verifier.
struct Open {
    pair: Pair,
    options: Options,
    last: String,
    /// Where the first uncovered line begins in the last segment.
    from: usize,
    truth: Report,
}

impl Open {
    fn new() -> Self {
        let truth = Truth::new(Story::Busy);
        let mut forger = Forger::new(&truth.files);
        // The key log ends before it names the use log again, and the use log has seen no more of it.
        forger.keys.records.truncate(21);
        forger.uses.records.pop();
        let whole = Pair::new(&forger.write());
        forger.uses.records.truncate(COVERED);
        let older = Pair::new(&forger.write());
        let pair = whole.with(USES_CHECKPOINT, older.bytes(USES_CHECKPOINT));
        let options = Options { max_age: None, ..truth.old_heads };
        let last = pair.names(".jsonl").pop().unwrap();
        let from = older.bytes(&last).len();
        let truth = verified("nothing was attacked yet", &pair, &options);
        assert_eq!((truth.logs[1].size, truth.logs[1].checked), (COVERED as u64, 52));
        Self { pair, options, last, from, truth }
    }

    fn bytes(&self) -> &[u8] {
        self.pair.bytes(&self.last)
    }

    /// Whatever happened after the covered lines, the report gives the truth as verified, and no more.
    fn check(&self, attack: &str, bytes: &[u8]) -> Report {
        let report = self.pair.with(&self.last, bytes).verify(&self.options);
        let verified = |report: &Report| report.logs.iter().map(|log| (log.size, log.root, log.time, log.head.clone())).collect::<Vec<_>>();
        assert_eq!(verified(&report), verified(&self.truth), "{attack}");
        report
    }
}

/// The largest `durable` in any line that is a record.
fn watermark(bytes: &[u8]) -> u64 {
    let durable = |line: &[u8]| Record::parse(line).map_or(0, |record| record.durable);
    bytes.split(|byte| *byte == b'\n').map(durable).max().unwrap()
}

#[test]
fn a_changed_byte_past_the_checkpoint_is_tampering_or_torn() {
    let open = Open::new();
    let first = 52 - lines(open.bytes()).len();
    let mut unseen = 0;
    for index in open.from..open.bytes().len() {
        let mut bytes = open.bytes().to_vec();
        bytes[index] ^= 1 << (index % 8);
        let attack = format!("a bit of byte {index} changed");
        let report = open.check(&attack, &bytes);
        let line = first + bytes[..index].split(|byte| *byte == b'\n').count() - 1;
        // A record that is followed by another is in its link. The last one is in nothing yet: changed, it may say something else. Past the
        // watermark a line may be torn. Either can leave a record that is illegal without what was there.
        let torn = report.logs[1].torn > 0 && line as u64 >= watermark(&bytes);
        let code = report.verdict.exit_code();
        assert!(code == 10 || ((line == 51 || torn) && [0, 15].contains(&code)), "{attack} in line {line}: exit {code}");
        unseen += usize::from(code == 0);
    }
    assert!(unseen > 0, "this test never saw what it is about");
}

#[test]
fn a_cut_past_the_checkpoint_leaves_what_was_covered() {
    let open = Open::new();
    for length in open.from..open.bytes().len() {
        let bytes = &open.bytes()[..length];
        let report = open.check(&format!("cut to {length} bytes"), bytes);
        let partial = !bytes.ends_with(b"\n");
        assert_eq!((report.logs[1].torn, report.verdict.exit_code()), (u64::from(partial), 0), "cut to {length} bytes");
        assert!(uncovered(&report) < uncovered(&open.truth), "cut to {length} bytes");
    }
}

fn uncovered(report: &Report) -> u64 {
    report.logs[1].uncovered
}

#[test]
fn what_is_no_record_past_everything_is_torn() {
    let open = Open::new();
    let text = |text: &str| [open.bytes(), text.as_bytes()].concat();
    let last = String::from_utf8(open.bytes().split_inclusive(|byte| *byte == b'\n').next_back().unwrap().to_vec()).unwrap();
    let torn = [
        ("a blank line", text("\n")),
        ("a line of something else", text("something else\n")),
        ("CR before LF", text(&last.replace('\n', "\r\n"))),
        ("a byte order mark", text(&format!("\u{feff}{last}"))),
        ("a hole", text("\0\0\0\0")),
        ("half a line", text(&last[..100])),
        ("65,536 bytes", text(&format!("{}{}\n", last.trim_end(), " ".repeat(MAX_LINE + 1 - last.trim_end().len())))),
    ];
    for (attack, bytes) in torn {
        let report = open.check(attack, &bytes);
        assert_eq!((report.logs[1].torn, report.verdict.exit_code()), (1, 0), "{attack}");
    }
    // The last record once more is a record, so it is checked.
    assert_eq!(open.check("a record twice", &text(&last)).verdict.exit_code(), 10);
}

/// A record that continues the chain, as anybody can make it.
fn append(pair: &Pair, name: &str, event: Event) -> Pair {
    pair.with_lines(name, |lines| {
        let line = lines.last().unwrap().strip_suffix(b"\n").unwrap();
        let before = Record::parse(line).unwrap();
        let record = Record { seq: before.seq + 1, prev: leaf_hash(line), event, ..before };
        lines.push([record.to_line().unwrap().as_slice(), b"\n"].concat());
    })
}

#[test]
fn a_forged_end_is_uncovered() {
    let open = Open::new();
    let longer = append(&open.pair, &open.last, Event::LogHeartbeat(LogHeartbeat {}));
    let report = open.check("a record appended", longer.bytes(&open.last));
    assert_eq!((report.verdict.exit_code(), uncovered(&report)), (0, uncovered(&open.truth) + 1));
    let truth = Truth::new(Story::Valid);
    let report = append(&truth.pair, KEYS, Event::LogHeartbeat(LogHeartbeat {})).verify(&truth.min_size);
    assert_eq!((report.verdict.exit_code(), report.logs[0].size, report.logs[0].uncovered), (0, 23, 1));
}

/// A key log is as fresh as a use log that has seen all of it; but only if somebody signed for the record that says so.
#[test]
fn an_uncovered_record_makes_no_log_fresh() {
    let truth = Truth::new(Story::Busy);
    let mut forger = Forger::new(&truth.files);
    forger.keys.records.truncate(21);
    // The last covered record of the use log is younger than that of the key log, but none has seen the whole key log.
    let heartbeat = Event::LogHeartbeat(LogHeartbeat {});
    for forged in &mut forger.log(LogKind::Uses).records {
        if matches!(&forged.record.event, Event::KeysSeen(seen) if seen.size > 18) {
            forged.record.event = heartbeat.clone();
        }
        if let Event::Sign(sign) = &mut forged.record.event {
            sign.size = sign.size.min(18);
        }
    }
    let pair = Pair::new(&forger.write());
    let aged = |minutes: u64| Options { max_age: Some(Duration::from_mins(minutes)), ..truth.min_size.clone() };
    verified("an hour ago", &pair, &aged(60));
    refused("the key log is 19 minutes old", &pair, &aged(10), &[14]);
    let last = pair.names(".jsonl").pop().unwrap();
    let leaf = leaf_hash(pair.lines(KEYS).last().unwrap().strip_suffix(b"\n").unwrap());
    let seen = append(&pair, &last, Event::KeysSeen(KeysSeen { size: 21, leaf }));
    refused("a record that nobody signed has seen it all", &seen, &aged(10), &[14]);
    let files = seen.files().map(|(name, bytes)| (name.to_owned(), bytes.to_vec())).collect();
    verified("the same record, signed for", &Pair::new(&Forger::new(&files).write()), &aged(10));
}
