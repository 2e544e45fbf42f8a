//! Values of arguments: durations, sizes.
//!
//! In scope: text to values. Out of scope: which arguments there are.

use std::time::Duration;

use crate::verify::MinSize;

/// `90s`, `5m`, `2h` or `30d`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("{text:?} is not a duration; write a whole number and s, m, h or d, such as 90s or 2h");
    let unit = text.chars().last().ok_or_else(bad)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return Err(bad()),
    };
    let digits = &text[..text.len() - unit.len_utf8()];
    let number: u32 = Some(digits).filter(|d| d.bytes().all(|b| b.is_ascii_digit())).and_then(|d| d.parse().ok()).ok_or_else(bad)?;
    Ok(Duration::from_secs(u64::from(number) * seconds))
}

/// `N` for the key log, or `ORIGIN=N`.
pub(super) fn min_size(text: &str) -> Result<MinSize, String> {
    let (origin, number) = text.rsplit_once('=').map_or((None, text), |(origin, number)| (Some(origin.to_owned()), number));
    let size = number.parse().map_err(|_| format!("{number:?} is not a number of records; write N, or ORIGIN=N"))?;
    Ok(MinSize { origin, size })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("30d"), Ok(Duration::from_hours(30 * 24)));
        for bad in ["", "5", "m", "-5m", "+5m", "1.5h", "5w", "5é"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_size_may_name_its_log() {
        assert_eq!(min_size("7"), Ok(MinSize { origin: None, size: 7 }));
        assert_eq!(min_size("a.example/uses/n=7"), Ok(MinSize { origin: Some("a.example/uses/n".into()), size: 7 }));
        assert!(min_size("a=").is_err());
    }
}
