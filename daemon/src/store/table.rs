//! Tables and the key encoding. A key is `namespace u32 BE | table u8 | component*`; a component is `tag-and-length u16 BE | bytes`.
//! The tag (top bit) tells an encrypted name from raw bytes, so a key reads back without knowing the table. Raw parts of one length
//! keep their byte order; raw parts come before names. A key never names a parent and a child at once: prefix scans work by bytes.

use bytes::Bytes;
use std::fmt;

/// Whose records: 0 is the root namespace, the only one yet.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct Namespace(pub u32);

impl Namespace {
    /// The root namespace.
    pub const ROOT: Self = Self(0);
}

/// Longest component, as stored: a path segment of 512 bytes and its 16-byte SIV.
pub(super) const COMPONENT_BYTES_MAX: usize = 1024;
/// A key as stored: a path of 512 bytes in 32 segments (18 bytes more each), a mount id, an id or two.
pub(super) const KEY_BYTES_MAX: usize = 4096;
const NAME_TAG: u16 = 0x8000;
/// `namespace u32 | table u8`.
pub(super) const HEAD_BYTES: usize = 5;

macro_rules! tables {
    ($(#[$outer:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $id:literal $words:literal,)* }) => {
        $(#[$outer])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum $name { $($(#[$doc])* $variant = $id,)* }

        impl $name {
            /// Every table, in the order of their ids.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];
            /// The byte in the key. Never reused.
            pub const fn id(self) -> u8 {
                self as u8
            }
            /// What it holds, in words, for messages.
            pub const fn words(self) -> &'static str {
                match self { $(Self::$variant => $words,)* }
            }
            pub(super) const fn from_id(id: u8) -> Option<Self> {
                match id { $($id => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

tables! {
    /// Tables inside the barrier: values are encrypted, `Part::Name`s too.
    Table {
        /// Names: the mount's path, segment by segment.
        Mount = 0x20 "mount",
        /// Raw mount id, names: the secret's path.
        KvMeta = 0x21 "kv metadata",
        /// Raw mount id, names: the secret's path, raw version u32 BE.
        KvValue = 0x22 "kv value",
        /// Raw token hash.
        Token = 0x23 "token",
        /// Raw accessor.
        Accessor = 0x24 "token accessor",
        /// Raw identity id.
        Identity = 0x25 "identity",
        /// Raw session id.
        Session = 0x26 "session",
        /// Name of the policy.
        Policy = 0x27 "policy",
        /// No components, or raw ones.
        PolicyManifest = 0x28 "policy manifest",
        /// Raw mount id, name of the role.
        Role = 0x29 "role",
        /// Raw mount id, more as the engine likes.
        EngineConfig = 0x2a "engine configuration",
        /// Raw lease id.
        Lease = 0x2b "lease",
        /// Raw expiry u64 BE, raw lease id: in order of time.
        LeaseDue = 0x2c "lease due index",
        /// Raw mount id, name of the role, raw lease id.
        LeaseByRole = 0x2d "lease by role index",
        /// Raw identity id, raw lease id.
        LeaseByIdentity = 0x2e "lease by identity index",
        /// Raw session id, raw lease id.
        LeaseBySession = 0x2f "lease by session index",
        /// Raw mount id, name of the account.
        StaticAccount = 0x30 "static account",
        /// Rotations under way, as their owner likes.
        Rotation = 0x31 "rotation",
        /// What belongs to no other table.
        System = 0x32 "system",
        /// Name of the trust.
        Trust = 0x38 "trust",
        /// Raw keyed hash of a secret id.
        RoleSecret = 0x39 "app role secret",
        /// Raw mount id, name of the key.
        TransitKey = 0x3a "transit key",
        /// Raw mount id, raw key id, raw version u32 BE.
        TransitVersion = 0x3b "transit key version",
        /// Raw lease id.
        LeaseRevoking = 0x3c "lease revocation index",
        /// Raw object id: what must be destroyed in an HSM.
        TransitObject = 0x3d "transit object to be destroyed",
    }
}

tables! {
    /// Tables outside the barrier: checksummed, not encrypted, readable while sealed.
    RawTable {
        /// The store's format, cluster id and store id.
        Format = 0x01 "store format",
        /// Key slots.
        Slots = 0x02 "key slot",
        /// The keyring, sealed by the root key.
        Keyring = 0x03 "keyring",
        /// The audit chain's head, commit sequence, barrier sequence.
        Heads = 0x04 "heads",
        /// Audit frames on their way to the segments.
        Outbox = 0x05 "audit outbox",
        /// Which batches of late were made.
        Outcomes = 0x06 "outcomes",
        /// Records that did not open.
        Quarantine = 0x07 "quarantine list",
        /// Fence tokens and start-up facts.
        Fence = 0x08 "fence",
    }
}

/// A component of a key, as its owner sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part<'a> {
    /// Stored encrypted; 1 to 512 bytes.
    Name(&'a str),
    /// Stored as it is, ordered; 0 to 512 bytes. Never secret, never a user's word.
    Raw(&'a [u8]),
}

/// A [`Part`] read back.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OwnedPart {
    /// Sorts first, as it is stored.
    Raw(Vec<u8>),
    /// A decrypted name.
    Name(String),
}

impl OwnedPart {
    /// The name, if it is one.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Name(name) => Some(name),
            Self::Raw(_) => None,
        }
    }
    /// The raw bytes, if it is raw.
    pub fn raw(&self) -> Option<&[u8]> {
        match self {
            Self::Raw(raw) => Some(raw),
            Self::Name(_) => None,
        }
    }
    /// The raw bytes as an array of exactly that length.
    pub fn raw_array<const N: usize>(&self) -> Option<[u8; N]> {
        self.raw()?.try_into().ok()
    }
    /// As a borrowed part.
    pub fn as_part(&self) -> Part<'_> {
        match self {
            Self::Name(name) => Part::Name(name),
            Self::Raw(raw) => Part::Raw(raw),
        }
    }
}

impl fmt::Debug for OwnedPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Raw(raw) => f.write_str(&data_encoding::HEXLOWER.encode(raw)),
        }
    }
}

/// `namespace | table`.
pub(super) fn head(namespace: Namespace, table: u8) -> [u8; HEAD_BYTES] {
    let [a, b, c, d] = namespace.0.to_be_bytes();
    [a, b, c, d, table]
}

/// Namespace and table byte of a stored key.
pub(super) fn parse_head(key: &[u8]) -> Option<(Namespace, u8)> {
    let (&[a, b, c, d, table], _) = key.split_first_chunk::<HEAD_BYTES>()?;
    Some((Namespace(u32::from_be_bytes([a, b, c, d])), table))
}

/// The key of a raw record: `namespace 0 | table | id`.
pub(super) fn raw_key(table: RawTable, id: &[u8]) -> Bytes {
    let mut key = Vec::with_capacity(HEAD_BYTES + id.len());
    key.extend_from_slice(&head(Namespace::ROOT, table.id()));
    key.extend_from_slice(id);
    key.into()
}

/// Appends one stored component.
pub(super) fn push_component(key: &mut Vec<u8>, name: bool, bytes: &[u8]) {
    let tag = if name { NAME_TAG } else { 0 };
    // Callers bound `bytes` by COMPONENT_BYTES_MAX.
    key.extend_from_slice(&(tag | u16::try_from(bytes.len()).unwrap_or(NAME_TAG - 1)).to_be_bytes());
    key.extend_from_slice(bytes);
}

/// Takes one stored component off the front: whether it is a name, its bytes, the rest.
pub(super) fn take_component(rest: &[u8]) -> Option<(bool, &[u8], &[u8])> {
    let (length, rest) = rest.split_first_chunk::<2>()?;
    let length = u16::from_be_bytes(*length);
    let (bytes, rest) = rest.split_at_checked(usize::from(length & !NAME_TAG))?;
    Some((length & NAME_TAG != 0, bytes, rest))
}

/// The least key above every key that begins with `prefix`; `None` when there is none.
pub(super) fn successor(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return Some(end);
        }
    }
    None
}

