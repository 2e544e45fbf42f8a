//! Signed notes (C2SP signed-note): a text, a blank line, and one line per signature.
//!
//! In scope: parsing, verifying and assembling notes with the signature types of [`SignatureType`].
//! Out of scope: signing (keystores do that, and hand in raw signature bytes), and what the text says (`checkpoint`).

mod key;

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

pub use key::{KeyId, SignatureType, VerifierKey, VerifierKeyError};

/// The longest note that is read, in bytes: room for [`MAX_SIGNATURES`] post-quantum signatures of 5 kB, twice.
pub const MAX_NOTE: usize = 1 << 20;
/// The most signature lines of a note. C2SP asks for at least 16; the reference implementation in Go stops at 100 too.
pub const MAX_SIGNATURES: usize = 100;

/// An em dash and a space open each signature line.
const SIGNATURE_PREFIX: &str = "\u{2014} ";

/// A parsed note. Its text means nothing until [`Note::verify`] has said who signed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    text: String,
    signatures: Vec<NoteSignature>,
}

/// One signature line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoteSignature {
    /// The name of the key that signed, as the line claims.
    pub name: String,
    /// The identifier of that key.
    pub key_id: KeyId,
    /// What follows the key identifier; its form depends on the signature type of the key.
    pub bytes: Vec<u8>,
}

/// Why bytes are not a note, or not one to trust.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum NoteError {
    /// More bytes than [`MAX_NOTE`].
    #[error("the note has {0} bytes; at most {MAX_NOTE} are read")]
    TooLong(usize),
    /// Not UTF-8.
    #[error("the note is not UTF-8 at byte {0}")]
    NotUtf8(usize),
    /// A control character other than LF.
    #[error("the note has a control character at byte {0}; only line feeds are allowed")]
    ControlCharacter(usize),
    /// The text is empty or does not end with LF, or the blank line before the signatures is missing.
    #[error("a note is a text that ends with a line feed, then a blank line, then signature lines; this is not")]
    NoBlankLine,
    /// A signature line is not `— name base64`.
    #[error("signature line {0} is not of the form \"\u{2014} <key name> <base64 of 4 bytes of key ID and a signature>\"")]
    SignatureLine(usize),
    /// More signature lines than [`MAX_SIGNATURES`].
    #[error("the note has more than {MAX_SIGNATURES} signatures")]
    TooManySignatures,
    /// A key that we know did not make the signature that names it.
    #[error("the signature by {name} ({key_id}) is not valid: the note was altered, or the key did not sign it")]
    BadSignature {
        /// Name of the key.
        name: String,
        /// Identifier of the key.
        key_id: KeyId,
    },
    /// Two known keys share name and identifier.
    #[error("two different known keys are called {name} ({key_id}); remove one of them from the trusted keys")]
    AmbiguousKey {
        /// Name of both keys.
        name: String,
        /// Identifier of both keys.
        key_id: KeyId,
    },
    /// No known key signed.
    #[error("none of the trusted keys signed this note; it carries signatures by: {0}")]
    NoKnownSignature(String),
}

/// The signatures of a note that known keys made; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedSignatures(Vec<VerifiedSignature>);

/// One signature that was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedSignature {
    /// The key that made it.
    pub key: VerifierKey,
    /// When a cosigner says it signed, in seconds since the Unix epoch; `None` for signature types that carry no time.
    pub time: Option<u64>,
}

impl VerifiedSignatures {
    /// Whether `key` signed.
    pub fn by(&self, key: &VerifierKey) -> bool {
        self.0.iter().any(|signature| signature.key == *key)
    }

    /// Adds those of another note that says the same.
    pub(crate) fn extend(&mut self, other: &Self) {
        self.0.extend(other.0.iter().cloned());
    }

    /// All of them, in the order of the note.
    pub fn iter(&self) -> impl Iterator<Item = &VerifiedSignature> {
        self.0.iter()
    }
}

impl Note {
    /// Parses a whole note. Strict: what this accepts, it writes again byte for byte.
    pub fn parse(bytes: &[u8]) -> Result<Self, NoteError> {
        if bytes.len() > MAX_NOTE {
            return Err(NoteError::TooLong(bytes.len()));
        }
        let whole = str::from_utf8(bytes).map_err(|e| NoteError::NotUtf8(e.valid_up_to()))?;
        refuse_control_characters(whole)?;
        // The text may hold blank lines, so the last one separates.
        let split = whole.rfind("\n\n").filter(|at| *at > 0).ok_or(NoteError::NoBlankLine)?;
        let (text, lines) = (&whole[..=split], &whole[split + 2..]);
        let lines = lines.strip_suffix('\n').ok_or(NoteError::NoBlankLine)?;
        let mut signatures = Vec::new();
        for (index, line) in lines.split('\n').enumerate() {
            if index == MAX_SIGNATURES {
                return Err(NoteError::TooManySignatures);
            }
            signatures.push(parse_signature(line).ok_or(NoteError::SignatureLine(index + 1))?);
        }
        Ok(Self { text: text.to_owned(), signatures })
    }

