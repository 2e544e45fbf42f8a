//! The short way to read the record of a signature, which most lines of a use log are: its members in order, from the first byte to the
//! last, into the room of another such record.
//!
//! In scope: a `sign` record whose strings need no escape and are ASCII. Out of scope: everything else, saying what is wrong included: the
//! answer is then `None`, and [`super::Reader`] takes the long way. What the short way takes, the long way takes for the same; the tests
//! of `record` hold them against each other.

use super::{Asked, Record};
use crate::algorithm::Algorithm;
use crate::event::{Event, LogKind, Sign};
use crate::json::{MAX_INTEGER, plain_prefix};
use crate::merkle::Hash;
use crate::time::Timestamp;

/// Reads a line into `record`, which must be one of a signature. After `None`, which says nothing about the line, `record` is to be thrown
/// away.
pub(super) fn read(line: &str, record: &mut Record) -> Option<()> {
    let Record { log, seq, time, prev, durable, node, boot, asked, event: Event::Sign(sign) } = record else { return None };
    let Asked { caller, src, agent, request } = asked;
    let Sign { keyring, kid, alg, input, typ, jti, subject, iat, exp, size, policy, backend_request } = sign;
    let mut rest = Rest(line.strip_prefix('{')?);
    rest.optional_text(r#""agent":""#, agent)?;
    *alg = rest.member(r#""alg":""#, Rest::algorithm)?;
    rest.optional_text(r#""backend_request":""#, backend_request)?;
    rest.text(r#""boot":""#, boot)?;
    rest.optional_text(r#""caller":""#, caller)?;
    *durable = rest.member(r#""durable":"#, Rest::number)?;
    *exp = rest.member(r#""event":"sign","exp":"#, Rest::number)?.cast_signed();
    *iat = rest.optional(r#""iat":"#, Rest::number)?.map(u64::cast_signed);
    *input = rest.member(r#""input":""#, Rest::hash)?;
    *jti = rest.optional(r#""jti":""#, Rest::hash)?;
    rest.text(r#""keyring":""#, keyring)?;
    rest.text(r#""kid":""#, kid)?;
    *log = LogKind::Uses;
    rest.text(r#""log":"uses","node":""#, node)?;
    rest.texts(r#""policy":["#, policy)?;
    *prev = rest.member(r#""prev":""#, Rest::hash)?;
    rest.optional_text(r#""request":""#, request)?;
    *seq = rest.member(r#""seq":"#, Rest::number)?;
    *size = rest.member(r#""size":"#, Rest::number)?;
    rest.optional_text(r#""src":""#, src)?;
    rest.optional_text(r#""subject":""#, subject)?;
    *time = rest.member(r#""time":""#, Rest::time)?;
    rest.optional_text(r#""typ":""#, typ)?;
    (rest.0 == r#""v":1}"#).then_some(())
}

/// What of the line is not read yet. Each method takes a member from the start of its name, which it is told up to where the value varies,
/// to the comma that follows it. Those that compare the name are small, to be compiled into [`read`], where it is a constant.
struct Rest<'a>(&'a str);

impl<'a> Rest<'a> {
    #[inline]
    fn skip(&mut self, text: &str) -> Option<()> {
        self.0 = self.0.strip_prefix(text)?;
        Some(())
    }

    /// The first `length` bytes.
    #[inline]
    fn take(&mut self, length: usize) -> Option<&'a str> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    #[inline]
    fn text(&mut self, begin: &str, into: &mut String) -> Option<()> {
        self.skip(begin)?;
        self.rest_of_text(into)?;
        self.skip(",")
    }

    #[inline]
    fn optional_text(&mut self, begin: &str, into: &mut Option<String>) -> Option<()> {
        if self.0.starts_with(begin) {
            return self.text(begin, into.get_or_insert_default());
        }
        *into = None;
        Some(())
    }

    fn rest_of_text(&mut self, into: &mut String) -> Option<()> {
        into.clear();
        into.push_str(self.take(plain_prefix(self.0.as_bytes()))?);
        self.skip("\"")
    }

    /// An array of strings.
    fn texts(&mut self, begin: &str, into: &mut Vec<String>) -> Option<()> {
        self.skip(begin)?;
        let mut count = 0;
        while !self.0.starts_with(']') {
            self.skip(if count == 0 { "\"" } else { ",\"" })?;
            if count == into.len() {
                into.push(String::new());
            }
            self.rest_of_text(&mut into[count])?;
            count += 1;
        }
        into.truncate(count);
        self.skip("],")
    }

    /// A member that may be left out.
    #[inline]
    #[expect(
        clippy::option_option,
        reason = "the outer one says whether the line is one of the kind, the inner one whether it has the member"
    )]
    fn optional<T>(&mut self, begin: &str, value: impl FnOnce(&mut Self) -> Option<T>) -> Option<Option<T>> {
        if self.0.starts_with(begin) { self.member(begin, value).map(Some) } else { Some(None) }
    }

    #[inline]
    fn member<T>(&mut self, begin: &str, value: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        self.skip(begin)?;
        value(self)
    }

    /// An integer that is not negative, and a comma.
    fn number(&mut self) -> Option<u64> {
        let (mut number, mut length) = (0, 0);
        // Sixteen digits hold every integer that fits, and none of them is too large for 64 bits.
        for digit in self.0.bytes().take(16).take_while(u8::is_ascii_digit) {
            number = number * 10 + u64::from(digit - b'0');
            length += 1;
        }
        let digits = self.take(length)?;
        let one_spelling = !digits.is_empty() && (length == 1 || !digits.starts_with('0'));
        self.skip(",")?;
        (one_spelling && number <= MAX_INTEGER).then_some(number)
    }

    /// A hash, a quote and a comma.
    fn hash(&mut self) -> Option<Hash> {
        let hash = self.take(64)?.parse().ok()?;
        self.skip("\",")?;
        Some(hash)
    }

    /// A time, a quote and a comma.
    fn time(&mut self) -> Option<Timestamp> {
        let time = self.take(24)?.parse().ok()?;
        self.skip("\",")?;
        Some(time)
    }

    /// An algorithm, a quote and a comma.
    fn algorithm(&mut self) -> Option<Algorithm> {
        let algorithm = self.take(plain_prefix(self.0.as_bytes()))?.parse().ok()?;
        self.skip("\",")?;
        Some(algorithm)
    }
}
