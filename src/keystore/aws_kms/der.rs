//! A signature on a curve as KMS hands it over: `Ecdsa-Sig-Value` in DER (RFC 3279 section 2.2.3), read strictly, to the `r || s` of RFC 7518
//! section 3.4.
//!
//! Whatever has a second encoding is refused: one value, one form. Out of scope: whether it is right (the signer verifies every signature), and
//! public keys (`spki.rs`).

use crate::keystore::spki::{SEQUENCE, SpkiError, positive, take};

/// Reads an ECDSA signature; `width` is that of the curve's field in bytes.
pub(super) fn raw_signature(der: &[u8], width: usize) -> Result<Vec<u8>, String> {
    let (mut inside, rest) = take(der, SEQUENCE).map_err(no_der)?;
    let mut raw = Vec::with_capacity(2 * width);
    for _ in 0..2 {
        let (number, after) = positive(inside).map_err(no_der)?;
        let padding = width.checked_sub(number.len()).ok_or("a number is wider than the curve")?;
        raw.resize(raw.len() + padding, 0);
        raw.extend_from_slice(number);
        inside = after;
    }
    if inside.is_empty() && rest.is_empty() { Ok(raw) } else { Err("something follows the signature".to_owned()) }
}

fn no_der(_: SpkiError) -> String {
    "it is no ECDSA signature in DER".to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const INTEGER: u8 = 0x02;

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
}
