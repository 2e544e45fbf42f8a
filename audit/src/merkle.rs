//! The Merkle tree of a log: RFC 9162 section 2.1 (the tree of RFC 6962), as C2SP tlog-tiles and tlog-checkpoint use it.
//!
//! In scope: hashes of leaves and nodes, the right edge of a growing tree, (in `proofs`) inclusion and consistency proofs, (in `growth`) the
//! latter while a tree grows, and (in `segment`) the hashes of a whole segment.
//! Out of scope: what a leaf says, who signed a root (`note`, `checkpoint`), and where hashes are stored.

mod growth;
mod proofs;
mod segment;

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::{Serialize, Serializer};
use sha2::block_api::compress256;
use sha2::{Digest as _, Sha256};

pub use growth::Growth;
pub use proofs::{MAX_PROOF, ProofError, ProofMaker, consistency_proof, inclusion_proof, verify_consistency, verify_inclusion};
pub use segment::SegmentHasher;

/// A SHA-256 value. As text, and in JSON, it is 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash([u8; 32]);

/// Text that is not 64 lower-case hexadecimal digits.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("expected a SHA-256 value as 64 lower-case hexadecimal digits")]
pub struct BadHash;

impl Hash {
    /// The root of a tree without leaves: SHA-256 of nothing (RFC 9162 section 2.1.1).
    pub const EMPTY_ROOT: Self = Self([
        0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24, 0x27, 0xae, 0x41, 0xe4, 0x64, 0x9b,
        0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55,
    ]);

    /// The plain SHA-256 of `bytes`, without a tree prefix.
    pub fn digest(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// A value from its 32 bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl Hash {
    /// The 64 digits, all of them ASCII.
    fn digits(self) -> [u8; 64] {
        let digit = |value: u8| value + if value < 10 { b'0' } else { b'a' - 10 };
        let mut text = [0; 64];
        for (pair, byte) in text.chunks_exact_mut(2).zip(self.0) {
            (pair[0], pair[1]) = (digit(byte >> 4), digit(byte & 15));
        }
        text
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(str::from_utf8(&self.digits()).unwrap_or_default())
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hash({self})")
    }
}

impl From<[u8; 32]> for Hash {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl FromStr for Hash {
    type Err = BadHash;

    fn from_str(text: &str) -> Result<Self, BadHash> {
        let digits: &[u8; 64] = text.as_bytes().try_into().map_err(|_| BadHash)?;
        let mut bytes = [0; 32];
        let mut differs = 0;
        for (bytes, digits) in bytes.as_chunks_mut().0.iter_mut().zip(digits.as_chunks().0) {
            let (value, difference) = four_bytes(*digits);
            *bytes = value;
            differs |= difference;
        }
        if differs == 0 { Ok(Self(bytes)) } else { Err(BadHash) }
    }
}

/// Four bytes from eight digits, all at once, and how the digits differ from the one spelling of those bytes: not at all, or they are none.
/// Upper-case digits are refused: a hash has one spelling, so that equal text and equal value are the same thing.
fn four_bytes(digits: [u8; 8]) -> ([u8; 4], u64) {
    const EACH: u64 = 0x0101_0101_0101_0101;
    let text = u64::from_be_bytes(digits);
    // Letters have a bit that digits have not, and `a` ends in 1. No sum below is larger than its byte.
    let values = (text & (0x0f * EACH)) + 9 * ((text >> 6) & EACH);
    let above_nine = ((values + 6 * EACH) >> 4) & EACH;
    let spelled = values + u64::from(b'0') * EACH + u64::from(b'a' - b'9' - 1) * above_nine;
    let pairs = (values | (values >> 4)) & 0x00ff_00ff_00ff_00ff;
    let fours = (pairs | (pairs >> 8)) & 0x0000_ffff_0000_ffff;
    let [_, _, a, b, _, _, c, d] = fours.to_be_bytes();
    ([a, b, c, d], (spelled ^ text) | (values & (0xf0 * EACH)))
}

impl Serialize for Hash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(str::from_utf8(&self.digits()).unwrap_or_default())
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Hash;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a SHA-256 value")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Hash, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Text)
    }
}

/// The leaf hash of a line without its LF: `SHA-256(0x00 || line)`; also the `prev` of the line that follows.
pub fn leaf_hash(line: &[u8]) -> Hash {
    let mut hasher = Sha256::new();
    hasher.update([0x00]);
    hasher.update(line);
    Hash(hasher.finalize().into())
}

/// The hash of an inner node: `SHA-256(0x01 || left || right)`.
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    // Two blocks of SHA-256, of which the second holds one byte, the padding and the length in bits (FIPS 180-4 section 5.1.1).
    let mut blocks = [[0; 64]; 2];
    let text = blocks.as_flattened_mut();
    text[0] = 0x01;
    text[1..33].copy_from_slice(&left.0);
    text[33..65].copy_from_slice(&right.0);
    text[65] = 0x80;
    text[126..].copy_from_slice(&(65_u16 * 8).to_be_bytes());
    let mut state = segment::INITIAL;
    compress256(&mut state, &blocks);
    segment::hash(state)
}

/// The right edge of a growing tree: the roots of its largest complete subtrees, from the left. At most 64 hashes for any size,
/// and all that is needed to go on appending and to compute the root.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Frontier {
    size: u64,
    edge: Vec<Hash>,
}

/// The stored parts of a frontier do not belong together.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a tree of {size} leaves has {expected} hashes on its right edge, not {found}; rebuild the frontier from the log")]
pub struct BadFrontier {
    /// The size that was given.
    pub size: u64,
    /// How many hashes belong to that size.
    pub expected: usize,
    /// How many hashes were given.
    pub found: usize,
}

impl Frontier {
    /// The frontier of a tree without leaves.
    pub fn new() -> Self {
        Self::default()
    }

