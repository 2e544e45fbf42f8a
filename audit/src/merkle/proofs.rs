//! Inclusion and consistency proofs: RFC 9162 sections 2.1.3 and 2.1.4.
//!
//! In scope: making proofs from the leaf hashes of a tree, at hand or passing by once, and checking proofs that a stranger hands in.
//! Out of scope: proofs from stored tiles, and whether a root is the log's (a signed checkpoint says that).

use std::ops::Range;

use super::{Frontier, Hash, node_hash};

/// The longest proof of any tree with up to 2^63 leaves, and the limit of C2SP tlog-witness; a longer one is refused unread.
pub const MAX_PROOF: usize = 63;

/// Why a proof cannot be made, or does not prove what it should.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ProofError {
    /// The tree does not have that leaf.
    #[error("leaf {index} does not exist in a tree of {size} leaves")]
    NoSuchLeaf {
        /// The index that was asked for, from 0.
        index: u64,
        /// The number of leaves of the tree.
        size: u64,
    },
    /// The leaf hashes at hand are fewer than the tree has.
    #[error("a tree of {size} leaves was asked for, but only {known} leaf hashes are at hand")]
    TooFewLeaves {
        /// The number of leaves of the tree.
        size: u64,
        /// The number of leaf hashes at hand.
        known: u64,
    },
    /// The older tree is larger than the newer one.
    #[error("a tree of {old} leaves cannot have grown into one of {new}: the log was cut or rolled back")]
    Shrunk {
        /// Size of the older tree.
        old: u64,
        /// Size of the newer tree.
        new: u64,
    },
    /// The proof has more or fewer hashes than these sizes need.
    #[error("the proof has {0} hashes, which is not the number that these tree sizes need")]
    Length(usize),
    /// The proof leads to another root: the leaf is not in that tree.
    #[error("the proof does not lead to the root: the tree does not hold that leaf at that place")]
    NotIncluded,
    /// The proof leads to another root: one tree is not the beginning of the other.
    #[error("the trees are inconsistent: the newer one does not begin with the older one")]
    Inconsistent,
}

/// Makes a proof while the leaves of a tree pass by, in memory that does not grow with the tree: each hash of a proof is the root of a
/// range of leaves, and no two ranges overlap.
#[derive(Clone, Debug)]
pub struct ProofMaker {
    parts: Vec<(Range<u64>, Frontier)>,
    size: u64,
    seen: u64,
}

impl ProofMaker {
    /// For the audit path of leaf `index` in the tree of the first `size` leaves (RFC 9162 section 2.1.3.1), lowest node first.
    ///
    /// # Errors
    ///
    /// [`ProofError::NoSuchLeaf`].
    pub fn inclusion(index: u64, size: u64) -> Result<Self, ProofError> {
        if index >= size {
            return Err(ProofError::NoSuchLeaf { index, size });
        }
        let mut ranges = Vec::new();
        path(index, 0..size, &mut ranges);
        Ok(Self::new(ranges, size))
    }

    /// For the proof that the tree of the first `old` leaves is the beginning of the tree of the first `new` (RFC 9162 section 2.1.4.1).
    /// It is empty when the sizes are equal, and when the older tree is empty, which every tree begins with.
    ///
    /// # Errors
    ///
    /// [`ProofError::Shrunk`].
    pub fn consistency(old: u64, new: u64) -> Result<Self, ProofError> {
        if old > new {
            return Err(ProofError::Shrunk { old, new });
        }
        let mut ranges = Vec::new();
        if old != 0 {
            subproof(old, 0..new, true, &mut ranges);
        }
        Ok(Self::new(ranges, new))
    }

    fn new(ranges: Vec<Range<u64>>, size: u64) -> Self {
        Self { parts: ranges.into_iter().map(|range| (range, Frontier::new())).collect(), size, seen: 0 }
    }

    /// Takes the next leaf; those after the tree's last are passed over.
    pub fn push(&mut self, leaf: Hash) {
        let seq = self.seen;
        self.seen += 1;
        if let Some((_, part)) = self.parts.iter_mut().find(|(range, _)| range.contains(&seq)) {
            part.push(leaf);
        }
    }

