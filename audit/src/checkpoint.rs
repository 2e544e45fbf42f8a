//! Checkpoints (C2SP tlog-checkpoint): the size and the root of a log, as the text of a signed note.
//!
//! In scope: the text, and taking it from a note that the log's key signed.
//! Out of scope: whether two checkpoints agree (`merkle`), and how many cosigners are enough (`trust`).

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::merkle::Hash;
use crate::note::{Note, NoteError, SignatureType, VerifiedSignatures, VerifierKey};

/// What a log states about itself: under this name, so many records, this root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The name of the log.
    pub origin: String,
    /// The number of records.
    pub size: u64,
    /// The root of the Merkle tree over the first `size` records.
    pub root: Hash,
    extensions: Vec<String>,
}

/// Why a text is not a checkpoint, or not one of this log.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CheckpointError {
    /// Fewer than three lines, an empty line, or no LF at the end.
    #[error("a checkpoint is at least three non-empty lines, each ended by a line feed: origin, size, root")]
    Form,
    /// The second line is not a canonical decimal number.
    #[error("the size of a checkpoint is a decimal number below 2^64 without sign or leading zeros, not {0:?}")]
    Size(String),
    /// The third line is not base64 of 32 bytes.
    #[error("the root of a checkpoint is 32 bytes in padded standard base64 (RFC 4648 section 4), not {0:?}")]
    Root(String),
    /// Size zero with a root that is not that of an empty tree.
    #[error("the checkpoint says that the log is empty, but its root is not that of an empty tree")]
    EmptyRoot,
    /// Another log's checkpoint.
    #[error("the checkpoint is of the log {found:?}; expected {expected:?}")]
    Origin {
        /// The log that was asked for.
        expected: String,
        /// The log that the checkpoint names.
        found: String,
    },
    /// Known keys signed, but none of them is the log's own.
    #[error("no key named {0:?} that may sign for the log has signed this checkpoint; cosigners alone are not enough")]
    NotByLog(String),
    /// The note around the text is not to be trusted.
    #[error(transparent)]
    Note(#[from] NoteError),
}

impl Checkpoint {
    /// A checkpoint to be signed. It has no extension lines: C2SP advises against them, and Claviger never writes one.
    pub fn new(origin: &str, size: u64, root: Hash) -> Self {
        Self { origin: origin.to_owned(), size, root, extensions: Vec::new() }
    }

    /// Lines after the root, opaque; a strange log may have some.
    pub fn extensions(&self) -> &[String] {
        &self.extensions
    }

    /// Verifies `note` and takes the checkpoint of `origin` out of it. Of `keys`, which may name cosigners too, at least one that is
    /// called `origin` and signs for logs must have signed (C2SP tlog-policy: a log key is named by the origin).
    pub fn from_note(note: &Note, origin: &str, keys: &[VerifierKey]) -> Result<(Self, VerifiedSignatures), CheckpointError> {
        let signatures = note.verify(keys)?;
        let checkpoint: Self = note.text().parse()?;
        if checkpoint.origin != origin {
            return Err(CheckpointError::Origin { expected: origin.to_owned(), found: checkpoint.origin });
        }
        let by_log = |key: &VerifierKey| key.name() == origin && key.signature_type() != SignatureType::CosignatureEd25519;
        if !signatures.iter().any(|signature| by_log(&signature.key)) {
            return Err(CheckpointError::NotByLog(origin.to_owned()));
        }
        Ok((checkpoint, signatures))
    }
}

impl FromStr for Checkpoint {
    type Err = CheckpointError;

