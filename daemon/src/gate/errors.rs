//! Every room's errors as failures: one exhaustive match a room, so that a new error must say what callers are told.
//! Texts of errors that callers cause are passed on; causes of our own go to the log.

use super::{Failure, Reason, failure::chain};
use crate::{
    auth::AuthError,
    engine::{EngineError, RoomError},
    kv::{FieldsError, KvError},
    lease::LeaseError,
    mount::MountError,
    policy::{Mismatch, PolicyError, Refusal},
    seal::{SealError, SessionError},
    store::{CommitError, KeyringChangeError, StoreError, UnlockError},
    token::TokenError,
    transit::{SignerError, TransitError},
    vault::VaultError,
};
use std::time::Duration;
use strongroom_hsm::{ErrorKind, HsmError};

/// When a store that is being reopened is worth another try.
const REOPEN: Duration = Duration::from_millis(500);

/// When a target that does not answer is worth another try.
const TARGET: Duration = Duration::from_secs(1);

/// The caller's own mistake, or something it may know: the error's text says it.
fn told(reason: Reason, error: &dyn std::error::Error) -> Failure {
    Failure::with(reason, error.to_string())
}

/// A fault that the caller cannot mend: the text is fixed, the cause goes to the log.
fn logged(reason: Reason, error: &dyn std::error::Error) -> Failure {
    tracing::warn!(reason = reason.as_str(), cause = %chain(error), "a request failed");
    Failure::new(reason)
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match &error {
            StoreError::Damaged { .. } => logged(Reason::Damaged, &error),
            StoreError::Sealed => Reason::Sealed.into(),
            StoreError::Poisoned => logged(Reason::StorageUnavailable, &error).retry_after(REOPEN),
            StoreError::Stopped { .. } | StoreError::Engine(_) => logged(Reason::StorageUnavailable, &error),
            StoreError::Key(_) => told(Reason::Malformed, &error),
        }
    }
}

impl From<CommitError> for Failure {
    fn from(error: CommitError) -> Self {
        match &error {
            CommitError::Precondition(_) => Reason::Conflict.into(),
            CommitError::Full => logged(Reason::StorageFull, &error),
            CommitError::TooLarge { .. } => told(Reason::TooLarge, &error),
            CommitError::Indeterminate(_) => logged(Reason::Indeterminate, &error),
            CommitError::Poisoned => logged(Reason::StorageUnavailable, &error).retry_after(REOPEN),
            CommitError::Stopped { .. } | CommitError::Closed => logged(Reason::StorageUnavailable, &error),
            CommitError::AuditUnavailable(_) => logged(Reason::AuditUnavailable, &error),
            CommitError::Sealed => Reason::Sealed.into(),
            CommitError::KeySpent => logged(Reason::NotPossible, &error),
            CommitError::Key(_) => told(Reason::Malformed, &error),
            CommitError::Memory(_) => Self::internal(&error),
        }
    }
}

impl From<Mismatch> for Failure {
    fn from(error: Mismatch) -> Self {
        Self::internal(&error)
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Damaged => Reason::PoliciesDamaged.into(),
            Refusal::StepUp(needs) => {
                Self::with(Reason::StepUpRequired, format!("a policy asks for more: {needs}")).needing(needs.words())
            }
            Refusal::Policy(_) => Reason::Denied.into(),
        }
    }
}

impl From<PolicyError> for Failure {
    fn from(error: PolicyError) -> Self {
        match error {
            PolicyError::Invalid(_) | PolicyError::Name | PolicyError::Principal(_) => told(Reason::Malformed, &error),
            PolicyError::Set(_) => told(Reason::Exhausted, &error),
            PolicyError::NotFound => told(Reason::NotFound, &error),
            PolicyError::Cas { .. } => told(Reason::Conflict, &error),
            PolicyError::Damaged => told(Reason::Damaged, &error),
            PolicyError::Busy => told(Reason::Conflict, &error),
            PolicyError::Permit(error) => error.into(),
            PolicyError::Encode(_) => Self::internal(&error),
            PolicyError::Stopping => Reason::StorageUnavailable.into(),
            PolicyError::Store(error) => error.into(),
        }
    }
}

impl From<TokenError> for Failure {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::NotFound | TokenError::NoIdentity => told(Reason::NotFound, &error),
            TokenError::Name { .. }
            | TokenError::ReservedName
            | TokenError::Ttl
            | TokenError::ChildIdentity
            | TokenError::LogInTooLarge
            | TokenError::EndLeases
            | TokenError::Principal(_) => told(Reason::Malformed, &error),
            TokenError::Sealed => told(Reason::NotPossible, &error),
            TokenError::NotYours { .. } => told(Reason::Denied, &error),
            TokenError::SessionFull(_) | TokenError::Full(_) => told(Reason::Exhausted, &error),
            TokenError::Permit(error) => error.into(),
            TokenError::Damaged(_) => logged(Reason::Damaged, &error),
            TokenError::Encode(_) | TokenError::Memory(_) => Self::internal(&error),
            TokenError::Store(error) => error.into(),
        }
    }
}

