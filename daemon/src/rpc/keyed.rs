//! Which messages carry an idempotency key: every change does, no read.

use strongroom_proto::v1;

/// A message that may name its change.
pub trait Keyed {
    /// The key, taken out; empty when there is none.
    fn take_key(&mut self) -> String {
        String::new()
    }
}

macro_rules! keyed {
    (changes: $($change:ident),* ; reads: $($read:ident),* $(,)?) => {
        $(impl Keyed for v1::$change {
            fn take_key(&mut self) -> String {
                std::mem::take(&mut self.idempotency_key)
            }
        })*
        $(impl Keyed for v1::$read {})*
    };
}

keyed!(
    changes: KvPutRequest, KvDeleteRequest, KvUndeleteRequest, KvDestroyRequest, KvSetMetadataRequest,
        MountEnableRequest, MountDisableRequest, MountConfigureRequest, MountRotateRootRequest, MountReconcileRequest, RolePutRequest,
        RoleDeleteRequest, CredsIssueRequest, CredsRotateRequest, LeaseRenewRequest, LeaseRevokeRequest,
        FetchRequest, TokenCreateRequest, TokenRenewRequest, TokenRevokeRequest, PolicyPutRequest, PolicyDeleteRequest,
        SealRequest, RotateRequest, ConfirmTimeRequest, TrustPutRequest, TrustDeleteRequest, TrustEndRequest,
        TrustMakeSecretRequest, IdentityPutRequest,
        TransitCreateKeyRequest, TransitRotateKeyRequest, TransitConfigureKeyRequest, TransitTrimKeyRequest, TransitDeleteKeyRequest;
    reads: KvGetRequest, KvListRequest, KvHistoryRequest, MountListRequest, MountGetConfigRequest, RoleGetRequest,
        RoleListRequest, LeaseGetRequest, LeaseListRequest, TokenGetRequest, PolicyGetRequest, PolicyListRequest,
        PolicyExplainRequest, AuditTailRequest, AuditHashRequest, AuditHeadRequest, ListSlotsRequest,
        ListQuarantineRequest, LoginRequest, LoginBeginRequest, LoginExplainRequest, TrustGetRequest, TrustListRequest, IdentityListRequest,
        IdentityGetRequest,
        TransitListKeysRequest, TransitGetKeyRequest, TransitEncryptRequest, TransitDecryptRequest, TransitRewrapRequest,
        TransitSignRequest, TransitVerifyRequest, TransitHmacRequest, TransitDataKeyRequest,
);
