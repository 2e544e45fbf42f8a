//! What the verifiers said of each token, and whether they were right to.
//!
//! In scope: each token judged twice by each library, and the judgement of every verdict against what was compromised, and when. Out of
//! scope: how a library verifies (`tests/verifiers`).

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{JoinHandle, spawn};
use std::time::Duration;

use claviger::clock::{Clock as _, SystemClock};
use serde_json::{Value, json};

use crate::harness::rest;
use crate::harness::verifiers::{Library, Verifier};

/// How long before its expiry a token is judged for the second time.
const LATE: i64 = 1000;
/// What a verifier allows for clocks that differ, as `clock_skew` says.
const LEEWAY: [&str; 2] = ["--leeway-seconds", "1"];
/// By default PyJWT keeps a set for 300 s and jose for 600 s, and `verifier_poll` is 600 s; here that is 1 s. Their rest of 30 s between
/// looks for an unknown kid is made endless: an unknown kid is never looked for, so that none can be overlooked.
const CACHING: [&str; 3] = ["--cache-seconds", "1", "--no-refetch"];

/// A token, and when it expires, in seconds.
#[derive(Clone)]
pub(crate) struct Signed {
    pub(crate) token: Arc<str>,
    pub(crate) kid: Arc<str>,
    pub(crate) exp: i64,
}

/// When a token is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    AtOnce,
    BeforeItExpires,
}

/// What one verifier said of one token, and between which times, in milliseconds.
pub(crate) struct Verdict {
    kid: Arc<str>,
    begun: i64,
    ended: i64,
    /// Why it was refused.
    refused: Option<Value>,
}

/// When a key was compromised: between the order and the answer, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Exposure {
    ordered: i64,
    done: i64,
}

/// The keys that were compromised.
#[derive(Default)]
pub(crate) struct Exposures(Mutex<BTreeMap<String, Exposure>>);

impl Exposures {
    /// Compromises a key by `order`, and keeps when.
    pub(crate) fn compromise(&self, kid: &str, order: impl FnOnce()) {
        let clock = SystemClock::start();
        let ordered = clock.wall().millis();
        order();
        let exposure = Exposure { ordered, done: clock.wall().millis() };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(kid.to_owned(), exposure);
    }

    fn of(&self, kid: &str) -> Option<Exposure> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(kid).copied()
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

/// One verifier at work.
struct Judge {
    library: Library,
    when: When,
    verdicts: JoinHandle<Vec<Verdict>>,
}

/// Both libraries, each judging every token twice.
pub(crate) struct Court {
    judges: Vec<Judge>,
    desks: Vec<Sender<Signed>>,
}

impl Court {
    /// Starts the verifiers, which follow the set at `url`.
    pub(crate) fn open(url: &str) -> Self {
        let mut court = Self { judges: Vec::new(), desks: Vec::new() };
        for library in [Library::PyJwt, Library::Jose] {
            for when in [When::AtOnce, When::BeforeItExpires] {
                let arguments = [&Verifier::for_tokens("ES256")[..], &CACHING, &LEEWAY].concat();
                let verifier = Verifier::start(library, url, &arguments);
                let (desk, tokens) = channel();
                court.desks.push(desk);
                court.judges.push(Judge { library, when, verdicts: spawn(move || judge_all(verifier, when, &tokens)) });
            }
        }
        court
    }

    /// Where each client hands in its tokens: once to each verifier.
    pub(crate) fn desks(&self) -> Vec<Sender<Signed>> {
        self.desks.clone()
    }

    /// Waits for the last verdicts; all clients have left.
    pub(crate) fn close(self) -> Vec<(Library, When, Vec<Verdict>)> {
        drop(self.desks);
        let join = |judge: Judge| (judge.library, judge.when, judge.verdicts.join().expect("a verifier's thread"));
        self.judges.into_iter().map(join).collect()
    }
}

fn judge_all(mut verifier: Verifier, when: When, tokens: &Receiver<Signed>) -> Vec<Verdict> {
    let clock = SystemClock::start();
    let mut verdicts = Vec::new();
    for signed in tokens {
        if when == When::BeforeItExpires {
            let left = signed.exp * 1000 - LATE - clock.wall().millis();
            rest(Duration::from_millis(u64::try_from(left).unwrap_or(0)));
        }
        let begun = clock.wall().millis();
        let answer = verifier.judge(&signed.token);
        let refused = (answer["ok"] != true).then_some(answer);
        verdicts.push(Verdict { kid: signed.kid, begun, ended: clock.wall().millis(), refused });
    }
    verdicts
}

/// What a verifier's verdicts come to.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Tokens that were accepted.
    pub(crate) accepted: usize,
    /// Tokens of compromised keys that were refused after the compromise.
    pub(crate) refused: usize,
    /// Whatever should not be, in words.
    pub(crate) wrong: Vec<String>,
}

/// A token is accepted; but for one of a compromised key, which is unknown at the latest `bound` (D + e) after the compromise, and never
/// refused before.
pub(crate) fn tally(verdicts: &[Verdict], exposures: &Exposures, bound: Duration) -> Tally {
    let bound = i64::try_from(bound.as_millis()).expect("a short span");
    let mut tally = Tally::default();
    for verdict in verdicts {
        match (&verdict.refused, exposures.of(&verdict.kid)) {
            (None, Some(exposure)) if verdict.begun > exposure.done + bound => {
                let late = verdict.begun - exposure.done;
                tally.wrong.push(format!("{} was trusted {late} ms after its compromise", verdict.kid));
            }
            (None, _) => tally.accepted += 1,
            (Some(answer), Some(exposure)) if answer["unknown_kid"] == true && verdict.ended >= exposure.ordered => tally.refused += 1,
            (Some(answer), exposure) => tally.wrong.push(format!("at {} with {exposure:?}: {answer}", verdict.begun)),
        }
    }
    tally
}

#[test]
fn a_verdict_is_wrong_unless_the_compromise_explains_it() {
    let exposures = Exposures(Mutex::new(BTreeMap::from([("stolen".to_owned(), Exposure { ordered: 1000, done: 1010 })])));
    let wrong = |kid: &str, (begun, ended): (i64, i64), refused: Option<Value>| {
        let verdict = Verdict { kid: kid.into(), begun, ended, refused };
        let tally = tally(&[verdict], &exposures, Duration::from_millis(100));
        assert_eq!(tally.accepted + tally.refused + tally.wrong.len(), 1);
        tally.wrong.len() == 1
    };
    let unknown = Some(json!({ "ok": false, "unknown_kid": true }));
    let expired = Some(json!({ "ok": false, "unknown_kid": false }));
    assert!(!wrong("sound", (5000, 5001), None));
    assert!(wrong("sound", (5000, 5001), unknown.clone()));
    // Trusted up to D + e after the compromise was done, and no longer.
    assert!(!wrong("stolen", (1110, 1120), None));
    assert!(wrong("stolen", (1111, 1120), None));
    // Unknown from the compromise on, not before, and for no other reason.
    assert!(!wrong("stolen", (990, 1000), unknown.clone()));
    assert!(wrong("stolen", (990, 999), unknown));
    assert!(wrong("stolen", (1200, 1201), expired));
}
