//! PIN tries, counted by the module: at most one for each value of the PIN, however often the keystore is opened.

use claviger::keystore::pkcs11::Pkcs11Keystore;
use claviger::keystore::{Keystore as _, KeystoreError};
use claviger_audit::Algorithm;
use serde_json::json;

use crate::support::faults::with_faults;
use crate::support::softhsm::PIN;
use crate::{Bench, Forward, name, preloaded, runtime};

/// Asks three things of a keystore whose PIN is refused, and gives the reason.
fn refused(keystore: &Pkcs11Keystore) -> String {
    let runtime = runtime();
    let health = runtime.block_on(keystore.health());
    for _ in 0..2 {
        let outcome = runtime.block_on(keystore.create(&name(1), Algorithm::ES256));
        assert!(matches!(outcome, Err(KeystoreError::Rejected(_))), "{outcome:?}");
    }
    match health {
        Err(KeystoreError::Rejected(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_pin_is_tried_once_over_restarts() {
    with_faults("pins::each_pin_is_tried_once_over_restarts", |hsm, faults| {
        hsm.token("faulty");
        for pin in ["8888-wrong", "9999-wrong"] {
            for _ in 0..3 {
                refused(&Pkcs11Keystore::open(hsm.settings("faulty", pin), Forward::start()));
            }
        }
        let keystore = Pkcs11Keystore::open(hsm.settings("faulty", PIN), Forward::start());
        runtime().block_on(keystore.create(&name(1), Algorithm::ES256)).expect("the right PIN is a new one");
        let logins = &faults.status()["logins"];
        assert_eq!(logins["distinct"], json!([{ "CKR_PIN_INCORRECT": 1 }, { "CKR_PIN_INCORRECT": 1 }, { "CKR_OK": 1 }]));
    });
}

#[test]
fn every_judgement_of_the_pin_is_final() {
    with_faults("pins::every_judgement_of_the_pin_is_final", |hsm, faults| {
        hsm.token("faulty");
        let _loaded = preloaded(&hsm.settings("faulty", PIN));
        for (round, code) in (0..).zip(["CKR_PIN_INCORRECT", "CKR_PIN_INVALID", "CKR_PIN_LEN_RANGE", "CKR_PIN_EXPIRED", "CKR_PIN_LOCKED"]) {
            let pin = format!("{round}{round}{round}{round}-wrong");
            let rule = faults.fail("C_Login", code, json!({}));
            for _ in 0..3 {
                refused(&Pkcs11Keystore::open(hsm.settings("faulty", &pin), Forward::start()));
            }
            assert_eq!(faults.fired(rule), 1, "{code}");
            faults.reset();
        }
    });
}

#[test]
fn a_login_whose_answer_was_lost_is_not_repeated_if_the_token_counted_it() {
    with_faults("pins::a_login_whose_answer_was_lost_is_not_repeated_if_the_token_counted_it", |hsm, faults| {
        hsm.token("faulty");
        let _loaded = preloaded(&hsm.settings("faulty", PIN));
        faults.tell(json!({ "do": "pin-counter", "tries": 10 }));
        faults.fail("C_Login", "CKR_DEVICE_ERROR", json!({ "performed": true }));
        for _ in 0..3 {
            let keystore = Pkcs11Keystore::open(hsm.settings("faulty", "8888-wrong"), Forward::start());
            let runtime = runtime();
            while !matches!(runtime.block_on(keystore.health()), Err(KeystoreError::Rejected(_))) {
                std::thread::yield_now();
            }
        }
        assert_eq!(faults.calls("C_Login"), 1);
    });
}

#[test]
fn a_login_whose_answer_was_lost_heals_if_it_was_right() {
    with_faults("pins::a_login_whose_answer_was_lost_heals_if_it_was_right", |hsm, faults| {
        let bench = Bench::new(hsm, faults);
        for performed in [false, true] {
            faults.tell(json!({ "do": "pin-counter", "tries": 10 }));
            faults.fail("C_Login", "CKR_DEVICE_ERROR", json!({ "times": 1, "performed": performed }));
            faults.tell(json!({ "do": "logout" }));
            bench.heals();
            faults.reset();
        }
        let left = std::fs::read_dir(hsm.state()).expect("the state folder").count();
        assert_eq!(left, 0, "no PIN marker is left after a good login");
    });
}

#[test]
fn the_last_tries_are_left_to_people() {
    with_faults("pins::the_last_tries_are_left_to_people", |hsm, faults| {
        hsm.token("faulty");
        let _loaded = preloaded(&hsm.settings("faulty", PIN));
        for (left, part) in [(1, "one more wrong PIN locks"), (0, "is locked")] {
            faults.tell(json!({ "do": "pin-counter", "tries": 3, "left": left }));
            let reason = refused(&Pkcs11Keystore::open(hsm.settings("faulty", PIN), Forward::start()));
            assert!(reason.contains(part), "{reason}");
            assert_eq!(faults.calls("C_Login"), 0);
        }
        faults.tell(json!({ "do": "pin-counter", "tries": 3, "left": 2 }));
        let keystore = Pkcs11Keystore::open(hsm.settings("faulty", PIN), Forward::start());
        runtime().block_on(keystore.create(&name(1), Algorithm::ES256)).expect("a low count alone is no reason to stop");
        assert_eq!(faults.calls("C_Login"), 1);
    });
}

#[test]
fn recovery_never_spends_a_try_on_a_pin_that_was_refused() {
    with_faults("pins::recovery_never_spends_a_try_on_a_pin_that_was_refused", |hsm, faults| {
        let bench = Bench::new(hsm, faults);
        // The PIN was changed on the token, not in our file: from now on it is wrong.
        faults.fail("C_Login", "CKR_PIN_INCORRECT", json!({}));
        let before = faults.calls("C_Login");
        faults.tell(json!({ "do": "logout" }));
        for _ in 0..20 {
            assert!(matches!(bench.sign(0), Err(KeystoreError::Rejected(_))));
        }
        drop(bench.restarted(PIN));
        refused(&bench.restarted(PIN));
        assert_eq!(faults.calls("C_Login"), before + 1);
    });
}
