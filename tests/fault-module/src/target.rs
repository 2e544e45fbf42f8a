//! The real module: loading it, and the few calls that faults need of their own.
//!
//! In scope: its function list, and reading objects past all rules. Out of scope: the client's calls (`calls`).

use std::collections::HashMap;
use std::ffi::c_void;
use std::path::Path;

use cryptoki_sys::{
    CK_ATTRIBUTE, CK_ATTRIBUTE_TYPE, CK_BBOOL, CK_FUNCTION_LIST, CK_OBJECT_HANDLE, CK_RV, CK_SESSION_HANDLE, CK_SLOT_ID, CK_TRUE, CK_ULONG,
    CK_UNAVAILABLE_INFORMATION, CKA_CLASS, CKA_EC_PARAMS, CKA_KEY_TYPE, CKA_MODULUS, CKA_SIGN, CKF_SERIAL_SESSION, CKO_PRIVATE_KEY,
    CKR_FUNCTION_NOT_SUPPORTED, CKR_OK,
};
use libloading::Library;

/// The longest attribute that is read here: the modulus of the longest RSA key is far shorter.
const LONGEST_ATTRIBUTE: usize = 4096;
/// The most keys among which another one is looked for.
const MOST_KEYS: usize = 256;

/// The real module, loaded for the life of the process.
pub(crate) struct Target {
    list: CK_FUNCTION_LIST,
    path: String,
}

impl Target {
    /// Loads it, and reads its function list of v2.40.
    pub(crate) fn load(path: &Path) -> Result<Self, String> {
        let wrong = |what: &dyn std::fmt::Display| format!("{}: {what}", path.display());
        // SAFETY: loading runs the library's own initialisers; whoever named it in the environment asked for that.
        let library = unsafe { Library::new(path) }.map_err(|error| wrong(&error))?;
        let mut list: *mut CK_FUNCTION_LIST = std::ptr::null_mut();
        let code = {
            // SAFETY: PKCS#11 v2.40 section 5.4 gives the function of this name this type.
            let function = unsafe { library.get::<unsafe extern "C" fn(*mut *mut CK_FUNCTION_LIST) -> CK_RV>(b"C_GetFunctionList\0") };
            let function = function.map_err(|error| wrong(&error))?;
            // SAFETY: `list` is a place for one pointer.
            unsafe { function(&raw mut list) }
        };
        if code != CKR_OK || list.is_null() {
            return Err(wrong(&format!("C_GetFunctionList answered {}", crate::names::code_name(code))));
        }
        // SAFETY: after CKR_OK it points to the module's function list, which lives as long as the library.
        let list = unsafe { *list };
        // Unloading it would leave the list's functions dangling.
        std::mem::forget(library);
        Ok(Self { list, path: path.display().to_string() })
    }

    /// Its functions.
    pub(crate) fn list(&self) -> &CK_FUNCTION_LIST {
        &self.list
    }

    /// The path that it was loaded from.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// Closes all sessions of a slot. Nobody else may be in a call.
    pub(crate) fn close_all(&self, slot: CK_SLOT_ID) -> CK_RV {
        // SAFETY: the function takes any number.
        self.list.C_CloseAllSessions.map_or(CKR_FUNCTION_NOT_SUPPORTED, |function| unsafe { function(slot) })
    }

    /// Logs out. Nobody else may be in a call.
    pub(crate) fn log_out(&self, session: CK_SESSION_HANDLE) -> CK_RV {
        // SAFETY: the function takes any number.
        self.list.C_Logout.map_or(CKR_FUNCTION_NOT_SUPPORTED, |function| unsafe { function(session) })
    }

    /// The slots that have a token.
    pub(crate) fn slots(&self) -> Vec<CK_SLOT_ID> {
        let Some(function) = self.list.C_GetSlotList else { return Vec::new() };
        let mut count: CK_ULONG = 0;
        // SAFETY: a null list asks for the count alone, which is a place for one number.
        let code = unsafe { function(CK_TRUE, std::ptr::null_mut(), &raw mut count) };
        let mut slots = vec![0; usize::try_from(count).unwrap_or(0)];
        if code != CKR_OK || slots.is_empty() {
            return Vec::new();
        }
        // SAFETY: the list has room for `count` numbers.
        let code = unsafe { function(CK_TRUE, slots.as_mut_ptr(), &raw mut count) };
        slots.truncate(if code == CKR_OK { usize::try_from(count).unwrap_or(0) } else { 0 });
        slots
    }

