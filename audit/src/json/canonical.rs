//! Writing JSON in the form that `check_record` demands (RFC 8785, narrowed).
//!
//! In scope: what a record's types tell serde, straight into bytes. Out of scope: floats, byte strings, tuples, and enums whose variants hold
//! something but are not tagged within: no record has any.

use std::fmt::Display;
use std::io::Write as _;

use serde::ser::{self, Impossible, Serialize, Serializer};

use super::record::{is_name_byte, plain_prefix};
use super::{MAX_DEPTH, MAX_INTEGER};

/// Why a value has no canonical form here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotCanonical {
    /// A member name other than printable ASCII without quote and backslash.
    #[error("the member name {0:?} is not printable ASCII without quotes and backslashes")]
    Name(String),
    /// A number with a fraction or exponent, or beyond 2^53 - 1.
    #[error("the number {0} is not an integer within 2^53 - 1; write it as a string")]
    Number(String),
    /// U+0000 in a string.
    #[error("a string holds the NUL character")]
    Nul,
    /// Deeper than [`MAX_DEPTH`].
    #[error("arrays and objects nest deeper than {MAX_DEPTH} levels")]
    TooDeep,
    /// A type that records have no form for, or one that cannot be written at all.
    #[error("{0}")]
    Form(String),
}

impl ser::Error for NotCanonical {
    fn custom<T: Display>(text: T) -> Self {
        Self::Form(text.to_string())
    }
}

/// The one way to write `value`: RFC 8785, members sorted by the bytes of their names whatever order they come in. Of an object whose names
/// differ, the result always passes [`super::check_record`].
pub fn canonical<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, NotCanonical> {
    write(value, false)
}

/// The same for a record: of its own members, those that are `null` are left out.
pub fn canonical_record<T: Serialize + ?Sized>(record: &T) -> Result<Vec<u8>, NotCanonical> {
    write(record, true)
}

/// The room for a record of a signature, so that its bytes are not moved while they are written.
const USUAL_BYTES: usize = 1024;
/// The room for the members of one.
const USUAL_MEMBERS: usize = 32;

fn write<T: Serialize + ?Sized>(value: &T, leave_out_null: bool) -> Result<Vec<u8>, NotCanonical> {
    let mut out = Vec::with_capacity(USUAL_BYTES);
    value.serialize(Writer { out: &mut out, depth: 0, leave_out_null })?;
    Ok(out)
}

/// Writes one value inside `depth` arrays and objects.
struct Writer<'w> {
    out: &'w mut Vec<u8>,
    depth: usize,
    leave_out_null: bool,
}

/// An array that is being written.
struct Array<'w> {
    out: &'w mut Vec<u8>,
    depth: usize,
    begin: usize,
}

/// An object that is being written: its members in the order in which they come, each with a comma behind it, until all are known.
struct Object<'w> {
    out: &'w mut Vec<u8>,
    depth: usize,
    leave_out_null: bool,
    begin: usize,
    members: Vec<Member>,
    /// Where the member begins whose name is written and whose value is not, and where its name ends.
    open: (usize, usize),
}

/// Where a member stands, with its quotes and its comma, and the number by which it is sorted before its name is looked at.
struct Member {
    order: u64,
    start: usize,
    name_end: usize,
    end: usize,
}

impl<'w> Writer<'w> {
    fn integer(self, number: impl Display, magnitude: u64) -> Result<(), NotCanonical> {
        if magnitude > MAX_INTEGER {
            return Err(NotCanonical::Number(number.to_string()));
        }
        write!(self.out, "{number}").map_err(ser::Error::custom)
    }

    fn object(self) -> Result<Object<'w>, NotCanonical> {
        let Self { out, depth, leave_out_null } = self;
        if depth == MAX_DEPTH {
            return Err(NotCanonical::TooDeep);
        }
        out.push(b'{');
        let begin = out.len();
        Ok(Object { out, depth, leave_out_null, begin, members: Vec::with_capacity(USUAL_MEMBERS), open: (0, 0) })
    }
}

