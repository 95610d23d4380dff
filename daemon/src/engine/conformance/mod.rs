//! What every kind of engine must do, run against its real server. A kind gives a [`Bench`] and calls `conformance!` in its
//! tests. Reading order: this file (the engine alone), `lab` (the rooms around it), `life` (what they do together).

pub(crate) mod lab;
pub(crate) mod life;
mod piped;

pub(crate) use piped::Piped;

use super::{Definition, DynamicRole, Engine, EngineError, Fields, Kind, Root, Surroundings, password};
use crate::{
    base::{
        id::{BootId, LeaseId},
        random::OsRandom,
        secret::SecretBytes,
        time::{Clock, SystemClock, Timestamp},
    },
    lease::{Birth, Durable, Plan},
};
use std::sync::Arc;

/// A real target, prepared as the kind's README asks.
#[async_trait::async_trait]
pub(crate) trait Bench: Sized + Send + Sync + 'static {
    /// Which kind.
    const KIND: Kind;
    /// A new server.
    fn start() -> Self;
    /// How to reach it.
    fn config_json(&self) -> String;
    /// The root account at set-up.
    fn root(&self) -> Root;
    /// A dynamic role that works here, JSON without times.
    fn role(&self) -> &'static str;
    /// An existing account.
    fn account(&self) -> &'static str;
    /// A log-in, by a client that is not the engine; `None`: refused.
    async fn log_in(&self, name: &str, secret: &[u8]) -> Option<Box<dyn Session>>;
    /// Names of accounts that engines of this project made, as the target's own administrator sees them.
    fn accounts(&self) -> Vec<String>;
    /// Names of accounts that can log in and make others, but for the administrator's own.
    fn roots(&self) -> Vec<String>;
    /// Drops an account as the administrator, past the engine.
    fn drop_by_hand(&self, name: &str);
    /// Everything that the server has been told or has said.
    fn log(&self) -> String;
    /// Words of that log that show that it does hold what was done.
    fn logged(&self) -> &'static str;
    /// Ends the server and all its sessions at once.
    fn stop(&mut self);
    /// Starts it again.
    fn resume(&mut self);
    /// Takes a right from the root account; says what the configuration test must complain of.
    fn cripple(&self) -> &'static str;
    /// Gives it back.
    fn mend(&self);
    /// Makes every creation of an account wait inside the server until what is returned is dropped; `None` where a
    /// server does one thing after the other and nothing can wait in it.
    async fn hold(&self) -> Option<Box<dyn Send + Sync>>;
    /// Whether a creation waits.
    fn stuck(&self) -> bool;
    /// Ends the creation that waits, as the administrator.
    fn end_stuck(&self);

    /// Whether a credential works: a log-in and one use.
    async fn works(&self, name: &str, secret: &[u8]) -> bool {
        match self.log_in(name, secret).await {
            Some(mut session) => session.works().await,
            None => false,
        }
    }
}

/// An open session of somebody.
#[async_trait::async_trait]
pub(crate) trait Session: Send + Sync {
    /// Says something that needs no right.
    async fn alive(&mut self) -> bool;
    /// Uses what the role gives.
    async fn works(&mut self) -> bool;
}

/// The suite, as tests of the kind's own module.
macro_rules! conformance {
    ($bench:ty) => {
        crate::engine::conformance::conformance! { $bench:
            conforms
            a_credential_lives_and_dies
            a_crash_at_any_step_leaves_nothing_untracked
            a_create_stuck_in_the_server_never_surfaces
            a_server_that_is_down_is_waited_for
            a_static_account_rotates_under_a_client
            a_static_rotation_survives_a_crash_at_any_step
            followers_do_not_wait_for_a_rotation
            the_root_credential_rotates_and_successors_revoke_what_predecessors_made
            a_root_rotation_survives_a_crash_at_any_step
            a_mount_is_tested_before_it_is_kept
            strays_and_missing_accounts_are_found
            a_comparison_under_way_takes_nobody_for_a_stray
        }
    };
    ($bench:ty: $($name:ident)*) => {
        mod conformance {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $name() {
                    crate::engine::conformance::life::$name::<$bench>().await;
                }
            )*
        }
    };
}
pub(crate) use conformance;

