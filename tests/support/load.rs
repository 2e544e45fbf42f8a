//! A constant load of tokens of one keyring, all judged by the independent verifiers (`court`), while something happens to the daemon.
//!
//! In scope: the clients, and how fast a keyring of such a test rotates: seconds where an operator would write minutes and days, and every
//! ratio that of the defaults. Out of scope: what happens (the test does it), and how a token is judged (`court`).

// Each test binary is compiled with its own copy, and uses its own part of it.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::court::{Court, Desks, Exposures, Habits, Signed, tally};
use crate::harness::verifiers::Library;
use crate::harness::{Client, Daemon, RaisedAtEnd, rest};

/// How long a client rests between two tokens: about twenty a second each.
const PACE: Duration = Duration::from_millis(50);
/// D = A + V + R = 4 s, lead = D + e = 5 s, overlap = deadline + T + 2e = 9 s. R is what a busy machine may need to hand a set on.
pub(crate) const SECONDS: &[(&str, &str)] = &[
    ("token_ttl", "5s"),
    ("jwks_max_age", "1s"),
    ("jwks_stale", "0s"),
    ("verifier_poll", "1s"),
    ("propagation", "2s"),
    ("clock_skew", "1s"),
    ("rotate_every", "7s"),
    ("provisioning_budget", "2s"),
    ("max_exposure", "20s"),
    ("destroy_after", "1s"),
];
/// `verifier_poll` is 1 s.
const HABITS: Habits = Habits { caches: [(Library::PyJwt, "0.5"), (Library::Jose, "1")], late: 300 };
/// No key is compromised here.
const NO_EXPOSURE: Duration = Duration::ZERO;

/// What the clients share.
#[derive(Default)]
pub(crate) struct Load {
    stop: AtomicBool,
    signed: AtomicUsize,
    kids: Mutex<BTreeMap<String, usize>>,
    /// Whether the daemon may say just now that a keystore does not answer.
    outage: AtomicBool,
    refused: AtomicUsize,
}

impl Load {
    /// How many tokens each key has signed so far.
    pub(crate) fn kids(&self) -> BTreeMap<String, usize> {
        self.kids.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many tokens a key has signed so far.
    pub(crate) fn signed_by(&self, kid: &str) -> usize {
        self.kids().get(kid).copied().unwrap_or_default()
    }

    /// Says whether clients may be refused from now on because a keystore does not answer; they may never otherwise.
    pub(crate) fn outage(&self, is_on: bool) {
        self.outage.store(is_on, Ordering::SeqCst);
    }

    /// How many were, so far.
    pub(crate) fn refused(&self) -> usize {
        self.refused.load(Ordering::SeqCst)
    }

    fn ask(&self, mut client: Client, keyring: &str, desks: &Desks) {
        while !self.stop.load(Ordering::SeqCst) {
            // Read before and after: an outage may begin or end under the request.
            let before = self.outage.load(Ordering::SeqCst);
            let answer = client.sign(keyring).expect("an answer");
            let outage = before || self.outage.load(Ordering::SeqCst);
            if outage && answer.status == 503 {
                let code = answer.problem(503);
                assert!(["keystore_unavailable", "overloaded"].contains(&code.as_str()), "{code}");
                self.refused.fetch_add(1, Ordering::SeqCst);
                rest(PACE);
                continue;
            }
            let reply = answer.ok();
            let [token, kid] = ["token", "kid"].map(|member| reply[member].as_str().expect("a text"));
            desks.hand_in(&Signed { token: token.into(), kid: kid.into(), exp: reply["exp"].as_i64().expect("a date") });
            *self.kids.lock().unwrap_or_else(PoisonError::into_inner).entry(kid.to_owned()).or_default() += 1;
            self.signed.fetch_add(1, Ordering::SeqCst);
            rest(PACE);
        }
    }
}

/// Loads the daemon with so many clients that ask for ES256 tokens of one keyring, for as long as `story` goes on; no token that was signed meanwhile is refused.
/// Gives how many tokens each key signed.
pub(crate) fn under_load(
    daemon: &mut Daemon,
    (keyring, clients): (&str, usize),
    story: impl FnOnce(&mut Daemon, &Load),
) -> BTreeMap<String, usize> {
    let load = Load::default();
    let court = Court::open(&daemon.url("/.well-known/jwks.json"), &HABITS);
    thread::scope(|scope| {
        let _stop = RaisedAtEnd(&load.stop);
        for _ in 0..clients {
            let (client, load, desks) = (daemon.demo(), &load, court.desks());
            scope.spawn(move || load.ask(client, keyring, &desks));
        }
        story(daemon, &load);
    });
    let signed = load.signed.load(Ordering::SeqCst);
    for (library, when, verdicts) in court.close() {
        tally(&verdicts, &Exposures::default(), NO_EXPOSURE).assert_right(&format!("{library:?}, {when:?}"));
        assert_eq!(verdicts.len(), signed, "{library:?}, {when:?}");
    }
    load.kids()
}
