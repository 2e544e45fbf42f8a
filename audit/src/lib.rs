//! The audit log of Claviger: what its bytes mean, and how a stranger checks them.

pub mod algorithm;
pub mod jwk;
pub mod names;
pub mod time;

pub use algorithm::Algorithm;
pub use time::Timestamp;
