//! Each return value, in each function that the adapter calls: what the caller is told, how often the function is called, and that the
//! keystore signs with the right key afterwards.
//!
//! In scope: faults that come once, twice and always, each lost (the call was not performed) and persisted anyway. Out of scope: PINs
//! (`pins.rs`), tokens that stay away (`absence.rs`).

use std::cell::Cell;
use std::time::Duration;

use claviger::keystore::{Keystore as _, KeystoreError};
use claviger_audit::Algorithm;
use serde_json::json;

use crate::support::faults::with_faults;
use crate::support::softhsm::PIN;
use crate::{Bench, name, preloaded};

/// What may heal a failure, as the adapter sorts return values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Session,
    Login,
    Module,
    Throttle,
    Never,
}

use Class::{Login, Module, Never, Session, Throttle};

const CODES: [(Class, &str); 39] = [
    (Session, "CKR_SESSION_CLOSED"),
    (Session, "CKR_SESSION_HANDLE_INVALID"),
    (Session, "CKR_OPERATION_ACTIVE"),
    (Session, "CKR_OPERATION_NOT_INITIALIZED"),
    (Session, "CKR_BUFFER_TOO_SMALL"),
    (Login, "CKR_USER_NOT_LOGGED_IN"),
    (Login, "CKR_KEY_HANDLE_INVALID"),
    (Login, "CKR_OBJECT_HANDLE_INVALID"),
    (Login, "CKR_GENERAL_ERROR"),
    (Login, "CKR_DEVICE_ERROR"),
    (Login, "CKR_VENDOR_DEFINED"),
    (Module, "CKR_DEVICE_REMOVED"),
    (Module, "CKR_TOKEN_NOT_PRESENT"),
    (Module, "CKR_TOKEN_NOT_RECOGNIZED"),
    (Module, "CKR_SLOT_ID_INVALID"),
    (Module, "CKR_CRYPTOKI_NOT_INITIALIZED"),
    (Module, "CKR_USER_PIN_NOT_INITIALIZED"),
    (Throttle, "CKR_SESSION_COUNT"),
    (Throttle, "CKR_HOST_MEMORY"),
    (Throttle, "CKR_DEVICE_MEMORY"),
    (Throttle, "CKR_FUNCTION_FAILED"),
    (Throttle, "CKR_FUNCTION_CANCELED"),
    (Throttle, "CKR_CANCEL"),
    (Never, "CKR_PIN_INCORRECT"),
    (Never, "CKR_PIN_LOCKED"),
    (Never, "CKR_PIN_EXPIRED"),
    (Never, "CKR_PIN_INVALID"),
    (Never, "CKR_PIN_LEN_RANGE"),
    (Never, "CKR_MECHANISM_INVALID"),
    (Never, "CKR_MECHANISM_PARAM_INVALID"),
    (Never, "CKR_KEY_FUNCTION_NOT_PERMITTED"),
    (Never, "CKR_KEY_TYPE_INCONSISTENT"),
    (Never, "CKR_ATTRIBUTE_VALUE_INVALID"),
    (Never, "CKR_ATTRIBUTE_READ_ONLY"),
    (Never, "CKR_TEMPLATE_INCOMPLETE"),
    (Never, "CKR_DATA_LEN_RANGE"),
    (Never, "CKR_ARGUMENTS_BAD"),
    (Never, "CKR_FUNCTION_NOT_SUPPORTED"),
    (Never, "CKR_ACTION_PROHIBITED"),
];

/// Codes that one function answers in the ordinary course of reading attributes: they say that one of several is not there.
const ORDINARY: [(&str, &str); 1] = [("C_GetAttributeValue", "CKR_BUFFER_TOO_SMALL")];

/// What a caller is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Done,
    Retry,
    Unavailable,
    Rejected,
}

fn told(outcome: &Result<(), KeystoreError>) -> Told {
    match outcome {
        Ok(()) => Told::Done,
        Err(KeystoreError::Retry(_)) => Told::Retry,
        Err(KeystoreError::Unavailable { after, .. }) if *after <= Duration::from_secs(1) => Told::Unavailable,
        Err(KeystoreError::Rejected(_)) => Told::Rejected,
        Err(other) => panic!("{other:?}"),
    }
}

/// What is told when the first call of a function fails so, and no other.
fn after_one(class: Class) -> Told {
    match class {
        Session | Login | Module => Told::Done,
        Throttle => Told::Retry,
        Never => Told::Rejected,
    }
}

/// What is told when the retry fails likewise.
fn after_two(class: Class) -> Told {
    match class {
        Session | Login | Throttle => Told::Retry,
        Module => Told::Unavailable,
        Never => Told::Rejected,
    }
}

