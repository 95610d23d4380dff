//! A change: what a room wants done, in one piece. Built without I/O; the store encrypts and commits it.

use super::{
    batch::{Condition, Hook, Lane, Version},
    table::{self, Part, RawTable},
    view::View,
};
use crate::notice::Topic;
use bytes::Bytes;
use zeroize::Zeroizing;

pub(super) enum Do {
    /// Sealed by the barrier at commit.
    Put(Zeroizing<Vec<u8>>),
    /// Framed at commit.
    PutRaw(Vec<u8>),
    Delete,
}

/// Puts, deletes and preconditions that are made together or not at all. Preconditions are counted in the order of `require_*` calls:
/// [`super::CommitError::Precondition`] names the first that does not hold. A key is written at most once; the last write counts.
#[derive(Default)]
pub struct Change {
    pub(super) acts: Vec<(Bytes, Do)>,
    pub(super) conditions: Vec<(Bytes, Condition)>,
    pub(super) then: Vec<Hook>,
    pub(super) tells: Vec<Topic>,
    pub(super) lane: Lane,
    pub(super) relaxed: bool,
    pub(super) tending: bool,
    /// The first key that could not be made: told at commit.
    pub(super) refused: Option<super::StoreError>,
}

impl Change {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    fn key(&mut self, view: &View, key: &[Part<'_>]) -> Option<Bytes> {
        match view.stored_key(key) {
            Ok(key) => Some(key),
            Err(error) => {
                self.refused.get_or_insert(error);
                None
            }
        }
    }

    fn act(&mut self, view: &View, key: &[Part<'_>], what: Do) -> &mut Self {
        if let Some(key) = self.key(view, key) {
            self.acts.push((key, what));
        }
        self
    }

    fn require(&mut self, view: &View, key: &[Part<'_>], condition: Condition) -> &mut Self {
        if let Some(key) = self.key(view, key) {
            self.conditions.push((key, condition));
        }
        self
    }

    /// Writes a record.
    pub fn put(&mut self, view: &View, key: &[Part<'_>], value: Zeroizing<Vec<u8>>) -> &mut Self {
        self.act(view, key, Do::Put(value))
    }
    /// Deletes a record, whether it exists or not.
    pub fn delete(&mut self, view: &View, key: &[Part<'_>]) -> &mut Self {
        self.act(view, key, Do::Delete)
    }
    /// There must be no such record.
    pub fn require_absent(&mut self, view: &View, key: &[Part<'_>]) -> &mut Self {
        self.require(view, key, Condition::Absent)
    }
    /// The record must have this version.
    pub fn require_version(&mut self, view: &View, key: &[Part<'_>], version: Version) -> &mut Self {
        self.require(view, key, Condition::Version(version))
    }
    /// The record must exist.
    pub fn require_exists(&mut self, view: &View, key: &[Part<'_>]) -> &mut Self {
        self.require(view, key, Condition::Exists)
    }

    /// Writes a record outside the barrier.
    pub fn put_raw(&mut self, table: RawTable, id: &[u8], value: Vec<u8>) -> &mut Self {
        self.acts.push((table::raw_key(table, id), Do::PutRaw(value)));
        self
    }
    /// Deletes a record outside the barrier.
    pub fn delete_raw(&mut self, table: RawTable, id: &[u8]) -> &mut Self {
        self.acts.push((table::raw_key(table, id), Do::Delete));
        self
    }
    /// There must be no such raw record.
    pub fn require_raw_absent(&mut self, table: RawTable, id: &[u8]) -> &mut Self {
        self.conditions.push((table::raw_key(table, id), Condition::Absent));
        self
    }
    /// The raw record must have this version.
    pub fn require_raw_version(&mut self, table: RawTable, id: &[u8], version: Version) -> &mut Self {
        self.conditions
            .push((table::raw_key(table, id), Condition::Version(version)));
        self
    }

    /// Runs on the commit thread, in commit order, after the change is durable and before its caller learns so: caches in memory follow
    /// the commit order. Must be quick, and must not panic (that stops the store).
    pub fn then(&mut self, hook: impl FnOnce() + Send + 'static) -> &mut Self {
        self.then.push(Box::new(hook));
        self
    }
    /// Whoever watches `topic` is told when the change is durable.
    pub fn tell(&mut self, topic: Topic) -> &mut Self {
        self.tells.push(topic);
        self
    }
    /// A large value: grouped apart, held back while the engine would stall. Changes above 64 KiB are bulk by themselves.
    pub fn bulk(&mut self) -> &mut Self {
        self.lane = Lane::Bulk;
        self
    }
    /// Evidence of a read or a refusal and nothing else: durable a moment after its answer, where the operator chose so ([`super::Evidence`]).
    pub fn relaxed() -> Self {
        Self {
            relaxed: true,
            ..Self::default()
        }
    }
    /// Revoke, seal, recovery: first in line, and possible from the reserve when the disk is full.
    pub fn urgent(&mut self) -> &mut Self {
        self.lane = Lane::Urgent;
        self
    }
    /// An operator looks how things stand, or makes room: possible from half of the reserve when the disk is full.
    pub fn tending(&mut self) -> &mut Self {
        self.tending = true;
        self
    }
    /// Adds all of another change after this one; its preconditions are counted on.
    pub fn merge(&mut self, other: Self) -> &mut Self {
        self.acts.extend(other.acts);
        self.conditions.extend(other.conditions);
        self.then.extend(other.then);
        self.tells.extend(other.tells);
        if self.lane == Lane::Normal {
            self.lane = other.lane;
        }
        self.refused = self.refused.take().or(other.refused);
        self
    }
    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.acts.is_empty()
    }
}
