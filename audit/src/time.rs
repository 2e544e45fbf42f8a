//! Points in time as the logs write them: UTC, RFC 3339, whole milliseconds, 24 characters.
//!
//! Nothing here reads a clock: times come from records or from arguments.

use std::fmt;
use std::ops::{Add, Sub};
use std::str::FromStr;
use std::time::Duration;

use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::{Serialize, Serializer};

/// Milliseconds since 1970-01-01T00:00:00Z. Arithmetic saturates: a date can be absurd, but never wraps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

/// 9999-12-31T23:59:59.999Z, the last time that RFC 3339 can write.
const LATEST_MILLIS: i64 = 253_402_300_799_999;

impl Timestamp {
    /// The last time that a record can have.
    pub const LATEST: Self = Self(LATEST_MILLIS);

    /// A time from milliseconds since the Unix epoch, held within the years 1970 to 9999.
    pub fn from_millis(millis: i64) -> Self {
        Self(millis.clamp(0, LATEST_MILLIS))
    }

    /// A time from whole seconds since the Unix epoch (`NumericDate` of RFC 7519 section 2).
    pub fn from_seconds(seconds: i64) -> Self {
        Self::from_millis(seconds.saturating_mul(1000))
    }

    /// Milliseconds since the Unix epoch.
    pub fn millis(self) -> i64 {
        self.0
    }

    /// Whole seconds since the Unix epoch, rounded down.
    pub fn seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// A time as other programs write it (RFC 3339): any number of decimals, of which three count, and any offset.
    pub fn from_rfc3339(text: &str) -> Option<Self> {
        let (seconds, rest) = text.split_at_checked("2026-01-31T12:00:00".len())?;
        let (decimals, zone) = match rest.strip_prefix('.') {
            Some(rest) => rest.split_at(rest.bytes().take_while(u8::is_ascii_digit).count()),
            None => ("000", rest),
        };
        let local: Self = format!("{seconds}.{:0<3}Z", decimals.get(..3).or((!decimals.is_empty()).then_some(decimals))?).parse().ok()?;
        let east = match zone.as_bytes() {
            [b'Z' | b'z'] => return Some(local),
            [b'+', ..] => true,
            [b'-', ..] => false,
            _ => return None,
        };
        // The offset is read as the time of a day.
        let offset = zone.get(1..).and_then(|zone| format!("1970-01-01T{zone}:00.000Z").parse::<Self>().ok())?;
        let offset = Duration::from_millis(offset.0.unsigned_abs());
        Some(if east { local - offset } else { local + offset })
    }

    /// How long after `earlier` this is; zero if it is not later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self::from_millis(self.0.saturating_add(i64::try_from(span.as_millis()).unwrap_or(i64::MAX)))
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Self;

    fn sub(self, span: Duration) -> Self {
        Self::from_millis(self.0.saturating_sub(i64::try_from(span.as_millis()).unwrap_or(i64::MAX)))
    }
}

/// How many characters a time has.
const LENGTH: usize = 24;
/// 1970-01-01 in days since 0000-03-01, the day from which [`date`] and [`days`] count: there, a leap day is the last day of its year.
const EPOCH_DAYS: i64 = 719_468;
/// Days in 400 years.
const ERA_DAYS: i64 = 146_097;
const DAY_MILLIS: i64 = 86_400_000;

/// Year, month and day of the Gregorian calendar, from days since the Unix epoch (ISO 8601; years 0 to 9999).
fn date(days: i64) -> (i64, i64, i64) {
    let days = days + EPOCH_DAYS;
    let (era, day) = (days / ERA_DAYS, days % ERA_DAYS);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    // March is month 0; five months have 153 days, whichever month is the first of them.
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, later) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year + later, month, day)
}

