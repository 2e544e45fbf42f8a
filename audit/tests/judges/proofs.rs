//! Inclusion and consistency: ours against `tlog.CheckRecord` and `tlog.CheckTree`, and C2SP tlog-proof files.
//!
//! In scope: true proofs of every pair of sizes, proofs damaged in every way, random trees, and the questions on which tlog and we differ.
//! Out of scope: who signed a root (`notes`).

use claviger_audit::merkle::{
    Hash, ProofError, consistency_proof, inclusion_proof, leaf_hash, node_hash, verify_consistency, verify_inclusion,
};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::process::{Judge, run};
use crate::{leaves, root};

/// The largest tree of which every proof is tried: past the first power of two that has three levels of neighbours.
const LARGEST: u64 = 70;

/// Is `leaf` leaf `index` of this tree?
#[derive(Clone)]
struct Inclusion {
    leaf: Hash,
    index: u64,
    size: u64,
    proof: Vec<Hash>,
    root: Hash,
}

/// Did the old tree grow into the new one?
#[derive(Clone)]
struct Consistency {
    old: u64,
    old_root: Hash,
    new: u64,
    new_root: Hash,
    proof: Vec<Hash>,
}

type Asked = (Value, Result<(), ProofError>);

impl Inclusion {
    fn of(tree: &[Hash], index: u64, size: u64) -> Self {
        let at = |n: u64| usize::try_from(n).unwrap();
        let proof = inclusion_proof(tree, index, size).unwrap();
        Self { leaf: tree[at(index)], index, size, proof, root: root(&tree[..at(size)]) }
    }

    fn asked(&self) -> Asked {
        let ours = verify_inclusion(&self.leaf, self.index, self.size, &self.proof, &self.root);
        let Self { leaf, index, size, proof, root } = self;
        (json!({"kind": "record", "leaf": leaf, "index": index, "size": size, "proof": proof, "root": root}), ours)
    }

    fn damaged(&self) -> Vec<Self> {
        let mut all: Vec<Self> = spoiled(&self.proof).into_iter().map(|proof| Self { proof, ..self.clone() }).collect();
        let other = leaf_hash(b"other");
        all.extend([Self { leaf: other, ..self.clone() }, Self { root: other, ..self.clone() }, Self { leaf: self.root, ..self.clone() }]);
        let near = |n: u64| [0, n.wrapping_sub(1), n + 1, n * 2, n ^ 1];
        all.extend(near(self.index).map(|index| Self { index, ..self.clone() }));
        all.extend(near(self.size).map(|size| Self { size, ..self.clone() }).into_iter().filter(|wrong| wrong.size <= 1 << 62));
        all
    }
}

impl Consistency {
    fn of(tree: &[Hash], old: u64, new: u64) -> Self {
        let root = |n: u64| root(&tree[..usize::try_from(n).unwrap()]);
        Self { old, old_root: root(old), new, new_root: root(new), proof: consistency_proof(tree, old, new).unwrap() }
    }

    fn asked(&self) -> Asked {
        let ours = verify_consistency(self.old, &self.old_root, self.new, &self.new_root, &self.proof);
        let Self { old, old_root, new, new_root, proof } = self;
        (json!({"kind": "tree", "old": old, "old_root": old_root, "size": new, "root": new_root, "proof": proof}), ours)
    }

    fn damaged(&self) -> Vec<Self> {
        let mut all: Vec<Self> = spoiled(&self.proof).into_iter().map(|proof| Self { proof, ..self.clone() }).collect();
        let other = leaf_hash(b"other");
        all.extend([Self { old_root: other, ..self.clone() }, Self { new_root: other, ..self.clone() }]);
        all.push(Self { old_root: self.new_root, new_root: self.old_root, ..self.clone() });
        all.push(Self { old: self.new, new: self.old, ..self.clone() });
        all.extend([self.old - 1, self.old + 1, self.old * 2].map(|old| Self { old, ..self.clone() }));
        all.extend([self.new - 1, self.new + 1, self.new * 2].map(|new| Self { new, ..self.clone() }));
        // With an old size of zero tlog refuses every question: that is a difference by itself, below.
        all.retain(|question| question.old != 0 && question.new != 0);
        all
    }
}

/// The proof with a bit flipped in each hash, and with each hash dropped, doubled, swapped with the next, or joined by a stranger.
fn spoiled(proof: &[Hash]) -> Vec<Vec<Hash>> {
    let stranger = leaf_hash(b"stranger");
    let mut all = vec![[&[stranger], proof].concat()];
    for at in 0..proof.len() {
        let mut flipped = *proof[at].as_bytes();
        // Which bit, is as good as random: the hash itself says it.
        let bit = usize::from(flipped[31]);
        flipped[bit / 8] ^= 1 << (bit % 8);
        let with = |middle: &[Hash]| [&proof[..at], middle, &proof[at + 1..]].concat();
        all.extend([with(&[Hash::from_bytes(flipped)]), with(&[]), with(&[proof[at], proof[at]]), with(&[proof[at], stranger])]);
        if at + 1 < proof.len() {
            let mut swapped = proof.to_vec();
            swapped.swap(at, at + 1);
            all.push(swapped);
        }
    }
    all
}

