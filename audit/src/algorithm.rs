//! The signature algorithms that Claviger knows (RFC 7518 section 3.1, RFC 8037, RFC 9864).
//!
//! In scope: names, key shapes and signature sizes. Out of scope: signing and verifying.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A JWS signature algorithm. `none` and the symmetric `HS*` family have no value here, so they cannot be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum Algorithm {
    ES256,
    ES384,
    ES512,
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    /// Ed25519 under the name of RFC 8037.
    EdDSA,
    /// Ed25519 under the fully specified name of RFC 9864.
    Ed25519,
}

/// The kind of key pair that an algorithm needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum KeyShape {
    P256,
    P384,
    P521,
    /// RSA with a modulus of 2048 bits or more.
    Rsa,
    Ed25519,
}

/// The hash that is computed before signing; Ed25519 (pure) has none and takes the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum HashFunction {
    Sha256,
    Sha384,
    Sha512,
}

impl HashFunction {
    /// The length of the digest, in bytes.
    pub fn digest_length(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }
}

impl Algorithm {
    /// Every algorithm, in the order in which help texts list them.
    pub const ALL: [Self; 11] = [
        Self::ES256,
        Self::ES384,
        Self::ES512,
        Self::RS256,
        Self::RS384,
        Self::RS512,
        Self::PS256,
        Self::PS384,
        Self::PS512,
        Self::EdDSA,
        Self::Ed25519,
    ];

    /// The `alg` value of the JOSE header.
    pub fn name(self) -> &'static str {
        match self {
            Self::ES256 => "ES256",
            Self::ES384 => "ES384",
            Self::ES512 => "ES512",
            Self::RS256 => "RS256",
            Self::RS384 => "RS384",
            Self::RS512 => "RS512",
            Self::PS256 => "PS256",
            Self::PS384 => "PS384",
            Self::PS512 => "PS512",
            Self::EdDSA => "EdDSA",
            Self::Ed25519 => "Ed25519",
        }
    }

    /// The key pair it needs.
    pub fn key_shape(self) -> KeyShape {
        match self {
            Self::ES256 => KeyShape::P256,
            Self::ES384 => KeyShape::P384,
            Self::ES512 => KeyShape::P521,
            Self::EdDSA | Self::Ed25519 => KeyShape::Ed25519,
            _ => KeyShape::Rsa,
        }
    }

    /// The hash that the signer computes, or `None` where the keystore takes the message itself.
    pub fn hash(self) -> Option<HashFunction> {
        match self {
            Self::ES256 | Self::RS256 | Self::PS256 => Some(HashFunction::Sha256),
            Self::ES384 | Self::RS384 | Self::PS384 => Some(HashFunction::Sha384),
            Self::ES512 | Self::RS512 | Self::PS512 => Some(HashFunction::Sha512),
            Self::EdDSA | Self::Ed25519 => None,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The name is not one of [`Algorithm::ALL`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("unknown algorithm {0:?}; known are ES256, ES384, ES512, RS256, RS384, RS512, PS256, PS384, PS512, EdDSA and Ed25519")]
pub struct UnknownAlgorithm(pub String);

impl FromStr for Algorithm {
    type Err = UnknownAlgorithm;

    fn from_str(name: &str) -> Result<Self, UnknownAlgorithm> {
        Self::ALL.into_iter().find(|a| a.name() == name).ok_or_else(|| UnknownAlgorithm(name.to_owned()))
    }
}
