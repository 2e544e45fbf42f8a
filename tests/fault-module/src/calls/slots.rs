//! The module, its slots and tokens, sessions and logins.
//!
//! In scope: tokens that are away, the cap on sessions, the counter of PIN tries, and knowing which session belongs to which slot. Out of
//! scope: closing sessions behind the client's back (`perform.rs`).

use std::ffi::c_void;

use cryptoki_sys::{
    CK_BBOOL, CK_FALSE, CK_FLAGS, CK_NOTIFY, CK_RV, CK_SESSION_HANDLE, CK_SLOT_ID, CK_SLOT_INFO, CK_TOKEN_INFO, CK_ULONG, CK_USER_TYPE,
    CK_UTF8CHAR, CKF_TOKEN_PRESENT, CKF_USER_PIN_COUNT_LOW, CKF_USER_PIN_FINAL_TRY, CKF_USER_PIN_LOCKED, CKR_BUFFER_TOO_SMALL, CKR_OK,
    CKR_PIN_LOCKED, CKR_SESSION_COUNT, CKU_USER,
};

use super::target;
use crate::desk::Touch;
use crate::pass::{Hold, pass};

pub(super) unsafe extern "C" fn C_Initialize(arguments: *mut c_void) -> CK_RV {
    pass("C_Initialize", Touch::Module, Hold::Alone, |call| target!(call, C_Initialize(arguments)))
}

pub(super) unsafe extern "C" fn C_Finalize(reserved: *mut c_void) -> CK_RV {
    pass("C_Finalize", Touch::Module, Hold::Alone, |call| {
        let code = target!(call, C_Finalize(reserved));
        if code == CKR_OK {
            call.module.desk().finalized();
        }
        code
    })
}

/// Holds no lock: it may wait for ever.
pub(super) unsafe extern "C" fn C_WaitForSlotEvent(flags: CK_FLAGS, slot: *mut CK_SLOT_ID, reserved: *mut c_void) -> CK_RV {
    pass("C_WaitForSlotEvent", Touch::Module, Hold::Nothing, |call| target!(call, C_WaitForSlotEvent(flags, slot, reserved)))
}

pub(super) unsafe extern "C" fn C_GetSlotList(with_token: CK_BBOOL, list: *mut CK_SLOT_ID, count: *mut CK_ULONG) -> CK_RV {
    pass("C_GetSlotList", Touch::Module, Hold::Shared, |call| {
        if with_token == CK_FALSE || count.is_null() || !call.module.desk().sessions.any_is_away() {
            return target!(call, C_GetSlotList(with_token, list, count));
        }
        let present = {
            let slots = call.module.target().slots();
            let desk = call.module.desk();
            slots.into_iter().filter(|slot| !desk.sessions.is_away(*slot)).collect::<Vec<_>>()
        };
        // SAFETY: not null, so it is the client's place for one number: how many its list has room for.
        let room = unsafe { count.replace(CK_ULONG::try_from(present.len()).unwrap_or(CK_ULONG::MAX)) };
        if list.is_null() {
            return CKR_OK;
        }
        if usize::try_from(room).unwrap_or(usize::MAX) < present.len() {
            return CKR_BUFFER_TOO_SMALL;
        }
        // SAFETY: the client's list has room for `room` numbers, and these are no more.
        unsafe { std::ptr::copy_nonoverlapping(present.as_ptr(), list, present.len()) };
        CKR_OK
    })
}

pub(super) unsafe extern "C" fn C_GetSlotInfo(slot: CK_SLOT_ID, info: *mut CK_SLOT_INFO) -> CK_RV {
    // The slot of a token that is away is still there.
    pass("C_GetSlotInfo", Touch::Module, Hold::Shared, |call| {
        let code = target!(call, C_GetSlotInfo(slot, info));
        if code == CKR_OK && call.module.desk().sessions.is_away(slot) {
            // SAFETY: after CKR_OK it is the client's place for this structure, filled by the target.
            unsafe { (*info).flags &= !CKF_TOKEN_PRESENT };
        }
        code
    })
}