    /// The text, with its final LF: the bytes that were signed.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The signature lines, unchecked.
    pub fn signatures(&self) -> &[NoteSignature] {
        &self.signatures
    }

    /// Checks every signature that names one of `keys`; others are ignored, as C2SP demands. One bad signature of a known key
    /// condemns the note, and so does having none.
    pub fn verify(&self, keys: &[VerifierKey]) -> Result<VerifiedSignatures, NoteError> {
        let mut verified = Vec::new();
        for signature in &self.signatures {
            let Some(key) = known_key(signature, keys)? else { continue };
            let time = key
                .verify(&self.text, &signature.bytes)
                .map_err(|_| NoteError::BadSignature { name: signature.name.clone(), key_id: signature.key_id })?;
            verified.push(VerifiedSignature { key: key.clone(), time });
        }
        if verified.is_empty() {
            let signers: Vec<String> = self.signatures.iter().map(|s| format!("{} ({})", s.name, s.key_id)).collect();
            return Err(NoteError::NoKnownSignature(signers.join(", ")));
        }
        Ok(VerifiedSignatures(verified))
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        for signature in &self.signatures {
            let bytes = [signature.key_id.as_bytes(), signature.bytes.as_slice()].concat();
            writeln!(f, "{SIGNATURE_PREFIX}{} {}", signature.name, STANDARD.encode(bytes))?;
        }
        Ok(())
    }
}

/// The bytes that a log key signs, after checking that `text` may stand in a note: Ed25519 over these bytes, ECDSA over their SHA-256.
pub fn note_message(text: &str) -> Result<&[u8], NoteError> {
    refuse_control_characters(text)?;
    if text.len() > MAX_NOTE {
        return Err(NoteError::TooLong(text.len()));
    }
    if text.len() < 2 || !text.ends_with('\n') { Err(NoteError::NoBlankLine) } else { Ok(text.as_bytes()) }
}

/// A note from its text and the raw signatures of log keys, as keystores make them: RFC 8032 bytes for Ed25519, `r || s` for ECDSA.
/// Each is verified first, so a note that comes out can be verified by others.
pub fn signed_note(text: &str, signatures: &[(&VerifierKey, [u8; 64])]) -> Result<Note, NoteError> {
    note_message(text)?;
    if signatures.len() > MAX_SIGNATURES {
        return Err(NoteError::TooManySignatures);
    }
    let lines = signatures.iter().map(|(key, raw)| {
        let bad = || NoteError::BadSignature { name: key.name().to_owned(), key_id: key.id() };
        let bytes = key.encode_signature(raw).ok_or_else(bad)?;
        key.verify(text, &bytes).map_err(|_| bad())?;
        Ok(NoteSignature { name: key.name().to_owned(), key_id: key.id(), bytes })
    });
    let signatures: Vec<NoteSignature> = lines.collect::<Result<_, NoteError>>()?;
    if signatures.is_empty() {
        return Err(NoteError::NoKnownSignature("nobody".to_owned()));
    }
    Ok(Note { text: text.to_owned(), signatures })
}

/// The ASN.1 DER form of an ECDSA P-256 signature that is given as `r || s`; `None` if `r` or `s` is zero or not below the group order.
pub fn ecdsa_der_from_raw(raw: &[u8; 64]) -> Option<Vec<u8>> {
    Some(p256::ecdsa::Signature::from_slice(raw).ok()?.to_der().as_bytes().to_vec())
}

fn refuse_control_characters(text: &str) -> Result<(), NoteError> {
    match text.bytes().position(|b| b < b' ' && b != b'\n') {
        Some(at) => Err(NoteError::ControlCharacter(at)),
        None => Ok(()),
    }
}

fn parse_signature(line: &str) -> Option<NoteSignature> {
    let (name, encoded) = line.strip_prefix(SIGNATURE_PREFIX)?.split_once(' ')?;
    let decoded = STANDARD.decode(encoded).ok()?;
    let (key_id, bytes) = decoded.split_first_chunk::<4>()?;
    let well_formed = key::is_key_name(name) && !bytes.is_empty();
    well_formed.then(|| NoteSignature { name: name.to_owned(), key_id: KeyId::from_bytes(*key_id), bytes: bytes.to_vec() })
}

fn known_key<'k>(signature: &NoteSignature, keys: &'k [VerifierKey]) -> Result<Option<&'k VerifierKey>, NoteError> {
    let mut matching = keys.iter().filter(|key| key.name() == signature.name && key.id() == signature.key_id);
    let first = matching.next();
    match matching.find(|other| Some(*other) != first) {
        Some(_) => Err(NoteError::AmbiguousKey { name: signature.name.clone(), key_id: signature.key_id }),
        None => Ok(first),
    }
}

#[cfg(test)]
mod tests;