    /// Whether every leaf of the tree has passed by.
    pub fn is_complete(&self) -> bool {
        self.seen >= self.size
    }

    /// The proof.
    ///
    /// # Errors
    ///
    /// [`ProofError::TooFewLeaves`].
    pub fn finish(self) -> Result<Vec<Hash>, ProofError> {
        if !self.is_complete() {
            return Err(ProofError::TooFewLeaves { size: self.size, known: self.seen });
        }
        Ok(self.parts.iter().map(|(_, part)| part.root()).collect())
    }
}

/// [`ProofMaker::inclusion`] over leaves that are all at hand.
pub fn inclusion_proof(leaves: &[Hash], index: u64, size: u64) -> Result<Vec<Hash>, ProofError> {
    over(leaves, size, ProofMaker::inclusion(index, size)?)
}

/// Checks that `leaf` is leaf `index` of the tree with `size` leaves and this `root` (RFC 9162 section 2.1.3.2).
pub fn verify_inclusion(leaf: &Hash, index: u64, size: u64, proof: &[Hash], root: &Hash) -> Result<(), ProofError> {
    if index >= size {
        return Err(ProofError::NoSuchLeaf { index, size });
    }
    let wrong_length = ProofError::Length(proof.len());
    if proof.len() > MAX_PROOF {
        return Err(wrong_length);
    }
    let (mut node, mut last) = (index, size - 1);
    let mut hash = *leaf;
    for sibling in proof {
        if last == 0 {
            return Err(wrong_length);
        }
        if node & 1 == 1 || node == last {
            hash = node_hash(sibling, &hash);
            // A right edge without a sibling at this level is carried up unhashed.
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    match (last, hash == *root) {
        (0, true) => Ok(()),
        (0, false) => Err(ProofError::NotIncluded),
        _ => Err(wrong_length),
    }
}

/// [`ProofMaker::consistency`] over leaves that are all at hand.
pub fn consistency_proof(leaves: &[Hash], old: u64, new: u64) -> Result<Vec<Hash>, ProofError> {
    over(leaves, new, ProofMaker::consistency(old, new)?)
}

/// Checks that the tree `(old, old_root)` is the beginning of the tree `(new, new_root)` (RFC 9162 section 2.1.4.2).
pub fn verify_consistency(old: u64, old_root: &Hash, new: u64, new_root: &Hash, proof: &[Hash]) -> Result<(), ProofError> {
    if old > new {
        return Err(ProofError::Shrunk { old, new });
    }
    if old == 0 || old == new {
        let expected_old = if old == 0 { &Hash::EMPTY_ROOT } else { new_root };
        let same = old_root == expected_old && (new != 0 || new_root == old_root);
        return match (proof.is_empty(), same) {
            (true, true) => Ok(()),
            (true, false) => Err(ProofError::Inconsistent),
            (false, _) => Err(ProofError::Length(proof.len())),
        };
    }
    let (from_old, from_new) = fold_consistency(old, old_root, new, proof)?;
    if from_old == *old_root && from_new == *new_root { Ok(()) } else { Err(ProofError::Inconsistent) }
}

/// Both roots as the proof implies them, for `0 < old < new`.
fn fold_consistency(old: u64, old_root: &Hash, new: u64, proof: &[Hash]) -> Result<(Hash, Hash), ProofError> {
    let wrong_length = || ProofError::Length(proof.len());
    if proof.len() > MAX_PROOF {
        return Err(wrong_length());
    }
    // The older tree is itself a node of the newer one when its size is a power of two; the proof then leaves it out.
    let (start, rest) =
        if old.is_power_of_two() { (*old_root, proof) } else { proof.split_first().map(|(h, t)| (*h, t)).ok_or_else(wrong_length)? };
    let (mut node, mut last) = (old - 1, new - 1);
    let level = node.trailing_ones();
    node >>= level;
    last >>= level;
    let (mut from_old, mut from_new) = (start, start);
    for sibling in rest {
        if last == 0 {
            return Err(wrong_length());
        }
        if node & 1 == 1 || node == last {
            from_old = node_hash(sibling, &from_old);
            from_new = node_hash(sibling, &from_new);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            from_new = node_hash(&from_new, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    if last == 0 { Ok((from_old, from_new)) } else { Err(wrong_length()) }
}

fn over(leaves: &[Hash], size: u64, mut maker: ProofMaker) -> Result<Vec<Hash>, ProofError> {
    leaves.iter().take(usize::try_from(size).unwrap_or(usize::MAX)).for_each(|leaf| maker.push(*leaf));
    maker.finish()
}

/// Both halves of a tree of two leaves or more. RFC 9162 splits at the largest power of two below the size.
fn halves(tree: Range<u64>) -> (Range<u64>, Range<u64>) {
    let middle = tree.start + (1 << (tree.end - tree.start - 1).ilog2());
    (tree.start..middle, middle..tree.end)
}

/// `PATH(m, D[n])`. Recursion is as deep as the tree is high, so at most 64.
fn path(index: u64, tree: Range<u64>, ranges: &mut Vec<Range<u64>>) {
    if tree.end - tree.start == 1 {
        return;
    }
    let (left, right) = halves(tree);
    if left.contains(&index) {
        path(index, left, ranges);
        ranges.push(right);
    } else {
        path(index, right, ranges);
        ranges.push(left);
    }
}

/// `SUBPROOF(m, D[n], b)`, with `m` counted from the first leaf of all; `whole` is RFC 9162's `b`: the subtree is the older tree itself,
/// which the verifier knows.
fn subproof(old: u64, tree: Range<u64>, whole: bool, ranges: &mut Vec<Range<u64>>) {
    if old == tree.end {
        if !whole {
            ranges.push(tree);
        }
        return;
    }
    let (left, right) = halves(tree);
    if old <= left.end {
        subproof(old, left, whole, ranges);
        ranges.push(right);
    } else {
        subproof(old, right, false, ranges);
        ranges.push(left);
    }
}

#[cfg(test)]
mod tests {
    use super::super::leaf_hash;
    use super::*;

    fn leaves(count: u64) -> Vec<Hash> {
        (0..count).map(|n| leaf_hash(&n.to_be_bytes())).collect()
    }

    fn root_of(leaves: &[Hash]) -> Hash {
        let mut frontier = Frontier::new();
        frontier.extend(leaves.iter().copied());
        frontier.root()
    }

    /// Every proof with one bit flipped, one hash added, dropped or doubled.
    fn spoiled(proof: &[Hash]) -> impl Iterator<Item = Vec<Hash>> + '_ {
        let flips = (0..proof.len() * 256).map(|bit| {
            let mut copy = proof.to_vec();
            let mut bytes = *copy[bit / 256].as_bytes();
            bytes[bit % 256 / 8] ^= 1 << (bit % 8);
            copy[bit / 256] = Hash::from_bytes(bytes);
            copy
        });
        let drops = (0..proof.len()).map(|i| [&proof[..i], &proof[i + 1..]].concat());
        let adds = (0..=proof.len()).map(|i| [&proof[..i], &[leaf_hash(b"added")], &proof[i..]].concat());
        flips.chain(drops).chain(adds)
    }

    /// The inclusion and consistency proofs of RFC 9162 section 2.1.5, over its seven-leaf tree.
    #[test]
    fn the_example_of_the_rfc() {
        let d = leaves(7);
        // As in the RFC's drawing, g, h and i are pairs of leaves; its k and l are the halves.
        let [g, h, i] = [0, 2, 4].map(|left| node_hash(&d[left], &d[left + 1]));
        let halves = (node_hash(&g, &h), node_hash(&i, &d[6]));
        assert_eq!(inclusion_proof(&d, 0, 7), Ok(vec![d[1], h, halves.1]));
        assert_eq!(inclusion_proof(&d, 3, 7), Ok(vec![d[2], g, halves.1]));
        assert_eq!(inclusion_proof(&d, 4, 7), Ok(vec![d[5], d[6], halves.0]));
        assert_eq!(inclusion_proof(&d, 6, 7), Ok(vec![i, halves.0]));
        assert_eq!(consistency_proof(&d, 3, 7), Ok(vec![d[2], d[3], g, halves.1]));
        assert_eq!(consistency_proof(&d, 4, 7), Ok(vec![halves.1]));
        assert_eq!(consistency_proof(&d, 6, 7), Ok(vec![i, d[6], halves.0]));
    }

    #[test]
    fn every_inclusion_proof_holds_and_no_other() {
        let d = leaves(33);
        for size in 1..=33 {
            let root = root_of(&d[..usize::try_from(size).unwrap()]);
            for index in 0..size {
                let leaf = d[usize::try_from(index).unwrap()];
                let proof = inclusion_proof(&d, index, size).unwrap();
                assert_eq!(verify_inclusion(&leaf, index, size, &proof, &root), Ok(()));
                assert_eq!(verify_inclusion(&leaf_hash(b"x"), index, size, &proof, &root), Err(ProofError::NotIncluded));
                for other in (0..size).filter(|other| *other != index) {
                    assert!(verify_inclusion(&leaf, other, size, &proof, &root).is_err(), "{index} as {other} of {size}");
                }
            }
        }
        for (index, size) in [(0, 1), (6, 7), (20, 33), (32, 33)] {
            let (leaf, root) = (d[usize::try_from(index).unwrap()], root_of(&d[..usize::try_from(size).unwrap()]));
            let proof = inclusion_proof(&d, index, size).unwrap();
            for bad in spoiled(&proof) {
                assert!(verify_inclusion(&leaf, index, size, &bad, &root).is_err());
            }
        }
    }

    #[test]
    fn every_consistency_proof_holds_and_no_other() {
        let d = leaves(33);
        let root = |size| root_of(&d[..usize::try_from(size).unwrap()]);
        for new in 0..=33 {
            for old in 0..=new {
                let proof = consistency_proof(&d, old, new).unwrap();
                assert_eq!(verify_consistency(old, &root(old), new, &root(new), &proof), Ok(()), "{old} to {new}");
                assert!(verify_consistency(old, &leaf_hash(b"x"), new, &root(new), &proof).is_err());
                if old != 0 {
                    // An empty tree begins every tree, so nothing about the newer root can be wrong there.
                    assert!(verify_consistency(old, &root(old), new, &leaf_hash(b"x"), &proof).is_err());
                }
            }
        }
        for (old, new) in [(1, 2), (3, 7), (4, 7), (6, 7), (20, 33), (32, 33), (33, 33), (0, 5), (0, 0)] {
            for bad in spoiled(&consistency_proof(&d, old, new).unwrap()) {
                assert!(verify_consistency(old, &root(old), new, &root(new), &bad).is_err(), "{old} to {new}");
            }
        }
    }

    #[test]
    fn impossible_questions_are_refused() {
        let d = leaves(4);
        assert_eq!(inclusion_proof(&d, 4, 4), Err(ProofError::NoSuchLeaf { index: 4, size: 4 }));
        assert_eq!(inclusion_proof(&d, 0, 0), Err(ProofError::NoSuchLeaf { index: 0, size: 0 }));
        assert_eq!(inclusion_proof(&d, 0, 5), Err(ProofError::TooFewLeaves { size: 5, known: 4 }));
        assert_eq!(consistency_proof(&d, 3, 2), Err(ProofError::Shrunk { old: 3, new: 2 }));
        assert_eq!(verify_inclusion(&d[0], u64::MAX, 1, &[], &d[0]), Err(ProofError::NoSuchLeaf { index: u64::MAX, size: 1 }));
        assert_eq!(verify_inclusion(&d[0], 0, u64::MAX, &[d[0]; 64], &d[0]), Err(ProofError::Length(64)));
        assert_eq!(verify_consistency(2, &d[0], 1, &d[0], &[]), Err(ProofError::Shrunk { old: 2, new: 1 }));
        assert_eq!(verify_consistency(3, &d[0], u64::MAX, &d[0], &[d[0]; 64]), Err(ProofError::Length(64)));
    }
}
