//! The rules for log lines: the canonical form of RFC 8785, checked on the bytes, in one pass and without allocating.

use std::ops::Range;

use super::read::Raw;
use super::scan::Cursor;
use super::{DefectKind, JsonDefect, MAX_DEPTH, MAX_INTEGER};

/// Checks that `line` is one JSON object in the one form that the log's writer uses: RFC 8785, with integers within ±(2^53 - 1) for
/// numbers, and member names of printable ASCII that need no escape, so that byte order is the order of RFC 8785 section 3.2.3.
/// All that [`super::check_request`] refuses is refused here too. A line has no LF at its end.
pub fn check_record(line: &[u8]) -> Result<(), JsonDefect> {
    check(line, &mut |_, _| {})
}

/// The members of a line that passes [`check_record`], in order: their names, and their values as they stand.
pub(crate) fn members(line: &[u8]) -> Result<Vec<(&str, Raw<'_>)>, JsonDefect> {
    let mut places = Vec::with_capacity(USUAL_MEMBERS);
    check(line, &mut |name, value| places.push((name, value)))?;
    // Every byte outside of strings was ASCII, and every string was found to be UTF-8.
    let text = str::from_utf8(line).map_err(|error| JsonDefect { offset: error.valid_up_to(), kind: DefectKind::NotUtf8 })?;
    Ok(places.into_iter().map(|(name, value)| (&text[name], Raw(&text[value]))).collect())
}

/// The room for the members of a record of a signature.
const USUAL_MEMBERS: usize = 32;

/// Told of each member of the outermost object: where its name and its value stand.
type OnMember<'m> = &'m mut dyn FnMut(Range<usize>, Range<usize>);

fn check(line: &[u8], on_member: OnMember<'_>) -> Result<(), JsonDefect> {
    let mut cursor = Cursor::new(line);
    if line.starts_with(b"\xef\xbb\xbf") {
        return cursor.defect(DefectKind::ByteOrderMark);
    }
    match cursor.peek() {
        Some(b'{') => object(&mut cursor, 0, on_member)?,
        None => return cursor.unexpected(),
        Some(b' ' | b'\t' | b'\n' | b'\r') => return cursor.defect(DefectKind::WhiteSpace),
        Some(_) => return cursor.defect(DefectKind::NotAnObject),
    }
    match cursor.peek() {
        None => Ok(()),
        Some(b' ' | b'\t' | b'\n' | b'\r') => cursor.defect(DefectKind::WhiteSpace),
        Some(_) => cursor.defect(DefectKind::TrailingBytes),
    }
}

/// The next byte is not what the grammar wants; white space gets its own name, as it is what other writers add.
fn refuse<T>(cursor: &Cursor<'_>) -> Result<T, JsonDefect> {
    match cursor.peek() {
        Some(b' ' | b'\t' | b'\n' | b'\r') => cursor.defect(DefectKind::WhiteSpace),
        _ => cursor.unexpected(),
    }
}

/// Any value inside `depth` arrays and objects.
pub(super) fn value(cursor: &mut Cursor<'_>, depth: usize) -> Result<(), JsonDefect> {
    match cursor.peek() {
        Some(b'"') => string(cursor),
        Some(b'-' | b'0'..=b'9') => integer(cursor),
        Some(b'{' | b'[') if depth == MAX_DEPTH => cursor.defect(DefectKind::TooDeep),
        Some(b'{') => object(cursor, depth, &mut |_, _| {}),
        Some(b'[') => array(cursor, depth),
        Some(b't') => cursor.literal("true"),
        Some(b'f') => cursor.literal("false"),
        Some(b'n') => cursor.literal("null"),
        _ => refuse(cursor),
    }
}

fn object(cursor: &mut Cursor<'_>, depth: usize, on_member: OnMember<'_>) -> Result<(), JsonDefect> {
    cursor.at += 1;
    if cursor.eat(b'}') {
        return Ok(());
    }
    let mut previous: Option<&[u8]> = None;
    loop {
        let offset = cursor.at;
        let name = name(cursor)?;
        match previous.map(|previous| name.cmp(previous)) {
            Some(std::cmp::Ordering::Equal) => return Err(JsonDefect { offset, kind: DefectKind::DuplicateName }),
            Some(std::cmp::Ordering::Less) => return Err(JsonDefect { offset, kind: DefectKind::UnsortedName }),
            Some(std::cmp::Ordering::Greater) | None => previous = Some(name),
        }
        if !cursor.eat(b':') {
            return refuse(cursor);
        }
        let begin = cursor.at;
        value(cursor, depth + 1)?;
        on_member(offset + 1..offset + 1 + name.len(), begin..cursor.at);
        if cursor.eat(b'}') {
            return Ok(());
        }
        if !cursor.eat(b',') {
            return refuse(cursor);
        }
    }
}

