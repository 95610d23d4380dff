//! Log-in by the user id that the kernel tells of the peer of a Unix socket: programs of this machine, without any secret of their own.
//!
//! Trusts: the kernel. Limits: user ids only; whoever can become a user (root can become all) can log in as it.

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

const BINDINGS_MAX: usize = 256;

/// `unix` of a trust.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unix {
    /// Who may log in.
    pub bind: Vec<User>,
}

/// A user of this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// The numeric id: names can be given to another.
    pub uid: u32,
    /// What it gets.
    #[serde(default)]
    pub groups: BTreeSet<String>,
}

impl Unix {
    /// Itself, when it may be believed.
    /// # Errors
    /// In words.
    pub fn checked(&self) -> Result<Self, Vec<String>> {
        let ids: BTreeSet<_> = self.bind.iter().map(|user| user.uid).collect();
        match self.bind.len() {
            0 => Err(vec!["bind: nobody may log in without a binding".to_owned()]),
            count if count > BINDINGS_MAX => Err(vec!["bind: at most 256".to_owned()]),
            count if count != ids.len() => Err(vec!["bind: a user id twice".to_owned()]),
            _ => Ok(self.clone()),
        }
    }

    /// What `uid` gets; `None`: it may not log in.
    pub fn groups(&self, uid: u32) -> Option<&BTreeSet<String>> {
        self.bind.iter().find(|user| user.uid == uid).map(|user| &user.groups)
    }
}
