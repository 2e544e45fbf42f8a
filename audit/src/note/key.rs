//! Verifier keys (C2SP signed-note, "Verifier keys"): the text form by which a verifier is told whom to trust.
//!
//! In scope: Ed25519 and ECDSA P-256 keys of logs, Ed25519 keys of cosigners (C2SP tlog-cosignature), and checking their signatures.
//! Out of scope: private keys, and the signature types that C2SP assigns besides (ML-DSA-44 among them), which are refused by name.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::VerifyingKey as Ed25519Key;
use p256::ecdsa::VerifyingKey as P256Key;
use p256::ecdsa::signature::Verifier as _;
use sha2::{Digest as _, Sha256};

use crate::jwk::{Curve, PublicKey};

/// `SubjectPublicKeyInfo` of a P-256 key (RFC 5480 section 2) up to the uncompressed point of 65 bytes, which ends it.
const P256_SPKI_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01,
    0x07, 0x03, 0x42, 0x00,
];

/// The identifier byte that C2SP signed-note assigns to a kind of signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum SignatureType {
    /// `0x01`: Ed25519 over the text of the note.
    Ed25519 = 0x01,
    /// `0x02`: ECDSA P-256 over the SHA-256 of the text, as ASN.1 DER.
    EcdsaP256 = 0x02,
    /// `0x04`: an Ed25519 cosignature over a checkpoint, with a time (C2SP tlog-cosignature).
    CosignatureEd25519 = 0x04,
}

/// The four bytes that name a key together with its key name; eight hexadecimal digits as text.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KeyId([u8; 4]);

impl KeyId {
    /// An identifier from its bytes, which stand first in a signature.
    pub const fn from_bytes(bytes: [u8; 4]) -> Self {
        Self(bytes)
    }

    /// The four bytes.
    pub const fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", u32::from_be_bytes(self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

/// A public key that signs notes, with its name. As text: `<name>+<key ID>+<base64(type || key)>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    id: KeyId,
    material: Material,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Material {
    Ed25519(Ed25519Key),
    EcdsaP256(P256Key),
    CosignatureEd25519(Ed25519Key),
}

/// Why text or a public key is not a verifier key.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum VerifierKeyError {
    /// Not three parts joined by `+`.
    #[error("a verifier key has the form <name>+<8 lower-case hex digits>+<base64>")]
    Form,
    /// The name is empty or holds white space, a control character or `+`.
    #[error("the key name is empty, or holds white space, a control character or a plus sign")]
    Name,
    /// The third part is not padded standard base64 of a type byte and a key.
    #[error("the last part of a verifier key is padded standard base64 (RFC 4648 section 4) of a type byte and the public key")]
    Encoding,
    /// A signature type that cannot be verified here.
    #[error("signature type {0:#04x} is not supported: use Ed25519 (0x01), ECDSA P-256 (0x02), or an Ed25519 cosigner (0x04)")]
    Type(u8),
    /// The key bytes are not a usable public key of that type.
    #[error("the key bytes are not a valid public key of this signature type (32 bytes for Ed25519, P-256 SubjectPublicKeyInfo for ECDSA)")]
    Key,
    /// The identifier in the text does not belong to name and key.
    #[error("the key ID is {found}, but name and public key give {expected}: part of the text was changed or mistyped")]
    Id {
        /// What name and key give.
        expected: KeyId,
        /// What the text says.
        found: KeyId,
    },
}

/// A signature did not verify; there is deliberately no more to say.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BadSignature;

impl VerifierKey {
    /// The verifier key of a log: `public` must be P-256 or Ed25519.
    pub fn from_jwk(name: &str, public: &PublicKey) -> Result<Self, VerifierKeyError> {
        let point = public.raw_point().ok_or(VerifierKeyError::Key)?;
        let material = match public {
            PublicKey::Ec { crv: Curve::P256, .. } => {
                Material::new(SignatureType::EcdsaP256, &[&P256_SPKI_PREFIX, point.as_slice()].concat())
            }
            PublicKey::Okp { crv: Curve::Ed25519, .. } => Material::new(SignatureType::Ed25519, &point),
            _ => None,
        };
        Self::new(name, material.ok_or(VerifierKeyError::Key)?)
    }

    fn new(name: &str, material: Material) -> Result<Self, VerifierKeyError> {
        if !is_key_name(name) {
            return Err(VerifierKeyError::Name);
        }
        let id = material.key_id(name);
        Ok(Self { name: name.to_owned(), id, material })
    }

    /// The name; for a log's key this is the origin of the log.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The identifier.
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// What kind of signature this key makes.
    pub fn signature_type(&self) -> SignatureType {
        self.material.signature_type()
    }

    /// The encoded public key: 32 bytes, or DER of `SubjectPublicKeyInfo`. Equal bytes are the same key under any name.
    pub fn public_key(&self) -> Vec<u8> {
        self.material.encode()
    }

