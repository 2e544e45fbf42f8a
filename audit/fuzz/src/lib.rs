//! What must hold for any bytes that the auditor is given: one function per kind of input, which panics where it does not hold.
//!
//! In scope: records, notes, verifier keys, checkpoints, trust files, proofs and the files they travel in, whole logs, and what keystores wrote
//! down. Out of scope: making the bytes. A fuzzer does that (`fuzz_targets`), and the test `seeds` of claviger-audit, which calls the same
//! functions with what lies in `seeds`.
//!
//! A new text format gets a file here, a line in [`TARGETS`], a target, and its seeds.

pub mod backend;
pub mod log;
pub mod note;
pub mod policy;
pub mod proof;
pub mod proof_file;
pub mod record;

/// Looks at one input; panics if something does not hold.
pub type Check = fn(&[u8]);

/// Every kind of input by the name of its target.
pub const TARGETS: [(&str, Check); 10] = [
    ("record", record::check),
    ("note", note::check),
    ("key", note::check_key),
    ("checkpoint", note::check_checkpoint),
    ("policy", policy::check),
    ("proof", proof::check),
    ("proof_file", proof_file::check),
    ("log", log::check),
    ("cloudtrail", backend::check_cloudtrail),
    ("vault", backend::check_vault),
];
