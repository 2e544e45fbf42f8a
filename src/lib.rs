//! Claviger keeps signing keys in a keystore, signs for callers whom a policy permits, rotates keys with overlap, and proves every use.

pub mod clock;
pub mod config;
pub mod jose;
pub mod journal;
pub mod keystore;
pub mod policy;
pub mod refusal;
pub mod rotation;
pub mod secret;
