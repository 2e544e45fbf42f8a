//! What the integration tests share.

// Each test binary is compiled with its own copy, and uses its own part of it.
#![allow(dead_code)]

pub(crate) mod contract;
pub(crate) mod faults;
#[cfg(feature = "aws-kms")]
pub(crate) mod kms;
pub(crate) mod kryoptic;
pub(crate) mod proxy;
pub(crate) mod raw;
pub(crate) mod remote;
pub(crate) mod softhsm;
pub(crate) mod tokens;
pub(crate) mod vault;
#[path = "../harness/wait.rs"]
pub(crate) mod wait;
