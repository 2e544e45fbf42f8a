//! Objects: the numbers that are given out for them, what they show, and whether searches find them.
//!
//! In scope: functions that create or find objects, and `C_GetAttributeValue`. Out of scope: functions that only take the number of an object
//! (`calls/mod.rs`).

use cryptoki_sys::{
    CK_ATTRIBUTE, CK_BYTE, CK_MECHANISM, CK_OBJECT_HANDLE, CK_RV, CK_SESSION_HANDLE, CK_ULONG, CK_UNAVAILABLE_INFORMATION, CKA_CLASS,
    CKA_ID, CKA_LABEL, CKR_ATTRIBUTE_SENSITIVE, CKR_ATTRIBUTE_TYPE_INVALID, CKR_BUFFER_TOO_SMALL, CKR_OK,
};

use super::target;
use crate::desk::Touch;
use crate::pass::{Call, Hold, pass};
use crate::rules::{Effect, Objects};

pub(super) unsafe extern "C" fn C_CreateObject(
    session: CK_SESSION_HANDLE,
    template: *mut CK_ATTRIBUTE,
    count: CK_ULONG,
    object: *mut CK_OBJECT_HANDLE,
) -> CK_RV {
    pass("C_CreateObject", Touch::Session(session), Hold::Shared, |call| {
        let code = target!(call, C_CreateObject(session, template, count, object));
        // SAFETY: the client's place for a handle, as the target had it.
        unsafe { call.show_at(code, object) };
        code
    })
}

pub(super) unsafe extern "C" fn C_CopyObject(
    session: CK_SESSION_HANDLE,
    original: CK_OBJECT_HANDLE,
    template: *mut CK_ATTRIBUTE,
    count: CK_ULONG,
    copy: *mut CK_OBJECT_HANDLE,
) -> CK_RV {
    pass("C_CopyObject", Touch::Session(session), Hold::Shared, |call| {
        let code = target!(call, C_CopyObject(session, call.real(original), template, count, copy));
        // SAFETY: the client's place for a handle, as the target had it.
        unsafe { call.show_at(code, copy) };
        code
    })
}

pub(super) unsafe extern "C" fn C_GenerateKey(
    session: CK_SESSION_HANDLE,
    mechanism: *mut CK_MECHANISM,
    template: *mut CK_ATTRIBUTE,
    count: CK_ULONG,
    key: *mut CK_OBJECT_HANDLE,
) -> CK_RV {
    pass("C_GenerateKey", Touch::Session(session), Hold::Shared, |call| {
        let code = target!(call, C_GenerateKey(session, mechanism, template, count, key));
        // SAFETY: the client's place for a handle, as the target had it.
        unsafe { call.show_at(code, key) };
        code
    })
}

pub(super) unsafe extern "C" fn C_GenerateKeyPair(
    session: CK_SESSION_HANDLE,
    mechanism: *mut CK_MECHANISM,
    public: *mut CK_ATTRIBUTE,
    public_count: CK_ULONG,
    private: *mut CK_ATTRIBUTE,
    private_count: CK_ULONG,
    public_key: *mut CK_OBJECT_HANDLE,
    private_key: *mut CK_OBJECT_HANDLE,
) -> CK_RV {
    pass("C_GenerateKeyPair", Touch::Session(session), Hold::Shared, |call| {
        let code =
            target!(call, C_GenerateKeyPair(session, mechanism, public, public_count, private, private_count, public_key, private_key));
        // SAFETY: the client's places for handles, as the target had them.
        unsafe { call.show_at(code, public_key) };
        // SAFETY: as above.
        unsafe { call.show_at(code, private_key) };
        code
    })
}

pub(super) unsafe extern "C" fn C_UnwrapKey(
    session: CK_SESSION_HANDLE,
    mechanism: *mut CK_MECHANISM,
    unwrapping: CK_OBJECT_HANDLE,
    wrapped: *mut CK_BYTE,
    length: CK_ULONG,
    template: *mut CK_ATTRIBUTE,
    count: CK_ULONG,
    key: *mut CK_OBJECT_HANDLE,
) -> CK_RV {
    pass("C_UnwrapKey", Touch::Session(session), Hold::Shared, |call| {
        let code = target!(call, C_UnwrapKey(session, mechanism, call.real(unwrapping), wrapped, length, template, count, key));
        // SAFETY: the client's place for a handle, as the target had it.
        unsafe { call.show_at(code, key) };
        code
    })
}

pub(super) unsafe extern "C" fn C_DeriveKey(
    session: CK_SESSION_HANDLE,
    mechanism: *mut CK_MECHANISM,
    base: CK_OBJECT_HANDLE,
    template: *mut CK_ATTRIBUTE,
    count: CK_ULONG,
    key: *mut CK_OBJECT_HANDLE,
) -> CK_RV {
    pass("C_DeriveKey", Touch::Session(session), Hold::Shared, |call| {
        let code = target!(call, C_DeriveKey(session, mechanism, call.real(base), template, count, key));
        // SAFETY: the client's place for a handle, as the target had it.
        unsafe { call.show_at(code, key) };
        code
    })
}

pub(super) unsafe extern "C" fn C_DestroyObject(session: CK_SESSION_HANDLE, object: CK_OBJECT_HANDLE) -> CK_RV {
    pass("C_DestroyObject", Touch::Session(session), Hold::Shared, |call| {
        let code = target!(call, C_DestroyObject(session, call.real(object)));
        if let (CKR_OK, Some(slot)) = (code, call.slot()) {
            call.module.desk().handles.forget(slot, object);
        }
        code
    })
}

