//! A failure on the wire: gRPC status with `google.rpc` details. The code of each reason is in `gate::outcome`.

use crate::gate::{Failure, code_of};
use std::collections::HashMap;
use tonic::Status;
use tonic_types::{ErrorDetails, StatusExt};

/// `google.rpc.ErrorInfo.domain`.
pub const DOMAIN: &str = "strongroom";

/// A failure as it goes over the wire: code, text, `ErrorInfo` with the request id, `RetryInfo` where waiting helps.
pub fn status(failure: &Failure, request_id: &str) -> Status {
    let mut metadata = HashMap::from([("request_id".to_owned(), request_id.to_owned())]);
    if !failure.needs.is_empty() {
        metadata.insert("step_up".to_owned(), failure.needs.join(","));
    }
    let mut details = ErrorDetails::new();
    details.set_error_info(failure.reason.as_str(), DOMAIN, metadata);
    if let Some(after) = failure.retry_after {
        details.set_retry_info(Some(after));
    }
    Status::with_error_details(code_of(failure.reason), failure.message.clone(), details)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::{Reason, code_name};

    /// Every reason stands in docs/ERRORS.md with the code it is sent with.
    #[test]
    fn the_documentation_lists_every_reason() {
        let docs = include_str!("../../../docs/ERRORS.md");
        for reason in Reason::ALL {
            let row = format!("| `{}` | `{}` |", reason.as_str(), code_name(code_of(*reason)));
            assert!(docs.contains(&row), "docs/ERRORS.md lacks: {row}");
        }
    }
}
