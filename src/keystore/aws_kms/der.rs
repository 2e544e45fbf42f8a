//! The two DER structures that KMS hands over, read strictly (X.690 section 10): a signature on a curve, and a public key.
//!
//! In scope: `Ecdsa-Sig-Value` (RFC 3279 section 2.2.3) to the `r || s` of RFC 7518 section 3.4; `SubjectPublicKeyInfo` (RFC 5280 section 4.1,
//! RFC 5480, RFC 8410) to a [`PublicKey`]. Whatever has a second encoding is refused: one value, one form. Out of scope: whether either is
//! right (the signer verifies every signature).

use claviger_audit::algorithm::KeyShape;
use claviger_audit::jwk::{Curve, PublicKey};

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;

/// What stands in `SubjectPublicKeyInfo.algorithm` for each shape: the algorithm, and the curve or NULL.
const P256: &[u8] = b"\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07";
const P384: &[u8] = b"\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x22";
const P521: &[u8] = b"\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x23";
const ED25519: &[u8] = b"\x06\x03\x2b\x65\x70";
const RSA: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00";

/// Reads an ECDSA signature; `width` is that of the curve's field in bytes.
pub(super) fn raw_signature(der: &[u8], width: usize) -> Result<Vec<u8>, String> {
    let (mut inside, rest) = take(der, SEQUENCE)?;
    let mut raw = Vec::with_capacity(2 * width);
    for _ in 0..2 {
        let (number, after) = positive(inside)?;
        let padding = width.checked_sub(number.len()).ok_or("a number is wider than the curve")?;
        raw.resize(raw.len() + padding, 0);
        raw.extend_from_slice(number);
        inside = after;
    }
    if inside.is_empty() && rest.is_empty() { Ok(raw) } else { Err("something follows the signature".to_owned()) }
}

/// Reads a public key of this shape.
pub(super) fn public_key(der: &[u8], shape: KeyShape) -> Result<PublicKey, String> {
    let (inside, rest) = take(der, SEQUENCE)?;
    let (algorithm, inside) = take(inside, SEQUENCE)?;
    let (bits, after) = take(inside, BIT_STRING)?;
    if !(rest.is_empty() && after.is_empty()) {
        return Err("something follows the public key".to_owned());
    }
    let (expected, curve) = match shape {
        KeyShape::P256 => (P256, Curve::P256),
        KeyShape::P384 => (P384, Curve::P384),
        KeyShape::P521 => (P521, Curve::P521),
        KeyShape::Ed25519 => (ED25519, Curve::Ed25519),
        KeyShape::Rsa => (RSA, Curve::P256),
    };
    if algorithm != expected {
        return Err("the public key is of another kind".to_owned());
    }
    let key = bits.strip_prefix(&[0]).ok_or("the public key does not end with a whole octet")?;
    match shape {
        KeyShape::Rsa => rsa(key),
        KeyShape::Ed25519 => key.try_into().map(PublicKey::from_ed25519).map_err(|_| "an Ed25519 key has 32 octets".to_owned()),
        KeyShape::P256 | KeyShape::P384 | KeyShape::P521 => {
            let xy = key.strip_prefix(&[4]).ok_or("the point is not uncompressed")?;
            PublicKey::from_ec_point(curve, xy).map_err(|error| error.to_string())
        }
    }
}

/// `RSAPublicKey` (RFC 8017 appendix A.1.1).
fn rsa(der: &[u8]) -> Result<PublicKey, String> {
    let (inside, rest) = take(der, SEQUENCE)?;
    let (modulus, inside) = positive(inside)?;
    let (exponent, inside) = positive(inside)?;
    if !(rest.is_empty() && inside.is_empty()) {
        return Err("something follows the RSA key".to_owned());
    }
    PublicKey::from_rsa(modulus, exponent).map_err(|error| error.to_string())
}

/// An INTEGER above zero, without the octet that only says that it is positive.
fn positive(der: &[u8]) -> Result<(&[u8], &[u8]), String> {
    let (octets, rest) = take(der, INTEGER)?;
    match octets {
        [] | [0] => Err("a number is zero or empty".to_owned()),
        [0, high, ..] if high & 0x80 == 0 => Err("a number has a needless zero octet".to_owned()),
        [0, number @ ..] => Ok((number, rest)),
        [high, ..] if high & 0x80 != 0 => Err("a number is negative".to_owned()),
        number => Ok((number, rest)),
    }
}

