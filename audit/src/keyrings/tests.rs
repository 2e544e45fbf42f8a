//! The transition table: the happy life of a keyring, and each rule refused by its name.
//!
//! Every refusal here is also checked to leave the state as it was.

use super::*;
use crate::event::{
    ClockConfirmed, DaemonStop, Event, JwksServed, KeyCompromised, KeyCreated, KeyImported, KeyPublished, KeyRequested, KeyRotated,
    KeyWithdrawn, KeyringChanged, KeyringTiming, LogCreated, RotationReason, SubjectErased, UsesPruned,
};
use crate::record::Record;
use crate::timing::tests::defaults;

use log::*;

mod adoption;
mod keystores;
mod log;

#[test]
fn the_happy_life_of_a_keyring() {
    let mut log = Log::standing();
    assert_eq!(log.states(), [State::Active, State::Published]);
    assert_eq!(log.keyrings.visible(log.tokens(), &log.tokens().keys[1]), Some(log.now));

    log.now = log.now + 30 * DAY;
    log.ok(Event::KeyRotated(KeyRotated { reason: RotationReason::Scheduled, ..log.rotation(2) }));
    log.publish(3);
    log.serve();
    assert_eq!(log.states(), [State::Retiring, State::Active, State::Published]);
    let rotated_at = log.now;

    log.now = log.now + OVERLAP;
    log.ok(Event::KeyWithdrawn(KeyWithdrawn { kid: kid(1), destroy_after: log.now + 7 * DAY }));
    log.serve();
    log.now = log.now + 7 * DAY;
    log.ok(destroyed(1));

    let first = &log.tokens().keys[0];
    let story: Vec<State> = first.history.iter().map(|(_, _, state)| *state).collect();
    let expected = [State::Requested, State::Created, State::Published, State::Active, State::Retiring, State::Withdrawn, State::Destroyed];
    assert_eq!(story, expected);
    assert_eq!(first.stopped, Some(rotated_at));
    assert_eq!(first.state_at(first.history[3].0 + 1), Some(State::Active));
    assert_eq!(first.state_at(first.history[3].0), Some(State::Published));
}

#[test]
fn i1_publish_before_use() {
    let mut log = Log::standing();
    let eligible = log.now + LEAD;
    assert_eq!(log.refused(Event::KeyRotated(log.rotation(2))), (Rule::I1, Some(eligible)));
    let bootstrap = KeyRotated { reason: RotationReason::Bootstrap, ..log.rotation(2) };
    assert_eq!(log.refused(Event::KeyRotated(bootstrap)).0, Rule::I1);
    // To force takes an operator's reason, and only an operator may.
    for (reason, forced, note) in [
        (RotationReason::OnDemand, true, None),
        (RotationReason::OnDemand, true, Some(" ")),
        (RotationReason::OnDemand, false, Some("drill")),
        (RotationReason::Scheduled, true, Some("drill")),
        (RotationReason::Bootstrap, true, Some("drill")),
    ] {
        let rotation = KeyRotated { reason, forced, note: note.map(str::to_owned), ..log.rotation(2) };
        assert_eq!(log.refused(Event::KeyRotated(rotation)).0, Rule::I1, "{reason:?} {forced} {note:?}");
    }
    // A compromise promotes the standby if, and only if, it has aged.
    let promoted = KeyCompromised { to: Some(kid(2)), next_rotation: Some(log.now + 30 * DAY), ..compromise(1, log.now) };
    assert_eq!(log.refused(Event::KeyCompromised(promoted)).0, Rule::I1);
    log.now = eligible - MILLI;
    assert_eq!(log.refused(Event::KeyRotated(log.rotation(2))), (Rule::I1, Some(eligible)));
    log.now = eligible;
    assert_eq!(log.refused(Event::KeyCompromised(compromise(1, log.now))).0, Rule::I1);
    log.ok(Event::KeyRotated(log.rotation(2)));

    // The promised date itself.
    log.ok(requested(3));
    log.ok(created(3));
    let early = KeyPublished { kid: kid(3), earliest_activation: log.now + LEAD - MILLI, timing: TIMING };
    assert_eq!(log.refused(Event::KeyPublished(early)).0, Rule::I1);
    // A key that nobody has served has no age.
    log.ok(log.publication(3));
    log.now = log.now + DAY;
    assert_eq!(log.refused(Event::KeyRotated(log.rotation(3))), (Rule::I1, None));
}

