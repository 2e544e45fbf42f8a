//! RFC 7512 URIs that name a token, its module and the file of its PIN. Pure: text in, a [`TokenUri`] or a sentence out.
//!
//! In scope: the grammar of sections 2.3 and 2.4, and which of its attributes may stand in a configuration. Out of scope: opening any file,
//! finding the token (`token.rs`), and URIs of keys: Claviger names its keys itself.
//!
//! No error repeats any part of a URI, not even a name: somebody may have written a PIN into it, and a URI that is broken can hold one
//! anywhere. Attributes are told by their place instead. A `pin-value` is refused before anything else is looked at.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use super::token::{BadTokenSelector, TokenSelector};

/// What a URI begins with; a scheme is the same in any case (RFC 3986 section 3.1).
const SCHEME: &str = "pkcs11:";
/// Characters that may stand raw beside letters, digits and `-._~` (RFC 7512 section 2.3: `pk11-res-avail`), and the more of each component.
const RAW: &[u8] = b":[]@!$'()*+,=";
const RAW_IN_PATH: &[u8] = b"&";
const RAW_IN_QUERY: &[u8] = b"/?|";
/// What may stand in a URI here, for errors.
const KNOWN: &str = "known are token, serial, manufacturer and model, and after a question mark module-path and pin-source";

/// What a URI says: which token, and where its module and its PIN are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenUri {
    /// The token that fits all that is said of it.
    pub token: TokenSelector,
    /// The absolute path of the module's shared library.
    pub module_path: Option<String>,
    /// The absolute path of the file that holds the PIN.
    pub pin_source: Option<String>,
}

impl TokenUri {
    /// Whether a text is meant to be a URI, right or wrong.
    pub fn is_meant_by(text: &str) -> bool {
        text.get(..SCHEME.len()).is_some_and(|start| start.eq_ignore_ascii_case(SCHEME))
    }
}

impl FromStr for TokenUri {
    type Err = BadTokenSelector;

    fn from_str(text: &str) -> Result<Self, BadTokenSelector> {
        if holds_pin(text) {
            return Err(bad("holds a pin-value", "take it out, and write the PIN into a file: pin_file or pin-source names it"));
        }
        if !Self::is_meant_by(text) {
            return Err(bad("does not begin with the scheme of a PKCS#11 URI", "write pkcs11: in front of it"));
        }
        let rest = &text[SCHEME.len()..];
        let (path, query) = rest.split_once('?').map_or((rest, ""), |(path, query)| (path, query));
        let mut uri = Self { token: TokenSelector::default(), module_path: None, pin_source: None };
        for (place, part) in parts(path, ';') {
            uri.take_path(&Part::read(part, "path", place, RAW_IN_PATH)?)?;
        }
        for (place, part) in parts(query, '&') {
            uri.take_query(&Part::read(part, "query", place, RAW_IN_QUERY)?)?;
        }
        uri.token.check()?;
        Ok(uri)
    }
}

/// The components of a path or query. An empty one has none (RFC 7512 section 2.3: both may be empty).
fn parts(text: &str, separator: char) -> impl Iterator<Item = (usize, &str)> {
    text.split(separator).filter(move |_| !text.is_empty()).enumerate().map(|(index, part)| (index + 1, part))
}

impl TokenUri {
    fn take_path(&mut self, part: &Part<'_>) -> Result<(), BadTokenSelector> {
        let token = &mut self.token;
        match part.name {
            "token" => part.put(&mut token.label),
            "serial" => part.put(&mut token.serial),
            "manufacturer" => part.put(&mut token.manufacturer),
            "model" => part.put(&mut token.model),
            "slot-id" | "slot-description" | "slot-manufacturer" => {
                Err(part.bad("names a slot", "say token or serial: slots move, tokens do not"))
            }
            "object" | "id" | "type" => {
                Err(part.bad("names a key", "take it out: the URI names a token, and Claviger names its keys itself"))
            }
            "library-manufacturer" | "library-description" | "library-version" => {
                Err(part.bad("describes a module", "name the module's file with module-path"))
            }
            "module-path" | "module-name" | "pin-source" => Err(part.bad("belongs into the query", "write it after a question mark")),
            _ => Err(part.bad("is not known", KNOWN)),
        }
    }

    fn take_query(&mut self, part: &Part<'_>) -> Result<(), BadTokenSelector> {
        match part.name {
            "module-path" => {
                let path = part.value.as_str();
                if !is_absolute(path) {
                    return Err(part.bad("is not an absolute path", "write the module's file from / on"));
                }
                part.put_text(path, &mut self.module_path)
            }
            // The name of a module is a file only by the search rules of one system or another (RFC 7512 section 2.3 leaves them open).
            "module-name" => {
                Err(part.bad("is a module's name", "name the file itself with module-path or module: a name may mean any file"))
            }
            "pin-source" => {
                let path = pin_path(&part.value).map_err(|(problem, remedy)| part.bad(problem, remedy))?;
                part.put_text(path, &mut self.pin_source)
            }
            "token" | "serial" | "manufacturer" | "model" => Err(part.bad("belongs into the path", "write it before the question mark")),
            _ => Err(part.bad("is not known", KNOWN)),
        }
    }
}

