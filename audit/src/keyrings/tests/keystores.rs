//! Keystores that failed, and keys that are not what they were: what is legal, and that none of it changes a state.
//!
//! In scope: the rules and what is remembered. Out of scope: how a key is compared with its record.

use super::super::*;
use super::log::{DAY, LEAD, Log, OVERLAP, abandoned, compromise, created, import, jwk, kid, requested, resumed, suspended};
use crate::event::{Event, KeyCompromised, KeyConforms, KeyDrifted, KeyImported, KeyWithdrawn, KeystoreReopened, KeystoreWedged};
use crate::keyrings::Rule;

fn drifted(number: u32, found: &str) -> Event {
    Event::KeyDrifted(KeyDrifted { keyring: "tokens".into(), kid: kid(number), found: found.into() })
}

fn conforms(number: u32) -> Event {
    Event::KeyConforms(KeyConforms { keyring: "tokens".into(), kid: kid(number) })
}

fn drifts(log: &Log) -> Vec<Option<&str>> {
    log.tokens().keys.iter().map(|key| key.drift.as_ref().map(|drift| drift.found.as_str())).collect()
}

#[test]
fn a_drift_is_told_once_and_taken_back_once() {
    let mut log = Log::standing();
    let before = log.states();
    assert_eq!(log.refused(conforms(1)).0, Rule::Form);
    let since = log.now;
    log.ok(drifted(1, "sign is false, was true"));
    assert_eq!(log.refused(drifted(1, "sign is false, was true")).0, Rule::Form);
    log.now = log.now + DAY;
    log.ok(drifted(1, "it is gone"));
    log.ok(drifted(2, "it is gone"));
    let known = |log: &Log| log.tokens().keys.iter().map(|key| key.drift.as_ref().map(|drift| drift.since)).collect::<Vec<_>>();
    assert_eq!(known(&log), [Some(since), Some(log.now)]);
    assert_eq!(drifts(&log), [Some("it is gone"), Some("it is gone")]);
    log.ok(conforms(1));
    assert_eq!(log.refused(conforms(1)).0, Rule::Form);
    assert_eq!(drifts(&log), [None, Some("it is gone")]);
    // After it conformed, the same is news again.
    log.ok(drifted(1, "it is gone"));
    assert_eq!(log.states(), before);
    // It signs on, and the next one may take over, drifted or not.
    log.now = log.now + LEAD;
    log.ok(Event::KeyRotated(log.rotation(2)));
}

#[test]
fn what_was_found_is_one_line_about_a_key_of_the_keyring() {
    let mut log = Log::standing();
    let longest = "x".repeat(2_048);
    for wrong in ["", " ", "two\nlines", "\u{7}", &format!("{longest}x")] {
        assert_eq!(log.refused(drifted(1, wrong)).0, Rule::Form, "{wrong:?}");
    }
    assert_eq!(log.refused(drifted(9, "it is gone")).0, Rule::Form);
    let elsewhere = KeyDrifted { keyring: "other".into(), kid: kid(1), found: "it is gone".into() };
    assert_eq!(log.refused(Event::KeyDrifted(elsewhere)).0, Rule::Form);
    log.ok(drifted(1, &longest));
    let elsewhere = KeyConforms { keyring: "other".into(), kid: kid(1) };
    assert_eq!(log.refused(Event::KeyConforms(elsewhere)).0, Rule::Form);
}

#[test]
fn keys_that_may_sign_or_are_trusted_are_to_conform() {
    let mut log = Log::standing();
    let to_conform = |log: &Log| log.tokens().keys.iter().map(Key::is_to_conform).collect::<Vec<_>>();
    log.ok(requested(3));
    assert_eq!(to_conform(&log), [true, true, false]);
    log.ok(created(3));
    log.ok(drifted(3, "created"));
    log.ok(drifted(2, "published"));
    log.ok(drifted(1, "active"));
    log.ok(suspended(1));
    log.ok(drifted(1, "suspended"));
    log.ok(resumed(1));
    log.now = log.now + LEAD;
    log.ok(Event::KeyRotated(log.rotation(2)));
    log.ok(drifted(1, "retiring"));
    // An imported key is in no keystore.
    log.ok(Event::KeyImported(KeyImported { jwk: jwk(7), ..import(0, log.now + DAY) }));
    let imported = KeyDrifted { keyring: "tokens".into(), kid: "old-0".into(), found: "it is gone".into() };
    assert_eq!(log.refused(Event::KeyDrifted(imported)).0, Rule::Form);
    assert_eq!(to_conform(&log), [true, true, true, false]);
    // What is over is over, and what it had become stays known.
    log.now = log.now + OVERLAP;
    log.ok(Event::KeyWithdrawn(KeyWithdrawn { kid: kid(1), destroy_after: log.now + 7 * DAY }));
    log.ok(abandoned(3));
    let stolen = KeyCompromised { since: log.now, ..compromise(2, log.now) };
    log.ok(Event::KeyCompromised(stolen));
    assert_eq!(to_conform(&log), [false; 4]);
    for number in 1..=3 {
        assert_eq!(log.refused(drifted(number, "news")).0, Rule::I11, "{number}");
        assert_eq!(log.refused(conforms(number)).0, Rule::I11, "{number}");
    }
    assert_eq!(drifts(&log), [Some("retiring"), Some("published"), Some("created"), None]);
}

#[test]
fn what_is_opened_again_is_counted_and_has_a_reason() {
    let mut log = Log::standing();
    let reopened = |sessions, logins, modules, reason: &str| {
        let (keystore, reason) = ("hsm".to_owned(), reason.to_owned());
        Event::KeystoreReopened(KeystoreReopened { keystore, sessions, logins, modules, reason })
    };
    assert_eq!(log.refused(reopened(0, 0, 0, "the token was taken out")).0, Rule::Form);
    assert_eq!(log.refused(reopened(1, 0, 0, " ")).0, Rule::Form);
    for (sessions, logins, modules) in [(1, 0, 0), (0, 1, 0), (0, 0, 1), (3, 2, 1)] {
        log.ok(reopened(sessions, logins, modules, "the token was taken out"));
    }
}

#[test]
fn each_node_remembers_when_it_last_gave_a_keystore_up() {
    let mut log = Log::standing();
    let wedged = |keystore: &str, hung| Event::KeystoreWedged(KeystoreWedged { keystore: keystore.into(), hung });
    assert_eq!(log.refused(wedged("hsm", 0)).0, Rule::Form);
    assert_eq!(log.keyrings.last_wedged("a"), None);
    log.ok(wedged("hsm", 4));
    log.now = log.now + DAY;
    log.ok(wedged("other", 1));
    let last = Wedged { keystore: "other".into(), time: log.now };
    assert_eq!(log.keyrings.last_wedged("a"), Some(&last));
    assert_eq!(log.keyrings.last_wedged("b"), None);
    // Signing is for its own records to stop.
    assert_eq!(log.states(), [State::Active, State::Published]);
}