pub(super) unsafe extern "C" fn C_FindObjects(
    session: CK_SESSION_HANDLE,
    objects: *mut CK_OBJECT_HANDLE,
    most: CK_ULONG,
    count: *mut CK_ULONG,
) -> CK_RV {
    pass("C_FindObjects", Touch::Session(session), Hold::Shared, |call| {
        loop {
            let code = target!(call, C_FindObjects(session, objects, most, count));
            if code != CKR_OK || objects.is_null() || count.is_null() {
                return code;
            }
            // SAFETY: after CKR_OK the target has written how many handles it gave.
            let found = usize::try_from(unsafe { *count }).unwrap_or(0);
            // SAFETY: the target has just written so many handles there.
            let handles = unsafe { std::slice::from_raw_parts_mut(objects, found) };
            let seen = show_visible(call, session, handles);
            // Nothing found ends a search, so where all were hidden the search goes on.
            if seen > 0 || found == 0 {
                // SAFETY: as above.
                unsafe { *count = CK_ULONG::try_from(seen).unwrap_or(0) };
                return code;
            }
        }
    })
}

/// Moves the objects that may be seen to the front, under the client's numbers; says how many they are.
fn show_visible(call: &Call<'_>, session: CK_SESSION_HANDLE, handles: &mut [CK_OBJECT_HANDLE]) -> usize {
    let rules = call.module.desk().on_objects();
    let mut seen = 0;
    for place in 0..handles.len() {
        let object = handles[place];
        let hidden = rules.iter().any(|(rule, effect)| match effect {
            Effect::Hide(of) => fits(call, session, object, of) && acts(call, *rule),
            _ => false,
        });
        if !hidden {
            handles[seen] = call.show(object);
            seen += 1;
        }
    }
    seen
}

fn acts(call: &Call<'_>, rule: u64) -> bool {
    let mut desk = call.module.desk();
    let slot = desk.slot(call.touch);
    desk.fires(rule, slot)
}

/// Whether everything that is given of `of` is true of an object of the target.
fn fits(call: &Call<'_>, session: CK_SESSION_HANDLE, object: CK_OBJECT_HANDLE, of: &Objects) -> bool {
    let is = |kind, wanted: Option<&[u8]>| {
        wanted.is_none_or(|wanted| call.module.target().attribute(session, object, kind).is_some_and(|value| value == wanted))
    };
    let class = of.class.map(CK_ULONG::to_ne_bytes);
    is(CKA_ID, of.id.as_deref())
        && is(CKA_LABEL, of.label.as_deref())
        && is(CKA_CLASS, class.as_ref().map(<[u8; size_of::<CK_ULONG>()]>::as_slice))
}

pub(super) unsafe extern "C" fn C_GetAttributeValue(
    session: CK_SESSION_HANDLE,
    object: CK_OBJECT_HANDLE,
    template: *mut CK_ATTRIBUTE,
    count: CK_ULONG,
) -> CK_RV {
    pass("C_GetAttributeValue", Touch::Session(session), Hold::Shared, |call| {
        let object = call.real(object);
        let rules = call.module.desk().on_objects();
        let entries = if template.is_null() { 0 } else { usize::try_from(count).unwrap_or(0) };
        // SAFETY: the client says that there are so many; the structure is `Copy`, and may be packed.
        let before = (0..entries).map(|place| unsafe { template.add(place).read_unaligned() }).collect::<Vec<_>>();
        let mut code = target!(call, C_GetAttributeValue(session, object, template, count));
        for (rule, effect) in &rules {
            let Effect::Attribute { kind, value, of } = effect else { continue };
            let places = (0..entries).filter(|place| before[*place].type_ == *kind).collect::<Vec<_>>();
            if places.is_empty() || !fits(call, session, object, of) || !acts(call, *rule) {
                continue;
            }
            for place in places {
                // SAFETY: an entry of the client's template, with the room that it had before the call.
                unsafe { write(template.add(place), &before[place], value.as_deref()) };
            }
            // SAFETY: as above.
            code = outcome(code, (0..entries).map(|place| unsafe { template.add(place).read_unaligned() }));
        }
        code
    })
}

/// Has one entry of a template show this value, or that there is none.
///
/// # Safety
///
/// `entry` points to an entry whose value, if not null, has the room that `before` says.
unsafe fn write(entry: *mut CK_ATTRIBUTE, before: &CK_ATTRIBUTE, value: Option<&[u8]>) {
    let mut told = *before;
    told.ulValueLen = match value {
        Some(value) if before.pValue.is_null() => CK_ULONG::try_from(value.len()).unwrap_or(CK_UNAVAILABLE_INFORMATION),
        Some(value) if value.len() <= usize::try_from(before.ulValueLen).unwrap_or(0) => {
            // SAFETY: the value has at least this much room.
            unsafe { std::ptr::copy_nonoverlapping(value.as_ptr(), before.pValue.cast::<u8>(), value.len()) };
            CK_ULONG::try_from(value.len()).unwrap_or(CK_UNAVAILABLE_INFORMATION)
        }
        Some(_) | None => CK_UNAVAILABLE_INFORMATION,
    };
    // SAFETY: the caller says so.
    unsafe { entry.write_unaligned(told) };
}

/// The code that a template deserves after it was changed (PKCS#11 v2.40 section 5.7).
fn outcome(code: CK_RV, mut entries: impl Iterator<Item = CK_ATTRIBUTE>) -> CK_RV {
    let about_entries = [CKR_OK, CKR_ATTRIBUTE_SENSITIVE, CKR_ATTRIBUTE_TYPE_INVALID, CKR_BUFFER_TOO_SMALL];
    if !about_entries.contains(&code) {
        return code;
    }
    match code {
        _ if entries.all(|told| told.ulValueLen != CK_UNAVAILABLE_INFORMATION) => CKR_OK,
        CKR_OK => CKR_ATTRIBUTE_TYPE_INVALID,
        code => code,
    }
}
