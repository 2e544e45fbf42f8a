//! What the verifiers said of each token, and whether they were right to.
//!
//! In scope: each token judged twice by each library, and the judgement of every verdict against what was compromised, and when. A machine
//! that is too busy to judge a token within its life says nothing about it; clients wait for the judges, so that few tokens are. Out of scope:
//! how a library verifies (`tests/verifiers`).

// Each test binary is compiled with its own copy, and uses its own part of it.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{JoinHandle, spawn};
use std::time::Duration;

use claviger::clock::{Clock as _, SystemClock};
use serde_json::{Value, json};

use crate::harness::rest;
use crate::harness::verifiers::{Library, Verifier};

/// What a verifier allows for clocks that differ, as `clock_skew` says.
const LEEWAY: [&str; 2] = ["--leeway-seconds", "1"];
/// How many wrong verdicts are told at most.
const TOLD: usize = 20;
/// How many tokens wait for a judge before the clients do.
const WAITING: usize = 64;

/// How the verifiers of a test behave.
pub(crate) struct Habits {
    /// How long each library keeps a set, in seconds. By default PyJWT keeps one for 300 s and jose for 600 s, and `verifier_poll` is 600 s;
    /// what stands here is that in the scale of the test. Their rest of 30 s between looks for an unknown kid is made endless: an unknown kid
    /// is never looked for, so that none can be overlooked.
    pub(crate) caches: [(Library, &'static str); 2],
    /// How long before its expiry a token is judged for the second time, in milliseconds.
    pub(crate) late: i64,
}

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
    exp: i64,
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
    desks: Desks,
}

/// Where a client hands in its tokens: once to each verifier. It waits while those that judge at once have much to do: then the others,
/// which have as much, keep up too.
#[derive(Clone, Default)]
pub(crate) struct Desks {
    at_once: Vec<SyncSender<Signed>>,
    before_expiry: Vec<Sender<Signed>>,
}

impl Desks {
    /// Hands in a token.
    pub(crate) fn hand_in(&self, signed: &Signed) {
        for desk in &self.before_expiry {
            desk.send(signed.clone()).expect("the verifier still reads");
        }
        for desk in &self.at_once {
            desk.send(signed.clone()).expect("the verifier still reads");
        }
    }
}

impl Court {
    /// Starts the verifiers, which follow the set at `url`.
    pub(crate) fn open(url: &str, habits: &Habits) -> Self {
        let mut court = Self { judges: Vec::new(), desks: Desks::default() };
        for (library, cache) in habits.caches {
            let caching = ["--cache-seconds", cache, "--no-refetch"];
            let arguments = [&Verifier::for_tokens("ES256")[..], &caching, &LEEWAY].concat();
            let start = || Verifier::start(library, url, &arguments);

            let (desk, tokens) = sync_channel(WAITING);
            court.desks.at_once.push(desk);
            let verifier = start();
            let verdicts = spawn(move || judge_all(verifier, None, &tokens));
            court.judges.push(Judge { library, when: When::AtOnce, verdicts });

            let (desk, tokens) = channel();
            court.desks.before_expiry.push(desk);
            let (verifier, late) = (start(), habits.late);
            let verdicts = spawn(move || judge_all(verifier, Some(late), &tokens));
            court.judges.push(Judge { library, when: When::BeforeItExpires, verdicts });
        }
        court
    }

    /// Where each client hands in its tokens.
    pub(crate) fn desks(&self) -> Desks {
        self.desks.clone()
    }

    /// Waits for the last verdicts; all clients have left.
    pub(crate) fn close(self) -> Vec<(Library, When, Vec<Verdict>)> {
        drop(self.desks);
        let join = |judge: Judge| (judge.library, judge.when, judge.verdicts.join().expect("a verifier's thread"));
        self.judges.into_iter().map(join).collect()
    }
}

/// Judges each token as it comes, or `late` milliseconds before it expires.
fn judge_all(mut verifier: Verifier, late: Option<i64>, tokens: &Receiver<Signed>) -> Vec<Verdict> {
    let clock = SystemClock::start();
    let mut verdicts = Vec::new();
    for signed in tokens {
        if let Some(late) = late {
            let left = signed.exp * 1000 - late - clock.wall().millis();
            rest(Duration::from_millis(u64::try_from(left).unwrap_or(0)));
        }
        let begun = clock.wall().millis();
        let answer = verifier.judge(&signed.token);
        let refused = (answer["ok"] != true).then_some(answer);
        verdicts.push(Verdict { kid: signed.kid, exp: signed.exp, begun, ended: clock.wall().millis(), refused });
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
    /// Tokens that were refused when they had expired: nobody had the time to judge them before.
    pub(crate) too_late: usize,
    /// Whatever should not be, in words.
    pub(crate) wrong: Vec<String>,
}

impl Tally {
    /// Panics with the first wrong verdicts, and where the machine was too slow for the test to say anything.
    pub(crate) fn assert_right(&self, who: &str) {
        assert!(self.wrong.is_empty(), "{who}: {:#?}", &self.wrong[..self.wrong.len().min(TOLD)]);
        let judged = self.accepted + self.refused;
        assert!(judged > self.too_late, "{who}: only {judged} tokens could be judged within their life, {} could not", self.too_late);
    }
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
            (Some(_), _) if verdict.ended >= verdict.exp * 1000 => tally.too_late += 1,
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
        let verdict = Verdict { kid: kid.into(), exp: 6, begun, ended, refused };
        let tally = tally(&[verdict], &exposures, Duration::from_millis(100));
        assert_eq!(tally.accepted + tally.refused + tally.too_late + tally.wrong.len(), 1);
        tally.wrong.len() == 1
    };
    let unknown = Some(json!({ "ok": false, "unknown_kid": true }));
    let expired = Some(json!({ "ok": false, "unknown_kid": false }));
    assert!(!wrong("sound", (5000, 5001), None));
    assert!(wrong("sound", (5000, 5001), unknown.clone()));
    // Of a token that nobody had the time to judge within its life, nothing can be said.
    assert!(wrong("sound", (5000, 5999), expired.clone()));
    assert!(!wrong("sound", (5000, 6000), expired.clone()));
    // Trusted up to D + e after the compromise was done, and no longer.
    assert!(!wrong("stolen", (1110, 1120), None));
    assert!(wrong("stolen", (1111, 1120), None));
    // Unknown from the compromise on, not before, and for no other reason.
    assert!(!wrong("stolen", (990, 1000), unknown.clone()));
    assert!(wrong("stolen", (990, 999), unknown));
    assert!(wrong("stolen", (1200, 1201), expired));
}
