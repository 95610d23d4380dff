//! The words of the language: actions, paths, and the names of Cedar's entities.

use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

use cedar_policy::{Entity, EntityId, EntityTypeName, EntityUid, Schema};

use crate::limits::{PATH_BYTES_MAX, SEGMENTS_MAX};

/// The schema as it stands in the repository, for `policy` documentation and for tests.
pub const SCHEMA_TEXT: &str = include_str!("../schema.cedarschema");

/// The path above every path: `resource in S::Path::"/"` is everything.
pub const ROOT: &str = "/";

macro_rules! actions {
    ($($(#[$doc:meta])* $variant:ident = $word:literal,)*) => {
        /// What a caller wants to do. One list for the schema, the gate and the audit log; a test
        /// keeps it equal to `schema.cedarschema`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Action { $($(#[$doc])* $variant,)* }

        impl Action {
            /// Every action, in the order of the enum.
            pub const ALL: &[Action] = &[$(Action::$variant,)*];

            /// The word in policies, audit records and on the wire.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Action::$variant => $word,)* }
            }
        }

        impl FromStr for Action {
            type Err = UnknownAction;
            fn from_str(word: &str) -> Result<Self, UnknownAction> {
                match word { $($word => Ok(Action::$variant),)* _ => Err(UnknownAction) }
            }
        }
    };
}

actions! {
    /// The value of a secret.
    Read = "read",
    /// A new version of a secret, its labels, its limits.
    Write = "write",
    /// Hide a version; it can come back.
    Delete = "delete",
    /// Bring a deleted version back.
    Undelete = "undelete",
    /// Erase a version for good.
    Destroy = "destroy",
    /// Names below a path.
    List = "list",
    /// Versions, labels and times of a secret, never its value.
    Metadata = "metadata",
    /// A leased credential of a role.
    Issue = "issue",
    /// A new password for a static account or for an engine's own log-in.
    Rotate = "rotate",
    /// A lease's state, never its credential.
    LeaseRead = "lease_read",
    /// A longer lease.
    Renew = "renew",
    /// The end of a lease.
    Revoke = "revoke",
    /// Which engine is at a path, and how it is set up.
    MountRead = "mount_read",
    /// Enable, set up or disable an engine at a path.
    MountWrite = "mount_write",
    /// A role of an engine.
    RoleRead = "role_read",
    /// Make, change or delete a role.
    RoleWrite = "role_write",
    /// The text of a policy, and decisions about others.
    PolicyRead = "policy_read",
    /// Make, change or delete a policy.
    PolicyWrite = "policy_write",
    /// A token for an identity.
    TokenCreate = "token_create",
    /// What a token is, never the token.
    TokenRead = "token_read",
    /// A longer life for a token.
    TokenRenew = "token_renew",
    /// The end of a token or a session.
    TokenRevoke = "token_revoke",
    /// A text under a transit key, and data keys.
    Encrypt = "encrypt",
    /// The text of a ciphertext.
    Decrypt = "decrypt",
    /// A ciphertext under the newest version of its key, its text unseen.
    Rewrap = "rewrap",
    /// A signature or an HMAC.
    Sign = "sign",
    /// Whether a signature or an HMAC is right.
    Verify = "verify",
    /// The audit log.
    AuditRead = "audit_read",
    /// Seal the vault.
    Seal = "seal",
    /// Which key slots there are.
    SlotRead = "slot_read",
    /// Add, change or remove a key slot. Needs an existing slot's factors as well.
    SlotWrite = "slot_write",
    /// A new generation of data keys, or a new version of the HSM's key.
    KeyRotate = "key_rotate",
    /// Say that a leap of the wall clock is right.
    TimeConfirm = "time_confirm",
    /// Log in through a trust. Needs no permit: the proof is the permit, a `forbid` still wins.
    LogIn = "log_in",
    /// Whom log-ins believe, and what a proof would give.
    TrustRead = "trust_read",
    /// Make, change or delete a trust, make its secrets, end what came from it.
    TrustWrite = "trust_write",
}

/// Not a word of [`Action`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no such action")]
pub struct UnknownAction;

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Action {
    /// This action alone, as a set.
    pub(crate) const fn bit(self) -> u64 {
        1 << self as u32
    }

    /// Its Cedar entity, ancestors included.
    pub(crate) fn entity(self) -> Option<&'static Entity> {
        LANGUAGE.actions.get(self as usize).map(|known| &known.entity)
    }
}

