//! `Debug` for messages that carry secrets: the name and nothing of the content.

use crate::v1;
use std::fmt;

macro_rules! redacted {
    ($($message:ident),* $(,)?) => {$(
        impl fmt::Debug for v1::$message {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($message), "(redacted)"))
            }
        }
    )*};
}

redacted!(
    SlotShares,
    InitResponse,
    PresentRequest,
    PresentResponse,
    KvGetResponse,
    KvPutRequest,
    MountConfigureRequest,
    CredsIssueResponse,
    Delivered,
    FetchResponse,
    WatchResponse,
    TokenCreateResponse,
    AuditHashRequest,
    AbandonRequest,
    PolicyPutRequest,
    LoginRequest,
    LoginRole,
    LoginOidc,
    LoginBeginResponse,
    TrustPutRequest,
    LoginResponse,
    LoginExplainRequest,
    TrustMakeSecretResponse,
    TransitPlain,
    TransitEncryptRequest,
    TransitPlaintext,
    TransitDecryptResponse,
    TransitSignRequest,
    TransitHmacRequest,
    TransitToVerify,
    TransitVerifyRequest,
    TransitDataKeyResponse,
);

impl fmt::Debug for v1::login_request::Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Proof(redacted)")
    }
}

impl fmt::Debug for v1::transit_plaintext::Result {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Result(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use crate::v1::KvPutRequest;

    /// R-AUDIT-1: a secret never appears in `Debug`.
    #[test]
    fn secret_messages_print_redacted() {
        let put = KvPutRequest {
            path: "kv/canary-path".into(),
            fields: [("value".to_owned(), bytes_of("canary-value"))].into(),
            ..Default::default()
        };
        assert_eq!(format!("{put:?}"), "KvPutRequest(redacted)");
    }

    fn bytes_of(text: &'static str) -> prost::bytes::Bytes {
        prost::bytes::Bytes::from_static(text.as_bytes())
    }
}