/// The days of a month.
fn length_of(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// The reverse of [`date`].
fn days(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let (era, year) = (year.div_euclid(400), year.rem_euclid(400));
    era * ERA_DAYS + 365 * year + year / 4 - year / 100 + (153 * month + 2) / 5 + day - 1 - EPOCH_DAYS
}

impl Timestamp {
    /// The 24 characters, all of them ASCII.
    fn spelling(self) -> [u8; LENGTH] {
        let (year, month, day) = date(self.0 / DAY_MILLIS);
        let rest = self.0 % DAY_MILLIS;
        let mut text = *b"0000-00-00T00:00:00.000Z";
        let mut put = |at: std::ops::Range<usize>, mut number: i64| {
            for digit in text[at].iter_mut().rev() {
                *digit = b'0' + u8::try_from(number % 10).unwrap_or_default();
                number /= 10;
            }
        };
        put(0..4, year);
        put(5..7, month);
        put(8..10, day);
        put(11..13, rest / 3_600_000);
        put(14..16, rest / 60_000 % 60);
        put(17..19, rest / 1_000 % 60);
        put(20..23, rest % 1_000);
        text
    }

    /// The one way to read the one spelling; `None` for any other text.
    fn read(text: &[u8; LENGTH]) -> Option<Self> {
        let mut digits = true;
        let mut number = |at: std::ops::Range<usize>| {
            text[at].iter().fold(0, |number, byte| {
                digits &= byte.is_ascii_digit();
                number * 10 + i64::from(*byte & 15)
            })
        };
        let (year, month, day) = (number(0..4), number(5..7), number(8..10));
        let (hour, minute, second, milli) = (number(11..13), number(14..16), number(17..19), number(20..23));
        let between = [text[4], text[7], text[10], text[13], text[16], text[19], text[23]];
        let is_date = (1970..).contains(&year) && (1..=12).contains(&month) && (1..=length_of(year, month)).contains(&day);
        let is_time = hour < 24 && minute < 60 && second < 60;
        let time = days(year, month, day) * DAY_MILLIS + hour * 3_600_000 + minute * 60_000 + second * 1_000 + milli;
        (digits && between == *b"--T::.Z" && is_date && is_time).then_some(Self(time))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(str::from_utf8(&self.spelling()).unwrap_or_default())
    }
}

/// The text is not a time in the one form that the logs use.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is not a UTC time of the form 2026-01-31T12:00:00.000Z")]
pub struct BadTimestamp(String);

impl FromStr for Timestamp {
    type Err = BadTimestamp;

    fn from_str(text: &str) -> Result<Self, BadTimestamp> {
        let time = text.as_bytes().try_into().ok().and_then(Self::read);
        time.ok_or_else(|| BadTimestamp(text.to_owned()))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(str::from_utf8(&self.spelling()).unwrap_or_default())
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Timestamp;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a UTC time")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Timestamp, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Text)
    }
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, SecondsFormat, Utc};
    use proptest::prelude::*;

    use super::*;

    /// The same in another implementation.
    fn oracle(millis: i64) -> String {
        DateTime::<Utc>::from_timestamp_millis(millis).unwrap().to_rfc3339_opts(SecondsFormat::Millis, true)
    }

    fn agrees(millis: i64) {
        let time = Timestamp::from_millis(millis);
        assert_eq!(time.to_string(), oracle(millis));
        assert_eq!(time.to_string().parse(), Ok(time));
    }

    #[test]
    fn every_day_of_the_calendars_400_years_has_its_date() {
        (0..=ERA_DAYS).for_each(|day| agrees(day * DAY_MILLIS));
        [DAY_MILLIS - 1, LATEST_MILLIS].into_iter().for_each(agrees);
    }

    proptest! {
        #[test]
        fn text_and_time_agree_with_the_oracle(millis in 0..=LATEST_MILLIS) {
            agrees(millis);
        }

        #[test]
        fn what_the_oracle_does_not_print_is_refused(text in "(19[67]|20[02]|999)[0-9]-[01][0-9]-[0-3][0-9][T ][0-2][0-9]:[0-6][0-9]:[0-6][0-9][.,][0-9]{3}[Zz0]") {
            let printed = DateTime::parse_from_rfc3339(&text).ok().filter(|time| time.timestamp_millis() >= 0 && oracle(time.timestamp_millis()) == text);
            prop_assert_eq!(text.parse().ok(), printed.map(|time| Timestamp::from_millis(time.timestamp_millis())));
        }
    }

    #[test]
    fn one_time_has_one_spelling() {
        let text = "2026-11-23T00:51:03.120Z";
        assert_eq!(text.parse::<Timestamp>().map(|t| t.to_string()), Ok(text.to_owned()));
        for other in [
            "2026-11-23T00:51:03Z",
            "2026-11-23T00:51:03.12Z",
            "2026-11-23T01:51:03.120+01:00",
            "2026-11-23 00:51:03.120Z",
            "2026-11-23T00:51:03.12\u{e9}",
            "1969-12-31T23:59:59.999Z",
            "2026-02-30T00:00:00.000Z",
            "2026-1:-23T00:51:03.120Z",
            "2026-11-23T24:00:00.000Z",
            "",
        ] {
            assert!(other.parse::<Timestamp>().is_err(), "{other}");
        }
    }

    #[test]
    fn other_programs_write_the_same_time_in_many_ways() {
        let time: Timestamp = "2026-11-23T00:51:03.120Z".parse().unwrap();
        for text in
            ["2026-11-23T00:51:03.12Z", "2026-11-23T00:51:03.120999999Z", "2026-11-23T02:51:03.12+02:00", "2026-11-22T19:21:03.120-05:30"]
        {
            assert_eq!(Timestamp::from_rfc3339(text), Some(time), "{text}");
        }
        assert_eq!(Timestamp::from_rfc3339("2026-11-23T00:51:03Z"), Some(time - Duration::from_millis(120)));
        for bad in ["", "2026-11-23", "2026-11-23T00:51:03", "2026-11-23T00:51:03.Z", "2026-11-23T00:51:03+2", "2026-11-23T00:51:0\u{e9}Z"]
        {
            assert_eq!(Timestamp::from_rfc3339(bad), None, "{bad}");
        }
    }

    #[test]
    fn arithmetic_saturates() {
        let last = Timestamp::from_millis(i64::MAX);
        assert_eq!(last + Duration::from_secs(1), last);
        assert_eq!(Timestamp::default() - Duration::from_secs(1), Timestamp::default());
    }
}
