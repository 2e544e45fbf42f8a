//! Throw-away tokens of Kryoptic, which `tests/install.sh` builds: one database file for each, made by `C_InitToken` and `C_InitPIN`.

use std::fs::OpenOptions;
use std::io::Write as _;

use claviger_audit::Algorithm;
use cryptoki::session::UserType;

use super::tokens::{Module, OFFICER_PIN, PIN, Tokens, first_of};

/// The module.
pub(crate) static MODULE: Module = Module {
    library: || first_of(&["target/test-tools/lib/libkryoptic_pkcs11.so"]),
    environment: |tokens| vec![("KRYOPTIC_CONF", tokens.configuration())],
    configuration: |_| String::new(),
    server: |_| None,
    make,
    // The OpenSSL of Debian 12 is too old for its Ed25519.
    lacks: &[Algorithm::EdDSA, Algorithm::Ed25519],
};

/// Runs `body` in a child process that sees a fresh, empty token folder. `test` is the full name of the calling test.
pub(crate) fn in_child(test: &str, body: impl FnOnce(&Tokens)) {
    Tokens::in_child(&MODULE, test, body);
}

/// Adds a slot to the configuration, and initialises the token in it.
fn make(tokens: &Tokens, label: &str) {
    let configuration = OpenOptions::new().append(true).open(tokens.configuration());
    let slots = std::fs::read_to_string(tokens.configuration()).expect("the configuration").matches("[[slots]]").count();
    let database = tokens.folder().join(format!("{label}.sql"));
    let text = format!("[[slots]]\nslot = {slots}\ndbtype = \"sqlite\"\ndbargs = \"{}\"\n", database.display());
    configuration.expect("the configuration").write_all(text.as_bytes()).expect("written");

    let module = tokens.loaded();
    let number = u64::try_from(slots).expect("a small number");
    let slot = module.get_all_slots().expect("slots").into_iter().find(|slot| slot.id() == number).expect("the new slot");
    module.init_token(slot, &OFFICER_PIN.into(), label).expect("C_InitToken");
    let session = module.open_rw_session(slot).expect("a session");
    session.login(UserType::So, Some(&OFFICER_PIN.into())).expect("the officer's login");
    session.init_pin(&PIN.into()).expect("C_InitPIN");
    session.close().expect("closed");
    module.finalize().expect("the configuration is read again by whoever comes next");
}