pub(super) unsafe extern "C" fn C_GetTokenInfo(slot: CK_SLOT_ID, info: *mut CK_TOKEN_INFO) -> CK_RV {
    pass("C_GetTokenInfo", Touch::Slot(slot), Hold::Shared, |call| {
        let code = target!(call, C_GetTokenInfo(slot, info));
        if code == CKR_OK {
            // SAFETY: after CKR_OK it is the client's place for this structure, filled by the target. It may be packed, so fields are copied.
            let mut told = unsafe { info.read_unaligned() };
            amend(call.module, slot, &mut told);
            // SAFETY: as above.
            unsafe { info.write_unaligned(told) };
        }
        code
    })
}

fn amend(module: &crate::pass::Module, slot: CK_SLOT_ID, told: &mut CK_TOKEN_INFO) {
    let desk = module.desk();
    if let Some(flags) = desk.pins.flags(slot) {
        told.flags = told.flags & !(CKF_USER_PIN_COUNT_LOW | CKF_USER_PIN_FINAL_TRY | CKF_USER_PIN_LOCKED) | flags;
    }
    if let Some(cap) = desk.sessions.cap().filter(|cap| cap.shown) {
        told.ulMaxSessionCount = cap.most;
        told.ulMaxRwSessionCount = cap.most;
        told.ulSessionCount = desk.sessions.count(slot);
    }
}

pub(super) unsafe extern "C" fn C_OpenSession(
    slot: CK_SLOT_ID,
    flags: CK_FLAGS,
    application: *mut c_void,
    notify: CK_NOTIFY,
    session: *mut CK_SESSION_HANDLE,
) -> CK_RV {
    pass("C_OpenSession", Touch::Slot(slot), Hold::Shared, |call| {
        if call.module.desk().sessions.is_full(slot) {
            return CKR_SESSION_COUNT;
        }
        let code = target!(call, C_OpenSession(slot, flags, application, notify, session));
        if code == CKR_OK {
            // SAFETY: after CKR_OK the target has written the handle there.
            let session = unsafe { *session };
            call.module.desk().sessions.opened(session, slot);
        }
        code
    })
}

pub(super) unsafe extern "C" fn C_CloseSession(session: CK_SESSION_HANDLE) -> CK_RV {
    pass("C_CloseSession", Touch::Session(session), Hold::Shared, |call| {
        let code = target!(call, C_CloseSession(session));
        if code == CKR_OK {
            call.module.desk().sessions.closed(session);
        }
        code
    })
}

pub(super) unsafe extern "C" fn C_CloseAllSessions(slot: CK_SLOT_ID) -> CK_RV {
    pass("C_CloseAllSessions", Touch::Slot(slot), Hold::Shared, |call| {
        let code = target!(call, C_CloseAllSessions(slot));
        if code == CKR_OK {
            call.module.desk().sessions.closed_all(slot);
        }
        code
    })
}

pub(super) unsafe extern "C" fn C_Login(session: CK_SESSION_HANDLE, user: CK_USER_TYPE, pin: *mut CK_UTF8CHAR, length: CK_ULONG) -> CK_RV {
    let touch = Touch::Session(session);
    let mut judged = None;
    let code = pass("C_Login", touch, Hold::Shared, |call| {
        let locked = user == CKU_USER && call.slot().is_some_and(|slot| call.module.desk().pins.is_locked(slot));
        let code = if locked { CKR_PIN_LOCKED } else { target!(call, C_Login(session, user, pin, length)) };
        judged = Some(code);
        code
    });
    if let (CKU_USER, Some(module)) = (user, crate::module()) {
        let mut desk = module.desk();
        let slot = desk.slot(touch);
        let pin = usize::try_from(length).ok().filter(|_| !pin.is_null()).map(|length| {
            // SAFETY: not null, so the client says that it points to a PIN of this length. It is hashed, and not kept.
            desk.pins.hash(unsafe { std::slice::from_raw_parts(pin, length) })
        });
        desk.pins.record(slot, pin, code, judged);
    }
    code
}
