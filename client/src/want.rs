//! One thing that an application wants: a secret or an account of a role.

use crate::{
    creds::secs,
    delivery::{Delivered, Follow},
    kv::Select,
    v1::{self, fetch_item},
};
use std::time::Duration;

/// One thing to fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Want {
    /// A secret (`kv/prod/db`) or a role (`pg/readers`).
    pub path: String,
    /// Of a secret: which version.
    pub select: Select,
    /// Of a dynamic role: its life; `None`: the role's default.
    pub ttl: Option<Duration>,
}

impl Want {
    /// The current version of a secret, or a credential of a role.
    #[must_use]
    pub fn new(path: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            select: Select::Current,
            ttl: None,
        }
    }

    /// Another version of a secret.
    #[must_use]
    pub fn select(mut self, select: Select) -> Self {
        self.select = select;
        self
    }

    /// Another life of a credential than the role's default.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// What to follow once it was delivered. Of a secret that was asked for by its number nothing newer can come.
    pub(crate) fn follow(&self, delivered: &Delivered) -> Option<Follow> {
        let follow = Follow::path(&delivered.path).resume(&delivered.resume);
        match &self.select {
            Select::Current => Some(follow),
            Select::Label(label) => Some(follow.label(label)),
            Select::Version(_) => None,
        }
    }

    pub(crate) fn from_wire(wire: v1::FetchItem) -> Self {
        Self {
            path: wire.path,
            select: match wire.select {
                None => Select::Current,
                Some(fetch_item::Select::Version(version)) => Select::Version(version),
                Some(fetch_item::Select::Label(label)) => Select::Label(label),
            },
            ttl: (wire.ttl_secs > 0).then(|| Duration::from_secs(wire.ttl_secs)),
        }
    }

    pub(crate) fn to_wire(&self) -> v1::FetchItem {
        v1::FetchItem {
            path: self.path.clone(),
            select: match &self.select {
                Select::Current => None,
                Select::Version(version) => Some(fetch_item::Select::Version(*version)),
                Select::Label(label) => Some(fetch_item::Select::Label(label.clone())),
            },
            ttl_secs: secs(self.ttl),
        }
    }
}

impl<T: Into<String>> From<T> for Want {
    fn from(path: T) -> Self {
        Self::new(path)
    }
}
