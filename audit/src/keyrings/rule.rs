//! The invariants by name, and how an event is refused.
//!
//! In scope: names and refusals. Out of scope: the transition table, which knows when each invariant is broken.

use std::fmt;

use crate::time::Timestamp;

/// The invariant that an illegal event breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[allow(missing_docs)]
pub enum Rule {
    /// Publish before use.
    I1,
    /// Never outlive.
    I2,
    /// Keep until the last token is dead.
    I3,
    /// Caches and exposure.
    I4,
    /// A standby is always possible.
    I5,
    /// Set sizes.
    I6,
    /// A served set never goes back.
    I7,
    /// The settings in force are the log's; dates only move later.
    I8,
    /// The served set is the one that the events make.
    I9,
    /// Never an empty first set.
    I10,
    /// Order of states.
    I11,
    /// Time never goes back.
    I12,
    /// A name, kid or member that does not fit the records before it.
    Form,
}

impl Rule {
    /// The name that reports use.
    pub fn name(self) -> &'static str {
        match self {
            Self::I1 => "I1",
            Self::I2 => "I2",
            Self::I3 => "I3",
            Self::I4 => "I4",
            Self::I5 => "I5",
            Self::I6 => "I6",
            Self::I7 => "I7",
            Self::I8 => "I8",
            Self::I9 => "I9",
            Self::I10 => "I10",
            Self::I11 => "I11",
            Self::I12 => "I12",
            Self::Form => "form",
        }
    }
}

/// Why an event may not be appended to this log now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{event}: {text} ({})", rule.name())]
pub struct Illegal {
    /// The invariant.
    pub rule: Rule,
    /// The event.
    pub event: &'static str,
    /// What is wrong, with the values.
    pub text: String,
    /// When the same event would be legal, where time alone decides.
    pub until: Option<Timestamp>,
}

/// A refusal before it knows its event.
pub(super) struct No(pub(super) Rule, pub(super) String, pub(super) Option<Timestamp>);

pub(super) fn no(rule: Rule, text: impl fmt::Display) -> No {
    No(rule, text.to_string(), None)
}

pub(super) fn not_before(rule: Rule, date: Timestamp, now: Timestamp, what: impl fmt::Display) -> Result<(), No> {
    if now >= date { Ok(()) } else { Err(No(rule, format!("{what} only from {date} on"), Some(date))) }
}

pub(super) fn need(holds: bool, rule: Rule, text: impl fmt::Display) -> Result<(), No> {
    if holds { Ok(()) } else { Err(no(rule, text)) }
}
