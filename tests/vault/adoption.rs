//! Keys that somebody else made or changed are not adopted, whatever is wrong with them; and they are told as they are.

use aws_lc_rs::key_wrap::{AES_256, AesKek, KeyWrapPadded as _};
use aws_lc_rs::rsa::{OAEP_SHA256_MGF1SHA256, OaepPublicEncryptingKey, PublicEncryptingKey};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use claviger::keystore::{Keystore as _, KeystoreError, Locator};
use serde_json::json;

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_claviger_would_not_have_made_is_not_adopted() {
    let vault = Vault::start(&[INSTALLATION]);
    let clock = clock();
    let keystore = opened(&vault, &clock).await;
    let key = |number: u32, more: &str| format!("transit/keys/{}{more}", name(number));
    let p256 = json!({"type": "ecdsa-p256"});

    vault.must("POST", &key(1, ""), &json!({"type": "ecdsa-p256", "exportable": true}));
    vault.must("POST", &key(2, ""), &json!({"type": "ecdsa-p256", "allow_plaintext_backup": true}));
    vault.must("POST", &key(3, ""), &json!({"type": "ecdsa-p256", "auto_rotate_period": "24h"}));
    vault.must("POST", &key(4, ""), &p256);
    vault.must("POST", &key(4, "/rotate"), &json!({}));
    vault.must("POST", &key(5, ""), &json!({"type": "ed25519", "derived": true}));
    vault.must("POST", &key(6, ""), &json!({"type": "aes256-gcm96"}));
    vault.must("POST", &key(7, ""), &p256);
    vault.must("POST", &key(7, "/config"), &json!({"deletion_allowed": true}));
    imported(&vault, &key(8, "/import"));
    vault.must("POST", &key(9, ""), &json!({"type": "ecdsa-p384"}));

    for (number, algorithm, wrong) in [
        (1, Algorithm::ES256, "exportable is true, must be false"),
        (2, Algorithm::ES256, "allow-plaintext-backup is true, must be false"),
        (3, Algorithm::ES256, "auto-rotate-period is 86400, must be 0"),
        (4, Algorithm::ES256, "latest-version is 2, must be 1"),
        (5, Algorithm::Ed25519, "derived is true, must be false"),
        (6, Algorithm::ES256, "type is aes256-gcm96, must be ecdsa-p256"),
        (7, Algorithm::ES256, "deletion-allowed is true, must be false"),
        (8, Algorithm::ES256, "imported is true, must be false"),
        (9, Algorithm::ES256, "type is ecdsa-p384, must be ecdsa-p256"),
    ] {
        let error = keystore.create(&name(number), algorithm).await.expect_err("not adopted");
        assert!(matches!(&error, KeystoreError::Rejected(text) if text.contains(wrong)), "{number}: {error}");
        assert!(error.to_string().contains("look who made or changed this one"), "{error}");
        let seen = keystore.inspect(&Locator::new(format!("transit/{}/1", name(number)))).await.expect("told all the same");
        let (attribute, rest) = wrong.split_once(" is ").expect("an attribute");
        let found = rest.split_once(',').expect("its value").0;
        assert_eq!(seen.attributes[attribute].as_deref(), Some(found), "{number}");
    }
    let listed = keystore.inventory(INSTALLATION).await.expect("listed");
    assert_eq!(listed.len(), 9, "they are told, and not touched");
}

/// A key that was restored from a backup is somewhere else too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_came_out_of_a_backup_is_not_adopted() {
    let vault = Vault::start(&[INSTALLATION]);
    let clock = clock();
    let keystore = opened(&vault, &clock).await;
    let source = json!({"type": "ecdsa-p256", "exportable": true, "allow_plaintext_backup": true});
    vault.must("POST", "transit/keys/elsewhere", &source);
    let backup = vault.must("GET", "transit/backup/elsewhere", &Value::Null)["data"]["backup"].clone();
    vault.must("POST", &format!("transit/restore/{}", name(1)), &json!({"backup": backup}));
    let error = keystore.create(&name(1), Algorithm::ES256).await.expect_err("not adopted").to_string();
    assert!(error.contains("it has backup, must have none") && error.contains("it has restored, must have none"), "{error}");
}

