//! A PKCS#11 module that forwards every call to another module, and misbehaves on command.
//!
//! In scope: the 68 functions of PKCS#11 v2.40, the faults that the README lists, and the control socket that asks for them. Out of scope:
//! keys, cryptography and storage (the target module has them), and the interfaces of v3.0 (`C_GetInterface` is not exported, so that clients
//! use v2.40). For tests only: whoever can open the control socket can have every call answered wrongly.
//!
//! In reading order: `calls` (the function list), `pass` (the way of each call), `desk` (what is known, under one lock) with `rules`,
//! `sessions`, `handles` and `pins`, `target` (the real module), `command` and `perform` (what can be asked), `control` (the socket), `names`.

use std::io::Write as _;
use std::sync::OnceLock;

use cryptoki_sys::{CK_FUNCTION_LIST, CK_RV, CKR_ARGUMENTS_BAD, CKR_GENERAL_ERROR, CKR_OK};

use crate::pass::Module;

mod calls;
mod command;
mod control;
mod desk;
mod handles;
mod names;
mod pass;
mod perform;
mod pins;
mod rules;
mod sessions;
mod target;

/// The library of the module that calls are forwarded to.
const TARGET: &str = "PKCS11_FAULT_TARGET";
/// Where the control socket is made.
const SOCKET: &str = "PKCS11_FAULT_SOCKET";

/// A loaded library has one state, whoever uses it: the calls of PKCS#11 carry no other.
static MODULE: OnceLock<Option<Module>> = OnceLock::new();

/// Gives the function list (PKCS#11 v2.40 section 5.4). The first call loads the target and opens the control socket; if that fails, the
/// reason goes to standard error, and this call and all later ones answer `CKR_GENERAL_ERROR`.
///
/// # Safety
///
/// `list` is null, or points to a place for one pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_GetFunctionList(list: *mut *mut CK_FUNCTION_LIST) -> CK_RV {
    if list.is_null() {
        return CKR_ARGUMENTS_BAD;
    }
    if module().is_none() {
        return CKR_GENERAL_ERROR;
    }
    // SAFETY: not null, so it is the caller's place for one pointer. The list is never written to, by the interface's own rules.
    unsafe { *list = std::ptr::from_ref(&calls::LIST).cast_mut() };
    CKR_OK
}

/// The module, if it could be set up.
fn module() -> Option<&'static Module> {
    let set_up = || {
        set_up().map_err(|reason| {
            let _ = writeln!(std::io::stderr(), "pkcs11-fault-module: {reason}");
        })
    };
    MODULE.get_or_init(|| set_up().ok()).as_ref()
}

fn set_up() -> Result<Module, String> {
    let target = target::Target::load(variable(TARGET, "the path of the module to forward to")?.as_ref())?;
    let socket = variable(SOCKET, "the path at which the control socket is to be made")?;
    let listener = control::listen(socket.as_ref()).map_err(|error| format!("{}: {error}", socket.display()))?;
    control::serve(listener).map_err(|error| format!("no thread for the control socket: {error}"))?;
    Ok(Module::new(target))
}

#[expect(clippy::disallowed_methods, reason = "a module takes no other arguments than the environment")]
fn variable(name: &str, what: &str) -> Result<std::ffi::OsString, String> {
    std::env::var_os(name).filter(|value| !value.is_empty()).ok_or_else(|| format!("{name} is not set: it must be {what}"))
}
