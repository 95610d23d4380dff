//! Ids of 128 random bits, hex on the wire. One type a kind, so that they cannot be mixed up.

use super::random::Random;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// The text was not 32 lower-case hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an id is 32 lower-case hex digits")]
pub struct IdError;

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name([u8; 16]);

        impl $name {
            /// A fresh id.
            pub fn random(random: &dyn Random) -> Self {
                let mut id = [0; 16];
                random.fill(&mut id);
                Self(id)
            }
            /// The id with these bytes.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }
            /// Its 16 bytes, for record keys.
            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }
        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                parse(text).map(Self)
            }
        }
        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                text.parse()
            }
        }
        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.to_string()
            }
        }
    )*};
}

ids! {
    /// One vault, from `init` on.
    ClusterId;
    /// One store: a copy of a vault's data directory made anew gets another.
    StoreId;
    /// One run of the daemon.
    BootId;
    /// A caller that policies speak of.
    IdentityId;
    /// A log-in and all that came from it.
    SessionId;
    /// The public handle of a token.
    Accessor;
    /// A promise to revoke.
    LeaseId;
    /// One request.
    RequestId;
    /// One batch of the store, to settle an indeterminate commit.
    OpId;
    /// A trust: whom log-ins believe. Follows from its name.
    TrustId;
    /// One mount; a path that is enabled again gets another.
    MountId;
    /// A transit key; a name that is used again gets another.
    TransitKeyId;
    /// A key pair of a transit key's version in an HSM.
    TransitObjectId;
}

fn parse(text: &str) -> Result<[u8; 16], IdError> {
    let mut id = [0; 16];
    match data_encoding::HEXLOWER.decode_mut(
        text.as_bytes().get(..32).filter(|_| text.len() == 32).ok_or(IdError)?,
        &mut id,
    ) {
        Ok(16) => Ok(id),
        _ => Err(IdError),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::random::OsRandom;

    #[test]
    fn an_id_survives_its_text_and_nothing_else_parses() {
        let id = LeaseId::random(&OsRandom);
        assert_eq!(id.to_string().parse(), Ok(id));
        for bad in [
            "",
            "00",
            &"0".repeat(31),
            &"0".repeat(33),
            &"G".repeat(32),
            &"A".repeat(32),
            "é".repeat(16).as_str(),
        ] {
            assert_eq!(bad.parse::<LeaseId>(), Err(IdError), "{bad:?}");
        }
    }
}
