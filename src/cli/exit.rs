//! Exit codes, from `sysexits.h`, so that scripts can tell refusals apart.
//!
//! In scope: the codes of the `claviger` command. `claviger audit` has the verifier's own (see `audit/README.md`). Out of scope: texts.

/// All went well.
pub const OK: u8 = 0;
/// The command ran and found something wrong.
pub const FOUND: u8 = 1;
/// Arguments that do not go together, or nobody to answer a question (`EX_USAGE`). What cannot be parsed at all ends with clap's 2.
pub const USAGE: u8 = 64;
/// Input data was not accepted (`EX_DATAERR`).
pub const DATA: u8 = 65;
/// A named thing does not exist (`EX_NOINPUT`).
pub const NOT_FOUND: u8 = 66;
/// A daemon or keystore cannot be reached or used now (`EX_UNAVAILABLE`).
pub const UNAVAILABLE: u8 = 69;
/// A file could not be made (`EX_CANTCREAT`).
pub const CANNOT_CREATE: u8 = 73;
/// Reading or writing failed; never a verdict (`EX_IOERR`).
pub const IO: u8 = 74;
/// Not now: the same call will be allowed later (`EX_TEMPFAIL`).
pub const LATER: u8 = 75;
/// Not permitted (`EX_NOPERM`).
pub const DENIED: u8 = 77;
/// The configuration cannot be used (`EX_CONFIG`).
pub const CONFIG: u8 = 78;
