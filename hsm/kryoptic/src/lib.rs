//! kryoptic as a PKCS#11 module: nothing but its entry points.

pub use kryoptic_lib::{C_GetFunctionList, C_GetInterface, C_GetInterfaceList};
