//! Keystores of different kinds in one daemon: a token beside Vault and AWS KMS (on an emulator).
//!
//! In scope: a keyring that moves from a token to Vault and on to KMS under load; a Vault that is sealed or gone, and a KMS that hangs or fails,
//! beside a token that goes on. Out of scope: what each of them does by itself (`vault`, `kms_faults`).

use std::cell::RefCell;
#[cfg(feature = "aws-kms")]
use std::sync::PoisonError;

use crate::dead::nobody_else_notices;
use crate::harness::{Keyring, Place, Setup, on_softhsm};
use crate::load::SECONDS;
use crate::vault::Vault;

/// `left` in the keystore that will fail; `right` and the log keys in the token.
fn beside_the_token(setup: Setup, keystore: &str) -> Setup {
    let left = Keyring::jwt("left", "ES256").keystore(keystore).timing(SECONDS);
    setup.keyring(left).keyring(Keyring::jwt("right", "ES256").timing(SECONDS))
}

/// With the keystore `kms`, whose calls go to `url`.
#[cfg(feature = "aws-kms")]
fn with_kms(setup: Setup, kms: &crate::kms::Kms, url: &str) -> Setup {
    let setup = setup.keystore("kms", &kms.table(url)).secret(crate::kms::SECRET).secret(crate::kms::TOKEN);
    kms.environment().into_iter().fold(setup, |setup, (name, value)| setup.environment(name, value))
}

#[test]
fn a_sealed_or_stopped_vault_delays_nobody() {
    on_softhsm("servers::a_sealed_or_stopped_vault_delays_nobody", |hsm| {
        let vault = Vault::start(&["test"]);
        let place = Place::new(hsm, beside_the_token(Setup::new().keystore("vault", &vault.table()), "vault"));
        let mut daemon = place.start();
        nobody_else_notices(&place, &mut daemon, "sealed", || vault.seal(), || vault.unseal());
        let starts = || {
            vault.start_again();
            vault.unseal();
        };
        nobody_else_notices(&place, &mut daemon, "stopped", || vault.stop(), starts);
        place.check(daemon);
    });
}

#[cfg(feature = "aws-kms")]
#[test]
fn a_kms_that_hangs_or_fails_delays_nobody() {
    use crate::kms::Kms;
    use crate::proxy::{Act, Match, Proxy, Rule};

    const TEST: &str = "servers::a_kms_that_hangs_or_fails_delays_nobody";
    on_softhsm(TEST, |hsm| {
        let kms = Kms::account_of(TEST);
        let proxy = Proxy::before(kms.address());
        let place = Place::new(hsm, beside_the_token(with_kms(Setup::new(), &kms, &proxy.url()), "kms"));
        let mut daemon = place.start();
        let fails = Rule::answer(Match::any(), 500, "application/x-amz-json-1.1", "{\"__type\":\"KMSInternalException\"}");
        for (what, rule) in [("hangs", Rule::new(Match::any(), Act::Hang)), ("fails", fails)] {
            let added = RefCell::new(None);
            let breaks = || drop(added.replace(Some(proxy.add(rule))));
            nobody_else_notices(&place, &mut daemon, what, breaks, || proxy.clear());
            let rule = added.into_inner().expect("it was added");
            assert!(rule.acted() > 0, "{what}: nobody asked it");
        }
        place.check(daemon);
    });
}

#[cfg(feature = "aws-kms")]
#[test]
fn a_keyring_moves_from_a_token_to_vault_and_on_to_kms_under_load() {
    use crate::harness::setup::HSM;
    use crate::load::under_load;
    use crate::moved::moves;
    use crate::{CLIENTS, ONE_LOAD, patient, records};

    const TEST: &str = "servers::a_keyring_moves_from_a_token_to_vault_and_on_to_kms_under_load";
    let _alone = ONE_LOAD.lock().unwrap_or_else(PoisonError::into_inner);
    on_softhsm(TEST, |hsm| {
        let (vault, kms) = (Vault::start(&["test"]), crate::kms::Kms::account_of(TEST));
        let setup = with_kms(Setup::new().keystore("vault", &vault.table()), &kms, &kms.url());
        let place = Place::new(hsm, setup.keyring(Keyring::jwt("access", "ES256").timing(SECONDS)));
        patient(&place);
        let mut daemon = place.start();
        under_load(&mut daemon, ("access", CLIENTS), |_, load| {
            moves(&place, load, HSM, "vault");
            moves(&place, load, "vault", "kms");
        });
        place.check(daemon);
        let made = |keystore: &str| records(&place, "key.requested").iter().filter(|record| record["keystore"] == keystore).count();
        assert!([HSM, "vault", "kms"].into_iter().all(|keystore| made(keystore) >= 1), "each made keys");
        let (code, report) = place.verify(&["--rotation", "--min-size", "1", "--trust", place.trust().to_str().expect("a plain path")]);
        assert_eq!(code, 0, "{report}");
    });
}