/// Injects each code, lost and persisted, in each of these functions, while `work` is done; `ready` makes the work possible again.
fn check(
    bench: &Bench<'_>,
    functions: &[&str],
    times: u64,
    expected: fn(Class) -> Told,
    ready: impl Fn(),
    work: impl Fn() -> Result<(), KeystoreError>,
) {
    for function in functions {
        for (class, code) in CODES.into_iter().filter(|(_, code)| !ORDINARY.contains(&(function, code))) {
            for performed in [false, true] {
                ready();
                // What must never be retried is injected without end, and met once.
                let when =
                    if class == Never { json!({ "performed": performed }) } else { json!({ "times": times, "performed": performed }) };
                let rule = bench.faults.fail(function, code, when);
                let case = format!("{function} answers {code} {times} times, performed: {performed}");
                let outcome = work();
                assert_eq!(told(&outcome), expected(class), "{case}: {outcome:?}");
                let met = bench.faults.fired(rule);
                let once = matches!(class, Throttle | Never);
                assert_eq!(met, if once { 1 } else { times }, "{case}: calls of a function that failed");
                bench.faults.reset();
                bench.heals();
            }
        }
    }
}

#[test]
fn signing_heals_from_every_code() {
    with_faults("recovery::signing_heals_from_every_code", |hsm, faults| {
        let bench = Bench::of(hsm, faults, 1);
        check(&bench, &["C_SignInit", "C_Sign"], 1, after_one, || (), || bench.sign(0));
        check(&bench, &["C_SignInit", "C_Sign"], 2, after_two, || (), || bench.sign(1));
        assert_eq!(faults.status()["finalized_while_busy"], 0);
    });
}

#[test]
fn looking_a_key_up_heals_from_every_code() {
    with_faults("recovery::looking_a_key_up_heals_from_every_code", |hsm, faults| {
        let bench = Bench::of(hsm, faults, 1);
        // Asking for the key by its name forgets its handle, so that signing looks it up again.
        let ready = || drop(bench.runtime.block_on(bench.keystore.create(&name(1), Algorithm::ES256)).expect("found"));
        let functions = ["C_FindObjectsInit", "C_FindObjects", "C_GetAttributeValue"];
        check(&bench, &functions, 1, after_one, ready, || bench.sign(0));
    });
}

#[test]
fn a_session_that_cannot_be_opened_is_told_by_its_class() {
    with_faults("recovery::a_session_that_cannot_be_opened_is_told_by_its_class", |hsm, faults| {
        let bench = Bench::of(hsm, faults, 1);
        for (class, code) in CODES {
            // The worker loses its session, and gets no other one: that was its retry.
            faults.fail("C_SignInit", "CKR_SESSION_CLOSED", json!({ "times": 1 }));
            faults.fail("C_OpenSession", code, json!({ "times": 1 }));
            // A token without read-only sessions refuses them; then a read-write one serves.
            let expected = if class == Never { Told::Done } else { after_two(class) };
            let outcome = bench.sign(0);
            assert_eq!(told(&outcome), expected, "{code}: {outcome:?}");
            faults.reset();
            bench.heals();
        }
    });
}

#[test]
fn creating_heals_from_every_code() {
    with_faults("recovery::creating_heals_from_every_code", |hsm, faults| {
        let bench = Bench::of(hsm, faults, 1);
        let number = Cell::new(10);
        let fresh = || number.set(number.get() + 1);
        let create = |number| bench.runtime.block_on(bench.keystore.create(&name(number), Algorithm::ES256));
        // Whatever happened before: the key that is there in the end is the one that every caller gets, and it is a whole one.
        let settled = || {
            let made = create(number.get()).expect("made or found");
            assert_eq!(create(number.get()).expect("found").public, made.public);
            bench.runtime.block_on(bench.keystore.destroy(&made.locator)).expect("destroyed");
        };
        let ready = || {
            if number.get() > 10 {
                settled();
            }
            fresh();
        };
        check(&bench, &["C_GenerateKeyPair"], 1, after_one, ready, || create(number.get()).map(drop));
        let functions = ["C_GetSessionInfo", "C_FindObjectsInit", "C_FindObjects", "C_GetAttributeValue"];
        // A search that was begun and not told of stays open in its session; the next one finds that out.
        let ready = || drop(create(1).expect("found"));
        check(&bench, &functions, 1, after_one, ready, || create(1).map(|made| assert_eq!(made.public, bench.keys[0].public)));
    });
}

