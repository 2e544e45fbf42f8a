//! Public keys as JWK (RFC 7517, RFC 7518 section 6, RFC 8037), and their thumbprints (RFC 7638).
//!
//! In scope: public members only. There is no type here, or anywhere in Claviger, that could hold a private member.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::algorithm::{Algorithm, KeyShape};

/// The public half of a key. Every byte string is big-endian, of the exact width that RFC 7518 demands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kty", deny_unknown_fields)]
pub enum PublicKey {
    /// An elliptic-curve point (RFC 7518 section 6.2).
    #[serde(rename = "EC")]
    Ec {
        /// The curve.
        crv: Curve,
        /// The x coordinate, base64url, 32, 48 or 66 bytes.
        x: String,
        /// The y coordinate, likewise.
        y: String,
    },
    /// An RSA key (RFC 7518 section 6.3).
    #[serde(rename = "RSA")]
    Rsa {
        /// The modulus, base64url, without a leading zero byte.
        n: String,
        /// The public exponent, likewise.
        e: String,
    },
    /// An Ed25519 key (RFC 8037 section 2).
    #[serde(rename = "OKP")]
    Okp {
        /// The curve; `Ed25519` alone.
        crv: Curve,
        /// The public key, base64url, 32 bytes.
        x: String,
    },
}

/// A curve name of the JOSE registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum Curve {
    #[serde(rename = "P-256")]
    P256,
    #[serde(rename = "P-384")]
    P384,
    #[serde(rename = "P-521")]
    P521,
    Ed25519,
}

impl Curve {
    /// The width of one coordinate, in bytes.
    pub fn width(self) -> usize {
        match self {
            Self::P256 | Self::Ed25519 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        }
    }

    /// Its name in the JOSE registry.
    pub fn name(self) -> &'static str {
        match self {
            Self::P256 => "P-256",
            Self::P384 => "P-384",
            Self::P521 => "P-521",
            Self::Ed25519 => "Ed25519",
        }
    }
}

