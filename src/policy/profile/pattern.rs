//! A pattern for a whole text, in which `*` stands for any run of characters, as in Cedar's `like`.
//!
//! In scope: matching in time proportional to the product of both lengths at worst, without recursion. Out of scope: regular expressions.

use std::fmt;
use std::str::FromStr;

/// Longest pattern in bytes: with the limit of a request body it bounds the work of a match.
pub(super) const LONGEST_PATTERN: usize = 256;

/// A pattern that always speaks of the whole text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(String);

/// The text is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a pattern has 1 to {LONGEST_PATTERN} bytes; * stands for any run of characters")]
pub struct BadPattern;

impl FromStr for Pattern {
    type Err = BadPattern;

    fn from_str(text: &str) -> Result<Self, BadPattern> {
        if (1..=LONGEST_PATTERN).contains(&text.len()) { Ok(Self(text.to_owned())) } else { Err(BadPattern) }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Pattern {
    /// Whether the whole text is of this form.
    pub fn matches(&self, text: &str) -> bool {
        let (pattern, text) = (self.0.as_bytes(), text.as_bytes());
        let (mut p, mut t) = (0, 0);
        // Where to go on when a guess fails: after the last star, one byte further in the text.
        let mut retry: Option<(usize, usize)> = None;
        while t < text.len() {
            if pattern.get(p) == Some(&b'*') {
                retry = Some((p + 1, t));
                p += 1;
            } else if pattern.get(p) == text.get(t) {
                (p, t) = (p + 1, t + 1);
            } else if let Some((after_star, from)) = retry {
                (p, t) = (after_star, from + 1);
                retry = Some((after_star, from + 1));
            } else {
                return false;
            }
        }
        pattern[p..].iter().all(|&byte| byte == b'*')
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition, too slow to be used.
    fn by_definition(pattern: &[u8], text: &[u8]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some((b'*', rest)) => (0..=text.len()).any(|skip| by_definition(rest, &text[skip..])),
            Some((byte, rest)) => text.first() == Some(byte) && by_definition(rest, &text[1..]),
        }
    }

    #[test]
    fn a_pattern_speaks_of_the_whole_text() {
        let pattern: Pattern = "user-*".parse().unwrap();
        assert!(pattern.matches("user-1") && pattern.matches("user-"));
        assert!(!pattern.matches("a user-1") && !pattern.matches("user"));
        assert!("".parse::<Pattern>().is_err());
    }

    proptest! {
        #[test]
        fn matching_follows_the_definition(pattern in "[ab*]{1,8}", text in "[ab]{0,10}") {
            let expected = by_definition(pattern.as_bytes(), text.as_bytes());
            prop_assert_eq!(pattern.parse::<Pattern>().unwrap().matches(&text), expected);
        }
    }
}
