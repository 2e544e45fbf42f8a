//! Handles that mean another key: after a device was lost, after its objects were renumbered, and when it signs with the wrong key.
//!
//! In scope: a handle is never used beyond the epoch in which it was found. Out of scope: finding out that a signature is wrong, which the
//! signer does (`served_faults.rs`); here each signature is verified in its place.

use std::sync::Arc;

use claviger::keystore::{Keystore as _, KeystoreError};
use serde_json::{Value, json};

use crate::support::contract::verified;
use crate::support::faults::{Faults, with_faults};
use crate::{Algorithm, Bench, MESSAGE, signature};

#[test]
fn no_stale_handle_is_used_after_the_module_was_initialised_again() {
    with_faults("handles::no_stale_handle_is_used_after_the_module_was_initialised_again", |hsm, faults| {
        let bench = Bench::new(hsm, faults);
        for round in 0..10 {
            // SoftHSM numbers objects in the order in which they are found, so the other key gets the number that this one had.
            let (first, second) = (round % 2, (round + 1) % 2);
            bench.sign(first).expect("signed");
            bench.sign(second).expect("signed");
            let before = faults.calls("C_Initialize");
            faults.fail("C_Sign", "CKR_DEVICE_REMOVED", json!({ "times": 1 }));
            bench.sign(second).expect("signed after the recovery");
            assert_eq!(faults.calls("C_Initialize"), before + 1, "the module was initialised again");
            bench.sign(first).expect("signed");
        }
        assert_eq!(faults.status()["finalized_while_busy"], 0);
    });
}

#[test]
fn many_callers_get_no_wrong_signature_while_the_device_is_lost_again_and_again() {
    with_faults("handles::many_callers_get_no_wrong_signature_while_the_device_is_lost_again_and_again", |hsm, faults| {
        let bench = Bench::new(hsm, faults);
        faults.fail("C_Sign", "CKR_DEVICE_REMOVED", json!({ "chance": 0.02, "seed": 1 }));
        let callers = (0..8).map(|caller| {
            let (keystore, clock, key) = (Arc::clone(&bench.keystore), bench.clock.clone(), bench.keys[caller % 2].clone());
            bench.runtime.spawn(async move {
                let mut signed = 0;
                for _ in 0..200 {
                    match signature(&*keystore, &*clock, &key).await {
                        Ok(signature) => {
                            assert!(verified(&key.public, Algorithm::ES256, MESSAGE, &signature.bytes), "a wrong signature");
                            signed += 1;
                        }
                        Err(KeystoreError::Retry(_) | KeystoreError::Unavailable { .. }) => {}
                        Err(other) => panic!("{other:?}"),
                    }
                }
                signed
            })
        });
        let callers = callers.collect::<Vec<_>>();
        let signed = callers.into_iter().map(|caller| bench.runtime.block_on(caller).expect("no wrong signature")).sum::<u32>();
        assert!(signed > 0 && bench.keystore.state().openings > 3, "{signed} signatures, {:?}", bench.keystore.state());
        assert_eq!(faults.status()["finalized_while_busy"], 0);
        faults.reset();
        bench.heals();
    });
}

#[test]
fn renumbered_objects_are_found_again_in_a_new_epoch() {
    with_faults("handles::renumbered_objects_are_found_again_in_a_new_epoch", |hsm, faults| {
        let bench = Bench::new(hsm, faults);
        let losses: [&[Value]; 3] =
            [&[json!({ "do": "drop-sessions" })], &[json!({ "do": "logout" })], &[json!({ "do": "remove" }), json!({ "do": "return" })]];
        for loss in losses {
            for round in 0..4 {
                bench.heals();
                assert!(faults.tell(json!({ "do": "renumber" }))["renumbered"].as_u64() >= Some(2));
                for command in loss {
                    faults.tell(command.clone());
                }
                let outcome = bench.sign(round % 2);
                assert!(
                    outcome.is_ok() || matches!(outcome, Err(KeystoreError::Retry(_) | KeystoreError::Unavailable { .. })),
                    "{outcome:?}"
                );
            }
        }
    });
}

#[test]
fn a_wrong_key_is_seen_by_whoever_verifies_and_by_nobody_else() {
    with_faults("handles::a_wrong_key_is_seen_by_whoever_verifies_and_by_nobody_else", |hsm, faults| {
        let bench = Bench::new(hsm, faults);
        let right = |key: usize| {
            let signature = bench.signature(key).expect("the keystore sees nothing wrong");
            verified(&bench.keys[key].public, Algorithm::ES256, MESSAGE, &signature.bytes)
        };
        faults.rule(json!({ "do": "wrong-key", "when": { "times": 1 } }));
        assert_eq!([right(0), right(0)], [false, true]);
        bench.heals();
        faults.tell(json!({ "do": "renumber" }));
        assert_eq!([right(0), right(1)], [false, false]);
        faults.tell(json!({ "do": "logout" }));
        bench.heals();
    });
}

/// Does `work`, and logs the keystore out in each of its next `times` searches.
fn log_out_in_searches<T: Send>(faults: &Faults, times: u32, work: impl FnOnce() -> T + Send) -> T {
    faults.rule(json!({ "do": "hang", "function": "C_FindObjectsInit", "when": { "times": times } }));
    std::thread::scope(|scope| {
        let working = scope.spawn(work);
        for _ in 0..times {
            while faults.status()["hung"] == json!([]) {
                assert!(!working.is_finished(), "no search was made");
                std::thread::yield_now();
            }
            faults.tell(json!({ "do": "logout" }));
            faults.tell(json!({ "do": "release" }));
        }
        working.join().expect("no panic")
    })
}

#[test]
fn a_key_is_not_gone_because_a_search_was_made_by_somebody_who_was_logged_out() {
    with_faults("handles::a_key_is_not_gone_because_a_search_was_made_by_somebody_who_was_logged_out", |hsm, faults| {
        let bench = Bench::new(hsm, faults);
        bench.heals();
        faults.tell(json!({ "do": "logout" }));
        // The retry logs in and looks the key up again; just then the login is lost once more, and the token shows no private key.
        let outcome = log_out_in_searches(faults, 1, || bench.sign(0));
        assert!(matches!(outcome, Ok(()) | Err(KeystoreError::Retry(_))), "{outcome:?}");
        bench.heals();
    });
}

#[test]
fn a_key_is_not_destroyed_because_somebody_who_was_logged_out_does_not_see_it() {
    with_faults("handles::a_key_is_not_destroyed_because_somebody_who_was_logged_out_does_not_see_it", |hsm, faults| {
        let bench = Bench::new(hsm, faults);
        let locator = bench.keys[0].locator.clone();
        let outcome = log_out_in_searches(faults, 2, || bench.runtime.block_on(bench.keystore.destroy(&locator)));
        let left = || bench.runtime.block_on(bench.keystore.inventory("faulty")).expect("listed").len();
        assert_eq!(left(), if outcome.is_ok() { 1 } else { 2 }, "{outcome:?}");
        bench.runtime.block_on(bench.keystore.destroy(&locator)).expect("destroyed");
        assert_eq!(left(), 1);
    });
}

#[test]
fn a_list_is_not_empty_because_it_was_made_by_somebody_who_was_logged_out() {
    with_faults("handles::a_list_is_not_empty_because_it_was_made_by_somebody_who_was_logged_out", |hsm, faults| {
        let bench = Bench::new(hsm, faults);
        let outcome = log_out_in_searches(faults, 1, || bench.runtime.block_on(bench.keystore.inventory("faulty")));
        assert_eq!(outcome.expect("listed after a new login").len(), 2);
    });
}
