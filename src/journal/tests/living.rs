//! Live tokens: which are counted, how far back is read, and what an answer says that is not complete.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use claviger_audit::Timestamp;
use claviger_audit::event::LogKind;
use claviger_audit::record::Asked;

use super::fake::FakeDisk;
use super::harness::{ManualClock, in_small_segments, make, signed};
use crate::clock::Clock as _;
use crate::journal::disk::Disk as _;
use crate::journal::living::{LiveTokens, MOST_CALLERS, MOST_SEGMENTS, Question, TokenCounter, count};
use crate::journal::{Draft, KeyLog, UseLog};

const USES: &str = "/log/uses";
const MINUTE: Duration = Duration::from_mins(1);

fn sign(kid: &str, caller: &str, exp: Timestamp) -> Draft {
    Draft { asked: Asked { caller: Some(caller.to_owned()), ..Asked::default() }, ..signed(kid, exp) }
}

fn is_segment(name: &str) -> bool {
    name.strip_suffix(".jsonl").is_some()
}

struct Log {
    disk: FakeDisk,
    clock: Arc<ManualClock>,
    uses: UseLog,
}

impl Log {
    fn new() -> Self {
        let (disk, clock) = (FakeDisk::default(), ManualClock::start());
        for kind in [LogKind::Keys, LogKind::Uses] {
            make(&in_small_segments(&disk, kind, &clock), kind);
        }
        let keys = KeyLog::open(&in_small_segments(&disk, LogKind::Keys, &clock)).unwrap().log;
        let uses = UseLog::open(&in_small_segments(&disk, LogKind::Uses, &clock), keys).unwrap().log;
        Self { disk, clock, uses }
    }

    /// A record a minute: each token lives for `life` minutes.
    async fn sign(&self, kid: &str, caller: &str, life: u32) {
        self.uses.append(sign(kid, caller, self.clock.wall() + MINUTE * life)).await.unwrap();
        self.clock.pass(MINUTE);
    }

    fn question(&self, back: u32) -> Question {
        let now = self.clock.wall();
        Question { kid: "stolen".to_owned(), now, since: now - MINUTE * back, size: self.uses.head().size }
    }

    fn count(&self, back: u32, most: usize) -> LiveTokens {
        count(&self.disk, Path::new(USES), &self.question(back), most)
    }

    fn segments(&self) -> usize {
        self.disk.list(Path::new(USES)).unwrap().iter().filter(|name| is_segment(name)).count()
    }
}

fn callers(counts: &[(&str, u64)]) -> BTreeMap<String, u64> {
    counts.iter().map(|(caller, count)| ((*caller).to_owned(), *count)).collect()
}

#[tokio::test]
async fn living_tokens_of_the_key_are_counted_by_caller() {
    let log = Log::new();
    // Minutes 0 to 11; the question comes at minute 12, and no token lives for longer than five.
    for minute in 0..12 {
        let kid = if minute % 3 == 2 { "other" } else { "stolen" };
        log.sign(kid, if minute % 2 == 0 { "even" } else { "odd" }, 5).await;
    }
    assert!(log.segments() > 3, "{}", log.segments());
    // Minutes 8 and 11 are the other key's; the token of minute 7 dies at this very moment.
    let expected = LiveTokens {
        count: 2,
        until: Some(Timestamp::from_seconds((log.clock.wall() + MINUTE * 3).seconds())),
        callers: callers(&[("odd", 1), ("even", 1)]),
        complete: true,
    };
    assert_eq!(log.count(6, MOST_SEGMENTS), expected);
    assert_eq!(TokenCounter::new(in_small_segments(&log.disk, LogKind::Uses, &log.clock)).count(log.question(6)).await, expected);
    // Further back there are none: reading the whole log gives the same.
    assert_eq!(log.count(1000, MOST_SEGMENTS), expected);
    let nobody = Question { kid: "unknown".to_owned(), ..log.question(6) };
    let none = LiveTokens { count: 0, until: None, callers: BTreeMap::new(), complete: true };
    assert_eq!(count(&log.disk, Path::new(USES), &nobody, MOST_SEGMENTS), none);
}

#[tokio::test]
async fn an_answer_that_may_miss_tokens_says_so() {
    let log = Log::new();
    for _ in 0..12 {
        log.sign("stolen", "a", 60).await;
    }
    let all = log.count(60, MOST_SEGMENTS);
    assert_eq!((all.count, all.complete), (12, true));
    // The newest segments alone.
    let some = log.count(60, 2);
    assert!((1..12).contains(&some.count) && !some.complete, "{some:?}");
    assert_eq!(log.count(60, log.segments()), all, "exactly as many as there are");
    // Where tokens are short-lived, two are enough: the record before the second says so.
    assert!(log.count(1, 2).complete);
    // A segment that is gone in the middle ends the count.
    let mut names = log.disk.list(Path::new(USES)).unwrap();
    names.retain(|name| is_segment(name));
    names.sort();
    log.disk.remove(&Path::new(USES).join(&names[2])).unwrap();
    let cut = log.count(60, MOST_SEGMENTS);
    assert!((1..12).contains(&cut.count) && !cut.complete, "{cut:?}");
    let nowhere = count(&log.disk, Path::new("/nowhere"), &log.question(60), MOST_SEGMENTS);
    assert!(nowhere.count == 0 && !nowhere.complete);
}

#[tokio::test]
async fn more_callers_than_can_be_told_apart_are_counted_all_the_same() {
    let log = Log::new();
    for number in 0..=MOST_CALLERS {
        log.uses.append(sign("stolen", &format!("c{number}"), log.clock.wall() + MINUTE)).await.unwrap();
    }
    let live = log.count(1, usize::MAX);
    assert_eq!((live.count, live.callers.len(), live.complete), (MOST_CALLERS as u64 + 1, MOST_CALLERS, false));
}
