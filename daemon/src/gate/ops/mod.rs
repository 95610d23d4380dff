//! Every operation, one file a service. Each says its name, its target, and how it is handled; nothing else of the daemon calls the rooms
//! for a caller.

pub mod audit;
pub mod creds;
pub mod delivery;
pub mod identity;
pub mod kv;
pub mod lease;
pub mod login;
pub mod mount;
pub mod operator;
pub mod policy;
pub mod token;
pub mod transit;
pub mod trust;

/// What the files of this folder share.
mod prelude {
    pub use crate::{
        audit::Trail,
        base::path::Path,
        gate::{Class, Effect, Failure, Open, Operation, Reason, Target},
        policy::{Action, Caller, Permit},
    };

    /// Check-and-set, when the caller asked for it.
    pub fn note_cas(trail: &mut Trail, cas: Option<u64>) {
        if let Some(cas) = cas {
            trail.param_u64("cas", cas);
        }
    }
}
