//! A duration as the file writes it: text with a unit.
//!
//! In scope: reading it as a setting, so that what is wrong is told without repeating the value. Out of scope: the form itself
//! (`rotation::duration`).

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Deserializer, de};

use crate::rotation::duration::parse_duration;

/// How a duration is written.
const FORM: &str = "a duration with its unit, such as \"500ms\", \"30s\", \"15m\", \"1h 30m\" or \"7d\"";

/// A duration in whole milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span(pub(super) Duration);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Visitor)
    }
}

struct Visitor;

impl de::Visitor<'_> for Visitor {
    type Value = Span;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(FORM)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Span, E> {
        parse_duration(text).map(Span).map_err(|_| E::invalid_value(de::Unexpected::Str(text), &self))
    }
}
