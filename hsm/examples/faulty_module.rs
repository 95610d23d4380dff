//! A PKCS#11 module for tests: passes everything on to a real one, and misbehaves as a file says.
//!
//! `FAULTY_REAL` names the real module, `FAULTY_DIR` a directory. `FAULTY_DIR/fault` holds `WHAT [once]`:
//! `once` removes the file when the fault strikes. Every `C_Login` adds a byte to `FAULTY_DIR/logins`, every
//! `C_Initialize` one to `FAULTY_DIR/initializes`, so tests count what really reached the token.
#![allow(unsafe_code, missing_docs, non_snake_case)] // it *is* a C library
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // test code: to fail loudly is right

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;
use std::sync::OnceLock;

use cryptoki_sys as sys;
use sys::{CK_FLAGS, CK_FUNCTION_LIST, CK_RV, CK_ULONG};

struct Real {
    table: CK_FUNCTION_LIST,
    _library: sys::Pkcs11,
}
// SAFETY: the table is constant and the worker has one thread.
unsafe impl Send for Real {}
// SAFETY: as above.
unsafe impl Sync for Real {}

static REAL: OnceLock<Real> = OnceLock::new();

fn real() -> &'static CK_FUNCTION_LIST {
    &REAL
        .get_or_init(|| {
            let path = std::env::var_os("FAULTY_REAL").expect("FAULTY_REAL");
            let mut table = std::ptr::null_mut();
            // SAFETY: a PKCS#11 module, as the test says; the table stays valid while the library is loaded.
            unsafe {
                let library = sys::Pkcs11::new(path).expect("real module");
                assert_eq!(library.C_GetFunctionList(&mut table), sys::CKR_OK);
                Real {
                    table: *table,
                    _library: library,
                }
            }
        })
        .table
}

fn file(name: &str) -> PathBuf {
    PathBuf::from(std::env::var_os("FAULTY_DIR").expect("FAULTY_DIR")).join(name)
}

fn count(name: &str) {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(file(name))
        .unwrap()
        .write_all(b"x")
        .unwrap();
}

/// Whether this fault is on; a `once` is used up.
fn fault(what: &str) -> bool {
    let Ok(text) = std::fs::read_to_string(file("fault")) else {
        return false;
    };
    let mut words = text.split_whitespace();
    if words.next() != Some(what) {
        return false;
    }
    if words.next() == Some("once") {
        std::fs::remove_file(file("fault")).unwrap();
    }
    true
}

fn strike(call: &str) -> Option<CK_RV> {
    if fault(&format!("abort-{call}")) {
        std::process::abort();
    }
    if fault(&format!("hang-{call}")) {
        loop {
            std::thread::sleep(std::time::Duration::from_secs(3600));
        }
    }
    let values = [
        ("general", sys::CKR_GENERAL_ERROR),
        ("device", sys::CKR_DEVICE_ERROR),
        ("session", sys::CKR_SESSION_HANDLE_INVALID),
        ("active", sys::CKR_OPERATION_ACTIVE),
        ("refused", sys::CKR_PIN_INCORRECT),
        ("locked", sys::CKR_PIN_LOCKED),
        ("unsupported", sys::CKR_MECHANISM_INVALID),
    ];
    values
        .into_iter()
        .find(|(word, _)| fault(&format!("{word}-{call}")))
        .map(|(_, rv)| rv)
}

/// Forwards a call, unless it is struck.
macro_rules! forward {
    ($name:ident, $call:literal, $($arg:ident: $type:ty),*) => {
        unsafe extern "C" fn $name($($arg: $type),*) -> CK_RV {
            if let Some(rv) = strike($call) {
                return rv;
            }
            // SAFETY: the caller's arguments, unchanged, to the function it meant.
            unsafe { real().$name.unwrap()($($arg),*) }
        }
    };
}