/// The content of one value with this tag, and what follows it. Lengths are definite and as short as can be.
fn take(der: &[u8], tag: u8) -> Result<(&[u8], &[u8]), String> {
    let (found, rest) = der.split_first().ok_or("it ends too early")?;
    if *found != tag {
        return Err(format!("tag {found:#04x} stands where {tag:#04x} must"));
    }
    let (length, rest) = match rest {
        [short @ 0..=0x7f, rest @ ..] => (usize::from(*short), rest),
        [0x81, long @ 0x80..=0xff, rest @ ..] => (usize::from(*long), rest),
        [0x82, high @ 1..=0xff, low, rest @ ..] => (usize::from(*high) << 8 | usize::from(*low), rest),
        _ => return Err("a length is not in its shortest form".to_owned()),
    };
    rest.split_at_checked(length).ok_or_else(|| "it ends too early".to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// DER as a plain encoder writes it.
    fn value(tag: u8, content: &[u8]) -> Vec<u8> {
        let length = content.len().to_be_bytes();
        let mut der = match content.len() {
            0..=0x7f => vec![tag, length[7]],
            0x80..=0xff => vec![tag, 0x81, length[7]],
            _ => vec![tag, 0x82, length[6], length[7]],
        };
        der.extend_from_slice(content);
        der
    }

    fn integer(number: &[u8]) -> Vec<u8> {
        let zeros = number.iter().take_while(|octet| **octet == 0).count();
        let mut octets = number[zeros..].to_vec();
        if octets.first().is_none_or(|high| high & 0x80 != 0) {
            octets.insert(0, 0);
        }
        value(INTEGER, &octets)
    }

    fn signature(r: &[u8], s: &[u8]) -> Vec<u8> {
        value(SEQUENCE, &[integer(r), integer(s)].concat())
    }

    proptest! {
        #[test]
        fn a_signature_is_read_at_any_width(width in prop_oneof![Just(32_usize), Just(48), Just(66)],
                                            zeros in 0_usize..8, seed in prop::array::uniform32(1_u8..)) {
            let mut numbers = [vec![0; width], vec![0; width]];
            for (number, octet) in numbers.iter_mut().flat_map(|number| number.iter_mut().skip(zeros)).zip(seed.iter().cycle()) {
                *number = *octet;
            }
            let der = signature(&numbers[0], &numbers[1]);
            prop_assert_eq!(raw_signature(&der, width).unwrap(), numbers.concat());
            prop_assert!(raw_signature(&der, width - zeros - 1).is_err(), "wider than the curve");
            for cut in 0..der.len() {
                prop_assert!(raw_signature(&der[..cut], width).is_err());
            }
        }

        #[test]
        fn what_is_accepted_has_one_form(mut der in Just(signature(&[0x81; 32], &[0x21; 32])), place in 0_usize..71, octet: u8) {
            let before = der.clone();
            der[place] = octet;
            if let Ok(raw) = raw_signature(&der, 32) {
                prop_assert_eq!(signature(&raw[..32], &raw[32..]), der);
            }
            prop_assert!(raw_signature(&before, 32).is_ok());
        }

        #[test]
        fn nothing_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), width in 0_usize..70) {
            let _ = raw_signature(&bytes, width);
            for shape in [KeyShape::P256, KeyShape::P384, KeyShape::P521, KeyShape::Ed25519, KeyShape::Rsa] {
                let _ = public_key(&bytes, shape);
            }
        }
    }

    #[test]
    fn other_forms_of_a_good_signature_are_refused() {
        let good = signature(&[0x11; 32], &[0x22; 32]);
        assert!(raw_signature(&good, 32).is_ok());
        let inside = &good[2..];
        let long = |length: &[u8]| [&[SEQUENCE][..], length, inside].concat();
        let size = u8::try_from(inside.len()).unwrap();
        let padded = value(SEQUENCE, &[value(INTEGER, &[&[0][..], &[0x11; 32]].concat()), integer(&[0x22; 32])].concat());
        let negative = value(SEQUENCE, &[value(INTEGER, &[0x91; 32]), integer(&[0x22; 32])].concat());
        for (what, der) in [
            ("long length", long(&[0x81, size])),
            ("longer length", long(&[0x82, 0, size])),
            ("indefinite length", [&[SEQUENCE, 0x80][..], inside, &[0, 0]].concat()),
            ("trailing octet", [&good[..], &[0]].concat()),
            ("trailing value", value(SEQUENCE, &[inside, &integer(&[1])].concat())),
            ("needless zero", padded),
            ("negative", negative),
            ("zero", signature(&[0], &[0x22; 32])),
            ("one number", value(SEQUENCE, &integer(&[0x11; 32]))),
            ("wrong tag", [&[0x31], &good[1..]].concat()),
            ("raw already", [[0x11; 32], [0x22; 32]].concat()),
        ] {
            assert!(raw_signature(&der, 32).is_err(), "{what}");
        }
    }

    fn info(algorithm: &[u8], key: &[u8]) -> Vec<u8> {
        value(SEQUENCE, &[value(SEQUENCE, algorithm), value(BIT_STRING, &[&[0][..], key].concat())].concat())
    }

    #[test]
    fn public_keys_are_read_by_their_shape_alone() {
        let point = |width: usize| [&[4][..], &vec![7; 2 * width]].concat();
        let rsa = value(SEQUENCE, &[integer(&[0xc1; 256]), integer(&[1, 0, 1])].concat());
        let all = [
            (KeyShape::P256, info(P256, &point(32))),
            (KeyShape::P384, info(P384, &point(48))),
            (KeyShape::P521, info(P521, &point(66))),
            (KeyShape::Ed25519, info(ED25519, &[7; 32])),
            (KeyShape::Rsa, info(RSA, &rsa)),
        ];
        for (shape, der) in &all {
            let key = public_key(der, *shape).unwrap_or_else(|error| panic!("{shape:?}: {error}"));
            assert_eq!(key.check(), Ok(()), "{shape:?}");
            for (other, _) in all.iter().filter(|(other, _)| other != shape) {
                assert!(public_key(der, *other).is_err(), "{shape:?} as {other:?}");
            }
            for cut in 0..der.len() {
                assert!(public_key(&der[..cut], *shape).is_err(), "{shape:?} cut at {cut}");
            }
            assert!(public_key(&[&der[..], &[0]].concat(), *shape).is_err(), "{shape:?} with a tail");
        }
        assert!(public_key(&info(P256, &[&[2][..], &[7; 32]].concat()), KeyShape::P256).is_err(), "compressed");
    }
}
