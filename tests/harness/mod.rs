//! The black-box harness: the real daemon, as its own process, on real keystores, asked over its sockets.
//!
//! A test runs within [`on_softhsm`] (or its like: SoftHSM is the keystore of a [`Setup`] that names no other), makes a [`Place`] from it, starts daemons in it, and ends with [`Place::check`], which
//! verifies both logs and every served set, looks for secrets, and leaves nothing running. In scope: what any black-box test needs. Out of
//! scope: what a single test claims.

// Each test binary is compiled with its own copy, and uses its own part of it.
#![allow(dead_code)]

pub(crate) mod check;
pub(crate) mod client;
pub(crate) mod daemon;
#[path = "../support/faults.rs"]
pub(crate) mod faults;
#[path = "../support/kryoptic.rs"]
pub(crate) mod kryoptic;
pub(crate) mod place;
#[path = "../support/raw.rs"]
pub(crate) mod raw;
pub(crate) mod receipts;
#[path = "../support/remote.rs"]
pub(crate) mod remote;
pub(crate) mod setup;
#[path = "../support/softhsm.rs"]
pub(crate) mod softhsm;
#[path = "../support/tokens.rs"]
pub(crate) mod tokens;
pub(crate) mod verifiers;
pub(crate) mod wait;
pub(crate) mod witness;

#[allow(unused_imports, reason = "each test binary uses its own part")]
pub(crate) use client::{Address, Answer, Client};
#[allow(unused_imports, reason = "each test binary uses its own part")]
pub(crate) use daemon::Daemon;
#[allow(unused_imports, reason = "each test binary uses its own part")]
pub(crate) use place::Place;
#[allow(unused_imports, reason = "each test binary uses its own part")]
pub(crate) use setup::{Keyring, Setup};
#[allow(unused_imports, reason = "each test binary uses its own part")]
pub(crate) use softhsm::{SoftHsm, in_child as on_softhsm};
#[allow(unused_imports, reason = "each test binary uses its own part")]
pub(crate) use wait::{RaisedAtEnd, rest, until};
