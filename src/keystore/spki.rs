//! Public keys as services hand them out: `SubjectPublicKeyInfo` in DER or PEM (RFC 5280 section 4.1.2.7), read strictly.
//!
//! In scope: RSA (RFC 8017 appendix A.1.1), the curves of RFC 5480 that Claviger uses, and Ed25519 (RFC 8410). Out of scope: whether a point
//! lies on its curve (verifying the first signature shows that), certificates, and private keys, for which there is no type here.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use claviger_audit::jwk::{Curve, PublicKey};

/// `AlgorithmIdentifier` of each curve (RFC 5480 section 2.1.1, RFC 8410 section 3), and how many bytes of a point follow.
const CURVES: [(&[u8], Curve); 4] = [
    (b"\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07", Curve::P256),
    (b"\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x22", Curve::P384),
    (b"\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x23", Curve::P521),
    (b"\x30\x05\x06\x03\x2b\x65\x70", Curve::Ed25519),
];
/// `AlgorithmIdentifier` of `rsaEncryption` with its NULL (RFC 3279 section 2.3.1).
const RSA: &[u8] = b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00";

/// Of X.690.
pub(super) const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;

/// Why these bytes are no public key that Claviger knows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpkiError {
    /// Not one PEM block of this kind.
    #[error("it is not one PEM block `PUBLIC KEY`")]
    Pem,
    /// Not DER, or not of this structure.
    #[error("it is not a SubjectPublicKeyInfo in DER")]
    Der,
    /// Another algorithm or curve, or a point that is compressed.
    #[error("it is a key of a kind that Claviger does not use")]
    Kind,
    /// The numbers are out of bounds.
    #[error("{0}")]
    Key(String),
}

/// Reads one PEM block `PUBLIC KEY` (RFC 7468 section 13).
pub fn from_pem(text: &str) -> Result<PublicKey, SpkiError> {
    let body = text.trim().strip_prefix("-----BEGIN PUBLIC KEY-----").and_then(|rest| rest.strip_suffix("-----END PUBLIC KEY-----"));
    let body: String = body.ok_or(SpkiError::Pem)?.split_ascii_whitespace().collect();
    from_der(&STANDARD.decode(body).map_err(|_| SpkiError::Pem)?)
}

/// Reads a `SubjectPublicKeyInfo` and nothing after it.
pub fn from_der(der: &[u8]) -> Result<PublicKey, SpkiError> {
    let (info, []) = take(der, SEQUENCE)? else { return Err(SpkiError::Der) };
    if let Some(rest) = info.strip_prefix(RSA) {
        return rsa(bits(rest)?);
    }
    let curve = CURVES.iter().find_map(|(identifier, curve)| Some((info.strip_prefix(*identifier)?, *curve)));
    let (rest, curve) = curve.ok_or(SpkiError::Kind)?;
    let point = bits(rest)?;
    let key = |error: claviger_audit::jwk::JwkError| SpkiError::Key(error.to_string());
    if curve == Curve::Ed25519 {
        return point.try_into().map(PublicKey::from_ed25519).map_err(|_| SpkiError::Der);
    }
    PublicKey::from_ec_point(curve, point.strip_prefix(&[0x04]).ok_or(SpkiError::Kind)?).map_err(key)
}

fn rsa(der: &[u8]) -> Result<PublicKey, SpkiError> {
    let (numbers, []) = take(der, SEQUENCE)? else { return Err(SpkiError::Der) };
    let (modulus, rest) = positive(numbers)?;
    let (exponent, []) = positive(rest)? else { return Err(SpkiError::Der) };
    PublicKey::from_rsa(modulus, exponent).map_err(|error| SpkiError::Key(error.to_string()))
}

/// The octets of a BIT STRING that is the last thing here and has no unused bits.
fn bits(der: &[u8]) -> Result<&[u8], SpkiError> {
    let (content, []) = take(der, BIT_STRING)? else { return Err(SpkiError::Der) };
    content.strip_prefix(&[0]).ok_or(SpkiError::Der)
}

/// An INTEGER above zero without the octet that only says that it is positive, and what follows it (X.690 section 8.3.2: as short as can be).
pub(super) fn positive(der: &[u8]) -> Result<(&[u8], &[u8]), SpkiError> {
    let (octets, rest) = take(der, INTEGER)?;
    match octets {
        [0, number @ ..] if number.first().is_some_and(|high| *high >= 0x80) => Ok((number, rest)),
        [0x01..=0x7f, ..] => Ok((octets, rest)),
        _ => Err(SpkiError::Der),
    }
}

