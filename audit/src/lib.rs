//! The audit log of Claviger: what its bytes mean, and how a stranger checks them.
//!
//! In scope: the records, the key states, the proofs, the JWKS body and the verifier. Out of scope: writing a log, signing, networks, clocks:
//! times come from records or arguments. The format is specified in this package's `README.md`.

pub mod algorithm;
pub mod backend;
pub mod checkpoint;
pub mod command;
pub mod event;
pub mod json;
pub mod jwk;
pub mod jwks;
pub mod keyrings;
pub mod line;
pub mod merkle;
pub mod names;
pub mod note;
pub mod proof;
pub mod record;
pub mod report;
pub mod tiles;
pub mod time;
pub mod timing;
pub mod trust;
pub mod verify;

pub use algorithm::Algorithm;
pub use time::Timestamp;