#[test]
fn i1_holds_by_every_node_that_may_still_serve() {
    let mut log = Log::standing();
    log.node = "b";
    log.ok(start());
    log.now = log.now + DAY;
    assert_eq!(log.refused(Event::KeyRotated(log.rotation(2))), (Rule::I1, None));
    log.ok(Event::DaemonStop(DaemonStop { reason: "scaled down".into() }));
    // Its last answer may be in a cache, so its stop counts.
    assert_eq!(log.refused(Event::KeyRotated(log.rotation(2))), (Rule::I1, Some(log.now + LEAD)));
    log.now = log.now + LEAD;
    log.ok(Event::KeyRotated(log.rotation(2)));
}

#[test]
fn settings_that_cannot_hold_are_refused_by_their_rule() {
    let mut log = Log::with_keyring();
    for (rule, timing) in [
        (Rule::I1, Timing { clock_skew_ms: 999, ..defaults() }),
        (Rule::I2, Timing { token_ttl_ms: 999, ..defaults() }),
        (Rule::I4, Timing { max_exposure_ms: 939_999, ..defaults() }),
        (Rule::I5, Timing { rotate_every_ms: 1_539_999, ..defaults() }),
        (Rule::I8, Timing { destroy_after_ms: u64::MAX, ..defaults() }),
    ] {
        assert_eq!(log.refused(Event::KeyringTiming(KeyringTiming { keyring: "tokens".into(), timing })).0, rule);
    }
}

#[test]
fn i3_a_key_stays_until_its_last_token_is_dead() {
    let mut log = Log::standing();
    log.now = log.now + LEAD;
    let early = KeyRotated { withdraw_after: Some(log.now + OVERLAP - MILLI), ..log.rotation(2) };
    assert_eq!(log.refused(Event::KeyRotated(early)).0, Rule::I3);
    assert_eq!(log.refused(retired(Some(log.now + OVERLAP - MILLI))).0, Rule::I3);
    log.ok(Event::KeyRotated(log.rotation(2)));
    let date = log.now + OVERLAP;
    log.now = date - MILLI;
    let withdrawn = |now: Timestamp| Event::KeyWithdrawn(KeyWithdrawn { kid: kid(1), destroy_after: now + 7 * DAY });
    assert_eq!(log.refused(withdrawn(log.now)), (Rule::I3, Some(date)));
    log.now = date;
    log.ok(withdrawn(date));
}

#[test]
fn i3_counts_the_longest_token_life_while_the_key_could_sign() {
    let mut log = Log::with_keyring();
    let longer = Timing { token_ttl_ms: 3_600_000, ..defaults() };
    log.ok(Event::KeyringTiming(KeyringTiming { keyring: "tokens".into(), timing: longer }));
    let long = log.keyrings.size() - 1;
    log.ok(requested(1));
    log.ok(created(1));
    log.ok(Event::KeyPublished(KeyPublished { kid: kid(1), earliest_activation: log.now + LEAD, timing: long }));
    log.ok(Event::KeyRotated(KeyRotated { reason: RotationReason::Bootstrap, timing: long, ..log.rotation(1) }));
    log.now = log.now + DAY;
    log.ok(Event::KeyringTiming(KeyringTiming { keyring: "tokens".into(), timing: defaults() }));
    log.now = log.now + DAY;
    let least = log.now + OVERLAP + Duration::from_mins(45);
    assert_eq!(log.refused(retired(Some(least - MILLI))).0, Rule::I3);
    log.ok(retired(Some(least)));
}

#[test]
fn i6_no_set_outgrows_its_readers() {
    let mut log = Log::standing();
    let until = log.now + DAY;
    for index in 0..98 {
        log.ok(Event::KeyImported(import(index, until)));
    }
    assert_eq!(log.refused(Event::KeyImported(import(98, until))).0, Rule::I6);
    log.ok(requested(3));
    log.ok(created(3));
    assert_eq!(log.refused(log.publication(3)).0, Rule::I6);
    assert_eq!(log.refused(requested(4)).0, Rule::I6);
}

