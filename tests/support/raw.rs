//! A module asked past the keystore: what a test must know or do that no keystore would.
//!
//! The module is loaded once in a process, and its users share its logins, so a session made here sees what the keystores see.

use aws_lc_rs::encoding::{AsBigEndian as _, EcPrivateKeyBin};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use claviger_audit::Algorithm;
use claviger_audit::algorithm::KeyShape;
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::MechanismType;
use cryptoki::object::{Attribute, KeyType, ObjectClass};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::Slot;
use sha2::{Digest as _, Sha256};

use super::tokens::{PIN, Tokens};

/// The curve of ES256 (RFC 5480 section 2.1.1.1).
const P256: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];

impl Tokens {
    /// The module, initialised by this call or before.
    pub(crate) fn loaded(&self) -> Pkcs11 {
        let module = Pkcs11::new(self.library()).expect("the module is installed");
        match module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
            Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => module,
            Err(error) => panic!("{error}"),
        }
    }

    /// A session of the logged-in user. A keystore that initialises the module again ends it.
    pub(crate) fn session(&self, label: &str) -> Session {
        let module = self.loaded();
        let session = module.open_rw_session(slot(&module, label)).expect("a session");
        match session.login(UserType::User, Some(&PIN.into())) {
            Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => session,
            Err(error) => panic!("{error}"),
        }
    }

    /// The algorithms for which the token's list of mechanisms has no way to make a key, or none to sign.
    pub(crate) fn lacks(&self, label: &str) -> Vec<Algorithm> {
        let module = self.loaded();
        let listed = module.get_mechanism_list(slot(&module, label)).expect("a list of mechanisms");
        let lacks = |algorithm: &Algorithm| mechanisms(*algorithm).iter().any(|mechanism| !listed.contains(mechanism));
        Algorithm::ALL.into_iter().filter(lacks).collect()
    }

    /// Gives the token a private key for ES256 that was never made in it, and its public half.
    pub(crate) fn import_pair(&self, label: &str, name: &str, id: &[u8]) {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key pair");
        let secret: EcPrivateKeyBin<'_> = pair.private_key().as_be_bytes().expect("its scalar");
        let private = [
            Attribute::Class(ObjectClass::PRIVATE_KEY),
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
            Attribute::Sign(true),
            Attribute::Value(secret.as_ref().to_vec()),
        ];
        self.import(label, name, id, &private);
        self.import_public(label, name, id, pair.public_key().as_ref());
    }

    /// Gives the token a public key for ES256 without a private half.
    pub(crate) fn import_public_half(&self, label: &str, name: &str, id: &[u8]) {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key pair");
        self.import_public(label, name, id, pair.public_key().as_ref());
    }

    fn import_public(&self, label: &str, name: &str, id: &[u8], point: &[u8]) {
        let octets = [&[0x04, u8::try_from(point.len()).expect("a short point")], point].concat();
        let public =
            [Attribute::Class(ObjectClass::PUBLIC_KEY), Attribute::Private(false), Attribute::Verify(true), Attribute::EcPoint(octets)];
        self.import(label, name, id, &public);
    }

    fn import(&self, label: &str, name: &str, id: &[u8], own: &[Attribute]) {
        let common = [
            Attribute::Token(true),
            Attribute::KeyType(KeyType::EC),
            Attribute::EcParams(P256.to_vec()),
            Attribute::Label(name.as_bytes().to_vec()),
            Attribute::Id(id.to_vec()),
        ];
        self.session(label).create_object(&[own, &common].concat()).expect("C_CreateObject");
    }

    /// Destroys the private key with this `CKA_ID`, and leaves its public half.
    pub(crate) fn remove_private_half(&self, label: &str, id: &[u8]) {
        let session = self.session(label);
        let found = session.find_objects(&[Attribute::Class(ObjectClass::PRIVATE_KEY), Attribute::Id(id.to_vec())]).expect("a search");
        let [private] = found.as_slice() else { panic!("{found:?}") };
        session.destroy_object(*private).expect("destroyed");
    }
}

/// The `CKA_ID` of the key with this name.
pub(crate) fn id_of(name: &str) -> Vec<u8> {
    Sha256::digest(name)[..20].to_vec()
}

fn slot(module: &Pkcs11, label: &str) -> Slot {
    let slots = module.get_slots_with_token().expect("slots");
    let fits = |slot: &Slot| module.get_token_info(*slot).is_ok_and(|token| token.token_initialized() && token.label() == label);
    slots.into_iter().find(fits).expect("a token with this label")
}

/// What makes a key for this algorithm, and what signs with it.
fn mechanisms(algorithm: Algorithm) -> [MechanismType; 2] {
    use Algorithm as A;
    match (algorithm, algorithm.key_shape()) {
        (_, KeyShape::Ed25519) => [MechanismType::ECC_EDWARDS_KEY_PAIR_GEN, MechanismType::EDDSA],
        (_, KeyShape::P256 | KeyShape::P384 | KeyShape::P521) => [MechanismType::ECC_KEY_PAIR_GEN, MechanismType::ECDSA],
        (A::PS256 | A::PS384 | A::PS512, _) => [MechanismType::RSA_PKCS_KEY_PAIR_GEN, MechanismType::RSA_PKCS_PSS],
        _ => [MechanismType::RSA_PKCS_KEY_PAIR_GEN, MechanismType::RSA_PKCS],
    }
}
