//! Durations as operators write and read them: `15m`, `1h30m`, `500ms`.
//!
//! In scope: whole numbers of days, hours, minutes, seconds and milliseconds, both ways. Out of scope: months and years, which are of no
//! fixed length, so that `15M` is an error and not fifteen months.

use std::fmt;
use std::time::Duration;

/// Every unit with its length in milliseconds, longest first: the order in which they are written.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// The text is not a duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a duration; write whole numbers with d, h, m, s or ms, the longest unit first, such as 30d, 1h30m or 500ms")]
pub struct BadDuration(pub String);

/// Reads a duration: each unit at most once, the longest first, with or without spaces between the parts.
///
/// # Errors
///
/// [`BadDuration`] for anything else, such as a bare number, a fraction or an unknown unit.
pub fn parse_duration(text: &str) -> Result<Duration, BadDuration> {
    parse(text).map(Duration::from_millis).ok_or_else(|| BadDuration(text.to_owned()))
}

fn parse(text: &str) -> Option<u64> {
    let (mut rest, mut total, mut shorter) = (text, 0_u64, UNITS.as_slice());
    while !rest.is_empty() {
        let (number, tail) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit())?);
        let (unit, tail) = tail.split_at(tail.find(|c: char| !c.is_ascii_lowercase()).unwrap_or(tail.len()));
        let index = shorter.iter().position(|(name, _)| *name == unit)?;
        total = total.checked_add(number.parse::<u64>().ok()?.checked_mul(shorter[index].1)?)?;
        shorter = &shorter[index + 1..];
        rest = tail.trim_start();
        // A space separates parts; it does not end the text.
        if rest.is_empty() && !tail.is_empty() {
            return None;
        }
    }
    (!text.is_empty()).then_some(total)
}

/// Prints a duration in the same form: `6m 2s`. What is shorter than a millisecond is cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Human(pub Duration);

impl fmt::Display for Human {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        if rest == 0 {
            return f.write_str("0s");
        }
        let mut space = "";
        for (unit, length) in UNITS {
            if rest >= length {
                write!(f, "{space}{}{unit}", rest / length)?;
                rest %= length;
                space = " ";
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_printed() {
        for (text, millis, printed) in [
            ("15m", 900_000, "15m"),
            ("30d", 30 * 86_400_000, "30d"),
            ("1h30m", 5_400_000, "1h 30m"),
            ("500ms", 500, "500ms"),
            ("6m 2s", 362_000, "6m 2s"),
            ("0s", 0, "0s"),
            ("90s", 90_000, "1m 30s"),
        ] {
            let read = parse_duration(text).expect(text);
            assert_eq!((read, Human(read).to_string().as_str()), (Duration::from_millis(millis), printed), "{text}");
            assert_eq!(parse_duration(printed), Ok(read));
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for bad in
            ["", " ", "15", "15M", "1.5h", "-1s", "1s1m", "1m1m", "m", "5 m", "1s ", "1y", "99999999999999999999s", "999999999999999d"]
        {
            assert_eq!(parse_duration(bad), Err(BadDuration(bad.to_owned())));
        }
    }
}