impl From<AuthError> for Failure {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::Name
            | AuthError::Definition(_)
            | AuthError::Refused(_)
            | AuthError::SecretTtl
            | AuthError::Network => told(Reason::Malformed, &error),
            AuthError::IssuerTaken(_) => told(Reason::AlreadyExists, &error),
            AuthError::NotFound => told(Reason::NotFound, &error),
            AuthError::Cas { .. } => told(Reason::Conflict, &error),
            AuthError::Full(_) | AuthError::SecretsFull(_) => told(Reason::Exhausted, &error),
            AuthError::NotARole | AuthError::NotAClient => told(Reason::NotPossible, &error),
            AuthError::Permit(error) => error.into(),
            AuthError::Token(error) => error.into(),
            AuthError::Encode(_) | AuthError::Lock(_) => Self::internal(&error),
            AuthError::Store(error) => error.into(),
        }
    }
}

fn pin_refused(error: &HsmError) -> bool {
    matches!(
        error.kind,
        ErrorKind::AuthFailed | ErrorKind::AuthHeld | ErrorKind::AuthLocked
    )
}

impl From<SealError> for Failure {
    fn from(error: SealError) -> Self {
        match &error {
            SealError::Share(_) => told(Reason::FactorRefused, &error),
            SealError::Session(SessionError::Full) => told(Reason::Exhausted, &error),
            SealError::Session(_) => told(Reason::FactorRefused, &error),
            SealError::Spec(_) | SealError::NoSuchHsm(_) => told(Reason::Malformed, &error),
            SealError::NoSuchSlot(_) => told(Reason::NotFound, &error),
            SealError::SlotExists(_) => told(Reason::AlreadyExists, &error),
            SealError::LastSlot | SealError::TooManySlots => told(Reason::NotPossible, &error),
            SealError::Damaged(_) | SealError::DoesNotOpen(_) => told(Reason::Damaged, &error),
            SealError::Hsm(failures) if failures.iter().any(|(_, hsm)| pin_refused(hsm)) => {
                told(Reason::HsmPinRefused, &error)
            }
            SealError::HsmStep { source, .. } if pin_refused(source) => told(Reason::HsmPinRefused, &error),
            SealError::Hsm(_) | SealError::HsmStep { .. } | SealError::HsmMismatch(_) => {
                told(Reason::HsmUnavailable, &error)
            }
            SealError::LocalRootOnly => told(Reason::OwnerOnly, &error),
            SealError::Memory(_) => Self::internal(&error),
        }
    }
}

impl From<VaultError> for Failure {
    fn from(error: VaultError) -> Self {
        match error {
            VaultError::NotPossible(what) => Self::with(Reason::NotPossible, what),
            VaultError::Seal(error) => error.into(),
            VaultError::Unlock(ref cause) => match cause {
                UnlockError::Blank => Reason::Blank.into(),
                UnlockError::Keyring | UnlockError::Format(_) => told(Reason::Damaged, &error),
                UnlockError::Memory(_) | UnlockError::Store(_) | UnlockError::Commit(_) => {
                    logged(Reason::StorageUnavailable, &error)
                }
            },
            VaultError::Store(error) => error.into(),
            VaultError::Commit(error) | VaultError::Keyring(KeyringChangeError::Commit(error)) => error.into(),
            VaultError::Keyring(KeyringChangeError::Edit(_)) => told(Reason::NotPossible, &error),
            VaultError::Memory(_) => Self::internal(&error),
            VaultError::Rooms(_) => logged(Reason::StorageUnavailable, &error),
            VaultError::Interrupted => Reason::StorageUnavailable.into(),
        }
    }
}

impl From<MountError> for Failure {
    fn from(error: MountError) -> Self {
        match error {
            // Answered like a path that is forbidden.
            MountError::NotFound => Reason::Denied.into(),
            MountError::Exists => told(Reason::AlreadyExists, &error),
            MountError::Nested { .. }
            | MountError::Reserved
            | MountError::TooDeep
            | MountError::Description
            | MountError::Kind => told(Reason::Malformed, &error),
            MountError::Full => told(Reason::Exhausted, &error),
            MountError::NotEmpty
            | MountError::Leases { .. }
            | MountError::Revoking { .. }
            | MountError::LeaseDamaged
            | MountError::Open
            | MountError::Closed => told(Reason::NotPossible, &error),
            MountError::Busy => told(Reason::Conflict, &error),
            MountError::Permit(error) => error.into(),
            MountError::Encode(_) => Self::internal(&error),
            MountError::Store(error) => error.into(),
        }
    }
}

