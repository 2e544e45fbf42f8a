//! The log keys: how they are made and proved, and how they sign checkpoints.
//!
//! In scope: one key per log, in a configured keystore, for the log alone. Out of scope: any way for a caller, a policy or a request to reach
//! one: they are in no keyring.

use std::sync::Arc;
use std::time::Duration;

use claviger_audit::Algorithm;
use claviger_audit::merkle::Hash;
use claviger_audit::names::{KeyName, LOG_KEYRING};
use claviger_audit::note::{SignatureType, VerifierKey, signed_note};

use crate::clock::Clock;
use crate::journal::{LogKey, SignNote, Signers};
use crate::keystore::{Input, Keystore, KeystoreError, Locator, Made, Terms};
use crate::signer::Keystores;

/// Longer than any request may take: nobody waits for a checkpoint.
const DEADLINE: Duration = Duration::from_secs(20);

/// What a new log key signs before the log names it. No checkpoint can read like this: it would have three lines.
const PROOF: &str = "claviger: this key can sign\n";

/// What signs with the log keys in these keystores. Without the keystore of a key its records go on uncovered.
pub fn signers(keystores: Keystores, clock: Arc<dyn Clock>) -> Signers {
    Arc::new(move |key: &LogKey| match keystores.get(&key.keystore) {
        Some(keystore) => sign_note(keystore.clone(), key, clock.clone()),
        None => never(format!("keystore {:?}, which holds the log key, is not configured", key.keystore)),
    })
}

/// Signs with a log key that lives in this keystore.
pub fn sign_note(keystore: Arc<dyn Keystore>, key: &LogKey, clock: Arc<dyn Clock>) -> SignNote {
    let ed25519 = key.key.signature_type() == SignatureType::Ed25519;
    let locator = Arc::new(Locator::new(&key.locator));
    Arc::new(move |text: Vec<u8>| {
        let (keystore, locator, clock) = (keystore.clone(), locator.clone(), clock.clone());
        Box::pin(async move {
            let (algorithm, input) = if ed25519 {
                (Algorithm::Ed25519, Input::Message(text))
            } else {
                (Algorithm::ES256, Input::Digest(Hash::digest(&text).as_bytes().to_vec()))
            };
            let signed = keystore.sign(&locator, algorithm, input, Terms::own(clock.monotonic().plus(DEADLINE))).await;
            signed.map(|signature| signature.bytes).map_err(|error| error.to_string())
        })
    })
}

/// Signs nothing, and says why.
fn never(reason: String) -> SignNote {
    Arc::new(move |_| {
        let reason = reason.clone();
        Box::pin(async move { Err(reason) })
    })
}

/// Lets a key sign something, and verifies it: a log must not be handed over to a key that cannot.
pub async fn prove(signers: &Signers, key: &LogKey) -> Result<(), KeystoreError> {
    let rejected = |text: String| KeystoreError::Rejected(format!("the new log key cannot sign: {text}"));
    let raw = signers(key)(PROOF.as_bytes().to_vec()).await.map_err(rejected)?;
    let raw: [u8; 64] = raw.try_into().map_err(|_| rejected("its signature has not 64 bytes".to_owned()))?;
    signed_note(PROOF, &[(&key.key, raw)]).map(drop).map_err(|error| rejected(error.to_string()))
}

/// The name of a log key. `init` makes number 1 for the key log and 2 for the use log; each rotation makes the next.
pub fn name(installation: &str, number: u32, claim: u32) -> Option<KeyName> {
    KeyName::new(installation, LOG_KEYRING, number, claim).ok()
}

/// Names for two log keys that nobody ever had.
pub fn new_names(installation: &str, numbers: [u32; 2]) -> Result<[KeyName; 2], KeystoreError> {
    let mut claims = [[0; 4]; 2];
    let rejected = |text: &str| KeystoreError::Rejected(text.to_owned());
    getrandom::fill(claims.as_flattened_mut()).map_err(|_| rejected("the system has no randomness to give"))?;
    let too_long = || rejected("the installation's name does not fit into a key name");
    let new = |index: usize| name(installation, numbers[index], u32::from_be_bytes(claims[index])).ok_or_else(too_long);
    Ok([new(0)?, new(1)?])
}

/// Finds or creates a log key: Ed25519 (C2SP signature type 0x01), or ECDSA P-256 (0x02) where the keystore has no Ed25519.
pub async fn make(keystore: &dyn Keystore, name: &KeyName, origin: &str) -> Result<(VerifierKey, Made), KeystoreError> {
    let made = match keystore.create(name, Algorithm::Ed25519).await {
        Err(first @ KeystoreError::Rejected(_)) => match keystore.create(name, Algorithm::ES256).await {
            // It was not the algorithm, then.
            Err(KeystoreError::Rejected(_)) => Err(first),
            made => made,
        },
        made => made,
    }?;
    let key = VerifierKey::from_jwk(origin, &made.public);
    key.map(|key| (key, made)).map_err(|error| KeystoreError::Rejected(format!("the new log key cannot be used: {error}")))
}