impl Array<'_> {
    fn item<T: Serialize + ?Sized>(&mut self, item: &T) -> Result<(), NotCanonical> {
        if self.out.len() > self.begin {
            self.out.push(b',');
        }
        item.serialize(Writer { out: self.out, depth: self.depth + 1, leave_out_null: false })
    }
}

impl Object<'_> {
    /// Writes a name. As a string it shows what it is: an escape in it is no name byte either.
    fn name<T: Serialize + ?Sized>(&mut self, name: &T) -> Result<(), NotCanonical> {
        let start = self.out.len();
        name.serialize(Writer { out: self.out, depth: self.depth + 1, leave_out_null: false })?;
        let inner = self.out[start..].strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\""));
        if !inner.is_some_and(|inner| inner.iter().all(|byte| is_name_byte(*byte))) {
            return Err(NotCanonical::Name(String::from_utf8_lossy(inner.unwrap_or(&self.out[start..])).into_owned()));
        }
        self.open = (start, self.out.len());
        self.out.push(b':');
        Ok(())
    }

    fn value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), NotCanonical> {
        let (start, name_end) = self.open;
        let begin = self.out.len();
        value.serialize(Writer { out: self.out, depth: self.depth + 1, leave_out_null: false })?;
        if self.leave_out_null && self.out[begin..] == *b"null" {
            self.out.truncate(start);
            return Ok(());
        }
        self.out.push(b',');
        let order = order_of(&self.out[start + 1..name_end - 1]);
        self.members.push(Member { order, start, name_end, end: self.out.len() });
        Ok(())
    }

    fn finish(self) {
        let Self { out, begin, mut members, .. } = self;
        let order = |a: &Member, b: &Member| {
            let name = |member: &Member| &out[member.start + 1..member.name_end - 1];
            a.order.cmp(&b.order).then_with(|| name(a).cmp(name(b)))
        };
        if !members.is_sorted_by(|a, b| order(a, b).is_le()) {
            members.sort_unstable_by(order);
            let unsorted = out.split_off(begin);
            out.reserve(unsorted.len());
            for Member { start, end, .. } in &members {
                out.extend_from_slice(&unsorted[start - begin..end - begin]);
            }
        }
        // The comma behind the last member.
        out.pop_if(|byte| *byte == b',');
        out.push(b'}');
    }
}

/// The first eight bytes of a name as a number. Numbers that differ are in the order of their names, for no name holds a zero byte.
fn order_of(name: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    let length = name.len().min(8);
    bytes[..length].copy_from_slice(&name[..length]);
    u64::from_be_bytes(bytes)
}

fn write_string(text: &str, out: &mut Vec<u8>) -> Result<(), NotCanonical> {
    out.push(b'"');
    let mut rest = text.as_bytes();
    loop {
        let (plain, others) = rest.split_at(plain_prefix(rest));
        out.extend_from_slice(plain);
        let Some((byte, others)) = others.split_first() else { break };
        match byte {
            0 => return Err(NotCanonical::Nul),
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', *byte]),
            0x08 => out.extend_from_slice(b"\\b"),
            b'\t' => out.extend_from_slice(b"\\t"),
            b'\n' => out.extend_from_slice(b"\\n"),
            0x0c => out.extend_from_slice(b"\\f"),
            b'\r' => out.extend_from_slice(b"\\r"),
            1..0x20 => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            _ => out.push(*byte),
        }
        rest = others;
    }
    out.push(b'"');
    Ok(())
}

fn formless<T>(what: &str) -> Result<T, NotCanonical> {
    Err(NotCanonical::Form(format!("{what} has no form in a record")))
}

/// Methods that write an integer of their type.
macro_rules! integers {
    ($($method:ident $type:ty => $magnitude:expr;)*) => {
        $(fn $method(self, number: $type) -> Result<(), NotCanonical> {
            self.integer(number, $magnitude(number))
        })*
    };
}

