//! What the integration tests share.

// Each test binary is compiled with its own copy, and uses its own part of it.
#![allow(dead_code)]

pub(crate) mod contract;
pub(crate) mod faults;
pub(crate) mod kryoptic;
pub(crate) mod raw;
pub(crate) mod remote;
pub(crate) mod softhsm;
pub(crate) mod tokens;