forward!(C_EncryptInit, "encrypt-init", s: sys::CK_SESSION_HANDLE, m: *mut sys::CK_MECHANISM, k: sys::CK_OBJECT_HANDLE);
forward!(C_Encrypt, "encrypt", s: sys::CK_SESSION_HANDLE, i: *mut u8, n: CK_ULONG, o: *mut u8, m: *mut CK_ULONG);
forward!(C_Decrypt, "decrypt", s: sys::CK_SESSION_HANDLE, i: *mut u8, n: CK_ULONG, o: *mut u8, m: *mut CK_ULONG);
forward!(C_GenerateRandom, "random", s: sys::CK_SESSION_HANDLE, o: *mut u8, n: CK_ULONG);
forward!(C_GenerateKey, "generate", s: sys::CK_SESSION_HANDLE, m: *mut sys::CK_MECHANISM, t: *mut sys::CK_ATTRIBUTE, n: CK_ULONG, k: *mut sys::CK_OBJECT_HANDLE);

unsafe extern "C" fn C_Initialize(args: *mut std::ffi::c_void) -> CK_RV {
    count("initializes");
    // SAFETY: as in `forward`.
    strike("initialize").unwrap_or_else(|| unsafe { real().C_Initialize.unwrap()(args) })
}

unsafe extern "C" fn C_Login(s: sys::CK_SESSION_HANDLE, u: sys::CK_USER_TYPE, p: *mut u8, n: CK_ULONG) -> CK_RV {
    count("logins");
    // SAFETY: as in `forward`.
    strike("login").unwrap_or_else(|| unsafe { real().C_Login.unwrap()(s, u, p, n) })
}

/// "vanish-once": nothing is found in the process that sees it first, as when SoftHSM's directory was away.
unsafe extern "C" fn C_FindObjects(
    s: sys::CK_SESSION_HANDLE,
    o: *mut sys::CK_OBJECT_HANDLE,
    max: CK_ULONG,
    found: *mut CK_ULONG,
) -> CK_RV {
    static BLIND: OnceLock<bool> = OnceLock::new();
    if BLIND.get() == Some(&true) || (fault("vanish") && *BLIND.get_or_init(|| true)) {
        // SAFETY: the caller's out parameter.
        unsafe { *found = 0 };
        return sys::CKR_OK;
    }
    // SAFETY: as in `forward`.
    unsafe { real().C_FindObjects.unwrap()(s, o, max, found) }
}

/// Adds the PIN warnings that SoftHSM never gives.
unsafe extern "C" fn C_GetTokenInfo(slot: sys::CK_SLOT_ID, info: *mut sys::CK_TOKEN_INFO) -> CK_RV {
    // SAFETY: as in `forward`; then one field of the caller's struct, which the real module has just filled.
    unsafe {
        let rv = real().C_GetTokenInfo.unwrap()(slot, info);
        let warnings: [(&str, CK_FLAGS); 3] = [
            ("warn-low", sys::CKF_USER_PIN_COUNT_LOW),
            ("warn-final", sys::CKF_USER_PIN_FINAL_TRY),
            ("warn-locked", sys::CKF_USER_PIN_LOCKED),
        ];
        for (word, flag) in warnings {
            if fault(word) {
                (*info).flags |= flag;
            }
        }
        rv
    }
}

struct Table(CK_FUNCTION_LIST);
// SAFETY: constant after it was made.
unsafe impl Send for Table {}
// SAFETY: as above.
unsafe impl Sync for Table {}

/// # Safety
/// `list` must be valid for a write, as PKCS#11 demands.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_GetFunctionList(list: *mut *mut CK_FUNCTION_LIST) -> CK_RV {
    static TABLE: OnceLock<Table> = OnceLock::new();
    if fault("abort-load") {
        std::process::abort();
    }
    let table = TABLE.get_or_init(|| {
        let mut table = *real();
        table.C_Initialize = Some(C_Initialize);
        table.C_Login = Some(C_Login);
        table.C_EncryptInit = Some(C_EncryptInit);
        table.C_Encrypt = Some(C_Encrypt);
        table.C_Decrypt = Some(C_Decrypt);
        table.C_GenerateRandom = Some(C_GenerateRandom);
        table.C_GenerateKey = Some(C_GenerateKey);
        table.C_FindObjects = Some(C_FindObjects);
        table.C_GetTokenInfo = Some(C_GetTokenInfo);
        Table(table)
    });
    // SAFETY: the caller's out parameter; nobody writes through the table pointer.
    unsafe { *list = std::ptr::from_ref(&table.0).cast_mut() };
    sys::CKR_OK
}
