//! What every kind of engine must do, run against its real server. A kind gives a [`Bench`]; all acts are the trait's.

use super::{Definition, DynamicRole, Engine, EngineError, Fields, Root, password};
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

/// A real target with an engine on it.
#[async_trait::async_trait]
pub(crate) trait Bench {
    /// The engine under test.
    fn engine(&self) -> Arc<dyn Engine>;
    /// Another over the same target, with another root account.
    fn engine_as(&self, root: Root) -> Arc<dyn Engine>;
    /// The run of the daemon that both belong to.
    fn boot(&self) -> BootId;
    /// A dynamic role that works here.
    fn role(&self) -> String;
    /// An existing account.
    fn account(&self) -> String;
    /// Whether a credential works: a log-in and one use, by a client that is not ours.
    async fn works(&self, name: &str, secret: &[u8]) -> bool;
    /// Whether the account exists, by the target's own administrator.
    async fn exists(&self, name: &str) -> bool;
}

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

pub(crate) async fn make(bench: &dyn Bench, engine: &dyn Engine) -> (Plan, Fields) {
    let role = dynamic(&bench.role());
    let plan = engine
        .plan(LeaseId::random(&OsRandom), "conformance", &role)
        .await
        .unwrap();
    let expires = SystemClock::default().now().plus_secs(600);
    let fields = engine
        .create(&Durable::for_test(), &plan, &role, expires)
        .await
        .unwrap();
    assert_eq!(
        field(&fields, "username"),
        plan.account.as_bytes(),
        "the account's name is known before the account is made"
    );
    (plan, fields)
}

/// R-LEASE-1, R-LEASE-3, R-ROT-1: everything.
pub(crate) async fn run(bench: &dyn Bench) {
    a_life(bench).await;
    never_was(bench).await;
    an_existing_account(bench).await;
    root_accounts_take_turns(bench).await;
}

async fn a_life(bench: &dyn Bench) {
    let engine = bench.engine();
    let durable = Durable::for_test();
    let (plan, fields) = make(bench, &*engine).await;
    let secret = field(&fields, "password");
    assert!(bench.works(&plan.account, secret).await);
    engine
        .renew(&durable, &plan, SystemClock::default().now().plus_secs(1200))
        .await
        .unwrap();
    assert!(bench.works(&plan.account, secret).await);
    let again = engine
        .create(
            &durable,
            &plan,
            &dynamic(&bench.role()),
            SystemClock::default().now().plus_secs(600),
        )
        .await;
    assert!(matches!(again, Err(EngineError::Refused(_))), "an account is made once");
    for _ in 0..2 {
        engine.revoke(&durable, &plan, &seen(bench.boot())).await.unwrap();
        assert!(!bench.works(&plan.account, secret).await);
        assert!(!bench.exists(&plan.account).await);
    }
    let renewed = engine
        .renew(&durable, &plan, SystemClock::default().now().plus_secs(1200))
        .await;
    assert!(matches!(renewed, Err(EngineError::Refused(_))), "{renewed:?}");
}

/// R-LEASE-2: an account that is not there is believed to be gone only once it cannot appear any more.
async fn never_was(bench: &dyn Bench) {
    let engine = bench.engine();
    let durable = Durable::for_test();
    let plan = engine
        .plan(LeaseId::random(&OsRandom), "never", &dynamic(&bench.role()))
        .await
        .unwrap();
    let early = engine.revoke(&durable, &plan, &unseen(bench.boot(), false)).await;
    assert!(matches!(early, Err(EngineError::NotYet(_))), "{early:?}");
    engine
        .revoke(&durable, &plan, &unseen(bench.boot(), true))
        .await
        .unwrap();
    let earlier = BootId::random(&OsRandom);
    engine.revoke(&durable, &plan, &unseen(earlier, true)).await.unwrap();
    let (plan, _) = make(bench, &*engine).await;
    engine.revoke(&durable, &plan, &unseen(earlier, false)).await.unwrap();
    assert!(
        !bench.exists(&plan.account).await,
        "one that is there is ended at any time"
    );
}

async fn an_existing_account(bench: &dyn Bench) {
    let engine = bench.engine();
    let account = bench.account();
    let (first, second) = (password(&OsRandom), password(&OsRandom));
    for secret in [&first, &second] {
        engine
            .set_password(&Durable::for_test(), &account, secret)
            .await
            .unwrap();
        assert!(engine.try_password(&account, secret).await.unwrap());
        assert!(bench.works(&account, secret.expose()).await);
    }
    assert!(!engine.try_password(&account, &first).await.unwrap());
    let nobody = engine.set_password(&Durable::for_test(), "nobody there", &first).await;
    assert!(matches!(nobody, Err(EngineError::Config(_))), "{nobody:?}");
}

/// R-ROT-1: a successor can all that its predecessor could, also revoke what that one made.
async fn root_accounts_take_turns(bench: &dyn Bench) {
    let durable = Durable::for_test();
    let mut engine = bench.engine();
    for _ in 0..3 {
        let (plan, fields) = make(bench, &*engine).await;
        let secret = password(&OsRandom);
        let next = Root {
            account: engine.successor(),
            secret: SecretBytes::from(secret.expose()),
        };
        let name = next.account.clone();
        for _ in 0..2 {
            engine.create_root(&durable, &next).await.unwrap();
        }
        let successor = bench.engine_as(next);
        successor.check_root().await.unwrap();
        assert_eq!(successor.root_account(), name);
        let former = engine.root_account().to_owned();
        engine.drain().await;
        assert!(matches!(
            engine.renew(&durable, &plan, Timestamp(0)).await,
            Err(EngineError::Draining)
        ));
        for _ in 0..2 {
            successor.retire_root(&durable, &former).await.unwrap();
        }
        successor.revoke(&durable, &plan, &seen(bench.boot())).await.unwrap();
        assert!(!bench.works(&plan.account, field(&fields, "password")).await);
        engine = successor;
    }
}
