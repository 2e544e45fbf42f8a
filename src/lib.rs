//! Claviger keeps signing keys in a keystore, signs for callers whom a policy permits, rotates keys with overlap, and proves every use.
//!
//! In scope: the daemon and its command line. Out of scope: the log's format, the key states and the verifier, which are
//! [`claviger_audit`]'s, so that a stranger can check the log without any of this.
//!
//! # The map, in reading order
//!
//! Pure rooms, without I/O, async, clock, randomness or tracing: [`rotation`], [`policy`], [`jose`]. Ports, a contract in prose and its
//! adapters: [`keystore`], [`journal`]. The shell, each story told in one place: [`signer`], [`rotator`], [`publisher`], [`operator`],
//! [`upkeep`], [`witness`], [`logbook`], [`health`], [`complaints`], [`recoveries`], [`drift`], [`clock_watch`], [`lateness`], [`readiness`], [`inspect`], [`daemon`]. The edge:
//! [`http`], [`cli`]. What comes from outside: [`config`], [`secret`], [`clock`].
//!
//! # Rules between the rooms
//!
//! Pure rooms import no port and no shell. [`http`] imports neither keystores nor logs; it calls the shell. [`cli`] reaches keystores
//! through [`inspect`] and [`daemon`] alone. Only [`clock`] reads time, only [`journal`] writes a log, and nothing is released before its
//! record is durable. `tests/tidy` holds these rules.

pub mod absences;
pub mod calls;
pub mod cli;
pub mod clock;
pub mod clock_watch;
pub mod complaints;
pub mod config;
pub mod daemon;
pub mod drift;
pub mod health;
pub mod http;
pub mod inspect;
pub mod jose;
pub mod journal;
pub mod keystore;
pub mod lateness;
pub mod logbook;
pub mod metrics;
pub mod operator;
pub mod orphans;
pub mod policy;
pub mod publisher;
pub mod readiness;
pub mod recoveries;
pub mod refusal;
pub mod rotation;
pub mod rotator;
pub mod secret;
pub mod signer;
pub mod upkeep;
pub mod views;
pub mod witness;
