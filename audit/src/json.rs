//! JSON with one reading: bytes on which two honest parsers could disagree are refused before any parser sees them.
//!
//! In scope: the rules for requests ([`check_request`]) and for log lines ([`check_record`]), what serde reads from a checked line, and writing
//! the canonical form ([`canonical`]). Out of scope: what members mean (their types say), and limits on length (callers have them).
//!
//! Nothing here re-serialises what it checks: the bytes that were checked are the bytes that are hashed and parsed.

mod canonical;
mod read;
mod record;
mod request;
mod scan;

pub use canonical::{NotCanonical, canonical, canonical_record};
pub(crate) use read::Members;
#[cfg(test)]
pub(crate) use read::Raw;
pub use record::check_record;
pub(crate) use record::{members, plain_prefix};
pub use request::check_request;

/// How deep arrays and objects may nest. A token's claims need less than ten; the limit bounds the recursion of every reader.
pub const MAX_DEPTH: usize = 32;

/// 2^53 - 1: up to here, both ways, every integer is its own IEEE double and its neighbours are too (RFC 7493 section 2.2).
pub const MAX_INTEGER: u64 = (1 << 53) - 1;

/// What is wrong with some JSON text, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind} (at byte {offset})")]
pub struct JsonDefect {
    /// Offset in bytes from the start of the text.
    pub offset: usize,
    /// What was found there.
    pub kind: DefectKind,
}

/// A way in which JSON text can be wrong, or ambiguous.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DefectKind {
    /// Not UTF-8 (RFC 8259 section 8.1).
    #[error("the text is not valid UTF-8")]
    NotUtf8,
    /// U+FEFF before the text (RFC 8259 section 8.1).
    #[error("the text starts with a byte order mark; send it without one")]
    ByteOrderMark,
    /// A byte that the grammar does not allow here.
    #[error("byte {0:#04x} does not belong here in JSON")]
    UnexpectedByte(u8),
    /// The text stops in the middle of a value.
    #[error("the text ends in the middle of a JSON value")]
    UnexpectedEnd,
    /// More than one value.
    #[error("there is something after the end of the JSON value")]
    TrailingBytes,
    /// Deeper than [`MAX_DEPTH`].
    #[error("arrays and objects nest deeper than {MAX_DEPTH} levels")]
    TooDeep,
    /// A raw control character in a string.
    #[error("a control character stands unescaped in a string")]
    ControlCharacter,
    /// U+0000, raw or escaped: many parsers and databases end a string there.
    #[error("a string holds the NUL character")]
    Nul,
    /// A backslash that starts none of the escapes of RFC 8259 section 7.
    #[error("this is not an escape sequence of JSON")]
    BadEscape,
    /// Half of a surrogate pair: not a Unicode character.
    #[error("a \\u escape is one half of a surrogate pair without the other")]
    LoneSurrogate,
    /// One name twice in one object.
    #[error("the object has two members of this name; parsers disagree on which one counts")]
    DuplicateName,
    /// A number that the grammar does not allow, such as `01` or `1.`.
    #[error("this is not a number of JSON")]
    BadNumber,
    /// A number that readers with IEEE doubles would change.
    #[error("this number has no exact form in every reader; use an integer within 2^53 - 1, fewer digits, or a string")]
    InexactNumber,
    /// `-0`, which is zero to some readers and not to others.
    #[error("minus zero is not accepted; write 0")]
    MinusZero,
    /// Records: the line is not one object.
    #[error("a record is one JSON object")]
    NotAnObject,
    /// Records: white space between tokens, a line feed or carriage return included.
    #[error("a record has no white space between its tokens")]
    WhiteSpace,
    /// Records: member names are printable ASCII that needs no escape.
    #[error("a member name in a record is printable ASCII without quotes and backslashes")]
    NameForm,
    /// Records: members in byte order of their names.
    #[error("the members of an object in a record are sorted by name")]
    UnsortedName,
    /// Records: one spelling for each string (RFC 8785 section 3.2.2.2).
    #[error("a character is escaped in another way than RFC 8785 prescribes")]
    EscapeForm,
    /// Records: numbers are integers.
    #[error("numbers in a record are integers without fraction and exponent")]
    NotAnInteger,
}

#[cfg(test)]
mod tests;
