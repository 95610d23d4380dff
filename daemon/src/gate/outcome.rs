//! How a request ended, as the audit record and the metrics say it.

use super::{Failure, failure::Reason};
use crate::audit::{Outcome, Trail};
use strongroom_audit::Encoded;
use tonic::Code;

/// The gRPC code of a reason. No `_`: a new reason must be given its code.
pub const fn code_of(reason: Reason) -> Code {
    match reason {
        Reason::Malformed | Reason::TooLarge | Reason::FactorRefused => Code::InvalidArgument,
        Reason::Unauthenticated | Reason::LoginRefused | Reason::Possession | Reason::UseDpopNonce => {
            Code::Unauthenticated
        }
        Reason::Denied | Reason::StepUpRequired | Reason::OwnerOnly | Reason::PoliciesDamaged => Code::PermissionDenied,
        Reason::NotFound => Code::NotFound,
        Reason::UnknownMethod => Code::Unimplemented,
        Reason::AlreadyExists | Reason::AlreadyDone => Code::AlreadyExists,
        Reason::Conflict => Code::Aborted,
        Reason::LoginPending
        | Reason::LoginSlowDown
        | Reason::NotPossible
        | Reason::Sealed
        | Reason::Blank
        | Reason::HsmPinRefused
        | Reason::TargetRefused => Code::FailedPrecondition,
        Reason::Overloaded | Reason::RateLimited | Reason::Exhausted | Reason::StorageFull => Code::ResourceExhausted,
        Reason::HsmUnavailable
        | Reason::StorageUnavailable
        | Reason::AuditUnavailable
        | Reason::TargetUnavailable
        | Reason::Stopping => Code::Unavailable,
        Reason::Indeterminate => Code::Unknown,
        Reason::Damaged => Code::DataLoss,
        Reason::Deadline => Code::DeadlineExceeded,
        Reason::Internal => Code::Internal,
    }
}

/// The name of a code in records and metrics, as gRPC writes it.
pub const fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// The outcome of a request, for its record.
pub fn outcome(failure: Option<&Failure>) -> Outcome {
    match failure {
        None => Outcome::ok(),
        Some(failure) => Outcome::failed(code_name(code_of(failure.reason)), failure.reason.as_str()),
    }
}

/// The response record.
pub fn response(trail: &Trail, failure: Option<&Failure>) -> Encoded {
    trail.response(&outcome(failure))
}

/// The code's name, for metrics.
pub fn code<R>(reply: &Result<R, Failure>) -> &'static str {
    match reply {
        Ok(_) => code_name(Code::Ok),
        Err(failure) => code_name(code_of(failure.reason)),
    }
}
