//! One throw-away key and what is done with it: making, signing, and verifying outside of the token.
//!
//! In scope: the same steps as the adapter's own, one at a time, so that each can be judged. Out of scope: what the outcomes mean.

use claviger_audit::Algorithm;
use claviger_audit::jwk::PublicKey;
use claviger_audit::names::KeyName;
use cryptoki::object::ObjectHandle;
use cryptoki::session::Session;
use serde_json::Map;

use crate::jose::{Protected, SigningInput, Verifier};
use crate::keystore::Input;
use crate::keystore::pkcs11::fault::Fault;
use crate::keystore::pkcs11::mechanism;
use crate::keystore::pkcs11::objects::{self, Found};
use crate::keystore::pkcs11::profile::DeviceProfile;

/// A key that can be signed with, by its handle.
#[derive(Clone)]
pub(super) struct TrialKey {
    pub(super) name: KeyName,
    pub(super) algorithm: Algorithm,
    pub(super) object: ObjectHandle,
    width: usize,
    public: PublicKey,
}

impl TrialKey {
    /// The key that was found under this name.
    pub(super) fn new(name: &KeyName, algorithm: Algorithm, found: &Found) -> Self {
        Self {
            name: name.clone(),
            algorithm,
            object: found.private,
            width: mechanism::signature_width(found.shape, found.modulus()),
            public: found.public.clone(),
        }
    }

    /// Makes a key with Claviger's template, and finds it.
    pub(super) fn make(session: &Session, name: &KeyName, algorithm: Algorithm) -> Result<Self, Fault> {
        objects::generate(session, name, algorithm.key_shape(), &DeviceProfile::default())?;
        Self::find(session, name, algorithm)
    }

    /// Finds it by its `CKA_ID`, as each new epoch does.
    pub(super) fn find(session: &Session, name: &KeyName, algorithm: Algorithm) -> Result<Self, Fault> {
        let id = objects::id_of(name);
        let found = objects::find(session, &id)?.ok_or_else(|| Fault::Missing(objects::hex(&id)))?;
        Ok(Self::new(name, algorithm, &found))
    }

    /// Signs with this key's handle, whatever that names by now.
    pub(super) fn sign(&self, session: &Session, input: &SigningInput) -> Result<Vec<u8>, Fault> {
        mechanism::sign(session, self.object, self.algorithm, &hashed_once(input), self.width)
    }

    /// Signs a digest that is one byte short, which no caller of the keystore can ask for; `None` for Ed25519, which takes any message.
    pub(super) fn sign_short(&self, session: &Session) -> Option<Result<Vec<u8>, Fault>> {
        let length = self.algorithm.hash()?.digest_length() - 1;
        Some(mechanism::sign(session, self.object, self.algorithm, &Input::Digest(vec![7; length]), self.width))
    }

    /// Whether this key made the signature.
    pub(super) fn made(&self, input: &SigningInput, signature: &[u8]) -> bool {
        Verifier::new(&self.public, self.algorithm).is_ok_and(|verifier| verifier.verify(input, signature).is_ok())
    }

    /// Whether it is the same key.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.public == other.public
    }
}

fn hashed_once(input: &SigningInput) -> Input {
    input.digest.clone().map_or_else(|| Input::Message(input.message().to_vec()), Input::Digest)
}

/// What is signed in a trial: a JWS that nobody could take for a token of an issuer.
pub(super) fn message(algorithm: Algorithm, text: &str) -> SigningInput {
    let protected = Protected {
        algorithm,
        kid: super::PREFIX.to_owned(),
        typ: Some("claviger-hsm-check".to_owned()),
        more: Map::new(),
        encode_payload: true,
    };
    SigningInput::new(&protected, text.as_bytes(), false)
}