/// The actions that `name`, an action or a group of actions, stands for. Taken from the schema, so
/// that the index cannot disagree with the validator. Empty for a name the schema lacks.
pub(crate) fn actions_of(name: &EntityUid) -> u64 {
    let known = Action::ALL.iter().zip(&LANGUAGE.actions);
    known
        .filter(|(_, known)| known.entity.uid() == *name || known.groups.contains(name))
        .fold(0, |set, (action, _)| set | action.bit())
}

/// The parsed schema and what is taken from it once.
pub(crate) struct Language {
    pub schema: Schema,
    pub identity: EntityTypeName,
    pub group: EntityTypeName,
    pub path: EntityTypeName,
    pub tls: EntityUid,
    pub unix: EntityUid,
    purpose: EntityTypeName,
    binding: EntityTypeName,
    /// In the order of [`Action::ALL`].
    actions: Vec<KnownAction>,
}

struct KnownAction {
    entity: Entity,
    groups: Vec<EntityUid>,
}

/// Parsed at first use. The text is part of the program and a test parses it, so it cannot fail.
pub(crate) static LANGUAGE: LazyLock<Language> = LazyLock::new(Language::parse);

impl Language {
    #[expect(
        clippy::expect_used,
        reason = "the schema is part of the program; `the_schema_is_the_action_list` parses it"
    )]
    fn parse() -> Self {
        let (schema, _) = Schema::from_cedarschema_str(SCHEMA_TEXT).expect("schema parses");
        let kind = |name: &str| EntityTypeName::from_str(name).expect("type name parses");
        let known = schema.action_entities().expect("schema has actions");
        let action = |action: &Action| {
            let name = uid(&kind("S::Action"), action.as_str());
            KnownAction {
                entity: known.get(&name).expect("action is in the schema").clone(),
                groups: known.ancestors(&name).into_iter().flatten().cloned().collect(),
            }
        };
        let transport = kind("S::Transport");
        Language {
            identity: kind("S::Identity"),
            group: kind("S::Group"),
            path: kind("S::Path"),
            tls: uid(&transport, "tls"),
            unix: uid(&transport, "unix"),
            purpose: kind("S::Purpose"),
            binding: kind("S::Binding"),
            actions: Action::ALL.iter().map(action).collect(),
            schema,
        }
    }

    pub fn purpose(&self, word: &str) -> EntityUid {
        uid(&self.purpose, word)
    }

    pub fn binding(&self, word: &str) -> EntityUid {
        uid(&self.binding, word)
    }
}

/// The entity of a type with an id. The id is data: no text is parsed, whatever is in it.
pub(crate) fn uid(kind: &EntityTypeName, id: &str) -> EntityUid {
    EntityUid::from_type_name_and_id(kind.clone(), EntityId::new(id))
}

/// Whether `path` is canonical: 1 to 32 segments of `[A-Za-z0-9._~@:+=-]` joined by `/`, none of them
/// `.` or `..`, 512 bytes in all. The daemon parses paths at its edge; here the same rule keeps a
/// policy from naming a path that can never be asked for.
/// # Errors
/// What is wrong, in words for the author of a policy.
pub(crate) fn canonical(path: &str) -> Result<(), &'static str> {
    if path.len() > PATH_BYTES_MAX {
        return Err("a path has at most 512 bytes");
    }
    if path.split('/').nth(SEGMENTS_MAX).is_some() {
        return Err("a path has at most 32 segments");
    }
    for segment in path.split('/') {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"._~@:+=-".contains(&b);
        match segment {
            "" => return Err("a path has no leading, trailing or double slash"),
            "." | ".." => return Err("a path has no `.` or `..` segment"),
            s if s.contains('*') => {
                return Err("a path has no wildcards: `resource in` covers all that is below a path");
            }
            s if !s.bytes().all(plain) => {
                return Err("a path segment consists of A-Z a-z 0-9 . _ ~ @ : + = -");
            }
            _ => {}
        }
    }
    Ok(())
}
