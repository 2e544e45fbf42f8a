//! Inclusion and consistency proofs: whatever a stranger hands in proves the truth about a tree, or nothing.
//!
//! The first bytes choose a true proof; the rest changes it, or is one. Proofs in text form have a file of their own.

use claviger_audit::merkle::{Frontier, Hash, consistency_proof, inclusion_proof, leaf_hash, verify_consistency, verify_inclusion};

/// The largest tree: it is built anew for each input.
const MOST_LEAVES: u64 = 48;

/// A proof is accepted for no leaf but the true one, for no older root but the true one, and in no other form.
pub fn check(data: &[u8]) {
    let Some((&[old, new, change, place], rest)) = data.split_first_chunk::<4>() else { return };
    let new = u64::from(new) % MOST_LEAVES + 1;
    let old = u64::from(old) % new;
    let leaves: Vec<Hash> = (0..new).map(|number| leaf_hash(&number.to_be_bytes())).collect();
    let mut included = inclusion_proof(&leaves, old, new).expect("the leaf is there");
    let mut consistent = consistency_proof(&leaves, old, new).expect("the tree has grown");
    let (true_included, true_consistent) = (included.clone(), consistent.clone());
    alter(&mut included, change, place, rest);
    alter(&mut consistent, change, place, rest);
    let root = root(&leaves, new);
    for (index, leaf) in (0..).zip(&leaves) {
        let accepted = verify_inclusion(leaf, old, new, &included, &root).is_ok();
        assert_eq!(accepted, index == old && included == true_included, "leaf {index} at {old} of {new}: {included:?}");
        let size = index + 1;
        let accepted = verify_consistency(old, &self::root(&leaves, size), new, &root, &consistent).is_ok();
        assert_eq!(accepted, size == old && consistent == true_consistent, "size {size} as {old} of {new}: {consistent:?}");
    }
    strangers(rest);
}

/// A tree that nobody knows: nothing may panic, and equal sizes have equal roots.
fn strangers(data: &[u8]) {
    let Some((sizes, rest)) = data.split_first_chunk::<16>() else { return };
    let (a, b) = (number(&sizes[..8]), number(&sizes[8..]));
    let hashes = hashes(rest);
    let [leaf, root, proof @ ..] = hashes.as_slice() else { return };
    if verify_inclusion(leaf, a, b, proof, root).is_ok() {
        assert!(a < b, "a leaf that does not exist");
    }
    if verify_consistency(a, leaf, b, root, proof).is_ok() {
        assert!(a < b || (a == b && leaf == root), "a tree that shrank");
    }
}

/// Changes a proof in one of a few ways, or not at all.
fn alter(proof: &mut Vec<Hash>, change: u8, place: u8, rest: &[u8]) {
    let at = usize::from(place) % proof.len().max(1);
    match change % 8 {
        1 if !proof.is_empty() => drop(proof.remove(at)),
        2 => proof.insert(at.min(proof.len()), hashes(rest).first().copied().unwrap_or(Hash::EMPTY_ROOT)),
        3 if !proof.is_empty() => proof.insert(at, proof[at]),
        4 if !proof.is_empty() => {
            let mut bytes = *proof[at].as_bytes();
            bytes[usize::from(place) % 32] ^= change.max(1);
            proof[at] = Hash::from_bytes(bytes);
        }
        5 => proof.reverse(),
        6 => *proof = hashes(rest),
        7 => proof.clear(),
        _ => {}
    }
}

fn root(leaves: &[Hash], size: u64) -> Hash {
    let mut frontier = Frontier::new();
    frontier.extend(leaves.iter().copied().take(usize::try_from(size).expect("a small tree")));
    frontier.root()
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// At most as many hashes as a proof can be long, and a few more.
fn hashes(data: &[u8]) -> Vec<Hash> {
    data.as_chunks::<32>().0.iter().take(70).map(|bytes| Hash::from_bytes(*bytes)).collect()
}
