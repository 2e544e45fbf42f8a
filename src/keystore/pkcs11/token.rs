//! Which token to use: named by label, serial number, manufacturer and model, never by slot, because slot numbers move.
//!
//! In scope: the selector as text, and finding the one token that fits. Out of scope: the grammar of URIs (`uri.rs`), logging in.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use cryptoki::context::Pkcs11;
use cryptoki::slot::{Slot, TokenInfo};

use super::fault::Fault;
use super::uri::{self, TokenUri};

/// The longest texts that a token tells of itself (`CK_TOKEN_INFO`, PKCS#11 v3.1 section 3.2), in bytes.
const LONGEST_LABEL: usize = 32;
const LONGEST_SERIAL: usize = 16;
const LONGEST_MANUFACTURER: usize = 32;
const LONGEST_MODEL: usize = 16;

/// Names one token of a module: the one that fits everything that is said here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenSelector {
    pub(super) label: Option<String>,
    pub(super) serial: Option<String>,
    pub(super) manufacturer: Option<String>,
    pub(super) model: Option<String>,
}

/// The text names no token. What it says is ours alone, since a PIN may stand in such a text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem}; {remedy}")]
pub struct BadTokenSelector {
    /// What is wrong.
    pub problem: Cow<'static, str>,
    /// What to do.
    pub remedy: &'static str,
}

impl FromStr for TokenSelector {
    type Err = BadTokenSelector;

    /// Reads a label, `serial=` and a serial number, or an RFC 7512 URI that says nothing but which token.
    fn from_str(text: &str) -> Result<Self, BadTokenSelector> {
        if TokenUri::is_meant_by(text) {
            let uri = text.parse::<TokenUri>()?;
            if uri.module_path.is_some() || uri.pin_source.is_some() {
                return Err(bad("says more than which token", "here the module and the file of the PIN are named apart from the token"));
            }
            return Ok(uri.token);
        }
        let serial = text.strip_prefix("serial=").or_else(|| text.strip_prefix("serial:"));
        let name = serial.unwrap_or(text);
        let own = |wanted: bool| wanted.then(|| name.to_owned());
        let selector = Self { label: own(serial.is_none()), serial: own(serial.is_some()), ..Self::default() };
        // A label is told in errors and logs, so that a URI which lost its beginning must not pass for one.
        if name.trim() != name || selector.check().is_err() || uri::holds_pin(text) {
            return Err(bad(
                "is not a token's label or serial",
                "write its label (1 to 32 bytes), serial= and its serial number (1 to 16 bytes), or an RFC 7512 URI",
            ));
        }
        Ok(selector)
    }
}

fn bad(problem: impl Into<Cow<'static, str>>, remedy: &'static str) -> BadTokenSelector {
    BadTokenSelector { problem: problem.into(), remedy }
}

impl fmt::Display for TokenSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let said = self.texts().into_iter().filter_map(|(name, text, _)| Some(format!("{name} {:?}", text.as_deref()?)));
        f.write_str(&said.collect::<Vec<_>>().join(", "))
    }
}

/// What a token tells of itself.
#[derive(Clone, Copy, Debug)]
struct Told<'t> {
    label: &'t str,
    serial: &'t str,
    manufacturer: &'t str,
    model: &'t str,
}

impl TokenSelector {
    /// The token with this label.
    pub fn label(label: impl Into<String>) -> Self {
        Self { label: Some(label.into()), ..Self::default() }
    }

    /// The token with this serial number.
    pub fn serial(serial: impl Into<String>) -> Self {
        Self { serial: Some(serial.into()), ..Self::default() }
    }

    /// Whether the two can be known to name the same token of a module without asking it: one says all that the other says, and maybe more.
    /// Exactly one token fits the one that says less, and what fits the other fits it too.
    pub fn names_same_as(&self, other: &Self) -> bool {
        let within =
            |less: &Self, more: &Self| less.texts().into_iter().zip(more.texts()).all(|(less, more)| less.1.is_none() || less.1 == more.1);
        within(self, other) || within(other, self)
    }

    /// Refuses what no token can be.
    pub(super) fn check(&self) -> Result<(), BadTokenSelector> {
        for (name, text, longest) in self.texts() {
            let Some(text) = text else { continue };
            if text.len() > longest {
                return Err(bad(format!("its {name} has more than {longest} bytes"), "write it as the token tells it"));
            }
            // Tokens pad their texts with blanks, which are not part of them.
            if text.ends_with(' ') {
                return Err(bad(format!("its {name} ends with a blank"), "leave out the blanks at the end"));
            }
        }
        if self.texts().iter().all(|(_, text, _)| text.as_deref().unwrap_or_default().is_empty()) {
            return Err(bad("names no token", "say its label (token) or its serial number (serial)"));
        }
        Ok(())
    }