    /// Checks a signature over the text of a note; gives the time that a cosigner states.
    pub(super) fn verify(&self, text: &str, signature: &[u8]) -> Result<Option<u64>, BadSignature> {
        match &self.material {
            Material::Ed25519(key) => verify_ed25519(key, text.as_bytes(), signature).map(|()| None),
            Material::EcdsaP256(key) => {
                let signature = p256::ecdsa::Signature::from_der(signature).map_err(|_| BadSignature)?;
                key.verify(text.as_bytes(), &signature).map(|()| None).map_err(|_| BadSignature)
            }
            Material::CosignatureEd25519(key) => {
                let (time, signature) = signature.split_first_chunk::<8>().ok_or(BadSignature)?;
                let time = u64::from_be_bytes(*time);
                let message = format!("cosignature/v1\ntime {time}\n{text}");
                verify_ed25519(key, message.as_bytes(), signature).map(|()| Some(time))
            }
        }
    }

    /// The bytes of a signature line for a keystore's raw signature; `None` for cosigners, which are never ours, and impossible values.
    pub(super) fn encode_signature(&self, raw: &[u8; 64]) -> Option<Vec<u8>> {
        match self.signature_type() {
            SignatureType::Ed25519 => Some(raw.to_vec()),
            SignatureType::EcdsaP256 => super::ecdsa_der_from_raw(raw),
            SignatureType::CosignatureEd25519 => None,
        }
    }
}

impl Material {
    fn new(signature_type: SignatureType, encoded: &[u8]) -> Option<Self> {
        // A weak key (of small order) verifies signatures that nobody made.
        let ed25519 = || Ed25519Key::from_bytes(encoded.try_into().ok()?).ok().filter(|key| !key.is_weak());
        match signature_type {
            SignatureType::Ed25519 => Some(Self::Ed25519(ed25519()?)),
            SignatureType::CosignatureEd25519 => Some(Self::CosignatureEd25519(ed25519()?)),
            SignatureType::EcdsaP256 => {
                let point = encoded.strip_prefix(&P256_SPKI_PREFIX).filter(|point| point.len() == 65 && point[0] == 4)?;
                Some(Self::EcdsaP256(P256Key::from_sec1_bytes(point).ok()?))
            }
        }
    }

    fn signature_type(&self) -> SignatureType {
        match self {
            Self::Ed25519(_) => SignatureType::Ed25519,
            Self::EcdsaP256(_) => SignatureType::EcdsaP256,
            Self::CosignatureEd25519(_) => SignatureType::CosignatureEd25519,
        }
    }

    fn encode(&self) -> Vec<u8> {
        match self {
            Self::Ed25519(key) | Self::CosignatureEd25519(key) => key.as_bytes().to_vec(),
            Self::EcdsaP256(key) => [P256_SPKI_PREFIX.as_slice(), key.to_sec1_point(false).as_bytes()].concat(),
        }
    }

    /// `SHA-256(name || LF || type || key)[:4]`, except that ECDSA keys, by the same specification, hash the key alone.
    fn key_id(&self, name: &str) -> KeyId {
        let mut hasher = Sha256::new();
        if !matches!(self, Self::EcdsaP256(_)) {
            hasher.update(name.as_bytes());
            hasher.update([b'\n', self.signature_type() as u8]);
        }
        hasher.update(self.encode());
        let hash: [u8; 32] = hasher.finalize().into();
        KeyId([hash[0], hash[1], hash[2], hash[3]])
    }
}

impl FromStr for VerifierKey {
    type Err = VerifierKeyError;

    fn from_str(text: &str) -> Result<Self, VerifierKeyError> {
        // The base64 part may itself hold plus signs.
        let mut parts = text.splitn(3, '+');
        let (Some(name), Some(id), Some(encoded)) = (parts.next(), parts.next(), parts.next()) else { return Err(VerifierKeyError::Form) };
        let digits = id.len() == 8 && id.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        let found = u32::from_str_radix(id, 16).ok().filter(|_| digits).ok_or(VerifierKeyError::Form)?;
        let decoded = STANDARD.decode(encoded).map_err(|_| VerifierKeyError::Encoding)?;
        let (tag, encoded) = decoded.split_first().ok_or(VerifierKeyError::Encoding)?;
        let signature_type = match tag {
            0x01 => SignatureType::Ed25519,
            0x02 => SignatureType::EcdsaP256,
            0x04 => SignatureType::CosignatureEd25519,
            other => return Err(VerifierKeyError::Type(*other)),
        };
        let key = Self::new(name, Material::new(signature_type, encoded).ok_or(VerifierKeyError::Key)?)?;
        let found = KeyId(found.to_be_bytes());
        if key.id == found { Ok(key) } else { Err(VerifierKeyError::Id { expected: key.id, found }) }
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut encoded = vec![self.signature_type() as u8];
        encoded.extend(self.public_key());
        write!(f, "{}+{}+{}", self.name, self.id, STANDARD.encode(encoded))
    }
}

/// C2SP: key names are not empty and hold neither Unicode spaces nor `+`; notes hold no control characters.
pub(super) fn is_key_name(name: &str) -> bool {
    !name.is_empty() && !name.chars().any(|c| c.is_whitespace() || c < ' ' || c == '+')
}

/// Strict in the sense of ed25519-dalek: no small-order points, no second encoding of the same signature.
fn verify_ed25519(key: &Ed25519Key, message: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
    let signature = ed25519_dalek::Signature::from_slice(signature).map_err(|_| BadSignature)?;
    key.verify_strict(message, &signature).map_err(|_| BadSignature)
}
