//! Places where a test can stop the world: `failpoint!(boot, "lease.after-intent")`. A task that comes to an armed one
//! stays there for ever, as after a power cut; the test drops it and opens the rooms anew. Keyed by the run of the daemon, so
//! that tests beside each other do not meet. Outside the crate's own tests the macro is nothing.

/// Stops here if a test says so; nothing outside tests.
#[macro_export]
macro_rules! failpoint {
    ($boot:expr, $name:literal) => {
        #[cfg(test)]
        $crate::base::failpoint::hit($boot, $name).await;
    };
}

#[cfg(test)]
pub use armed::{Armed, arm, hit};

#[cfg(test)]
mod armed {
    use crate::base::id::BootId;
    use parking_lot::Mutex;
    use std::{collections::HashMap, sync::Arc};
    use tokio::sync::Notify;

    type Points = HashMap<(BootId, &'static str), Arc<Notify>>;
    static ARMED: Mutex<Option<Points>> = Mutex::new(None);

    /// An armed failpoint; disarmed on drop.
    pub struct Armed(BootId, &'static str, Arc<Notify>);

    impl Armed {
        /// Until a task has come there.
        pub async fn reached(&self) {
            self.2.notified().await;
        }
    }

    impl Drop for Armed {
        fn drop(&mut self) {
            ARMED.lock().get_or_insert_default().remove(&(self.0, self.1));
        }
    }

    /// Arms `name` for one run of the daemon.
    pub fn arm(boot: BootId, name: &'static str) -> Armed {
        let reached = Arc::new(Notify::new());
        ARMED
            .lock()
            .get_or_insert_default()
            .insert((boot, name), reached.clone());
        Armed(boot, name, reached)
    }

    /// See the macro.
    pub async fn hit(boot: BootId, name: &'static str) {
        let armed = ARMED.lock().get_or_insert_default().get(&(boot, name)).cloned();
        if let Some(reached) = armed {
            reached.notify_one();
            std::future::pending::<()>().await;
        }
    }
}