#[test]
fn what_is_served_is_what_the_events_make() {
    let mut log = Log::with_keyring();
    assert_eq!(log.refused(Event::JwksServed(log.served("issuer/main"))).0, Rule::I10);
    let mut log = Log::standing();
    let served = log.served("issuer/main");
    assert_eq!(log.refused(Event::JwksServed(JwksServed { size: served.size - 3, ..served.clone() })).0, Rule::I7);
    assert_eq!(log.refused(Event::JwksServed(JwksServed { size: served.size + 1, ..served.clone() })).0, Rule::Form);
    assert_eq!(log.refused(Event::JwksServed(JwksServed { sha256: Hash::from([0; 32]), ..served.clone() })).0, Rule::I9);
    for set in ["issuer/other", "tokens"] {
        assert_eq!(log.refused(Event::JwksServed(JwksServed { set: set.into(), ..served.clone() })).0, Rule::Form);
    }
}

#[test]
fn i8_the_settings_in_force_decide_and_dates_only_move_later() {
    let mut log = Log::new();
    log.ok(keyring("tokens"));
    assert_eq!(log.refused(requested(1)).0, Rule::I8);
    let mut log = Log::standing();
    log.now = log.now + LEAD;
    let (due, rotation) = (log.tokens().next_rotation, log.rotation(2));
    let scheduled = KeyRotated { reason: RotationReason::Scheduled, ..rotation.clone() };
    assert_eq!(log.refused(Event::KeyRotated(scheduled)), (Rule::I8, due));
    assert_eq!(log.refused(Event::KeyRotated(KeyRotated { timing: TIMING + 1, ..rotation.clone() })).0, Rule::I8);
    let soon = KeyRotated { next_rotation: log.now + 30 * DAY - MILLI, ..rotation };
    assert_eq!(log.refused(Event::KeyRotated(soon)).0, Rule::I8);
    log.ok(Event::KeyRotated(log.rotation(2)));
    log.now = log.now + OVERLAP;
    let grace = KeyWithdrawn { kid: kid(1), destroy_after: log.now + 7 * DAY - MILLI };
    assert_eq!(log.refused(Event::KeyWithdrawn(grace)).0, Rule::I8);
}

#[test]
fn i8_a_lowered_lead_counts_only_after_the_old_one() {
    let mut log = Log::standing();
    log.now = log.now + DAY;
    let lowered = Timing { verifier_poll_ms: 60_000, ..defaults() };
    let lead = lowered.lead();
    log.ok(Event::KeyringTiming(KeyringTiming { keyring: "tokens".into(), timing: lowered }));
    let changed = log.now;
    assert_eq!(log.tokens().lead_at(changed + LEAD - MILLI), LEAD);
    assert_eq!(log.tokens().lead_at(changed + LEAD), lead);
    // A node comes late: the key became visible under the old lead, which stops counting before it has passed.
    let in_force = log.keyrings.size() - 1;
    log.node = "b";
    log.ok(start());
    log.now = log.now + Duration::from_mins(10);
    log.serve();
    let rotation = KeyRotated { timing: in_force, ..log.rotation(2) };
    assert_eq!(log.refused(Event::KeyRotated(rotation)), (Rule::I1, Some(log.now + lead)));
}

#[test]
fn i11_states_come_in_order() {
    let mut log = Log::standing();
    let now = log.now;
    let withdrawn = |number| Event::KeyWithdrawn(KeyWithdrawn { kid: kid(number), destroy_after: now + 7 * DAY });
    for event in [
        Event::KeyCreated(KeyCreated { key: name(1), ..creation(9) }),
        log.publication(1),
        withdrawn(1),
        withdrawn(2),
        destroyed(1),
        destroyed(2),
        abandoned(1),
        resumed(1),
        suspended(2),
        Event::KeyRotated(log.rotation(1)),
        Event::KeyRotated(KeyRotated { from: None, withdraw_after: None, ..log.rotation(2) }),
        Event::KeyRotated(KeyRotated { from: Some(kid(2)), ..log.rotation(2) }),
    ] {
        assert_eq!(log.refused(event.clone()).0, Rule::I11, "{event:?}");
    }
    log.ok(suspended(1));
    log.now = log.now + 31 * DAY;
    let scheduled = KeyRotated { reason: RotationReason::Scheduled, ..log.rotation(2) };
    assert_eq!(log.refused(Event::KeyRotated(scheduled)).0, Rule::I11);
    log.ok(resumed(1));
    log.ok(Event::KeyRotated(log.rotation(2)));
    log.now = log.now + OVERLAP;
    log.ok(Event::KeyWithdrawn(KeyWithdrawn { kid: kid(1), destroy_after: log.now + 7 * DAY }));
    assert_eq!(log.refused(destroyed(1)), (Rule::I11, Some(log.now + 7 * DAY)));
    log.now = log.now + 7 * DAY;
    log.ok(destroyed(1));
    assert_eq!(log.refused(Event::KeyCompromised(compromise(1, log.now))).0, Rule::I11);
}