pub(crate) fn field<'f>(fields: &'f Fields, name: &str) -> &'f [u8] {
    fields.iter().find(|(known, _)| *known == name).unwrap().1.expose()
}

pub(crate) fn dynamic(json: &str) -> DynamicRole {
    match Definition::parse(json).unwrap() {
        Definition::Dynamic(role) => role,
        Definition::Static(_) => panic!("not dynamic"),
    }
}

/// Seen by its maker.
pub(crate) fn seen(boot: BootId) -> Birth {
    Birth::of_test(boot)
}

/// Perhaps never made.
pub(crate) fn unseen(boot: BootId, deadline_passed: bool) -> Birth {
    Birth {
        activated: false,
        boot,
        deadline: Timestamp(0),
        deadline_passed,
    }
}

/// A run of the daemon.
pub(crate) fn around() -> Surroundings {
    Surroundings {
        boot: BootId::random(&OsRandom),
        clock: Arc::new(SystemClock::default()),
        random: Arc::new(OsRandom),
    }
}

fn soon() -> Timestamp {
    SystemClock::default().now().plus_secs(600)
}

/// The suite that needs no rooms. It remembers each password, so that the server's log can be searched for them.
pub(crate) struct Alone<'b, B: Bench> {
    bench: &'b B,
    around: Surroundings,
    secrets: parking_lot::Mutex<Vec<String>>,
}

impl<'b, B: Bench> Alone<'b, B> {
    pub fn new(bench: &'b B) -> Self {
        Self {
            bench,
            around: around(),
            secrets: parking_lot::Mutex::default(),
        }
    }

    fn engine_as(&self, root: &Root) -> Arc<dyn Engine> {
        self.remember(root.secret.expose());
        B::KIND.open(&self.bench.config_json(), root, &self.around).unwrap()
    }

    fn engine(&self) -> Arc<dyn Engine> {
        self.engine_as(&self.bench.root())
    }

    fn remember(&self, secret: &[u8]) {
        self.secrets.lock().push(String::from_utf8(secret.to_vec()).unwrap());
    }

    fn boot(&self) -> BootId {
        self.around.boot
    }

    fn exists(&self, name: &str) -> bool {
        self.bench.accounts().iter().any(|account| account == name)
    }

    /// An account that no lease room knows.
    pub async fn stray(&self) -> (Plan, Fields) {
        self.make(&*self.engine()).await
    }

    async fn make(&self, engine: &dyn Engine) -> (Plan, Fields) {
        let role = dynamic(self.bench.role());
        let plan = engine
            .plan(LeaseId::random(&OsRandom), "conformance", &role)
            .await
            .unwrap();
        let fields = engine.create(&Durable::for_test(), &plan, &role, soon()).await.unwrap();
        assert_eq!(
            field(&fields, "username"),
            plan.account.as_bytes(),
            "the account's name is known before the account is made"
        );
        self.remember(field(&fields, "password"));
        (plan, fields)
    }

    /// R-LEASE-1, R-LEASE-3, R-ROT-1: everything.
    pub async fn run(&self) {
        self.a_life().await;
        self.never_was().await;
        self.an_existing_account().await;
        self.root_accounts_take_turns().await;
        let log = self.bench.log();
        assert!(log.contains(self.bench.logged()), "the log does hold what was done");
        for secret in self.secrets.lock().iter() {
            assert!(!log.contains(secret), "a password is in the server's log");
        }
    }

