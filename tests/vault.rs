//! The Vault adapter on a real Vault, over TLS, with AppRole and the shipped policy: the keystore contract, and what is special about Vault.
//!
//! In scope: the adapter as it is, beside one server that may be sealed, stopped and set up wrongly. Out of scope: the daemon over it.

use std::sync::Arc;
use std::time::Duration;

use claviger::clock::{Clock as _, SystemClock};
use claviger::keystore::vault::VaultKeystore;
use claviger::keystore::{Keystore as _, KeystoreError, Made, Signature, Terms};
use claviger_audit::Algorithm;
use claviger_audit::names::KeyName;
use serde_json::Value;

use crate::support::contract::{Contract, input, verify};
use crate::support::vault::Vault;

mod support;

#[path = "vault/adoption.rs"]
mod adoption;
#[path = "vault/doctor.rs"]
mod doctor;
#[path = "vault/faults.rs"]
mod faults;
#[path = "vault/life.rs"]
mod life;
#[path = "vault/live.rs"]
mod live;
#[path = "vault/login.rs"]
mod login;
#[path = "vault/policy.rs"]
mod policy;
#[path = "vault/transport.rs"]
mod transport;

/// The installation of the keys that are made here.
const INSTALLATION: &str = "special";
/// Generous, because a loaded machine must not fail a test.
const PATIENCE: Duration = Duration::from_secs(30);

fn clock() -> Arc<SystemClock> {
    Arc::new(SystemClock::start())
}

fn name(number: u32) -> KeyName {
    KeyName::new(INSTALLATION, "vault", number, 0xabad_cafe).expect("a well-formed name")
}

/// A keystore that answers.
async fn opened(vault: &Vault, clock: &Arc<SystemClock>) -> VaultKeystore {
    let keystore = vault.open(clock.clone());
    healthy(&keystore).await;
    keystore
}

/// Asks until the keystore is healthy.
async fn healthy(keystore: &VaultKeystore) {
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
    let outcome = tokio::time::timeout(PATIENCE, asking).await;
    assert!(outcome.is_ok(), "still {last:?}");
}

async fn signed(keystore: &VaultKeystore, clock: &SystemClock, made: &Made, message: &[u8]) -> Result<Signature, KeystoreError> {
    let terms = Terms::own(clock.monotonic().plus(PATIENCE));
    let outcome = keystore.sign(&made.locator, Algorithm::ES256, input(Algorithm::ES256, message), terms).await;
    outcome.inspect(|signature| verify(&made.public, Algorithm::ES256, message, &signature.bytes))
}

/// The requests in the audit file on paths that end so, whose answer was no error: those that were carried out.
fn audited(vault: &Vault, path: &str) -> Vec<Value> {
    let done = |entry: &Value| entry["type"] == "response" && entry["error"].is_null();
    let on = |entry: &Value| entry["request"]["path"].as_str().is_some_and(|asked| asked.ends_with(path));
    vault.audited().into_iter().filter(|entry| done(entry) && on(entry)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_carries_the_id_that_the_audit_device_wrote() {
    let vault = Vault::start(&[INSTALLATION]);
    let clock = clock();
    let keystore = opened(&vault, &clock).await;
    let made = keystore.create(&name(1), Algorithm::ES256).await.expect("made");
    let signature = signed(&keystore, &clock, &made, b"a message").await.expect("signed");
    let ids =
        |entries: Vec<Value>| entries.iter().map(|entry| entry["request"]["id"].as_str().expect("an id").to_owned()).collect::<Vec<_>>();
    assert_eq!(ids(audited(&vault, &format!("transit/sign/{}", name(1)))), [signature.backend_request.expect("an id")]);
    assert!(ids(vault.audited()).contains(&made.backend_request.expect("an id")));
}

/// Another keystore, as after a restart, finds the key that was made, and signs with it at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_survive_a_new_keystore() {
    let vault = Vault::start(&[INSTALLATION]);
    let clock = clock();
    let first = opened(&vault, &clock).await;
    let made = first.create(&name(1), Algorithm::ES256).await.expect("made");
    drop(first);
    let second = opened(&vault, &clock).await;
    signed(&second, &clock, &made, b"a message").await.expect("signed");
    let found = second.create(&name(1), Algorithm::ES256).await.expect("found");
    assert_eq!((found.public, found.locator, found.attributes), (made.public, made.locator, made.attributes));
}
