//! Limits: how much, how fast and how long; and what the use log says of subjects.
//!
//! In scope: bounds and defaults. Out of scope: enforcing them.

use std::num::NonZeroU32;
use std::time::Duration;

use super::error::{Place, Problems};
use super::names;
use super::raw::{RawAudit, RawLimits};
use super::span::Span;
use crate::rotation::duration::Human;

/// Bounds of a request's deadline: a keystore call takes milliseconds, and a caller that waits longer than a minute has gone.
const DEADLINE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_mins(1));
/// Bounds of the time for headers and for the TLS handshake: whoever is slower holds a connection for nothing.
const PATIENCE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));
/// Bounds of the retention of use records: ten years are longer than anybody keeps them, and none is a mistake.
const RETENTION: (Duration, Duration) = (Duration::from_secs(1), Duration::from_hours(3650 * 24));
/// Retention by default: as long as a quarterly audit needs.
const RETENTION_DEFAULT: Duration = Duration::from_hours(90 * 24);
/// Bounds of a body in bytes: the smallest claims set fits, and no request fills the memory.
const BYTES: (i64, i64) = (1024, 16 << 20);
/// Bounds of every count.
const COUNT: (i64, i64) = (1, 1_000_000);

/// How much, how fast and how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest time between accepting a request and releasing its signature; 2 s.
    pub deadline: Duration,
    /// How long a peer may take to send its request headers; 10 s.
    pub header_timeout: Duration,
    /// How long a peer may take for the TLS handshake; 10 s.
    pub handshake_timeout: Duration,
    /// Largest body of a request in bytes; 64 KiB.
    pub body_bytes: usize,
    /// Largest body of a batch in bytes, at least `body_bytes`; 1 MiB.
    pub batch_bytes: usize,
    /// Requests per second of one caller, sustained; 500.
    pub rate: NonZeroU32,
    /// Requests at once of one caller after a pause; 1000.
    pub burst: NonZeroU32,
    /// Requests of one caller that may be in flight; 64.
    pub in_flight: NonZeroU32,
    /// Connections of all listeners together; 1024.
    pub connections: NonZeroU32,
}

impl Default for Limits {
    fn default() -> Self {
        let count = |count| NonZeroU32::new(count).expect("the defaults are not zero");
        Self {
            deadline: Duration::from_secs(2),
            header_timeout: Duration::from_secs(10),
            handshake_timeout: Duration::from_secs(10),
            body_bytes: 64 << 10,
            batch_bytes: 1 << 20,
            rate: count(500),
            burst: count(1000),
            in_flight: count(64),
            connections: count(1024),
        }
    }
}

/// What the use log says of a token's subject, its source address and its user agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Subject {
    /// An HMAC under a yearly key.
    #[default]
    Hash,
    /// The text itself.
    Plain,
    /// Nothing.
    Omit,
}

impl Subject {
    const ALL: [Self; 3] = [Self::Hash, Self::Plain, Self::Omit];

    /// The name in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hash => "hash",
            Self::Plain => "plain",
            Self::Omit => "omit",
        }
    }
}

/// Reads the limits.
pub(super) fn limits(raw: &RawLimits, problems: &mut Problems<'_>) -> Limits {
    let at = Place::of("limits");
    let default = Limits::default();
    let mut span = |given, bounds, default, name| time(given, bounds, default, &at.key(name), problems);
    let deadline = span(raw.deadline, DEADLINE, default.deadline, "deadline");
    let header_timeout = span(raw.header_timeout, PATIENCE, default.header_timeout, "header_timeout");
    let handshake_timeout = span(raw.handshake_timeout, PATIENCE, default.handshake_timeout, "handshake_timeout");
    let body_bytes = bytes(raw.body_bytes, default.body_bytes, &at.key("body_bytes"), problems);
    let batch_bytes = bytes(raw.batch_bytes, default.batch_bytes.max(body_bytes), &at.key("batch_bytes"), problems);
    if batch_bytes < body_bytes {
        let problem = format!("{batch_bytes} is less than body_bytes, {body_bytes}: a batch of one would not fit");
        problems.add(&at.key("batch_bytes"), problem, format!("raise it to {body_bytes}"));
    }
    let mut count = |given, default, name| count(given, default, &at.key(name), problems);
    let rate = count(raw.rate, default.rate, "rate");
    let burst = count(raw.burst, default.burst.max(rate), "burst");
    let in_flight = count(raw.in_flight, default.in_flight, "in_flight");
    let connections = count(raw.connections, default.connections, "connections");
    Limits { deadline, header_timeout, handshake_timeout, body_bytes, batch_bytes, rate, burst, in_flight, connections }
}

/// Reads what the use log says of subjects.
pub(super) fn subject(raw: &RawAudit, problems: &mut Problems<'_>) -> Subject {
    let Some(text) = &raw.subject else { return Subject::default() };
    Subject::ALL.into_iter().find(|known| known.as_str() == text).unwrap_or_else(|| {
        problems.add(&Place::of("audit").key("subject"), format!("{text:?} is not known"), "write \"hash\", \"plain\" or \"omit\"");
        Subject::default()
    })
}

/// Reads how long use records must stay.
pub(super) fn retention(raw: &RawAudit, problems: &mut Problems<'_>) -> Duration {
    time(raw.retention, RETENTION, RETENTION_DEFAULT, &Place::of("audit").key("retention"), problems)
}

pub(super) fn time(
    given: Option<Span>,
    bounds: (Duration, Duration),
    default: Duration,
    place: &Place,
    problems: &mut Problems<'_>,
) -> Duration {
    let Some(Span(span)) = given else { return default };
    if (bounds.0..=bounds.1).contains(&span) {
        return span;
    }
    let remedy = format!("write a duration from {} to {}", Human(bounds.0), Human(bounds.1));
    problems.add(place, format!("{} is out of bounds", Human(span)), remedy);
    default
}

fn bytes(given: Option<i64>, default: usize, place: &Place, problems: &mut Problems<'_>) -> usize {
    names::number(given, BYTES, default, place, problems)
}

fn count(given: Option<i64>, default: NonZeroU32, place: &Place, problems: &mut Problems<'_>) -> NonZeroU32 {
    NonZeroU32::new(names::number(given, COUNT, default.get(), place, problems)).unwrap_or(default)
}
