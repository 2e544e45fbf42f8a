//! Which key signs for each keyring, ready to use: its locator, its keystore, its parsed public key.
//!
//! In scope: turning a snapshot of the key log into signing keys, once per change. Out of scope: whether the caller may have a signature.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use claviger_audit::Algorithm;
use claviger_audit::keyrings::{Key, Keyring, Keyrings, State};

use crate::jose::Verifier;
use crate::keystore::{Keystore, Locator};

/// The keystores by their configured names.
pub type Keystores = BTreeMap<String, Arc<dyn Keystore>>;

/// A key that may sign now.
pub(super) struct SigningKey {
    pub(super) kid: String,
    pub(super) algorithm: Algorithm,
    pub(super) locator: Locator,
    pub(super) keystore_name: String,
    pub(super) keystore: Arc<dyn Keystore>,
    pub(super) verifier: Verifier,
    /// Set once a signature of this key did not verify: the handle may name another key. Only a new process uses the key again.
    quarantined: AtomicBool,
}

impl SigningKey {
    pub(super) fn quarantine(&self) {
        self.quarantined.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_quarantined(&self) -> bool {
        self.quarantined.load(Ordering::SeqCst)
    }
}

/// Who signs for a keyring.
#[derive(Clone)]
pub(super) enum Seat {
    Signs(Arc<SigningKey>),
    Suspended,
    /// Nobody: no key is active.
    Vacant,
    /// The key is active, but this process cannot use it; the text says why.
    Unusable(String),
}

/// Every keyring's seat, as of one size of the key log.
pub(super) struct View {
    pub(super) size: u64,
    seats: HashMap<String, Seat>,
}

impl View {
    /// Builds the view of `keyrings`, keeping the parsed keys of the view before.
    pub(super) fn build(keyrings: &Keyrings, keystores: &Keystores, before: Option<&Self>) -> Self {
        let seats = keyrings.all().map(|keyring| (keyring.name.clone(), seat(keyring, keystores, before))).collect();
        Self { size: keyrings.size(), seats }
    }

    /// The keystore of a keyring's signing key, as metrics name it.
    pub(super) fn keystore(&self, keyring: &str) -> String {
        if let Some(Seat::Signs(key)) = self.seats.get(keyring) { key.keystore_name.clone() } else { "none".to_owned() }
    }

    pub(super) fn seat(&self, keyring: &str) -> Seat {
        self.seats.get(keyring).cloned().unwrap_or(Seat::Vacant)
    }
}

fn seat(keyring: &Keyring, keystores: &Keystores, before: Option<&View>) -> Seat {
    let Some(key) = keyring.current() else { return Seat::Vacant };
    if key.state == State::Suspended {
        return Seat::Suspended;
    }
    if let Some(Seat::Signs(known)) = before.map(|view| view.seat(&keyring.name))
        && Some(known.kid.as_str()) == key.kid.as_deref()
    {
        return Seat::Signs(known);
    }
    match signing_key(key, keystores) {
        Ok(key) => Seat::Signs(Arc::new(key)),
        Err(why) => Seat::Unusable(why),
    }
}

fn signing_key(key: &Key, keystores: &Keystores) -> Result<SigningKey, String> {
    let (Some(kid), Some(public), Some(locator)) = (&key.kid, &key.public, &key.locator) else {
        return Err("the key log does not say where the key is".to_owned());
    };
    let keystore = keystores.get(&key.keystore).ok_or_else(|| format!("keystore {:?} is not configured any more", key.keystore))?;
    Ok(SigningKey {
        kid: kid.clone(),
        algorithm: key.algorithm,
        locator: Locator::new(locator.clone()),
        keystore_name: key.keystore.clone(),
        keystore: keystore.clone(),
        verifier: Verifier::new(public, key.algorithm).map_err(|error| error.to_string())?,
        quarantined: AtomicBool::new(false),
    })
}