/// Signing goes on with version 1, whoever makes another; the next look tells it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_was_rotated_behind_our_back_signs_as_before() {
    let vault = Vault::start(&[INSTALLATION]);
    let clock = clock();
    let keystore = opened(&vault, &clock).await;
    let made = keystore.create(&name(1), Algorithm::ES256).await.expect("made");
    vault.must("POST", &format!("transit/keys/{}/rotate", name(1)), &json!({}));
    signed(&keystore, &clock, &made, b"a message").await.expect("by version 1: the signature was verified");
    let seen = keystore.inspect(&made.locator).await.expect("told");
    assert_eq!((seen.public, seen.attributes["latest-version"].as_deref()), (Ok(made.public.clone()), Some("2")));
    // Where version 1 may sign no more, nothing is signed by version 2 instead.
    vault.must("POST", &format!("transit/keys/{}/config", name(1)), &json!({"min_encryption_version": 2}));
    let error = signed(&keystore, &clock, &made, b"a message").await.expect_err("not signed");
    assert!(matches!(error, KeystoreError::Rejected(_)), "{error}");
}

/// A key that was deleted and made anew by somebody else is another key: its signature is by another key, which the signer sees; and it is told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_of_another_kind_in_the_place_of_ours_signs_nothing() {
    let vault = Vault::start(&[INSTALLATION]);
    let clock = clock();
    let keystore = opened(&vault, &clock).await;
    let made = keystore.create(&name(1), Algorithm::ES256).await.expect("made");
    let key = format!("transit/keys/{}", name(1));
    vault.must("POST", &format!("{key}/config"), &json!({"deletion_allowed": true}));
    vault.must("DELETE", &key, &Value::Null);
    assert!(matches!(signed(&keystore, &clock, &made, b"x").await, Err(KeystoreError::Gone(_))));
    vault.must("POST", &key, &json!({"type": "ed25519"}));
    let error = signed(&keystore, &clock, &made, b"x").await.expect_err("not signed");
    assert!(matches!(&error, KeystoreError::Rejected(text) if text.contains("of another kind")), "{error}");
}

/// Brings a key of our own into Vault (its documentation, "bring your own key"): AES key wrapping with padding under a key that is encrypted
/// for Vault's wrapping key.
fn imported(vault: &Vault, path: &str) {
    let wrapping = vault.must("GET", "transit/wrapping_key", &Value::Null)["data"]["public_key"].as_str().expect("PEM").to_owned();
    let body: String = wrapping.lines().filter(|line| !line.starts_with("-----")).collect();
    let wrapping = PublicEncryptingKey::from_der(&STANDARD.decode(body).expect("base64")).expect("an RSA key");
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &aws_lc_rs::rand::SystemRandom::new()).expect("a key");
    let ephemeral = [7; 32];
    let mut wrapped = vec![0; pkcs8.as_ref().len() + 15];
    let wrapped =
        AesKek::new(&AES_256, &ephemeral).expect("a key").wrap_with_padding(pkcs8.as_ref(), &mut wrapped).expect("wrapped").to_vec();
    let oaep = OaepPublicEncryptingKey::new(wrapping).expect("an OAEP key");
    let mut encrypted = vec![0; oaep.ciphertext_size()];
    let encrypted = oaep.encrypt(&OAEP_SHA256_MGF1SHA256, &ephemeral, &mut encrypted, None).expect("encrypted");
    let ciphertext = STANDARD.encode([encrypted, wrapped.as_slice()].concat());
    vault.must("POST", path, &json!({"type": "ecdsa-p256", "ciphertext": ciphertext, "hash_function": "SHA256"}));
}
