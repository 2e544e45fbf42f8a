//! What is wrong with a configuration file: where, what, and what to do.
//!
//! In scope: the path of a setting, the error, and the list that gathers all errors of a file. Out of scope: the rules themselves. An error
//! repeats names of settings and values that are names, never a value of the wrong kind: somebody may have written a PIN there.

use std::fmt;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Most errors that one reading reports: a reader stops long before, and a broken file must not make an endless list.
pub const MOST_ERRORS: usize = 50;

/// One thing that is wrong with the file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// The setting's path, such as `keyring.access-tokens.token_ttl`; empty if the text is no TOML at all.
    pub setting: String,
    /// The line of the setting, or of the nearest table that should hold it; from 1.
    pub line: Option<usize>,
    /// What is wrong.
    pub problem: String,
    /// What to do.
    pub remedy: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        if !self.setting.is_empty() {
            write!(f, "{}: ", self.setting)?;
        }
        write!(f, "{}; {}", self.problem, self.remedy)
    }
}

/// A step on the way to a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Key(String),
    Index(usize),
}

/// Where a setting stands in the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Place(pub(super) Vec<Step>);

impl Place {
    /// The place of a top-level setting or table.
    pub(super) fn of(key: &str) -> Self {
        Self::default().key(key)
    }

    /// The place of a setting within this table.
    pub(super) fn key(&self, key: &str) -> Self {
        let mut steps = self.0.clone();
        steps.push(Step::Key(key.to_owned()));
        Self(steps)
    }

    /// The place of an item within this array.
    pub(super) fn index(&self, index: usize) -> Self {
        let mut steps = self.0.clone();
        steps.push(Step::Index(index));
        Self(steps)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, step) in self.0.iter().enumerate() {
            let bare = |key: &str| !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
            let dot = if position == 0 { "" } else { "." };
            match step {
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Key(key) if bare(key) => write!(f, "{dot}{key}")?,
                Step::Key(key) if may_hold_pin(key) => write!(f, "{dot}(a URI)")?,
                Step::Key(key) => write!(f, "{dot}{key:?}")?,
            }
        }
        Ok(())
    }
}

/// The text and its parsed tree, which knows the line of everything.
#[derive(Clone, Debug)]
pub(super) struct Document<'t> {
    pub(super) text: &'t str,
    pub(super) root: Spanned<DeTable<'t>>,
}

impl Document<'_> {
    /// The line of a setting, or of the nearest thing around it that exists.
    pub(super) fn line(&self, place: &Place) -> Option<usize> {
        let (mut table, mut items) = (Some(self.root.get_ref()), None);
        let mut span: Option<Range<usize>> = None;
        for step in &place.0 {
            let value = match step {
                Step::Key(key) => table.and_then(|table| table.get_key_value(key.as_str())).map(|(key, value)| (key.span(), value)),
                Step::Index(index) => items.and_then(|items: &toml::de::DeArray<'_>| items.get(*index)).map(|item| (item.span(), item)),
            };
            let Some((found, value)) = value else { break };
            span = Some(found);
            (table, items) = match value.get_ref() {
                DeValue::Table(table) => (Some(table), None),
                DeValue::Array(items) => (None, Some(items)),
                _ => (None, None),
            };
        }
        span.map(|span| line_at(self.text, span.start))
    }
}

/// The number of the line that holds a byte, from 1.
pub(super) fn line_at(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|&byte| byte == b'\n').count() + 1
}

/// Whether a text repeats a PKCS#11 URI, or the part of one in which a PIN stands. (Our own sentences name both, but neither with what
/// follows it in a URI.)
fn may_hold_pin(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    let follows = |name: &str, what: fn(char) -> bool| text.match_indices(name).any(|(at, _)| text[at + name.len()..].starts_with(what));
    follows("pkcs11:", |next| !next.is_whitespace())
        || ["pin-value", "pin_value"].iter().any(|name| follows(name, |next| "=:%".contains(next)))
}

/// Everything that is wrong.
#[derive(Debug)]
pub(super) struct Problems<'t> {
    document: &'t Document<'t>,
    found: Vec<ConfigError>,
}

impl<'t> Problems<'t> {
    pub(super) fn of(document: &'t Document<'t>) -> Self {
        Self { document, found: Vec::new() }
    }

    /// Adds an error; what comes after the last that is reported is only forgotten. A rule may repeat a value that is a name: should a URI
    /// stand in its place, nothing is repeated.
    pub(super) fn add(&mut self, place: &Place, problem: impl Into<String>, remedy: impl Into<String>) {
        if self.found.len() < MOST_ERRORS {
            let (line, problem, remedy) = (self.document.line(place), problem.into(), remedy.into());
            let (problem, remedy) = if may_hold_pin(&problem) || may_hold_pin(&remedy) {
                let remedy = "a URI stands in a keystore's `token`, without a PIN";
                ("is a PKCS#11 URI, or what is left of one".to_owned(), remedy.to_owned())
            } else {
                (problem, remedy)
            };
            self.found.push(ConfigError { setting: place.to_string(), line, problem, remedy });
        }
    }

    /// The value of a setting that must be there.
    pub(super) fn required<T>(&mut self, value: Option<T>, place: &Place, remedy: &str) -> Option<T> {
        if value.is_none() {
            self.add(place, "is missing", remedy);
        }
        value
    }

    pub(super) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// All errors in the file's order; what is missing from the top comes first.
    pub(super) fn into_found(mut self) -> Vec<ConfigError> {
        self.found.sort_by_key(|error| error.line);
        self.found
    }
}
