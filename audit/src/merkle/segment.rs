//! Both hashes of a segment in one pass: the leaf hash of each line, and the SHA-256 of the file that the lines are.
//!
//! In scope: SHA-256 (FIPS 180-4) of two texts at a time, block by block in turn. A processor with SHA instructions waits for each round of
//! one text; the rounds of another fill the gap, so that both take little longer than one. Out of scope: the compression function (`sha2`
//! has it), and reading lines.

use sha2::block_api::compress256;

use super::Hash;

const BLOCK: usize = 64;
/// FIPS 180-4 section 5.3.3.
pub(super) const INITIAL: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// Hashes a segment line by line.
#[derive(Clone, Debug)]
pub struct SegmentHasher {
    state: [u32; 8],
    /// What of the file is not in `state` yet: less than a block, between two lines.
    file: Vec<u8>,
    bytes: u64,
    /// The leaf that is being hashed, kept for its room.
    leaf: Vec<u8>,
}

impl Default for SegmentHasher {
    fn default() -> Self {
        Self { state: INITIAL, file: Vec::new(), bytes: 0, leaf: Vec::new() }
    }
}

impl SegmentHasher {
    /// Adds a line, which is given without its LF, and gives its leaf hash, that of [`super::leaf_hash`].
    pub fn line(&mut self, line: &[u8]) -> Hash {
        let Self { state, file, bytes, leaf } = self;
        leaf.clear();
        leaf.push(0x00);
        leaf.extend_from_slice(line);
        pad(leaf, line.len() as u64 + 1);
        file.extend_from_slice(line);
        file.push(b'\n');
        *bytes += line.len() as u64 + 1;
        let mut leaf_state = INITIAL;
        compress_in_turn((&mut leaf_state, leaf), (state, file));
        file.drain(..file.len() / BLOCK * BLOCK);
        hash(leaf_state)
    }

    /// How many bytes the lines have, and their SHA-256, LF included.
    pub fn finish(mut self) -> (u64, Hash) {
        pad(&mut self.file, self.bytes);
        compress256(&mut self.state, self.file.as_chunks::<BLOCK>().0);
        (self.bytes, hash(self.state))
    }
}

/// Takes all whole blocks of two texts, a block of each in turn.
fn compress_in_turn((state, text): (&mut [u32; 8], &[u8]), (other_state, other): (&mut [u32; 8], &[u8])) {
    let (blocks, others) = (text.as_chunks::<BLOCK>().0, other.as_chunks::<BLOCK>().0);
    let both = blocks.len().min(others.len());
    for (block, other) in blocks.iter().zip(others) {
        compress256(state, std::slice::from_ref(block));
        compress256(other_state, std::slice::from_ref(other));
    }
    compress256(state, &blocks[both..]);
    compress256(other_state, &others[both..]);
}

/// The end of a text of `bytes` bytes, of which `text` is the last part (FIPS 180-4 section 5.1.1).
fn pad(text: &mut Vec<u8>, bytes: u64) {
    text.push(0x80);
    text.resize((text.len() + 8).next_multiple_of(BLOCK) - 8, 0);
    text.extend_from_slice(&(bytes * 8).to_be_bytes());
}

/// The value that a state stands for once everything was taken.
pub(super) fn hash(state: [u32; 8]) -> Hash {
    let mut bytes = [0; 32];
    for (bytes, word) in bytes.chunks_exact_mut(4).zip(state) {
        bytes.copy_from_slice(&word.to_be_bytes());
    }
    Hash::from_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::merkle::leaf_hash;

    fn agrees(lines: &[Vec<u8>]) {
        let mut hasher = SegmentHasher::default();
        for line in lines {
            assert_eq!(hasher.line(line), leaf_hash(line), "{} bytes", line.len());
        }
        let file: Vec<u8> = lines.iter().flat_map(|line| [line.as_slice(), b"\n"].concat()).collect();
        assert_eq!(hasher.finish(), (file.len() as u64, Hash::digest(&file)));
    }

    #[test]
    fn every_length_around_the_blocks() {
        agrees(&[]);
        for length in 0..200 {
            agrees(&[vec![b'x'; length], vec![b'y'; length / 2]]);
        }
    }

    proptest! {
        #[test]
        fn both_hashes_are_those_of_the_plain_functions(lines in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..700), 0..8)) {
            agrees(&lines);
        }
    }
}