impl<'w> Serializer for Writer<'w> {
    type Ok = ();
    type Error = NotCanonical;
    type SerializeSeq = Array<'w>;
    type SerializeTuple = Impossible<(), NotCanonical>;
    type SerializeTupleStruct = Impossible<(), NotCanonical>;
    type SerializeTupleVariant = Impossible<(), NotCanonical>;
    type SerializeMap = Object<'w>;
    type SerializeStruct = Object<'w>;
    type SerializeStructVariant = Impossible<(), NotCanonical>;

    integers! {
        serialize_i8 i8 => |n: i8| u64::from(n.unsigned_abs());
        serialize_i16 i16 => |n: i16| u64::from(n.unsigned_abs());
        serialize_i32 i32 => |n: i32| u64::from(n.unsigned_abs());
        serialize_i64 i64 => i64::unsigned_abs;
        serialize_u8 u8 => u64::from;
        serialize_u16 u16 => u64::from;
        serialize_u32 u32 => u64::from;
        serialize_u64 u64 => u64::from;
    }

    fn serialize_bool(self, value: bool) -> Result<(), NotCanonical> {
        self.out.extend_from_slice(if value { b"true" } else { b"false" });
        Ok(())
    }

    fn serialize_f32(self, number: f32) -> Result<(), NotCanonical> {
        Err(NotCanonical::Number(format!("{number:?}")))
    }

    fn serialize_f64(self, number: f64) -> Result<(), NotCanonical> {
        Err(NotCanonical::Number(format!("{number:?}")))
    }

    fn serialize_char(self, character: char) -> Result<(), NotCanonical> {
        self.serialize_str(character.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, text: &str) -> Result<(), NotCanonical> {
        write_string(text, self.out)
    }

    fn serialize_bytes(self, _: &[u8]) -> Result<(), NotCanonical> {
        formless("a byte string")
    }

    fn serialize_none(self) -> Result<(), NotCanonical> {
        self.serialize_unit()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), NotCanonical> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), NotCanonical> {
        self.out.extend_from_slice(b"null");
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), NotCanonical> {
        self.serialize_unit()
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<(), NotCanonical> {
        self.serialize_str(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<(), NotCanonical> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(self, name: &'static str, _: u32, _: &str, _: &T) -> Result<(), NotCanonical> {
        formless(name)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Array<'w>, NotCanonical> {
        let Self { out, depth, .. } = self;
        if depth == MAX_DEPTH {
            return Err(NotCanonical::TooDeep);
        }
        out.push(b'[');
        let begin = out.len();
        Ok(Array { out, depth, begin })
    }

    fn serialize_tuple(self, _: usize) -> Result<Self::SerializeTuple, NotCanonical> {
        formless("a tuple")
    }

    fn serialize_tuple_struct(self, name: &'static str, _: usize) -> Result<Self::SerializeTupleStruct, NotCanonical> {
        formless(name)
    }

    fn serialize_tuple_variant(self, name: &'static str, _: u32, _: &str, _: usize) -> Result<Self::SerializeTupleVariant, NotCanonical> {
        formless(name)
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Object<'w>, NotCanonical> {
        self.object()
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Object<'w>, NotCanonical> {
        self.object()
    }

    fn serialize_struct_variant(self, name: &'static str, _: u32, _: &str, _: usize) -> Result<Self::SerializeStructVariant, NotCanonical> {
        formless(name)
    }
}

impl ser::SerializeSeq for Array<'_> {
    type Ok = ();
    type Error = NotCanonical;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, item: &T) -> Result<(), NotCanonical> {
        self.item(item)
    }

    fn end(self) -> Result<(), NotCanonical> {
        self.out.push(b']');
        Ok(())
    }
}

impl ser::SerializeMap for Object<'_> {
    type Ok = ();
    type Error = NotCanonical;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, name: &T) -> Result<(), NotCanonical> {
        self.name(name)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), NotCanonical> {
        self.value(value)
    }

    fn end(self) -> Result<(), NotCanonical> {
        self.finish();
        Ok(())
    }
}

impl ser::SerializeStruct for Object<'_> {
    type Ok = ();
    type Error = NotCanonical;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<(), NotCanonical> {
        self.name(name)?;
        self.value(value)
    }

    fn end(self) -> Result<(), NotCanonical> {
        self.finish();
        Ok(())
    }
}
