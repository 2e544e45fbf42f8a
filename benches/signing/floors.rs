//! What no daemon can do without: `C_Sign` and a verification.
//!
//! In scope: the same token, the same keys and the same libraries as the daemon's, in loops with nothing around them. Out of scope: HTTP
//! (`bare`), and the disk (`common::floor`).

use std::time::Duration;

use aws_lc_rs::digest::{Digest, SHA256, digest};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ParsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use claviger::clock::SystemClock;
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::Slot;
use cryptoki::types::AuthPin;
use serde_json::Value;

use crate::Outcome;
use crate::common::floor::{Floor, side_by_side};
use crate::stage::Stage;

/// The start of an RSA signature's `DigestInfo` for SHA-256 (RFC 8017 section 9.2, note 1).
const DIGEST_INFO: [u8; 19] = [0x30, 0x31, 0x30, 0x0d, 6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1, 5, 0, 4, 0x20];

/// The token as the daemon has it, through the same module, in this process.
pub(crate) struct Token {
    library: Pkcs11,
    slot: Slot,
    /// Keeps the process logged in.
    session: Session,
    clock: SystemClock,
}

/// An algorithm of the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// P-256.
    Es256,
    /// RSA, 2048 bits.
    Rs256,
}

impl Token {
    /// Opens the token and logs in.
    pub(crate) fn open(stage: &Stage) -> Outcome<Self> {
        let library = Pkcs11::new(&stage.module)?;
        library.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK))?;
        let slots = library.get_slots_with_initialized_token()?;
        let named = |slot: &Slot| library.get_token_info(*slot).is_ok_and(|info| info.label().trim_end() == stage.token);
        let slot = slots.into_iter().find(named).ok_or("the token is not there")?;
        let session = library.open_ro_session(slot)?;
        session.login(UserType::User, Some(&AuthPin::new(stage.pin()?.trim().into())))?;
        Ok(Self { library, slot, session, clock: SystemClock::start() })
    }

    /// `C_Sign` with a key that the daemon made, by `threads` threads for `span`.
    pub(crate) fn sign(&self, kind: Kind, threads: usize, span: Duration) -> Outcome<Floor> {
        let key = self.key(kind)?;
        let sessions = (0..threads).map(|_| self.library.open_ro_session(self.slot)).collect::<Result<Vec<_>, _>>()?;
        let mut works: Vec<_> = sessions
            .into_iter()
            .map(|session| {
                move || -> Outcome<()> {
                    let hash = [0x5a; 32];
                    let signature = match kind {
                        Kind::Es256 => session.sign(&Mechanism::Ecdsa, key, &hash)?,
                        Kind::Rs256 => session.sign(&Mechanism::RsaPkcs, key, &[&DIGEST_INFO[..], &hash].concat())?,
                    };
                    if signature.is_empty() { Err("the token gave no signature".into()) } else { Ok(()) }
                }
            })
            .collect();
        side_by_side(&self.clock, &mut works, span)
    }

    fn key(&self, kind: Kind) -> Outcome<ObjectHandle> {
        let key_type = if kind == Kind::Es256 { KeyType::EC } else { KeyType::RSA };
        let wanted = [Attribute::Class(ObjectClass::PRIVATE_KEY), Attribute::Token(true), Attribute::KeyType(key_type)];
        Ok(*self.session.find_objects(&wanted)?.first().ok_or("the daemon made no such key")?)
    }
}

/// A token of the daemon, and what verifies it.
pub(crate) struct Verification {
    key: ParsedPublicKey,
    digest: Digest,
    signature: Vec<u8>,
}

impl Verification {
    /// Takes a reply to `POST /sign` for an ES256 keyring, and the set. The token is verified here once.
    pub(crate) fn new(reply: &str, jwks: &str) -> Outcome<Self> {
        let (reply, jwks): (Value, Value) = (serde_json::from_str(reply)?, serde_json::from_str(jwks)?);
        let token = reply["token"].as_str().ok_or("a reply without a token")?;
        let (input, signature) = token.rsplit_once('.').ok_or("not a compact token")?;
        let keys = jwks["keys"].as_array().ok_or("a set without keys")?;
        let key = keys.iter().find(|key| key["kid"] == reply["kid"]).ok_or("the set does not have the key")?;
        let coordinate = |name: &str| URL_SAFE_NO_PAD.decode(key[name].as_str().unwrap_or_default());
        let point = [vec![4], coordinate("x")?, coordinate("y")?].concat();
        let verification = Self {
            key: ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)?,
            digest: digest(&SHA256, input.as_bytes()),
            signature: URL_SAFE_NO_PAD.decode(signature)?,
        };
        verification.once()?;
        Ok(verification)
    }

    /// Verifications by `threads` threads for `span`.
    pub(crate) fn measure(&self, threads: usize, span: Duration) -> Outcome<Floor> {
        let mut works: Vec<_> = (0..threads).map(|_| || self.once()).collect();
        side_by_side(&SystemClock::start(), &mut works, span)
    }

    fn once(&self) -> Outcome<()> {
        self.key.verify_digest_sig(&self.digest, &self.signature).map_err(|_| "a token of the daemon does not verify".into())
    }
}
