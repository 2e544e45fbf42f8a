//! The keystore contract on real tokens, and what is special about PKCS#11: PINs, tokens that are away, shared modules.

use std::sync::Arc;
use std::time::Duration;

use claviger::clock::{Clock, SystemClock};
use claviger::keystore::pkcs11::{DeviceProfile, Pkcs11Keystore, Pkcs11Settings, TokenState};
use claviger::keystore::{Keystore, KeystoreError, Locator, Terms};
use claviger_audit::Algorithm;
use claviger_audit::names::KeyName;
use tokio::time::timeout;

use crate::support::contract::{Contract, input};
use crate::support::raw::id_of;
use crate::support::tokens::{PIN, Tokens};
use crate::support::{kryoptic, remote, softhsm};

mod support;

/// Runs each of these checks as a test on each module.
macro_rules! on_each_module {
    ($($check:ident)*) => {
        mod on_softhsm {
            $(#[test] fn $check() { super::softhsm::in_child(concat!("on_softhsm::", stringify!($check)), |tokens| super::$check(tokens)) })*
        }
        mod on_remote {
            $(#[test] fn $check() { super::remote::in_child(concat!("on_remote::", stringify!($check)), |tokens| super::$check(tokens)) })*
        }
        mod on_kryoptic {
            $(#[test] fn $check() { super::kryoptic::in_child(concat!("on_kryoptic::", stringify!($check)), |tokens| super::$check(tokens)) })*
        }
    };
}

on_each_module! {
    the_contract_is_kept
    keys_survive_a_new_keystore
    a_key_of_another_kind_is_not_adopted
    an_imported_key_is_neither_adopted_nor_destroyed
    a_wrong_pin_is_tried_once_over_restarts
    a_new_pin_is_taken_up_without_a_restart
    a_missing_token_is_told_quickly_and_found_when_it_comes
    a_module_that_cannot_begin_is_tried_again
    two_tokens_of_one_module_do_not_disturb_each_other
    two_keystores_on_one_token_share_its_login
    a_token_that_was_away_signs_with_the_right_key_again
    a_key_that_could_not_be_destroyed_is_not_called_dead
    a_public_half_that_an_interrupted_call_left_is_made_anew
    a_public_key_of_another_name_is_left_alone
}

/// What is meant to be quick must be over by then, even on a loaded machine; far less than any deadline that is given.
const QUICK: Duration = Duration::from_secs(10);

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

fn clock() -> Arc<SystemClock> {
    Arc::new(SystemClock::start())
}

fn name(number: u32) -> KeyName {
    KeyName::new("special", "pkcs11", number, 0xabad_cafe).expect("a well-formed name")
}

/// Asks for the keystore's health until the token is settled one way or the other.
async fn settled(keystore: &Pkcs11Keystore) -> Result<(), KeystoreError> {
    timeout(QUICK, keystore.health()).await.expect("an answer soon")
}

/// Asks until the keystore is healthy.
async fn healthy(keystore: &dyn Keystore) {
    let mut last = Ok(());
    let asking = async {
        loop {
            last = keystore.health().await;
            if last.is_ok() {
                break;
            }
            tokio::task::yield_now().await;
        }
    };
    let outcome = timeout(QUICK, asking).await;
    assert!(outcome.is_ok(), "still {last:?}");
}

fn the_contract_is_kept(tokens: &Tokens) {
    tokens.token("contract");
    let clock = clock();
    assert_eq!(tokens.lacks("contract"), tokens.module.lacks, "what the module lacks is known, and nothing else is left out");
    let keystore = Arc::new(tokens.open("contract", clock.clone()));
    runtime().block_on(Contract::new(keystore, clock).check_all(tokens.module.lacks));
    assert_eq!(std::fs::read_dir(tokens.state()).expect("the state folder").count(), 0, "no PIN marker is left after a good login");
}

fn keys_survive_a_new_keystore(tokens: &Tokens) {
    tokens.token("kept");
    let (clock, runtime) = (clock(), runtime());
    let first = Contract::new(Arc::new(tokens.open("kept", clock.clone())), clock.clone());
    let made = runtime.block_on(first.keystore.create(&name(1), Algorithm::ES384)).expect("made");
    drop(first);
    let second = Contract::new(Arc::new(tokens.open("kept", clock.clone())), clock);
    runtime.block_on(second.sign_and_verify(&made, Algorithm::ES384, b"before it was found"));
    let again = runtime.block_on(second.keystore.create(&name(1), Algorithm::ES384)).expect("found");
    assert_eq!((again.public, again.locator), (made.public, made.locator));
}

fn a_key_of_another_kind_is_not_adopted(tokens: &Tokens) {
    tokens.token("kinds");
    let clock = clock();
    let contract = Contract::new(Arc::new(tokens.open("kinds", clock.clone())), clock);
    runtime().block_on(async {
        let made = contract.keystore.create(&name(1), Algorithm::ES256).await.expect("made");
        let outcome = contract.keystore.create(&name(1), Algorithm::RS256).await;
        assert!(matches!(&outcome, Err(KeystoreError::Rejected(reason)) if reason.contains("kind")), "{outcome:?}");
        contract.sign_and_verify(&made, Algorithm::ES256, b"the key is still there").await;
    });
}

fn an_imported_key_is_neither_adopted_nor_destroyed(tokens: &Tokens) {
    tokens.token("foreign");
    let id = id_of(name(1).as_str());
    tokens.import_pair("foreign", name(1).as_str(), &id);
    let keystore = tokens.open("foreign", clock());
    runtime().block_on(async {
        for _ in 0..2 {
            let outcome = keystore.create(&name(1), Algorithm::ES256).await;
            let Err(KeystoreError::Rejected(reason)) = outcome else { panic!("{outcome:?}") };
            for part in ["local is false", "always-sensitive is false", "never-extractable is false"] {
                assert!(reason.contains(part), "{reason}");
            }
            assert!(!reason.contains("destroyed"), "{reason}");
        }
        let locator = Locator::new(id.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}")));
        // It can be looked at all the same: everything that is wrong with it, and nothing is changed.
        let seen = keystore.inspect(&locator).await.expect("seen");
        assert!(seen.public.is_ok(), "{:?}", seen.public);
        let told = |attribute: &str| seen.attributes.get(attribute).cloned().flatten();
        assert_eq!(
            ["local", "always-sensitive", "label"].map(told),
            [Some("false"), Some("false"), Some(name(1).as_str())].map(|v| v.map(str::to_owned))
        );
        let listed = keystore.inventory(name(1).installation()).await.expect("listed");
        assert_eq!(listed, [(name(1), locator)]);
    });
}

fn a_wrong_pin_is_tried_once_over_restarts(tokens: &Tokens) {
    tokens.token("locked");
    let (clock, runtime) = (clock(), runtime());
    let open = |settings: Pkcs11Settings| Pkcs11Keystore::open(settings, clock.clone());
    let refused = |keystore: &Pkcs11Keystore| match runtime.block_on(settled(keystore)) {
        Err(KeystoreError::Rejected(reason)) => reason,
        other => panic!("{other:?}"),
    };
    let first = open(tokens.settings("locked", "1234-wrong"));
    let reason = refused(&first);
    assert!(reason.contains("PinIncorrect") || reason.contains("refused before"), "{reason}");
    assert!(!reason.contains("1234"), "{reason}");
    drop(first);
    let marker = sole_file(&tokens.state());
    let written = std::fs::read(&marker).expect("the marker");

    // The marker has fresh random bytes at each try, so an unchanged marker means that nothing was tried.
    let second = open(tokens.settings("locked", "1234-wrong"));
    assert!(refused(&second).contains("refused before"));
    let outcome = runtime.block_on(second.create(&name(1), Algorithm::ES256));
    assert!(matches!(outcome, Err(KeystoreError::Rejected(_))), "{outcome:?}");
    assert_eq!(std::fs::read(&marker).expect("the marker"), written, "no second try");
    drop(second);

    let third = open(tokens.settings("locked", PIN));
    runtime.block_on(third.create(&name(1), Algorithm::ES256)).expect("the right PIN is a new one");
    assert!(!marker.exists());
}

fn a_new_pin_is_taken_up_without_a_restart(tokens: &Tokens) {
    tokens.token("healed");
    let keystore = Pkcs11Keystore::open(tokens.settings("healed", "1234-wrong"), clock());
    runtime().block_on(async {
        assert!(matches!(settled(&keystore).await, Err(KeystoreError::Rejected(_))));
        tokens.settings("healed", PIN);
        healthy(&keystore).await;
    });
    assert_eq!(keystore.state().token, TokenState::Ready);
}

#[test]
fn a_uri_finds_the_token_that_fits_all_of_it() {
    softhsm::in_child("a_uri_finds_the_token_that_fits_all_of_it", |tokens| {
        tokens.token("one token");
        tokens.token("another");
        let open = |token: &str| Pkcs11Keystore::open(tokens.settings(token, PIN), clock());
        runtime().block_on(async {
            let labelled = open("one token");
            let made = labelled.create(&name(1), Algorithm::ES256).await.expect("made");
            let described = open("pkcs11:token=one%20token;manufacturer=SoftHSM%20project;model=SoftHSM%20v2");
            assert_eq!(described.create(&name(1), Algorithm::ES256).await.expect("found").public, made.public);
            for (wrong, said) in [
                ("pkcs11:token=one%20token;model=SoftHSM%20v3", "no token has the label \"one token\", model \"SoftHSM v3\""),
                ("pkcs11:model=SoftHSM%20v2", "more than one token has the model \"SoftHSM v2\""),
            ] {
                let outcome = settled(&open(wrong)).await;
                assert!(matches!(&outcome, Err(KeystoreError::Unavailable { reason, .. }) if reason.contains(said)), "{outcome:?}");
            }
        });
    });
}

#[test]
fn a_profile_changes_nothing_where_all_is_told() {
    softhsm::in_child("a_profile_changes_nothing_where_all_is_told", |tokens| {
        tokens.token("candid");
        let lax = DeviceProfile::omittable().try_fold(DeviceProfile::default(), DeviceProfile::omitting).expect("all may be missing");
        let profiles = DeviceProfile::names().filter_map(DeviceProfile::named).chain([lax]);
        let algorithms = [Algorithm::ES256, Algorithm::RS256, Algorithm::EdDSA];
        let (clock, runtime) = (clock(), runtime());
        let mut seen = Vec::new();
        for (round, profile) in (0..).zip(profiles) {
            let settings = Pkcs11Settings { profile, ..tokens.settings("candid", PIN) };
            let contract = Contract::new(Arc::new(Pkcs11Keystore::open(settings, clock.clone())), clock.clone());
            runtime.block_on(async {
                for (number, algorithm) in (1..).zip(algorithms) {
                    let made = contract.keystore.create(&name(10 * round + number), algorithm).await.expect("made");
                    contract.sign_and_verify(&made, algorithm, b"by any profile").await;
                    let mut told = made.attributes;
                    told.remove("label");
                    assert!(told.values().all(|value| value == "true" || value == "false"), "{told:?}");
                    seen.push(told);
                }
            });
        }
        assert!(seen.len() == 9 && seen.iter().all(|told| told == &seen[0] && told.len() == 15), "{seen:?}");
    });
}

fn a_missing_token_is_told_quickly_and_found_when_it_comes(tokens: &Tokens) {
    // Made out of sight: SoftHSM can take a half-made token for a whole one with another PIN.
    tokens.token("awaited");
    tokens.hide_tokens(true);
    tokens.token("other");
    let clock = clock();
    let keystore = tokens.open("awaited", clock.clone());
    runtime().block_on(async {
        let deadline = clock.monotonic().plus(QUICK * 6);
        let locator = Locator::new("ab".repeat(20));
        let signing = keystore.sign(&locator, Algorithm::ES256, input(Algorithm::ES256, b"x"), Terms::own(deadline));
        match timeout(QUICK, signing).await.expect("an answer soon") {
            Err(KeystoreError::Unavailable { reason, after }) => {
                assert!(reason.contains("awaited") && reason.contains("other"), "{reason}");
                assert!(after <= Duration::from_secs(1), "{after:?}");
            }
            other => panic!("{other:?}"),
        }
        tokens.hide_tokens(false);
        healthy(&keystore).await;
    });
}

fn a_module_that_cannot_begin_is_tried_again(tokens: &Tokens) {
    // Without their folder, not even the module can be initialised.
    let vanish = || {
        tokens.hide_tokens(true);
        std::fs::remove_dir(tokens.folder()).expect("the stand-in");
    };
    let return_again = || {
        std::fs::create_dir(tokens.folder()).expect("the stand-in");
        tokens.hide_tokens(false);
    };
    tokens.token("late");
    vanish();
    let clock = clock();
    let contract = Contract::new(Arc::new(tokens.open("late", clock.clone())), clock);
    runtime().block_on(async {
        let outcome = timeout(QUICK, contract.keystore.health()).await.expect("an answer soon");
        assert!(matches!(outcome, Err(KeystoreError::Unavailable { .. })), "{outcome:?}");
        return_again();
        healthy(&*contract.keystore).await;
        let made = contract.keystore.create(&name(1), Algorithm::ES256).await.expect("made");
        contract.sign_and_verify(&made, Algorithm::ES256, b"at last").await;
        vanish();
        let outcome = contract.keystore.create(&name(2), Algorithm::ES256).await;
        assert!(matches!(outcome, Err(KeystoreError::Unavailable { .. } | KeystoreError::Retry(_))), "{outcome:?}");
        return_again();
        healthy(&*contract.keystore).await;
        contract.sign_and_verify(&made, Algorithm::ES256, b"again").await;
    });
}

fn two_tokens_of_one_module_do_not_disturb_each_other(tokens: &Tokens) {
    tokens.token("left");
    tokens.token("right");
    let clock = clock();
    let open = |label: &str| Arc::new(tokens.open(label, clock.clone()));
    let contract = |keystore: &Arc<Pkcs11Keystore>| Contract::new(keystore.clone(), clock.clone());
    runtime().block_on(async {
        let (left, right) = (open("left"), open("right"));
        let in_left = left.create(&name(1), Algorithm::ES256).await.expect("made");
        let in_right = right.create(&name(1), Algorithm::ES256).await.expect("made");
        assert_ne!(in_left.public, in_right.public);
        // A third keystore, whose token is away, must not have the module initialised again under the other two.
        let absent = open("absent");
        timeout(QUICK, async {
            let (mut attempts, mut last) = (0, Duration::ZERO);
            while attempts < 4 {
                let Err(KeystoreError::Unavailable { after, .. }) = absent.health().await else { panic!("the token is not there") };
                // The time that is left runs down, and jumps up when another attempt has failed.
                attempts += u32::from(after > last);
                last = after;
                contract(&left).sign_and_verify(&in_left, Algorithm::ES256, b"left").await;
                contract(&right).sign_and_verify(&in_right, Algorithm::ES256, b"right").await;
            }
        })
        .await
        .expect("attempts follow each other");
        assert_eq!((left.state().openings, right.state().openings), (1, 1));
    });
}

fn two_keystores_on_one_token_share_its_login(tokens: &Tokens) {
    tokens.token("shared");
    let clock = clock();
    let open = || Contract::new(Arc::new(tokens.open("shared", clock.clone())), clock.clone());
    runtime().block_on(async {
        let (first, second) = (open(), open());
        let made = first.keystore.create(&name(1), Algorithm::ES256).await.expect("made");
        second.sign_and_verify(&made, Algorithm::ES256, b"by both").await;
        drop(first);
        second.sign_and_verify(&made, Algorithm::ES256, b"by the one that is left").await;
        second.keystore.destroy(&made.locator).await.expect("destroyed");
    });
    assert_eq!(std::fs::read_dir(tokens.state()).expect("the state folder").count(), 0, "no PIN marker is left");
}

fn a_token_that_was_away_signs_with_the_right_key_again(tokens: &Tokens) {
    tokens.token("wanderer");
    let clock = clock();
    let contract = Contract::new(Arc::new(tokens.open("wanderer", clock.clone())), clock);
    runtime().block_on(async {
        let first = contract.keystore.create(&name(1), Algorithm::ES256).await.expect("made");
        let second = contract.keystore.create(&name(2), Algorithm::ES256).await.expect("made");
        contract.sign_and_verify(&first, Algorithm::ES256, b"before").await;
        tokens.hide_tokens(true);
        let outcome = contract.keystore.inspect(&first.locator).await;
        // Kryoptic holds an open token's file, and goes on with it; whoever does not must not take the token's absence for the key's.
        assert!(!matches!(outcome, Err(KeystoreError::Gone(_))), "a token that is away says nothing about its keys: {outcome:?}");
        let outcome = contract.keystore.create(&name(3), Algorithm::ES256).await;
        assert!(outcome.is_err(), "{outcome:?}");
        tokens.hide_tokens(false);
        healthy(&*contract.keystore).await;
        contract.sign_and_verify(&second, Algorithm::ES256, b"after").await;
        contract.sign_and_verify(&first, Algorithm::ES256, b"after").await;
    });
}

#[test]
fn a_server_that_was_away_is_found_again() {
    remote::in_child("a_server_that_was_away_is_found_again", |tokens| {
        tokens.token("far");
        let clock = clock();
        let contract = Contract::new(Arc::new(tokens.open("far", clock.clone())), clock);
        runtime().block_on(async {
            let first = contract.keystore.create(&name(1), Algorithm::ES256).await.expect("made");
            let second = contract.keystore.create(&name(2), Algorithm::ES256).await.expect("made");
            contract.sign_and_verify(&first, Algorithm::ES256, b"before").await;
            for _ in 0..3 {
                tokens.stop_server();
                let signing = contract.keystore.sign(&first.locator, Algorithm::ES256, input(Algorithm::ES256, b"x"), contract.terms());
                let outcome = timeout(QUICK, signing).await.expect("an answer soon");
                assert!(matches!(outcome, Err(KeystoreError::Unavailable { .. } | KeystoreError::Retry(_))), "{outcome:?}");
                tokens.start_server();
                healthy(&*contract.keystore).await;
                contract.sign_and_verify(&second, Algorithm::ES256, b"after").await;
                contract.sign_and_verify(&first, Algorithm::ES256, b"after").await;
            }
        });
    });
}

fn a_key_that_could_not_be_destroyed_is_not_called_dead(tokens: &Tokens) {
    tokens.token("stubborn");
    let clock = clock();
    let contract = Contract::new(Arc::new(tokens.open("stubborn", clock.clone())), clock);
    runtime().block_on(async {
        let made = contract.keystore.create(&name(1), Algorithm::ES256).await.expect("made");
        // Nothing can be written to a token's files while they lie elsewhere, even where a module goes on reading them.
        tokens.hide_tokens(true);
        let outcome = contract.keystore.destroy(&made.locator).await;
        assert!(matches!(outcome, Err(KeystoreError::Unavailable { .. } | KeystoreError::Retry(_))), "{outcome:?}");
        tokens.hide_tokens(false);
        healthy(&*contract.keystore).await;
        contract.sign_and_verify(&made, Algorithm::ES256, b"still alive").await;
        contract.keystore.destroy(&made.locator).await.expect("destroyed");
        assert!(contract.keystore.inventory(name(1).installation()).await.expect("listed").is_empty());
    });
}

fn a_public_half_that_an_interrupted_call_left_is_made_anew(tokens: &Tokens) {
    tokens.token("interrupted");
    let clock = clock();
    let contract = Contract::new(Arc::new(tokens.open("interrupted", clock.clone())), clock);
    runtime().block_on(async {
        let half = contract.keystore.create(&name(1), Algorithm::ES256).await.expect("made");
        tokens.remove_private_half("interrupted", &id_of(name(1).as_str()));
        let whole = contract.keystore.create(&name(1), Algorithm::ES256).await.expect("made anew");
        assert_ne!(whole.public, half.public);
        contract.sign_and_verify(&whole, Algorithm::ES256, b"a whole pair").await;
    });
}

fn a_public_key_of_another_name_is_left_alone(tokens: &Tokens) {
    tokens.token("strange");
    tokens.import_public_half("strange", "somebody else's", &id_of(name(1).as_str()));
    let keystore = tokens.open("strange", clock());
    runtime().block_on(async {
        for _ in 0..2 {
            let outcome = keystore.create(&name(1), Algorithm::ES256).await;
            assert!(matches!(&outcome, Err(KeystoreError::Rejected(reason)) if reason.contains("strange public key")), "{outcome:?}");
        }
    });
}

fn sole_file(folder: &std::path::Path) -> std::path::PathBuf {
    let files = std::fs::read_dir(folder).expect("the folder").map(|entry| entry.expect("an entry").path()).collect::<Vec<_>>();
    let [file] = files.as_slice() else { panic!("{files:?}") };
    file.clone()
}
