//! Keystores of different kinds in one daemon: a token beside Vault and AWS KMS (on an emulator).
//!
//! In scope: a keyring that moves from a token to Vault and on to KMS under load; a Vault that is sealed or gone, and a KMS that hangs or fails,
//! beside a token that goes on; what `doctor` says of them while the daemon runs. Out of scope: what each of them does by itself (`vault`, `kms_faults`).

#[cfg(feature = "aws-kms")]
use std::{cell::RefCell, sync::PoisonError};

use serde_json::{Value, json};

use crate::dead::nobody_else_notices;
use crate::harness::{Daemon, Keyring, Place, Setup, on_softhsm, until};
use crate::load::SECONDS;
use crate::signs_again;
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

/// Waits until `doctor`, which asks the running daemon, has findings of the keystore that fit.
fn doctor_says(place: &Place<'_>, keystore: &str, fits: impl Fn(&[(bool, String)]) -> bool) {
    until("what doctor says", || {
        let output = place.claviger(&["--output", "json", "doctor"]);
        let told: Value = serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())?;
        let rows = told["findings"].as_array().expect("findings").iter();
        let own = rows.filter(|row| row["what"] == format!("keystore {keystore}").as_str());
        let said: Vec<_> = own.map(|row| (row["fine"] == true, row["text"].as_str().unwrap_or_default().to_owned())).collect();
        if fits(&said) { Ok(()) } else { Err(format!("{said:?}")) }
    });
}

/// Only one thing is wrong, and everything of this is said.
fn only(parts: &[&str]) -> impl Fn(&[(bool, String)]) -> bool {
    move |said| {
        let wrong: Vec<_> = said.iter().filter(|(fine, _)| !fine).collect();
        matches!(wrong.as_slice(), [(_, text)] if parts.iter().all(|part| text.contains(part)))
    }
}

fn fine(said: &[(bool, String)]) -> bool {
    matches!(said, [(true, _)])
}

/// Asks for a token, and expects that the keystore refuses.
fn is_refused(daemon: &mut Daemon, keyring: &str) {
    assert_eq!(daemon.demo().sign(keyring).expect("an answer").problem(503), "keystore_unavailable");
}

#[test]
fn a_running_daemon_says_what_is_wrong_with_vault() {
    on_softhsm("servers::a_running_daemon_says_what_is_wrong_with_vault", |hsm| {
        let vault = Vault::start(&["test"]);
        let setup = Setup::new().keystore("vault", &vault.table()).keyring(Keyring::jwt("left", "ES256").keystore("vault"));
        let place = Place::new(hsm, setup);
        let mut daemon = place.start();
        doctor_says(&place, "vault", fine);

        vault.seal();
        doctor_says(&place, "vault", only(&["answering: ", "sealed", "unseal it"]));
        vault.unseal();
        doctor_says(&place, "vault", fine);

        let shipped = vault.must("GET", "sys/policies/acl/claviger-test", &Value::Null)["data"]["policy"].clone();
        let text = shipped.as_str().expect("a text").replace("path \"transit/sign/", "path \"transit/verify/");
        vault.must("PUT", "sys/policies/acl/claviger-test", &json!({ "policy": text }));
        is_refused(&mut daemon, "left");
        doctor_says(
            &place,
            "vault",
            only(&["signing for keyring left: ", "update", "transit/sign/test.left.", "deploy/vault/claviger.hcl"]),
        );
        vault.must("PUT", "sys/policies/acl/claviger-test", &json!({ "policy": shipped }));
        signs_again(&mut daemon.demo(), "left");
        doctor_says(&place, "vault", fine);
        place.check(daemon);
    });
}

#[cfg(feature = "aws-kms")]
#[test]
fn a_running_daemon_says_what_is_wrong_with_kms() {
    use crate::kms::Kms;
    use crate::proxy::{Match, Proxy, Rule};

    const TEST: &str = "servers::a_running_daemon_says_what_is_wrong_with_kms";
    on_softhsm(TEST, |hsm| {
        let kms = Kms::account_of(TEST);
        let proxy = Proxy::before(kms.address());
        let setup = with_kms(Setup::new(), &kms, &proxy.url()).keyring(Keyring::jwt("left", "ES256").keystore("kms"));
        let place = Place::new(hsm, setup);
        let mut daemon = place.start();
        doctor_says(&place, "kms", fine);

        let refusal = |api: &str, code: &str, message: &str| Rule::aws_error(Match::target(api), 400, code, message);
        proxy.add(refusal("ListAliases", "UnrecognizedClientException", "The security token included in the request is invalid."));
        doctor_says(&place, "kms", only(&["answering: ", "does not know the access key", "give Claviger a valid one"]));
        proxy.clear();
        doctor_says(&place, "kms", fine);

        let denied = "User: arn:aws:iam::1:user/x is not authorized to perform: kms:Sign because no identity-based policy allows it";
        proxy.add(refusal("Sign", "AccessDeniedException", denied));
        // What was made a moment ago may not be known everywhere yet: then it is asked again, and refused in the end.
        is_refused(&mut daemon, "left");
        doctor_says(&place, "kms", only(&["signing for keyring left: ", "AWS denies kms:Sign on arn:aws:kms:", "deploy/aws/policy.json"]));
        proxy.clear();
        signs_again(&mut daemon.demo(), "left");
        doctor_says(&place, "kms", fine);
        place.check(daemon);
    });
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