impl From<KvError> for Failure {
    fn from(error: KvError) -> Self {
        match error {
            KvError::NotFound
            | KvError::NoVersion(_)
            | KvError::NoLabel
            | KvError::Deleted(_)
            | KvError::Destroyed(_) => told(Reason::NotFound, &error),
            KvError::Cas { .. } => told(Reason::Conflict, &error),
            KvError::CasRequired { .. } | KvError::Labelled { .. } => told(Reason::NotPossible, &error),
            KvError::Fields(FieldsError::TooLarge { .. }) => told(Reason::TooLarge, &error),
            KvError::NoSecretPath
            | KvError::NothingNamed
            | KvError::TooManyNamed
            | KvError::Fields(_)
            | KvError::ReservedLabel(_)
            | KvError::Label
            | KvError::Custom
            | KvError::VersionsMax
            | KvError::Page(_) => told(Reason::Malformed, &error),
            KvError::Exhausted => told(Reason::Exhausted, &error),
            KvError::Damaged => logged(Reason::Damaged, &error),
            KvError::Memory(_) => Self::internal(&error),
            KvError::Mount(error) => error.into(),
            KvError::Permit(error) => error.into(),
            KvError::Store(error) => error.into(),
        }
    }
}

impl From<TransitError> for Failure {
    fn from(error: TransitError) -> Self {
        match error {
            TransitError::NotFound => told(Reason::NotFound, &error),
            TransitError::Exists => told(Reason::AlreadyExists, &error),
            TransitError::Moved => told(Reason::Conflict, &error),
            TransitError::Signer(ref signer) => match signer {
                SignerError::NoSuchHsm(_) => told(Reason::Malformed, &error),
                SignerError::Away(_) => logged(Reason::HsmUnavailable, &error),
                SignerError::Pin => told(Reason::HsmPinRefused, &error),
                SignerError::Missing => told(Reason::Damaged, &error),
                SignerError::Unsupported => told(Reason::NotPossible, &error),
            },
            TransitError::TooLarge => told(Reason::TooLarge, &error),
            TransitError::Full => told(Reason::Exhausted, &error),
            TransitError::WrongKind { .. }
            | TransitError::NotThere(_)
            | TransitError::NotDeletable
            | TransitError::Versions { .. }
            | TransitError::NoVersion(_) => told(Reason::NotPossible, &error),
            TransitError::Name
            | TransitError::Kind
            | TransitError::Batch
            | TransitError::Context
            | TransitError::DataKey
            | TransitError::Ciphertext
            | TransitError::OtherKey
            | TransitError::DoesNotOpen
            | TransitError::VersionMissing => told(Reason::Malformed, &error),
            TransitError::Damaged => logged(Reason::Damaged, &error),
            TransitError::Crypto | TransitError::Encode(_) | TransitError::Memory(_) => Self::internal(&error),
            TransitError::Mount(error) => error.into(),
            TransitError::Permit(error) => error.into(),
            TransitError::Store(error) => error.into(),
        }
    }
}

impl From<LeaseError> for Failure {
    fn from(error: LeaseError) -> Self {
        match error {
            // Whoever may not know has been told `Denied` before.
            LeaseError::Unknown => told(Reason::NotFound, &error),
            LeaseError::Ended | LeaseError::AtMaximum => told(Reason::NotPossible, &error),
            LeaseError::Busy => told(Reason::Conflict, &error),
            LeaseError::MountClosed => told(Reason::NotPossible, &error),
            LeaseError::Quota { .. } => told(Reason::Exhausted, &error),
            LeaseError::SessionEnded => Reason::Unauthenticated.into(),
            LeaseError::Target(target) if target.caller => told(Reason::Malformed, &target),
            LeaseError::Target(target) if target.outage => told(Reason::TargetUnavailable, &target).retry_after(TARGET),
            LeaseError::Target(target) => told(Reason::TargetRefused, &target),
            LeaseError::Damaged => logged(Reason::Damaged, &error),
            LeaseError::Store(error) => error.into(),
            LeaseError::Commit(error) => error.into(),
        }
    }
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        match &error {
            EngineError::Config(_) => told(Reason::Malformed, &error),
            EngineError::Unreachable(_) | EngineError::Draining | EngineError::NotYet(_) => {
                told(Reason::TargetUnavailable, &error).retry_after(TARGET)
            }
            EngineError::Refused(_) | EngineError::OtherServer { .. } | EngineError::Remains(_) => {
                told(Reason::TargetRefused, &error)
            }
        }
    }
}

impl From<RoomError> for Failure {
    fn from(error: RoomError) -> Self {
        match error {
            RoomError::Unconfigured | RoomError::WrongRole(_) | RoomError::AccountTaken(_) | RoomError::LeasesLive => {
                told(Reason::NotPossible, &error)
            }
            RoomError::NotRotated { again, .. } => told(Reason::TargetUnavailable, &error).retry_after(again),
            RoomError::NoRole => told(Reason::NotFound, &error),
            RoomError::RoleName | RoomError::Path(_) => told(Reason::Malformed, &error),
            RoomError::Rotating => told(Reason::Conflict, &error),
            RoomError::Engine(error) => error.into(),
            RoomError::Lease(error) => error.into(),
            RoomError::Permit(error) => error.into(),
            RoomError::Store(error) => error.into(),
            RoomError::Commit(error) => error.into(),
        }
    }
}
