//! Writing JSON in the form that `check_record` demands (RFC 8785, narrowed).

use serde_json::{Number, Value};

use super::record::is_name_byte;
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
}

/// The one way to write `value`: RFC 8785, members sorted by the bytes of their names whatever the order of the map. Of an object,
/// the result always passes [`super::check_record`].
pub fn canonical(value: &Value) -> Result<Vec<u8>, NotCanonical> {
    let mut out = Vec::new();
    write(value, 0, &mut out)?;
    Ok(out)
}

/// The one way to write an object of these members, whose names differ. The same as [`canonical`], without a map to hold them.
pub fn canonical_object<'v>(members: impl Iterator<Item = (&'v String, &'v Value)>) -> Result<Vec<u8>, NotCanonical> {
    let mut out = Vec::with_capacity(USUAL_BYTES);
    write_members(members.collect(), 0, &mut out)?;
    Ok(out)
}

/// The room for a record of a signature, so that its bytes are not moved while they are written.
const USUAL_BYTES: usize = 1024;

fn write(value: &Value, depth: usize, out: &mut Vec<u8>) -> Result<(), NotCanonical> {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Number(number) => write_integer(number, out)?,
        Value::String(text) => write_string(text, out)?,
        Value::Array(_) | Value::Object(_) if depth == MAX_DEPTH => return Err(NotCanonical::TooDeep),
        Value::Array(items) => {
            out.push(b'[');
            for (index, item) in items.iter().enumerate() {
                separate(index, out);
                write(item, depth + 1, out)?;
            }
            out.push(b']');
        }
        Value::Object(members) => write_members(members.iter().collect(), depth, out)?,
    }
    Ok(())
}

fn write_members(mut members: Vec<(&String, &Value)>, depth: usize, out: &mut Vec<u8>) -> Result<(), NotCanonical> {
    members.sort_unstable_by_key(|(name, _)| name.as_bytes());
    out.push(b'{');
    for (index, (name, member)) in members.into_iter().enumerate() {
        separate(index, out);
        if !name.bytes().all(is_name_byte) {
            return Err(NotCanonical::Name(name.clone()));
        }
        out.push(b'"');
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\":");
        write(member, depth + 1, out)?;
    }
    out.push(b'}');
    Ok(())
}

fn separate(index: usize, out: &mut Vec<u8>) {
    if index > 0 {
        out.push(b',');
    }
}

fn write_integer(number: &Number, out: &mut Vec<u8>) -> Result<(), NotCanonical> {
    let magnitude = number.as_u64().or_else(|| number.as_i64().map(i64::unsigned_abs));
    if magnitude.is_none_or(|n| n > MAX_INTEGER) {
        return Err(NotCanonical::Number(number.to_string()));
    }
    out.extend_from_slice(number.to_string().as_bytes());
    Ok(())
}

fn write_string(text: &str, out: &mut Vec<u8>) -> Result<(), NotCanonical> {
    out.push(b'"');
    // Most text needs no escape, and is copied as it stands.
    let bytes = text.as_bytes();
    let plain = bytes.iter().position(|byte| matches!(byte, 0..0x20 | b'"' | b'\\')).unwrap_or(bytes.len());
    out.extend_from_slice(&bytes[..plain]);
    for byte in bytes[plain..].iter().copied() {
        match byte {
            0 => return Err(NotCanonical::Nul),
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            0x08 => out.extend_from_slice(b"\\b"),
            b'\t' => out.extend_from_slice(b"\\t"),
            b'\n' => out.extend_from_slice(b"\\n"),
            0x0c => out.extend_from_slice(b"\\f"),
            b'\r' => out.extend_from_slice(b"\\r"),
            1..0x20 => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            _ => out.push(byte),
        }
    }
    out.push(b'"');
    Ok(())
}
