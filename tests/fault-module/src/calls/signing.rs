//! Signing: with the key that was asked for, or on command with another one.
//!
//! In scope: `C_SignInit`, `C_Sign`, `C_SignFinal`. Out of scope: which other key (`target.rs`).
//!
//! A signature comes in two calls where the client asks for its length first. That first call has no output; it is counted apart, and no rule
//! is about it, so that a rule for `C_Sign` means signatures.

use cryptoki_sys::{CK_BYTE, CK_MECHANISM, CK_OBJECT_HANDLE, CK_RV, CK_SESSION_HANDLE, CK_ULONG, CKR_OK};

use super::target;
use crate::desk::Touch;
use crate::pass::{Call, Hold, ask_length, pass};
use crate::rules::Effect;

pub(super) unsafe extern "C" fn C_SignInit(session: CK_SESSION_HANDLE, mechanism: *mut CK_MECHANISM, key: CK_OBJECT_HANDLE) -> CK_RV {
    pass("C_SignInit", Touch::Session(session), Hold::Shared, |call| {
        let key = call.real(key);
        let (key, spoilt) = match wrong_key(call, key) {
            Wrong::Not => (key, false),
            Wrong::Other(other) => (other, false),
            Wrong::Spoilt => (key, true),
        };
        let code = target!(call, C_SignInit(session, mechanism, key));
        if code == CKR_OK {
            call.module.desk().spoil(session, spoilt);
        }
        code
    })
}

/// How a signature is to be wrong.
enum Wrong {
    /// It is to be right.
    Not,
    /// Made with this key.
    Other(CK_OBJECT_HANDLE),
    /// Made with the right key, for want of another, and then changed.
    Spoilt,
}

fn wrong_key(call: &Call<'_>, key: CK_OBJECT_HANDLE) -> Wrong {
    let slot = {
        let mut desk = call.module.desk();
        let slot = desk.slot(call.touch);
        if !desk.acts(slot, |effect| *effect == Effect::WrongKey) {
            return Wrong::Not;
        }
        slot
    };
    slot.and_then(|slot| call.module.target().other_key(slot, key)).map_or(Wrong::Spoilt, Wrong::Other)
}

pub(super) unsafe extern "C" fn C_Sign(
    session: CK_SESSION_HANDLE,
    data: *mut CK_BYTE,
    length: CK_ULONG,
    signature: *mut CK_BYTE,
    width: *mut CK_ULONG,
) -> CK_RV {
    let forward = |call: &Call<'_>| {
        let code = target!(call, C_Sign(session, data, length, signature, width));
        // SAFETY: the places are the client's own, as the target had them.
        unsafe { spoil(call, session, code, signature, width) };
        code
    };
    if signature.is_null() {
        return ask_length("C_Sign", Touch::Session(session), forward);
    }
    pass("C_Sign", Touch::Session(session), Hold::Shared, forward)
}

pub(super) unsafe extern "C" fn C_SignFinal(session: CK_SESSION_HANDLE, signature: *mut CK_BYTE, width: *mut CK_ULONG) -> CK_RV {
    let forward = |call: &Call<'_>| {
        let code = target!(call, C_SignFinal(session, signature, width));
        // SAFETY: the places are the client's own, as the target had them.
        unsafe { spoil(call, session, code, signature, width) };
        code
    };
    if signature.is_null() {
        return ask_length("C_SignFinal", Touch::Session(session), forward);
    }
    pass("C_SignFinal", Touch::Session(session), Hold::Shared, forward)
}

/// Changes one bit of a signature, if it is to be wrong.
///
/// # Safety
///
/// If `code` is `CKR_OK` and neither is null, `width` points to the length of the signature at `signature`.
unsafe fn spoil(call: &Call<'_>, session: CK_SESSION_HANDLE, code: CK_RV, signature: *mut CK_BYTE, width: *mut CK_ULONG) {
    if code != CKR_OK || signature.is_null() || width.is_null() || !call.module.desk().is_spoilt(session) {
        return;
    }
    // SAFETY: the caller says so.
    let width = usize::try_from(unsafe { *width }).unwrap_or(0);
    if let Some(last) = width.checked_sub(1) {
        // SAFETY: the last of the bytes that the target has just written.
        unsafe { *signature.add(last) ^= 1 };
    }
}
