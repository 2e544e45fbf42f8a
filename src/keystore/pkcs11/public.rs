//! Public keys as tokens report them. Pure: attributes in, a [`PublicKey`] out.
//!
//! In scope: the forms that modules are known to use for curves and points. Out of scope: reading attributes, and whether the point lies on
//! its curve (verifying the first signature shows that).

use claviger_audit::algorithm::KeyShape;
use claviger_audit::jwk::{Curve, PublicKey};
use cryptoki::object::{Attribute, KeyType};

/// Named curves as DER object identifiers (RFC 5480 section 2.1.1.1, RFC 8410 section 3).
const P256: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const P384: &[u8] = &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22];
const P521: &[u8] = &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x23];
const ED25519: &[u8] = &[0x06, 0x03, 0x2b, 0x65, 0x70];
/// The same curve as PKCS#11 v3.0 first named it: a PrintableString `edwards25519`.
const ED25519_NAME: &[u8] = b"\x13\x0cedwards25519";
/// The same curve by the older identifier 1.3.6.1.4.1.11591.15.1, which Luna devices use.
const ED25519_OLD: &[u8] = &[0x06, 0x09, 0x2b, 0x06, 0x01, 0x04, 0x01, 0xda, 0x47, 0x0f, 0x01];

/// The values of `CKA_EC_PARAMS` to try when a key of this shape is made, best first; none for RSA.
pub(super) fn curve_names(shape: KeyShape) -> &'static [&'static [u8]] {
    match shape {
        KeyShape::P256 => &[P256],
        KeyShape::P384 => &[P384],
        KeyShape::P521 => &[P521],
        KeyShape::Ed25519 => &[ED25519, ED25519_NAME, ED25519_OLD],
        KeyShape::Rsa => &[],
    }
}

/// The shape of a key by its `CKA_KEY_TYPE` and, for curves, `CKA_EC_PARAMS`.
pub(super) fn shape(attributes: &[Attribute]) -> Result<KeyShape, String> {
    let kind = attributes.iter().find_map(|attribute| match attribute {
        Attribute::KeyType(kind) => Some(*kind),
        _ => None,
    });
    match kind {
        Some(KeyType::RSA) => Ok(KeyShape::Rsa),
        Some(KeyType::EC | KeyType::EC_EDWARDS) => {
            let name = ec_params(attributes).ok_or("the token does not say which curve the key is on")?;
            let shapes = [KeyShape::P256, KeyShape::P384, KeyShape::P521, KeyShape::Ed25519];
            let known = shapes.into_iter().find(|shape| curve_names(*shape).contains(&name));
            known.ok_or_else(|| "the key is on a curve that Claviger does not use".to_owned())
        }
        Some(_) => Err("the key is neither RSA nor on a curve".to_owned()),
        None => Err("the token does not say what kind of key it is".to_owned()),
    }
}

/// The public key in these attributes, if they hold one: `None` for the private half of a curve key that does not show its point.
pub(super) fn public_key(shape: KeyShape, attributes: &[Attribute]) -> Result<Option<PublicKey>, String> {
    if shape == KeyShape::Rsa {
        let modulus = attributes.iter().find_map(|attribute| match attribute {
            Attribute::Modulus(bytes) => Some(bytes.as_slice()),
            _ => None,
        });
        let exponent = attributes.iter().find_map(|attribute| match attribute {
            Attribute::PublicExponent(bytes) => Some(bytes.as_slice()),
            _ => None,
        });
        let both = modulus.zip(exponent).filter(|(n, e)| !n.is_empty() && !e.is_empty());
        return both.map(|(n, e)| PublicKey::from_rsa(n, e)).transpose().map_err(|error| error.to_string());
    }
    let point = attributes.iter().find_map(|attribute| match attribute {
        Attribute::EcPoint(bytes) if !bytes.is_empty() => Some(bytes.as_slice()),
        _ => None,
    });
    point.map(|point| point_key(shape, point)).transpose()
}

