//! Two calls the safe binding cannot make well, over the same loaded module (`dlopen` counts references):
//! - `C_GetTokenInfo`: cryptoki fails on a malformed clock (openCryptoki writes "17:07:45"), and with it the
//!   PIN warnings would be lost;
//! - `C_GetAttributeValue` into a buffer of ours: cryptoki copies a `CKA_VALUE` into buffers nobody wipes.
#![allow(unsafe_code)] // calls through a C function table; each has its SAFETY comment

use std::path::Path;

use cryptoki::object::ObjectHandle;
use cryptoki::session::Session;
use cryptoki::slot::Slot;
use cryptoki_sys as sys;

use crate::error::{ErrorKind, HsmError};
use crate::wire::{PinFlags, TokenIdentity};

pub(super) struct Raw {
    /// The table lives in the module's memory: it stays loaded as long as this does.
    functions: *const sys::CK_FUNCTION_LIST,
    _module: sys::Pkcs11,
}

/// What `C_GetTokenInfo` says.
pub(super) struct Info {
    pub(super) identity: TokenIdentity,
    pub(super) flags: PinFlags,
    pub(super) initialized: bool,
}

impl Raw {
    pub(super) fn load(module: &Path) -> Result<Self, HsmError> {
        let failed = |what: String| HsmError::new(ErrorKind::Device, format!("module {}: {what}", module.display()));
        // SAFETY: loading runs the module's initialisers; that the operator's module is trusted with this
        // process, and only with it, is the point of the process.
        let library = unsafe { sys::Pkcs11::new(module) }.map_err(|e| failed(e.to_string()))?;
        if library.C_GetFunctionList.is_err() {
            return Err(failed("not a PKCS#11 module: no C_GetFunctionList".into()));
        }
        let mut functions: *mut sys::CK_FUNCTION_LIST = std::ptr::null_mut();
        // SAFETY: the symbol exists (checked above) and takes a pointer to a pointer, which this is.
        let rv = unsafe { library.C_GetFunctionList(&mut functions) };
        if rv != sys::CKR_OK || functions.is_null() {
            return Err(failed(format!("C_GetFunctionList: {rv:#x}")));
        }
        Ok(Self {
            functions,
            _module: library,
        })
    }

    pub(super) fn token_info(&self, slot: Slot) -> Result<Info, HsmError> {
        // SAFETY: the table was handed out by the module, is not null, and the module is still loaded.
        let call = unsafe { (*self.functions).C_GetTokenInfo };
        let call = call.ok_or_else(|| HsmError::new(ErrorKind::Unsupported, "no C_GetTokenInfo"))?;
        let mut info = sys::CK_TOKEN_INFO::default();
        // SAFETY: `info` is a whole CK_TOKEN_INFO of the size the module was compiled with (PKCS#11 2.0 on).
        let rv = unsafe { call(slot.into(), &mut info) };
        if rv != sys::CKR_OK {
            return Err(HsmError::new(ErrorKind::Device, format!("GetTokenInfo: {rv:#x}")));
        }
        let has = |flag| info.flags & flag != 0;
        Ok(Info {
            identity: TokenIdentity {
                label: text(&info.label),
                serial: text(&info.serialNumber),
                manufacturer: text(&info.manufacturerID),
                model: text(&info.model),
            },
            flags: PinFlags {
                count_low: has(sys::CKF_USER_PIN_COUNT_LOW),
                final_try: has(sys::CKF_USER_PIN_FINAL_TRY),
                locked: has(sys::CKF_USER_PIN_LOCKED),
            },
            initialized: has(sys::CKF_TOKEN_INITIALIZED),
        })
    }

    /// Reads `CKA_VALUE`, which must be exactly as long as `into`.
    pub(super) fn value(&self, session: &Session, object: ObjectHandle, into: &mut [u8]) -> Result<(), HsmError> {
        // SAFETY: as in `token_info`.
        let call = unsafe { (*self.functions).C_GetAttributeValue };
        let call = call.ok_or_else(|| HsmError::new(ErrorKind::Unsupported, "no C_GetAttributeValue"))?;
        let mut attribute = sys::CK_ATTRIBUTE {
            type_: sys::CKA_VALUE,
            pValue: into.as_mut_ptr().cast(),
            ulValueLen: into.len() as sys::CK_ULONG,
        };
        // SAFETY: one attribute whose buffer has the stated length; the module writes at most that much and
        // stores the true length. Both outlive the call.
        let rv = unsafe { call(session.handle(), object.handle(), &mut attribute, 1) };
        if rv != sys::CKR_OK || attribute.ulValueLen != into.len() as sys::CK_ULONG {
            return Err(HsmError::new(ErrorKind::Device, format!("GetAttributeValue: {rv:#x}")));
        }
        Ok(())
    }
}

/// Blank-padded text; some modules pad with zeros.
fn text(padded: &[u8]) -> String {
    String::from_utf8_lossy(padded).trim_end_matches([' ', '\0']).to_owned()
}
