//! Claviger keeps signing keys in a keystore, signs for callers whom a policy permits, rotates keys with overlap, and proves every use.

pub mod clock;
pub mod keystore;
