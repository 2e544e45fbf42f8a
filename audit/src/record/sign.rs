//! The short way to read the record of a signature, which most lines of a use log are: its members in order, from the first byte to the last.
//!
//! In scope: a `sign` record whose strings need no escape and are ASCII. Out of scope: everything else, saying what is wrong included: the
//! answer is then `None`, and [`super::Record::parse`] takes the long way. What the short way takes, the long way takes for the same; the
//! tests of `record` hold them against each other.

use super::{Asked, Record};
use crate::event::{Event, LogKind, Sign};
use crate::json::{MAX_INTEGER, plain_prefix};
use crate::merkle::Hash;
use crate::time::Timestamp;

/// Reads a line; `None` says nothing about it.
pub(super) fn read(line: &str) -> Option<Record> {
    let mut rest = Rest(line.strip_prefix('{')?);
    let agent = rest.optional(r#""agent":""#, Rest::text)?;
    let alg = rest.member(r#""alg":""#, Rest::text)?.parse().ok()?;
    let backend_request = rest.optional(r#""backend_request":""#, Rest::text)?;
    let boot = rest.member(r#""boot":""#, Rest::text)?;
    let caller = rest.optional(r#""caller":""#, Rest::text)?;
    let durable = rest.member(r#""durable":"#, Rest::number)?;
    rest.skip(r#""event":"sign","exp":"#)?;
    let exp = rest.number()?;
    let iat = rest.optional(r#""iat":"#, Rest::number)?;
    let input = rest.member(r#""input":""#, Rest::hash)?;
    let jti = rest.optional(r#""jti":""#, Rest::hash)?;
    let keyring = rest.member(r#""keyring":""#, Rest::text)?;
    let kid = rest.member(r#""kid":""#, Rest::text)?;
    rest.skip(r#""log":"uses","node":""#)?;
    let node = rest.text()?;
    let policy = rest.member(r#""policy":["#, Rest::texts)?;
    let prev = rest.member(r#""prev":""#, Rest::hash)?;
    let request = rest.optional(r#""request":""#, Rest::text)?;
    let seq = rest.member(r#""seq":"#, Rest::number)?;
    let size = rest.member(r#""size":"#, Rest::number)?;
    let src = rest.optional(r#""src":""#, Rest::text)?;
    let subject = rest.optional(r#""subject":""#, Rest::text)?;
    let time = rest.member(r#""time":""#, Rest::time)?;
    let typ = rest.optional(r#""typ":""#, Rest::text)?;
    if rest.0 != r#""v":1}"# {
        return None;
    }
    let (exp, iat) = (exp.cast_signed(), iat.map(u64::cast_signed));
    let event = Event::Sign(Sign { keyring, kid, alg, input, typ, jti, subject, iat, exp, size, policy, backend_request });
    let asked = Asked { caller, src, agent, request };
    Some(Record { log: LogKind::Uses, seq, time, prev, durable, node, boot, asked, event })
}

/// What of the line is not read yet. Each value is taken with what follows it.
struct Rest<'a>(&'a str);

impl<'a> Rest<'a> {
    #[inline]
    fn skip(&mut self, text: &str) -> Option<()> {
        self.0 = self.0.strip_prefix(text)?;
        Some(())
    }

    #[inline]
    fn member<T>(&mut self, begin: &str, value: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        self.skip(begin)?;
        value(self)
    }

    /// A member that may be left out.
    #[expect(
        clippy::option_option,
        reason = "the outer one says whether this is a line of the kind, the inner one whether the member is there"
    )]
    #[inline]
    fn optional<T>(&mut self, begin: &str, value: impl FnOnce(&mut Self) -> Option<T>) -> Option<Option<T>> {
        if self.0.starts_with(begin) { self.member(begin, value).map(Some) } else { Some(None) }
    }

    /// The first `length` bytes.
    #[inline]
    fn take(&mut self, length: usize) -> Option<&'a str> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    #[inline]
    fn plain(&mut self) -> Option<&'a str> {
        self.take(plain_prefix(self.0.as_bytes()))
    }

    fn text(&mut self) -> Option<String> {
        let text = self.plain()?;
        self.skip("\",")?;
        Some(text.to_owned())
    }

    /// Strings up to the end of their array, of which the bracket is behind us.
    fn texts(&mut self) -> Option<Vec<String>> {
        let mut texts = Vec::new();
        while !self.0.starts_with(']') {
            self.skip(if texts.is_empty() { "\"" } else { ",\"" })?;
            texts.push(self.plain()?.to_owned());
            self.skip("\"")?;
        }
        self.skip("],")?;
        Some(texts)
    }

    /// An integer that is not negative.
    fn number(&mut self) -> Option<u64> {
        let bytes = self.0.as_bytes();
        let (mut number, mut length) = (0, 0);
        // Sixteen digits hold every integer that fits, and none of them is too large for 64 bits.
        while length < 16 && bytes.get(length).is_some_and(u8::is_ascii_digit) {
            number = number * 10 + u64::from(bytes[length] - b'0');
            length += 1;
        }
        let leading_zero = length > 1 && bytes[0] == b'0';
        self.take(length)?;
        self.skip(",")?;
        (length > 0 && !leading_zero && number <= MAX_INTEGER).then_some(number)
    }

    fn hash(&mut self) -> Option<Hash> {
        let hash = self.take(64)?.parse().ok()?;
        self.skip("\",")?;
        Some(hash)
    }

    fn time(&mut self) -> Option<Timestamp> {
        let time = self.take(24)?.parse().ok()?;
        self.skip("\",")?;
        Some(time)
    }
}
