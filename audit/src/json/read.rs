//! Checked JSON, given a meaning: what serde asks for is read from the bytes as they stand, and text without escapes is borrowed.
//!
//! In scope: values and members of a line that passed `check_record`. Out of scope: second spellings. An array is never taken for the object
//! of its values, nor an object with one name for the name alone, as other readers of serde's types do.

use std::iter::Peekable;

use serde::de::value::{BorrowedStrDeserializer, Error};
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Unexpected, Visitor};
use serde::forward_to_deserialize_any;

use super::record::value;
use super::scan::Cursor;

/// A value as it stands in a checked line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Raw<'a>(pub(super) &'a str);

impl<'a> Raw<'a> {
    /// Whether it is `null`.
    pub(crate) fn is_null(self) -> bool {
        self.0 == "null"
    }

    /// As it stands.
    #[cfg(test)]
    pub(crate) fn text(self) -> &'a str {
        self.0
    }

    /// What stands between the first and the last byte: the quotes of a string, the brackets of an array or object.
    fn inner(self) -> &'a str {
        &self.0[1..self.0.len() - 1]
    }

    fn visit_string<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Error> {
        let inner = self.inner();
        match memchr::memchr(b'\\', inner.as_bytes()) {
            None => visitor.visit_borrowed_str(inner),
            Some(_) => visitor.visit_string(unescaped(inner)),
        }
    }

    fn visit_number<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Error> {
        // Everything else that is no number was looked for before, and the scanner let no number pass that does not fit.
        let number: i64 = self.0.parse().map_err(|_| de::Error::custom("an integer beyond 2^53 - 1"))?;
        match u64::try_from(number) {
            Ok(number) => visitor.visit_u64(number),
            Err(_) => visitor.visit_i64(number),
        }
    }
}

/// The text of a string that the scanner let pass: two-character escapes, `\u00xx` for other control characters, and no more.
fn unescaped(inner: &str) -> String {
    let mut text = String::with_capacity(inner.len());
    let mut rest = inner;
    while let Some((plain, escape)) = rest.split_once('\\') {
        text.push_str(plain);
        let (character, length) = match escape.as_bytes() {
            [b'b', ..] => ('\u{8}', 1),
            [b'f', ..] => ('\u{c}', 1),
            [b'n', ..] => ('\n', 1),
            [b'r', ..] => ('\r', 1),
            [b't', ..] => ('\t', 1),
            [b'u', ..] => (u8::from_str_radix(&escape[3..5], 16).map_or(char::REPLACEMENT_CHARACTER, char::from), 5),
            // The quote or the backslash itself.
            [byte, ..] => (char::from(*byte), 1),
            [] => break,
        };
        text.push(character);
        rest = &escape[length..];
    }
    text.push_str(rest);
    text
}

impl<'de> Deserializer<'de> for Raw<'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0.as_bytes().first() {
            Some(b'"') => self.visit_string(visitor),
            Some(b'{') => visitor.visit_map(Members::new(Named(Items::new(self)))),
            Some(b'[') => visitor.visit_seq(Items::new(self)),
            Some(b't') => visitor.visit_bool(true),
            Some(b'f') => visitor.visit_bool(false),
            Some(b'n') => visitor.visit_unit(),
            _ => self.visit_number(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(self, _: &'static str, _: &'static [&'static str], visitor: V) -> Result<V::Value, Error> {
        if self.0.starts_with('[') { Err(de::Error::invalid_type(Unexpected::Seq, &visitor)) } else { self.deserialize_any(visitor) }
    }

    fn deserialize_enum<V: Visitor<'de>>(self, _: &'static str, _: &'static [&'static str], visitor: V) -> Result<V::Value, Error> {
        if self.0.starts_with('"') {
            visitor.visit_enum(BorrowedStrDeserializer::new(self.inner()))
        } else {
            Err(de::Error::invalid_type(Unexpected::Other("something other than a string"), &visitor))
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map
        identifier ignored_any
    }
}

/// The values in an array, or the names (with their quotes) and values in an object, one after the other.
struct Items<'a> {
    text: &'a str,
    cursor: Cursor<'a>,
}

impl<'a> Items<'a> {
    fn new(within: Raw<'a>) -> Self {
        let text = within.inner();
        Self { text, cursor: Cursor::new(text.as_bytes()) }
    }
}

impl<'a> Iterator for Items<'a> {
    type Item = Raw<'a>;

    fn next(&mut self) -> Option<Raw<'a>> {
        let start = self.cursor.at;
        value(&mut self.cursor, 0).ok()?;
        let item = Raw(&self.text[start..self.cursor.at]);
        // The comma, or the colon, that follows each but the last.
        self.cursor.at = self.text.len().min(self.cursor.at + 1);
        Some(item)
    }
}

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        self.next().map(|item| seed.deserialize(item)).transpose()
    }
}

/// The members of an object: a name, which has no escapes, and then its value.
struct Named<'a>(Items<'a>);

impl<'a> Iterator for Named<'a> {
    type Item = (&'a str, Raw<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        Some((self.0.next()?.inner(), self.0.next()?))
    }
}

/// Members of a checked object, from which serde reads a struct or a map.
pub(crate) struct Members<I: Iterator>(Peekable<I>);

impl<'a, I: Iterator<Item = (&'a str, Raw<'a>)>> Members<I> {
    pub(crate) fn new(members: I) -> Self {
        Self(members.peekable())
    }
}

impl<'de, I: Iterator<Item = (&'de str, Raw<'de>)>> MapAccess<'de> for Members<I> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        self.0.peek().map(|(name, _)| seed.deserialize(BorrowedStrDeserializer::new(name))).transpose()
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Error> {
        let (_, value) = self.0.next().ok_or_else(|| de::Error::custom("a value was asked for before its name"))?;
        seed.deserialize(value)
    }
}

impl<'de, I: Iterator<Item = (&'de str, Raw<'de>)>> Deserializer<'de> for Members<I> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_map(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct newtype_struct seq tuple
        tuple_struct map struct enum identifier ignored_any
    }
}
