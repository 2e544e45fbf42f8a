//! Proofs as files: inclusion (C2SP tlog-proof), consistency and fork.
//!
//! Out of scope: whether the hashes in them prove anything (`proof`), and the signatures (`note`).

use claviger_audit::proof::{ConsistencyProof, ForkProof, InclusionProof};

/// A file has one reading, and a proof one file: whoever archives a proof and whoever writes it again hold the same bytes.
///
/// Only the signature lines of a note may stand in more than one order, and what is read keeps the order they had.
pub fn check(data: &[u8]) {
    let inclusion = InclusionProof::parse(data).map(|proof| proof.to_string());
    let consistency = ConsistencyProof::parse(data).map(|proof| proof.to_string());
    let fork = ForkProof::parse(data).map(|proof| proof.to_string());
    let readings: Vec<String> = [inclusion, consistency, fork].into_iter().flatten().collect();
    assert!(readings.len() < 2, "a file that is two kinds of proof");
    assert!(readings.iter().all(|written| written.as_bytes() == data), "a proof that is another file when written again");
}