/// Why bytes are not a public key that Claviger accepts.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum JwkError {
    /// A member is not unpadded base64url (RFC 7515 section 2).
    #[error("member {0:?} is not unpadded base64url")]
    Encoding(&'static str),
    /// A coordinate, modulus or exponent has the wrong length or form.
    #[error("member {0:?} has the wrong length or a leading zero byte")]
    Length(&'static str),
    /// The RSA modulus is shorter than 2048 bits (RFC 7518 section 3.3) or longer than 8192, or the exponent is not odd and above 1.
    #[error("RSA key of {0} bits; 2048 to 8192 bits and an odd exponent of at least 3 are accepted")]
    RsaSize(usize),
    /// The curve does not fit the key type.
    #[error("this curve does not belong to this key type")]
    Curve,
}

impl PublicKey {
    /// A key from an uncompressed point without its `0x04` prefix: `x || y`, each as wide as the curve.
    pub fn from_ec_point(crv: Curve, xy: &[u8]) -> Result<Self, JwkError> {
        let width = crv.width();
        if crv == Curve::Ed25519 {
            return Err(JwkError::Curve);
        }
        if xy.len() != 2 * width {
            return Err(JwkError::Length("x"));
        }
        let (x, y) = xy.split_at(width);
        Ok(Self::Ec { crv, x: URL_SAFE_NO_PAD.encode(x), y: URL_SAFE_NO_PAD.encode(y) })
    }

    /// A key from modulus and exponent, big-endian; leading zero bytes are dropped.
    pub fn from_rsa(modulus: &[u8], exponent: &[u8]) -> Result<Self, JwkError> {
        let key = Self::Rsa { n: URL_SAFE_NO_PAD.encode(trim(modulus)), e: URL_SAFE_NO_PAD.encode(trim(exponent)) };
        key.check()?;
        Ok(key)
    }

    /// A key from the 32 bytes of RFC 8032.
    pub fn from_ed25519(x: &[u8; 32]) -> Self {
        Self::Okp { crv: Curve::Ed25519, x: URL_SAFE_NO_PAD.encode(x) }
    }

    /// Checks lengths and forms; call it on every key that came from outside.
    pub fn check(&self) -> Result<(), JwkError> {
        match self {
            Self::Ec { crv: Curve::Ed25519, .. } => Err(JwkError::Curve),
            Self::Ec { crv, x, y } => {
                exact("x", x, crv.width())?;
                exact("y", y, crv.width()).map(drop)
            }
            Self::Okp { crv: Curve::Ed25519, x } => exact("x", x, 32).map(drop),
            Self::Okp { .. } => Err(JwkError::Curve),
            Self::Rsa { n, e } => {
                let (modulus, exponent) = (decode("n", n)?, decode("e", e)?);
                if modulus.first() == Some(&0) || exponent.first() == Some(&0) {
                    return Err(JwkError::Length("n"));
                }
                let bits = modulus.len() * 8 - modulus.first().map_or(0, |b| b.leading_zeros() as usize);
                let odd = exponent.last().is_some_and(|b| b % 2 == 1) && exponent != [1];
                if !(2048..=8192).contains(&bits) || !odd {
                    return Err(JwkError::RsaSize(bits));
                }
                Ok(())
            }
        }
    }

    /// Whether a key of this shape can verify signatures of `algorithm`.
    pub fn fits(&self, algorithm: Algorithm) -> bool {
        matches!(
            (self, algorithm.key_shape()),
            (Self::Ec { crv: Curve::P256, .. }, KeyShape::P256)
                | (Self::Ec { crv: Curve::P384, .. }, KeyShape::P384)
                | (Self::Ec { crv: Curve::P521, .. }, KeyShape::P521)
                | (Self::Rsa { .. }, KeyShape::Rsa)
                | (Self::Okp { .. }, KeyShape::Ed25519)
        )
    }

    /// The RFC 7638 SHA-256 thumbprint, base64url: the `kid` of every key that Claviger makes.
    pub fn thumbprint(&self) -> String {
        // RFC 7638 section 3.2: the required members only, in lexicographic order, without white space.
        let members = match self {
            Self::Ec { crv, x, y } => format!(r#"{{"crv":"{}","kty":"EC","x":"{x}","y":"{y}"}}"#, crv.name()),
            Self::Rsa { n, e } => format!(r#"{{"e":"{e}","kty":"RSA","n":"{n}"}}"#),
            Self::Okp { crv, x } => format!(r#"{{"crv":"{}","kty":"OKP","x":"{x}"}}"#, crv.name()),
        };
        URL_SAFE_NO_PAD.encode(Sha256::digest(members.as_bytes()))
    }

    /// The bytes that a verifier needs: `0x04 || x || y` for EC, 32 bytes for Ed25519, `None` for RSA (see [`Self::rsa_components`]).
    pub fn raw_point(&self) -> Option<Vec<u8>> {
        match self {
            Self::Ec { x, y, .. } => {
                let mut point = vec![4];
                point.extend(decode("x", x).ok()?);
                point.extend(decode("y", y).ok()?);
                Some(point)
            }
            Self::Okp { x, .. } => decode("x", x).ok(),
            Self::Rsa { .. } => None,
        }
    }

    /// Modulus and exponent, big-endian, of an RSA key.
    pub fn rsa_components(&self) -> Option<(Vec<u8>, Vec<u8>)> {
        match self {
            Self::Rsa { n, e } => Some((decode("n", n).ok()?, decode("e", e).ok()?)),
            _ => None,
        }
    }
}

fn trim(bytes: &[u8]) -> &[u8] {
    let zeros = bytes.iter().take_while(|b| **b == 0).count();
    &bytes[zeros..]
}

fn decode(member: &'static str, text: &str) -> Result<Vec<u8>, JwkError> {
    URL_SAFE_NO_PAD.decode(text).map_err(|_| JwkError::Encoding(member))
}

fn exact(member: &'static str, text: &str, width: usize) -> Result<Vec<u8>, JwkError> {
    let bytes = decode(member, text)?;
    if bytes.len() == width { Ok(bytes) } else { Err(JwkError::Length(member)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 7638 section 3.1.
    #[test]
    fn thumbprint_of_rfc_7638() {
        let key = PublicKey::Rsa {
            n: "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw".into(),
            e: "AQAB".into(),
        };
        assert_eq!(key.check(), Ok(()));
        assert_eq!(key.thumbprint(), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
    }

    /// The example of RFC 8037 appendix A.3.
    #[test]
    fn thumbprint_of_rfc_8037() {
        let key = PublicKey::Okp { crv: Curve::Ed25519, x: "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo".into() };
        assert_eq!(key.check(), Ok(()));
        assert_eq!(key.thumbprint(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    }

    #[test]
    fn short_rsa_and_private_members_are_refused() {
        assert!(matches!(PublicKey::from_rsa(&[0x80; 128], &[1, 0, 1]), Err(JwkError::RsaSize(1024))));
        let private = r#"{"kty":"EC","crv":"P-256","x":"AA","y":"AA","d":"AA"}"#;
        assert!(serde_json::from_str::<PublicKey>(private).is_err());
    }
}