#[test]
fn destroying_heals_from_every_code() {
    with_faults("recovery::destroying_heals_from_every_code", |hsm, faults| {
        let bench = Bench::of(hsm, faults, 1);
        let create = || bench.runtime.block_on(bench.keystore.create(&name(3), Algorithm::ES256)).expect("made or found");
        let locator = create().locator;
        let destroy = || bench.runtime.block_on(bench.keystore.destroy(&locator)).map(drop);
        let ready = || drop(create());
        let work = || {
            let answer = destroy();
            if answer.is_ok() {
                let outcome = bench.runtime.block_on(crate::signature(&*bench.keystore, &*bench.clock, &create()));
                assert!(outcome.is_ok(), "made anew: {outcome:?}");
            }
            answer
        };
        check(&bench, &["C_DestroyObject"], 1, after_one, ready, destroy);
        check(&bench, &["C_FindObjectsInit", "C_FindObjects"], 1, after_one, ready, work);
        destroy().expect("destroyed");
        // That there is no such key is believed only of a session that is logged in.
        check(&bench, &["C_GetSessionInfo"], 1, after_one, || (), destroy);
        destroy().expect("destroyed in the end");
        let listed = bench.runtime.block_on(bench.keystore.inventory("faulty")).expect("listed");
        assert_eq!(listed.len(), 2, "{listed:?}");
    });
}

#[test]
fn health_heals_from_every_code() {
    with_faults("recovery::health_heals_from_every_code", |hsm, faults| {
        let bench = Bench::of(hsm, faults, 1);
        // A fresh signature is health enough, so the token is asked only when the last one is some time ago.
        let ready = || bench.clock.put(Duration::from_secs(6));
        check(&bench, &["C_GetSessionInfo"], 1, after_one, ready, || bench.runtime.block_on(bench.keystore.health()));
        let before = faults.calls("C_GetSessionInfo");
        bench.runtime.block_on(bench.keystore.health()).expect("a fresh signature proves it");
        assert_eq!(faults.calls("C_GetSessionInfo"), before, "and the token is not asked");
    });
}

#[test]
fn opening_again_heals_from_every_class() {
    with_faults("recovery::opening_again_heals_from_every_class", |hsm, faults| {
        let bench = Bench::of(hsm, faults, 1);
        let codes = ["CKR_SESSION_HANDLE_INVALID", "CKR_GENERAL_ERROR", "CKR_DEVICE_REMOVED", "CKR_DEVICE_MEMORY", "CKR_ARGUMENTS_BAD"];
        for function in ["C_Initialize", "C_GetSlotList", "C_GetTokenInfo", "C_OpenSession", "C_GetSessionInfo", "C_Login"] {
            for code in codes {
                for performed in [false, true] {
                    let rule = faults.fail(function, code, json!({ "times": 1, "performed": performed }));
                    faults.fail("C_SignInit", "CKR_CRYPTOKI_NOT_INITIALIZED", json!({ "times": 1 }));
                    let answer = told(&bench.sign(0));
                    assert_ne!(answer, Told::Done, "{function} answers {code}, performed: {performed}");
                    bench.heals();
                    assert_eq!(faults.fired(rule), 1, "{function} answers {code}, performed: {performed}");
                    faults.reset();
                }
            }
        }
        assert_eq!(faults.status()["finalized_while_busy"], 0);
    });
}

#[test]
fn a_failure_that_lasts_is_told_by_its_class_and_ends_with_its_cause() {
    with_faults("recovery::a_failure_that_lasts_is_told_by_its_class_and_ends_with_its_cause", |hsm, faults| {
        let bench = Bench::of(hsm, faults, 1);
        for (class, code) in CODES {
            faults.fail("C_SignInit", code, json!({}));
            for _ in 0..8 {
                let answer = told(&bench.sign(0));
                // Where logging in again does not help, the module is initialised again; meanwhile the token is away.
                let also = matches!(class, Login) && answer == Told::Unavailable;
                assert!(answer == after_two(class) || also, "{code}: {answer:?}");
            }
            faults.reset();
            bench.heals();
        }
    });
}

#[test]
fn a_token_with_few_sessions_serves_and_heals() {
    with_faults("recovery::a_token_with_few_sessions_serves_and_heals", |hsm, faults| {
        let _loaded = preloaded(&hsm.settings("faulty", PIN));
        faults.tell(json!({ "do": "most-sessions", "most": 2, "shown": true }));
        // One for the login, one to sign with.
        let bench = Bench::of(hsm, faults, 4);
        bench.heals();
        assert!(faults.status()["sessions"].to_string().ends_with(":2}"), "{}", faults.status()["sessions"]);
        for loss in ["logout", "drop-sessions", "remove"] {
            faults.tell(json!({ "do": loss }));
            faults.tell(json!({ "do": "return" }));
            bench.heals();
        }
        faults.fail("C_Sign", "CKR_DEVICE_REMOVED", json!({ "times": 1 }));
        bench.heals();
    });
}
