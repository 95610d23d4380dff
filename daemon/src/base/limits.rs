//! Every bound of the daemon that is not a setting, in one place. Units last in the names.

/// A KV version's fields together, and any other single value: 1 MiB.
pub const VALUE_BYTES_MAX: usize = 1 << 20;
/// A request message on the wire: the largest value plus room for its frame.
pub const REQUEST_BYTES_MAX: usize = VALUE_BYTES_MAX + (64 << 10);
/// Fields of one KV version.
pub const FIELDS_MAX: usize = 64;
/// A field's name.
pub const FIELD_NAME_BYTES_MAX: usize = 128;
/// A canonical path.
pub const PATH_BYTES_MAX: usize = 512;
/// Segments of a canonical path.
pub const PATH_SEGMENTS_MAX: usize = 32;
/// A page of any listing.
pub const PAGE_ENTRIES_MAX: usize = 1000;
/// A page when the caller names no size.
pub const PAGE_ENTRIES_DEFAULT: usize = 100;
/// A policy document's text.
pub const POLICY_BYTES_MAX: usize = 64 << 10;
/// A role definition or an engine's configuration, as JSON.
pub const DEFINITION_BYTES_MAX: usize = 64 << 10;
/// An idempotency key.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 64;

/// A token's life when none is asked for.
pub const TOKEN_TTL_DEFAULT_SECS: u64 = 15 * 60;
/// No token outlives this, renewed or not.
pub const TOKEN_TTL_MAX_SECS: u64 = 24 * 3600;
/// The life of the token that `init` prints, and of one that `operator recover` mints.
pub const SETUP_TOKEN_TTL_SECS: u64 = 3600;
/// A lease's life when neither caller nor role says.
pub const LEASE_TTL_DEFAULT_SECS: u64 = 3600;
/// The longest life of a lease, renewed or not.
pub const LEASE_TTL_MAX_SECS: u64 = 24 * 3600;
/// The shortest life of a lease.
pub const LEASE_TTL_MIN_SECS: u64 = 5;

/// Unseal (and other slot) sessions open at once.
pub const SLOT_SESSIONS_MAX: usize = 16;
/// A slot session's life after its last accepted share.
pub const SLOT_SESSION_TTL_SECS: u64 = 15 * 60;
/// Key slots of one vault.
pub const SLOTS_MAX: usize = 16;
/// How long sealing waits for requests in flight.
pub const SEAL_DRAIN_SECS: u64 = 10;
/// How long an old KEK version and the copies it opens outlive a rotation: a day, for whoever must go back to last night's backup.
pub const KEK_GRACE_SECS: u64 = 24 * 3600;
