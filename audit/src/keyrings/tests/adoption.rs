//! A log that goes on where another one ended.
//!
//! In scope: what is carried over, and what the first two records must say. Out of scope: reading the log before.

use super::super::*;
use super::log::{Log, resumed, start};
use crate::event::{Event, KeyCompromised, KeyRotated, LogAdopted, LogCreated, UsesHead};
use crate::keyrings::Rule;

const ROOT: Hash = Hash::from_bytes([9; 32]);

fn created(origin: &str) -> Event {
    Event::LogCreated(LogCreated {
        origin: origin.into(),
        key: "key".into(),
        keystore: "hsm".into(),
        locator: "0".into(),
        installation: "prod".into(),
        version: "0".into(),
    })
}

fn adopted(size: u64) -> LogAdopted {
    LogAdopted { origin: "example.org/claviger/keys".into(), size, root: ROOT, lost: 2, reason: None }
}

/// A keyring whose first key signed in a log that ended, and the log that goes on.
fn going_on() -> (Log, u64) {
    let mut log = Log::standing();
    let size = log.keyrings.size();
    log.keyrings = log.keyrings.carried_over(ROOT);
    log.ok(created("example.org/claviger/keys/adopted-2"));
    log.ok(Event::LogAdopted(adopted(size)));
    (log, size)
}

#[test]
fn no_key_signs_until_it_is_resumed() {
    let (mut log, _) = going_on();
    assert_eq!(log.states(), [State::Suspended, State::Published]);
    let first = |log: &Log| log.tokens().keys[0].clone();
    // No size that a signature may name finds it active.
    assert_eq!([0, 1, 2].map(|size| first(&log).state_at(size)), [None, Some(State::Suspended), Some(State::Suspended)]);
    assert_eq!(log.tokens().keys[1].state_at(1), Some(State::Published));
    log.ok(resumed(1));
    assert_eq!((first(&log).state_at(2), first(&log).state_at(3)), (Some(State::Suspended), Some(State::Active)));
}

#[test]
fn settings_sets_and_dates_are_carried_over() {
    let before = Log::standing();
    let (mut log, _) = going_on();
    assert_eq!(log.keyrings.size(), 2);
    assert_eq!(log.tokens().timing().map(|settings| settings.seq), Some(0));
    assert_eq!(log.tokens().next_rotation, before.tokens().next_rotation);
    let visible = |log: &Log| log.keyrings.visible(log.tokens(), &log.tokens().keys[1]);
    assert_eq!((visible(&log), visible(&log).is_some()), (visible(&before), true));
    // What is served is counted by the new log's size, and a rotation names settings of before as number 0.
    log.serve();
    log.now = log.now + 30 * super::log::DAY;
    assert_eq!(log.refused(Event::KeyRotated(KeyRotated { timing: super::log::TIMING, ..log.rotation(2) })).0, Rule::I8);
    log.ok(Event::KeyRotated(KeyRotated { timing: 0, ..log.rotation(2) }));
    assert_eq!(log.states(), [State::Retiring, State::Active]);
    let promoted = KeyCompromised { timing: 0, ..super::log::compromise(2, log.now) };
    log.ok(Event::KeyCompromised(promoted));
}

#[test]
fn the_first_two_records_name_the_log_before() {
    let (_, size) = going_on();
    let ended = || {
        let mut log = Log::standing();
        log.keyrings = log.keyrings.carried_over(ROOT);
        log
    };
    for origin in ["example.org/claviger/keys", "example.org/other/keys/adopted-2", "example.org/claviger/keys/adopted-1"] {
        assert_eq!(ended().refused(created(origin)).0, Rule::Form, "{origin}");
    }
    let mut log = ended();
    log.ok(created("example.org/claviger/keys/adopted-2"));
    assert_eq!(log.refused(start()).0, Rule::Form);
    for wrong in [
        LogAdopted { origin: "example.org/claviger/uses".into(), ..adopted(size) },
        adopted(size - 1),
        LogAdopted { root: Hash::from_bytes([8; 32]), ..adopted(size) },
    ] {
        assert_eq!(log.refused(Event::LogAdopted(wrong.clone())).0, Rule::Form, "{wrong:?}");
    }
    log.ok(Event::LogAdopted(adopted(size)));
    assert_eq!(log.refused(Event::LogAdopted(adopted(size))).0, Rule::Form);
    // Time goes on as well.
    let mut log = ended();
    log.now = Timestamp::from_seconds(1);
    assert_eq!(log.refused(created("example.org/claviger/keys/adopted-2")).0, Rule::I12);
    // Without the log before there is no state to go on with.
    let mut log = Log { keyrings: Keyrings::default(), ..Log::new() };
    assert_eq!(log.refused(created("example.org/claviger/keys/adopted-2")).0, Rule::Form);
    assert_eq!(Log::new().refused(Event::LogAdopted(adopted(1))).0, Rule::Form);
}

#[test]
fn a_use_log_may_be_followed_by_one_that_adopted_it_and_by_no_other() {
    let mut log = Log::new();
    let head = |origin: &str, size| Event::UsesHead(UsesHead { of: "a".into(), origin: origin.into(), size, root: ROOT });
    log.ok(head("x/uses", 10));
    assert_eq!(log.refused(head("x/uses", 9)).0, Rule::Form);
    assert_eq!(log.refused(head("y/uses", 11)).0, Rule::Form);
    log.ok(head("x/uses/adopted-3", 2));
    assert_eq!(log.refused(head("x/uses/adopted-2", 20)).0, Rule::Form);
    assert_eq!(log.refused(head("x/uses", 20)).0, Rule::Form);
    assert_eq!(log.keyrings.uses_heads()["a"].1.size, 2);
}