    fn texts(&self) -> [(&'static str, &Option<String>, usize); 4] {
        [
            ("label", &self.label, LONGEST_LABEL),
            ("serial number", &self.serial, LONGEST_SERIAL),
            ("manufacturer", &self.manufacturer, LONGEST_MANUFACTURER),
            ("model", &self.model, LONGEST_MODEL),
        ]
    }

    fn fits(&self, told: &Told<'_>) -> bool {
        let found = [told.label, told.serial, told.manufacturer, told.model];
        self.texts().into_iter().zip(found).all(|((_, wanted, _), found)| wanted.as_deref().is_none_or(|wanted| wanted == found))
    }
}

/// Finds the one token that the selector names; the error lists what was found instead.
pub(super) fn select(library: &Pkcs11, selector: &TokenSelector) -> Result<(Slot, TokenInfo), Fault> {
    let (mut found, mut unread) = (Vec::new(), String::new());
    for slot in library.get_slots_with_token()? {
        // A slot that cannot be read belongs to another device; it must not keep ours from being found. If it is ours, the error says so.
        match library.get_token_info(slot) {
            Ok(token) if token.token_initialized() => found.push((slot, token)),
            Ok(_) => {}
            Err(error) => unread.push_str(&format!("; slot {} cannot be read: {error}", slot.id())),
        }
    }
    let told = found.iter().map(|(_, token)| Told {
        label: token.label(),
        serial: token.serial_number(),
        manufacturer: token.manufacturer_id(),
        model: token.model(),
    });
    let place = sole(selector, &told.collect::<Vec<_>>()).map_err(|reason| Fault::Absent(reason + &unread))?;
    Ok(found.swap_remove(place))
}

/// The place of the only token that fits.
fn sole(selector: &TokenSelector, tokens: &[Told<'_>]) -> Result<usize, String> {
    let mut fitting = tokens.iter().enumerate().filter(|(_, told)| selector.fits(told));
    match (fitting.next(), fitting.next()) {
        (Some((place, _)), None) => Ok(place),
        (Some(_), Some(_)) => Err(format!("more than one token has the {selector}; name it by serial number: {}", list(tokens))),
        (None, _) => Err(format!("no token has the {selector}; the module shows {}", list(tokens))),
    }
}

fn list(tokens: &[Told<'_>]) -> String {
    if tokens.is_empty() {
        return "no initialised token".to_owned();
    }
    tokens
        .iter()
        .map(|told| format!("{:?} (serial={}; {:?} by {:?})", told.label, told.serial, told.model, told.manufacturer))
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> TokenSelector {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn labels_serials_and_uris_are_told_apart() {
        assert_eq!(read("signing"), TokenSelector::label("signing"));
        assert_eq!(read("serial=ab12"), TokenSelector::serial("ab12"));
        assert_eq!(read("serial:ab12"), TokenSelector::serial("ab12"));
        assert_eq!(read("pkcs11:token=signing"), TokenSelector::label("signing"));
        assert_eq!(read("PKCS11:serial=ab12"), TokenSelector::serial("ab12"));
        let long = "x".repeat(33);
        for bad in
            ["", "serial=", " signing", "signing ", "serial=0123456789abcdef0", "pkcs11:", "pkcs11:slot-id=1", "a?pin-value=1", &long]
        {
            assert!(bad.parse::<TokenSelector>().is_err(), "{bad}");
        }
        let more = "pkcs11:token=a?module-path=/m".parse::<TokenSelector>().unwrap_err();
        assert!(more.problem.contains("more than which token"), "{more}");
    }

    #[test]
    fn exactly_one_token_must_fit_all_that_is_said() {
        let told = |label, serial, model| Told { label, serial, manufacturer: "maker", model };
        let tokens = [told("a", "1", "x"), told("b", "2", "x"), told("b", "3", "y"), told("", "", "z")];
        assert_eq!(sole(&read("a"), &tokens), Ok(0));
        assert_eq!(sole(&read("serial=3"), &tokens), Ok(2));
        assert_eq!(sole(&read("pkcs11:token=b;model=y"), &tokens), Ok(2));
        assert_eq!(sole(&read("pkcs11:token=b;manufacturer=maker;serial=2"), &tokens), Ok(1));
        assert_eq!(sole(&read("pkcs11:token=;serial=;model=z"), &tokens), Ok(3), "an empty text must be told as such");
        for wrong in ["pkcs11:token=a;serial=2", "pkcs11:token=a;model=y", "pkcs11:token=a;manufacturer=other", "pkcs11:token=;model=x"] {
            assert!(sole(&read(wrong), &tokens).unwrap_err().starts_with("no token has the "), "{wrong}");
        }
        let twice = sole(&read("b"), &tokens).unwrap_err();
        assert!(twice.contains("more than one") && twice.contains("serial=3"), "{twice}");
        assert!(sole(&read("pkcs11:manufacturer=maker"), &tokens).unwrap_err().contains("more than one"));
        let none = sole(&read("c"), &tokens).unwrap_err();
        assert!(none.contains("the label \"c\"") && none.contains("\"a\" (serial=1"), "{none}");
        assert!(sole(&read("c"), &[]).unwrap_err().contains("no initialised token"));
    }

    #[test]
    fn two_spellings_of_one_token_are_known_where_one_says_all_of_the_other() {
        for (one, other) in [
            ("a", "pkcs11:token=a"),
            ("serial=1", "pkcs11:serial=1"),
            ("a", "pkcs11:token=a;serial=1"),
            ("pkcs11:model=x", "pkcs11:model=x;token=a"),
            ("a", "pkcs11:token=%61"),
        ] {
            assert!(read(one).names_same_as(&read(other)) && read(other).names_same_as(&read(one)), "{one} {other}");
        }
        for (one, other) in
            [("a", "b"), ("a", "serial=1"), ("a", "pkcs11:token=b;serial=1"), ("pkcs11:token=a;serial=1", "pkcs11:token=a;serial=2")]
        {
            assert!(!read(one).names_same_as(&read(other)) && !read(other).names_same_as(&read(one)), "{one} {other}");
        }
    }
}
