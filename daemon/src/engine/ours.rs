//! Which sessions of a root account are ours.
//!
//! A server that cannot be told which run of the daemon a session belongs to is told nothing: whatever is logged in as the
//! root account and is not held by an engine of this process is a stranger. It is a session of a former run, one that was
//! given up, or somebody who knows a former password; ending it is what makes an account's absence worth something.

use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, Weak},
};

/// The sessions of one root account at one server that engines of this process hold.
#[derive(Default)]
pub(super) struct Ours {
    /// Connecting takes it for reading, so that who holds it for writing sees no session that is about to be entered here.
    pub entering: tokio::sync::RwLock<()>,
    ids: Mutex<HashSet<u64>>,
}

/// By server and account. A process has one engine a mount, two while a root credential rotates: those share their sessions.
static ALL: Mutex<BTreeMap<String, Weak<Ours>>> = Mutex::new(BTreeMap::new());

impl Ours {
    /// Those of `server`, which names the account too.
    pub fn of(server: String) -> Arc<Self> {
        let mut all = ALL.lock();
        all.retain(|_, ours| ours.strong_count() > 0);
        if let Some(ours) = all.get(&server).and_then(Weak::upgrade) {
            return ours;
        }
        let ours = Arc::new(Self::default());
        all.insert(server, Arc::downgrade(&ours));
        ours
    }

    /// Whether the session with this id is one of them.
    pub fn has(&self, id: u64) -> bool {
        self.ids.lock().contains(&id)
    }

    /// Enters a session for as long as what is returned lives.
    pub fn enter(self: &Arc<Self>, id: u64) -> Entered {
        self.ids.lock().insert(id);
        Entered(Arc::clone(self), id)
    }
}

/// A session's place among ours.
pub(super) struct Entered(Arc<Ours>, u64);

impl Drop for Entered {
    fn drop(&mut self) {
        self.0.ids.lock().remove(&self.1);
    }
}
