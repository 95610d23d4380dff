//! What a return value means, by value *and* function.

use cryptoki::context::Function;
use cryptoki::error::{Error, RvError};

use crate::error::{ErrorKind, HsmError};

/// A failure inside the worker.
#[derive(Debug)]
pub(super) enum Fault {
    /// Its meaning is clear.
    Known(HsmError),
    /// Bad data or a bad device: tokens answer both with `CKR_GENERAL_ERROR` and its like when they decrypt or
    /// unwrap. A canary under the same key decides.
    Ambiguous(HsmError),
}

impl Fault {
    pub(super) fn new(kind: ErrorKind, detail: impl Into<String>) -> Self {
        Self::Known(HsmError::new(kind, detail))
    }

    pub(super) fn integrity(detail: &str) -> Self {
        Self::new(ErrorKind::Integrity, detail)
    }
}

impl From<HsmError> for Fault {
    fn from(error: HsmError) -> Self {
        Self::Known(error)
    }
}

/// Where no canary can help, what was ambiguous is the device's.
impl From<Fault> for HsmError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Known(error) | Fault::Ambiguous(error) => error,
        }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        let (rv, function) = match error {
            Error::Pkcs11(rv, function) => (rv, function),
            Error::NullFunctionPointer => return Self::new(ErrorKind::Unsupported, "the module lacks a function"),
            // No attribute or PIN is in these: they come from loading and conversions.
            other => return Self::new(ErrorKind::Device, other.to_string()),
        };
        let detail = format!("{function:?}: {rv:?}");
        match kind(rv, function) {
            Some(kind) => Self::new(kind, detail),
            None => Self::Ambiguous(HsmError::new(ErrorKind::Device, detail)),
        }
    }
}

/// `None`: ambiguous.
fn kind(rv: RvError, function: Function) -> Option<ErrorKind> {
    use RvError as R;
    Some(match rv {
        R::PinLocked => ErrorKind::AuthLocked,
        R::PinIncorrect | R::PinInvalid | R::PinLenRange | R::PinExpired | R::UserPinNotInitialized => {
            ErrorKind::AuthFailed
        }
        R::EncryptedDataInvalid
        | R::EncryptedDataLenRange
        | R::WrappedKeyInvalid
        | R::WrappedKeyLenRange
        | R::SignatureInvalid
        | R::SignatureLenRange => ErrorKind::Integrity,
        R::SessionHandleInvalid
        | R::SessionClosed
        | R::SessionCount
        | R::UserNotLoggedIn
        | R::ObjectHandleInvalid
        | R::KeyHandleInvalid
        | R::OperationActive
        | R::OperationNotInitialized => ErrorKind::SessionLost,
        R::CryptokiNotInitialized | R::DeviceRemoved | R::TokenNotPresent | R::TokenNotRecognized | R::HostMemory => {
            ErrorKind::Device
        }
        _ if matches!(function, Function::Decrypt | Function::UnwrapKey) => return None,
        R::MechanismInvalid
        | R::MechanismParamInvalid
        | R::FunctionNotSupported
        | R::ArgumentsBad
        | R::AttributeTypeInvalid
        | R::AttributeValueInvalid
        | R::AttributeReadOnly
        | R::TemplateInconsistent
        | R::TemplateIncomplete
        | R::KeyTypeInconsistent
        | R::KeyFunctionNotPermitted
        | R::KeySizeRange
        | R::KeyNotWrappable
        | R::CurveNotSupported => ErrorKind::Unsupported,
        _ => ErrorKind::Device,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The error table of the design, row by row: the same value means different things in different calls.
    #[test]
    fn table() {
        use ErrorKind as K;
        use Function as F;
        use RvError as R;
        let rows = [
            (R::PinIncorrect, F::Login, Some(K::AuthFailed)),
            (R::PinLenRange, F::Login, Some(K::AuthFailed)),
            (R::PinLocked, F::Login, Some(K::AuthLocked)),
            (R::EncryptedDataInvalid, F::Decrypt, Some(K::Integrity)),
            (R::WrappedKeyInvalid, F::UnwrapKey, Some(K::Integrity)),
            (R::SignatureInvalid, F::Verify, Some(K::Integrity)),
            (R::GeneralError, F::Decrypt, None),
            (R::DeviceError, F::UnwrapKey, None),
            (R::FunctionFailed, F::Decrypt, None),
            (R::GeneralError, F::Encrypt, Some(K::Device)),
            (R::GeneralError, F::Login, Some(K::Device)),
            (R::DeviceRemoved, F::Decrypt, Some(K::Device)),
            (R::SessionHandleInvalid, F::Encrypt, Some(K::SessionLost)),
            (R::UserNotLoggedIn, F::FindObjectsInit, Some(K::SessionLost)),
            (R::KeyHandleInvalid, F::DecryptInit, Some(K::SessionLost)),
            (R::OperationActive, F::DecryptInit, Some(K::SessionLost)),
            (R::CryptokiNotInitialized, F::OpenSession, Some(K::Device)),
            (R::TokenNotPresent, F::OpenSession, Some(K::Device)),
            (R::HostMemory, F::Decrypt, Some(K::Device)),
            (R::MechanismInvalid, F::EncryptInit, Some(K::Unsupported)),
            (R::FunctionNotSupported, F::WrapKey, Some(K::Unsupported)),
        ];
        for (rv, function, want) in rows {
            assert_eq!(kind(rv, function), want, "{function:?}: {rv:?}");
        }
    }
}
