//! Deadlines, tokens, idempotency keys, retry, and what errors become.

use crate::fake::{Fake, Step};
use std::time::{Duration, Instant};
use strongroom_client::{Client, Error, Fields, Secret};
use tonic::Code;

const PATIENT: Duration = Duration::from_secs(10);

fn fields() -> Fields {
    [("value".to_owned(), Secret::from("v"))].into()
}

/// Every call carries the token and a deadline; every change a key of its own.
#[tokio::test]
async fn calls_carry_token_deadline_and_key() {
    let fake = Fake::start();
    fake.set_fields(&[("password", b"\xff\x00")]);
    let client = fake.client(PATIENT).await;
    let secret = client.get("kv/a").await.unwrap();
    assert_eq!(
        (secret.version, secret.field("password").unwrap().expose()),
        (3, &b"\xff\x00"[..])
    );
    assert_eq!(client.put("kv/a", &fields(), Some(3)).await.unwrap(), 4);
    client.set_token("srm_at_other").unwrap();
    client.put("kv/a", &fields(), None).await.unwrap();
    let gets = fake.seen("kv.get");
    let puts = fake.seen("kv.put");
    assert_eq!(gets[0].authorization.as_deref(), Some("Bearer srm_at_canary"));
    assert_eq!(puts[1].authorization.as_deref(), Some("Bearer srm_at_other"));
    assert!(gets.iter().chain(&puts).all(|seen| seen.has_deadline));
    assert!(puts.iter().all(|put| put.key.len() == 32));
    assert_ne!(puts[0].key, puts[1].key);
}

/// Unavailable is tried again, a change under the same key; nothing else is.
#[tokio::test]
async fn only_unavailable_is_repeated_under_one_key() {
    let fake = Fake::start();
    let client = fake.client(PATIENT).await;
    let busy = Step::Fail(Code::Unavailable, "STOPPING");
    fake.script("kv.get", &[busy.clone(), busy.clone()]);
    client.get("kv/a").await.unwrap();
    assert_eq!(fake.seen("kv.get").len(), 3);

    fake.script("kv.put", &[busy.clone(), busy.clone()]);
    client.put("kv/a", &fields(), None).await.unwrap();
    let puts = fake.seen("kv.put");
    assert_eq!(puts.len(), 3);
    assert!(puts.iter().all(|put| put.key == puts[0].key), "{puts:?}");

    for code in [
        Code::PermissionDenied,
        Code::FailedPrecondition,
        Code::InvalidArgument,
        Code::ResourceExhausted,
        Code::Internal,
    ] {
        let before = fake.seen("kv.get").len();
        fake.script("kv.get", &[Step::Fail(code, "X")]);
        client.get("kv/a").await.unwrap_err();
        assert_eq!(fake.seen("kv.get").len(), before + 1, "{code:?}");
    }
    // The daemon has waited for these itself.
    for reason in ["TARGET_UNAVAILABLE", "HSM_UNAVAILABLE"] {
        let before = fake.seen("kv.get").len();
        fake.script("kv.get", &[Step::Fail(Code::Unavailable, reason)]);
        let error = client.get("kv/a").await.unwrap_err();
        assert_eq!((error.reason(), error.kind()), (Some(reason), "unavailable"));
        assert_eq!(fake.seen("kv.get").len(), before + 1, "{reason}");
    }
}

/// Retries end: after four attempts, and at the deadline.
#[tokio::test]
async fn retry_is_bounded() {
    let fake = Fake::start();
    let client = fake.client(PATIENT).await;
    fake.script("kv.get", &vec![Step::Fail(Code::Unavailable, "STOPPING"); 9]);
    let error = client.get("kv/a").await.unwrap_err();
    assert!(
        matches!(&error, Error::Unavailable(r) if r.reason == "STOPPING"),
        "{error}"
    );
    assert_eq!(fake.seen("kv.get").len(), 4);
}

/// A sealed vault is told as such, at once.
#[tokio::test]
async fn sealed_is_its_own_error() {
    let fake = Fake::start();
    let client = fake.client(PATIENT).await;
    fake.script("kv.get", &[Step::Fail(Code::FailedPrecondition, "SEALED")]);
    let error = client.get("kv/a").await.unwrap_err();
    assert!(matches!(error, Error::Sealed(_)), "{error}");
    assert_eq!(fake.seen("kv.get").len(), 1);
}

/// No answer within the deadline: a read is unavailable, a change indeterminate.
#[tokio::test]
async fn no_answer_within_the_deadline() {
    let fake = Fake::start();
    let client = fake.client(Duration::from_millis(300)).await;
    fake.script("kv.get", &[Step::Hang]);
    fake.script("kv.put", &[Step::Hang]);
    let begin = Instant::now();
    let read = client.get("kv/a").await.unwrap_err();
    assert!(matches!(read, Error::Unavailable(_)), "{read}");
    let change = client.put("kv/a", &fields(), None).await.unwrap_err();
    assert!(matches!(change, Error::Indeterminate(_)), "{change}");
    assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
}

/// R-STORE-1, the client's part: a daemon that dies with the change in hand leaves it indeterminate; a
/// read goes on by itself once the daemon is back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_that_dies_in_the_middle() {
    let mut fake = Fake::start();
    let client = fake.client(Duration::from_secs(5)).await;
    fake.script("kv.put", &[Step::Hang]);
    let put = tokio::spawn({
        let client = client.clone();
        async move { client.put("kv/a", &fields(), None).await }
    });
    fake.until_seen("kv.put", 1).await;
    tokio::task::block_in_place(|| fake.kill());
    let error = put.await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Indeterminate(_)), "{error}");

    let get = tokio::spawn(async move { client.get("kv/a").await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    fake.revive();
    get.await.unwrap().unwrap();
}

/// What was never sent is not indeterminate: the change was certainly not made.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_was_never_sent_is_unavailable() {
    let mut fake = Fake::start();
    let client = fake.client(Duration::from_secs(2)).await;
    tokio::task::block_in_place(|| fake.kill());
    // The channel may still hold the connection that broke: the first call finds out.
    let _ = client.get("kv/a").await;
    let error = client.put("kv/a", &fields(), None).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable(_)), "{error}");
}

/// Connecting tells at once, and in words, that nobody is there.
#[tokio::test]
async fn an_absent_daemon_is_told_at_connect() {
    let dir = tempfile::tempdir().unwrap();
    let address = format!("unix:{}/none.sock", dir.path().display());
    let error = Client::builder().address(&address).connect().await.unwrap_err();
    assert!(
        matches!(&error, Error::Unavailable(r) if r.message.contains(&address)),
        "{error}"
    );
    assert!(error.to_string().contains("strongroomd"), "{error}");
}
