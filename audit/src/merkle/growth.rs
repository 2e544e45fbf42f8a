//! A consistency proof (RFC 9162 section 2.1.4) that is made while a tree grows, from leaves that pass by once.
//!
//! In scope: the proof from one older tree to every newer one, in the memory of some 128 hashes. Out of scope: checking proofs, and making
//! them from all leaves of a tree (`proofs`).

use super::{Frontier, Hash};

/// How a tree has grown since it had an older size: all that is needed to prove that the one is the beginning of the other.
#[derive(Clone, Debug)]
pub struct Growth {
    old: Frontier,
    /// Roots of the complete subtrees that follow the older tree, each as large as its place allows: what stands to the right of the way
    /// from the older tree's last leaf to the root.
    closed: Vec<Hash>,
    /// The leaves of the subtree that is not complete yet.
    open: Frontier,
    /// Leaves of the older tree and of all of `closed`.
    begun: u64,
}

impl Growth {
    /// Nothing has grown yet. An older tree without leaves needs no proof, and gets an empty one.
    pub fn new(old: Frontier) -> Self {
        let begun = old.size();
        Self { old, closed: Vec::new(), open: Frontier::new(), begun }
    }

    /// The size of the older tree.
    pub fn old_size(&self) -> u64 {
        self.old.size()
    }

    /// The size of the newer tree.
    pub fn size(&self) -> u64 {
        self.begun + self.open.size()
    }

    /// The next leaf of the newer tree.
    pub fn push(&mut self, leaf: Hash) {
        self.open.push(leaf);
        // Above an empty tree everything is one open subtree.
        if self.begun > 0 && self.open.size() == 1 << self.begun.trailing_zeros() {
            self.begun += self.open.size();
            self.closed.push(std::mem::take(&mut self.open).root());
        }
    }

    /// The right edge of the newer tree.
    pub fn frontier(&self) -> Frontier {
        let mut frontier = self.old.clone();
        for root in &self.closed {
            frontier.push_subtree(frontier.size().trailing_zeros(), *root);
        }
        let mut left = self.open.size();
        for root in self.open.edge() {
            let height = left.ilog2();
            frontier.push_subtree(height, *root);
            left -= 1 << height;
        }
        frontier
    }

    /// `PROOF(old, D[size])` of RFC 9162 section 2.1.4.1: the way from the older tree's last subtree up to the newer root, with what stands
    /// beside it on the left (the older tree's edge) and on the right (what has grown).
    pub fn proof(&self) -> Vec<Hash> {
        let (old, new) = (self.old.size(), self.size());
        let mut left = self.old.edge().iter().rev();
        let mut proof = Vec::new();
        let Some(start) = left.next().filter(|_| old < new) else { return proof };
        if !old.is_power_of_two() {
            proof.push(*start);
        }
        let open = (self.open.size() > 0).then(|| self.open.root());
        let mut right = self.closed.iter().chain(&open);
        let level = old.trailing_zeros();
        let (mut node, mut last) = ((old - 1) >> level, (new - 1) >> level);
        while last > 0 {
            if node & 1 == 1 {
                proof.extend(left.next());
            } else if node < last {
                proof.extend(right.next());
            }
            // A right edge without a sibling at this level is carried up unhashed.
            node >>= 1;
            last >>= 1;
        }
        proof
    }
}

impl Extend<Hash> for Growth {
    fn extend<T: IntoIterator<Item = Hash>>(&mut self, leaves: T) {
        leaves.into_iter().for_each(|leaf| self.push(leaf));
    }
}

#[cfg(test)]
mod tests {
    use super::super::{consistency_proof, leaf_hash, verify_consistency};
    use super::*;

    #[test]
    fn it_proves_what_all_leaves_prove() {
        let leaves: Vec<Hash> = (0..70_u64).map(|n| leaf_hash(&n.to_be_bytes())).collect();
        let mut old = Frontier::new();
        for size in 0..=70_u64 {
            let mut growth = Growth::new(old.clone());
            assert_eq!((growth.proof(), growth.frontier()), (Vec::new(), old.clone()));
            for new in size + 1..=70 {
                growth.push(leaves[usize::try_from(new).unwrap() - 1]);
                let proof = growth.proof();
                assert_eq!(proof, consistency_proof(&leaves, size, new).unwrap(), "{size} to {new}");
                assert_eq!((growth.old_size(), growth.size(), growth.frontier().size()), (size, new, new));
                let roots = (old.root(), growth.frontier().root());
                assert_eq!(verify_consistency(size, &roots.0, new, &roots.1, &proof), Ok(()));
            }
            if let Some(leaf) = leaves.get(usize::try_from(size).unwrap()) {
                old.push(*leaf);
            }
        }
    }

    #[test]
    fn it_stays_small() {
        let mut old = Frontier::new();
        old.extend((0..1001_u64).map(|n| leaf_hash(&n.to_be_bytes())));
        let mut growth = Growth::new(old);
        growth.extend((1001..100_000_u64).map(|n| leaf_hash(&n.to_be_bytes())));
        assert!(growth.closed.len() + growth.open.edge().len() < 64);
    }
}
