//! Which token to use: named by label or serial number, never by slot, because slot numbers move.
//!
//! In scope: the selector as text, and finding the one token that fits. Out of scope: RFC 7512 URIs, logging in.

use std::fmt;
use std::str::FromStr;

use cryptoki::context::Pkcs11;
use cryptoki::slot::{Slot, TokenInfo};

use super::fault::Fault;

/// The longest label and serial number (`CK_TOKEN_INFO`, PKCS#11 v3.1 section 3.2), in bytes.
const LONGEST_LABEL: usize = 32;
const LONGEST_SERIAL: usize = 16;

/// Names one token of a module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenSelector {
    /// The token with this label.
    Label(String),
    /// The token with this serial number.
    Serial(String),
}

/// The text names no token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} names no token: write its label (1 to 32 bytes), or serial= and its serial number (1 to 16 bytes)")]
pub struct BadTokenSelector(String);

impl FromStr for TokenSelector {
    type Err = BadTokenSelector;

    fn from_str(text: &str) -> Result<Self, BadTokenSelector> {
        let serial = text.strip_prefix("serial=").or_else(|| text.strip_prefix("serial:"));
        let (name, longest) = serial.map_or((text, LONGEST_LABEL), |serial| (serial, LONGEST_SERIAL));
        if name.is_empty() || name.len() > longest || name.trim() != name || name.starts_with("pkcs11:") {
            return Err(BadTokenSelector(text.to_owned()));
        }
        let name = name.to_owned();
        Ok(if serial.is_some() { Self::Serial(name) } else { Self::Label(name) })
    }
}

impl fmt::Display for TokenSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Label(label) => write!(f, "label {label:?}"),
            Self::Serial(serial) => write!(f, "serial number {serial:?}"),
        }
    }
}

impl TokenSelector {
    fn fits(&self, label: &str, serial: &str) -> bool {
        match self {
            Self::Label(wanted) => wanted == label,
            Self::Serial(wanted) => wanted == serial,
        }
    }
}

/// Finds the one token that the selector names; the error lists what was found instead.
pub(super) fn select(library: &Pkcs11, selector: &TokenSelector) -> Result<(Slot, TokenInfo), Fault> {
    let mut found = Vec::new();
    for slot in library.get_slots_with_token()? {
        // A slot that cannot be read belongs to another device; it must not keep ours from being found.
        if let Ok(token) = library.get_token_info(slot)
            && token.token_initialized()
        {
            found.push((slot, token));
        }
    }
    let names = found.iter().map(|(_, token)| (token.label(), token.serial_number())).collect::<Vec<_>>();
    let place = sole(selector, &names).map_err(Fault::Absent)?;
    Ok(found.swap_remove(place))
}

/// The place of the only token that fits.
fn sole(selector: &TokenSelector, tokens: &[(&str, &str)]) -> Result<usize, String> {
    let mut fitting = tokens.iter().enumerate().filter(|(_, (label, serial))| selector.fits(label, serial));
    match (fitting.next(), fitting.next()) {
        (Some((place, _)), None) => Ok(place),
        (Some(_), Some(_)) => Err(format!("more than one token has the {selector}; name it by serial number: {}", list(tokens))),
        (None, _) => Err(format!("no token has the {selector}; the module shows {}", list(tokens))),
    }
}

fn list(tokens: &[(&str, &str)]) -> String {
    if tokens.is_empty() {
        return "no initialised token".to_owned();
    }
    tokens.iter().map(|(label, serial)| format!("{label:?} (serial={serial})")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_serials_are_told_apart() {
        assert_eq!("signing".parse(), Ok(TokenSelector::Label("signing".into())));
        assert_eq!("serial=ab12".parse(), Ok(TokenSelector::Serial("ab12".into())));
        assert_eq!("serial:ab12".parse(), Ok(TokenSelector::Serial("ab12".into())));
        let long = "x".repeat(33);
        for bad in ["", "serial=", " signing", "serial=0123456789abcdef0", "pkcs11:token=signing", &long] {
            assert!(bad.parse::<TokenSelector>().is_err(), "{bad}");
        }
    }

    #[test]
    fn exactly_one_token_must_fit() {
        let tokens = [("a", "1"), ("b", "2"), ("b", "3")];
        assert_eq!(sole(&TokenSelector::Label("a".into()), &tokens), Ok(0));
        assert_eq!(sole(&TokenSelector::Serial("3".into()), &tokens), Ok(2));
        let twice = sole(&TokenSelector::Label("b".into()), &tokens).unwrap_err();
        assert!(twice.contains("more than one") && twice.contains("serial=3"), "{twice}");
        let none = sole(&TokenSelector::Label("c".into()), &tokens).unwrap_err();
        assert!(none.contains("\"a\" (serial=1)"), "{none}");
        assert!(sole(&TokenSelector::Label("c".into()), &[]).unwrap_err().contains("no initialised token"));
    }
}