    /// One attribute of an object; `None` if it cannot be read.
    pub(crate) fn attribute(&self, session: CK_SESSION_HANDLE, object: CK_OBJECT_HANDLE, kind: CK_ATTRIBUTE_TYPE) -> Option<Vec<u8>> {
        let function = self.list.C_GetAttributeValue?;
        let mut value = vec![0_u8; LONGEST_ATTRIBUTE];
        let length = CK_ULONG::try_from(value.len()).ok()?;
        let mut attribute = CK_ATTRIBUTE { type_: kind, pValue: value.as_mut_ptr().cast::<c_void>(), ulValueLen: length };
        // SAFETY: one attribute whose value has room for `length` bytes.
        let code = unsafe { function(session, object, &raw mut attribute, 1) };
        if code != CKR_OK || attribute.ulValueLen == CK_UNAVAILABLE_INFORMATION {
            return None;
        }
        value.truncate(usize::try_from(attribute.ulValueLen).ok()?);
        Some(value)
    }

    /// What makes two keys interchangeable for a client: class, type, curve, and the length of an RSA modulus. `None` if the object is gone.
    pub(crate) fn kind(&self, session: CK_SESSION_HANDLE, object: CK_OBJECT_HANDLE) -> Option<Vec<u8>> {
        let mut kind = self.attribute(session, object, CKA_CLASS)?;
        kind.extend(self.attribute(session, object, CKA_KEY_TYPE).unwrap_or_default());
        kind.extend(self.attribute(session, object, CKA_EC_PARAMS).unwrap_or_default());
        kind.extend(self.attribute(session, object, CKA_MODULUS).map_or(0, |modulus| modulus.len()).to_be_bytes());
        Some(kind)
    }

    /// The kinds of these objects, without those that are gone.
    pub(crate) fn kinds(&self, session: CK_SESSION_HANDLE, objects: &[CK_OBJECT_HANDLE]) -> HashMap<CK_OBJECT_HANDLE, Vec<u8>> {
        objects.iter().filter_map(|object| Some((*object, self.kind(session, *object)?))).collect()
    }

    /// Another private key that can sign as this one can, if the token has one.
    pub(crate) fn other_key(&self, slot: CK_SLOT_ID, key: CK_OBJECT_HANDLE) -> Option<CK_OBJECT_HANDLE> {
        // A session of its own: the client's may be in the middle of a search.
        let mut session: CK_SESSION_HANDLE = 0;
        // SAFETY: no callback, and a place for one handle.
        let code = unsafe { self.list.C_OpenSession?(slot, CKF_SERIAL_SESSION, std::ptr::null_mut(), None, &raw mut session) };
        if code != CKR_OK {
            return None;
        }
        let kind = self.kind(session, key);
        let keys = self.signing_keys(session);
        let other = keys.into_iter().find(|other| *other != key && kind.is_some() && self.kind(session, *other) == kind);
        if let Some(close) = self.list.C_CloseSession {
            // SAFETY: the session was opened above.
            unsafe { close(session) };
        }
        other
    }

    fn signing_keys(&self, session: CK_SESSION_HANDLE) -> Vec<CK_OBJECT_HANDLE> {
        let (Some(begin), Some(find), Some(end)) = (self.list.C_FindObjectsInit, self.list.C_FindObjects, self.list.C_FindObjectsFinal)
        else {
            return Vec::new();
        };
        let (mut class, mut sign): (CK_ULONG, CK_BBOOL) = (CKO_PRIVATE_KEY, CK_TRUE);
        let mut template = [entry(CKA_CLASS, &mut class), entry(CKA_SIGN, &mut sign)];
        // SAFETY: two attributes, each with a value of the length that it names.
        if unsafe { begin(session, template.as_mut_ptr(), 2) } != CKR_OK {
            return Vec::new();
        }
        let mut keys = vec![0; MOST_KEYS];
        let mut count: CK_ULONG = 0;
        // SAFETY: room for `MOST_KEYS` handles.
        let code = unsafe { find(session, keys.as_mut_ptr(), CK_ULONG::try_from(MOST_KEYS).unwrap_or(1), &raw mut count) };
        // SAFETY: the search was begun above.
        unsafe { end(session) };
        keys.truncate(if code == CKR_OK { usize::try_from(count).unwrap_or(0) } else { 0 });
        keys
    }
}

fn entry<T>(kind: CK_ATTRIBUTE_TYPE, value: &mut T) -> CK_ATTRIBUTE {
    let length = CK_ULONG::try_from(size_of::<T>()).unwrap_or(0);
    CK_ATTRIBUTE { type_: kind, pValue: std::ptr::from_mut(value).cast::<c_void>(), ulValueLen: length }
}