/// The content of the first element, which must have this tag, and what follows it (X.690 section 10.1: the shortest length).
pub(super) fn take(der: &[u8], tag: u8) -> Result<(&[u8], &[u8]), SpkiError> {
    let (length, rest) = match der {
        [first, length @ 0..=0x7f, rest @ ..] if *first == tag => (usize::from(*length), rest),
        [first, 0x81, length @ 0x80..=0xff, rest @ ..] if *first == tag => (usize::from(*length), rest),
        [first, 0x82, high @ 1..=0xff, low, rest @ ..] if *first == tag => (usize::from(*high) << 8 | usize::from(*low), rest),
        _ => return Err(SpkiError::Der),
    };
    rest.split_at_checked(length).ok_or(SpkiError::Der)
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
    use aws_lc_rs::rsa::KeySize;
    use aws_lc_rs::signature::{self as s, KeyPair as _};

    use super::*;

    /// Keys of every kind, in the DER of a library that had no part in this file.
    fn known() -> Vec<(Vec<u8>, PublicKey)> {
        let mut known = Vec::new();
        for (curve, algorithm) in [
            (Curve::P256, &s::ECDSA_P256_SHA256_FIXED_SIGNING),
            (Curve::P384, &s::ECDSA_P384_SHA384_FIXED_SIGNING),
            (Curve::P521, &s::ECDSA_P521_SHA512_FIXED_SIGNING),
        ] {
            let pair = s::EcdsaKeyPair::generate(algorithm).unwrap();
            let der: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
            known.push((der.as_ref().to_vec(), PublicKey::from_ec_point(curve, &pair.public_key().as_ref()[1..]).unwrap()));
        }
        let pair = s::Ed25519KeyPair::generate().unwrap();
        let der: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
        known.push((der.as_ref().to_vec(), PublicKey::from_ed25519(pair.public_key().as_ref().try_into().unwrap())));
        for size in [KeySize::Rsa2048, KeySize::Rsa3072] {
            let pair = s::RsaKeyPair::generate(size).unwrap();
            let der: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
            // RSAPublicKey stands last, after 24 bytes of header: what the library calls the raw public key.
            known.push((der.as_ref().to_vec(), rsa(pair.public_key().as_ref()).unwrap()));
        }
        known
    }

    #[test]
    fn every_kind_is_read_from_der_and_pem() {
        for (der, key) in known() {
            assert_eq!(from_der(&der), Ok(key.clone()));
            let body = STANDARD.encode(&der);
            let lines: Vec<&str> = body.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
            let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n"));
            assert_eq!(from_pem(&pem), Ok(key));
            assert_eq!(from_pem(&pem.replace("PUBLIC", "PRIVATE")), Err(SpkiError::Pem));
        }
    }

    #[test]
    fn nothing_but_the_whole_structure_is_read() {
        for (der, key) in known() {
            for end in 0..der.len() {
                assert!(from_der(&der[..end]).is_err(), "{end} bytes of {key:?}");
            }
            assert!(from_der(&[der.as_slice(), &[0]].concat()).is_err());
            // No byte of the header may be another one; what follows is the key's own.
            let header = if der.len() > 200 { 24 } else { der.len() - key.raw_point().map_or(0, |point| point.len()) };
            for place in 0..header {
                let mut other = der.clone();
                other[place] ^= 0x01;
                assert!(from_der(&other).is_err(), "byte {place} of {key:?}");
            }
        }
        assert_eq!(from_der(&[]), Err(SpkiError::Der));
        assert_eq!(from_pem("AAAA"), Err(SpkiError::Pem));
    }

    #[test]
    fn numbers_have_one_form() {
        let rsa = |modulus: &[u8], exponent: &[u8]| {
            let element = |tag: u8, content: &[u8]| {
                let length = u16::try_from(content.len()).unwrap().to_be_bytes();
                let head = if content.len() < 128 { vec![tag, length[1]] } else { vec![tag, 0x82, length[0], length[1]] };
                [head, content.to_vec()].concat()
            };
            super::rsa(&element(SEQUENCE, &[element(INTEGER, modulus), element(INTEGER, exponent)].concat()))
        };
        let odd = [&[0xc1; 255][..], &[1]].concat();
        let modulus = [&[0][..], &odd].concat();
        assert!(rsa(&modulus, &[1, 0, 1]).is_ok());
        assert_eq!(rsa(&odd, &[1, 0, 1]), Err(SpkiError::Der), "a negative number");
        assert_eq!(rsa(&[&[0][..], &modulus].concat(), &[1, 0, 1]), Err(SpkiError::Der), "a needless octet");
        for exponent in [&[0, 1, 0, 1][..], &[0x81, 0, 1], &[0], &[]] {
            assert_eq!(rsa(&modulus, exponent), Err(SpkiError::Der), "{exponent:?}");
        }
    }

    #[test]
    fn lengths_have_one_form() {
        assert_eq!(take(&[2, 1, 7, 9], 2), Ok((&[7][..], &[9][..])));
        for long in [&[2, 0x81, 1, 7][..], &[2, 0x82, 0, 1, 7], &[2, 0x80, 7], &[2, 0x83, 0, 0, 1, 7], &[3, 1, 7]] {
            assert_eq!(take(long, 2), Err(SpkiError::Der));
        }
    }
}