#[test]
fn i12_time_never_goes_back() {
    let mut log = Log::standing();
    log.now = log.now - MILLI;
    assert_eq!(log.refused(start()).0, Rule::I12);
}

#[test]
fn a_compromise_ends_a_key_at_once() {
    let mut log = Log::standing();
    log.now = log.now + LEAD;
    let promoted = KeyCompromised { to: Some(kid(2)), next_rotation: Some(log.now + 30 * DAY), ..compromise(1, log.now) };
    assert_eq!(log.refused(Event::KeyCompromised(KeyCompromised { next_rotation: None, ..promoted.clone() })).0, Rule::Form);
    assert_eq!(log.refused(Event::KeyCompromised(KeyCompromised { since: log.now + DAY, ..promoted.clone() })).0, Rule::Form);
    assert_eq!(log.refused(Event::KeyCompromised(KeyCompromised { reason: " ".into(), ..promoted.clone() })).0, Rule::Form);
    log.ok(Event::KeyCompromised(promoted));
    assert_eq!(log.states(), [State::Compromised, State::Active]);
    assert_eq!(log.tokens().keys[0].stopped, Some(log.now));
    assert_eq!(log.refused(Event::KeyCompromised(compromise(1, log.now))).0, Rule::I11);
    log.ok(destroyed(1));
    // A standby that never signed did not stop, and nobody follows it.
    log.publish(3);
    log.ok(Event::KeyCompromised(compromise(3, log.now)));
    assert_eq!((log.tokens().keys[2].state, log.tokens().keys[2].stopped), (State::Compromised, None));
    // Without a standby nobody signs.
    log.ok(Event::KeyCompromised(compromise(2, log.now)));
    assert!(log.tokens().current().is_none() && log.tokens().next_rotation.is_none());
}

#[test]
fn a_standby_of_the_new_settings_comes_before_the_old_one() {
    let mut log = Log::standing();
    let changed =
        KeyringChanged { keyring: "tokens".into(), algorithm: Algorithm::EdDSA, keystore: "vault".into(), standby_keystore: None };
    log.ok(Event::KeyringChanged(changed));
    let Event::KeyRequested(request) = requested(3) else { panic!("a request") };
    log.ok(Event::KeyRequested(KeyRequested { keystore: "vault".into(), ..request }));
    log.ok(created(3));
    log.ok(log.publication(3));
    log.now = log.now + DAY;
    let standby = |log: &Log| log.keyrings.eligible_standby(log.tokens(), log.now).and_then(|key| key.kid.clone());
    assert_eq!(standby(&log), Some(kid(2)));
    log.serve();
    log.now = log.now + LEAD;
    assert_eq!(standby(&log), Some(kid(3)));
}

/// The keystore of the next key follows from where the key that signs lives.
#[test]
fn with_two_keystores_a_standby_fits_where_the_signer_is_not() {
    let mut log = Log::standing();
    let changed = |keystore: &str, standby: Option<&str>| {
        let (keystore, standby_keystore) = (keystore.to_owned(), standby.map(str::to_owned));
        Event::KeyringChanged(KeyringChanged { keyring: "tokens".into(), algorithm: Algorithm::EdDSA, keystore, standby_keystore })
    };
    assert_eq!(log.refused(changed("hsm", Some("hsm"))).0, Rule::Form);
    let fitting = |log: &Log| log.tokens().keys.iter().map(|key| log.tokens().fits(key)).collect::<Vec<_>>();
    for (keystore, standby, next, beside) in [
        ("hsm", None, "hsm", true),
        ("hsm", Some("vault"), "vault", false),
        ("vault", Some("hsm"), "vault", false),
        ("vault", Some("kms"), "vault", false),
    ] {
        log.ok(changed(keystore, standby));
        // Both keys live in `hsm`, the first of them signs.
        assert_eq!((log.tokens().next_keystore(), fitting(&log)), (next, vec![beside; 2]), "{keystore} {standby:?}");
    }
    // While nobody signs, either keystore will do.
    for kid in [2, 1] {
        log.ok(changed("vault", Some("hsm")));
        log.ok(Event::KeyCompromised(compromise(kid, log.now)));
    }
    assert_eq!((log.tokens().next_keystore(), fitting(&log)), ("vault", vec![true; 2]));
    log.ok(changed("vault", Some("kms")));
    assert_eq!(fitting(&log), [false; 2]);
}

