//! Our notes, checkpoints and proofs before judges who share no line with us: Go's checksum database (`tests/judges`) and Tessera's fsck.
//!
//! In scope: verdict for verdict, what they accept we accept and what they refuse we refuse; where C2SP, they and we differ is a list that is
//! asserted. Out of scope: building the judges (`tests/install.sh`); without them these tests fail, they are never passed over.

#![expect(clippy::unwrap_used, reason = "the helpers of tests are tests too: what fails here fails the test that asked")]

mod checkpoints;
mod fsck;
mod notes;
mod process;
mod proof_files;
mod proofs;
mod signers;
mod witness;

use std::path::{Path, PathBuf};

use claviger_audit::merkle::{Frontier, Hash, leaf_hash};
use claviger_audit::trust::Policy;

/// The folder of the golden logs, and of what a verifier of them brings along.
fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/valid")
}

/// The folder of the golden key log.
fn golden_keys() -> PathBuf {
    golden().join("log/keys")
}

/// The trust file of the golden logs.
fn golden_trust() -> Policy {
    Policy::parse(&std::fs::read(golden().join("trust")).unwrap()).unwrap()
}

/// The lines of the golden key log, without their LF.
fn golden_lines() -> Vec<Vec<u8>> {
    let bytes = std::fs::read(golden_keys().join("00000000000000000000.jsonl")).unwrap();
    bytes.strip_suffix(b"\n").unwrap().split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect()
}

/// Leaves of a tree that `seed` names.
fn leaves(seed: u64, count: u64) -> Vec<Hash> {
    (0..count).map(|n| leaf_hash(format!("leaf {n} of tree {seed}").as_bytes())).collect()
}

fn root(leaves: &[Hash]) -> Hash {
    let mut frontier = Frontier::new();
    frontier.extend(leaves.iter().copied());
    frontier.root()
}
