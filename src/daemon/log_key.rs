//! The log keys: how they are made, and how they sign checkpoints.
//!
//! In scope: one key per log, in a configured keystore, for the log alone. Out of scope: any way for a caller, a policy or a request to reach
//! one: they are in no keyring.

use std::sync::Arc;
use std::time::Duration;

use claviger_audit::Algorithm;
use claviger_audit::merkle::Hash;
use claviger_audit::names::{KeyName, LOG_KEYRING};
use claviger_audit::note::{SignatureType, VerifierKey};

use crate::clock::Clock;
use crate::journal::SignNote;
use crate::keystore::{Input, Keystore, KeystoreError, Locator, Made};

/// Longer than any request may take: nobody waits for a checkpoint.
const DEADLINE: Duration = Duration::from_secs(20);

/// Signs the checkpoints of the log whose verifier key this is.
pub fn sign_note(keystore: Arc<dyn Keystore>, locator: String, key: &VerifierKey, clock: Arc<dyn Clock>) -> SignNote {
    let ed25519 = key.signature_type() == SignatureType::Ed25519;
    let locator = Arc::new(Locator::new(locator));
    Arc::new(move |text: Vec<u8>| {
        let (keystore, locator, clock) = (keystore.clone(), locator.clone(), clock.clone());
        Box::pin(async move {
            let (algorithm, input) = if ed25519 {
                (Algorithm::Ed25519, Input::Message(text))
            } else {
                (Algorithm::ES256, Input::Digest(Hash::digest(&text).as_bytes().to_vec()))
            };
            let signed = keystore.sign(&locator, algorithm, input, clock.monotonic().plus(DEADLINE)).await;
            signed.map(|signature| signature.bytes).map_err(|error| error.to_string())
        })
    })
}

/// Signs nothing, and says why: the records go on, and are not covered.
pub fn never(reason: String) -> SignNote {
    Arc::new(move |_| {
        let reason = reason.clone();
        Box::pin(async move { Err(reason) })
    })
}

/// Names for two log keys that nobody ever had. `init` numbers that of the key log 1 and that of the use log 2; later ones count on.
pub fn new_names(installation: &str, numbers: [u32; 2]) -> Result<[KeyName; 2], KeystoreError> {
    let mut claims = [[0; 4]; 2];
    let rejected = |text: &str| KeystoreError::Rejected(text.to_owned());
    getrandom::fill(claims.as_flattened_mut()).map_err(|_| rejected("the system has no randomness to give"))?;
    let name = |number, claim| {
        KeyName::new(installation, LOG_KEYRING, number, u32::from_be_bytes(claim)).map_err(|error| rejected(&error.to_string()))
    };
    Ok([name(numbers[0], claims[0])?, name(numbers[1], claims[1])?])
}

/// Finds or creates a log key: Ed25519 (C2SP signature type 0x01), or ECDSA P-256 (0x02) where the keystore has no Ed25519.
pub async fn make(keystore: &dyn Keystore, name: &KeyName, origin: &str) -> Result<(VerifierKey, Made), KeystoreError> {
    let made = match keystore.create(name, Algorithm::Ed25519).await {
        Err(KeystoreError::Rejected(_)) => keystore.create(name, Algorithm::ES256).await,
        made => made,
    }?;
    let key = VerifierKey::from_jwk(origin, &made.public);
    key.map(|key| (key, made)).map_err(|error| KeystoreError::Rejected(format!("the new log key cannot be used: {error}")))
}