fn array(cursor: &mut Cursor<'_>, depth: usize) -> Result<(), JsonDefect> {
    cursor.at += 1;
    if cursor.eat(b']') {
        return Ok(());
    }
    loop {
        value(cursor, depth + 1)?;
        if cursor.eat(b']') {
            return Ok(());
        }
        if !cursor.eat(b',') {
            return refuse(cursor);
        }
    }
}

/// A member name; the cursor should stand on its opening quote.
fn name<'a>(cursor: &mut Cursor<'a>) -> Result<&'a [u8], JsonDefect> {
    if !cursor.eat(b'"') {
        return refuse(cursor);
    }
    let start = cursor.at;
    while let Some(byte) = cursor.peek() {
        match byte {
            b'"' => {
                cursor.at += 1;
                return Ok(&cursor.bytes[start..cursor.at - 1]);
            }
            _ if is_name_byte(byte) => cursor.at += 1,
            _ => return cursor.defect(DefectKind::NameForm),
        }
    }
    cursor.unexpected()
}

/// Printable ASCII other than the quote and the backslash: what a member name of a record is made of.
pub(super) fn is_name_byte(byte: u8) -> bool {
    matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\'
}

/// A string value; the cursor stands on its opening quote.
fn string(cursor: &mut Cursor<'_>) -> Result<(), JsonDefect> {
    cursor.at += 1;
    let start = cursor.at;
    let mut ascii = true;
    loop {
        let plain = plain_prefix(&cursor.bytes[cursor.at..]);
        cursor.at += plain;
        match cursor.peek() {
            Some(b'"') => break,
            Some(b'\\') => escape(cursor)?,
            Some(0) => return cursor.defect(DefectKind::Nul),
            Some(1..0x20) => return cursor.defect(DefectKind::ControlCharacter),
            Some(_) => {
                ascii = false;
                cursor.at += 1;
            }
            None => return cursor.unexpected(),
        }
    }
    if !ascii && let Err(error) = str::from_utf8(&cursor.bytes[start..cursor.at]) {
        return Err(JsonDefect { offset: start + error.valid_up_to(), kind: DefectKind::NotUtf8 });
    }
    cursor.at += 1;
    Ok(())
}

/// How many bytes from the start are ASCII that stands for itself. Eight at a time: most of a record is string contents.
pub(crate) fn plain_prefix(bytes: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = ONES << 7;
    let mut count = 0;
    // A byte of `special` has its high bit set if the byte may be a control character, a quote, a backslash or not ASCII. A borrow can
    // only set bits above a true one, and the lowest set bit is all that counts.
    for chunk in bytes.chunks_exact(8) {
        let word = u64::from_le_bytes(chunk.try_into().expect("chunks_exact(8) gives eight bytes"));
        let zero_in = |x: u64| x.wrapping_sub(ONES) & !x;
        let below_space = word.wrapping_sub(ONES * 0x20) & !word;
        let special = (word | below_space | zero_in(word ^ (ONES * 0x22)) | zero_in(word ^ (ONES * 0x5c))) & HIGH;
        if special != 0 {
            return count + (special.trailing_zeros() / 8) as usize;
        }
        count += 8;
    }
    count + bytes[count..].iter().take_while(|b| matches!(b, b' '..=0x7f) && !matches!(b, b'"' | b'\\')).count()
}

/// RFC 8785 section 3.2.2.2: two-character escapes where they exist, `\u00xx` in lower case for other control characters, nothing else.
fn escape(cursor: &mut Cursor<'_>) -> Result<(), JsonDefect> {
    let offset = cursor.at;
    let fail = |kind| Err(JsonDefect { offset, kind });
    cursor.at += 1;
    let Some(byte) = cursor.peek() else { return cursor.unexpected() };
    cursor.at += 1;
    match byte {
        b'"' | b'\\' | b'b' | b'f' | b'n' | b'r' | b't' => Ok(()),
        b'u' => {
            let digits = cursor.at;
            let unit = cursor.hex4()?;
            let upper = cursor.bytes[digits..cursor.at].iter().any(u8::is_ascii_uppercase);
            match unit {
                0 => fail(DefectKind::Nul),
                8 | 9 | 10 | 12 | 13 => fail(DefectKind::EscapeForm),
                1..0x20 if !upper => Ok(()),
                _ => fail(DefectKind::EscapeForm),
            }
        }
        b'/' => fail(DefectKind::EscapeForm),
        _ => fail(DefectKind::BadEscape),
    }
}

fn integer(cursor: &mut Cursor<'_>) -> Result<(), JsonDefect> {
    let offset = cursor.at;
    let number = cursor.number()?;
    let kind = if !number.integer {
        DefectKind::NotAnInteger
    } else if number.text == "-0" {
        DefectKind::MinusZero
    } else if number.text.trim_start_matches('-').parse().is_ok_and(|n: u64| n <= MAX_INTEGER) {
        return Ok(());
    } else {
        DefectKind::InexactNumber
    };
    Err(JsonDefect { offset, kind })
}