    fn from_str(text: &str) -> Result<Self, CheckpointError> {
        let mut lines = text.strip_suffix('\n').ok_or(CheckpointError::Form)?.split('\n');
        let (Some(origin), Some(size), Some(root)) = (lines.next(), lines.next(), lines.next()) else { return Err(CheckpointError::Form) };
        let extensions: Vec<String> = lines.map(str::to_owned).collect();
        if [origin, size, root].contains(&"") || extensions.iter().any(String::is_empty) {
            return Err(CheckpointError::Form);
        }
        let size = parse_size(size).ok_or_else(|| CheckpointError::Size(size.to_owned()))?;
        let root = parse_root(root).ok_or_else(|| CheckpointError::Root(root.to_owned()))?;
        if size == 0 && root != Hash::EMPTY_ROOT {
            return Err(CheckpointError::EmptyRoot);
        }
        Ok(Self { origin: origin.to_owned(), size, root, extensions })
    }
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n{}\n{}", self.origin, self.size, STANDARD.encode(self.root.as_bytes()))?;
        self.extensions.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

/// A decimal number below 2^64 without sign or leading zeros.
pub(crate) fn parse_size(text: &str) -> Option<u64> {
    let canonical = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if canonical { text.parse().ok() } else { None }
}

/// A hash in padded standard base64 (RFC 4648 section 4).
pub(crate) fn parse_root(text: &str) -> Option<Hash> {
    Some(Hash::from_bytes(STANDARD.decode(text).ok()?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::Signer as _;
    use proptest::prelude::*;

    use super::*;
    use crate::jwk::PublicKey;
    use crate::note::signed_note;

    /// The example of C2SP tlog-checkpoint.
    const EXAMPLE: &str = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";

    fn signer(name: &str, seed: u8) -> (VerifierKey, ed25519_dalek::SigningKey) {
        let secret = ed25519_dalek::SigningKey::from_bytes(&[seed; 32]);
        (VerifierKey::from_jwk(name, &PublicKey::from_ed25519(secret.verifying_key().as_bytes())).unwrap(), secret)
    }

    #[test]
    fn the_example_of_the_specification() {
        let checkpoint: Checkpoint = EXAMPLE.parse().unwrap();
        assert_eq!((checkpoint.origin.as_str(), checkpoint.size), ("example.com/behind-the-sofa", 20_852_163));
        assert_eq!(checkpoint.to_string(), EXAMPLE);
        let extended: Checkpoint = format!("{EXAMPLE}more\n").parse().unwrap();
        assert_eq!(extended.extensions(), ["more"]);
        assert_eq!(extended.to_string(), format!("{EXAMPLE}more\n"));
    }

    #[test]
    fn only_the_logs_own_key_makes_a_checkpoint() {
        let (key, secret) = signer("example.com/behind-the-sofa", 1);
        let (other, other_secret) = signer("someone.example", 2);
        let sign = |secret: &ed25519_dalek::SigningKey, text: &str| secret.sign(text.as_bytes()).to_bytes();
        let keys = [key.clone(), other.clone()];
        let note = signed_note(EXAMPLE, &[(&key, sign(&secret, EXAMPLE))]).unwrap();
        let (checkpoint, signatures) = Checkpoint::from_note(&note, "example.com/behind-the-sofa", &keys).unwrap();
        assert_eq!(checkpoint.size, 20_852_163);
        assert!(signatures.by(&key));
        assert!(matches!(Checkpoint::from_note(&note, "example.com/another", &keys), Err(CheckpointError::Origin { .. })));
        let foreign = signed_note(EXAMPLE, &[(&other, sign(&other_secret, EXAMPLE))]).unwrap();
        let refused = Checkpoint::from_note(&foreign, "example.com/behind-the-sofa", &keys);
        assert!(matches!(refused, Err(CheckpointError::NotByLog(_))));
        let unknown = Checkpoint::from_note(&foreign, "example.com/behind-the-sofa", &keys[..1]);
        assert!(matches!(unknown, Err(CheckpointError::Note(NoteError::NoKnownSignature(_)))));
        let nonsense = signed_note("nonsense\n", &[(&key, sign(&secret, "nonsense\n"))]).unwrap();
        assert_eq!(Checkpoint::from_note(&nonsense, "nonsense", &keys), Err(CheckpointError::Form));
    }

    #[test]
    fn nearly_checkpoints_are_refused() {
        let parse = |text: &str| text.parse::<Checkpoint>().unwrap_err();
        for bad in
            ["", "\n", "a\n1\n", &EXAMPLE[1..].replace('\n', "\n\n"), EXAMPLE.trim_end(), &format!("\n{EXAMPLE}"), &format!("{EXAMPLE}\n")]
        {
            assert_eq!(parse(bad), CheckpointError::Form, "{bad:?}");
        }
        for size in ["00", "01", "+1", "-1", " 1", "1 ", "0x1", "1e3", "18446744073709551616", "\u{661}"] {
            assert_eq!(parse(&EXAMPLE.replace("20852163", size)), CheckpointError::Size(size.into()));
        }
        for (from, to) in [("q2I=", "q2I"), ("q2I=", "q2J="), ("CsUY", "CsU-"), ("CsUY", " CsUY"), ("CsUYapGG", "CsUY")] {
            assert!(matches!(parse(&EXAMPLE.replace(from, to)), CheckpointError::Root(_)), "{to}");
        }
        assert_eq!(parse(&EXAMPLE.replace("20852163", "0")), CheckpointError::EmptyRoot);
        assert!(Checkpoint::new("o", 0, Hash::EMPTY_ROOT).to_string().parse::<Checkpoint>().is_ok());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(origin in "[a-z./]{1,40}", size in 1_u64.., root: [u8; 32]) {
            let checkpoint = Checkpoint::new(&origin, size, Hash::from_bytes(root));
            prop_assert_eq!(checkpoint.to_string().parse(), Ok(checkpoint));
        }
    }
}