    async fn a_life(&self) {
        let engine = self.engine();
        let durable = Durable::for_test();
        let (plan, fields) = self.make(&*engine).await;
        let secret = field(&fields, "password");
        let mut session = self.bench.log_in(&plan.account, secret).await.unwrap();
        assert!(session.works().await && self.exists(&plan.account));
        engine.renew(&durable, &plan, soon().plus_secs(600)).await.unwrap();
        assert!(self.bench.works(&plan.account, secret).await);
        let again = engine
            .create(&durable, &plan, &dynamic(self.bench.role()), soon())
            .await;
        assert!(matches!(again, Err(EngineError::Refused(_))), "an account is made once");
        assert!(session.works().await);
        for _ in 0..2 {
            engine.revoke(&durable, &plan, &seen(self.boot())).await.unwrap();
            assert!(!session.alive().await, "an open session's next statement fails");
            assert!(!self.bench.works(&plan.account, secret).await);
            assert!(!self.exists(&plan.account));
        }
        let renewed = engine.renew(&durable, &plan, soon()).await;
        assert!(matches!(renewed, Err(EngineError::Refused(_))), "{renewed:?}");
    }

    /// R-LEASE-2: an account that is not there is believed to be gone only once it cannot appear any more.
    async fn never_was(&self) {
        let engine = self.engine();
        let durable = Durable::for_test();
        let plan = engine
            .plan(LeaseId::random(&OsRandom), "never", &dynamic(self.bench.role()))
            .await
            .unwrap();
        let early = engine.revoke(&durable, &plan, &unseen(self.boot(), false)).await;
        assert!(matches!(early, Err(EngineError::NotYet(_))), "{early:?}");
        engine
            .revoke(&durable, &plan, &unseen(self.boot(), true))
            .await
            .unwrap();
        let earlier = BootId::random(&OsRandom);
        engine.revoke(&durable, &plan, &unseen(earlier, true)).await.unwrap();
        let (plan, _) = self.make(&*engine).await;
        engine.revoke(&durable, &plan, &unseen(earlier, false)).await.unwrap();
        assert!(!self.exists(&plan.account), "one that is there is ended at any time");
    }

    async fn an_existing_account(&self) {
        let engine = self.engine();
        let account = self.bench.account();
        let (first, second) = (password(&OsRandom), password(&OsRandom));
        for secret in [&first, &second] {
            self.remember(secret.expose());
            engine
                .set_password(&Durable::for_test(), account, secret)
                .await
                .unwrap();
            assert!(engine.try_password(account, secret).await.unwrap());
            assert!(self.bench.works(account, secret.expose()).await);
        }
        assert!(!engine.try_password(account, &first).await.unwrap());
        for name in ["nobody_there", &self.bench.root().account] {
            let refused = engine.set_password(&Durable::for_test(), name, &first).await;
            assert!(matches!(refused, Err(EngineError::Config(_))), "{name}: {refused:?}");
        }
    }

    /// R-ROT-1: a successor can all that its predecessor could, also revoke what that one made.
    async fn root_accounts_take_turns(&self) {
        let durable = Durable::for_test();
        let mut engine = self.engine();
        let mut present = self.bench.root();
        for _ in 0..3 {
            let (plan, fields) = self.make(&*engine).await;
            let next = Root {
                account: engine.successor(),
                secret: password(&OsRandom),
            };
            for _ in 0..2 {
                engine.create_root(&durable, &next).await.unwrap();
            }
            let mut stranger = self
                .bench
                .log_in(&present.account, present.secret.expose())
                .await
                .unwrap();
            assert!(stranger.alive().await);
            let successor = self.engine_as(&next);
            successor.check_root().await.unwrap();
            assert_eq!(successor.root_account(), next.account);
            let former = engine.root_account().to_owned();
            engine.drain().await;
            assert!(matches!(
                engine.renew(&durable, &plan, Timestamp(0)).await,
                Err(EngineError::Draining)
            ));
            for _ in 0..2 {
                successor.retire_root(&durable, &former).await.unwrap();
            }
            assert!(!stranger.alive().await, "nobody stays in by the former credential");
            let again = self.bench.log_in(&present.account, present.secret.expose()).await;
            assert!(again.is_none(), "the former credential is dead");
            successor.revoke(&durable, &plan, &seen(self.boot())).await.unwrap();
            assert!(!self.bench.works(&plan.account, field(&fields, "password")).await);
            engine = successor;
            present = Root {
                account: next.account,
                secret: SecretBytes::from(next.secret.expose()),
            };
        }
    }
}
