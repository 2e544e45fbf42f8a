//! Members of others' JSON that are read where they have the form that is documented, and are as good as absent where they have another.
//!
//! In scope: texts, objects and lists. Out of scope: which members there are. One service's form of a member must not hide another one's entry.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// A text; empty where there is something else.
#[derive(Debug, Default)]
pub(super) struct Text(pub(super) String);

/// An object; the default where there is something else.
#[derive(Debug, Default)]
pub(super) struct Object<T>(pub(super) T);

/// A list; empty where there is something else.
#[derive(Debug)]
pub(super) struct List<T>(pub(super) Vec<T>);

/// Whether there is something, and not `null`.
#[derive(Debug, Default)]
pub(super) struct Present(pub(super) bool);

/// Whether there is something that may mean yes: not `null`, and not `false`.
#[derive(Debug, Default)]
pub(super) struct Yes(pub(super) bool);

impl<T> Default for List<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

/// What a kind of member makes of each kind of JSON value.
trait Form<'de>: Sized {
    fn other(present: bool) -> Self;

    fn boolean(_: bool) -> Self {
        Self::other(true)
    }

    fn text(_: &str) -> Self {
        Self::other(true)
    }

    fn object<A: MapAccess<'de>>(mut map: A) -> Result<Self, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Self::other(true))
    }

    fn list<A: SeqAccess<'de>>(mut seq: A) -> Result<Self, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Self::other(true))
    }
}

impl Form<'_> for Text {
    fn other(_: bool) -> Self {
        Self::default()
    }

    fn text(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl<'de, T: Deserialize<'de> + Default> Form<'de> for Object<T> {
    fn other(_: bool) -> Self {
        Self::default()
    }

    fn object<A: MapAccess<'de>>(map: A) -> Result<Self, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Self)
    }
}

impl<'de, T: Deserialize<'de>> Form<'de> for List<T> {
    fn other(_: bool) -> Self {
        Self::default()
    }

    fn list<A: SeqAccess<'de>>(seq: A) -> Result<Self, A::Error> {
        Vec::deserialize(SeqAccessDeserializer::new(seq)).map(Self)
    }
}

impl Form<'_> for Present {
    fn other(present: bool) -> Self {
        Self(present)
    }
}

impl Form<'_> for Yes {
    fn other(present: bool) -> Self {
        Self(present)
    }

    fn boolean(value: bool) -> Self {
        Self(value)
    }
}

struct Any<F>(PhantomData<F>);

impl<'de, F: Form<'de>> Visitor<'de> for Any<F> {
    type Value = F;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<F, E> {
        Ok(F::boolean(value))
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<F, E> {
        Ok(F::other(true))
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<F, E> {
        Ok(F::other(true))
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<F, E> {
        Ok(F::other(true))
    }

    fn visit_unit<E: Error>(self) -> Result<F, E> {
        Ok(F::other(false))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<F, E> {
        Ok(F::text(text))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<F, A::Error> {
        F::object(map)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<F, A::Error> {
        F::list(seq)
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Any(PhantomData))
    }
}

impl<'de, T: Deserialize<'de> + Default> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Any(PhantomData))
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Any(PhantomData))
    }
}

impl<'de> Deserialize<'de> for Present {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Any(PhantomData))
    }
}

impl<'de> Deserialize<'de> for Yes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Any(PhantomData))
    }
}
