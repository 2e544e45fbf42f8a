//! What the integration tests share.

pub(crate) mod contract;
pub(crate) mod softhsm;
