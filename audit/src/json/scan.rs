//! What both scanners share: a cursor over the bytes, literals, the grammar of numbers and escapes.

use super::{DefectKind, JsonDefect};

/// A place in the text. Every method either moves forward or reports a defect.
pub(super) struct Cursor<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
}

/// A number literal that follows the grammar of RFC 8259 section 6.
pub(super) struct Number<'a> {
    /// The literal itself.
    pub(super) text: &'a str,
    /// Whether it has neither fraction nor exponent.
    pub(super) integer: bool,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(super) fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// A defect at the next byte.
    pub(super) fn defect<T>(&self, kind: DefectKind) -> Result<T, JsonDefect> {
        Err(JsonDefect { offset: self.at, kind })
    }

    /// The next byte is not what the grammar wants, or is missing.
    pub(super) fn unexpected<T>(&self) -> Result<T, JsonDefect> {
        self.defect(self.peek().map_or(DefectKind::UnexpectedEnd, DefectKind::UnexpectedByte))
    }

    /// Moves over `byte` if it is next.
    pub(super) fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    /// `true`, `false` or `null`, of which the first letter has been seen.
    pub(super) fn literal(&mut self, text: &'static str) -> Result<(), JsonDefect> {
        for byte in text.bytes() {
            if !self.eat(byte) {
                return self.unexpected();
            }
        }
        Ok(())
    }

    /// A number; the cursor stands on its first byte.
    pub(super) fn number(&mut self) -> Result<Number<'a>, JsonDefect> {
        let start = self.at;
        self.eat(b'-');
        let leading_zero = self.peek() == Some(b'0');
        let digits = self.digits()?;
        if leading_zero && digits > 1 {
            return Err(JsonDefect { offset: start, kind: DefectKind::BadNumber });
        }
        let mut integer = true;
        if self.eat(b'.') {
            integer = false;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            integer = false;
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        let text = str::from_utf8(&self.bytes[start..self.at]).expect("digits, signs, dots and the letter e are ASCII");
        Ok(Number { text, integer })
    }

    /// One digit or more.
    fn digits(&mut self) -> Result<usize, JsonDefect> {
        let count = self.bytes[self.at..].iter().take_while(|b| b.is_ascii_digit()).count();
        if count == 0 {
            return self.defect(if self.peek().is_none() { DefectKind::UnexpectedEnd } else { DefectKind::BadNumber });
        }
        self.at += count;
        Ok(count)
    }

    /// The four hexadecimal digits of a `\u` escape, either case.
    pub(super) fn hex4(&mut self) -> Result<u16, JsonDefect> {
        let mut unit = 0;
        for _ in 0..4 {
            let Some(byte) = self.peek() else { return self.unexpected() };
            let Some(digit) = char::from(byte).to_digit(16) else { return self.defect(DefectKind::BadEscape) };
            unit = unit << 4 | u16::try_from(digit).expect("a hexadecimal digit is below 16");
            self.at += 1;
        }
        Ok(unit)
    }
}