fn ec_params(attributes: &[Attribute]) -> Option<&[u8]> {
    attributes.iter().find_map(|attribute| match attribute {
        Attribute::EcParams(bytes) => Some(bytes.as_slice()),
        _ => None,
    })
}

/// Reads `CKA_EC_POINT`: the point itself, or wrapped in a DER OCTET STRING as PKCS#11 v2.40 demands. The two are told apart by length,
/// because both may begin with `0x04`.
fn point_key(shape: KeyShape, bytes: &[u8]) -> Result<PublicKey, String> {
    let (curve, raw) = match shape {
        KeyShape::P256 => (Curve::P256, 65),
        KeyShape::P384 => (Curve::P384, 97),
        KeyShape::P521 => (Curve::P521, 133),
        KeyShape::Ed25519 => (Curve::Ed25519, 32),
        KeyShape::Rsa => return Err("an RSA key has no point".to_owned()),
    };
    let unknown = || format!("a public point of {} bytes is neither raw nor an OCTET STRING", bytes.len());
    let header: &[u8] = if raw < 0x80 { &[0x04, u8::try_from(raw).unwrap_or(0)] } else { &[0x04, 0x81, u8::try_from(raw).unwrap_or(0)] };
    let point = if bytes.len() == raw { Some(bytes) } else { bytes.strip_prefix(header).filter(|point| point.len() == raw) };
    let point = point.ok_or_else(unknown)?;
    if curve == Curve::Ed25519 {
        let key: &[u8; 32] = point.try_into().map_err(|_| unknown())?;
        return Ok(PublicKey::from_ed25519(key));
    }
    let xy = point.strip_prefix(&[0x04]).ok_or("the public point is not uncompressed")?;
    PublicKey::from_ec_point(curve, xy).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrapped(raw: &[u8]) -> Vec<u8> {
        let length = u8::try_from(raw.len()).unwrap();
        let mut der = if length < 0x80 { vec![0x04, length] } else { vec![0x04, 0x81, length] };
        der.extend_from_slice(raw);
        der
    }

    #[test]
    fn points_are_read_raw_and_wrapped() {
        for (shape, length) in [(KeyShape::P256, 65), (KeyShape::P384, 97), (KeyShape::P521, 133), (KeyShape::Ed25519, 32)] {
            // Even a raw Ed25519 key may begin with the bytes of an OCTET STRING header.
            let mut raw = vec![0x04; length];
            raw[1] = 0x20;
            let plain = public_key(shape, &[Attribute::EcPoint(raw.clone())]).unwrap();
            assert!(plain.is_some());
            assert_eq!(plain, public_key(shape, &[Attribute::EcPoint(wrapped(&raw))]).unwrap());
            for broken in [&raw[1..], &[raw.as_slice(), &[0]].concat(), &wrapped(&raw)[1..]] {
                assert!(public_key(shape, &[Attribute::EcPoint(broken.to_vec())]).is_err(), "{shape:?} {}", broken.len());
            }
        }
    }

    #[test]
    fn curves_are_known_by_identifier_and_by_name() {
        let on = |kind, name: &[u8]| shape(&[Attribute::KeyType(kind), Attribute::EcParams(name.to_vec())]);
        assert_eq!(on(KeyType::EC, P521), Ok(KeyShape::P521));
        for name in [ED25519, ED25519_NAME, ED25519_OLD] {
            assert_eq!(on(KeyType::EC_EDWARDS, name), Ok(KeyShape::Ed25519));
        }
        assert!(on(KeyType::EC, &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x0a]).is_err(), "secp256k1");
        assert!(on(KeyType::AES, P256).is_err());
        assert!(shape(&[]).is_err());
    }

    #[test]
    fn a_private_half_may_hide_its_point() {
        assert_eq!(public_key(KeyShape::P256, &[]), Ok(None));
        assert_eq!(public_key(KeyShape::P256, &[Attribute::EcPoint(vec![])]), Ok(None));
        assert!(public_key(KeyShape::Rsa, &[Attribute::Modulus(vec![1; 64]), Attribute::PublicExponent(vec![1, 0, 1])]).is_err());
    }
}