/// A key in words when its names cannot be told: table and a digest.
pub(super) fn digest_words(key: &[u8]) -> String {
    let table = parse_head(key).map_or("unknown table", |(_, id)| {
        Table::from_id(id)
            .map(Table::words)
            .or(RawTable::from_id(id).map(RawTable::words))
            .unwrap_or("unknown table")
    });
    format!("{table} #{}", data_encoding::HEXLOWER.encode(&digest(key)[..8]))
}

/// SHA-256 of a stored key.
pub(super) fn digest(key: &[u8]) -> [u8; 32] {
    use sha2::{Digest, Sha256};
    Sha256::digest(key).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_read_back_and_raw_ones_keep_their_order() {
        let mut key = head(Namespace(7), Table::LeaseDue.id()).to_vec();
        push_component(&mut key, false, &9u64.to_be_bytes());
        push_component(&mut key, true, b"siv");
        assert_eq!(parse_head(&key), Some((Namespace(7), Table::LeaseDue.id())));
        let (name, bytes, rest) = take_component(&key[HEAD_BYTES..]).unwrap();
        assert!(!name && bytes == 9u64.to_be_bytes());
        assert_eq!(take_component(rest), Some((true, &b"siv"[..], &[][..])));
        assert_eq!(take_component(&rest[..4]), None);
        let at = |time: u64| {
            let mut key = Vec::new();
            push_component(&mut key, false, &time.to_be_bytes());
            key
        };
        assert!(at(1) < at(2) && at(255) < at(256) && at(256) < at(u64::MAX));
    }

    #[test]
    fn table_ids_are_unique_and_stay() {
        let mut ids: Vec<u8> = Table::ALL
            .iter()
            .map(|table| table.id())
            .chain(RawTable::ALL.iter().map(|table| table.id()))
            .collect();
        let count = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), count);
        assert_eq!(
            (
                Table::Mount.id(),
                Table::KvValue.id(),
                Table::System.id(),
                RawTable::Outbox.id()
            ),
            (0x20, 0x22, 0x32, 0x05)
        );
    }

    #[test]
    fn successor_is_the_least_key_past_a_prefix() {
        assert_eq!(successor(&[1, 2]), Some(vec![1, 3]));
        assert_eq!(successor(&[1, 255]), Some(vec![2]));
        assert_eq!(successor(&[255, 255]), None);
    }
}