/// One attribute, decoded.
struct Part<'t> {
    component: &'static str,
    place: usize,
    name: &'t str,
    value: String,
}

impl<'t> Part<'t> {
    /// Reads `name=value`. Names are compared as they stand: the RFC writes them in lower case.
    fn read(text: &'t str, component: &'static str, place: usize, more: &[u8]) -> Result<Self, BadTokenSelector> {
        let (name, raw) = text.split_once('=').unwrap_or((text, ""));
        let mut part = Self { component, place, name, value: String::new() };
        let in_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if name.is_empty() || !name.bytes().all(in_name) || name.len() == text.len() {
            return Err(part.bad("is not of the form name=value", "write ; between attributes of the path, & between those of the query"));
        }
        part.value = decode(raw, more).map_err(|(problem, remedy)| part.bad(problem, remedy))?;
        Ok(part)
    }

    /// Keeps the value, once.
    fn put(&self, place: &mut Option<String>) -> Result<(), BadTokenSelector> {
        self.put_text(&self.value, place)
    }

    fn put_text(&self, text: &str, place: &mut Option<String>) -> Result<(), BadTokenSelector> {
        if place.is_some() {
            return Err(self.bad("stands there twice", "say each attribute once"));
        }
        *place = Some(text.to_owned());
        Ok(())
    }

    fn bad(&self, problem: &str, remedy: &'static str) -> BadTokenSelector {
        bad(format!("attribute {} of the URI's {} {problem}", self.place, self.component), remedy)
    }
}

fn bad(problem: impl Into<Cow<'static, str>>, remedy: &'static str) -> BadTokenSelector {
    BadTokenSelector { problem: problem.into(), remedy }
}

/// Whether anything that looks like an attribute is called `pin-value`, however it is spelt and wherever it stands.
pub(super) fn holds_pin(text: &str) -> bool {
    let is_pin = |name: &str| name.trim().replace('_', "-").to_ascii_lowercase().starts_with("pin-value");
    text.split([';', '?', '&']).any(|part| part.split('=').next().unwrap_or_default().split(':').any(is_pin))
}

/// Undoes percent-encoding (RFC 3986 section 2.1): hex in any case; every other character must be one that may stand raw; the bytes are
/// UTF-8 (RFC 7512 section 2.3).
fn decode(raw: &str, more: &[u8]) -> Result<String, (&'static str, &'static str)> {
    const ENCODE: &str = "write it as % and two hex digits, a space as %20";
    let mut bytes = Vec::with_capacity(raw.len());
    let mut rest = raw.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16)).and_then(|digit| u8::try_from(digit).ok());
            let (Some(high), Some(low)) = (digit(), digit()) else {
                return Err(("has a % without two hex digits", "write a % itself as %25"));
            };
            bytes.push(high << 4 | low);
        } else if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || RAW.contains(&byte) || more.contains(&byte) {
            bytes.push(byte);
        } else {
            return Err(("has a character that may not stand there", ENCODE));
        }
    }
    String::from_utf8(bytes).map_err(|_| ("is not UTF-8", "encode the UTF-8 bytes of the text"))
}

/// The file that a `pin-source` names (RFC 7512 section 2.4): a `file:` URI (RFC 8089) of this machine, or an absolute path.
fn pin_path(value: &str) -> Result<&str, (&'static str, &'static str)> {
    if value.starts_with('|') {
        return Err(("names a command", "name a file: Claviger runs nothing to get a PIN"));
    }
    let Some(of_uri) = value.get(..5).filter(|scheme| scheme.eq_ignore_ascii_case("file:")).map(|_| &value[5..]) else {
        return if is_absolute(value) { Ok(value) } else { Err(("is not a file", "write file: and the file's path from / on")) };
    };
    let path = match of_uri.strip_prefix("//") {
        Some(rest) => rest.strip_prefix("localhost").unwrap_or(rest),
        None => of_uri,
    };
    if !is_absolute(path) {
        return Err(("is not a file of this machine", "write file: and the file's path from / on"));
    }
    if path.contains(['%', '?', '#']) {
        return Err(("has a file URI with %, ? or #", "write the plain path without file:"));
    }
    Ok(path)
}

fn is_absolute(path: &str) -> bool {
    path.starts_with('/') && !path.starts_with("//") && !path.contains('\0')
}

impl fmt::Display for TokenUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(SCHEME)?;
        let TokenSelector { label, serial, manufacturer, model } = &self.token;
        let path = [("token", label), ("serial", serial), ("manufacturer", manufacturer), ("model", model)];
        write_parts(f, &path, "", ";")?;
        let query = [("module-path", &self.module_path), ("pin-source", &self.pin_source)];
        write_parts(f, &query, "?", "&")
    }
}

fn write_parts(f: &mut fmt::Formatter<'_>, parts: &[(&str, &Option<String>)], first: &str, next: &str) -> fmt::Result {
    let mut before = first;
    for (name, value) in parts {
        let Some(value) = value else { continue };
        write!(f, "{before}{name}=")?;
        for byte in value.bytes() {
            // A slash may stand raw in the query alone; that is where the paths are.
            let raw = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || (byte == b'/' && first == "?");
            if raw { write!(f, "{}", char::from(byte))? } else { write!(f, "%{byte:02X}")? }
        }
        before = next;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