#[test]
fn every_inclusion_proof_and_each_of_its_damages() {
    let (mut judge, tree) = (Judge::start(), leaves(1, LARGEST));
    for size in 1..=LARGEST {
        for index in 0..size {
            let question = Inclusion::of(&tree, index, size);
            let asked: Vec<Asked> = std::iter::once(question.asked()).chain(question.damaged().iter().map(Inclusion::asked)).collect();
            assert_eq!(asked[0].1, Ok(()));
            assert!(asked[1..].iter().filter(|(_, ours)| ours.is_err()).count() > 8, "{index} of {size}: the damages do no harm");
            judge.agrees(&asked);
        }
    }
}

#[test]
fn every_consistency_proof_and_each_of_its_damages() {
    let (mut judge, tree) = (Judge::start(), leaves(2, LARGEST));
    for new in 1..=LARGEST {
        for old in 1..=new {
            let question = Consistency::of(&tree, old, new);
            let asked: Vec<Asked> = std::iter::once(question.asked()).chain(question.damaged().iter().map(Consistency::asked)).collect();
            assert_eq!(asked[0].1, Ok(()));
            assert!(asked[1..].iter().filter(|(_, ours)| ours.is_err()).count() > 4, "{old} to {new}: the damages do no harm");
            judge.agrees(&asked);
        }
    }
}

/// Where tlog cannot be asked: it refuses these questions, and C2SP and RFC 9162 give them an answer.
#[test]
fn the_questions_that_tlog_refuses_are_these() {
    let (mut judge, tree) = (Judge::start(), leaves(3, LARGEST));
    // C2SP tlog-witness: the empty tree is consistent with any tree, and no proof is necessary. tlog has no empty trees.
    for new in 0..=LARGEST {
        let (question, ours) = Consistency::of(&tree, 0, new).asked();
        assert_eq!((ours, judge.ask(&question).error.as_str()), (Ok(()), "tlog: invalid inputs in CheckTree"));
    }
    // RFC 9162 counts to 2^64 - 1; tlog counts in 64 bits with a sign, and loops for ever above 2^62.
    for height in [61_u32, 62, 63] {
        let question = leftmost(height);
        let theirs = judge.ask(&question.asked().0);
        assert_eq!((question.asked().1, theirs.ok), (Ok(()), height < 63), "a tree of 2^{height} leaves");
        let beyond = Inclusion { size: question.size + 1, ..question };
        assert!(beyond.asked().1.is_err() && !judge.ask(&beyond.asked().0).ok);
    }
}

/// Leaf 0 of a full tree of that height: the proof is any `height` hashes, and they make the root.
fn leftmost(height: u32) -> Inclusion {
    let proof = leaves(4, u64::from(height));
    let leaf = leaf_hash(b"first");
    let root = proof.iter().fold(leaf, |left, right| node_hash(&left, right));
    Inclusion { leaf, index: 0, size: 1 << height, proof, root }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn random_trees(seed: u64, sizes in (1_u64..3_000, 1_u64..3_000), place in 0_u64..3_000) {
        let (old, new) = (sizes.0.min(sizes.1), sizes.0.max(sizes.1));
        let (mut judge, tree) = (Judge::start(), leaves(seed, new));
        let inclusion = Inclusion::of(&tree, place % new, new);
        let consistency = Consistency::of(&tree, old, new);
        let mut asked = vec![inclusion.asked(), consistency.asked()];
        prop_assert!(asked.iter().all(|(_, ours)| ours.is_ok()));
        asked.extend(inclusion.damaged().iter().map(Inclusion::asked));
        asked.extend(consistency.damaged().iter().map(Consistency::asked));
        judge.agrees(&asked);
    }

    #[test]
    fn a_line_is_a_leaf(line in proptest::collection::vec(any::<u8>(), 1..200)) {
        use base64::Engine as _;
        let record = base64::engine::general_purpose::STANDARD.encode(&line);
        prop_assert_eq!(Judge::start().ask(&json!({"kind": "leaf", "record": record})).root, leaf_hash(&line).to_string());
    }
}

#[test]
fn the_command_says_what_the_process_says() {
    let tree = leaves(5, 20);
    let Consistency { old, old_root, new, new_root, proof } = Consistency::of(&tree, 7, 20);
    let hashes: Vec<String> = proof.iter().map(Hash::to_string).collect();
    let code = |old: String, hashes: &[String]| {
        let new = format!("{new}:{new_root}");
        let arguments: Vec<&str> =
            ["consistency", "-old", &old, "-new", &new].into_iter().chain(hashes.iter().map(String::as_str)).collect();
        run("judges", &arguments).status.code()
    };
    assert_eq!(code(format!("{old}:{old_root}"), &hashes), Some(0));
    assert_eq!(code(format!("{}:{old_root}", old + 1), &hashes), Some(1));
    assert_eq!(code(format!("{old}:{old_root}"), &hashes[1..]), Some(1));
    assert_eq!(code(old.to_string(), &hashes), Some(2), "a question that is none is no refusal");
}
