//! Keeps the module in memory once it is loaded: its control thread runs on when a client unloads it.

use std::env;

#[expect(clippy::disallowed_methods, reason = "cargo hands the target to a build script in the environment")]
fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // ELF linkers alone know the flag. Elsewhere a client must not unload the module.
    if env::var("CARGO_CFG_TARGET_OS").is_ok_and(|system| ["linux", "freebsd"].contains(&system.as_str())) {
        println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
    }
}
