//! The rules for JSON that strangers send: the whole grammar of RFC 8259, less everything that readers take differently.

use std::borrow::Cow;
use std::collections::BTreeSet;

use super::scan::{Cursor, Number};
use super::{DefectKind, JsonDefect, MAX_DEPTH, MAX_INTEGER};

/// Checks that `bytes` are one JSON value with one reading: UTF-8 without byte order mark, no duplicate names at any depth (compared
/// after unescaping), no lone surrogates, no NUL, at most [`MAX_DEPTH`] levels, and numbers that every reader takes alike.
///
/// Numbers: an integer lies within ±(2^53 - 1) (RFC 7493 section 2.2). A number with fraction or exponent has exactly the
/// significant digits by which ECMAScript and RFC 8785 would write the nearest IEEE double (leading and trailing zeros aside), so it
/// comes back unchanged from any reader; every number of at most 15 significant digits and ordinary size does. Minus zero is refused.
pub fn check_request(bytes: &[u8]) -> Result<(), JsonDefect> {
    if bytes.starts_with(b"\xef\xbb\xbf") {
        return Err(JsonDefect { offset: 0, kind: DefectKind::ByteOrderMark });
    }
    if let Err(error) = str::from_utf8(bytes) {
        return Err(JsonDefect { offset: error.valid_up_to(), kind: DefectKind::NotUtf8 });
    }
    let mut cursor = Cursor::new(bytes);
    space(&mut cursor);
    value(&mut cursor, 0)?;
    space(&mut cursor);
    if cursor.peek().is_none() { Ok(()) } else { cursor.defect(DefectKind::TrailingBytes) }
}

fn space(cursor: &mut Cursor<'_>) {
    while matches!(cursor.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
        cursor.at += 1;
    }
}

/// A value inside `depth` arrays and objects.
fn value(cursor: &mut Cursor<'_>, depth: usize) -> Result<(), JsonDefect> {
    match cursor.peek() {
        Some(b'{' | b'[') if depth == MAX_DEPTH => cursor.defect(DefectKind::TooDeep),
        Some(b'{') => object(cursor, depth),
        Some(b'[') => array(cursor, depth),
        Some(b'"') => string(cursor).map(drop),
        Some(b't') => cursor.literal("true"),
        Some(b'f') => cursor.literal("false"),
        Some(b'n') => cursor.literal("null"),
        Some(b'-' | b'0'..=b'9') => {
            let offset = cursor.at;
            let number = cursor.number()?;
            check_number(&number).map_err(|kind| JsonDefect { offset, kind })
        }
        _ => cursor.unexpected(),
    }
}

fn object(cursor: &mut Cursor<'_>, depth: usize) -> Result<(), JsonDefect> {
    cursor.at += 1;
    space(cursor);
    if cursor.eat(b'}') {
        return Ok(());
    }
    let mut names = BTreeSet::new();
    loop {
        let offset = cursor.at;
        if cursor.peek() != Some(b'"') {
            return cursor.unexpected();
        }
        if !names.insert(string(cursor)?) {
            return Err(JsonDefect { offset, kind: DefectKind::DuplicateName });
        }
        space(cursor);
        if !cursor.eat(b':') {
            return cursor.unexpected();
        }
        space(cursor);
        value(cursor, depth + 1)?;
        space(cursor);
        if cursor.eat(b'}') {
            return Ok(());
        }
        if !cursor.eat(b',') {
            return cursor.unexpected();
        }
        space(cursor);
    }
}

fn array(cursor: &mut Cursor<'_>, depth: usize) -> Result<(), JsonDefect> {
    cursor.at += 1;
    space(cursor);
    if cursor.eat(b']') {
        return Ok(());
    }
    loop {
        value(cursor, depth + 1)?;
        space(cursor);
        if cursor.eat(b']') {
            return Ok(());
        }
        if !cursor.eat(b',') {
            return cursor.unexpected();
        }
        space(cursor);
    }
}

/// A string, unescaped; borrowed from the text when it has no escapes.
fn string<'a>(cursor: &mut Cursor<'a>) -> Result<Cow<'a, [u8]>, JsonDefect> {
    cursor.at += 1;
    let mut start = cursor.at;
    let mut unescaped: Option<Vec<u8>> = None;
    loop {
        let Some(byte) = cursor.peek() else { return cursor.unexpected() };
        match byte {
            b'"' => {
                let rest = &cursor.bytes[start..cursor.at];
                cursor.at += 1;
                return Ok(match unescaped {
                    None => Cow::Borrowed(rest),
                    Some(text) => Cow::Owned([text.as_slice(), rest].concat()),
                });
            }
            b'\\' => {
                let text = unescaped.get_or_insert_default();
                text.extend_from_slice(&cursor.bytes[start..cursor.at]);
                let character = escape(cursor)?;
                text.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                start = cursor.at;
            }
            0 => return cursor.defect(DefectKind::Nul),
            1..0x20 => return cursor.defect(DefectKind::ControlCharacter),
            _ => cursor.at += 1,
        }
    }
}

/// An escape sequence; the cursor stands on the backslash.
fn escape(cursor: &mut Cursor<'_>) -> Result<char, JsonDefect> {
    let offset = cursor.at;
    let fail = |kind| Err(JsonDefect { offset, kind });
    cursor.at += 1;
    let Some(byte) = cursor.peek() else { return cursor.unexpected() };
    cursor.at += 1;
    let simple = match byte {
        b'"' | b'\\' | b'/' => char::from(byte),
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'u' => {
            let first = cursor.hex4()?;
            let mut units = vec![first];
            if (0xd800..0xdc00).contains(&first) && cursor.bytes[cursor.at..].starts_with(b"\\u") {
                cursor.at += 2;
                units.push(cursor.hex4()?);
            }
            return match char::decode_utf16(units).next() {
                Some(Ok('\0')) => fail(DefectKind::Nul),
                Some(Ok(character)) => Ok(character),
                _ => fail(DefectKind::LoneSurrogate),
            };
        }
        _ => return fail(DefectKind::BadEscape),
    };
    Ok(simple)
}

fn check_number(number: &Number<'_>) -> Result<(), DefectKind> {
    let text = number.text;
    let magnitude = text.trim_start_matches('-');
    let mantissa = magnitude.split(['e', 'E']).next().unwrap_or_default();
    if mantissa.bytes().all(|b| matches!(b, b'0' | b'.')) {
        return if text.starts_with('-') { Err(DefectKind::MinusZero) } else { Ok(()) };
    }
    let exact = if number.integer {
        magnitude.parse().is_ok_and(|n: u64| n <= MAX_INTEGER)
    } else {
        // Rust writes the shortest digits that name the double, which are ECMAScript's; both sides are compared as digits and exponent.
        let double: f64 = magnitude.parse().map_err(|_| DefectKind::InexactNumber)?;
        decimal(magnitude).is_some_and(|written| Some(written) == decimal(&format!("{double:e}")))
    };
    if exact { Ok(()) } else { Err(DefectKind::InexactNumber) }
}

/// A number other than zero as `(digits, exponent)`: `0.d1d2d3... * 10^exponent` with neither leading nor trailing zeros.
fn decimal(text: &str) -> Option<(String, i64)> {
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let leading = digits.len() - digits.trim_start_matches('0').len();
    let shift = i64::try_from(whole.len()).ok()?.checked_sub(i64::try_from(leading).ok()?)?;
    let exponent = exponent.parse::<i64>().ok()?.checked_add(shift)?;
    Some((digits.trim_matches('0').to_owned(), exponent))
}