    /// A frontier from its stored parts. Only their number can be checked here: compare [`Self::root`] with a signed checkpoint.
    pub fn from_parts(size: u64, edge: Vec<Hash>) -> Result<Self, BadFrontier> {
        let expected = size.count_ones() as usize;
        if edge.len() == expected { Ok(Self { size, edge }) } else { Err(BadFrontier { size, expected, found: edge.len() }) }
    }

    /// The number of leaves.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The roots of the complete subtrees, largest first: one for each bit that is set in the size.
    pub fn edge(&self) -> &[Hash] {
        &self.edge
    }

    /// Appends a leaf. On average this computes one node hash.
    pub fn push(&mut self, leaf: Hash) {
        self.push_subtree(0, leaf);
    }

    /// Appends a complete subtree of `2^height` leaves by its root. Its place must be its own: the size is a multiple of `2^height`.
    pub fn push_subtree(&mut self, height: u32, root: Hash) {
        debug_assert!(self.size.trailing_zeros() >= height, "a subtree of height {height} cannot begin at {}", self.size);
        // Each further one bit of the old size is a complete subtree of the same height as the one that just closed.
        let closing = self.edge.len() - (self.size >> height).trailing_ones() as usize;
        let subtree = self.edge.drain(closing..).rev().fold(root, |right, left| node_hash(&left, &right));
        self.edge.push(subtree);
        self.size += 1 << height;
    }

    /// The root of the tree.
    pub fn root(&self) -> Hash {
        self.edge.iter().rev().copied().reduce(|right, left| node_hash(&left, &right)).unwrap_or(Hash::EMPTY_ROOT)
    }
}

impl Extend<Hash> for Frontier {
    fn extend<T: IntoIterator<Item = Hash>>(&mut self, leaves: T) {
        leaves.into_iter().for_each(|leaf| self.push(leaf));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The leaves and roots of the test data that every RFC 6962 implementation shares (certificate-transparency, `merkletree`).
    const LEAVES: [&[u8]; 8] =
        [b"", b"\x00", b"\x10", b"\x20\x21", b"\x30\x31", b"\x40\x41\x42\x43", b"\x50\x51\x52\x53\x54\x55\x56\x57", b"`abcdefghijklmno"];
    const ROOTS: [&str; 9] = [
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];

    #[test]
    fn roots_of_the_shared_test_data() {
        let mut frontier = Frontier::new();
        assert_eq!(frontier.root().to_string(), ROOTS[0]);
        for (leaf, root) in LEAVES.iter().zip(&ROOTS[1..]) {
            frontier.push(leaf_hash(leaf));
            assert_eq!(frontier.root().to_string(), *root);
        }
        assert_eq!(Hash::EMPTY_ROOT, Hash::digest(b""));
    }

    /// RFC 9162 section 2.1.1, word for word.
    fn mth(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => Hash::digest(b""),
            [leaf] => *leaf,
            _ => {
                let mut k = 1;
                while k * 2 < leaves.len() {
                    k *= 2;
                }
                node_hash(&mth(&leaves[..k]), &mth(&leaves[k..]))
            }
        }
    }

    proptest! {
        #[test]
        fn the_frontier_gives_the_root_of_the_definition(count in 0_u64..300, cut in 0_u64..300) {
            let leaves: Vec<Hash> = (0..count).map(|n| leaf_hash(&n.to_be_bytes())).collect();
            let cut = usize::try_from(cut.min(count)).unwrap();
            let mut frontier = Frontier::new();
            frontier.extend(leaves[..cut].iter().copied());
            prop_assert_eq!(frontier.root(), mth(&leaves[..cut]));
            // Stored and loaded again, it goes on as if nothing had happened.
            let mut loaded = Frontier::from_parts(frontier.size(), frontier.edge().to_vec()).unwrap();
            loaded.extend(leaves[cut..].iter().copied());
            prop_assert_eq!((loaded.size(), loaded.root()), (count, mth(&leaves)));
        }

        #[test]
        fn a_hash_has_one_spelling(bytes: [u8; 32]) {
            let hash = Hash::from_bytes(bytes);
            let text = hash.to_string();
            prop_assert_eq!(text.parse(), Ok(hash));
            let upper = text.to_uppercase();
            prop_assert_eq!(upper == text, upper.parse::<Hash>().is_ok());
            let json = serde_json::to_string(&hash).unwrap();
            prop_assert_eq!(serde_json::from_str::<Hash>(&json).unwrap(), hash);
        }
    }

    #[test]
    fn a_digit_is_lower_case_hexadecimal_and_nothing_else() {
        for place in 0..64 {
            for byte in 0..=u8::MAX {
                let mut digits = [b'0'; 64];
                digits[place] = byte;
                let Ok(text) = str::from_utf8(&digits) else { continue };
                let read = text.parse::<Hash>();
                assert_eq!(read.is_ok(), matches!(byte, b'0'..=b'9' | b'a'..=b'f'), "{text}");
                assert!(read.is_err() || read.map(|hash| hash.to_string()) == Ok(text.to_owned()), "{text}");
            }
        }
    }

    #[test]
    fn parts_that_do_not_fit_are_refused() {
        let edge = vec![leaf_hash(b"a"), leaf_hash(b"b")];
        assert_eq!(Frontier::from_parts(4, edge.clone()), Err(BadFrontier { size: 4, expected: 1, found: 2 }));
        assert!(Frontier::from_parts(6, edge).is_ok());
        for bad in ["", "e3b0", &"0".repeat(63), &"0".repeat(65), &"g".repeat(64), &format!("0x{}", "0".repeat(62))] {
            assert_eq!(bad.parse::<Hash>(), Err(BadHash), "{bad}");
        }
    }
}