#[test]
fn names_kids_and_members_fit_the_records_before() {
    let mut log = Log::standing();
    let gap = Record { seq: log.keyrings.size() + 1, ..log.record(start()) };
    assert_eq!(log.refused_record(&gap).0, Rule::Form);
    let genesis = Event::LogCreated(LogCreated {
        origin: "example.org/claviger/keys".into(),
        key: "key".into(),
        keystore: "hsm".into(),
        locator: "0".into(),
        installation: "prod".into(),
        version: "0".into(),
    });
    assert_eq!(log.refused(genesis).0, Rule::Form);
    for name in ["tokens", "log", "Tokens", ""] {
        assert_eq!(log.refused(keyring(name)).0, Rule::Form, "{name}");
    }
    // A number that is not the next one, a name that was used, a kid that is no thumbprint, a kid that is known.
    for number in [1, 2, 4] {
        assert_eq!(log.refused(requested(number)).0, Rule::Form);
    }
    log.ok(requested(3));
    assert_eq!(log.refused(Event::KeyCreated(KeyCreated { kid: "other".into(), ..creation(3) })).0, Rule::Form);
    assert_eq!(log.refused(Event::KeyCreated(KeyCreated { kid: kid(1), jwk: jwk(1), ..creation(3) })).0, Rule::Form);
    assert_eq!(log.refused(created(4)).0, Rule::Form);
    assert_eq!(log.refused(Event::KeyImported(KeyImported { kid: kid(1), ..import(0, log.now + DAY) })).0, Rule::Form);
    assert_eq!(log.refused(Event::KeyImported(import(0, log.now))).0, Rule::Form);
}

#[test]
fn a_retired_keyring_takes_nothing_more() {
    let mut log = Log::standing();
    log.ok(requested(3));
    log.ok(created(3));
    assert_eq!(log.refused(retired(None)).0, Rule::Form);
    log.ok(retired(Some(log.now + OVERLAP)));
    assert_eq!(log.states()[0], State::Retiring);
    log.now = log.now + DAY;
    for event in [
        requested(4),
        log.publication(3),
        Event::KeyRotated(log.rotation(2)),
        Event::KeyringTiming(KeyringTiming { keyring: "tokens".into(), timing: defaults() }),
        retired(None),
        keyring("tokens"),
    ] {
        assert_eq!(log.refused(event.clone()).0, Rule::Form, "{event:?}");
    }
    log.ok(abandoned(2));
    log.ok(destroyed(2));
}

#[test]
fn only_what_is_known_is_pruned_and_nothing_twice() {
    let mut log = Log::standing();
    let pruned = |first| {
        let (of, origin, reason) = ("a".into(), "example.org/claviger/uses/a".into(), "old".into());
        Event::UsesPruned(UsesPruned { of, origin, first, root: Hash::from([0; 32]), before: Timestamp::default(), reason })
    };
    assert_eq!(log.refused(pruned(5)).0, Rule::Form, "no head of the log is known");
    let head = UsesHead { of: "a".into(), origin: "example.org/claviger/uses/a".into(), size: 10, root: Hash::from([0; 32]) };
    log.ok(Event::UsesHead(UsesHead { of: "b".into(), ..head.clone() }));
    assert_eq!(log.refused(pruned(5)).0, Rule::Form, "the head of another node");
    log.ok(Event::UsesHead(head));
    assert_eq!(log.refused(pruned(0)).0, Rule::Form);
    assert_eq!(log.refused(pruned(11)).0, Rule::Form);
    log.ok(pruned(5));
    assert_eq!(log.refused(pruned(5)).0, Rule::Form);
    log.ok(pruned(10));
    let erased = |of: &str, year| Event::SubjectErased(SubjectErased { of: of.into(), year, reason: "asked to".into() });
    log.ok(erased("a", 2026));
    assert_eq!(log.refused(erased("a", 2026)).0, Rule::Form);
    log.ok(erased("b", 2026));
    log.ok(erased("a", 2027));
}

#[test]
fn a_clock_is_confirmed_with_a_reason() {
    let mut log = Log::standing();
    let confirmed = |reason: &str| Event::ClockConfirmed(ClockConfirmed { difference_ms: 40_000, reason: reason.into() });
    assert_eq!(log.refused(confirmed(" ")).0, Rule::Form);
    log.ok(confirmed("the time server was right"));
}
