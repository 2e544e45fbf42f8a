//! Nothing: this package exists for its `Cargo.toml` and `Cargo.lock`, which pin the soft token Kryoptic and all that it is built from.
//!
//! In scope: a second PKCS#11 module, loaded at run time by the tests of the keystore as any HSM's library is. Out of scope: everything that is
//! shipped. Kryoptic brings its own crates and the system's OpenSSL, so it is no member of the workspace and no dependency of it: it has no
//! part in `cargo deny`, and no licence of its (GPL-3.0 up to 1.5.2, Apache-2.0 since) reaches a program of ours.
