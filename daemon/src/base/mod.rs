//! Shared words, no I/O beyond memory locking: secrets, ids, paths, time, chance, limits.
//! May touch: nothing else in the daemon. Reading order: `limits`, `id`, `path`, `time`, `random`, `secret`, `locked`, `page`, `alloc`.

pub mod alloc;
pub mod failpoint;
pub mod format;
pub mod id;
pub mod limits;
pub mod locked;
pub mod page;
pub mod path;
pub mod random;
pub mod secret;
pub mod time;
